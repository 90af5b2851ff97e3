// Package hep receives what HEP capture agents send: Asterisk's res_hep, FreeSWITCH, Kamailio, OpenSIPS, rtpengine,
// heplify. HEP version 3 ("EEP", HEP3 Network Protocol Specification rev. 36) comes over UDP, TCP or TLS; versions 1 and
// 2 over UDP only.
package hep

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

// Chunk types of vendor 0, HEP3 section 4.
const (
	chunkTransport   = 0x02 // IP protocol number
	chunkSrc4        = 0x03
	chunkDst4        = 0x04
	chunkSrc6        = 0x05
	chunkDst6        = 0x06
	chunkSrcPort     = 0x07
	chunkDstPort     = 0x08
	chunkSeconds     = 0x09
	chunkMicros      = 0x0a
	chunkProtocol    = 0x0b
	chunkKey         = 0x0e
	chunkPayload     = 0x0f
	chunkCompressed  = 0x10
	chunkCorrelation = 0x11
)

// Protocol types of chunk 0x0b, HEP3 section 5.
const (
	protocolSIP  = 1
	protocolRTP  = 4
	protocolRTCP = 5
)

// IP protocol numbers that mean a stream. Kamailio writes 22 for TLS and 50 and 22 for WebSocket.
const (
	ipTCP  = 6
	ipIDP  = 22
	ipESP  = 50
	ipSCTP = 132
)

const (
	// MaxFrame is the longest frame there can be: its length has 16 bits.
	MaxFrame = 1<<16 - 1

	frameHeader = 6 // "HEP3" and the length
	chunkHeader = 6 // vendor, type, length

	maxCorrelation  = 256 // bytes of a correlation id that is kept; a longer one is taken for none
	maxCorrelations = 512 // ids remembered, so that the packets of one call share one string; each connection has its own

	// maxAhead is how far a capture time may lie ahead of our clock before it is taken for wrong, in microseconds.
	maxAhead = 3600 * call.Second
)

// What a frame can be wrong in. All are returned as they are, so that a flood of them costs no memory.
var (
	ErrKey      = errors.New("decoding HEP frame: the authentication key is missing or wrong")
	ErrProtocol = errors.New("decoding HEP frame: its payload is neither SIP, RTP nor RTCP")

	errShort       = errors.New("decoding HEP frame: shorter than its header")
	errMagic       = errors.New("decoding HEP frame: it starts neither with HEP3 nor as version 1 or 2")
	errLength      = errors.New("decoding HEP frame: its length is not that of the datagram")
	errChunk       = errors.New("decoding HEP frame: a chunk runs past the end")
	errChunkSize   = errors.New("decoding HEP frame: a chunk has the wrong size for its type")
	errNoPayload   = errors.New("decoding HEP frame: no payload")
	errNoAddress   = errors.New("decoding HEP frame: source or destination address is missing")
	errMixed       = errors.New("decoding HEP frame: source and destination are of different IP families")
	errInflate     = errors.New("decoding HEP frame: the compressed payload cannot be inflated")
	errInflateSize = fmt.Errorf("decoding HEP frame: the compressed payload inflates beyond %d bytes", MaxFrame)
)

// Decoder decodes frames. It is for one goroutine.
type Decoder struct {
	key          []byte
	correlations map[string]string
	unpack       unpacker
	f            frame
}

// NewDecoder makes a decoder that accepts only frames with this authentication key, or any frame for "".
func NewDecoder(key string) *Decoder {
	return &Decoder{key: []byte(key), correlations: make(map[string]string)}
}

// frame is what the chunks of one frame say.
type frame struct {
	transport, protocol byte
	src, dst            netip.Addr
	srcPort, dstPort    uint16
	seconds, micros     uint32
	key, payload        []byte
	packed, correlation []byte
}

// Decode reads one whole frame, as one datagram carries it, into p. p.Payload points into raw, or, when it was
// compressed, into the decoder until its next call. received becomes p.Received, and p.At when the frame gives no
// capture time or one that lies over an hour ahead. The error is ErrKey, ErrProtocol or says what is malformed.
func (d *Decoder) Decode(raw []byte, received call.Time, p *wire.Packet) error {
	d.f = frame{}
	if err := d.f.read(raw); err != nil {
		return err
	}
	if len(d.key) > 0 && subtle.ConstantTimeCompare(d.key, d.f.key) != 1 {
		return ErrKey
	}
	return d.packet(received, p)
}

func (f *frame) read(raw []byte) error {
	if len(raw) < frameHeader {
		return errShort
	}
	if raw[0] == 1 || raw[0] == 2 {
		return f.readOld(raw)
	}
	if string(raw[:4]) != "HEP3" {
		return errMagic
	}
	if int(binary.BigEndian.Uint16(raw[4:])) != len(raw) {
		return errLength
	}
	return f.readChunks(raw[frameHeader:])
}

