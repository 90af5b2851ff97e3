package siprec

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/srtp/v3"

	"github.com/ctigate/ctigate/adapters/adaptertest"
	"github.com/ctigate/ctigate/core/call"
)

// certificates are an authority and one certificate of it for 127.0.0.1, good for both sides.
func certificates(t testing.TB) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP("127.0.0.1")},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	return cert, cert, write("key.pem", "PRIVATE KEY", kb)
}

func clientTLS(t testing.TB, ca, cert, key string) *tls.Config {
	t.Helper()
	pemBytes, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(pemBytes)
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// TestRecording is a whole session by each transport, with loss, a duplicate and DTMF: what is measured must be what was
// sent, to the packet.
func TestRecording(t *testing.T) {
	ca, cert, key := certificates(t)
	s := serve(t, func(c *Config) {
		c.TLS = &TLSConfig{Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: ca}
		c.CallIDHeaders, c.CorrelationHeaders, c.Attributes = []string{"X-Original-Call-ID", "sipSessionID"}, []string{"X-Corr"}, []string{"X-Skill"}
	})
	for _, proto := range []string{"UDP", "TCP", "TLS"} {
		t.Run(proto, func(t *testing.T) {
			var c *client
			switch proto {
			case "UDP":
				c = s.udp("rec-udp")
			case "TCP":
				c = s.tcp("rec-tcp")
			case "TLS":
				c = s.tls("rec-tls", clientTLS(t, ca, cert, key))
			}
			c.t = t
			recordOne(t, s, c)
		})
	}
}

func recordOne(t *testing.T, s *server, c *client) {
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
	m := c.invite("X-Original-Call-ID: leg-a@pbx\r\nX-Corr: job 7\r\nX-Skill: sales\r\n", offer(1, phones), metadata("complete", ""))
	answered(t, m, phones)
	if !strings.Contains(m.header.Get("Contact"), "+sip.srs") || !strings.Contains(m.body, "a=label:97") || strings.Count(m.body, "a=recvonly") != 2 {
		t.Errorf("answer %v\n%s", m.header, m.body)
	}
	const n = 200
	for i := range n {
		a, b := phones[0].next(0), phones[1].next(0)
		if i%10 != 3 { // 10 % loss
			phones[0].sendRTP(t, a)
		}
		if phones[1].sendRTP(t, b); i == 50 {
			phones[1].sendRTP(t, b) // a duplicate
		}
		if i%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	event := phones[1].next(101)[:16]
	copy(event[12:], []byte{5, 0x80, 800 >> 8, 800 & 0xff})
	phones[1].sendRTP(t, event)
	if m := c.do("BYE", "", "", ""); m.code() != 200 {
		t.Fatalf("BYE: %s", m.first)
	}
	l := s.until("the end", func(l adaptertest.Log) bool {
		return len(of(l, c.callID+";pb", call.LegCleared)) > 0
	})
	a, b := final(t, l, c.callID+";pa"), final(t, l, c.callID+";pb")
	if a.Packets != n-n/10 || a.Lost != n/10 || a.Duplicates != 0 || a.Expected != n || a.Codec != "PCMU" || a.Stream != "0000000a" {
		t.Errorf("caller's stream: %+v", a)
	}
	if b.Packets != n+1 || b.Lost != 0 || b.Duplicates != 1 || b.Direction != call.FromParty || len(b.Flags) != 0 {
		t.Errorf("agent's stream: %+v", b)
	}
	checkLegs(t, l, c.callID)
}

// of are the observations of a kind on a leg.
func of(l adaptertest.Log, leg string, kinds ...call.Kind) (out []call.Observation) {
	for _, o := range observations(l, kinds...) {
		if o.Leg == leg {
			out = append(out, o)
		}
	}
	return out
}

func final(t testing.TB, l adaptertest.Log, leg string) *call.Quality {
	t.Helper()
	var q *call.Quality
	for _, o := range of(l, leg, call.LegQuality) {
		if o.Quality.Final {
			if q != nil {
				t.Errorf("%s has two final reports", leg)
			}
			q = o.Quality
		}
	}
	if q == nil {
		t.Fatalf("%s has no final report", leg)
	}
	return q
}

func checkLegs(t *testing.T, l adaptertest.Log, callID string) {
	a, b := callID+";pa", callID+";pb"
	created := append(of(l, a, call.LegCreated), of(l, b, call.LegCreated)...)
	if len(created) != 2 {
		t.Fatalf("%d legs created", len(created))
	}
	if o := created[0]; !o.Inbound || o.Number != "5551230001" || o.Name != "Ann" || o.Dialed != "agent1" || o.SIPCallID != "leg-a@pbx" || o.Correlation != "job 7" || o.Evidence != "siprec" {
		t.Errorf("caller: %+v", o)
	}
	if o := created[1]; o.Inbound || o.Parent != a || o.Dialed != "agent1" || o.User != "agent1" || o.SIPCallID != "original@pbx" {
		t.Errorf("agent: %+v", o)
	}
	if v := of(l, a, call.LegVariable); len(v) != 1 || v[0].Reason != "X-Skill" || v[0].Value != "sales" {
		t.Errorf("attributes: %+v", v)
	}
	if d := of(l, b, call.DTMFDigit); len(d) != 1 || d[0].Value != "5" || d[0].Count != 100 {
		t.Errorf("digits: %+v", d)
	}
	md := of(l, b, call.LegMedia)
	if len(md) != 1 || md[0].Media.Codec != "PCMU" || md[0].Media.PTimeMS != 20 || md[0].Media.Direction != "sendrecv" || md[0].Count != 8000 {
		t.Errorf("media: %+v", md)
	}
	// The final report comes before the end, and the end is one for each leg.
	order := of(l, b, call.LegQuality, call.LegCleared, call.DTMFDigit)
	if n := len(order); n < 3 || order[n-1].Kind != call.LegCleared || order[n-1].Q850 != 16 || order[n-1].ByParty || order[n-2].Kind != call.LegQuality {
		t.Errorf("end: %+v", order)
	}
}

// TestSRTP records with each suite; a stream that claims a key it has not is heard as nothing.
func TestSRTP(t *testing.T) {
	s := serve(t, nil)
	for _, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			nk, _ := suite.profile.KeyLen()
			ns, _ := suite.profile.SaltLen()
			master := make([]byte, nk+ns)
			_, _ = rand.Read(master)
			good, err := srtp.CreateContext(master[:nk], master[nk:], suite.profile)
			if err != nil {
				t.Fatal(err)
			}
			line := "a=crypto:1 " + suite.name + " inline:" + base64.StdEncoding.EncodeToString(master) + "|2^31\r\na=sendonly\r\n"
			phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
			c := s.udp("srtp-" + suite.name)
			c.t = t
			m := c.invite("", offer(1, phones, line, line), metadata("complete", ""))
			answered(t, m, phones)
			if !strings.Contains(m.body, "RTP/SAVP") || !strings.Contains(m.body, "a=crypto:1 "+suite.name+" inline:") {
				t.Errorf("answer without a key of ours:\n%s", m.body)
			}
			for i := range 100 {
				enc, err := good.EncryptRTP(nil, phones[0].next(0), nil)
				if err != nil {
					t.Fatal(err)
				}
				if i != 7 {
					phones[0].sendRTP(t, enc)
				}
				phones[1].sendRTP(t, phones[1].next(0)) // in the clear
			}
			c.do("BYE", "", "", "")
			l := s.until("the end", func(l adaptertest.Log) bool { return len(of(l, c.callID+";pb", call.LegCleared)) > 0 })
			a, b := final(t, l, c.callID+";pa"), final(t, l, c.callID+";pb")
			if a.Packets != 99 || a.Lost != 1 || a.Encrypted || a.LevelDBM0 == nil {
				t.Errorf("decrypted stream: %+v", a)
			}
			if len(a.Flags) != 1 || a.Flags[0] != call.FlagOneWay {
				t.Errorf("the other one is silent, and the flags are %v", a.Flags)
			}
			if b.Packets != 0 || len(b.Flags) != 1 || b.Flags[0] != call.FlagNoMedia {
				t.Errorf("stream without the key: %+v", b)
			}
			if md := of(l, c.callID+";pa", call.LegMedia); md[0].Media.Encryption != "srtp-sdes" {
				t.Errorf("media: %+v", md[0].Media)
			}
		})
	}
	if n := s.rec.Log().Counts[CountUndecipherable]; n != 100*len(suites) {
		t.Errorf("%d packets are counted undecipherable, of %d", n, 100*len(suites))
	}
}

