package sim

import (
	"context"
	"time"
)

// misbehave plays the ordered faults on one connection until it ends.
func (c *conn) misbehave(ctx context.Context) {
	f := c.sw.opt.Faults
	never := time.Duration(1<<62 - 1)
	next := func(every time.Duration) time.Duration {
		if every <= 0 {
			return never
		}
		return time.Duration(float64(every) * (0.5 + c.rng.Float64()))
	}
	cut, junk, half := next(f.DisconnectEvery), next(f.GarbageEvery), next(f.HalfFrameEvery)
	for {
		d := min(cut, junk, half)
		if !c.pause(ctx, d) {
			return
		}
		cut, half = cut-d, half-d
		switch {
		case cut <= 0:
			c.cut("ordered fault")
			return
		case half <= 0:
			c.finishWith(halfFrame(c.kind))
			return
		default:
			c.answer(garbage(c.kind, c.rng.IntN(3)))
			junk = next(f.GarbageEvery)
		}
	}
}

// pause waits for d unless the connection or the switch ends first.
func (c *conn) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c.done:
		return false
	case <-t.C:
		return true
	}
}

// garbage is a whole frame of kind that holds no event.
func garbage(kind string, n int) []byte {
	switch kind {
	case "ari":
		return wsFrame(opText, []byte([]string{`{"type":"ChannelVarset","channel":{"id":`, "\x00\xff\xfe not json", `["an","array"]`}[n]))
	case "ami":
		return []byte([]string{"Event VarSet without a colon\r\n\r\n", ": no name\r\nEvent: \r\n\r\n", "\x00\xff\xfe\r\n\r\n"}[n])
	}
	return []byte([]string{
		"Content-Length: 17\nContent-Type: text/event-json\n\n{\"Event-Name\":\"CH",
		"Content-Length: 9\nContent-Type: text/event-json\n\nnot json!",
		"this header has no colon\nContent-Type: text/event-plain\nContent-Length: 6\n\n%zz\n\n\n",
	}[n])
}

// halfFrame begins a frame of kind and stops.
func halfFrame(kind string) []byte {
	switch kind {
	case "ari":
		b := wsFrame(opText, []byte(`{"type":"ChannelStateChange","timestamp":"2026-01-01T00:00:00.000+0000","channel":{"id":"1.1"}}`))
		return b[:len(b)/2]
	case "ami":
		return []byte("Event: Newstate\r\nPrivilege: call,all\r\nChann")
	}
	return []byte("Content-Length: 2048\nContent-Type: text/event-json\n\n{\"Event-Name\":\"CHANNEL_ANSWER\",\"Core-UUID\":")
}
