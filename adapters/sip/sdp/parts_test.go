package sdp

import (
	"fmt"
	"strings"
	"testing"
)

const mixed = "preamble\r\n--b1\r\nContent-Type: application/sdp\r\nContent-Disposition: session;handling=required\r\n\r\nv=0\r\n\r\n" +
	"--b1\r\ncontent-type: Application/RS-Metadata+xml; charset=utf-8\r\nContent-Disposition: recording-session\r\nContent-ID: <x@y>\r\n\r\n<recording/>\r\n--b1--\r\n"

func TestParts(t *testing.T) {
	nested := "--o\nContent-Type: multipart/mixed; boundary=b1\n\n" + mixed + "\n--o\nContent-Type: application/ISUP;version=itu-t92+\nContent-Transfer-Encoding: base64\n\nAQID\n--o--"
	tests := []struct{ name, contentType, body, want string }{
		{"one body", "application/sdp", "v=0", "application/sdp  3;"},
		{"broken parameters", "Application/SDP; =;;", "v=0", "application/sdp  3;"},
		{"no type", "", "v=0\r\n", "application/sdp  5;"},
		{"no type, no SDP", "", "hello", "  5;"},
		{"no body", "application/sdp", "", ""},
		{"two parts", `multipart/mixed;boundary="b1"`, mixed, "application/sdp session 5;application/rs-metadata+xml recording-session 12;"},
		{"bare LF", `multipart/mixed;boundary=b1`, strings.ReplaceAll(mixed, "\r", ""), "application/sdp session 4;application/rs-metadata+xml recording-session 12;"},
		{"nested", `multipart/related; boundary=o`, nested, "application/sdp session 5;application/rs-metadata+xml recording-session 12;application/isup  3;"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts, err := Parts(tt.contentType, []byte(tt.body))
			got := ""
			for _, p := range parts {
				got += fmt.Sprintf("%s %s %d;", p.Type, p.Disposition, len(p.Body))
			}
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	parts, _ := Parts("multipart/mixed;boundary=b1", []byte(mixed))
	if p, ok := Find(parts, TypeRSMeta, TypeRSMetaOld); !ok || p.ID != "x@y" || string(p.Body) != "<recording/>" {
		t.Errorf("found %+v, %v", p, ok)
	}
	if _, ok := Find(parts, TypeISUP); ok {
		t.Error("found what is not there")
	}
}

func TestPartsBounds(t *testing.T) {
	deep := "v=0"
	for i := range 5 {
		deep = fmt.Sprintf("--%d\nContent-Type: multipart/mixed; boundary=%d\n\n%s\n--%d--\n", i, i-1, deep, i)
	}
	tests := []struct{ name, contentType, body, want string }{
		{"too long", "application/sdp", strings.Repeat("x", MaxBodyBytes+1), "over the limit"},
		{"too many", "multipart/mixed;boundary=b", strings.Repeat("--b\n\nx\n", MaxParts+1) + "--b--", "more than 16 parts"},
		{"too deep", "multipart/mixed;boundary=4", deep, "nested deeper"},
		{"no boundary", "multipart/mixed", "--b\n\nx\n--b--", "no boundary"},
		{"cut off", "multipart/mixed;boundary=b", "--b\n\nx\n", "taking part 1"},
		{"headers without end", "multipart/mixed;boundary=b", "--b\n" + strings.Repeat("X: y\n", 20000), "taking part 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parts(tt.contentType, []byte(tt.body)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzParts(f *testing.F) {
	f.Add("multipart/mixed;boundary=b1", []byte(mixed))
	f.Add("", []byte("v=0"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		parts, _ := Parts(contentType, body)
		n := 0
		for _, p := range parts {
			n += len(p.Body)
		}
		if len(parts) > MaxParts || n > len(body) {
			t.Fatalf("%d parts of %d bytes out of %d", len(parts), n, len(body))
		}
	})
}

func BenchmarkParts(b *testing.B) {
	body := []byte(mixed)
	b.ReportAllocs()
	for b.Loop() {
		if parts, err := Parts("multipart/mixed;boundary=b1", body); err != nil || len(parts) != 2 {
			b.Fatal(err)
		}
	}
}