// TestChanges goes through hold, retrieve, a third participant, a handed-over stream and one who leaves.
func TestChanges(t *testing.T) {
	s := serve(t, nil)
	c := s.tcp("changes")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa), newPhone(t, "127.0.0.1", 0xb)}
	answered(t, c.invite("", offer(1, phones), metadata("complete", "")), phones)
	if m := c.do("INVITE", "", "application/sdp", offer(2, phones, "a=inactive\r\n")); m.code() != 200 || !strings.Contains(m.body, "a=inactive") {
		t.Fatalf("hold: %s\n%s", m.first, m.body)
	}
	if m := c.do("UPDATE", "", "application/sdp", offer(3, phones)); m.code() != 200 {
		t.Fatalf("retrieve: %s", m.first)
	}
	for range 10 {
		phones[0].sendRTP(t, phones[0].next(0))
		phones[1].sendRTP(t, phones[1].next(0))
	}
	s.until("the streams", func(l adaptertest.Log) bool { return len(of(l, "changes;pa", call.LegRetrieved)) == 1 })
	// pb leaves, pc comes and takes over the stream 97.
	partial := `<recording><datamode>partial</datamode><participant participant_id="pc"><nameID aor="sip:agent2@pbx"/></participant>
<participantsessionassoc participant_id="pb" session_id="cs"><disassociate-time>2026-11-24T09:00:00Z</disassociate-time></participantsessionassoc>
<participantstreamassoc participant_id="pc"><send>sb</send></participantstreamassoc></recording>`
	if m := c.do("UPDATE", "", "application/rs-metadata+xml", partial); m.code() != 200 || m.body != "" {
		t.Fatalf("metadata: %s\n%s", m.first, m.body)
	}
	for range 5 {
		phones[1].sendRTP(t, phones[1].next(0))
	}
	phones = append(phones, newPhone(t, "127.0.0.1", 0xc))
	m := c.do("INVITE", "", "multipart/mixed;boundary=xyz", multipartBody(offer(4, phones), `<recording><datamode>partial</datamode><participant participant_id="pd"><nameID aor="sip:5559876543@trunk"/></participant><stream stream_id="sd"><label>98</label></stream></recording>`))
	answered(t, m, phones)
	c.do("BYE", "", "", "")
	l := s.until("the end", func(l adaptertest.Log) bool { return len(of(l, "changes;pd", call.LegCleared)) > 0 })
	if h := of(l, "changes;pa", call.LegHeld, call.LegRetrieved); len(h) != 2 || h[0].Kind != call.LegHeld {
		t.Errorf("holds: %+v", h)
	}
	if q := final(t, l, "changes;pb"); q.Packets != 10 {
		t.Errorf("the stream of who left: %+v", q)
	}
	if q := final(t, l, "changes;pc"); q.Packets != 5 || q.Lost != 0 {
		t.Errorf("the stream of who took over: %+v", q)
	}
	if q := final(t, l, "changes;pd"); q.Packets != 0 || len(q.Flags) != 1 || q.Flags[0] != call.FlagNoMedia {
		t.Errorf("a silent stream: %+v", q)
	}
	if o := of(l, "changes;pd", call.LegCreated); o[0].Parent != "changes;pa" || o[0].Dialed != "5559876543" {
		t.Errorf("who came late: %+v", o)
	}
	for _, leg := range []string{"pa", "pb", "pc", "pd"} {
		if n := len(of(l, "changes;"+leg, call.LegCleared)); n != 1 {
			t.Errorf("%s is cleared %d times", leg, n)
		}
	}
	seen := map[string]bool{}
	for _, o := range observations(l, call.LegQuality) {
		id := o.Native.ID + string(rune(o.Native.Seq))
		if seen[id] || o.Received == 0 || o.At == 0 {
			t.Errorf("report without an id or time of its own: %+v", o)
		}
		seen[id] = true
	}
}

