package siprec

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

// Limits of one metadata document. A recording client writes a few kilobytes and a dozen participants at most.
const (
	maxMetadataBytes = 256 << 10
	maxDepth         = 32
	maxElements      = 4096
	maxParticipants  = 64
	maxMetaStreams   = 64
	maxAssociations  = 256
	maxExtensions    = 256
	maxText          = 2048 // of one element or attribute; a longer one is left out
)

// Metadata is one document of a recording client (RFC 7865; the drafts before it, as Oracle and others write them, and
// documents without the associations, as OpenSIPS does, are taken too). Absent times are zero.
type Metadata struct {
	Partial      bool // only what changed (datamode partial)
	Sessions     []Session
	Participants []Participant
	Streams      []Stream
	Attendances  []Attendance // participantsessionassoc
	Flows        []Flow       // participantstreamassoc
	// Extensions are the elements that RFC 7865 does not know, and sipSessionID, by local name: the first of each.
	Extensions map[string]string
	// Dropped counts what was over a limit.
	Dropped int
}

// Session is one communication session: the recorded call.
type Session struct {
	ID            string
	SIPSessionIDs []string // RFC 7989 Session-ID; OpenSIPS writes the call's Call-ID
}

// Participant is one party of the recorded call.
type Participant struct {
	ID      string
	AoR     string // of the first nameID: sip:alice@example.com
	Name    string
	Calling bool // marked as the calling party (Oracle)
}

// Stream is one media stream; its label is that of the SDP (RFC 4574).
type Stream struct{ ID, Label string }

// Attendance is a participant's part in a session.
type Attendance struct {
	Participant, Session string
	From, To             time.Time
	Over                 bool // it ended, at To where that can be read
}

// Flow says which streams carry what a participant sends, and what it hears.
type Flow struct {
	Participant string
	Send, Recv  []string // stream ids
	Over        bool     // it ended
}

// Number is the user part of the address of record, empty when there is none.
func (p Participant) Number() string { return userOf(p.AoR) }

// ParseMetadata reads one document, tolerantly: any namespace, any order, missing parts. It fails when the bytes are no
// XML, have a DOCTYPE (so no entity is ever expanded), nest deeper than 32 or have more than 4,096 elements or 256 KiB.
func ParseMetadata(doc []byte) (*Metadata, error) {
	root, err := parseTree(doc)
	if err != nil {
		return nil, fmt.Errorf("reading recording metadata: %w", err)
	}
	m := &Metadata{Extensions: map[string]string{}}
	for _, n := range root.children {
		m.element(n)
	}
	return m, nil
}

// node is one element of the document.
type node struct {
	name     string
	attrs    []xml.Attr
	text     []byte
	children []*node
}

// attr is the first of the attributes names that n has.
func (n *node) attr(names ...string) string {
	for _, name := range names {
		for _, a := range n.attrs {
			if a.Name.Local == name && len(a.Value) <= maxText {
				return strings.TrimSpace(a.Value)
			}
		}
	}
	return ""
}

func (n *node) value() string {
	if len(n.text) > maxText {
		return ""
	}
	return strings.TrimSpace(string(n.text))
}

// child is the text of n's first child of that name.
func (n *node) child(name string) string {
	for _, c := range n.children {
		if c.name == name {
			return c.value()
		}
	}
	return ""
}

// values are the texts of n's children of that name.
func (n *node) values(name string) (out []string) {
	for _, c := range n.children {
		if v := c.value(); c.name == name && v != "" && len(out) < maxMetaStreams {
			out = append(out, v)
		}
	}
	return out
}

func (n *node) times() (from, to time.Time, over bool) {
	end := n.child("disassociate-time")
	return stamp(n.child("associate-time")), stamp(end), end != ""
}

// parseTree reads the root element. encoding/xml knows no entities but XML's own five.
func parseTree(doc []byte) (*node, error) {
	if len(doc) > maxMetadataBytes {
		return nil, fmt.Errorf("%d bytes are over the limit of %d", len(doc), maxMetadataBytes)
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimSpace(doc)))
	d.Strict, d.CharsetReader = false, charset
	var root *node
	var path []*node
	for elements := 0; ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := tok.(type) {
		case xml.Directive:
			return nil, fmt.Errorf("a DOCTYPE or other directive is refused")
		case xml.StartElement:
			n := &node{name: t.Name.Local, attrs: t.Copy().Attr}
			if elements++; elements > maxElements || len(path) >= maxDepth {
				return nil, fmt.Errorf("more than %d elements or deeper than %d", maxElements, maxDepth)
			}
			if len(path) > 0 {
				path[len(path)-1].children = append(path[len(path)-1].children, n)
			} else if root == nil {
				root = n
			}
			path = append(path, n)
		case xml.CharData:
			if len(path) > 0 {
				path[len(path)-1].text = append(path[len(path)-1].text, t...)
			}
		case xml.EndElement:
			path = path[:max(0, len(path)-1)]
		}
	}
}

// charset takes what Western systems still declare; UTF-8 never comes here.
func charset(label string, in io.Reader) (io.Reader, error) {
	switch strings.ToLower(label) {
	case "us-ascii", "ascii":
		return in, nil
	case "iso-8859-1", "latin1", "windows-1252":
		raw, err := io.ReadAll(io.LimitReader(in, maxMetadataBytes))
		runes := make([]rune, len(raw))
		for i, b := range raw {
			runes[i] = rune(b)
		}
		return strings.NewReader(string(runes)), err
	}
	return nil, fmt.Errorf("encoding %q is not supported: use UTF-8", label)
}

