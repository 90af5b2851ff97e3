package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/journal"
)

// aJournal is one of 60 records in four segments, with a cursor and checkpoints, which is still open.
func aJournal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	j, _, err := journal.Open(journal.Options{Dir: dir, SegmentBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	for i := range 60 {
		r := journal.Record{At: 1_700_000_000*call.Second + call.Time(i)*call.Second, Kind: uint8(i%2) + 1, Data: fmt.Appendf(nil, "%0200d", i)}
		if _, err := j.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	c, err := j.Cursor("kafka")
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(50)
	if err := errors.Join(c.Flush(), j.SaveCheckpoint(40, []byte("state"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func command(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

func TestJournalLs(t *testing.T) {
	code, out, errOut := command(t, "journal", "ls", aJournal(t))
	t.Log("\n" + out)
	for _, want := range []string{
		"00000000000000000001.cti      1    18       18  4.2 KiB  2023-11-14 22:13:20Z  2023-11-14 22:13:37Z\n",
		"kafka        50  10 records  9s\n", "40          33 B\n", "60 records, 1 to 60 in 4 segments",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 0 || errOut != "" {
		t.Errorf("%d %s", code, errOut)
	}
	if code, _, errOut := command(t, "journal", "ls", t.TempDir()); code != 1 || !strings.Contains(errOut, "no journal in this folder") {
		t.Errorf("%d %s", code, errOut)
	}
	if code, _, errOut := command(t, "journal", "ls"); code != 2 {
		t.Errorf("%d %s", code, errOut)
	}
}

func TestJournalVerifyTellsWhatIsLost(t *testing.T) {
	dir := aJournal(t)
	code, out, errOut := command(t, "journal", "verify", dir)
	if code != 0 || errOut != "" || !strings.Contains(out, "60 records, 1 to 60; nothing is damaged\n") {
		t.Errorf("%d %s %s", code, out, errOut)
	}
	path := filepath.Join(dir, "00000000000000000001.cti")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[1000] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ = command(t, "journal", "verify", dir)
	t.Log("\n" + out)
	if code != 1 || !strings.Contains(out, "236 bytes damaged, 1 record lost\n") || !strings.Contains(out, "cti: 236 bytes damaged at offset 980, record 5 lost\n") {
		t.Errorf("%d", code)
	}
	code, out, errOut = command(t, "journal", "export", dir, "--to", "7")
	if code != 1 || strings.Count(out, "\n") != 6 || !strings.Contains(errOut, "record 5 lost") {
		t.Errorf("%d %s %s", code, out, errOut)
	}
}

func TestJournalExport(t *testing.T) {
	dir := aJournal(t)
	code, out, errOut := command(t, "journal", "export", dir, "--from", "59")
	if code != 0 || errOut != "" || strings.Count(out, "\n") != 2 {
		t.Fatalf("%d %s %s", code, out, errOut)
	}
	var line struct {
		Seq    uint64
		At     string
		Kind   int
		Base64 []byte
	}
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &line); err != nil {
		t.Fatal(err)
	}
	if line.Seq != 59 || line.At != "2023-11-14T22:14:18.000000Z" || line.Kind != 1 || len(line.Base64) != 200 {
		t.Errorf("%+v", line)
	}
	if code, out, _ := command(t, "journal", "export", dir, "--from", "3", "--to", "5"); code != 0 || strings.Count(out, "\n") != 3 {
		t.Errorf("%d %s", code, out)
	}
}
