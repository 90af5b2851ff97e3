package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/core/live"
)

// patience is how soon after the first signal another one is not a second one.
const patience = time.Second

// endOnSignal makes SIGINT and SIGTERM end cmd's context, and a second one the process, until the returned function is
// called. Only a command that watches its context asks for it; any other ends as programs do.
func endOnSignal(cmd *cobra.Command) (restore func()) {
	ctx, cancel := context.WithCancel(cmd.Context())
	cmd.SetContext(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		watchSignals(signals, over, cancel, func() {
			live.Restore(os.Stdout)
			fmt.Fprintln(os.Stderr, "ctigate: ended at once by a second signal: what was not delivered yet is lost")
			os.Exit(exitFailed)
		})
	}()
	return func() {
		signal.Stop(signals)
		close(over)
		<-ended
		cancel()
	}
}

// watchSignals calls first on the first signal and second on one that comes patience later. What comes at the same
// moment is the same wish, told twice: timeout(1) and process supervisors signal a process and its group.
func watchSignals(signals <-chan os.Signal, over <-chan struct{}, first, second func()) {
	var since time.Time
	for {
		select {
		case <-over:
			return
		case <-signals:
		}
		switch {
		case since.IsZero():
			since = time.Now()
			first()
		case time.Since(since) >= patience:
			second()
			return
		}
	}
}

// outliveReaders keeps a reader of standard output or standard error that goes away from ending the process before
// it has drained: writing then fails instead.
func outliveReaders() (restore func()) {
	ignored := make(chan os.Signal, 1) // never read: what finds no room is dropped
	signal.Notify(ignored, syscall.SIGPIPE)
	return func() { signal.Stop(ignored) }
}
