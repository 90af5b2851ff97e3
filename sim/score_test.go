package sim

import (
	"testing"
	"time"
)

// identity makes a call whose placeholders are filled with what was recorded.
func identity(sc *score, base int64) *simCall {
	e := &engine{opt: Options{Speed: 1}, skew: func() time.Duration { return 0 }}
	e.globals = [globalsNumber]string{"16b894de-02df-4902-a4c3-17c2275ab1a2", "02:fc:00:00:00:01"}
	c := &simCall{sw: e, sc: sc, start: base}
	for _, s := range sc.slots {
		switch {
		case s.kind == slotSession && s.arg == 1:
			c.vals = append(c.vals, s.rec[1:])
		case s.kind == slotSession:
			c.vals = append(c.vals, s.rec[len("session "):])
		case s.rec == "digits":
			c.vals = append(c.vals, "42")
		case s.kind == slotDigits && s.rec != "opt42":
			c.vals = append(c.vals, s.rec[len("digit "):])
		default:
			c.vals = append(c.vals, s.rec)
		}
	}
	for _, s := range sc.spans {
		if s.name == "wait" {
			c.knots = []knot{{s.from, base + s.from}, {s.to, base + s.to - second}}
		}
	}
	return c
}

// moving are the keys whose values belong to the switch as it runs, not to the recording.
var moving = map[string]bool{"application": true, "Event-Sequence": true, "LoginTime": true, "CallsTaken": true, "LastCall": true}

// A score with every placeholder filled with what was recorded is the recording, byte for byte.
func TestScoreRendersItsRecording(t *testing.T) {
	for name, sp := range scripts {
		for _, kind := range []string{"asterisk", "freeswitch"} {
			if sp.intro != "" {
				continue
			}
			sc, err := loadScore(kind, name)
			if err != nil {
				t.Error(err)
				continue
			}
			frames, err := scoreFrames(kind, sp)
			if err != nil {
				t.Fatal(err)
			}
			c := identity(sc, frames[0].at)
			bad := 0
			for i, s := range sc.steps {
				g, gt := frame{proto: s.proto, raw: s.json.append(nil, c)}.fields()
				w, wt := frames[i].fields()
				if len(g) != len(w) || gt != wt {
					t.Fatalf("%s/%s step %d %s has %d fields, want %d", kind, name, i, s.typ, len(g), len(w))
				}
				for j := range w {
					if g[j] != w[j] && !moving[w[j].key] {
						if bad++; bad < 6 {
							t.Errorf("%s/%s step %d %s %s at %d own %d: got %q want %q", kind, name, i, s.typ, w[j].key, s.at, s.own, g[j].val, w[j].val)
						}
					}
				}
			}
		}
	}
}
