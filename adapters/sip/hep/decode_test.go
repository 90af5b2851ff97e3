package hep

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

const (
	testKey      = "s3cret"
	testReceived = call.Time(1_790_000_000_000_000)
	testSIP      = "OPTIONS sip:a@127.0.0.1 SIP/2.0\r\nCall-ID: x\r\n\r\n"
)

type chunk struct {
	vendor, typ uint16
	value       []byte
}

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func encode(chunks []chunk) []byte {
	b := []byte("HEP3\x00\x00")
	for _, c := range chunks {
		b = binary.BigEndian.AppendUint16(b, c.vendor)
		b = binary.BigEndian.AppendUint16(b, c.typ)
		b = binary.BigEndian.AppendUint16(b, uint16(chunkHeader+len(c.value)))
		b = append(b, c.value...)
	}
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// sample is a frame as Asterisk sends it, with changes: a chunk with a nil value takes the one of its type out.
func sample(protocol byte, payload string, changes ...chunk) []byte {
	chunks := []chunk{
		{0, 0x01, []byte{2}}, {0, 0x02, []byte{17}},
		{0, 0x03, []byte{10, 0, 0, 1}}, {0, 0x04, []byte{10, 0, 0, 2}},
		{0, 0x07, u16(5060)}, {0, 0x08, u16(5062)},
		{0, 0x09, u32(1_789_999_999)}, {0, 0x0a, u32(250_000)},
		{0, 0x0b, []byte{protocol}}, {0, 0x0c, u32(2001)}, {0, 0x0e, []byte(testKey)},
		{0, 0x11, []byte("call-1@pbx")}, {0, 0x0f, []byte(payload)},
	}
	for _, change := range changes {
		chunks = apply(chunks, change)
	}
	return encode(chunks)
}

func apply(chunks []chunk, change chunk) []chunk {
	var out []chunk
	done := change.value == nil
	for _, c := range chunks {
		if c.vendor != change.vendor || c.typ != change.typ {
			out = append(out, c)
		} else if !done {
			out, done = append(out, change), true
		}
	}
	if !done {
		out = append(out, change)
	}
	return out
}

func want(changes ...func(*wire.Packet)) wire.Packet {
	p := wire.Packet{
		Kind: wire.SIP, At: 1_789_999_999_250_000, Received: testReceived,
		Src: netip.MustParseAddrPort("10.0.0.1:5060"), Dst: netip.MustParseAddrPort("10.0.0.2:5062"),
		Correlation: "call-1@pbx", Payload: []byte(testSIP),
	}
	for _, change := range changes {
		change(&p)
	}
	return p
}

func deflate(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	write(t, w, s)
	return b.Bytes()
}

func zip(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	write(t, gzip.NewWriter(&b), s)
	return b.Bytes()
}

func write(t testing.TB, w io.WriteCloser, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDecode(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	for name, c := range map[string]struct {
		raw  []byte
		want wire.Packet
	}{
		"sip":             {sample(1, testSIP), want()},
		"tcp":             {sample(1, testSIP, chunk{0, 2, []byte{6}}), want(func(p *wire.Packet) { p.Stream = true })},
		"tls of Kamailio": {sample(1, testSIP, chunk{0, 2, []byte{22}}), want(func(p *wire.Packet) { p.Stream = true })},
		"ipv6": {
			sample(1, testSIP, chunk{0, 3, nil}, chunk{0, 4, nil}, chunk{0, 5, v6.AsSlice()}, chunk{0, 6, v6.AsSlice()}),
			want(func(p *wire.Packet) {
				p.Src, p.Dst = netip.AddrPortFrom(v6, 5060), netip.AddrPortFrom(v6, 5062)
			}),
		},
		"ipv4 in ipv6": {
			sample(1, testSIP, chunk{0, 3, nil}, chunk{0, 5, netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()}), want(),
		},
		"rtp": {sample(4, "\x80\x00abc"), want(func(p *wire.Packet) { p.Kind, p.Payload = wire.RTP, []byte("\x80\x00abc") })},
		"rtcp": {
			sample(5, "\x81\xc9\x00\x07"), want(func(p *wire.Packet) { p.Kind, p.Payload = wire.RTCP, []byte("\x81\xc9\x00\x07") }),
		},
		"rtcp in json": {
			sample(5, ` {"ssrc":1}`), want(func(p *wire.Packet) { p.Kind, p.Payload = wire.RTCPJSON, []byte(` {"ssrc":1}`) }),
		},
		"unknown chunk and vendor": {
			sample(1, testSIP, chunk{0, 0x77, []byte("?")}, chunk{0x2b, 0x0f, []byte("vendor's own")}), want(),
		},
		"no correlation": {sample(1, testSIP, chunk{0, 0x11, nil}), want(func(p *wire.Packet) { p.Correlation = "" })},
		"huge correlation": {
			sample(1, testSIP, chunk{0, 0x11, bytes.Repeat([]byte("c"), maxCorrelation+1)}),
			want(func(p *wire.Packet) { p.Correlation = "" }),
		},
		"no time":    {sample(1, testSIP, chunk{0, 9, nil}), want(func(p *wire.Packet) { p.At = testReceived })},
		"wrong time": {sample(1, testSIP, chunk{0, 10, u32(1_000_000)}), want(func(p *wire.Packet) { p.At = testReceived })},
		"far future": {sample(1, testSIP, chunk{0, 9, u32(1_790_003_601)}), want(func(p *wire.Packet) { p.At = testReceived })},
		"zlib":       {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(t, testSIP)}), want()},
		"gzip":       {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, zip(t, testSIP)}), want()},
	} {
		t.Run(name, func(t *testing.T) {
			var got wire.Packet
			if err := NewDecoder(testKey).Decode(c.raw, testReceived, &got); err != nil {
				t.Fatal(err)
			}
			same(t, got, c.want)
		})
	}
}

