package sim

import (
	"fmt"
	"log/slog"
	"time"
)

// Options says what a simulated switch plays and how. The zero value is a switch on which nothing happens until Place
// is called.
type Options struct {
	Seed      uint64
	Rate      float64        // new calls a second, on average; 0: none but those of Place
	MaxCalls  int            // stop starting calls after so many; 0: never
	MaxActive int            // start no call while so many are up; 0: no limit
	Speed     float64        // ring, talk, queue and hold times are divided by it; 0 means 1
	Mix       map[string]int // script name → weight; nil means DefaultMix
	Agents    int            // agent1 … agentN; 0: as many as the calls need
	Queues    []string       // default support and sales
	User      string         // ARI and AMI, default gw
	Password  string         // default gwsecret (Asterisk), ClueCon (FreeSWITCH)

	Now     func() time.Time // default time.Now
	Unpaced bool             // play as fast as the readers read, keeping the scripted times in the events

	Readers int // start no call before so many readers take events; default 1 when Unpaced

	ClockSkew time.Duration // added to every time the switch tells
	Latency   time.Duration // between something happening and its event being sent, and of every answer
	Jitter    time.Duration // up to so much more latency, drawn for each event; order within a call is kept
	Faults    Faults

	Buffer int  // bytes a reader may lag behind before it is cut off; default 16 MiB
	Wait   bool // wait for a slow reader instead; implied by Unpaced
	Ledger int  // keep the last so many written events and ended calls; 0: none
	Log    *slog.Logger
}

// Faults to order. Each "every" is a mean interval per connection; the actual ones are drawn from the seed.
type Faults struct {
	DisconnectEvery    time.Duration // close the connection
	GarbageEvery       time.Duration // send bytes that are no event: broken JSON, a frame with a bad header
	HalfFrameEvery     time.Duration // send the first half of an event, then close
	SlowBytesPerSecond int           // deliver no faster than this; 0: at full speed
}

// any reports whether some fault is due at intervals.
func (f Faults) any() bool {
	return f.DisconnectEvery > 0 || f.GarbageEvery > 0 || f.HalfFrameEvery > 0
}

func (o Options) withDefaults(password string) Options {
	if o.Speed <= 0 {
		o.Speed = 1
	}
	if o.Mix == nil {
		o.Mix = DefaultMix()
	}
	if len(o.Queues) == 0 {
		o.Queues = []string{"support", "sales"}
	}
	if o.User == "" {
		o.User = "gw"
	}
	if o.Password == "" {
		o.Password = password
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Buffer <= 0 {
		o.Buffer = 16 << 20
	}
	if o.Unpaced {
		o.Wait = true
		o.Readers = max(1, o.Readers)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	for name := range o.Mix {
		if _, ok := scripts[name]; !ok {
			return fmt.Errorf("mix: no script named %q: choose from %v", name, Scripts())
		}
	}
	if o.Unpaced && o.Rate > 0 && o.MaxCalls == 0 {
		return fmt.Errorf("unpaced: set MaxCalls, or it never ends")
	}
	return nil
}
