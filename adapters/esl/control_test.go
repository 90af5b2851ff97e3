package esl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const leg, otherLeg = "0cad1beb-7b46-4483-99f5-382665520437", "a08aa170-095a-44a5-aaeb-312b0c9bb33a"

func TestControlCommands(t *testing.T) {
	type call func(ctx context.Context, c *Control) error
	tests := []struct {
		name string
		call call
		want string
	}{
		{"hangup", func(ctx context.Context, c *Control) error { return c.Hangup(ctx, leg, "") }, "uuid_kill " + leg + " NORMAL_CLEARING"},
		{"hangup with a cause", func(ctx context.Context, c *Control) error { return c.Hangup(ctx, leg, "USER_BUSY") }, "uuid_kill " + leg + " USER_BUSY"},
		{"hold", func(ctx context.Context, c *Control) error { return c.Hold(ctx, leg) }, "uuid_hold " + leg},
		{"unhold", func(ctx context.Context, c *Control) error { return c.Unhold(ctx, leg) }, "uuid_hold off " + leg},
		{"transfer", func(ctx context.Context, c *Control) error { return c.Transfer(ctx, leg, LegSelf, "1001", "", "") }, "uuid_transfer " + leg + " 1001 XML default"},
		{"transfer the other", func(ctx context.Context, c *Control) error {
			return c.Transfer(ctx, leg, LegOther, "1001", "XML", "sales")
		}, "uuid_transfer " + leg + " -bleg 1001 XML sales"},
		{"bridge", func(ctx context.Context, c *Control) error { return c.Bridge(ctx, leg, otherLeg) }, "uuid_bridge " + leg + " " + otherLeg},
		{"set", func(ctx context.Context, c *Control) error { return c.SetVariable(ctx, leg, "crm_id", "a b") }, "uuid_setvar " + leg + " crm_id a b"},
		{"unset", func(ctx context.Context, c *Control) error { return c.SetVariable(ctx, leg, "crm_id", "") }, "uuid_setvar " + leg + " crm_id"},
	}
	sw := newFakeSwitch(t)
	for _, tt := range tests {
		sw.answers[tt.want] = "+OK\n"
	}
	r := run(t, testConfig(sw.listen()))
	awaitControl(t, r)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(t.Context(), r.a.Control()); err != nil {
				t.Error(err)
			}
			if sent := sw.commands(); !slices.Contains(sent, "bgapi "+tt.want) {
				t.Errorf("sent %q, want %q", sent[len(sent)-1], tt.want)
			}
		})
	}
}

// awaitControl waits until the session is up.
func awaitControl(t *testing.T, r *running) {
	t.Helper()
	r.next(t, "up")
	r.next(t, "frame")
	r.next(t, "clock")
}

func TestOriginate(t *testing.T) {
	sw := newFakeSwitch(t)
	want := "originate {crm='7 8',origination_caller_id_name='Click',origination_caller_id_number='5551000'}user/100 5000 XML default undef undef 31"
	sw.answers[want] = "+OK b421d497-d37c-45a7-8a3d-68ee2244349b\n"
	r := run(t, testConfig(sw.listen()))
	awaitControl(t, r)
	o := Originate{Endpoint: "user/100", Destination: "5000", CallerName: "Click", CallerNumber: "5551000", Timeout: 30500 * time.Millisecond, Variables: map[string]string{"crm": "7 8"}}
	id, err := r.a.Control().Originate(t.Context(), o)
	if err != nil || id != "b421d497-d37c-45a7-8a3d-68ee2244349b" {
		t.Errorf("got %q, %v; sent %q", id, err, sw.commands())
	}
	sw.mu.Lock()
	sw.answers[want] = "-ERR NO_ANSWER\n"
	sw.mu.Unlock()
	var ce *CommandError
	if _, err := r.a.Control().Originate(t.Context(), o); !errors.As(err, &ce) || ce.Text != "NO_ANSWER" {
		t.Errorf("got %v", err)
	}
}

func TestControlErrors(t *testing.T) {
	sw := newFakeSwitch(t)
	sw.answers["uuid_hold "+leg] = "-ERR Operation failed\n"
	sw.answers["uuid_kill "+leg+" NORMAL_CLEARING"] = "-ERR No such channel!\n"
	r := run(t, testConfig(sw.listen()))
	awaitControl(t, r)
	c := r.a.Control()
	if err := c.Hangup(t.Context(), leg, ""); !errors.Is(err, ErrNoChannel) {
		t.Errorf("hangup: %v", err)
	}
	if err := c.Hold(t.Context(), leg); err == nil || errors.Is(err, ErrNoChannel) || !strings.Contains(err.Error(), "Operation failed") {
		t.Errorf("hold: %v", err)
	}
	r.stop()
	_ = r.ends(t)
	if err := c.Hold(t.Context(), leg); !errors.Is(err, ErrNotConnected) {
		t.Errorf("after the session: %v", err)
	}
}

func TestControlRefusesWhatWouldChangeTheCommand(t *testing.T) {
	c := newAdapter("fs1", testConfig("fs"), coreEnv()).Control()
	bad := []func() error{
		func() error { return c.Hangup(t.Context(), leg+"\nexit", "") },
		func() error { return c.Hangup(t.Context(), leg+" x", "") },
		func() error { return c.Hangup(t.Context(), "", "") },
		func() error { return c.Hangup(t.Context(), leg, "A B") },
		func() error { return c.Hold(t.Context(), "off") },
		func() error { return c.Hold(t.Context(), "toggle") },
		func() error { return c.Transfer(t.Context(), leg, "-x", "1001", "", "") },
		func() error { return c.Transfer(t.Context(), leg, LegSelf, "-both", "", "") },
		func() error { return c.Transfer(t.Context(), leg, LegSelf, "system:reboot", "inline", "") },
		func() error { return c.Transfer(t.Context(), leg, LegSelf, "${system(reboot)}", "", "") },
		func() error { return c.Transfer(t.Context(), leg, LegSelf, "1 2", "", "") },
		func() error { return c.Bridge(t.Context(), leg, "a b") },
		func() error { return c.SetVariable(t.Context(), leg, "a b", "x") },
		func() error { return c.SetVariable(t.Context(), leg, "a", "x\r\ny") },
		func() error { return c.SetVariable(t.Context(), leg, "a", "${system(reboot)}") },
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "user/1", Destination: "&system(reboot)"})
			return err
		},
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "{a=b}user/1", Destination: "1"})
			return err
		},
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "nothing", Destination: "1"})
			return err
		},
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "user/1", Destination: "1", CallerName: "a',b='c"})
			return err
		},
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "user/1", Destination: "1", Timeout: -1})
			return err
		},
		func() error {
			_, err := c.Originate(t.Context(), Originate{Endpoint: "user/1", Destination: "1", Variables: map[string]string{"^^:a": "b"}})
			return err
		},
	}
	for i, f := range bad {
		if err := f(); !errors.Is(err, ErrArgument) {
			t.Errorf("case %d gave %v", i, err)
		}
	}
}