// TestPipelined: requests in one segment are answered in their order.
func TestPipelined(t *testing.T) {
	s := serve(t, nil)
	c := s.tcp("pipe")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa)}
	answered(t, c.invite("", offer(1, phones), metadata("complete", "")), phones)
	c.send(c.text("INFO", 2, 0, "", "", "") + c.text("UPDATE", 3, 0, "", "application/sdp", offer(2, phones)) + c.text("BYE", 4, 0, "", "", ""))
	for i, want := range []string{"2 INFO", "3 UPDATE", "4 BYE"} {
		m := c.receive()
		for m.header.Get("Cseq") == "1 INVITE" { // again, since the ACK was late
			m = c.receive()
		}
		if m.code() != 200 || m.header.Get("Cseq") != want {
			t.Errorf("answer %d is %s to %s", i+1, m.first, m.header.Get("Cseq"))
		}
	}
}

func TestIntervals(t *testing.T) {
	s := serve(t, func(c *Config) { c.QualityInterval = time.Second })
	c := s.udp("intervals")
	phones := []*phone{newPhone(t, "127.0.0.1", 0xa)}
	answered(t, c.invite("", offer(1, phones), metadata("complete", "")), phones)
	for range 20 {
		phones[0].sendRTP(t, phones[0].next(0))
	}
	// A busy machine may have them in more intervals than one.
	var heard, silent call.Observation
	s.until("all packets, and an interval without", func(l adaptertest.Log) bool {
		q := of(l, "intervals;pa", call.LegQuality)
		for i := 1; i < len(q); i++ {
			if q[i-1].Quality.Packets > 0 && q[i].Quality.Packets == 0 && packets(q[:i]) == 20 {
				heard, silent = q[i-1], q[i]
				return true
			}
		}
		return false
	})
	if heard.Quality.Final || silent.Quality.Final || len(silent.Quality.Flags) != 1 || heard.Native == silent.Native {
		t.Errorf("reports: %+v, %+v", heard.Quality, silent.Quality)
	}
	if src := heard.Quality.Source; src != phones[0].LocalAddr().String() || heard.Quality.Destination != phones[0].to.String() {
		t.Errorf("from %s to %s", src, heard.Quality.Destination)
	}
}

