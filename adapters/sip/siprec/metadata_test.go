package siprec

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func document(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDialects reads what different recording clients write of the same call: the caller is 5551230001 and sends the
// stream with label 97.
func TestDialects(t *testing.T) {
	tests := []struct {
		file, caller, callerName, other string
		extensions                      map[string]string
	}{
		{"rfc7865.xml", "+15551230001", "Bob", "agent1", map[string]string{"sipSessionID": "ab30317f1a784dc48ff824d0d3715d86;remote=47755a9de7794ba387653f2099600ef2", "supervisor": "sip:alice@atlanta.example"}},
		{"oracle.xml", "5551230001", "WIRELESS CALLER", "2001", map[string]string{"ucid": "00FA080018803B69810C6D;encoding=hex"}},
		{"opensips.xml", "5551230001", "", "8002", map[string]string{"sipSessionID": "call-1@pbx.example"}},
		{"ribbon.xml", "5551230001", "", "8002", map[string]string{"callid": "orig-77@10.0.0.1", "fromhdr": "\"Jörg\" <sip:5551230001@10.0.0.1;user=phone>;tag=1"}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			m, err := ParseMetadata(document(t, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			var v view
			if n := v.apply(m); n != 0 {
				t.Errorf("%d things were dropped", n)
			}
			first := caller(v.present(), m)
			if len(v.people) != 2 || first == nil || first.Number() != tt.caller || first.Name != tt.callerName {
				t.Fatalf("caller %+v of %d", first, len(v.people))
			}
			streams := []*recorded{{index: 0, label: "97"}, {index: 1, label: "96"}}
			if tt.file == "opensips.xml" { // tells no association: the order of the streams is all there is
				streams[0].label, streams[1].label = "96", "97"
			}
			v.own(streams)
			if streams[0].next != first.ID || v.find(streams[1].next).Number() != tt.other {
				t.Errorf("streams are owned by %q and %q", streams[0].next, streams[1].next)
			}
			for k, want := range tt.extensions {
				if m.Extensions[k] != want {
					t.Errorf("extension %s is %q, want %q", k, m.Extensions[k], want)
				}
			}
		})
	}
}

func TestMetadataTimes(t *testing.T) {
	m, err := ParseMetadata(document(t, "rfc7865.xml"))
	if err != nil {
		t.Fatal(err)
	}
	want := time.Date(2026, 11, 24, 6, 0, 5, 250e6, time.UTC)
	if len(m.Attendances) != 2 || !m.Attendances[1].From.Equal(want) || m.Attendances[1].Over {
		t.Errorf("attendances %+v, want the second one from %v", m.Attendances, want)
	}
	m, err = ParseMetadata(document(t, "oracle.xml"))
	if err != nil || len(m.Attendances) != 0 {
		t.Errorf("times without a zone were taken: %+v, %v", m.Attendances, err)
	}
}

func TestPartialMetadata(t *testing.T) {
	read := func(doc string) *Metadata {
		t.Helper()
		m, err := ParseMetadata([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ids := func(v *view) (out []string) {
		for _, p := range v.present() {
			out = append(out, p.ID+"="+p.Number()+" sends "+strings.Join(p.send, ","))
		}
		return out
	}
	var v view
	v.apply(read(`<recording><participant participant_id="a"><nameID aor="sip:1@x"/></participant>
		<participant participant_id="b"><nameID aor="sip:2@x"/></participant><stream stream_id="s1"><label>1</label></stream>
		<participantstreamassoc participant_id="a"><send>s1</send></participantstreamassoc></recording>`))
	steps := []struct {
		doc  string
		want []string
	}{
		{`<recording><datamode>partial</datamode><participant participant_id="c"><nameID aor="sip:3@x"/></participant>
			<stream stream_id="s3"><label>3</label></stream><participantstreamassoc participant_id="c"><send>s3</send></participantstreamassoc></recording>`,
			[]string{"a=1 sends s1", "b=2 sends ", "c=3 sends s3"}},
		{`<recording><datamode>Partial</datamode><participantsessionassoc participant_id="b" session_id="s"><disassociate-time>2026-11-24T09:00:00</disassociate-time></participantsessionassoc></recording>`,
			[]string{"a=1 sends s1", "c=3 sends s3"}},
		{`<recording><datamode>partial</datamode><participantsessionassoc participant_id="nobody"><disassociate-time>2026-11-24T09:00:00Z</disassociate-time></participantsessionassoc>
			<participantstreamassoc participant_id="c"><recv>s1</recv></participantstreamassoc></recording>`,
			[]string{"a=1 sends s1", "c=3 sends "}},
		{`<recording><datamode>partial</datamode><participantsessionassoc participant_id="a" session_id="s2"><associate-time>2026-11-24T09:00:00Z</associate-time></participantsessionassoc>
			<participantsessionassoc participant_id="a" session_id="s1"><disassociate-time>2026-11-24T09:00:00Z</disassociate-time></participantsessionassoc></recording>`,
			[]string{"a=1 sends s1", "c=3 sends "}},
		{`<recording><datamode>complete</datamode><participant participant_id="z"><nameID aor="sip:9@x"/></participant></recording>`,
			[]string{"z=9 sends "}},
	}
	for i, s := range steps {
		v.apply(read(s.doc))
		if got := ids(&v); !reflect.DeepEqual(got, s.want) {
			t.Errorf("after step %d: %q, want %q", i+1, got, s.want)
		}
	}
}

func TestHostileMetadata(t *testing.T) {
	deep := strings.Repeat("<a>", 100_000)
	tests := []struct{ name, doc, want string }{
		{"entities", `<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]><recording>&lol2;</recording>`, "DOCTYPE"},
		{"external", `<!DOCTYPE r SYSTEM "file:///etc/passwd"><recording/>`, "DOCTYPE"},
		{"deep", "<recording>" + deep[:3*50_000], "deeper than 32"},
		{"wide", "<recording>" + strings.Repeat("<a/>", 5000), "more than 4096 elements"},
		{"large", "<recording>" + strings.Repeat(" ", maxMetadataBytes), "over the limit"},
		{"no xml", "hello", "EOF"},
		{"empty", "", "EOF"},
		{"charset", `<?xml version="1.0" encoding="UTF-7"?><recording/>`, "UTF-7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseMetadata([]byte(tt.doc)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v does not say %q", err, tt.want)
			}
		})
	}
}

func TestMetadataLimits(t *testing.T) {
	var b strings.Builder
	b.WriteString("<recording>")
	for i := range 200 {
		fmt.Fprintf(&b, `<participant participant_id="p%d"/><stream stream_id="s%d"/><session session_id="x%d"/><e%d>v</e%d>`, i, i, i, i, i)
	}
	for range 300 {
		b.WriteString(`<participantsessionassoc/><participantstreamassoc/>`)
	}
	b.WriteString("</recording>")
	m, err := ParseMetadata([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Participants) != 64 || len(m.Streams) != 64 || len(m.Attendances) != 256 || len(m.Flows) != 256 || m.Dropped != 136+136+136+44+44 {
		t.Errorf("%d participants, %d streams, %d, %d associations, %d dropped", len(m.Participants), len(m.Streams), len(m.Attendances), len(m.Flows), m.Dropped)
	}
	var v view
	for i := range 10 { // partial documents cannot make it grow without end
		m.Partial = i > 0
		for j := range m.Participants {
			m.Participants[j].ID += "x"
			m.Streams[j].ID += "x"
			m.Streams[j].Label = fmt.Sprint(i, j)
		}
		v.apply(m)
	}
	if len(v.people) != 64 || len(v.labels) != 64 {
		t.Errorf("%d people, %d streams are kept", len(v.people), len(v.labels))
	}
}

func TestUserOf(t *testing.T) {
	tests := map[string]string{
		"sip:alice@example.com": "alice", "sips:+1555@x;user=phone": "+1555", "tel:+1-555-1234;ext=5": "+1-555-1234",
		"sip:@wellcloud.cc": "", "sip:example.com": "", "1001": "1001", "1001@pbx": "1001", `"A" <sip:7@x>;tag=1`: "7",
		"sip:5551230001;noa=international@c": "5551230001", "sip:a%20b@x": "a b", "sip:u:secret@x": "u", "sip:10.0.0.1": "", "": "", "sip:": "",
		"anonymous@anonymous.invalid": "anonymous", "sip:a%zz@x": "a%zz",
	}
	for in, want := range tests {
		if got := userOf(in); got != want {
			t.Errorf("userOf(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	for _, name := range []string{"rfc7865.xml", "oracle.xml", "opensips.xml", "ribbon.xml"} {
		f.Add(document(f, name))
	}
	f.Add([]byte(`<recording><datamode>partial</datamode><participant participant_id="a"><nameID aor="sip:1@x"/>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		m, err := ParseMetadata(doc)
		if err != nil {
			return
		}
		var v view
		v.apply(m)
		m.Partial = true
		v.apply(m)
		if len(v.people) > maxParticipants || len(v.labels) > maxMetaStreams || len(m.Extensions) > maxExtensions {
			t.Fatalf("limits are broken: %d, %d, %d", len(v.people), len(v.labels), len(m.Extensions))
		}
		streams := []*recorded{{label: "96"}, {label: "97"}, {}}
		v.own(streams)
		caller(v.present(), m)
	})
}
