package capture

import (
	"errors"
	"fmt"
	"time"
)

// AnyInterface captures from all interfaces.
const AnyInterface = "any"

// Defaults and limits of LiveConfig.
const (
	DefaultRingBytes = 64 << 20
	MinRingBytes     = 2 << 20
	MaxRingBytes     = 1 << 30
	// blockBytes is one block of the ring, which the kernel hands over when it is full or blockTimeout old.
	blockBytes   = 1 << 20
	blockTimeout = 10 * time.Millisecond
)

// LiveConfig is what to capture. A zero field takes its default.
type LiveConfig struct {
	// Interface is its name, or "any" for all of them.
	Interface string
	// Promiscuous also takes what is addressed to other machines: for a mirrored port. It needs a named interface.
	Promiscuous bool
	// RingBytes is the size of the buffer that kernel and process share: it holds what arrives while the process is held
	// up. A G.711 packet of 20 ms takes about 330 bytes of it.
	RingBytes int
	// Options of the decoder. Its Ports are also applied in the kernel, so that other traffic costs nothing.
	Options
}

func (c LiveConfig) withDefaults() LiveConfig {
	if c.Interface == "" {
		c.Interface = AnyInterface
	}
	setDefault(&c.RingBytes, DefaultRingBytes)
	return c
}

// Validate returns the first fault, naming the field.
func (c LiveConfig) Validate() error {
	d := c.withDefaults()
	if d.Promiscuous && d.Interface == AnyInterface {
		return errors.New("promiscuous: needs the name of one interface")
	}
	if d.RingBytes < MinRingBytes || d.RingBytes > MaxRingBytes {
		return fmt.Errorf("ring_bytes: %d is outside %d to %d", d.RingBytes, MinRingBytes, MaxRingBytes)
	}
	return c.Options.Validate()
}

// LiveStats is what a live capture did.
type LiveStats struct {
	Stats
	// KernelPackets passed the filter, KernelDrops of them found no room in the ring.
	KernelPackets, KernelDrops uint64
	// Freezes is how often the ring was full.
	Freezes uint64
	// Backlog is the share of the ring that waits to be read, 0 to 1.
	Backlog float64
}
