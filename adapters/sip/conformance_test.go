package sip_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/adapters/sip"
	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is a capture agent that sends HEP over TCP: it connects when there is something to send.
type agent struct {
	address string
	mu      sync.Mutex
	conn    net.Conn
}

func (a *agent) write(b []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		conn, err := net.DialTimeout("tcp", a.address, time.Second)
		if err != nil {
			return err
		}
		a.conn = conn
	}
	if _, err := a.conn.Write(b); err != nil {
		a.conn.Close()
		a.conn = nil
		return err
	}
	return nil
}

func (a *agent) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// frame is a HEP version 3 frame with a SIP message.
func frame(payload string) []byte {
	var chunks []byte
	chunk := func(kind uint16, v []byte) {
		chunks = binary.BigEndian.AppendUint16(chunks, 0)
		chunks = binary.BigEndian.AppendUint16(chunks, kind)
		chunks = binary.BigEndian.AppendUint16(chunks, uint16(6+len(v)))
		chunks = append(chunks, v...)
	}
	now := time.Now()
	chunk(1, []byte{2})
	chunk(2, []byte{17})
	chunk(3, []byte{10, 0, 0, 1})
	chunk(4, []byte{10, 0, 0, 2})
	chunk(7, []byte{0x13, 0xc4})
	chunk(8, []byte{0x13, 0xc4})
	chunk(9, binary.BigEndian.AppendUint32(nil, uint32(now.Unix())))
	chunk(10, binary.BigEndian.AppendUint32(nil, uint32(now.Nanosecond()/1000)))
	chunk(11, []byte{1})
	chunk(14, []byte("the agents' key"))
	chunk(15, []byte(payload))
	return append(binary.BigEndian.AppendUint16([]byte("HEP3"), uint16(6+len(chunks))), chunks...)
}

func message(n int) string {
	return fmt.Sprintf("OPTIONS sip:x@10.0.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK%d\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n"+
		"Call-ID: number-%d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", n, n)
}

var number = regexp.MustCompile(`Call-ID: number-(\d+)`)

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{
		NoLogin: true, Listens: true, Secret: "the agents' key",
		Open: func(t *testing.T, _ adaptertest.Options) *adaptertest.Switch {
			a := &agent{address: freePort(t)}
			cfg := sip.NewConfig()
			cfg.HEP = hep.NewConfig()
			cfg.HEP.Listen, cfg.HEP.Transports, cfg.HEP.Key = a.address, []string{hep.TCP}, core.NewSecret("the agents' key")
			ad, err := cfg.Open("trunk1", core.Env{})
			if err != nil {
				t.Fatal(err)
			}
			return &adaptertest.Switch{
				Adapter: ad,
				Send: func(first, n int) error {
					for i := range n {
						if err := a.write(frame(message(first + i))); err != nil {
							return err
						}
					}
					return nil
				},
				Number: func(f core.Frame) (int, bool) {
					m := number.FindSubmatch(f.Raw)
					if m == nil {
						return 0, false
					}
					n, err := strconv.Atoi(string(m[1]))
					return n, err == nil
				},
				Garbage: func() error {
					return errors.Join(a.write(frame("INVITE sip:x SIP/2.0\r\nthis is no header\r\n\r\n")))
				},
				Close: a.close,
			}
		},
	})
}
