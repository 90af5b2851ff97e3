package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/sim"
)

// Case is all that is known of one run.
type Case struct {
	Messages []Message                  // of every topic from its beginning; those of a partition in the order of their offsets
	Witness  []*call.Event              // what a gateway that nothing disturbed made of the same switches, in its order
	Truths   map[string][]sim.Truth     // calls that ended, by switch_id
	Legs     map[string]map[string]bool // by switch_id: native ids of the legs in the ledger
	Natives  map[Native]bool            // what the witness was told by the switches, whether it made anything of it or not
	Troubles []Trouble                  // when which link was, or may have been, disturbed
}

// Native names what a switch told, by its own id or number.
type Native struct {
	Switch, ID string
	Seq        uint64
}

// Trouble is a stretch of time in which what a switch sent may have been read late, or, when Blind, not at all.
type Trouble struct {
	Switch   string // switch_id; empty: any
	From, To time.Time
	Blind    bool
	Clock    bool          // the switch told wrong times, or a node read at wrong times
	Step     time.Duration // of a node, whose clock was off by so much
	Damage   bool          // what was read before was destroyed on disk: nothing is known of the calls that were up
	Beside   bool          // no link was disturbed: it may lead to a takeover, and so to a gap of that kind
}

// during reports whether t disturbed sw at some time from a to b, with Slack on both sides.
func (t Trouble) during(sw string, a, b time.Time) bool {
	return !t.Beside && (t.Switch == "" || t.Switch == sw) && t.overlaps(a, b)
}

// overlaps reports whether t lasted at some time from a to b, with Slack on both sides.
func (t Trouble) overlaps(a, b time.Time) bool {
	return !b.Before(t.From.Add(-Slack)) && !a.After(t.To.Add(Slack))
}

// Slack is how far apart two readers' ideas of when one event came may be, on a busy machine.
const Slack = 500 * time.Millisecond

// Kinds of violations.
const (
	Unreadable = "unreadable" // a message that cannot be decoded
	Missing    = "missing"    // a received event that is not there
	Invented   = "invented"   // an event that no switch sent
	Conflict   = "conflict"   // an id with two payloads
	Disorder   = "disorder"   // an event of a call behind a later one
	Hole       = "hole"       // a number of a call that is not there, or there twice
	Ends       = "ends"       // not one call.ended, or one that is not the last
	Records    = "records"    // not one call.record
	State      = "state"      // a call whose last state is not ended
	Owners     = "owners"     // a writer that writes after its successor has begun
	Untrue     = "untrue"     // a record that does not say what happened
	Causeless  = "causeless"  // a gap nobody caused
)

// Violation is one broken promise.
type Violation struct {
	Kind     string
	Text     string
	Messages []string // those concerned
}

func (v Violation) String() string { return v.Kind + ": " + v.Text }

// Report is the verdict on a Case.
type Report struct {
	Violations []Violation
	Messages   int
	Events     int // of calls, without repeats
	Calls      int
	Repeats    int // messages that stand there more than once with the same id and payload
	Gaps       int
	Touched    int // calls that a gap touched
	Excused    int // events of the witness that are not there, inside a gap or of a call that one touched
	Overtaken  int // events about queues that are not there, or say another thing, since AMI and ARI were read late and out of step
	Otherwise  int // events that the witness did not make of what the switch told: it read the channels in another order
	Destroyed  int // faults of calls that were up when a journal was damaged
	Off        int // records of touched calls that say something else than the witness's
	Synthetic  int // events made up from snapshots
	Writers    int // distinct writers
}

// Judge compares.
func Judge(c *Case) *Report {
	j := &judge{c: c, by: map[string][]*event{}, calls: map[string]*told{}, legs: map[string]string{}, began: map[string]time.Time{}, over: map[string]time.Time{}, homes: map[string][]string{}}
	for _, step := range []func(){j.readWitnessLives, j.read, j.readGaps, j.readWitness, j.inOrder, j.ended, j.lastStates, j.nothingMissing,
		j.agentsAgree, j.nothingInvented, j.truth, j.writers, j.causes} {
		step()
	}
	j.rep.Messages = len(c.Messages)
	return &j.rep
}

// gap is a published blind interval of a switch, or one after a sink dropped.
type gap struct {
	sw       string
	from, to time.Time
	spans    [][2]time.Time // from and to, and what they may be by a clock that was not off
	reason   string
	m        *Message
}