func same(t *testing.T, got, want wire.Packet) {
	t.Helper()
	if !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("payload %q, want %q", got.Payload, want.Payload)
	}
	if got.Kind != want.Kind || got.Stream != want.Stream || got.At != want.At || got.Received != want.Received ||
		got.Src != want.Src || got.Dst != want.Dst || got.Correlation != want.Correlation {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	edit := func(at int, v byte) []byte {
		b := sample(1, testSIP)
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		raw []byte
		err error
	}{
		"empty":                {nil, errShort},
		"short":                {[]byte("HEP3\x00"), errShort},
		"other magic":          {[]byte("GET / HTTP/1.1"), errMagic},
		"HEP length too long":  {edit(5, 255), errLength},
		"HEP length zero":      {edit(5, 0), errLength},
		"chunk too long":       {edit(frameHeader+4, 255), errChunk},
		"chunk too short":      {edit(frameHeader+5, 5), errChunk},
		"half chunk":           {[]byte("HEP3\x00\x0a\x00\x00\x00\x01"), errChunk},
		"address of 5 bytes":   {sample(1, testSIP, chunk{0, 3, make([]byte, 5)}), errChunkSize},
		"port of 4 bytes":      {sample(1, testSIP, chunk{0, 7, u32(1)}), errChunkSize},
		"time of 8 bytes":      {sample(1, testSIP, chunk{0, 9, make([]byte, 8)}), errChunkSize},
		"protocol of 2 bytes":  {sample(1, testSIP, chunk{0, 11, u16(1)}), errChunkSize},
		"no source":            {sample(1, testSIP, chunk{0, 3, nil}), errNoAddress},
		"no destination":       {sample(1, testSIP, chunk{0, 4, nil}), errNoAddress},
		"two families":         {sample(1, testSIP, chunk{0, 5, netip.MustParseAddr("::1").AsSlice()}), errMixed},
		"no payload":           {sample(1, testSIP, chunk{0, 15, nil}), errNoPayload},
		"empty payload":        {sample(1, ""), errNoPayload},
		"empty compressed":     {sample(1, "", chunk{0, 16, deflate(t, "")}), errNoPayload},
		"no key":               {sample(1, testSIP, chunk{0, 14, nil}), ErrKey},
		"wrong key":            {sample(1, testSIP, chunk{0, 14, []byte("s3creT")}), ErrKey},
		"longer key":           {sample(1, testSIP, chunk{0, 14, []byte(testKey + "\x00")}), ErrKey},
		"XMPP":                 {sample(2, "<x/>"), ErrProtocol},
		"log":                  {sample(100, "text"), ErrProtocol},
		"neither form of RTCP": {sample(5, "text"), ErrProtocol},
		"bomb":                 {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(t, strings.Repeat("0", 40<<20))}), errInflateSize},
		"one byte too many":    {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(t, strings.Repeat("0", MaxFrame+1))}), errInflateSize},
		"cut off zlib":         {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(t, testSIP)[:20]}), errInflate},
		"not zlib":             {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, []byte(testSIP)}), errInflate},
		"not gzip":             {sample(1, "", chunk{0, 15, nil}, chunk{0, 16, []byte("\x1f\x8bnothing")}), errInflate},
	} {
		t.Run(name, func(t *testing.T) {
			var p wire.Packet
			if err := NewDecoder(testKey).Decode(c.raw, testReceived, &p); !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
		})
	}
}

