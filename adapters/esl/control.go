package esl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Errors of call control, for errors.Is.
var (
	// ErrNotConnected: the switch link is down, or its snapshot is still being taken.
	ErrNotConnected = errors.New("no event-socket session is up")
	// ErrNoChannel: the switch has no such channel (any more).
	ErrNoChannel = errors.New("no such channel")
	// ErrNotAllowed: the event-socket user may not run that command.
	ErrNotAllowed = errors.New("permission denied by event_socket.conf")
	// ErrArgument: an argument holds what would change the command's meaning.
	ErrArgument = errors.New("argument not allowed")
)

// CommandError is an error that FreeSWITCH states, `-ERR …` or `-USAGE: …`.
type CommandError struct {
	Command string
	Text    string // without -ERR: "No such channel!", or a cause such as USER_BUSY for originate
}

func newCommandError(cmd, text string) *CommandError {
	text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "-ERR"))
	return &CommandError{Command: cmd, Text: string(shorten([]byte(text)))}
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("FreeSWITCH refused %s: %s", e.Command, e.Text)
}

// Is reports what kind of refusal it is.
func (e *CommandError) Is(target error) bool {
	text := strings.ToLower(e.Text)
	switch target {
	case ErrNoChannel:
		return strings.Contains(text, "no such channel") || strings.Contains(text, "invalid uuid") || strings.Contains(text, "cannot locate session")
	case ErrNotAllowed:
		return strings.Contains(text, "permission denied")
	}
	return false
}

// commandFailed reports whether the switch refused the command, as against a link that failed.
func commandFailed(err error) bool {
	var e *CommandError
	return errors.As(err, &e)
}

// Control places and steers calls over the adapter's link while a session is up. Its methods may be called from any
// goroutine; they wait for the outcome within ctx. Commands run in the background of the switch, so that they never
// hold up its events.
type Control struct{ a *Adapter }

// Control gives call control over this link.
func (a *Adapter) Control() *Control { return &Control{a} }

// Originate describes a call to place.
type Originate struct {
	Endpoint     string            // dial string: user/100, sofia/gateway/trunk/+14155550100
	Destination  string            // extension that the answered endpoint is sent to
	Dialplan     string            // XML when empty
	Context      string            // default when empty
	CallerName   string            // shown to the endpoint
	CallerNumber string            // shown to the endpoint
	Timeout      time.Duration     // for the endpoint to answer; a minute when zero
	UUID         string            // for the new leg; FreeSWITCH makes one when empty
	Variables    map[string]string // set on the new leg
}

// Originate places a call and waits until the endpoint answers. It returns the new leg's UUID.
func (c *Control) Originate(ctx context.Context, o Originate) (uuid string, err error) {
	args, err := o.args()
	if err != nil {
		return "", err
	}
	out, err := c.run(ctx, "originate", args)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.TrimPrefix(out, "+OK")), nil
}

// Hangup ends a leg; cause is a Q.850 name such as NORMAL_CLEARING, which it is when empty.
func (c *Control) Hangup(ctx context.Context, uuid, cause string) error {
	if cause == "" {
		cause = "NORMAL_CLEARING"
	}
	return c.words(ctx, "uuid_kill", uuid, cause)
}

// Hold puts a leg's party on hold.
func (c *Control) Hold(ctx context.Context, uuid string) error {
	if uuid == "off" || uuid == "toggle" {
		return fmt.Errorf("%w: %q means something else to uuid_hold", ErrArgument, uuid)
	}
	return c.words(ctx, "uuid_hold", uuid)
}

// Unhold takes a leg's party back.
func (c *Control) Unhold(ctx context.Context, uuid string) error {
	if err := checkID(uuid); err != nil {
		return err
	}
	_, err := c.run(ctx, "uuid_hold", "off "+uuid)
	return err
}

// Leg says which side of a bridged call a transfer moves.
type Leg string

// Legs of a transfer.
const (
	LegSelf  Leg = ""      // the leg that is named
	LegOther Leg = "-bleg" // the one it is bridged with
	LegBoth  Leg = "-both" // both
)

// Transfer sends a leg to an extension: dialplan XML and context default when empty.
func (c *Control) Transfer(ctx context.Context, uuid string, leg Leg, destination, dialplan, context string) error {
	if !slices.Contains([]Leg{LegSelf, LegOther, LegBoth}, leg) {
		return fmt.Errorf("%w: leg %q", ErrArgument, leg)
	}
	if err := checkPlan(dialplan); err != nil {
		return err
	}
	plan, where := orDefault(dialplan, "XML"), orDefault(context, "default")
	if err := errors.Join(checkID(uuid), checkWord("destination", destination), checkWord("context", where)); err != nil {
		return err
	}
	args := strings.Join([]string{uuid, string(leg), destination, plan, where}, " ")
	_, err := c.run(ctx, "uuid_transfer", strings.Replace(args, "  ", " ", 1)) // no option for LegSelf
	return err
}

// Bridge connects two legs with each other.
func (c *Control) Bridge(ctx context.Context, uuid, other string) error {
	if err := checkID(other); err != nil {
		return err
	}
	return c.words(ctx, "uuid_bridge", uuid, other)
}