// overlaps reports whether g has part of the stretch from a to b, with Slack on both sides.
func (g *gap) overlaps(a, b time.Time) bool {
	return slices.ContainsFunc(g.spans, func(s [2]time.Time) bool {
		return !b.Before(s[0].Add(-Slack)) && !a.After(s[1].Add(Slack))
	})
}

// told is a call as the messages tell it.
type told struct {
	id      string
	events  []*event // on events, without repeats, in order
	after   []*event // on stale alone
	records []*event
	state   *Message // last on calls
}

// life is a call as the witness saw it.
type life struct {
	from, to time.Time
	sw       string
	record   *call.Call
	touched  bool
}

type judge struct {
	c     *Case
	rep   Report
	by    map[string][]*event // stream → events, without repeats
	calls map[string]*told
	gaps  []gap

	lives map[string]*life     // call id → by the witness
	legs  map[string]string    // connection id → call id, by the witness
	began map[string]time.Time // connection id → when the witness first heard of it
	over  map[string]time.Time // connection id → when the witness heard of its end
	homes map[string][]string  // connection id → every call it was in, by the witness
}

// violateCall is violate about one call. Of one that lived when what was known of it was destroyed, it counts.
func (j *judge) violateCall(id, kind string, ms []*Message, format string, args ...any) {
	if j.destroyed(id) {
		j.rep.Destroyed++
		return
	}
	j.violate(kind, ms, format, args...)
}

// destroyed reports whether the call, or one of its legs' calls, began before a journal was damaged.
func (j *judge) destroyed(id string) bool {
	for _, t := range j.c.Troubles {
		if l := j.lives[id]; t.Damage && (l == nil || l.from.Before(t.To)) {
			return true
		}
	}
	return false
}

func (j *judge) violate(kind string, ms []*Message, format string, args ...any) {
	v := Violation{Kind: kind, Text: fmt.Sprintf(format, args...)}
	for _, m := range ms {
		if m != nil {
			v.Messages = append(v.Messages, m.String())
		}
	}
	j.rep.Violations = append(j.rep.Violations, v)
}

// read decodes the messages and drops repeats.
func (j *judge) read() {
	seen := map[string]*Message{}
	for i := range j.c.Messages {
		m := &j.c.Messages[i]
		if j.repeated(seen, m) {
			continue
		}
		if m.Stream == "calls" {
			j.call(m.Key).state = m
			continue
		}
		e, err := m.decode()
		if err != nil {
			j.violate(Unreadable, []*Message{m}, "%s: %v", m.At(), err)
		} else if e != nil {
			j.file(e)
		}
	}
}

// repeated reports whether m's id was there before; with another payload or key that is a violation.
func (j *judge) repeated(seen map[string]*Message, m *Message) bool {
	if m.ID == "" {
		return false
	}
	first := seen[m.Stream+"\x00"+m.ID]
	switch {
	case first == nil:
		seen[m.Stream+"\x00"+m.ID] = m
		return false
	case string(first.Value) != string(m.Value) || first.Key != m.Key || first.Type != m.Type:
		j.violateCall(m.subject(), Conflict, []*Message{first, m}, "id %s stands for two things, at %s and %s", m.ID, first.At(), m.At())
	default:
		j.rep.Repeats++
	}
	return true
}

func (j *judge) file(e *event) {
	stream := e.m.Stream
	j.by[stream] = append(j.by[stream], e)
	if e.Synthetic {
		j.rep.Synthetic++
	}
	if e.CallID == "" {
		return
	}
	t := j.call(e.CallID)
	switch stream {
	case "events":
		t.events = append(t.events, e)
		j.rep.Events++
	case "records":
		t.records = append(t.records, e)
	case "stale":
		t.after = append(t.after, e)
	}
}

func (j *judge) call(id string) *told {
	t := j.calls[id]
	if t == nil {
		t = &told{id: id}
		j.calls[id] = t
		j.rep.Calls++
	}
	return t
}

// callIDs is every call that the messages tell of, sorted, so that a verdict is the same every time.
func (j *judge) callIDs() []string { return slices.Sorted(maps.Keys(j.calls)) }