// After every kind of failure the same decoder decodes what comes next.
func TestDecoderGoesOn(t *testing.T) {
	d := NewDecoder(testKey)
	good := sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(t, testSIP)})
	for _, bad := range [][]byte{
		nil, sample(1, "", chunk{0, 15, nil}, chunk{0, 16, []byte("not zlib")}),
		sample(1, "", chunk{0, 15, nil}, chunk{0, 16, []byte("\x1f\x8b")}), sample(2, "<x/>"), sample(1, testSIP, chunk{0, 14, nil}),
	} {
		var p wire.Packet
		if err := d.Decode(bad, testReceived, &p); err == nil {
			t.Errorf("%q was accepted", bad)
		}
		if err := d.Decode(good, testReceived, &p); err != nil {
			t.Fatal(err)
		}
		same(t, p, want())
	}
}

func TestDecodeOldVersions(t *testing.T) {
	head := func(version, length byte) []byte {
		return append([]byte{version, length, 2, 17, 0x13, 0xc4, 0x13, 0xc6}, 10, 0, 0, 1, 10, 0, 0, 2)
	}
	times := binary.LittleEndian.AppendUint32(nil, 1_789_999_999)
	times = append(binary.LittleEndian.AppendUint32(times, 250_000), 0xd1, 7, 0, 0)
	noCorrelation := func(p *wire.Packet) { p.Correlation = "" }
	for name, c := range map[string]struct {
		raw  []byte
		want wire.Packet
	}{
		"version 1":                 {append(head(1, 16), testSIP...), want(noCorrelation, func(p *wire.Packet) { p.At = testReceived })},
		"version 2":                 {append(append(head(2, 16), times...), testSIP...), want(noCorrelation)},
		"version 2, time in length": {append(append(head(2, 28), times...), testSIP...), want(noCorrelation)},
	} {
		t.Run(name, func(t *testing.T) {
			var p wire.Packet
			if err := NewDecoder("").Decode(c.raw, testReceived, &p); err != nil {
				t.Fatal(err)
			}
			same(t, p, c.want)
			if err := NewDecoder(testKey).Decode(c.raw, testReceived, &p); !errors.Is(err, ErrKey) {
				t.Errorf("with a key: %v, want ErrKey", err)
			}
			for n := range c.raw {
				_ = NewDecoder("").Decode(c.raw[:n], testReceived, &p)
			}
		})
	}
}

// The ids that are remembered are bounded, and the strings given out before stay whole.
func TestCorrelationsAreBounded(t *testing.T) {
	d := NewDecoder("")
	var first wire.Packet
	if err := d.Decode(sample(1, testSIP), testReceived, &first); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxCorrelations {
		var p wire.Packet
		if err := d.Decode(sample(1, testSIP, chunk{0, 0x11, u32(uint32(i))}), testReceived, &p); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.correlations) > maxCorrelations {
		t.Errorf("%d ids remembered, limit %d", len(d.correlations), maxCorrelations)
	}
	if first.Correlation != "call-1@pbx" {
		t.Errorf("the first id became %q", first.Correlation)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	d := NewDecoder(testKey)
	var p wire.Packet
	for name, raw := range map[string][]byte{
		"plain": sample(1, testSIP), "wrong key": sample(1, testSIP, chunk{0, 14, nil}), "malformed": []byte("HEP3??"),
	} {
		_ = d.Decode(raw, testReceived, &p)
		if n := testing.AllocsPerRun(100, func() { _ = d.Decode(raw, testReceived, &p) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample(1, testSIP))
	f.Add(sample(5, `{"ssrc":1}`, chunk{0, 2, []byte{6}}))
	f.Add(sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(f, testSIP)}))
	f.Add(sample(1, "", chunk{0, 15, nil}, chunk{0, 16, zip(f, testSIP)}))
	f.Add(append([]byte{1, 16, 2, 17, 0x13, 0xc4, 0x13, 0xc6, 10, 0, 0, 1, 10, 0, 0, 2}, testSIP...))
	f.Add(append([]byte{2, 16, 2, 17, 0x13, 0xc4, 0x13, 0xc6, 10, 0, 0, 1, 10, 0, 0, 2}, testSIP...))
	d := NewDecoder("")
	f.Fuzz(func(t *testing.T, raw []byte) {
		var p wire.Packet
		if err := d.Decode(raw, testReceived, &p); err != nil {
			return
		}
		if len(p.Payload) == 0 || len(p.Payload) > MaxFrame || !p.Src.Addr().IsValid() || !p.Dst.Addr().IsValid() {
			t.Errorf("accepted %q as %+v", raw, p)
		}
		if p.At > testReceived+maxAhead || p.At <= 0 {
			t.Errorf("capture time %v", p.At)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for name, raw := range map[string][]byte{
		"sip": sample(1, testSIP+strings.Repeat("x", 700)), "rtp": sample(4, "\x80"+strings.Repeat("x", 171)),
		"zlib": sample(1, "", chunk{0, 15, nil}, chunk{0, 16, deflate(b, testSIP+strings.Repeat("x", 700))}),
	} {
		b.Run(name, func(b *testing.B) {
			d := NewDecoder(testKey)
			var p wire.Packet
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(raw, testReceived, &p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
