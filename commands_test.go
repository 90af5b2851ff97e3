package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"github.com/ctigate/ctigate/configs"
	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/live"
	"github.com/ctigate/ctigate/core/router"
	"github.com/ctigate/ctigate/core/trace"
)

func TestFindingsAreATable(t *testing.T) {
	all := []core.Finding{
		{Subject: "pbx1", What: "ARI websocket", Level: core.OK, Detail: "connected"},
		{Subject: "kafka", What: "topic cti.events.v1", Level: core.Fail, Detail: "not there and\nmay not be created by this user of the cluster", Fix: "create it"},
	}
	var wide, narrow bytes.Buffer
	if err := errors.Join(printFindings(&wide, all, 0), printFindings(&narrow, all, 70)); err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(`
SUBJECT  WHAT                 RESULT  DETAIL
pbx1     ARI websocket        ok      connected
kafka    topic cti.events.v1  FAIL    not there and may not be created by this user of the cluster
                                      → create it

1 ok, 0 to look at, 1 failed
`, "\n")
	if wide.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &wide, want)
	}
	if !strings.Contains(narrow.String(), "not there and may not be created\n"+strings.Repeat(" ", 38)+"by this user of the cluster\n") {
		t.Errorf("not broken at 70:\n%s", &narrow)
	}
	var lines bytes.Buffer
	if err := writeFindings(&lines, all); err != nil || !strings.Contains(lines.String(), `"level":"fail","detail":"not there`) {
		t.Errorf("%v %s", err, &lines)
	}
}

func TestProbesRunTogetherAndSlowOnesAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := func(name string, d time.Duration) probe {
			return probe{name, func(ctx context.Context) []core.Finding {
				select {
				case <-time.After(d):
					return []core.Finding{{Subject: name, Level: core.OK}}
				case <-ctx.Done():
					return []core.Finding{{Subject: name, Level: core.Fail}}
				}
			}}
		}
		var progress bytes.Buffer
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		found := probeAll(ctx, []probe{after("stuck", time.Hour), after("slow", 5*time.Second), after("quick", time.Second)}, &progress)
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("took %v: not together", took)
		}
		if len(found) != 3 || found[0].Subject != "stuck" || !failed(found) || failed(found[1:]) {
			t.Errorf("found %v", found)
		}
		want := "ctigate: still probing stuck, slow\nctigate: still probing stuck, slow\nctigate: still probing stuck\n"
		if progress.String() != want {
			t.Errorf("progress:\n%s", &progress)
		}
	})
}

// script is an adapter whose sessions are functions.
type script struct {
	sessions []func(context.Context, core.Emitter) error
	at       int
}

func (s *script) Run(ctx context.Context, out core.Emitter) error {
	f := s.sessions[min(s.at, len(s.sessions)-1)]
	s.at++
	return f(ctx, out)
}

func frame(raw string, rx int64) core.Frame {
	return core.Frame{Raw: []byte(raw), Received: call.Time(rx)}
}

func TestRecordingGoesOnAfterALostLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w, err := trace.Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		r := &recorder{kind: "ari", out: w, log: discard}
		ctx, cancel := context.WithCancel(t.Context())
		a := &script{sessions: []func(context.Context, core.Emitter) error{
			func(_ context.Context, out core.Emitter) error {
				return errors.Join(out.Up(core.Instance{}), out.Frame(core.Frame{Type: "snapshot", Raw: []byte("[]")}),
					out.Frame(frame(`{"type":"A"}`, 1)), out.DeadLetter(core.DeadLetter{}), out.Gap("x", 0), errors.New("cut off"))
			},
			func(ctx context.Context, out core.Emitter) error {
				err := out.Frame(frame("Event: B\r\n\r\n", 2))
				cancel()
				<-ctx.Done()
				return err
			},
		}}
		if err := errors.Join(r.sessions(ctx, a), w.Close()); err != nil {
			t.Fatal(err)
		}
		ari, _ := os.ReadFile(filepath.Join(dir, "ari.jsonl"))
		ami, _ := os.ReadFile(filepath.Join(dir, "ami.jsonl"))
		if string(ari) != "{\"rx\":0.000001,\"ev\":{\"type\":\"A\"}}\n" || string(ami) != "{\"rx\":0.000002,\"lines\":[\"Event: B\"]}\n" {
			t.Errorf("ari.jsonl %q, ami.jsonl %q", ari, ami)
		}
	})
}

func TestARecordingIsOnDiskWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var ari []byte
		session := func(ctx context.Context, out core.Emitter) error {
			err := out.Frame(frame(`{"type":"A"}`, 1))
			time.Sleep(flushEvery + time.Millisecond) // of the bubble
			ari, _ = os.ReadFile(filepath.Join(dir, "ari.jsonl"))
			return errors.Join(err, core.Permanent(errors.New("enough")))
		}
		s := configs.Switch{ID: "a", Kind: "ari", Config: &fakeSwitch{&script{sessions: []func(context.Context, core.Emitter) error{session}}}}
		if err := recordSwitch(t.Context(), s, dir, discard); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Fatal(err)
		}
		if string(ari) != "{\"rx\":0.000001,\"ev\":{\"type\":\"A\"}}\n" {
			t.Errorf("after a second the file has %q", ari)
		}
	})
}

