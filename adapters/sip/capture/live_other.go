//go:build !linux

package capture

import (
	"context"
	"errors"

	"github.com/ctigate/ctigate/adapters/sip/wire"
)

var errNotLinux = errors.New("capturing from an interface needs Linux; capture with tcpdump or Wireshark and read the file")

// Live captures from an interface. It needs Linux.
type Live struct{}

// OpenLive says that it needs Linux.
func OpenLive(LiveConfig) (*Live, error) { return nil, errNotLinux }

// Run says that it needs Linux.
func (*Live) Run(context.Context, wire.Handler) error { return errNotLinux }

// Stats is empty.
func (*Live) Stats() LiveStats { return LiveStats{} }

// Backlog is 0.
func (*Live) Backlog() float64 { return 0 }

// Close does nothing.
func (*Live) Close() error { return nil }