// SetVariable sets a channel variable; an empty value removes it.
func (c *Control) SetVariable(ctx context.Context, uuid, name, value string) error {
	if err := errors.Join(checkID(uuid), checkName(name), checkText("variable value", value)); err != nil {
		return err
	}
	_, err := c.run(ctx, "uuid_setvar", strings.TrimRight(uuid+" "+name+" "+value, " "))
	return err
}

// words runs a command on a leg whose further arguments are single words.
func (c *Control) words(ctx context.Context, name, uuid string, words ...string) error {
	if err := checkID(uuid); err != nil {
		return err
	}
	for _, w := range words {
		if err := checkWord(name, w); err != nil {
			return err
		}
	}
	_, err := c.run(ctx, name, strings.Join(append([]string{uuid}, words...), " "))
	return err
}

func (c *Control) run(ctx context.Context, name, args string) (string, error) {
	c.a.mu.Lock()
	live := c.a.live
	c.a.mu.Unlock()
	if live == nil {
		return "", fmt.Errorf("%s on %s: %w; try again when the link is up", name, c.a.id, ErrNotConnected)
	}
	out, err := live.bgapi(ctx, name, args)
	if err != nil {
		return "", fmt.Errorf("%s on %s: %w", name, c.a.id, err)
	}
	return out, nil
}

// args builds originate's argument: {variables}endpoint extension dialplan context name number timeout.
func (o Originate) args() (string, error) {
	errs := []error{checkEndpoint(o.Endpoint), checkWord("destination", o.Destination), checkPlan(o.Dialplan)}
	errs = append(errs, checkWord("context", orDefault(o.Context, "default")), checkText("caller name", o.CallerName), checkText("caller number", o.CallerNumber))
	vars := map[string]string{"origination_caller_id_name": o.CallerName, "origination_caller_id_number": o.CallerNumber, "origination_uuid": o.UUID}
	for name, value := range o.Variables {
		errs = append(errs, checkName(name), checkText("variable value", value))
		vars[name] = value
	}
	if o.UUID != "" {
		errs = append(errs, checkID(o.UUID))
	}
	if o.Timeout < 0 || o.Timeout > time.Hour {
		errs = append(errs, fmt.Errorf("%w: timeout %v is outside 0 to 1h", ErrArgument, o.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	timeout := 60
	if o.Timeout > 0 {
		timeout = int((o.Timeout + time.Second - 1) / time.Second)
	}
	return strings.Join([]string{variables(vars) + o.Endpoint, o.Destination, orDefault(o.Dialplan, "XML"),
		orDefault(o.Context, "default"), "undef", "undef", strconv.Itoa(timeout)}, " "), nil
}

// variables writes {a='1',b='2'} in the order of the names, leaving out empty values.
func variables(vars map[string]string) string {
	var parts []string
	for name, value := range vars {
		if value != "" {
			parts = append(parts, name+"='"+value+"'")
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ",") + "}"
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// validID reports whether s can be a channel's UUID. FreeSWITCH lets a caller choose it, so it need not look like one.
func validID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("-_.@:+", r))
	}) && s[0] != '-'
}

func checkID(s string) error {
	if !validID(s) {
		return fmt.Errorf("%w: %q is not a channel UUID", ErrArgument, shorten([]byte(s)))
	}
	return nil
}

// checkWord allows one argument: no blanks, quotes or control characters, nothing that FreeSWITCH would expand, and
// neither an option (-…) nor an application (&…).
func checkWord(what, s string) error {
	if s == "" || strings.HasPrefix(s, "&") || s[0] == '-' || strings.ContainsRune(s, ' ') {
		return fmt.Errorf("%w: %s %q must be one word, and neither an option nor an application", ErrArgument, what, shorten([]byte(s)))
	}
	return checkText(what, s)
}

// checkName allows a channel variable's name.
func checkName(s string) error {
	if !validID(s) || strings.ContainsAny(s, "@:+") {
		return fmt.Errorf("%w: %q is not a channel variable's name", ErrArgument, shorten([]byte(s)))
	}
	return nil
}

// checkText allows a value with blanks in it.
func checkText(what, s string) error {
	bad := strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
	if bad || len(s) > 4096 || strings.ContainsAny(s, `'"\{}[],`) || strings.Contains(s, "${") {
		return fmt.Errorf("%w: %s %q must not contain quotes, backslashes, commas, brackets, ${ or control characters", ErrArgument, what, shorten([]byte(s)))
	}
	return nil
}

// checkPlan refuses the dialplan that runs the applications it is given.
func checkPlan(s string) error {
	if strings.EqualFold(s, "inline") {
		return fmt.Errorf("%w: dialplan inline runs applications", ErrArgument)
	}
	return checkWord("dialplan", orDefault(s, "XML"))
}

// checkEndpoint allows a dial string without variables of its own; Originate.Variables is for those.
func checkEndpoint(s string) error {
	kind, rest, _ := strings.Cut(s, "/")
	if kind == "" || rest == "" {
		return fmt.Errorf("%w: endpoint %q is not kind/address, such as user/100", ErrArgument, shorten([]byte(s)))
	}
	return checkWord("endpoint", s)
}
