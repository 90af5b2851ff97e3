package sdp

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"
)

// Bounds of what Parts accepts.
const (
	MaxParts      = 16
	MaxBodyBytes  = 1 << 20
	maxPartsDepth = 3 // multipart/mixed with multipart/alternative in it, and one more
)

// Media types of bodies.
const (
	TypeSDP       = "application/sdp"
	TypeRSMeta    = "application/rs-metadata+xml" // RFC 7865
	TypeRSMetaOld = "application/rs-metadata"     // its drafts
	TypeISUP      = "application/isup"            // RFC 3204
)

// Part is one body of a SIP message.
type Part struct {
	Type        string // media type in lower case, without parameters
	Disposition string // Content-Disposition's type in lower case: session, recording-session …
	ID          string // Content-ID, without the angle brackets
	Body        []byte
}

// Parts takes a SIP message's body apart (RFC 5621): a multipart's parts in order, also of nested ones, else the body
// itself. A message without Content-Type that begins like SDP is SDP. What was read before a fault is returned with it.
func Parts(contentType string, body []byte) ([]Part, error) {
	if len(body) > MaxBodyBytes {
		return nil, fmt.Errorf("reading SIP body: %d bytes, over the limit of %d", len(body), MaxBodyBytes)
	}
	var out []Part
	err := split(&out, Part{Body: body}, contentType, 0)
	if err != nil {
		err = fmt.Errorf("reading SIP body: %w", err)
	}
	return out, err
}

// Find returns the first part of one of the types.
func Find(parts []Part, types ...string) (Part, bool) {
	for _, p := range parts {
		if contains(types, p.Type) {
			return p, true
		}
	}
	return Part{}, false
}

func split(out *[]Part, p Part, contentType string, depth int) error {
	if len(p.Body) == 0 {
		return nil
	}
	kind, params, err := mime.ParseMediaType(contentType)
	if kind == "" {
		kind = bareType(contentType, p.Body)
	}
	p.Type = kind
	if !strings.HasPrefix(kind, "multipart/") {
		if len(*out) == MaxParts {
			return fmt.Errorf("more than %d parts", MaxParts)
		}
		*out = append(*out, p)
		return nil
	}
	if boundary := params["boundary"]; err == nil && boundary != "" && depth < maxPartsDepth {
		return splitMultipart(out, p.Body, boundary, depth)
	}
	return fmt.Errorf("%.80q has no boundary, or is nested deeper than %d", contentType, maxPartsDepth)
}

// bareType is the type without what follows it, for parameters that break the grammar.
func bareType(contentType string, body []byte) string {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if kind == "" && bytes.HasPrefix(bytes.TrimLeft(body, "\r\n"), []byte("v=0")) {
		return TypeSDP
	}
	return kind
}

func splitMultipart(out *[]Part, body []byte, boundary string, depth int) error {
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for n := 0; ; n++ {
		part, err := r.NextRawPart()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("taking part %d of a multipart: %w", n+1, err)
		case n == MaxParts:
			return fmt.Errorf("more than %d parts", MaxParts)
		}
		p, err := readPart(part)
		if err != nil {
			return fmt.Errorf("taking part %d of a multipart: %w", n+1, err)
		}
		if err := split(out, p, part.Header.Get("Content-Type"), depth+1); err != nil {
			return err
		}
	}
}

func readPart(part *multipart.Part) (p Part, err error) {
	disposition, _, _ := strings.Cut(part.Header.Get("Content-Disposition"), ";")
	p.Disposition = strings.ToLower(strings.TrimSpace(disposition))
	p.ID = strings.Trim(part.Header.Get("Content-ID"), "<> ")
	var from io.Reader = part
	if strings.EqualFold(strings.TrimSpace(part.Header.Get("Content-Transfer-Encoding")), "base64") {
		from = base64.NewDecoder(base64.StdEncoding, part)
	}
	p.Body, err = io.ReadAll(from)
	return p, err
}
