package hep

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ctigate/ctigate/adapters/sip/wire"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
)

const realKey = "hepsecret"

// readReal reads the datagrams of a recording.
func readReal(t testing.TB, name string) (all [][]byte) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 2*MaxFrame+2)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		b, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// told is a packet in a line: from and to port, and what it is.
func told(p *wire.Packet) string {
	what, _, _ := strings.Cut(string(p.Payload), " sip:")
	if strings.HasPrefix(what, "SIP/2.0 ") {
		what = what[8:11]
	}
	switch p.Kind {
	case wire.RTCPJSON:
		what = "rtcp"
	case wire.SIP:
	default:
		what = fmt.Sprint("kind ", p.Kind)
	}
	if p.Stream {
		what += " tcp"
	}
	return fmt.Sprintf("%d>%d %s", p.Src.Port(), p.Dst.Port(), what)
}

// What real agents send, in the order they sent it.
var realAgents = map[string]struct {
	key  string
	from time.Time // capture time of the first; zero when the agent tells none
	want []string
}{
	"asterisk": {realKey, time.UnixMicro(1795508983726000), []string{
		"24060>23060 INVITE", "23060>24060 100", "23060>24061 INVITE", "24061>23060 100",
		"24061>23060 180", "23060>24060 180", "24061>23060 200", "23060>24061 ACK",
		"23060>24060 200", "24060>23060 ACK", "24101>27641 rtcp", "24201>27751 rtcp",
		"24101>27641 rtcp", "24201>27751 rtcp", "24201>27751 rtcp", "24101>27641 rtcp",
		"27751>24201 rtcp", "27641>24101 rtcp", "24060>23060 BYE", "23060>24060 200",
		"23060>24061 BYE", "24061>23060 200",
	}},
	"asterisk-channel": {realKey, time.UnixMicro(1795508993167000), []string{
		"24060>23060 INVITE", "23060>24060 100", "23060>24061 INVITE", "24061>23060 100",
		"24061>23060 180", "23060>24060 180", "24061>23060 200", "23060>24061 ACK",
		"23060>24060 200", "24060>23060 ACK", "24201>27893 rtcp", "24101>27659 rtcp",
		"24201>27893 rtcp", "24101>27659 rtcp", "24201>27893 rtcp", "24101>27659 rtcp",
		"27893>24201 rtcp", "27659>24101 rtcp", "24060>23060 BYE", "23060>24060 200",
		"23060>24061 BYE", "24061>23060 200",
	}},
	"asterisk-behind-kamailio": {realKey, time.UnixMicro(1795508811921000), []string{
		"25060>23060 INVITE", "23060>25060 100", "23060>25060 200", "25060>23060 ACK",
		"23060>24061 INVITE", "24061>23060 100", "24061>23060 180", "24061>23060 200",
		"23060>24061 ACK", "25060>23060 BYE", "23060>25060 200", "23060>24061 BYE",
		"24061>23060 200", "25060>23060 INVITE", "23060>25060 100", "23060>24061 INVITE",
		"24061>23060 100", "24061>23060 180", "23060>25060 180", "25060>23060 CANCEL",
		"23060>25060 200", "23060>25060 487", "25060>23060 ACK", "23060>24061 CANCEL",
		"24061>23060 200", "24061>23060 487", "23060>24061 ACK",
	}},
	"kamailio": {realKey, time.UnixMicro(1795508811919440), []string{
		"24060>25060 INVITE", "25060>24060 100", "25060>23060 INVITE", "23060>25060 100",
		"23060>25060 200", "25060>24060 200", "24060>25060 ACK", "25060>23060 ACK",
		"24060>25060 BYE", "25060>23060 BYE", "23060>25060 200", "25060>24060 200",
		"24060>25060 INVITE", "25060>24060 100", "25060>23060 INVITE", "23060>25060 100",
		"23060>25060 180", "25060>24060 180", "24060>25060 CANCEL", "25060>23060 CANCEL",
		"25060>24060 200", "23060>25060 200", "23060>25060 487", "25060>23060 ACK",
		"24060>25060 ACK", "25060>24060 487",
	}},
	"kamailio-tcp": {realKey, time.UnixMicro(1795508933901337), []string{
		"24060>25060 INVITE tcp", "25060>24060 100 tcp", "25060>23060 INVITE", "23060>25060 100",
		"23060>25060 180", "25060>24060 180 tcp", "23060>25060 200", "25060>24060 200 tcp",
		"24060>25060 ACK tcp", "25060>23060 ACK", "24060>25060 BYE tcp", "25060>23060 BYE",
		"23060>25060 200", "25060>24060 200 tcp",
	}},
	"kamailio-v1": {"", time.Time{}, []string{
		"24060>25060 INVITE", "25060>24060 100", "25060>23060 INVITE", "23060>25060 100",
		"23060>25060 180", "25060>24060 180", "23060>25060 200", "25060>24060 200",
		"24060>25060 ACK", "25060>23060 ACK", "24060>25060 BYE", "25060>23060 BYE",
		"23060>25060 200", "25060>24060 200",
	}},
	"kamailio-v2": {"", time.UnixMicro(1795508924977494), []string{
		"24060>25060 INVITE", "25060>24060 100", "25060>23060 INVITE", "23060>25060 100",
		"23060>25060 180", "25060>24060 180", "23060>25060 200", "25060>24060 200",
		"24060>25060 ACK", "25060>23060 ACK", "24060>25060 BYE", "25060>23060 BYE",
		"23060>25060 200", "25060>24060 200",
	}},
}

