package dialoginfo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

// checkFor is how long a check waits for the PBX to tell of every resource.
const checkFor = 8 * time.Second

// Check subscribes to every resource for a moment and says which the PBX tells of.
func (c *Client) Check(ctx context.Context) []core.Finding {
	ctx, cancel := context.WithTimeout(ctx, checkFor)
	defer cancel()
	p := &probe{done: cancel}
	err := c.Run(ctx, p)
	p.mu.Lock()
	defer p.mu.Unlock()
	f := core.Finding{Subject: c.id, What: "dialog events of " + c.srv.addr}
	switch {
	case err != nil:
		f.Level, f.Detail, f.Fix = core.Fail, err.Error(), "correct what the message names"
	case !p.complete:
		f.Level, f.Detail = core.Warn, fmt.Sprintf("the PBX has not told of all %d resources within %s", len(c.uris), checkFor)
		f.Fix = "check that each of resources is an extension whose state the PBX offers (a hint on Asterisk)"
	case len(p.missing) > 0:
		f.Level, f.Detail = core.Warn, strings.Join(p.missing, "; ")
		f.Fix = "correct resources, or give the extensions a hint and the account the right to watch them"
	default:
		f.Level, f.Detail = core.OK, fmt.Sprintf("%d resources are watched", len(c.uris))
	}
	return []core.Finding{f}
}

// probe is an Emitter that waits for the end of the snapshot.
type probe struct {
	mu       sync.Mutex
	complete bool
	missing  []string
	done     context.CancelFunc
}

func (p *probe) Frame(f core.Frame) error {
	for _, o := range f.Observations {
		if o.Kind == call.SnapshotEnd {
			p.mu.Lock()
			p.complete = true
			p.mu.Unlock()
			time.AfterFunc(missingDelay+100*time.Millisecond, p.done) // what is missing is told a little later
		}
	}
	return nil
}

func (p *probe) Up(i core.Instance) error { return p.Missing(i.Missing) }

func (p *probe) Missing(what []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = what
	return nil
}

func (p *probe) DeadLetter(core.DeadLetter) error { return nil }
func (p *probe) Clock(core.ClockSample) error     { return nil }
func (p *probe) Gap(string, call.Time) error      { return nil }
func (p *probe) Count(string, int)                {}
