package esl

import (
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/trace"
)

// ReplayOptions tune Replay; the zero value replays as a link with the default configuration would.
type ReplayOptions struct {
	IVRVariable string   // default ivr_path
	Variables   []string // channel variables and SIP headers to carry into attributes
}

// Replay reads a recorded trace (esl.jsonl, JSON or plain events) and emits what a live session would have, by the
// recorded receive times alone: no clock, so two replays emit the same. Frames that cannot be read are dead letters.
func Replay(path string, opt ReplayOptions, out core.Emitter) error {
	p := &replayer{n: newNormalizer(options(opt), out.Count), out: out}
	if err := trace.Feed(path, out, p.line, trace.ESL); err != nil {
		return err
	}
	return p.ensureUp("")
}

type replayer struct {
	n   *normalizer
	out core.Emitter
	up  bool
}

func (p *replayer) ensureUp(instance string) error {
	if p.up {
		return nil
	}
	p.up = true
	return p.out.Up(core.Instance{Kind: Kind, ID: instance})
}

func (p *replayer) line(l trace.Line) error {
	var json bool
	switch l.Head["Content-Type"] {
	case "text/event-json":
		json = true
	case "text/event-plain":
	default: // replies and notices are the session's
		return nil
	}
	if !p.up {
		if e, err := p.n.headers.parse(l.Body, json, func(string) bool { return true }); err == nil {
			if err := p.ensureUp(e.get("Core-UUID")); err != nil {
				return err
			}
		}
	}
	f, err := p.n.event(l.Body, json, l.Received)
	if err != nil {
		return p.out.DeadLetter(core.DeadLetter{Raw: l.Body, Reason: err.Error(), Received: l.Received})
	}
	return p.out.Frame(f)
}