var callID = regexp.MustCompile(`(?m)^Call-ID: (.*?)\r$`)

func TestRealAgents(t *testing.T) {
	received := call.At(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC))
	for name, c := range realAgents {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(c.key)
			var got []string
			for i, raw := range readReal(t, name) {
				var p wire.Packet
				if err := d.Decode(raw, received, &p); err != nil {
					t.Fatalf("datagram %d: %v", i, err)
				}
				got = append(got, told(&p))
				checkReal(t, &p)
				if from := call.At(c.from); i == 0 && from != 0 && p.At != from || from == 0 && p.At != received {
					t.Errorf("datagram %d captured at %v, want %v", i, p.At, c.from)
				}
			}
			if got, want := strings.Join(got, "\n"), strings.Join(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// checkReal holds what is true of every packet of the recordings.
func checkReal(t *testing.T, p *wire.Packet) {
	t.Helper()
	if !p.Src.Addr().IsLoopback() || !p.Dst.Addr().IsLoopback() {
		t.Errorf("%s: addresses %v and %v", told(p), p.Src, p.Dst)
	}
	if p.Kind == wire.RTCPJSON {
		if p.Correlation == "" || !json.Valid(p.Payload) {
			t.Errorf("RTCP of %q is %s", p.Correlation, p.Payload)
		}
		return
	}
	id := callID.FindSubmatch(p.Payload)
	if id == nil || !bytes.Contains(p.Payload, []byte("\r\n\r\n")) {
		t.Fatalf("SIP without Call-ID or end of headers: %q", p.Payload)
	}
	if p.Correlation != "" && p.Correlation != string(id[1]) && !strings.HasPrefix(p.Correlation, "PJSIP/") {
		t.Errorf("%s: correlation %q, Call-ID %q", told(p), p.Correlation, id[1])
	}
}

// The RTCP of Asterisk names the calls its SIP is of, when hep.conf says uuid_type=call-id.
func TestRealAsteriskCorrelation(t *testing.T) {
	d, ids, rtcp := NewDecoder(realKey), map[string]bool{}, 0
	for _, raw := range readReal(t, "asterisk") {
		var p wire.Packet
		if err := d.Decode(raw, 1, &p); err != nil {
			t.Fatal(err)
		}
		if p.Kind == wire.SIP {
			ids[p.Correlation] = true
			continue
		}
		rtcp++
		if !ids[p.Correlation] {
			t.Errorf("RTCP of %q, which no SIP was of", p.Correlation)
		}
	}
	if len(ids) != 2 || rtcp != 8 {
		t.Errorf("%d calls and %d RTCP reports, want 2 and 8", len(ids), rtcp)
	}
}

// A key that is not theirs keeps all of them out; versions 1 and 2 have none.
func TestRealAgentsWithAnotherKey(t *testing.T) {
	for name := range realAgents {
		d := NewDecoder("another")
		for i, raw := range readReal(t, name) {
			var p wire.Packet
			if err := d.Decode(raw, 1, &p); err != ErrKey {
				t.Errorf("%s, datagram %d: %v", name, i, err)
			}
		}
	}
}

// The recordings come through a server by UDP and by TCP as they are.
func TestRealThroughServer(t *testing.T) {
	for _, network := range []string{UDP, TCP} {
		t.Run(network, func(t *testing.T) {
			r := start(t, Config{Key: core.NewSecret(realKey)}, nil)
			c := dial(t, network, r.Addr())
			for _, raw := range readReal(t, "asterisk") {
				send(t, c, raw)
			}
			for _, want := range realAgents["asterisk"].want {
				if p := r.next(); told(&p) != want {
					t.Errorf("got %s, want %s", told(&p), want)
				}
			}
		})
	}
}
