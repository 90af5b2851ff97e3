package esl

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
)

func TestConformance(t *testing.T) {
	num := regexp.MustCompile(`"Unique-ID":"n-(\d+)"`)
	adaptertest.Run(t, adaptertest.Harness{Secret: testPassword, Open: func(t *testing.T, o adaptertest.Options) *adaptertest.Switch {
		f := newFakeSwitch(t)
		var mu sync.Mutex
		var peers []*peer
		f.onCommand = func(p *peer, cmd string) bool {
			mu.Lock()
			defer mu.Unlock()
			if len(peers) == 0 || peers[len(peers)-1] != p {
				peers = append(peers, p)
			}
			return false
		}
		var ln net.Listener
		var conns []net.Conn
		addr := f.listenWith(func() (net.Listener, error) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ln = l
			return l, err
		})
		_ = conns
		cfg := testConfig(addr)
		if o.Refuse {
			cfg.Password = core.NewSecret("wrong")
		}
		a, err := cfg.Open("fs1", core.Env{})
		if err != nil {
			t.Fatal(err)
		}
		last := func() *peer { mu.Lock(); defer mu.Unlock(); return peers[len(peers)-1] }
		cut := func() {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range peers {
				_ = p.Close()
			}
		}
		return &adaptertest.Switch{Adapter: a, Cut: cut, Close: func() { _ = ln.Close(); cut() },
			Send: func(first, n int) error {
				p := last()
				for i := range n {
					p.event(event1("CHANNEL_CREATE", 100+first+i, "Unique-ID", fmt.Sprintf("n-%d", first+i)))
				}
				return nil
			},
			Number: func(fr core.Frame) (int, bool) {
				m := num.FindSubmatch(fr.Raw)
				if m == nil {
					return 0, false
				}
				n, err := strconv.Atoi(string(m[1]))
				return n, err == nil
			},
			Garbage: func() error { last().event(`{"Event-Name":`); return nil },
		}
	}})
}
