// Package enrich adds to events what the gateway knows and the switch does not: numbers in E.164, and from a table of
// dialed numbers the tenant, the queue and a label.
//
// It never guesses. A number that is not certainly a public one (an extension, a short code, a national number
// without a default region) stays as given and gets no E.164.
package enrich

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// Attributes that the table sets. A value that the switch itself gave under the same name stays.
const (
	AttrTenant = "tenant"
	AttrQueue  = "queue"
	AttrLabel  = "label"
)

// Number says what a dialed number, or every dialed number with a prefix, stands for. Exactly one of Dialed and Prefix
// is set. Both are compared with the number as the switch gives it and with its E.164; punctuation does not count.
type Number struct {
	Dialed string
	Prefix string
	Tenant string
	Queue  string
	Label  string
}

// Options are what New needs.
type Options struct {
	DefaultRegion string // ISO 3166 region in which national numbers are read ("DE"); empty: only +numbers have E.164
	Numbers       []Number
	CacheSize     int // numbers remembered; default 20,000 (about 4 MB)
}

// New makes the enrichers that o asks for, in the order they must run. They are not safe for concurrent use.
func New(o Options) ([]core.Enricher, error) {
	if o.DefaultRegion != "" && phonenumbers.GetCountryCodeForRegion(o.DefaultRegion) == 0 {
		return nil, fmt.Errorf("enrich: default_region: %q is no region with a telephone numbering plan: use ISO 3166, such as US or DE", o.DefaultRegion)
	}
	if o.CacheSize <= 0 {
		o.CacheSize = 20_000
	}
	t, err := newTable(o)
	if err != nil {
		return nil, err
	}
	return []core.Enricher{&enricher{region: o.DefaultRegion, table: t, cache: newCache(o.CacheSize)}}, nil
}

// enricher does all in one pass, so that what it changes is copied once.
type enricher struct {
	region string
	table  *table
	cache  *cache
}

// fact is what is known of one number.
type fact struct {
	number  string // as given, in memory of its own
	e164    string
	address *call.Address // Number and E164, shared by all calls without a name; nil without E164
	row     *row          // of the table, when dialed
}

// Enrich replaces what it adds to and changes nothing in place. Enriching twice is enriching once.
func (n *enricher) Enrich(e *call.Event) {
	if p := e.Party; p != nil && p.Number != "" && p.E164 == "" {
		if f := n.fact(p.Number); f.e164 != "" {
			q := *p
			q.E164 = f.e164
			e.Party = &q
		}
	}
	if e.Call != nil {
		e.Call = n.enriched(e.Call)
	}
}

// enriched returns c, or a copy with what was added.
func (n *enricher) enriched(c *call.Call) *call.Call {
	from, to := n.address(c.From), n.address(c.To)
	conns := n.connections(c.Connections)
	attrs := c.Attributes
	if c.To != nil && n.table != nil {
		attrs = n.fact(c.To.Number).row.onto(attrs)
	}
	if from == c.From && to == c.To && conns == nil && sameMap(attrs, c.Attributes) {
		return c
	}
	d := *c
	d.From, d.To, d.Attributes = from, to, attrs
	if conns != nil {
		d.Connections = conns
	}
	return &d
}

func (n *enricher) address(a *call.Address) *call.Address {
	if a == nil || a.Number == "" || a.E164 != "" {
		return a
	}
	f := n.fact(a.Number)
	switch {
	case f.e164 == "":
		return a
	case a.Name == "":
		return f.address
	}
	return &call.Address{Number: a.Number, E164: f.e164, Name: a.Name}
}

// connections returns a copy with the parties' E.164, or nil when there is nothing to add.
func (n *enricher) connections(all []*call.Connection) (copied []*call.Connection) {
	for i, k := range all {
		if k.Party.Number == "" || k.Party.E164 != "" {
			continue
		}
		f := n.fact(k.Party.Number)
		if f.e164 == "" {
			continue
		}
		if copied == nil {
			copied = append(make([]*call.Connection, 0, len(all)), all...)
		}
		d := *k
		d.Party.E164 = f.e164
		copied[i] = &d
	}
	return copied
}

