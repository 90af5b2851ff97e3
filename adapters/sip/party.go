package sip

import (
	"net/netip"
	"slices"
	"strings"

	sipgo "github.com/emiago/sipgo/sip"
)

// identity is who a request says is calling.
type identity struct{ number, name string }

// identify takes the caller from From, or, where From withholds it, from P-Asserted-Identity (RFC 3325) or
// Remote-Party-ID.
func identify(m *message) identity {
	from := m.from()
	id := identity{from.Address.User, unquote(from.DisplayName)}
	if from.Address.Scheme == "tel" {
		id.number, _, _ = strings.Cut(from.Address.Raw(), ";")
	}
	if id.number != "" && !strings.EqualFold(id.number, "anonymous") && !strings.HasSuffix(strings.ToLower(from.Address.Host), "anonymous.invalid") {
		return id
	}
	for _, name := range [...]string{"p-asserted-identity", "remote-party-id", "p-preferred-identity"} {
		if a, ok := parseAddr(m.header(name)); ok && a.user != "" {
			return identity{a.user, a.name}
		}
	}
	if strings.EqualFold(id.number, "anonymous") {
		return identity{}
	}
	return id
}

// isPhoneNumber reports whether a user part leads out of the house: a number of at least seven digits.
func isPhoneNumber(user string) bool {
	digits := strings.TrimPrefix(user, "+")
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return len(digits) >= 7
}

// nobodies are what switches show for callers that they cannot or may not name.
var nobodies = [...]string{"anonymous", "unknown", "asterisk", "freeswitch", "unavailable", "restricted", "private", "withheld", "0000000000"}

// numberKey is under what a number is filed, whatever prefix it has: the last seven digits of a phone number, else the
// whole user part. Empty for none. sameNumber tells those apart that share a key.
func numberKey(user string) string {
	for _, nobody := range nobodies {
		if strings.EqualFold(user, nobody) {
			return ""
		}
	}
	if isPhoneNumber(user) {
		return user[len(user)-7:]
	}
	return strings.ToLower(user)
}

// sameNumber reports whether a and b are the same but for a prefix that a switch has added or taken: +, 00, a trunk zero,
// a country code, a digit for an outside line.
func sameNumber(a, b string) bool {
	if !isPhoneNumber(a) || !isPhoneNumber(b) {
		return a != "" && strings.EqualFold(a, b)
	}
	a, b = strings.TrimLeft(a, "+0"), strings.TrimLeft(b, "+0")
	return len(a) >= 7 && strings.HasSuffix(b, a) || len(b) >= 7 && strings.HasSuffix(a, b)
}

// roles is what is known of addresses and users: which are switches, and which users log in to them.
type roles struct {
	configured []netip.Prefix
	ports      map[netip.AddrPort]bool // configured with a port
	learned    map[netip.AddrPort]bool
	users      map[string]bool   // of address-of-records seen registering
	contacts   map[string]string // user part of a contact: the user it is of
}

// Bounds of what roles remembers.
const (
	maxLearned = 4096
	maxUsers   = 100_000
)

func newRoles(pbx []string) roles {
	r := roles{ports: map[netip.AddrPort]bool{}, learned: map[netip.AddrPort]bool{}, users: map[string]bool{}, contacts: map[string]string{}}
	for _, s := range pbx {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			r.ports[netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())] = true
		} else if p, err := parsePrefix(s); err == nil {
			r.configured = append(r.configured, p)
		}
	}
	return r
}

// parsePrefix reads an address or a CIDR block.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// known reports whether a is a switch's: configured, or learned.
func (r *roles) known(a netip.AddrPort) bool {
	if r.isConfigured(a) {
		return true
	}
	return r.learned[a]
}

// isSwitch reports whether the sender of m, at a, is a switch.
func (r *roles) isSwitch(a netip.AddrPort, m *message) bool { return r.known(a) || r.names(m) }

// switchNames are words in the User-Agent or Server of switches that have both sides of a call.
var switchNames = [...]string{"asterisk", "freeswitch", "fpbx", "3cx", "broadworks", "yate", "cisco-cucm"}

// bothConfigured reports whether a and b were configured as addresses of switches.
func (r *roles) bothConfigured(a, b netip.AddrPort) bool {
	return r.isConfigured(a) && r.isConfigured(b)
}

func (r *roles) isConfigured(a netip.AddrPort) bool {
	return r.ports[a] || slices.ContainsFunc(r.configured, func(p netip.Prefix) bool { return p.Contains(a.Addr()) })
}

// names reports whether m's sender calls itself a switch. Once one has been configured, only those count that were.
func (r *roles) names(m *message) bool {
	if len(r.configured)+len(r.ports) > 0 {
		return false
	}
	s := strings.ToLower(m.software())
	for _, name := range switchNames {
		if strings.Contains(s, name) && !strings.HasPrefix(s, "3cxphone ") {
			return true
		}
	}
	return false
}

// learn notes that a is a switch's. When there are maxLearned, those that came first stay: somebody may make up others.
func (r *roles) learn(a netip.AddrPort) {
	if len(r.learned) < maxLearned {
		r.learned[a] = true
	}
}

// register learns a user, and the user parts of its contacts, from a REGISTER that was accepted.
func (r *roles) register(m *message) {
	if m.status != 200 {
		return
	}
	user := m.to().Address.User
	if user == "" {
		return
	}
	if len(r.users) >= maxUsers { // those who still are will register again
		clear(r.users)
	}
	if len(r.contacts) >= maxUsers {
		clear(r.contacts)
	}
	r.users[user] = true
	for _, h := range m.headers() {
		if c, ok := h.(*sipgo.ContactHeader); ok && c.Address.User != "" {
			r.contacts[c.Address.User+"@"+c.Address.HostPort()] = user
			if other, ok := r.contacts[c.Address.User]; ok && other != user {
				r.contacts[c.Address.User] = "" // phones of several users call their contacts so
			} else {
				r.contacts[c.Address.User] = user
			}
		}
	}
}

func (r *roles) registered(user string) bool { return r.users[user] }

// userOf is the user whom a request to user at a host and port reaches: phones register contacts with names of their own.
func (r *roles) userOf(user, at string) string {
	if u, ok := r.contacts[user+"@"+at]; ok {
		return u
	}
	if u := r.contacts[user]; u != "" && !r.users[user] {
		return u
	}
	return user
}

// meetNamed notes the addresses that m names for its sender and for those that stay in the path of the dialog: Contact,
// Record-Route, and where a Via was received from.
func (d *dialog) meetNamed(m *message) {
	for _, h := range m.headers() {
		switch h := h.(type) {
		case *sipgo.ContactHeader:
			d.meetHost(h.Address.Host)
		case *sipgo.RecordRouteHeader:
			d.meetHost(h.Address.Host)
		case *sipgo.ViaHeader:
			if ip, ok := h.Params.Get("received"); ok {
				d.meetHost(ip)
			}
		}
	}
}

func (d *dialog) meetHost(host string) {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		d.meet(a.Unmap())
	}
}
