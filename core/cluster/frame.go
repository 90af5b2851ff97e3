package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The protocol of the peer link: both sides say hello, then each sends a report every 200 ms, and goodbye when it stops
// by plan. A frame is its length, 4 bytes, big endian, and so many bytes of JSON.
const (
	linkProtocol = "ctigate.peer.v1"
	maxFrame     = 64 << 10

	reportEvery = 200 * time.Millisecond
	silentAfter = time.Second     // without a frame a peer counts as silent
	frameLimit  = 3 * time.Second // from one frame to the end of the next, or the connection is given up
	helloLimit  = 2 * time.Second // connecting or accepting, TLS and hello together
	minGap      = 10 * time.Millisecond
)

// frame is any of the three. Unknown fields are left alone, so that versions mix.
type frame struct {
	Hello  *hello  `json:"hello,omitempty"`
	Report *Report `json:"report,omitempty"`
	Bye    bool    `json:"bye,omitempty"`
}

type hello struct {
	Protocol string `json:"protocol"`
	Node     string `json:"node"`
	Version  string `json:"version"`  // of the gateway
	Instance string `json:"instance"` // of the process: another one means that the earlier process has ended
	Member   string `json:"member"`
}

func writeFrame(c net.Conn, f frame) error {
	b := append(make([]byte, 4), mustJSON(f)...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if err := c.SetWriteDeadline(time.Now().Add(silentAfter)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// readFrame reads one frame, wholly before the deadline.
func readFrame(c net.Conn, deadline time.Time) (f frame, err error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return f, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return f, fmt.Errorf("%w: %d bytes announced, want 1 to %d", errFrame, n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("%w: %w", errFrame, err)
	}
	return f, f.check()
}

var errFrame = errors.New("not a frame of the peer link")

// check refuses what no node of ours says.
func (f frame) check() error {
	switch {
	case f.Hello != nil:
		if f.Hello.Protocol != linkProtocol || !validName(f.Hello.Node) || len(f.Hello.Instance) > 64 || len(f.Hello.Member) > maxMemberID {
			return fmt.Errorf("%w: not a greeting of %s", errFrame, linkProtocol)
		}
	case f.Report != nil:
		if len(f.Report.Units) > maxUnits || len(f.Report.Member) > maxMemberID {
			return fmt.Errorf("%w: a report of %d units", errFrame, len(f.Report.Units))
		}
		for _, u := range f.Report.Units {
			if u.Unit < 0 || u.Unit >= maxUnits || len(u.State) > 32 {
				return fmt.Errorf("%w: a report of unit %d in state %.32q", errFrame, u.Unit, u.State)
			}
		}
	case !f.Bye:
		return fmt.Errorf("%w: it says nothing", errFrame)
	}
	return nil
}

const maxMemberID = 1024