func (f *frame) readChunks(b []byte) error {
	for len(b) > 0 {
		if len(b) < chunkHeader {
			return errChunk
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n < chunkHeader || n > len(b) {
			return errChunk
		}
		if vendor := binary.BigEndian.Uint16(b); vendor == 0 && !f.chunk(binary.BigEndian.Uint16(b[2:]), b[chunkHeader:n]) {
			return errChunkSize
		}
		b = b[n:]
	}
	return nil
}

// chunk takes one chunk; false means that its size does not fit its type. Unknown types are skipped.
func (f *frame) chunk(typ uint16, v []byte) bool {
	switch typ {
	case chunkTransport:
		return take8(&f.transport, v)
	case chunkSrc4, chunkSrc6:
		return takeAddr(&f.src, v, typ == chunkSrc4)
	case chunkDst4, chunkDst6:
		return takeAddr(&f.dst, v, typ == chunkDst4)
	case chunkSrcPort:
		return take16(&f.srcPort, v)
	case chunkDstPort:
		return take16(&f.dstPort, v)
	case chunkSeconds:
		return take32(&f.seconds, v)
	case chunkMicros:
		return take32(&f.micros, v)
	case chunkProtocol:
		return take8(&f.protocol, v)
	case chunkKey:
		f.key = v
	case chunkPayload:
		f.payload = v
	case chunkCompressed:
		f.packed = v
	case chunkCorrelation:
		f.correlation = v
	}
	return true
}

func take8(to *byte, v []byte) bool {
	if len(v) != 1 {
		return false
	}
	*to = v[0]
	return true
}

func take16(to *uint16, v []byte) bool {
	if len(v) != 2 {
		return false
	}
	*to = binary.BigEndian.Uint16(v)
	return true
}

func take32(to *uint32, v []byte) bool {
	if len(v) != 4 {
		return false
	}
	*to = binary.BigEndian.Uint32(v)
	return true
}

func takeAddr(to *netip.Addr, v []byte, v4 bool) bool {
	if v4 != (len(v) == 4) {
		return false
	}
	a, ok := netip.AddrFromSlice(v)
	*to = a.Unmap()
	return ok
}

// packet makes p of d.f.
func (d *Decoder) packet(received call.Time, p *wire.Packet) error {
	f := &d.f
	if f.protocol != protocolSIP && f.protocol != protocolRTP && f.protocol != protocolRTCP {
		return ErrProtocol
	}
	if !f.src.IsValid() || !f.dst.IsValid() {
		return errNoAddress
	}
	if f.src.Is4() != f.dst.Is4() {
		return errMixed
	}
	payload, err := d.payload()
	if err != nil {
		return err
	}
	kind, ok := kindOf(f.protocol, payload)
	if !ok {
		return ErrProtocol
	}
	*p = wire.Packet{
		Kind: kind, Stream: stream(f.transport), At: f.at(received), Received: received,
		Src: netip.AddrPortFrom(f.src, f.srcPort), Dst: netip.AddrPortFrom(f.dst, f.dstPort),
		Correlation: d.intern(f.correlation), Payload: payload,
	}
	return nil
}

// kindOf tells the two forms of RTCP apart by the first byte: version 2 in its upper bits, or the brace of JSON.
func kindOf(protocol byte, payload []byte) (wire.Kind, bool) {
	switch {
	case protocol == protocolSIP:
		return wire.SIP, true
	case protocol == protocolRTP:
		return wire.RTP, true
	case payload[0]>>6 == 2:
		return wire.RTCP, true
	}
	return wire.RTCPJSON, bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("{"))
}

func stream(transport byte) bool {
	return transport == ipTCP || transport == ipIDP || transport == ipESP || transport == ipSCTP
}

// at is the capture time, or received when there is none that can be.
func (f *frame) at(received call.Time) call.Time {
	if f.seconds == 0 || f.micros >= 1e6 {
		return received
	}
	if t := call.Time(f.seconds)*call.Second + call.Time(f.micros); t <= received+maxAhead {
		return t
	}
	return received
}

// payload is the payload, inflated if it was compressed, and never empty.
func (d *Decoder) payload() ([]byte, error) {
	payload := d.f.payload
	if len(payload) == 0 && len(d.f.packed) > 0 {
		var err error
		if payload, err = d.unpack.inflate(d.f.packed); err != nil {
			return nil, err
		}
	}
	if len(payload) == 0 {
		return nil, errNoPayload
	}
	return payload, nil
}

// intern gives the string for an id. It is a copy, made once for the packets of a call.
func (d *Decoder) intern(id []byte) string {
	if len(id) == 0 || len(id) > maxCorrelation {
		return ""
	}
	if s, ok := d.correlations[string(id)]; ok {
		return s
	}
	if len(d.correlations) >= maxCorrelations {
		clear(d.correlations)
	}
	s := string(bytes.TrimRight(id, "\x00"))
	d.correlations[string(id)] = s
	return s
}
