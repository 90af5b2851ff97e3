package siprec

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/media"
	"github.com/ctigate/ctigate/adapters/sip/sdp"
	"github.com/ctigate/ctigate/core/call"
)

// maxDrained is how many packets are still taken from a socket whose stream is over: what lies in its buffer came before
// the end.
const maxDrained = 4096

// datagram is the longest that is read whole; audio's are far shorter.
const datagram = 2048

// receiver takes the packets of one stream: one goroutine for RTP, one for RTCP on its own port.
type receiver struct {
	pair  pair
	to    netip.AddrPort // as the answer says
	count func(name string, n int)
	digit func(media.Digit) // must not block
	opt   *media.Options
	group *group
	work  sync.WaitGroup

	reading, finished bool // by the engine

	mu       sync.Mutex
	stream   *media.Stream
	formats  []media.Format
	decipher *decipher      // nil when not encrypted
	from     []netip.Addr   // whom packets may come from: the SDP's address, the signalling's
	said     netip.AddrPort // the SDP's
	latched  netip.AddrPort // whom they do come from
	strange  uint64         // packets from elsewhere
	marked   uint64         // strange at the last report
	heard    call.Time      // last packet that counted, RTP or RTCP
}

func newReceiver(p pair, o *media.Options, opened call.Time, g *group, count func(string, int), digit func(media.Digit)) *receiver {
	return &receiver{pair: p, group: g, count: count, digit: digit, opt: o, stream: media.New(o, opened)}
}

// start begins to read, once.
func (r *receiver) start() {
	if r.reading {
		return
	}
	r.reading = true
	r.group.add(r)
	r.work.Go(func() { r.read(r.pair.rtp, r.rtp) })
	r.work.Go(func() { r.read(r.pair.rtcp, r.rtcp) })
}

// finish lets what has come already be read, and nothing more.
func (r *receiver) finish() {
	if r.finished {
		return
	}
	r.finished = true
	_ = r.pair.rtp.SetReadDeadline(time.Unix(1, 0))
	_ = r.pair.rtcp.SetReadDeadline(time.Unix(1, 0))
}

// stop returns when nothing more will be counted.
func (r *receiver) stop() {
	r.finish()
	r.work.Wait()
	r.group.remove(r)
}

func (r *receiver) read(c *net.UDPConn, take func(at call.Time, src netip.AddrPort, b []byte)) {
	buf := make([]byte, datagram)
	for {
		n, src, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			drain(c, buf, take)
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			take(call.At(time.Now()), plain(src), buf[:n])
		}
	}
}