func (m *Metadata) element(n *node) {
	switch n.name {
	case "datamode", "dataMode":
		m.Partial = strings.EqualFold(n.value(), "partial")
	case "session":
		m.session(n)
	case "participant":
		m.participant(n)
	case "stream":
		if len(m.Streams) >= maxMetaStreams {
			m.Dropped++
			return
		}
		m.Streams = append(m.Streams, Stream{ID: n.attr("stream_id", "id"), Label: n.child("label")})
		m.unknown(n.children, "label")
	case "participantsessionassoc":
		a := Attendance{Participant: n.attr("participant_id", "participant"), Session: n.attr("session_id", "session")}
		a.From, a.To, a.Over = n.times()
		m.attendance(a)
	case "participantstreamassoc":
		f := Flow{Participant: n.attr("participant_id", "participant"), Send: n.values("send"), Recv: n.values("recv")}
		_, _, f.Over = n.times()
		m.flow(f)
	case "group":
		m.unknown(n.children)
	case "sessionrecordingassoc":
	default:
		m.unknown([]*node{n})
	}
}

func (m *Metadata) session(n *node) {
	if len(m.Sessions) >= maxMetaStreams {
		m.Dropped++
		return
	}
	s := Session{ID: n.attr("session_id", "id", "session"), SIPSessionIDs: n.values("sipSessionID")}
	m.Sessions = append(m.Sessions, s)
	if len(s.SIPSessionIDs) > 0 {
		m.extension("sipSessionID", s.SIPSessionIDs[0])
	}
	m.unknown(n.children, "sipSessionID", "start-time", "stop-time", "reason", "group-ref")
}

// participant takes a participant; in the drafts it also says when it came, when it went and what it sends.
func (m *Metadata) participant(n *node) {
	if len(m.Participants) >= maxParticipants {
		m.Dropped++
		return
	}
	p := Participant{ID: n.attr("participant_id", "id")}
	for _, c := range n.children {
		if c.name == "nameID" && p.AoR == "" {
			p.AoR, p.Name = c.attr("aor"), strings.Trim(c.child("name"), `"`)
		}
	}
	from, to, over := n.times()
	if !from.IsZero() || over {
		m.attendance(Attendance{Participant: p.ID, Session: n.attr("session_id", "session"), From: from, To: to, Over: over})
	}
	if send, recv := n.values("send"), n.values("recv"); len(send)+len(recv) > 0 {
		m.flow(Flow{Participant: p.ID, Send: send, Recv: recv, Over: over})
	}
	p.Calling = calling(n)
	m.Participants = append(m.Participants, p)
	m.unknown(n.children, "nameID", "send", "recv")
}

// calling reports whether an extension marks the participant as the calling party: Oracle's callingParty.
func calling(n *node) bool {
	for _, c := range n.children {
		if c.name == "callingParty" && c.value() == "true" || calling(c) {
			return true
		}
	}
	return false
}

func (m *Metadata) attendance(a Attendance) {
	if len(m.Attendances) >= maxAssociations {
		m.Dropped++
		return
	}
	m.Attendances = append(m.Attendances, a)
}

func (m *Metadata) flow(f Flow) {
	if len(m.Flows) >= maxAssociations {
		m.Dropped++
		return
	}
	m.Flows = append(m.Flows, f)
}

// unknown keeps the elements that are not in known, with those inside them.
func (m *Metadata) unknown(nodes []*node, known ...string) {
next:
	for _, n := range nodes {
		for _, k := range known {
			if n.name == k {
				continue next
			}
		}
		switch n.name {
		case "associate-time", "disassociate-time":
		default:
			m.extension(n.name, n.value())
			m.unknown(n.children)
		}
	}
}

func (m *Metadata) extension(name, value string) {
	if value == "" {
		return
	}
	if _, ok := m.Extensions[name]; ok {
		return
	}
	if len(m.Extensions) >= maxExtensions {
		m.Dropped++
		return
	}
	m.Extensions[name] = value
}

// stamp reads a time of the metadata. One without a zone says nothing that can be relied on, and is left out.
func stamp(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 2000 {
		return time.Time{}
	}
	return t
}

// userOf is the user part of a SIP, SIPS or tel URI, or of a header value that holds one: alice of sip:alice@example.com.
func userOf(s string) string {
	if _, rest, ok := strings.Cut(s, "<"); ok {
		s, _, _ = strings.Cut(rest, ">")
	}
	scheme, rest, ok := strings.Cut(strings.TrimSpace(s), ":")
	switch {
	case !ok:
		rest = scheme
	case !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") && !strings.EqualFold(scheme, "tel"):
		rest = strings.TrimSpace(s) // no scheme: host:port may follow
	}
	user, _, at := strings.Cut(rest, "@")
	if !at {
		user, _, _ = strings.Cut(rest, ";")
		if strings.Trim(user, "+0123456789*#-.()") != "" || strings.Count(user, ".") == 3 {
			return "" // a host alone
		}
	}
	user, _, _ = strings.Cut(user, ";") // parameters of the user part: number portability and the like
	user, _, _ = strings.Cut(user, ":") // password
	if u, err := url.PathUnescape(user); err == nil {
		user = u
	}
	return user
}
