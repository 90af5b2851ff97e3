package ari

import (
	"bytes"
	"cmp"

	"github.com/cespare/xxhash/v2"
)

var applicationKey = []byte(`"application":`)

// eventID is core.Frame's ID of an ARI event: XXH64 over its bytes but for the value of its application member, which is
// all that differs between two readers of a switch. It is never 0.
func eventID(raw []byte) uint64 {
	from, to := applicationValue(raw)
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(raw[:from])
	_, _ = d.Write(raw[to:])
	return cmp.Or(d.Sum64(), 1)
}

// applicationValue is where the value of the application member lies; nowhere when there is none. Asterisk writes it
// last. An unescaped quoted name followed by a colon cannot occur inside a JSON string.
func applicationValue(raw []byte) (from, to int) {
	from = bytes.LastIndex(raw, applicationKey)
	if from < 0 {
		return 0, 0
	}
	from += len(applicationKey)
	for from < len(raw) && raw[from] == ' ' {
		from++
	}
	if from >= len(raw) || raw[from] != '"' {
		return 0, 0
	}
	for to = from + 1; to < len(raw) && raw[to] != '"'; to++ {
		if raw[to] == '\\' {
			to++
		}
	}
	return from, min(to+1, len(raw))
}

// managerID is core.Frame's ID of an AMI event: XXH64 over its lines. What answers an action of ours is nobody else's and
// has none.
func managerID(m message) uint64 {
	if m.get("ActionID") != "" || m.get("Event") == "" {
		return 0
	}
	return cmp.Or(xxhash.Sum64(bytes.TrimRight(m.raw, "\r\n")), 1)
}
