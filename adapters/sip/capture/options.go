package capture

import (
	"errors"
	"fmt"

	"github.com/ctigate/ctigate/adapters/sip/framer"
)

// PortRange is a range of UDP and TCP ports, both ends included.
type PortRange struct {
	First, Last uint16
}

// MaxPortRanges is how many ranges Options.Ports may hold: they are compared one by one in the kernel.
const MaxPortRanges = 64

// Defaults of Options.
const (
	DefaultMaxConnections = 8192
	DefaultMaxStreamBytes = 64 << 20
	DefaultMaxFragmented  = 4096
)

// Options bound what the decoder holds. A zero field takes its default.
type Options struct {
	// Ports: only packets from or to one of these; none means all. Later fragments, which carry no ports, are judged
	// when the datagram is whole.
	Ports []PortRange
	// MaxMessage is the largest SIP message taken out of a TCP stream, bytes.
	MaxMessage int
	// MaxConnections is how many TCP connections are followed at once; the one that was silent longest gives way.
	MaxConnections int
	// MaxStreamBytes is what all of them may hold, unfinished messages and segments that came too early.
	MaxStreamBytes int
	// MaxFragmented is how many fragmented datagrams may be incomplete at once, of 64 KiB at most each; the oldest gives
	// way.
	MaxFragmented int
}

func (o Options) withDefaults() Options {
	setDefault(&o.MaxMessage, framer.DefaultMaxMessage)
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	setDefault(&o.MaxStreamBytes, DefaultMaxStreamBytes)
	setDefault(&o.MaxFragmented, DefaultMaxFragmented)
	return o
}

func setDefault(field *int, value int) {
	if *field <= 0 {
		*field = value
	}
}

// Validate returns the first fault, naming the field.
func (o Options) Validate() error {
	if len(o.Ports) > MaxPortRanges {
		return fmt.Errorf("ports: %d ranges, more than %d; join those that lie side by side", len(o.Ports), MaxPortRanges)
	}
	for i, r := range o.Ports {
		if r.First > r.Last {
			return fmt.Errorf("ports[%d]: %d-%d ends before it begins", i, r.First, r.Last)
		}
	}
	if o.MaxMessage < 0 || o.MaxConnections < 0 || o.MaxStreamBytes < 0 || o.MaxFragmented < 0 {
		return errors.New("capture limits: one is negative; leave it out for the default")
	}
	return nil
}

// portSet has one bit a port.
type portSet [1 << 16 / 64]uint64

// newPortSet is nil when all ports are wanted.
func newPortSet(ranges []PortRange) *portSet {
	if len(ranges) == 0 {
		return nil
	}
	s := new(portSet)
	for _, r := range ranges {
		for p := int(r.First); p <= int(r.Last); p++ {
			s[p/64] |= 1 << (p % 64)
		}
	}
	return s
}

func (s *portSet) has(p uint16) bool { return s[p/64]&(1<<(p%64)) != 0 }