// readGaps collects what was published as not seen.
func (j *judge) readGaps() {
	for _, e := range j.by["sources"] {
		if e.Type != call.SourceGap || e.Source == nil {
			continue
		}
		from, to := e.Source.From.Std(), e.Source.To.Std()
		j.gaps = append(j.gaps, gap{e.Switch.ID, from, to, j.spans(from, to), e.Source.Reason, e.m})
	}
	slices.SortFunc(j.gaps, func(a, b gap) int { return a.from.Compare(b.from) })
	j.rep.Gaps = len(j.gaps)
}

// inGap reports whether a gap of sw has part of the stretch from a to b, with Slack on both sides.
func (j *judge) inGap(sw string, a, b time.Time) bool {
	return slices.ContainsFunc(j.gaps, func(g gap) bool {
		return g.sw == sw && g.overlaps(a, b)
	})
}

// spans is a stretch as it was told, and as it was where one of its ends was read from a clock that was off then.
func (j *judge) spans(from, to time.Time) (all [][2]time.Time) {
	for _, a := range j.readings(from) {
		for _, b := range j.readings(to) {
			if !b.Before(a) {
				all = append(all, [2]time.Time{a, b})
			}
		}
	}
	return all
}

// readings is every time at which a node's clock may have told at.
func (j *judge) readings(at time.Time) []time.Time {
	all := []time.Time{at}
	for _, t := range j.c.Troubles {
		if was := at.Add(-t.Step); t.Step != 0 && t.overlaps(was, was) {
			all = append(all, was)
		}
	}
	return all
}

// readWitnessLives notes each call's life and legs.
func (j *judge) readWitnessLives() {
	j.lives = map[string]*life{}
	for _, e := range j.c.Witness {
		if e.CallID == "" {
			continue
		}
		at := e.Time.Received.Std()
		l := j.lives[e.CallID]
		if l == nil {
			l = &life{from: at, sw: e.Switch.ID}
			j.lives[e.CallID] = l
		}
		l.to = at
		if e.Type == call.CallRecord {
			l.record = e.Call
		}
		if e.ConnectionID != "" {
			j.legs[e.ConnectionID] = e.CallID
			if !slices.Contains(j.homes[e.ConnectionID], e.CallID) {
				j.homes[e.ConnectionID] = append(j.homes[e.ConnectionID], e.CallID)
			}
			if j.began[e.ConnectionID].IsZero() {
				j.began[e.ConnectionID] = at
			}
			if e.Type == call.ConnectionCleared {
				j.over[e.ConnectionID] = at
			}
		}
	}
}

// readWitness notes which calls a gap touched.
func (j *judge) readWitness() {
	for _, l := range j.lives {
		l.touched = j.inGap(l.sw, l.from, l.to)
	}
	j.spread()
	for _, l := range j.lives {
		if l.touched {
			j.rep.Touched++
		}
	}
}

// spread touches what belongs together: calls that one leg was in, calls merged into one another, and those of one
// interaction.
func (j *judge) spread() {
	for _, homes := range j.homes {
		if slices.ContainsFunc(homes, func(id string) bool { return j.lives[id].touched }) {
			for _, id := range homes {
				j.lives[id].touched = true
			}
		}
	}
	group := map[string]bool{}
	for _, l := range j.lives {
		if l.touched && l.record != nil {
			group[l.record.InteractionID], group[l.record.MergedInto] = true, true
		}
	}
	for id, l := range j.lives {
		if r := l.record; r != nil && (group[r.InteractionID] || group[id] || r.MergedInto != "" && group[r.MergedInto]) {
			l.touched = true
		}
	}
}

// touched reports whether a gap touched the call, by the witness's knowledge of it or of its legs.
func (j *judge) touched(t *told) bool {
	if l := j.lives[t.id]; l != nil {
		return l.touched
	}
	for _, e := range t.events {
		if l := j.lives[j.legs[e.ConnectionID]]; l != nil && l.touched {
			return true
		}
	}
	return false
}

// first orders by sequence, for texts.
func bySeq(a, b *event) int { return cmp.Compare(a.Seq, b.Seq) }

func messages(es ...*event) (ms []*Message) {
	for _, e := range es {
		if e != nil {
			ms = append(ms, e.m)
		}
	}
	return ms
}

// short cuts a list for a text.
func short(list []string) string {
	if len(list) > 6 {
		return strings.Join(list[:6], ", ") + fmt.Sprintf(" and %d more", len(list)-6)
	}
	return strings.Join(list, ", ")
}
