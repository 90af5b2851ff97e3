package dialoginfo

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of what Parse accepts.
const (
	MaxBytes    = 128 << 10 // of a document
	MaxElements = 8192
	MaxDepth    = 12
	MaxDialogs  = 256
)

// Dialog states (RFC 4235, 3.7.1).
const (
	Trying     = "trying"
	Proceeding = "proceeding"
	Early      = "early"
	Confirmed  = "confirmed"
	Terminated = "terminated"
)

// Directions of a dialog, seen from the watched user.
const (
	Initiator = "initiator"
	Recipient = "recipient"
)

// Info is one dialog-info document (RFC 4235, 4).
type Info struct {
	Entity  string
	Version uint32
	Full    bool // state="full", which is also meant where nothing is said
	Dialogs []Dialog
}

// Dialog is one dialog element. Absent things are empty: some PBXs name no more than an id and a state.
type Dialog struct {
	ID         string
	CallID     string
	LocalTag   string
	RemoteTag  string
	Direction  string // Initiator, Recipient or empty
	State      string // Trying … Terminated
	Event      string // of a terminated one: cancelled, rejected, replaced, local-bye, remote-bye, error, timeout
	Code       int    // SIP status that ended it, or of the latest provisional response
	Seconds    int    // since the dialog began; 0 when not said
	Local      Participant
	Remote     Participant
	ReferredBy string
	Replaces   struct{ CallID, LocalTag, RemoteTag string }
}

// Participant is one end of a dialog.
type Participant struct {
	URI       string // identity
	Display   string
	Target    string // URI of its contact
	Rendering string // "no" when it refuses to hear the other end: it put it on hold (RFC 4235, 3.6.2; RFC 3840)
}

// Parse reads a document. Namespaces are not looked at, since some PBXs get them wrong. What a DOCTYPE could do is
// refused with it.
func Parse(b []byte) (*Info, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("reading dialog-info: %d bytes, over the limit of %d", len(b), MaxBytes)
	}
	p := parser{d: xml.NewDecoder(bytes.NewReader(b)), info: &Info{Full: true}}
	p.d.Strict = false // a bare & in a display name is no reason to lose a call
	p.d.CharsetReader = latin1
	if err := p.run(); err != nil {
		return nil, fmt.Errorf("reading dialog-info: %w", err)
	}
	return p.info, nil
}

type parser struct {
	d        *xml.Decoder
	info     *Info
	path     []string // local names of the open elements
	elements int
	found    bool // a dialog-info element
}

func (p *parser) run() error {
	for {
		t, err := p.d.RawToken()
		if errors.Is(err, io.EOF) {
			return p.end()
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			err = p.open(t)
		case xml.EndElement:
			err = p.close(t.Name.Local)
		case xml.CharData:
			p.text(t)
		case xml.Directive:
			err = errors.New("it has a DOCTYPE, which dialog-info has no use for")
		}
		if err != nil {
			return err
		}
	}
}

func (p *parser) end() error {
	if !p.found {
		return errors.New("there is no dialog-info element")
	}
	if len(p.path) > 0 {
		return fmt.Errorf("it ends inside of <%s>", p.path[len(p.path)-1])
	}
	return nil
}

func (p *parser) open(e xml.StartElement) error {
	if p.elements++; p.elements > MaxElements {
		return fmt.Errorf("more than %d elements", MaxElements)
	}
	if len(p.path) == MaxDepth {
		return fmt.Errorf("elements nested deeper than %d", MaxDepth)
	}
	p.path = append(p.path, e.Name.Local)
	switch p.where() {
	case "dialog-info":
		return p.root(e)
	case "dialog-info/dialog":
		return p.dialog(e)
	case "dialog-info/dialog/state":
		d := p.last()
		d.Event = strings.ToLower(attr(e, "event"))
		d.Code = number(attr(e, "code"), 699)
	case "dialog-info/dialog/replaces":
		r := &p.last().Replaces
		r.CallID, r.LocalTag, r.RemoteTag = attr(e, "call-id"), attr(e, "local-tag"), attr(e, "remote-tag")
	default:
		p.participant(e)
	}
	return nil
}

