package sim

import (
	"io"
	"testing"
	"time"
)

// counter is an output that renders and forgets.
type counter struct {
	b     []byte
	n     int
	bytes int64
	plain bool
}

func (o *counter) send(c *simCall, s *step) {
	t := s.json
	if o.plain && s.plain != nil {
		t = s.plain
	}
	o.b = t.append(o.b[:0], c)
	o.n++
	o.bytes += int64(len(o.b))
}
func (o *counter) ended(*simCall) {}

// BenchmarkEvent is the cost of one event of the ordinary mix, with hundreds of calls up: scheduling and rendering.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct {
		name, kind string
		plain      bool
	}{{"asterisk", "asterisk", false}, {"freeswitch_json", "freeswitch", false}, {"freeswitch_plain", "freeswitch", true}} {
		b.Run(c.name, func(b *testing.B) {
			out := &counter{plain: c.plain}
			opt := Options{Seed: 1, Rate: 50, Speed: 20, Unpaced: true, MaxCalls: 1 << 30}.withDefaults("x")
			e := newEngine(c.kind, opt, out)
			e.skew = func() time.Duration { return 0 }
			if err := e.load(); err != nil {
				b.Fatal(err)
			}
			e.begin()
			b.ReportAllocs()
			b.ResetTimer()
			for out.n < b.N {
				if top := e.heap[0]; top.call != nil {
					e.step(top.call)
				} else {
					top.do()
					e.drop(top.order)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(out.bytes)/float64(out.n), "B/event")
		})
	}
}

// BenchmarkSockets is both switches at once, each with its readers, over loopback: events a second of both together.
func BenchmarkSockets(b *testing.B) {
	opt := Options{Seed: 1, Rate: 50, Speed: 20, Unpaced: true, MaxCalls: 1 << 30, Buffer: 1 << 20}
	opt.Readers = 2
	a := startAsterisk(b, opt)
	opt.Readers = 1
	s := startFreeSWITCH(b, opt)
	b.ResetTimer()
	_, ari := dialARI(b, a.ARIAddr(), "gateway")
	_, ami := dialAMI(b, a.AMIAddr())
	_, esl := dialESL(b, s.Addr(), "event json ALL")
	for _, r := range []io.Reader{ari, ami, esl} {
		go func() { _, _ = io.Copy(io.Discard, r) }()
	}
	sent := func() (n int64) {
		for _, k := range append(a.list(), s.list()...) {
			k.mu.Lock()
			n += k.frames
			k.mu.Unlock()
		}
		return n
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent() < int64(b.N) {
		<-tick.C
	}
	b.StopTimer()
	b.ReportMetric(float64(sent())/b.Elapsed().Seconds(), "events/s")
	a.Close()
	s.Close()
}

// BenchmarkLoad is what a switch needs before it can play: every recording compiled.
func BenchmarkLoad(b *testing.B) {
	for _, kind := range []string{"asterisk", "freeswitch"} {
		b.Run(kind, func(b *testing.B) {
			for range b.N {
				e := newEngine(kind, Options{}.withDefaults("x"), nil)
				if err := e.load(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