// packets is how many these reports tell of.
func packets(reports []call.Observation) (n uint64) {
	for _, o := range reports {
		n += o.Quality.Packets
	}
	return n
}

// TestStop: a server that stops takes leave of its clients, and clears nothing.
func TestStop(t *testing.T) {
	s := serve(t, nil)
	for _, c := range []*client{s.udp("stop-udp"), s.tcp("stop-tcp")} {
		phones := []*phone{newPhone(t, "127.0.0.1", 0xa)}
		answered(t, c.invite("", offer(1, phones), metadata("complete", "")), phones)
		c.do("INFO", "", "", "") // after the ACK
		defer func() {
			if m := c.receive(); !strings.HasPrefix(m.first, "BYE ") {
				t.Errorf("%s gets %q", c.callID, m.first)
			}
		}()
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	l := s.rec.Log()
	if n := len(observations(l, call.LegCleared)); n != 0 {
		t.Errorf("%d legs are cleared although the calls go on", n)
	}
	for _, leg := range []string{"stop-udp;pa", "stop-tcp;pa"} {
		final(t, l, leg)
	}
}

// TestRunAgain: the router calls Run again on the same server.
func TestRunAgain(t *testing.T) {
	s := serve(t, nil)
	addr := s.Addr(TCP)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if s.Addr(TCP).IsValid() {
		t.Error("it still listens")
	}
	s.cfg.Listen = addr.String()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if s.Addr(TCP) != addr {
		t.Errorf("it listens on %v", s.Addr(TCP))
	}
	s.Close()
	s.Close()
	if s.Addr(TCP).IsValid() {
		t.Error("it listens after Close")
	}
}
