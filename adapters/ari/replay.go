package ari

import (
	"errors"
	"strings"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/trace"
)

// ReplayOptions tune Replay; the zero value replays as a link with the default configuration would.
type ReplayOptions struct {
	IVRVariable string   // default IVR_PATH
	Variables   []string // channel variables to carry into attributes
}

// Replay reads a recorded trace (ari.jsonl, and ami.jsonl where there is one) and emits what a live session would have,
// by the recorded receive times alone: no clock, so two replays emit the same. Lines that cannot be read are dead
// letters.
func Replay(path string, opt ReplayOptions, out core.Emitter) error {
	if err := out.Up(core.Instance{Kind: Kind, ID: firstInstance(path)}); err != nil {
		return err
	}
	p := &replayer{n: newNormalizer(options(opt), out.Count), out: out}
	if err := trace.Feed(path, out, p.line, trace.ARI, trace.AMI); err != nil {
		return err
	}
	return p.flush(p.last + call.Second)
}

type replayer struct {
	n    *normalizer
	out  core.Emitter
	last call.Time
}

// firstInstance finds the asterisk_id that the trace's events carry.
func firstInstance(path string) string {
	r, err := trace.Open(path, trace.ARI)
	if err != nil {
		return ""
	}
	defer r.Close()
	for {
		line, err := r.Next()
		var bad *trace.LineError
		if err != nil && !errors.As(err, &bad) {
			return ""
		}
		if ev, err := decode(line.Event); err == nil && ev.AsteriskID != "" {
			return ev.AsteriskID
		}
	}
}

func (p *replayer) line(l trace.Line) error {
	p.last = max(p.last, l.Received)
	if err := p.flush(l.Received); err != nil {
		return err
	}
	if l.Source == trace.AMI {
		return p.out.Frame(p.n.manager(parseLines(l.Lines), l.Received))
	}
	f, err := p.n.event(l.Event, l.Received)
	if err != nil {
		return p.out.DeadLetter(core.DeadLetter{Raw: l.Event, Reason: err.Error(), Received: l.Received})
	}
	return p.out.Frame(f)
}

func (p *replayer) flush(now call.Time) error {
	if obs := p.n.flush(now); len(obs) > 0 {
		return p.out.Frame(core.Frame{Type: "flush", Received: now, Observations: obs})
	}
	return nil
}

// parseLines makes a message of recorded lines.
func parseLines(lines []string) message {
	m := message{raw: []byte(strings.Join(lines, "\r\n")), fields: make([]field, 0, len(lines))}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, ":")
		m.fields = append(m.fields, field{k, strings.TrimPrefix(v, " ")})
	}
	return m
}