func (p *parser) close(name string) error {
	if len(p.path) == 0 || p.path[len(p.path)-1] != name {
		return fmt.Errorf("</%s> closes nothing", name)
	}
	p.path = p.path[:len(p.path)-1]
	return nil
}

// where is the path of the element just opened, as far as it matters.
func (p *parser) where() string {
	if len(p.path) > 5 {
		return ""
	}
	return strings.Join(p.path, "/")
}

func (p *parser) root(e xml.StartElement) error {
	if p.found {
		return errors.New("there are two dialog-info elements")
	}
	p.found = true
	p.info.Entity = attr(e, "entity")
	p.info.Full = !strings.EqualFold(attr(e, "state"), "partial")
	p.info.Version = uint32(number(attr(e, "version"), 1<<31-1))
	return nil
}

func (p *parser) dialog(e xml.StartElement) error {
	if len(p.info.Dialogs) == MaxDialogs {
		return fmt.Errorf("more than %d dialogs", MaxDialogs)
	}
	d := Dialog{ID: attr(e, "id"), CallID: attr(e, "call-id"), LocalTag: attr(e, "local-tag"), RemoteTag: attr(e, "remote-tag")}
	switch dir := strings.ToLower(attr(e, "direction")); dir {
	case Initiator, Recipient:
		d.Direction = dir
	}
	p.info.Dialogs = append(p.info.Dialogs, d)
	return nil
}

// last is the dialog that is open.
func (p *parser) last() *Dialog { return &p.info.Dialogs[len(p.info.Dialogs)-1] }

// end of the dialog that the path leads into.
func (p *parser) side() *Participant {
	if len(p.path) < 4 || p.path[0] != "dialog-info" || p.path[1] != "dialog" {
		return nil
	}
	switch p.path[2] {
	case "local":
		return &p.last().Local
	case "remote":
		return &p.last().Remote
	}
	return nil
}

func (p *parser) participant(e xml.StartElement) {
	s := p.side()
	if s == nil {
		return
	}
	switch {
	case len(p.path) == 4 && e.Name.Local == "identity":
		s.Display = strings.TrimSpace(attr(e, "display"))
	case len(p.path) == 4 && e.Name.Local == "target":
		s.Target = strings.TrimSpace(attr(e, "uri"))
	case len(p.path) == 5 && p.path[3] == "target" && e.Name.Local == "param":
		// The RFC's schema has pval, its examples and most PBXs have pvalue.
		if name := strings.ToLower(attr(e, "pname")); name == "+sip.rendering" || name == "sip.rendering" {
			s.Rendering = strings.ToLower(attr(e, "pval") + attr(e, "pvalue"))
		}
	}
}

func (p *parser) text(t xml.CharData) {
	if len(p.path) < 3 {
		return
	}
	switch p.where() {
	case "dialog-info/dialog/state":
		p.last().State += strings.ToLower(strings.TrimSpace(string(t)))
	case "dialog-info/dialog/duration":
		p.last().Seconds = number(strings.TrimSpace(string(t)), 1<<31-1)
	case "dialog-info/dialog/referred-by":
		p.last().ReferredBy += strings.TrimSpace(string(t))
	case "dialog-info/dialog/local/identity", "dialog-info/dialog/remote/identity":
		p.side().URI += strings.TrimSpace(string(t))
	}
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// number reads a decimal up to limit; anything else is 0.
func number(s string, limit uint64) int {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > limit {
		return 0
	}
	return int(n)
}

// latin1 reads the encodings beside UTF-8 that old PBXs declare.
func latin1(charset string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "us-ascii", "ascii":
		return r, nil
	case "iso-8859-1", "latin1", "windows-1252":
	default:
		return nil, fmt.Errorf("encoding %q is not known", charset)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return strings.NewReader(s.String()), nil
}
