//go:build !linux

package hep

import (
	"fmt"
	"net"
)

// setReceive sets the kernel's buffer to size bytes, as far as the system allows.
func setReceive(c *net.UDPConn, size int) error {
	if err := c.SetReadBuffer(size); err != nil {
		return fmt.Errorf("opening HEP receiver: receive_buffer: %w", err)
	}
	return nil
}

// droppedBefore knows nothing: only Linux tells of drops.
func droppedBefore([]byte) (uint32, bool) { return 0, false }
