package ari

import (
	"context"
	"sync"
)

// group runs the goroutines of one session. The first that fails ends them all.
type group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

func newGroup(parent context.Context) *group {
	ctx, cancel := context.WithCancelCause(parent)
	return &group{ctx: ctx, cancel: cancel}
}

// start runs f; when it returns an error the group's context ends with it as its cause.
func (g *group) start(f func(context.Context) error) {
	g.wg.Go(func() {
		if err := f(g.ctx); err != nil {
			g.cancel(err)
		}
	})
}

// stop ends the group with err, unless it ended before, waits for every goroutine, and returns the first cause.
func (g *group) stop(err error) error {
	g.cancel(err)
	g.wg.Wait()
	return context.Cause(g.ctx)
}