func (n *enricher) fact(number string) *fact {
	if f := n.cache.get(number); f != nil {
		return f
	}
	if len(number) > maxNumber {
		return &noFact
	}
	number = strings.Clone(number) // it may be a slice of a whole frame
	f := &fact{number: number, e164: E164(number, n.region)}
	if f.e164 != "" {
		f.address = &call.Address{Number: number, E164: f.e164}
	}
	f.row = n.table.find(number, f.e164)
	n.cache.put(f)
	return f
}

// noFact is what is known of something too long to be a number.
var noFact fact

// sameMap reports whether a and b are one map: onto returns its argument when it adds nothing.
func sameMap(a, b map[string]string) bool { return len(a) == len(b) }

// row is what the table adds.
type row struct {
	attrs map[string]string // immutable: calls without attributes of their own share it
}

// onto returns attrs with what r adds, attrs itself when that is nothing.
func (r *row) onto(attrs map[string]string) map[string]string {
	if r == nil {
		return attrs
	}
	if len(attrs) == 0 {
		return r.attrs
	}
	var merged map[string]string
	for k, v := range r.attrs {
		if _, given := attrs[k]; given {
			continue
		}
		if merged == nil {
			merged = maps.Clone(attrs)
		}
		merged[k] = v
	}
	if merged == nil {
		return attrs
	}
	return merged
}

// table finds a dialed number's row: the exact one, else the one with the longest prefix.
type table struct {
	exact    map[string]*row
	prefixes map[string]*row
	lengths  []int // of prefixes, longest first
}

func newTable(o Options) (*table, error) {
	if len(o.Numbers) == 0 {
		return nil, nil
	}
	t := &table{exact: map[string]*row{}, prefixes: map[string]*row{}}
	var errs []error
	for i, n := range o.Numbers {
		if err := t.add(n); err != nil {
			errs = append(errs, fmt.Errorf("enrich: numbers[%d]: %w", i, err))
		}
	}
	for _, n := range o.Numbers { // where no row names the E.164 itself
		if e := E164(n.Dialed, o.DefaultRegion); e != "" && t.exact[e] == nil {
			t.exact[e] = t.exact[plain(n.Dialed)]
		}
	}
	t.sortLengths()
	return t, errors.Join(errs...)
}

func (t *table) add(n Number) error {
	if (n.Dialed == "") == (n.Prefix == "") {
		return errors.New("needs exactly one of dialed and prefix")
	}
	in, key := t.exact, plain(n.Dialed)
	if n.Dialed == "" {
		in, key = t.prefixes, plain(n.Prefix)
	}
	if key == "" {
		return fmt.Errorf("%q has no digits", n.Dialed+n.Prefix)
	}
	if in[key] != nil {
		return fmt.Errorf("%s is named twice: keep one", key)
	}
	r := &row{attrs: map[string]string{}}
	for k, v := range map[string]string{AttrTenant: n.Tenant, AttrQueue: n.Queue, AttrLabel: n.Label} {
		if v != "" {
			r.attrs[k] = v
		}
	}
	in[key] = r
	return nil
}

func (t *table) sortLengths() {
	longest := 0
	has := map[int]bool{}
	for p := range t.prefixes {
		has[len(p)] = true
		longest = max(longest, len(p))
	}
	for n := longest; n > 0; n-- {
		if has[n] {
			t.lengths = append(t.lengths, n)
		}
	}
}

func (t *table) find(number, e164 string) *row {
	if t == nil {
		return nil
	}
	given := plain(number)
	for _, n := range []string{given, e164} {
		if r := t.exact[n]; r != nil {
			return r
		}
	}
	for _, length := range t.lengths {
		for _, n := range []string{given, e164} {
			if len(n) >= length && t.prefixes[n[:length]] != nil {
				return t.prefixes[n[:length]]
			}
		}
	}
	return nil
}
