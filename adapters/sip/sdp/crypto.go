package sdp

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/ctigate/ctigate/core"
)

// Crypto is one a=crypto line (RFC 4568): the key of what its party sends.
type Crypto struct {
	Tag    int
	Suite  string      // AES_CM_128_HMAC_SHA1_80 …
	Key    core.Secret // master key and salt in base64
	Params string      // what follows the key: lifetime and MKI after `|`, session parameters
}

// Lengths are the bytes of a suite's master key and salt (RFC 4568, 6.2; RFC 6188; RFC 7714); not ok for a suite that is
// not known.
func Lengths(suite string) (key, salt int, ok bool) {
	switch suite {
	case "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32":
		return 16, 14, true
	case "AES_192_CM_HMAC_SHA1_80", "AES_192_CM_HMAC_SHA1_32":
		return 24, 14, true
	case "AES_256_CM_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_32":
		return 32, 14, true
	case "AEAD_AES_128_GCM":
		return 16, 12, true
	case "AEAD_AES_256_GCM":
		return 32, 12, true
	}
	return 0, 0, false
}

// Master returns the master key and salt. The error names the suite and never the key.
func (c Crypto) Master() (key, salt []byte, err error) {
	nk, ns, ok := Lengths(c.Suite)
	if !ok {
		return nil, nil, fmt.Errorf("reading a=crypto %d: suite %q is not known", c.Tag, c.Suite)
	}
	text, err := c.Key.Reveal()
	if err != nil {
		return nil, nil, fmt.Errorf("reading a=crypto %d: %w", c.Tag, err)
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(b) != nk+ns {
		return nil, nil, fmt.Errorf("reading a=crypto %d: %s wants a key of %d bytes in base64: it is not", c.Tag, c.Suite, nk+ns)
	}
	return b[:nk], b[nk:], nil
}

// AnswerCrypto makes the line that accepts the first of offered whose suite is one of suites, with a fresh key of ours
// (RFC 4568, 5.1.2), and returns it with the accepted one, by whose key the other side sends.
func AnswerCrypto(offered []Crypto, suites ...string) (ours, theirs Crypto, err error) {
	for _, c := range offered {
		if !contains(suites, c.Suite) {
			continue
		}
		if _, _, err := c.Master(); err != nil {
			continue
		}
		nk, ns, _ := Lengths(c.Suite)
		b := make([]byte, nk+ns)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		key := core.NewSecret(base64.StdEncoding.EncodeToString(b))
		return Crypto{Tag: c.Tag, Suite: c.Suite, Key: key}, c, nil
	}
	return ours, theirs, fmt.Errorf("answering SRTP: none of %d a=crypto lines offers a usable key for %s", len(offered),
		strings.Join(suites, ", "))
}

// line is the attribute's value.
func (c Crypto) line() (string, error) {
	key, err := c.Key.Reveal()
	if err != nil {
		return "", fmt.Errorf("writing a=crypto: %w", err)
	}
	return strconv.Itoa(c.Tag) + " " + c.Suite + " inline:" + key + c.Params, nil
}

// parseCrypto takes `tag suite inline:key[|lifetime][|mki] [parameters]`.
func parseCrypto(value string) (Crypto, bool) {
	f := fields{value}
	tag, err := strconv.ParseUint(f.next(), 10, 31)
	suite := f.next()
	key, ok := strings.CutPrefix(strings.TrimSpace(f.rest), "inline:")
	if err != nil || !ok {
		return Crypto{}, false
	}
	end := strings.IndexAny(key, "|; ")
	if end < 0 {
		end = len(key)
	}
	return Crypto{Tag: int(tag), Suite: suite, Key: core.NewSecret(key[:end]), Params: key[end:]}, key[:end] != ""
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// MaskKeys blots out the SRTP keys (RFC 4568) in a message that leaves the adapter: they would open the call to whoever
// reads the raw or the dead-letter stream.
func MaskKeys(message []byte) {
	mark := []byte("inline:")
	for i := bytes.Index(message, mark); i >= 0; i = bytes.Index(message, mark) {
		message = message[i+len(mark):]
		for j := 0; j < len(message) && message[j] > ' ' && message[j] != '|'; j++ {
			message[j] = 'x'
		}
	}
}
