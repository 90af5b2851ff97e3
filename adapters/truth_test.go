package adapters_test

import (
	"testing"

	"github.com/ctigate/ctigate/adapters/adaptertest"
)

// TestTruth plays every recording and compares what comes out with what happened.
func TestTruth(t *testing.T) {
	truth := readTruth(t)
	for _, f := range folders(t) {
		t.Run(f.kind+"/"+f.name, func(t *testing.T) {
			want, ok := truth[f.name]
			if !ok {
				t.Fatalf("truth.json says nothing of %s", f.name)
			}
			c := play(t, f.kind, f.dir)
			got := adaptertest.Stories(c.events)
			if len(got) != len(want.Interactions) {
				t.Fatalf("%d interactions, want %d", len(got), len(want.Interactions))
			}
			for i, s := range got {
				for _, fault := range s.Check(f.kind, want.Interactions[i]) {
					t.Error(fault)
				}
			}
			adaptertest.CheckStream(t, c.events)
			if len(c.dead) > 0 || c.t.Active() > 0 {
				t.Errorf("%d dead letters (%.200v), %d calls never ended", len(c.dead), c.dead, c.t.Active())
			}
			for _, s := range got {
				for _, r := range s.Records {
					if r.Completeness != nil {
						t.Errorf("call %s of a whole recording is incomplete: %+v", r.ID, *r.Completeness)
					}
				}
			}
		})
	}
}
