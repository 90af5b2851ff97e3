package capture

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// waker is a descriptor that becomes readable when its context ends, to poll together with others.
type waker struct {
	fd   int
	stop func() bool
	done chan struct{} // closed after the write
}

func newWaker(ctx context.Context) (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	w := &waker{fd: fd, done: make(chan struct{})}
	w.stop = context.AfterFunc(ctx, func() {
		defer close(w.done)
		_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it takes any number below 2^64-1
	})
	return w, nil
}

// close waits for the write, if it has begun: the descriptor's number may name something else soon.
func (w *waker) close() {
	if !w.stop() {
		<-w.done
	}
	_ = unix.Close(w.fd)
}
