package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
)

const (
	loopback = "127.0.0.1"
	hub      = "10.213.0.1" // the driver's address for nodes in namespaces, whichever way they come
	networks = 200 * 64     // of two addresses each, in 10.213.1.0/24 and on
)

// openHub gives this machine the address that nodes in namespaces reach the driver at.
func openHub() error {
	err := ip("address", "add", hub+"/32", "dev", "lo")
	if err != nil && !strings.Contains(err.Error(), "already assigned") && !strings.Contains(err.Error(), "File exists") {
		return fmt.Errorf("network namespaces need root and ip(8): %w", err)
	}
	return nil
}

func closeHub() { _ = ip("address", "del", hub+"/32", "dev", "lo") } // another driver may have

// cable connects a network namespace of a node's own with the driver's. What is sent while it is not plugged in is lost, and
// nobody is told.
type cable struct {
	space string // the namespace
	end   string // the driver's end of it, an interface
	host  string // the node's address
}

var nextCable atomic.Int64

// newCable makes a namespace and plugs it in.
func newCable() (*cable, error) {
	nextCable.CompareAndSwap(0, 1+rand.Int64N(networks)) // another driver may be at work
	n := nextCable.Add(1) % networks
	address := func(i int64) string { return fmt.Sprintf("10.213.%d.%d", 1+n/64, n%64*4+i) }
	c := &cable{space: fmt.Sprintf("ctigate-chaos-%d-%d", os.Getpid(), n), end: fmt.Sprintf("cg%d-%d", os.Getpid()%1e6, n), host: address(2)}
	for _, args := range [][]string{
		{"netns", "add", c.space},
		{"link", "add", c.end, "type", "veth", "peer", "name", "eth0", "netns", c.space},
		{"address", "add", address(1) + "/30", "dev", c.end},
		{"link", "set", c.end, "up"},
		{"-n", c.space, "address", "add", c.host + "/30", "dev", "eth0"},
		{"-n", c.space, "link", "set", "lo", "up"},
		{"-n", c.space, "link", "set", "eth0", "up"},
		{"-n", c.space, "route", "add", "default", "via", address(1)},
	} {
		if err := ip(args...); err != nil {
			c.remove()
			return nil, fmt.Errorf("making a network for a node: %w", err)
		}
	}
	return c, nil
}

// plug puts the driver's end in or pulls it.
func (c *cable) plug(in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	return ip("link", "set", c.end, state)
}

func (c *cable) remove() { _ = ip("netns", "delete", c.space) } // the cable goes with it; there may be none

// in is the command that runs another in the namespace.
func (c *cable) in(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", c.space, name}, args...)...)
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// hostOf is the address part of host:port.
func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	return host
}