// agree sets what an offer and its answer settled. Another address or key begins anew what depends on it.
func (r *receiver) agree(g *sdp.Agreed, said netip.AddrPort, signalling netip.Addr, d *decipher) {
	formats := make([]media.Format, 0, len(g.Answerer.Formats))
	for _, f := range g.Answerer.Formats {
		formats = append(formats, media.Format{PayloadType: f.PayloadType, Codec: f.Codec, ClockRate: f.ClockRate})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if said != r.said {
		r.latched = netip.AddrPort{}
	}
	r.said, r.decipher, r.formats = said, d, formats
	r.from = []netip.Addr{signalling}
	if said.IsValid() {
		r.from = append(r.from, said.Addr())
	}
	r.stream.Negotiate(formats, false) // what arrives here is in the clear by then
}

// expected reports whether a packet comes from whom the stream was agreed with: the SDP's or the signalling's address.
// The first such port is kept to, and left only for the one that the SDP names.
func (r *receiver) expected(src netip.AddrPort) bool {
	switch {
	case src == r.latched:
		return true
	case !slices.Contains(r.from, src.Addr()):
		return false
	case !r.latched.IsValid() || src == r.said:
		r.latched = src
		return true
	}
	return false
}

func (r *receiver) rtp(at call.Time, src netip.AddrPort, b []byte) {
	if media.IsRTCP(b) {
		r.rtcp(at, src, b)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.from, src.Addr()) || len(b) < 12 {
		r.refuse(src, len(b))
		return
	}
	if r.decipher != nil {
		clear, err := r.decipher.rtp(b)
		if err != nil {
			r.count(CountUndecipherable, 1)
			return
		}
		b = clear
	}
	if !r.expected(src) {
		r.refuse(src, len(b))
		return
	}
	ev, err := r.stream.RTP(at, b)
	if err != nil {
		r.count(CountNotRTP, 1)
		return
	}
	r.heard = at
	if ev != nil {
		for _, d := range ev.Digits {
			r.digit(d)
		}
	}
}

func (r *receiver) refuse(src netip.AddrPort, size int) {
	if slices.Contains(r.from, src.Addr()) && size < 12 {
		r.count(CountNotRTP, 1)
		return
	}
	r.strange++
	r.count(CountUnexpectedSource, 1)
}

// rtcp takes what the client says of the stream. It may come from any port of its address.
func (r *receiver) rtcp(at call.Time, src netip.AddrPort, b []byte) {
	b, ok := r.openRTCP(at, src, b)
	if !ok {
		return
	}
	p, err := media.ParseRTCP(b, false)
	if err != nil {
		r.count(CountNotRTP, 1)
		return
	}
	r.group.reports(at, p)
}

// openRTCP returns a packet in the clear, if it is the client's.
func (r *receiver) openRTCP(at call.Time, src netip.AddrPort, b []byte) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.from, src.Addr()) {
		r.refuse(src, len(b))
		return nil, false
	}
	if r.decipher != nil {
		clear, err := r.decipher.rtcp(b)
		if err != nil {
			r.count(CountUndecipherable, 1)
			return nil, false
		}
		b = clear
	}
	r.heard = at
	return b, true
}

// group is the receivers of one session: RTCP that comes with one stream may report on another.
type group struct {
	mu  sync.Mutex
	all []*receiver
}

func (g *group) add(r *receiver) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, r)
}

func (g *group) remove(r *receiver) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = slices.DeleteFunc(g.all, func(o *receiver) bool { return o == r })
}

// reports takes what p says of the streams. Such a report was passed on by the client: nobody else hears them.
func (g *group) reports(at call.Time, p *media.RTCP) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.all {
		r.mu.Lock()
		for i := range p.Blocks {
			r.stream.Reported(at, &p.Blocks[i])
		}
		for i := range p.Metrics {
			r.stream.ReportedXR(at, &p.Metrics[i])
		}
		r.mu.Unlock()
	}
}

// report is what was measured since the last one, or with final of the whole stream. active says that the client
// agreed to send.
func (r *receiver) report(at call.Time, final, active bool) *call.Quality {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reported(at, final, active)
}

// renew is the final report for one party, with what has come already, and begins the statistics anew for another.
func (r *receiver) renew(at call.Time, active bool) *call.Quality {
	drain(r.pair.rtp, make([]byte, datagram), r.rtp)
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.reported(at, true, active)
	r.stream = media.New(r.opt, at)
	r.stream.Negotiate(r.formats, false)
	return q
}

func (r *receiver) reported(at call.Time, final, active bool) *call.Quality {
	for _, d := range r.stream.Expire(at, final) {
		r.digit(d)
	}
	q := r.stream.Report(at, final)
	q.Direction = call.FromParty
	if r.latched.IsValid() {
		q.Source = r.latched.String()
	} else if r.said.IsValid() {
		q.Source = r.said.String()
	}
	q.Destination = r.to.String()
	if q.Packets == 0 && active {
		q.Flags = append(q.Flags, call.FlagNoMedia)
	}
	if r.strange > r.marked || final && r.strange > 0 {
		q.Flags = append(q.Flags, call.FlagUnexpectedSource)
	}
	r.marked = r.strange
	return q
}

// lastHeard is when the last packet came.
func (r *receiver) lastHeard() call.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard
}
