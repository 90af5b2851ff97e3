package sim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// readAll reads the frames of every connection of a switch until its calls are over.
type read struct{ ari, ami [][]byte }

// playAsterisk runs opt to its end with one reader of each kind, and hands back what they got.
func playAsterisk(t *testing.T, opt Options, place ...string) (read, *Asterisk) {
	t.Helper()
	opt.Readers = 2
	a := startAsterisk(t, opt)
	placeAll(t, a, place)
	_, ami := dialAMI(t, a.AMIAddr())
	_, ari := dialARI(t, a.ARIAddr(), "gateway")
	var out read
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := readMessage(ami)
			if err != nil {
				return
			}
			out.ami = append(out.ami, m)
		}
	}()
	go hangUp(&a.front, a.Done())
	for {
		op, p, err := readWS(ari)
		if err != nil {
			break
		}
		if op == opText {
			out.ari = append(out.ari, p)
		}
	}
	<-done
	return out, a
}

func placeAll(t *testing.T, s interface{ Place(string) error }, names []string) {
	t.Helper()
	for _, n := range names {
		if err := s.Place(n); err != nil {
			t.Fatal(err)
		}
	}
}

// hangUp closes the connections of f once its calls are over.
func hangUp(f *front, done <-chan struct{}) {
	<-done
	for _, c := range f.list() {
		c.finish()
	}
}

func playFreeSWITCH(t *testing.T, opt Options, events string, place ...string) ([][]byte, *FreeSWITCH) {
	t.Helper()
	s := startFreeSWITCH(t, opt)
	placeAll(t, s, place)
	_, r := dialESL(t, s.Addr(), events)
	go hangUp(&s.front, s.Done())
	var out [][]byte
	for {
		h, b, err := readESL(r)
		if err != nil {
			return out, s
		}
		if !strings.HasPrefix(h["Content-Type"], "text/event-") {
			t.Errorf("frame %v", h)
		}
		out = append(out, []byte(b))
	}
}

func readMessage(r interface{ ReadBytes(byte) ([]byte, error) }) ([]byte, error) {
	var m []byte
	for {
		l, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		m = append(m, l...)
		if len(l) == 2 {
			return m, nil
		}
	}
}

// The same seed gives the same bytes; another one gives others.
func TestSameSeedSameBytes(t *testing.T) {
	first, _ := playAsterisk(t, unpaced(12, 7))
	again, _ := playAsterisk(t, unpaced(12, 7))
	other, _ := playAsterisk(t, unpaced(12, 8))
	if len(first.ari) < 500 || len(first.ami) < 500 {
		t.Fatalf("%d ARI and %d AMI events from 12 calls", len(first.ari), len(first.ami))
	}
	if !equal(first.ari, again.ari) || !equal(first.ami, again.ami) {
		t.Error("two runs of one seed differ")
	}
	if equal(first.ari, other.ari) {
		t.Error("two seeds give the same events")
	}
	f1, _ := playFreeSWITCH(t, unpaced(12, 7), "event json ALL")
	f2, _ := playFreeSWITCH(t, unpaced(12, 7), "event json ALL")
	if len(f1) < 200 || !equal(f1, f2) {
		t.Errorf("FreeSWITCH: %d and %d events, equal %v", len(f1), len(f2), equal(f1, f2))
	}
}

func equal(a, b [][]byte) bool {
	return fmt.Sprint(len(a)) == fmt.Sprint(len(b)) && bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil))
}
