package router

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// adoptWithin bounds how long a start with a new journal waits for what was published before.
const adoptWithin = 30 * time.Second

// published is a call as it was published last.
type published struct {
	call *call.Call
	seq  uint64
	at   call.Time // when the event was received that said so
}

// adoptCalls goes on with the calls that were published, as the first sink that knows them tells, when the journal is new:
// its disk may be. Without such a sink, calls in progress begin anew.
func (r *Router) adoptCalls(ctx context.Context) {
	if r.keeper == nil || !r.newJournal() || r.clusterKnows(ctx) {
		return
	}
	began := time.Now()
	found, sink, err := r.askAll(ctx)
	if sink == "" {
		return
	}
	for i := range found {
		r.loop.goOnWith(&found[i])
	}
	active := r.loop.tracker.Active()
	if len(found) > 0 { // what comes next is journaled, and this is what it rests on
		err = errors.Join(err, r.o.Journal.SaveCheckpoint(0, r.loop.appendState(nil)))
	}
	took := time.Since(began).Round(time.Millisecond)
	if err != nil {
		r.log.Error("journal: the calls in progress could not all be looked up; those that are not known begin anew, and may repeat numbers", "sink", sink,
			"calls", active, "took", took, "error", err)
		return
	}
	r.log.Info("journal: it is new: going on with the calls that were published", "sink", sink, "calls", active, "took", took)
}

// askAll asks the sinks until one knows the calls, and returns its name, or none.
func (r *Router) askAll(ctx context.Context) (found []published, sink string, err error) {
	for _, w := range r.sinks {
		k, can := w.sink.(core.CallKeeper)
		if !can || !w.takes(core.StreamCalls) {
			continue
		}
		if found, err = r.publishedCalls(ctx, k); !errors.Is(err, errors.ErrUnsupported) {
			return found, w.name, err
		}
	}
	return nil, "", nil
}

// clusterKnows reports whether the state is to come from a cluster's log, which has more.
func (r *Router) clusterKnows(ctx context.Context) bool {
	if r.o.Cluster == nil {
		return false
	}
	end, err := r.o.Cluster.Log.End(ctx)
	return err != nil || end > 0
}

// newJournal reports whether the journal has nothing to go on from.
func (r *Router) newJournal() bool {
	if r.o.Journal.Stats().Last > 0 {
		return false
	}
	_, state, err := r.o.Journal.Checkpoint()
	return err == nil && state == nil
}

// publishedCalls asks until there is an answer, for at most adoptWithin, for the calls of this router's links, in the order
// of their beginning.
func (r *Router) publishedCalls(ctx context.Context, k core.CallKeeper) (found []published, err error) {
	ctx, cancel := context.WithTimeout(ctx, adoptWithin)
	defer cancel()
	for failures := 0; ; failures++ {
		found = nil
		err = k.Calls(ctx, func(c *call.Call, seq uint64, at call.Time) {
			if r.loop.linkOf(c.Switch.ID) != nil {
				found = append(found, published{c, seq, at})
			}
		})
		if err == nil || core.IsPermanent(err) || errors.Is(err, errors.ErrUnsupported) || !sleep(ctx, r.o.SinkBackoff.pause(failures, r.o.Rand())) {
			break
		}
	}
	slices.SortFunc(found, func(a, b published) int {
		return cmp.Or(cmp.Compare(a.call.StartedAt, b.call.StartedAt), cmp.Compare(a.call.ID, b.call.ID))
	})
	return found, err
}

// goOnWith takes over one call. Its link counts as heard up to then: who had it ended without a word.
func (p *loop) goOnWith(x *published) {
	st := &p.linkOf(x.call.Switch.ID).state
	if !st.wasUp {
		st.ref.Instance = x.call.Switch.Instance
	}
	st.up, st.wasUp, st.heard = true, true, max(st.heard, x.at)
	p.now = max(p.now, x.at)
	p.tracker.Adopt(x.call, x.seq, p.now)
}
