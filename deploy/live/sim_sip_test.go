//go:build live

package live_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctigate/ctigate/sim/trunk"
)

// What tshark may say of the simulated trunk's SIP that is not so: it does not know every header.
const unknownHeader = "Unrecognised SIP header"

// wellFormed fails for everything in a capture that tshark finds wrong beyond notes on headers it does not know.
func wellFormed(t *testing.T, file string) {
	t.Helper()
	out := mustOutput(t, "tshark", "-n", "-r", file, "-Y", "_ws.expert || _ws.malformed", "-T", "fields", "-e", "frame.number", "-e", "_ws.expert.message")
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if line != "" && !strings.Contains(line, unknownHeader) {
			t.Errorf("tshark on %s: %s", file, line)
		}
	}
}

// packetsOf counts the packets that a display filter lets through.
func packetsOf(t *testing.T, file, filter string) int64 {
	t.Helper()
	return int64(strings.Count(mustOutput(t, "tshark", "-n", "-r", file, "-Y", filter, "-T", "fields", "-e", "frame.number"), "\n"))
}

// renderTrunk writes the calls of a simulated trunk into a file.
func renderTrunk(t *testing.T, name string, opt trunk.Options) (string, []trunk.Truth, map[trunk.Kind]int64) {
	t.Helper()
	file := scratch(name)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := trunk.NewPcap(f)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[trunk.Kind]int64{}
	truths, err := trunk.Render(opt, 0, func(p trunk.Packet) error { sent[p.Kind]++; return w.Write(p) })
	if err != nil {
		t.Fatal(err)
	}
	return file, truths, sent
}

// The simulated trunk's SIP, RTP and RTCP are what Wireshark takes for well-formed, and all it sees as such.
func TestSimTrunkIsWellFormed(t *testing.T) {
	faults := trunk.AllFaults(0.3)
	faults.Malformed = 0
	file, _, sent := renderTrunk(t, "trunk-formed.pcap", trunk.Options{Seed: 8, Rate: 1, MaxCalls: 60, Speed: 20, Faults: faults})
	wellFormed(t, file)
	for filter, want := range map[string]int64{"sip": sent[trunk.SIP], "rtp": sent[trunk.RTP], "rtcp": sent[trunk.RTCP]} {
		if got := packetsOf(t, file, filter); got != want {
			t.Errorf("tshark sees %d of %s, %d were sent", got, filter, want)
		}
	}
}

// The truth about every stream is what Wireshark's analysis says. Wireshark counts duplicates as packets.
func TestSimTrunkStreamsAsWiresharkSeesThem(t *testing.T) {
	media := map[string]int{}
	for _, p := range trunk.Profiles() {
		if p != "restart" { // a jump inside an SSRC is loss to Wireshark
			media[p] = 1
		}
	}
	file, truths, _ := renderTrunk(t, "trunk-streams.pcap", trunk.Options{Seed: 9, Rate: 1, MaxCalls: 60, Speed: 8, Media: media})
	seen := map[string]tsharkStream{}
	for _, s := range tshark(t, file) {
		seen[s.key] = s
	}
	compared := 0
	for _, x := range truths {
		for _, s := range x.Streams {
			var packets, lost int64
			for _, ssrc := range s.SSRCs {
				g := seen[fmt.Sprintf("%d>%d %08x", s.Source.Port(), s.Destination.Port(), ssrc)]
				packets, lost = packets+g.packets, lost+g.lost
			}
			if want := int64(s.Packets + s.Duplicates); packets != want || lost != s.Lost-int64(s.Duplicates) {
				t.Errorf("call %d (%s) from %s: Wireshark sees %d packets and %d lost, sent were %+v", x.Number, x.Profile, s.Source, packets, lost, s)
			}
			compared++
		}
	}
	if compared < 120 {
		t.Errorf("only %d streams", compared)
	}
}

// sngrep, which speaks HEP, takes everything that the simulated trunk mirrors, when it knows the key, and writes the same
// packets as the trunk's own file has. What a busy machine had no room for in sngrep's socket says nothing of the trunk:
// such a try is repeated with a slower one.
func TestSimTrunkMirrorsToSngrep(t *testing.T) {
	mustOutput(t, "./need.sh", "sngrep")
	for _, speed := range []string{"20", "8", "3"} {
		sent, heard, dropped := mirrorToSngrep(t, speed)
		if dropped > 0 {
			t.Logf("at speed %s the kernel dropped %d packets for sngrep", speed, dropped)
			continue
		}
		wellFormed(t, sent)
		for _, filter := range []string{"sip", "rtp", "rtcp"} {
			if a, b := packetsOf(t, sent, filter), packetsOf(t, heard, filter); a != b || a == 0 {
				t.Errorf("%s: %d packets sent, sngrep heard %d", filter, a, b)
			}
		}
		return
	}
	t.Error("the kernel dropped packets for sngrep at every speed")
}

// mirrorToSngrep has a simulated trunk mirror ten seconds of calls to sngrep, and returns the files of both and how many
// packets the kernel dropped between them.
func mirrorToSngrep(t *testing.T, speed string) (sent, heard string, dropped int) {
	t.Helper()
	const port = 23962
	rc := scratch("sngreprc")
	sent, heard = scratch("sent-"+speed+".pcap"), scratch("heard-"+speed+".pcap")
	conf := fmt.Sprintf("set eep.listen on\nset eep.listen.version 3\nset eep.listen.address 127.0.0.1\nset eep.listen.port %d\nset eep.listen.pass hepsecret\n", port)
	if err := os.WriteFile(rc, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sngrep", "-N", "-q", "-F", "-f", rc, "-L", fmt.Sprintf("udp:127.0.0.1:%d", port), "-O", heard)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	eventually(t, "sngrep listens", time.Minute, func() bool { return udpSocket(port) != nil })
	out := mustOutput(t, lab.ctigate, "sim", "sip", "--hep", fmt.Sprintf("127.0.0.1:%d", port), "--hep-key", "hepsecret", "--pcap", sent,
		"--for", "10s", "--rate", "3", "--speed", speed, "--faults", "0.2", "--malformed", "0")
	if want := packetsOf(t, sent, "udp"); want < 1000 || strings.Contains(out, "nobody listened") {
		t.Fatalf("%d packets: %s", want, out)
	}
	socket := udpSocket(port)
	if socket == nil {
		t.Fatal("sngrep has gone")
	}
	dropped, err := strconv.Atoi(socket[len(socket)-1])
	if err != nil {
		t.Fatalf("/proc/net/udp: %v in %q", err, socket)
	}
	if dropped == 0 {
		eventually(t, "sngrep writes them all", time.Minute, func() bool {
			i, err := os.Stat(heard)
			j, err2 := os.Stat(sent)
			return err == nil && err2 == nil && i.Size() >= j.Size()*9/10
		})
	}
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	return sent, heard, dropped
}

// udpSocket returns the fields of /proc/net/udp about a local socket on 127.0.0.1, or nil when there is none. The last
// counts the packets that it had no room for.
func udpSocket(port int) []string {
	b, _ := os.ReadFile("/proc/net/udp")
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[1] == fmt.Sprintf("0100007F:%04X", port) {
			return fields
		}
	}
	return nil
}
