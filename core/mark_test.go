package core

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mark
		if m.Ago() != Never {
			t.Errorf("what never happened did %s ago", m.Ago())
		}
		m.Set()
		time.Sleep(3 * time.Second)
		if m.Ago() != 3*time.Second {
			t.Errorf("%s ago, want 3s", m.Ago())
		}
		if m.Clear(); m.Ago() != Never {
			t.Errorf("%s ago, want never", m.Ago())
		}
	})
}
