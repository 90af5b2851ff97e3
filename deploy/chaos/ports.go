package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Ports that are given out: below those that the kernel picks for outgoing connections, so that one stays free while the
// process that listens on it is dead.
const (
	firstPort = 11_000
	lastPort  = 32_000
)

var nextPort atomic.Int64

// freePort is an address of host with a port on which nobody listens on loopback now, given out once.
func freePort(host string) (string, error) {
	nextPort.CompareAndSwap(0, firstPort+rand.Int64N(10_000)) // another driver may be at work
	for range lastPort - firstPort {
		n := firstPort + (nextPort.Add(1)-firstPort)%(lastPort-firstPort)
		l, err := net.Listen("tcp", loopback+":"+strconv.FormatInt(n, 10))
		if err == nil {
			l.Close()
			return net.JoinHostPort(host, strconv.FormatInt(n, 10)), nil
		}
	}
	return "", errors.New("looking for a free port: there is none")
}

// ownerOf finds which of the processes holds the other end of a connection on this machine; 0 for none.
func ownerOf(c net.Conn, pids []int) int {
	inode := inodeOf(c.RemoteAddr().(*net.TCPAddr).Port)
	if inode == "" {
		return 0
	}
	for _, pid := range pids {
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // it may have ended: then it holds nothing
		for _, fd := range fds {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && to == "socket:["+inode+"]" {
				return pid
			}
		}
	}
	return 0
}

// inodeOf is that of the socket with local port on loopback, as /proc/net/tcp lists it.
func inodeOf(port int) string {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	local := fmt.Sprintf("0100007F:%04X", port)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local {
			return f[9]
		}
	}
	return ""
}
