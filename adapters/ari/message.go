package ari

import "strings"

// message is one AMI message: its raw bytes and its fields in order, keys as sent.
type message struct {
	raw    []byte
	fields []field
}

type field struct{ key, value string }

// get returns the first field called key, without regard to case, or "".
func (m message) get(key string) string {
	for _, f := range m.fields {
		if strings.EqualFold(f.key, key) {
			return f.value
		}
	}
	return ""
}
