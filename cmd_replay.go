package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/adapters/ari"
	"github.com/ctigate/ctigate/adapters/esl"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/fresh"
	"github.com/ctigate/ctigate/sinks/cloudevents"
)

type replayFlags struct {
	kind, output, switchID, region string
	variables                      []string
	ivr                            string
	pbx, correlate                 []string
	view                           string
}

func newReplay() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay --kind ari|esl|sip PATH",
		Short: "Print what a recorded trace says, as JSON lines",
		Long: `Read a trace folder (ari.jsonl with ami.jsonl, or esl.jsonl; plain or .gz) or a capture (pcap or pcapng, plain or
.gz) and print, one JSON object a line:

  events    every event, as a structured CloudEvent; for captures, what was measured of the audio too
  records   the record of every call that ended
  calls     every call as it stood last

Nothing else goes to standard output, and two runs print the same bytes. What could not be read is summed up on
standard error.`,
		Example: `  ctigate replay --kind ari traces/asterisk/queue_answered
  ctigate replay --kind esl traces/freeswitch/busy --output records | jq .outcome
  ctigate replay --kind sip trunk.pcap --output records | jq '.connections[] | {party, media}'`,
		Args: cobra.ExactArgs(1),
		RunE: does(func(cmd *cobra.Command, args []string) error {
			defer endOnSignal(cmd)()
			return replay(cmd.Context(), args[0], f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.kind, "kind", "", "what the trace was recorded from: `ari|esl|sip`")
	fl.StringVar(&f.output, "output", "events", "what to print: `events|records|calls`")
	fl.StringVar(&f.switchID, "switch-id", "replay", "switch `ID` to use in the output")
	fl.StringVar(&f.region, "region", "", "ISO 3166 `REGION` that national numbers are read in, such as US")
	fl.StringSliceVar(&f.variables, "variable", nil, "channel variable, or header, `NAME` to carry into attributes; may be repeated")
	fl.StringVar(&f.ivr, "ivr-variable", "", "channel variable `NAME` that holds the IVR menu path")
	fl.StringSliceVar(&f.pbx, "pbx", nil, "sip: `ADDRESS` of a switch (IP, IP:port, CIDR); may be repeated, learned when left out")
	fl.StringVar(&f.view, "view", sip.ViewAuto, "sip: what a dialog is, a switch's leg or a whole call: `auto|trunk`")
	fl.StringSliceVar(&f.correlate, "correlation-header", nil, "sip: header `NAME` whose value is the same in both legs of a call; may be repeated")
	_ = cmd.MarkFlagRequired("kind")
	choices(cmd, "kind", "ari", "esl", "sip")
	choices(cmd, "view", sip.ViewAuto, sip.ViewTrunk)
	choices(cmd, "output", "events", "records", "calls")
	return cmd
}

// choices completes a flag's values.
func choices(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func replay(ctx context.Context, path string, f replayFlags, out, errOut io.Writer) error {
	p, err := newReplayer(ctx, f, out)
	if err != nil {
		return err
	}
	read := make(chan error, 1)
	go func() { read <- p.read(path, f) }()
	switch err := await(ctx, read); {
	case errors.Is(err, syscall.EPIPE):
		return errSilent // the reader has had enough
	case err != nil:
		return fmt.Errorf("replaying %s: %w", path, err)
	}
	if p.dead > 0 {
		fmt.Fprintf(errOut, "ctigate: replaying %s: %d lines or packets could not be understood, the first: %s\n", printable(path), p.dead, p.firstDead)
	}
	return nil
}

// errInterrupted is why a replay that was told to end has not printed everything.
var errInterrupted = errors.New("interrupted: only a part is printed")

// await waits for the end of reading. When ctx ends, reading ends at the next line; one that hangs, on a pipe that
// nobody writes to, is left behind.
func await(ctx context.Context, read <-chan error) error {
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-read:
		return err
	case <-time.After(patience):
		return errInterrupted
	}
}

// read prints what the trace at path says.
func (p *replayer) read(path string, f replayFlags) (err error) {
	switch f.kind {
	case "ari":
		err = ari.Replay(path, ari.ReplayOptions{IVRVariable: f.ivr, Variables: f.variables}, p)
	case "esl":
		err = esl.Replay(path, esl.ReplayOptions{IVRVariable: f.ivr, Variables: f.variables}, p)
	case "sip":
		err = sip.Replay(path, sip.ReplayOptions{PBX: f.pbx, View: f.view, CorrelationHeaders: f.correlate, Variables: f.variables}, p)
	}
	if err == nil {
		return p.finish()
	}
	_ = p.out.Flush() // whole lines, as far as it got: err says that it is not all
	return err
}

// replayer is the gateway's way of an event without its queues: tracker, enrichers, freshness, output.
type replayer struct {
	out       *bufio.Writer
	output    string
	ref       call.SwitchRef
	tracker   *call.Tracker
	enrichers []core.Enricher
	judge     *fresh.Judge
	now       call.Time
	ticked    call.Time
	ended     func() error // why to go no further, nil to go on
	err       error

	last  map[string]*call.Event // by call, for output calls
	order []string

	dead      int
	firstDead string
}

func newReplayer(ctx context.Context, f replayFlags, out io.Writer) (*replayer, error) {
	kind, ok := switchKinds[f.kind]
	if !ok {
		return nil, usageError{fmt.Errorf("replaying: --kind %q is unknown: use ari, esl or sip", f.kind)}
	}
	if f.output != "events" && f.output != "records" && f.output != "calls" {
		return nil, usageError{fmt.Errorf("replaying: --output %q is unknown: use events, records or calls", f.output)}
	}
	enrichers, err := enrichersOf(f.region, nil)
	if err != nil {
		return nil, usageError{err}
	}
	return &replayer{
		out: bufio.NewWriterSize(out, 64<<10), output: f.output, ref: call.SwitchRef{ID: f.switchID, Kind: kind},
		tracker: call.NewTracker(call.Options{}), enrichers: enrichers, judge: fresh.New(fresh.Options{}),
		ended: func() error {
			if ctx.Err() != nil {
				return errInterrupted
			}
			return nil
		},
		last: map[string]*call.Event{},
	}, nil
}

// Frame feeds the tracker.
func (p *replayer) Frame(f core.Frame) error {
	p.tick(f.Received)
	for _, o := range f.Observations {
		if o.Received == 0 {
			o.Received = f.Received
		}
		p.take(p.tracker.Apply(p.ref, o))
	}
	return p.state()
}

// state is what failed, or that the replay is to end.
func (p *replayer) state() error {
	if p.err == nil {
		p.err = p.ended()
	}
	return p.err
}

// tick lets recorded time pass.
func (p *replayer) tick(now call.Time) {
	p.now = max(p.now, now)
	if p.now-p.ticked >= 50*call.Millisecond {
		p.ticked = p.now
		p.take(p.tracker.Tick(p.now))
	}
}

// DeadLetter counts.
func (p *replayer) DeadLetter(d core.DeadLetter) error {
	if p.dead++; p.dead == 1 {
		p.firstDead = oneLine(d.Reason)
	}
	return p.state()
}

// Up takes over what the trace says of the switch process.
func (p *replayer) Up(i core.Instance) error {
	p.ref.Instance = i.ID
	if i.Kind != "" {
		p.ref.Kind = i.Kind
	}
	return nil
}

// Clock, Gap, Missing and Count matter to a live link only.
func (p *replayer) Clock(core.ClockSample) error { return nil }

// Gap does nothing.
func (p *replayer) Gap(string, call.Time) error { return nil }

// Missing does nothing.
func (p *replayer) Missing([]string) error { return nil }

// Count does nothing.
func (p *replayer) Count(string, int) {}

// finish lets the calls end that wait for an event which will not come, and writes what is left.
func (p *replayer) finish() error {
	p.take(p.tracker.Tick(p.now + 3600*call.Second))
	for _, id := range p.order {
		p.write(core.StreamCalls, p.last[id])
	}
	if p.err == nil {
		p.err = p.out.Flush()
	}
	if p.err != nil {
		return fmt.Errorf("printing: %w", p.err)
	}
	return nil
}

func (p *replayer) take(events []*call.Event) {
	for _, e := range events {
		for _, en := range p.enrichers {
			en.Enrich(e)
		}
		p.judge.Stamp(e)
		switch {
		case p.output == "records" && e.Type == call.CallRecord:
			p.write(core.StreamRecords, e)
		case p.output == "calls" && e.Call != nil && !fresh.AfterEnd(e):
			if p.last[e.CallID] == nil {
				p.order = append(p.order, e.CallID)
			}
			p.last[e.CallID] = e
		case p.output == "events" && e.Type != call.CallRecord && !fresh.AfterEnd(e):
			p.write(core.StreamEvents, e)
		}
	}
}

func (p *replayer) write(s core.Stream, e *call.Event) {
	if p.err != nil {
		return
	}
	encode := cloudevents.Data
	if s == core.StreamEvents {
		encode = cloudevents.Structured
	}
	key := e.InteractionID
	if key == "" {
		key = e.Switch.ID
	}
	line, err := encode(core.Item{Stream: s, Key: key, Event: e, Switch: e.Switch})
	if err != nil {
		p.err = fmt.Errorf("encoding event %s: %w", e.ID, err)
		return
	}
	_, _ = p.out.Write(line)
	p.err = p.out.WriteByte('\n')
}
