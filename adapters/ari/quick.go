package ari

import "bytes"

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
	c := n.chans[string(id)]
	if !ok || c == nil || c.held {
		return false
	}
	format, ok := quickField(raw[i:], `"CHANNEL(audionativeformat)":`)
	return !ok || string(format) == c.native
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
