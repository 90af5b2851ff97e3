package hep

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// setReceive sets the kernel's buffer to size bytes (as far as net.core.rmem_max allows, or beyond it with
// CAP_NET_ADMIN) and asks to be told of drops.
func setReceive(c *net.UDPConn, size int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("opening HEP receiver: receive_buffer: %w", err)
	}
	var fault error
	err = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
			fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		if e := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); fault == nil {
			fault = e
		}
	})
	if err == nil {
		err = fault
	}
	if err != nil {
		return fmt.Errorf("opening HEP receiver: receive_buffer: %w", err)
	}
	return nil
}

// droppedBefore reads the socket's count of drops out of a datagram's control messages.
func droppedBefore(control []byte) (uint32, bool) {
	for len(control) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0, false
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
			return binary.NativeEndian.Uint32(data), true
		}
		control = rest
	}
	return 0, false
}
