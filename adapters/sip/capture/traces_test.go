package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctigate/ctigate/adapters/sip/framer"
	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core/call"
)

const traces = "../../adaptertest/traces"

// dialog is what wire.json says of one SIP dialog.
type dialog struct {
	CallID   string  `json:"call_id"`
	InviteAt float64 `json:"invite_at"` // s
}

// Every recording is read whole: each packet is UDP, and each call that an independent decoder found begins when it says.
func TestRecordings(t *testing.T) {
	files, err := filepath.Glob(traces + "/*/*/sip-rtp.pcap.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings under %s (%v)", traces, err)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(filepath.Dir(file))) + "/" + filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			invited := map[string]call.Time{}
			sip := 0
			st, err := ReadFile(t.Context(), file, Options{}, func(p *wire.Packet) {
				if framer.Start(p.Payload) == framer.Yes {
					sip++
					if id := callID(p.Payload); invited[id] == 0 && bytes.HasPrefix(p.Payload, []byte("INVITE ")) {
						invited[id] = p.At
					}
				}
				if p.Kind != wire.Datagram || p.Stream || p.At == 0 || p.At != p.Received || !p.Src.Addr().Is4() {
					t.Fatalf("packet %+v", p)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if st.Packets != st.Datagrams+st.Empty {
				t.Errorf("%d packets, of which UDP %d: %+v", st.Packets, st.Datagrams+st.Empty, st)
			}
			for _, d := range dialogs(t, filepath.Dir(file)) {
				if got, want := invited[d.CallID], call.Time(math.Round(d.InviteAt*1e6)); got != want {
					t.Errorf("Call-ID %s began at %v, want %v", d.CallID, got, want)
				}
			}
			t.Logf("%d packets, %d of SIP, %d calls", st.Packets, sip, len(invited))
		})
	}
}

func callID(msg []byte) string {
	_, rest, _ := bytes.Cut(msg, []byte("\r\nCall-ID:"))
	id, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(bytes.TrimSpace(id))
}

func dialogs(t *testing.T, folder string) []dialog {
	b, err := os.ReadFile(filepath.Join(folder, "wire.json"))
	if err != nil {
		t.Fatal(err)
	}
	var out []dialog
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(fmt.Errorf("wire.json: %w", err))
	}
	return out
}
