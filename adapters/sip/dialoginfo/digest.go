package dialoginfo

import (
	"crypto/md5" //nolint:gosec // RFC 7616 has it still, and most PBXs nothing else
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// challenge is one WWW-Authenticate or Proxy-Authenticate that can be answered (RFC 7616).
type challenge struct {
	realm, nonce, opaque, algorithm string
	qop                             bool // qop=auth is offered
	stale                           bool
	proxy                           bool
	count                           uint32 // answers given with this nonce
}

// newHash gives the digest's function; nil for an algorithm that is not known.
func newHash(algorithm string) func() hash.Hash {
	switch strings.ToUpper(algorithm) {
	case "", "MD5", "MD5-SESS":
		return md5.New
	case "SHA-256", "SHA-256-SESS":
		return sha256.New
	}
	return nil
}

// pick returns the first challenge that can be answered: a server lists those it likes best first (RFC 8760, 2.3).
func pick(values []string, proxy bool) (challenge, bool) {
	for _, v := range values {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(v), " ")
		if !strings.EqualFold(scheme, "Digest") {
			continue
		}
		p := authParams(rest)
		c := challenge{realm: p["realm"], nonce: p["nonce"], opaque: p["opaque"], algorithm: p["algorithm"], proxy: proxy}
		c.stale = strings.EqualFold(p["stale"], "true")
		qop, has := p["qop"]
		for q := range strings.SplitSeq(qop, ",") {
			c.qop = c.qop || strings.EqualFold(strings.TrimSpace(q), "auth")
		}
		if newHash(c.algorithm) != nil && c.nonce != "" && (c.qop || !has) && printable(c.realm+c.nonce+c.opaque+c.algorithm) {
			return c, true
		}
	}
	return challenge{}, false
}

// printable reports whether s can be put into a header again.
func printable(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

// authParams reads `name="value", name=value`. Values keep their escapes: they are given back as they came.
func authParams(s string) map[string]string {
	out := map[string]string{}
	for len(s) > 0 && len(out) < 32 {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		name = strings.ToLower(strings.Trim(name, " \t,"))
		rest = strings.TrimLeft(rest, " \t")
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s = quoted(rest[1:])
		} else {
			value, s, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		if _, has := out[name]; !has {
			out[name] = value
		}
	}
	return out
}

// quoted takes what is before the closing quote.
func quoted(s string) (value, rest string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// answer writes the header that proves the password for one request (RFC 7616, 3.4).
func (c *challenge) answer(method, uri, username, password string) string {
	c.count++
	cnonce, nc := rand.Text(), fmt.Sprintf("%08x", c.count)
	response := c.response(method, uri, username, password, nc, cnonce)
	name := "Authorization"
	if c.proxy {
		name = "Proxy-Authorization"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `%s: Digest username="%s", realm="%s", nonce="%s", uri="%s"`, name, username, c.realm, c.nonce, uri)
	if c.qop {
		fmt.Fprintf(&b, `, response="%s", qop=auth, nc=%s, cnonce="%s"`, response, nc, cnonce)
	} else {
		fmt.Fprintf(&b, `, response="%s"`, response)
		if strings.HasSuffix(strings.ToUpper(c.algorithm), "-SESS") {
			fmt.Fprintf(&b, `, cnonce="%s"`, cnonce)
		}
	}
	if c.algorithm != "" {
		fmt.Fprintf(&b, `, algorithm=%s`, c.algorithm)
	}
	if c.opaque != "" {
		fmt.Fprintf(&b, `, opaque="%s"`, c.opaque)
	}
	return b.String() + "\r\n"
}

// response is the proof itself (RFC 7616, 3.4.1).
func (c *challenge) response(method, uri, username, password, nc, cnonce string) string {
	sum := func(parts ...string) string {
		h := newHash(c.algorithm)()
		h.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(h.Sum(nil))
	}
	ha1 := sum(username, c.realm, password)
	if strings.HasSuffix(strings.ToUpper(c.algorithm), "-SESS") {
		ha1 = sum(ha1, c.nonce, cnonce)
	}
	if c.qop {
		return sum(ha1, c.nonce, nc, cnonce, "auth", sum(method, uri))
	}
	return sum(ha1, c.nonce, sum(method, uri))
}
