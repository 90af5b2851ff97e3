package dialoginfo

import (
	"sync"

	"github.com/ctigate/ctigate/core"
)

// outboxSize is how many frames may wait for the router while NOTIFYs go on being answered. Beyond, the session waits.
const outboxSize = 4096

// outbox hands over to the router in order, from a goroutine of its own, so that a slow router does not keep the session
// from answering the PBX in time.
type outbox struct {
	out   core.Emitter
	items chan func(core.Emitter) error
	done  chan struct{} // closed when the router takes nothing more
	err   error         // why; set before done is closed
	ended sync.WaitGroup
}

func newOutbox(out core.Emitter) *outbox {
	o := &outbox{out: out, items: make(chan func(core.Emitter) error, outboxSize), done: make(chan struct{})}
	o.ended.Go(o.pump)
	return o
}

func (o *outbox) pump() {
	for item := range o.items {
		if err := item(o.out); err != nil {
			o.err = err
			close(o.done)
			return
		}
	}
}

// put adds one item; it waits while the outbox is full, and does nothing once the router takes nothing more.
func (o *outbox) put(item func(core.Emitter) error) {
	select {
	case o.items <- item:
	case <-o.done:
		o.out.Count(core.CountDropped, 1)
	}
}

// close hands over what is left and counts what the router does not take. Nothing is put after it.
func (o *outbox) close() {
	close(o.items)
	o.ended.Wait()
	if n := len(o.items); n > 0 {
		o.out.Count(core.CountDropped, n)
	}
}
