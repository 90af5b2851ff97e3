package trunk

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Options says what the trunk plays and how. The zero value is a trunk on which nothing happens until Place is called.
type Options struct {
	Seed      uint64
	Rate      float64        // new calls a second, on average; 0: none but those of Place
	MaxCalls  int            // stop starting calls after so many; 0: never
	MaxActive int            // start no call while so many are up; default 100
	Speed     float64        // ring, talk and hold times are divided by it, the RTP's pace is not; 0 means 1
	Mix       map[string]int // script name → weight; nil means DefaultMix
	Media     map[string]int // audio profile → weight; nil means DefaultMedia
	Agents    int            // agent1 … agentN; default 20
	Faults    Faults

	HEP     string    // host:port, UDP, to mirror every packet to; empty for none
	HEPKey  string    // authentication key of the mirrored packets
	Capture io.Writer // gets every packet as a pcap file; nil for none

	Begin  <-chan struct{}  // no call begins by itself before it is closed; nil: at once
	Now    func() time.Time // default time.Now
	Ledger int              // keep the truth of the last so many calls; 0: none
	Log    *slog.Logger
}

// Faults of SIP to order: each is the share of calls, 0 to 1, that have it.
type Faults struct {
	Retransmit float64 // a request is repeated after 500 ms, when the answer to it is late
	Duplicate  float64 // the network delivers a datagram twice
	Swap       float64 // 180 arrives after 200
	LostACK    float64 // the first ACK is lost and the 200 repeated
	SpoofedBYE float64 // a stranger sends a BYE with the dialog's own ids, which the PBX refuses
	Malformed  float64 // something that is no SIP arrives before the call
}

// AllFaults is every fault on the given share of calls.
func AllFaults(share float64) Faults {
	return Faults{Retransmit: share, Duplicate: share, Swap: share, LostACK: share, SpoofedBYE: share, Malformed: share}
}

func (o Options) withDefaults() Options {
	if o.Speed <= 0 {
		o.Speed = 1
	}
	if o.MaxActive <= 0 {
		o.MaxActive = 100
	}
	if o.Mix == nil {
		o.Mix = DefaultMix()
	}
	if o.Media == nil {
		o.Media = DefaultMedia()
	}
	if o.Agents <= 0 {
		o.Agents = 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	if o.Rate < 0 || o.MaxCalls < 0 {
		return fmt.Errorf("rate %v and max calls %d: give no less than 0", o.Rate, o.MaxCalls)
	}
	known := profiles()
	for name := range o.Media {
		if _, ok := known[name]; !ok {
			return fmt.Errorf("media: no audio profile named %q: choose from %v", name, Profiles())
		}
	}
	for name := range o.Mix {
		if _, ok := scripts()[name]; !ok {
			return fmt.Errorf("mix: no script named %q: choose from %v", name, Scripts())
		}
	}
	return nil
}

// mixer draws names by weight.
type mixer struct {
	names []string
	upTo  []int
}

func newMixer(mix map[string]int) mixer {
	var m mixer
	sum := 0
	for _, n := range slices.Sorted(maps.Keys(mix)) {
		if mix[n] > 0 {
			sum += mix[n]
			m.names, m.upTo = append(m.names, n), append(m.upTo, sum)
		}
	}
	return m
}

func (m mixer) draw(r *rand.Rand) string {
	if len(m.names) == 0 {
		return ""
	}
	i, _ := slices.BinarySearch(m.upTo, 1+r.IntN(m.upTo[len(m.upTo)-1]))
	return m.names[i]
}
