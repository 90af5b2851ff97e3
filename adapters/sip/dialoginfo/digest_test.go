package dialoginfo

import (
	"strings"
	"testing"
)

// TestDigest holds the example of RFC 7616, 3.9.1, for both algorithms.
func TestDigest(t *testing.T) {
	const nonce, cnonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		c, ok := pick([]string{`Basic realm="x"`, `Digest realm="x", nonce="y", algorithm=SHA-512-256`,
			`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=` + algorithm + `, nonce="` + nonce + `", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`}, false)
		if !ok {
			t.Fatal("no challenge can be answered")
		}
		if got := c.response("GET", "/dir/index.html", "Mufasa", "Circle of Life", "00000001", cnonce); got != want {
			t.Errorf("%s: %s, want %s", algorithm, got, want)
		}
		if h := c.answer("SUBSCRIBE", "sip:100@x", "Mufasa", "Circle of Life"); !strings.Contains(h, "nc=00000001") || !strings.Contains(h, `opaque="FQhe`) {
			t.Errorf("header %q", h)
		}
	}
	if _, ok := pick([]string{`Digest realm="x", nonce="y", qop="auth-int"`}, true); ok {
		t.Error("auth-int alone cannot be answered, and was picked")
	}
}

func FuzzAuthParams(f *testing.F) {
	f.Add(`realm="a", nonce="b\"c", qop="auth", stale=TRUE`)
	f.Fuzz(func(t *testing.T, s string) {
		if c, ok := pick([]string{"Digest " + s}, false); ok {
			if h := c.answer("SUBSCRIBE", "sip:100@x", "u", "p"); strings.Count(h, "\r\n") != 1 {
				t.Errorf("%q breaks the header: %q", s, h)
			}
		}
	})
}