func TestRecordingEndsWhenItCannotGoOn(t *testing.T) {
	for name, session := range map[string]func(context.Context, core.Emitter) error{
		"refused": func(context.Context, core.Emitter) error { return core.Permanent(errors.New("wrong password")) },
		"unwritable": func(_ context.Context, out core.Emitter) error {
			return out.Frame(frame(`{"broken`, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := trace.Create(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			r := &recorder{kind: "ari", out: w, log: discard}
			if err := r.sessions(t.Context(), &script{sessions: []func(context.Context, core.Emitter) error{session}}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestChooseSwitches(t *testing.T) {
	all := []configs.Switch{{ID: "a"}, {ID: "b"}}
	if got, err := choose(all, []string{"b"}); err != nil || len(got) != 1 || got[0].ID != "b" {
		t.Errorf("%v %v", got, err)
	}
	if _, err := choose(all, []string{"a", "c"}); err == nil || !strings.Contains(err.Error(), "the configuration has a, b") {
		t.Errorf("%v", err)
	}
}

// fakeSwitch and fakeSink are plugins for tests of running.
type fakeSwitch struct{ script *script }

func (f *fakeSwitch) Validate() []error                               { return nil }
func (f *fakeSwitch) Open(string, core.Env) (core.Adapter, error)     { return f.script, nil }
func (f *fakeSink) Validate() []error                                 { return nil }
func (f *fakeSink) Open(context.Context, core.Env) (core.Sink, error) { return f, f.open() }
func (f *fakeSink) Write(_ context.Context, batch []core.Item) error {
	f.items += len(batch)
	return nil
}
func (f *fakeSink) Close(context.Context) error { return nil }

type fakeSink struct {
	fails int
	fatal bool
	opens int
	items int
}

func (f *fakeSink) open() error {
	f.opens++
	switch {
	case f.fatal:
		return core.Permanent(errors.New("refused"))
	case f.opens <= f.fails:
		return errors.New("not yet")
	}
	return nil
}

func oneCall(ctx context.Context, out core.Emitter) error {
	o := func(k call.Kind) call.Observation {
		return call.Observation{Kind: k, Leg: "1", At: call.At(time.Now()), Inbound: true, Number: "100", Dialed: "200"}
	}
	err := errors.Join(out.Up(core.Instance{Kind: "asterisk", ID: "x"}), out.Frame(core.Frame{Received: call.At(time.Now()),
		Observations: []call.Observation{o(call.LegCreated), o(call.LegCleared)}}))
	<-ctx.Done()
	return err
}

func fakeConfig(sink *fakeSink, session func(context.Context, core.Emitter) error) *configs.Config {
	c := configs.Default()
	c.Telemetry.Listen = configs.Off
	c.Switches = []configs.Switch{{ID: "pbx1", Kind: "ari", Config: &fakeSwitch{&script{sessions: []func(context.Context, core.Emitter) error{session}}}}}
	c.Sinks = []configs.Sink{{Name: "fake", Kind: "fake", WhenFull: configs.Block, Config: sink}}
	return c
}

func plainWatch(out io.Writer, c *configs.Config) *watch {
	cmd := &cobra.Command{}
	cmd.SetOut(out)
	cmd.SetErr(out)
	return newWatch(cmd, c, false)
}

func TestServeDeliversAndDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{fails: 2}
		cfg := fakeConfig(sink, oneCall)
		var log bytes.Buffer
		w := plainWatch(&log, cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		g, err := serve(ctx, cfg, w, nil)
		if err != nil || g == nil {
			t.Fatal(err)
		}
		if w.counts.ended.Load() != 1 || w.counts.records.Load() != 1 || sink.items < 4 {
			t.Errorf("%d ended, %d records, %d items", w.counts.ended.Load(), w.counts.records.Load(), sink.items)
		}
		if sink.opens != 3 || !strings.Contains(log.String(), "the sink is not ready") {
			t.Errorf("%d attempts at the sink", sink.opens)
		}
		if !strings.Contains(log.String(), "at work") || !strings.Contains(log.String(), "fake.acked=") {
			t.Errorf("no progress in the log:\n%s", &log)
		}
	})
}

func TestServeGivesUpOnASinkThatRefuses(t *testing.T) {
	sink := &fakeSink{fatal: true}
	cfg := fakeConfig(sink, oneCall)
	if g, err := serve(t.Context(), cfg, plainWatch(io.Discard, cfg), nil); err == nil || g != nil || sink.opens != 1 {
		t.Errorf("%v after %d attempts", err, sink.opens)
	}
}

func TestReload(t *testing.T) {
	path := write(t, "switches: [{id: pbx1, kind: esl, address: h, password: {env: X}}]\nsinks: [{kind: stdout}]\n")
	cfg, err := configs.Load(path, kinds())
	if err != nil {
		t.Fatal(err)
	}
	fake := fakeConfig(&fakeSink{}, oneCall)
	log := newPrinted()
	w := plainWatch(log, fake)
	ctx, cancel := context.WithCancel(t.Context())
	g, err := assemble(ctx, fake, w.log, cancel)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.open(ctx, w.onEvent); err != nil {
		t.Fatal(err)
	}
	g.cfg = cfg
	done := make(chan error, 1)
	go func() { done <- errors.Join(g.router.Run(ctx), g.shutdownTelemetry()) }()
	src := &source{path: path, logs: &logFlags{}}

	change := func(text string) string {
		log.reset()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		src.reload(ctx, g, w)
		return log.String()
	}
	const base = "switches: [{id: pbx1, kind: esl, address: h, password: {env: X}}]\nsinks: [{kind: stdout}]\n"
	if got := change(base + "log: {level: debug}\nenrich: {default_region: DE}\n"); !strings.Contains(got, "msg=reloaded") || strings.Contains(got, "restart") {
		t.Errorf("log: %s", got)
	}
	if w.level.Level() != slog.LevelDebug {
		t.Errorf("level %v", w.level.Level())
	}
	if got := change(base + "drain_timeout: 1s\nlog: {format: json}\n"); !strings.Contains(got, `keys="log.format, drain_timeout"`) {
		t.Errorf("log: %s", got)
	}
	if got := change(base + "drain: 1s\n"); !strings.Contains(got, "nothing was changed") || strings.Contains(got, "msg=reloaded") {
		t.Errorf("log: %s", got)
	}
	src.logs.level, src.logs.format = "error", "text"
	if change(base + "log: {level: debug, format: json}\n"); w.level.Level() != slog.LevelError {
		t.Errorf("the file's level %v is over the command line's", w.level.Level())
	}
	if next, err := src.read(); err != nil || next.Log != (configs.Log{Level: "error", Format: "text"}) {
		t.Errorf("%v, %+v", err, next.Log)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLiveStatusTellsTheTruth(t *testing.T) {
	offset, uncertainty := 1.5, 0.2
	got := liveStatus(router.Status{
		Links: []router.LinkStatus{
			{ID: "a", Kind: "asterisk", Up: true, Version: "22.10", Missing: []string{"queue events: no AMI"}, OffsetMS: &offset, UncertaintyMS: &uncertainty},
			{ID: "b", LastError: "refused"}, {ID: "c"},
		},
		Sinks: []router.SinkStatus{{Name: "kafka", Queue: 3, Acked: 7, LastError: "down"}},
	}, time.Time{}, 9)
	want := []live.Link{
		{ID: "a", Kind: "asterisk", Up: true, Detail: "asterisk 22.10   no queue events: no AMI", ClockKnown: true, OffsetMS: 1.5, UncertaintyMS: 0.2},
		{ID: "b", Detail: "refused"}, {ID: "c", Detail: "connecting"},
	}
	for i := range want {
		if got.Links[i] != want[i] {
			t.Errorf("link %+v, want %+v", got.Links[i], want[i])
		}
	}
	if s := got.Sinks[0]; s.Waiting != 3 || s.Acked != 7 || s.Error != "down" || got.Events != 9 {
		t.Errorf("%+v", got)
	}
}

func TestLogFormats(t *testing.T) {
	var b bytes.Buffer
	newLog(&b, configs.Log{Level: "warn", Format: "json"}, new(slog.LevelVar)).Info("no")
	newLog(&b, configs.Log{Level: "info", Format: "json"}, new(slog.LevelVar)).Info("yes", "took", 1500*time.Millisecond)
	if got := b.String(); strings.Contains(got, "no") || !strings.Contains(got, `"took":"1.5s"`) {
		t.Errorf("log %s", got)
	}
	b.Reset()
	screen := newScreenLog(&b, new(slog.LevelVar)).With("link", "pbx1")
	screen.Warn("link down", "error", "a b")
	screen.Debug("no")
	if got := b.String(); len(got) < 9 || got[8:] != " WARN  link down  link=pbx1 error=\"a b\"\n" || !isTrouble(got) {
		t.Errorf("screen log %q", got)
	}
	for _, f := range []logFlags{{level: "loud"}, {format: "xml"}} {
		if err := f.apply(&configs.Log{}); err == nil {
			t.Errorf("%+v accepted", f)
		}
	}
	if shortVersion("22.10.1+dfsg~x") != "22.10.1" || shortVersion("") != "" {
		t.Error("versions are not shortened")
	}
	if !isTrouble("time=x level=WARN msg=y") || isTrouble("time=x level=INFO msg=WARN") {
		t.Error("trouble is not told from the rest")
	}
}
