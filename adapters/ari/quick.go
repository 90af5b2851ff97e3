package ari

import (
	"bytes"
	"slices"
)

// Nine of ten ARI events are ChannelVarset, and nearly all of those say nothing of a call. quick recognizes them by a
// few byte searches instead of decoding them. It errs on the side of decoding: whatever is not plainly of the expected
// form is decoded in full. An unescaped quoted name followed by a colon cannot occur inside a JSON string.
func (n *normalizer) quick(raw []byte) bool {
	if len(raw) < 2 || raw[0] != '{' || raw[len(raw)-1] != '}' {
		return false
	}
	if typ, ok := quickField(raw, `"type":`); !ok || string(typ) != "ChannelVarset" {
		return false
	}
	name, ok := quickField(raw, `"variable":`)
	if !ok || n.watched(bytes.TrimLeft(name, "_")) {
		return false
	}
	i := bytes.Index(raw, []byte(`"channel":`))
	if i < 0 {
		return false
	}
	id, ok := quickField(raw[i:], `"id":`)
	if !ok {
		return false
	}
	known, ok := n.quickly.codec(id)
	if !ok {
		return false
	}
	format, ok := quickField(raw[i:], `"CHANNEL(audionativeformat)":`)
	return !ok || string(format) == known
}

// quickIndex knows the codec of every channel that is past its creation, in two bytes' worth of memory beside a hash of
// the channel's id: with a hundred thousand channels, finding more than that would cost more than all the rest. Two ids
// of one hash (one chance in 10^9 with 10^5 channels) could make a change of codec be noticed an event later.
type quickIndex struct {
	of      map[uint64]uint8
	formats []string
}

func newQuickIndex() quickIndex { return quickIndex{of: map[uint64]uint8{}} }

// codec returns the codec of a channel as Asterisk writes it; false when it is not known.
func (q *quickIndex) codec(id []byte) (string, bool) {
	i, ok := q.of[hash(id)]
	if !ok {
		return "", false
	}
	return q.formats[i], true
}

func (q *quickIndex) put(id, format string) {
	i := slices.Index(q.formats, format)
	if i < 0 && len(q.formats) < 256 {
		i = len(q.formats)
		q.formats = append(q.formats, format)
	}
	if i < 0 {
		q.drop(id)
		return
	}
	q.of[hash([]byte(id))] = uint8(i)
}

func (q *quickIndex) drop(id string) { delete(q.of, hash([]byte(id))) }

// hash is FNV-1a, 64 bits.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func (n *normalizer) watched(name []byte) bool {
	if string(name) == n.opt.IVRVariable {
		return true
	}
	for _, v := range n.opt.Variables {
		if v == string(name) {
			return true
		}
	}
	return false
}

// quickField returns the string value of the first key (given quoted, with its colon), if it is free of escapes.
func quickField(raw []byte, key string) ([]byte, bool) {
	i := bytes.Index(raw, []byte(key))
	if i < 0 {
		return nil, false
	}
	raw = raw[i+len(key):]
	if len(raw) > 0 && raw[0] == ' ' {
		raw = raw[1:]
	}
	if len(raw) == 0 || raw[0] != '"' {
		return nil, false
	}
	raw = raw[1:]
	end := bytes.IndexByte(raw, '"')
	if end < 0 || bytes.IndexByte(raw[:end], '\\') >= 0 {
		return nil, false
	}
	return raw[:end], true
}
