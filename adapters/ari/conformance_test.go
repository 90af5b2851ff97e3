package ari

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core"
)

var numbered = regexp.MustCompile(`"value":"n-(\d+)"`)

func TestConformance(t *testing.T) {
	adaptertest.Run(t, adaptertest.Harness{Secret: password, Open: func(t *testing.T, o adaptertest.Options) *adaptertest.Switch {
		f := newFakeSwitch(t, httptest.NewServer)
		var mu sync.Mutex
		var last *peer
		f.opening = func(p *peer) {
			mu.Lock()
			last = p
			mu.Unlock()
		}
		if o.Refuse {
			f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
		}
		send := func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			return last.text(s)
		}
		return &adaptertest.Switch{
			Adapter: open(t, testConfig(f.server.URL)),
			Cut: func() {
				mu.Lock()
				defer mu.Unlock()
				_ = last.conn.Close()
			},
			Close: func() {
				mu.Lock()
				if last != nil {
					_ = last.conn.Close()
				}
				mu.Unlock()
				f.server.CloseClientConnections()
				f.server.Close()
			},
			Send: func(first, n int) error {
				for i := range n {
					if err := send(fmt.Sprintf(`{"type":"ChannelVarset","timestamp":"2026-11-23T05:41:57.557+0000","variable":"N","value":"n-%d","channel":{"id":"1.%d","name":"PJSIP/a-1","state":"Up"},"asterisk_id":"02:fc:00:00:00:01","application":"ctigate"}`, first+i, first+i)); err != nil {
						return err
					}
				}
				return nil
			},
			Number: func(fr core.Frame) (int, bool) {
				m := numbered.FindSubmatch(fr.Raw)
				if m == nil {
					return 0, false
				}
				n, err := strconv.Atoi(string(m[1]))
				return n, err == nil
			},
			Garbage: func() error { return send(`{"type":`) },
		}
	}})
}
