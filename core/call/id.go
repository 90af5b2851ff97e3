package call

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"github.com/google/uuid"
)

// idSpace is the UUIDv5 namespace of call ids.
var idSpace = uuid.MustParse("6c8b1c0e-5a39-5f0e-9d55-7f2a3b1d9c41")

// NewID returns the call_id of the call whose first leg the switch calls native: UUIDv5 (RFC 9562, 5.5) over switch id
// and native id, the same on every run and every node.
func NewID(switchID, native string) string {
	return uuid.NewSHA1(idSpace, []byte(switchID+"\x00"+native)).String()
}

// ConnectionIDOf names a leg across switches.
func ConnectionIDOf(switchID, leg string) string { return switchID + "/" + leg }

// EventID is a digest over what makes an event itself: the switch and its process, the native event, the canonical
// type, and the connection, call or agent it is about. 128 bits, in hex.
func EventID(sw SwitchRef, n Native, t EventType, subject string) string {
	var buf [512]byte
	b := append(buf[:0], sw.ID...)
	b = append(append(b, 0), sw.Instance...)
	b = append(append(b, 0), n.ID...)
	b = binary.BigEndian.AppendUint64(append(b, 0), n.Seq)
	b = append(append(b, 0), t...)
	b = append(append(b, 0), subject...)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// digest64 is FNV-1a over the parts, for recognizing a native event seen before.
func digest64(kind Kind, seq uint64, parts ...string) uint64 {
	h := uint64(14695981039346656037) ^ uint64(kind)
	h = (h*1099511628211 ^ seq) * 1099511628211
	for _, p := range parts {
		for i := range len(p) {
			h = (h ^ uint64(p[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return h
}

// TraceID is the W3C trace id of an interaction, one for all that a caller lives through: the first 16 bytes of SHA-256
// over its id, the same on every node.
func TraceID(interactionID string) (id [16]byte) {
	sum := sha256.Sum256([]byte(interactionID))
	copy(id[:], sum[:])
	return id
}

// SpanID is the W3C span id of one part of a call: the first 8 bytes of SHA-256 over the call id, a slash and the
// part's name. The call's own span has an empty name.
func SpanID(callID, part string) (id [8]byte) {
	sum := sha256.Sum256([]byte(callID + "/" + part))
	copy(id[:], sum[:])
	return id
}
