package adaptertest

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/ctigate/ctigate/core/call"
)

// Story is a caller's whole experience, put together from the records of its calls.
type Story struct {
	Records []*call.Call // oldest first; the first is the one the caller made
}

// Stories groups the records by interaction.
func Stories(events []*call.Event) []Story {
	by, into := map[string]*Story{}, map[string]string{}
	var order []string
	for _, e := range events {
		if e.Type == call.CallRecord && e.Call.MergedInto != "" {
			into[e.CallID] = e.Call.MergedInto
		}
	}
	for _, e := range events {
		if e.Type != call.CallRecord {
			continue
		}
		id := e.Call.InteractionID
		for into[id] != "" { // an interaction whose first call was merged away goes on under the survivor's
			id = into[id]
		}
		if by[id] == nil {
			by[id] = &Story{}
			order = append(order, id)
		}
		by[id].Records = append(by[id].Records, e.Call)
	}
	out := make([]Story, 0, len(order))
	for _, id := range order {
		slices.SortStableFunc(by[id].Records, func(a, b *call.Call) int { return cmp.Compare(a.StartedAt, b.StartedAt) })
		out = append(out, *by[id])
	}
	return out
}

// parties lists the agents of the story whose connection satisfies want, once each, by the time it gives.
func (s Story) parties(want func(*call.Connection) call.Time) []string {
	type at struct {
		id string
		t  call.Time
	}
	var list []at
	for _, r := range s.Records {
		for _, c := range r.Connections {
			if t := want(c); t != 0 && c.Party.Role == call.RoleAgent {
				list = append(list, at{c.Party.ID, t})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b at) int { return cmp.Compare(a.t, b.t) })
	out := []string{}
	for _, p := range list {
		if !slices.Contains(out, p.id) {
			out = append(out, p.id)
		}
	}
	return out
}

func (s Story) answeredBy() []string {
	return s.parties(func(c *call.Connection) call.Time { return c.ConnectedAt })
}

func (s Story) offered() []string {
	return s.parties(func(c *call.Connection) call.Time { return c.OfferedAt })
}

func (s Story) caller() *call.Connection {
	for _, c := range s.Records[0].Connections {
		if c.Party.Role == call.RoleCaller {
			return c
		}
	}
	return &call.Connection{}
}

func (s Story) holds() (out []Hold) {
	for _, r := range s.Records {
		for _, c := range r.Connections {
			for _, h := range c.Holds {
				out = append(out, Hold{c.Party.ID, float64(h.To-h.From) / 1e6})
			}
		}
	}
	return out
}

// Check compares a story of a switch of kind (asterisk, freeswitch) with the truth, field by field as far as the truth
// speaks, and returns what differs.
func (s Story) Check(kind string, want Interaction) (faults []string) {
	r := s.Records[0]
	is := func(what string, got, want any) {
		if !reflect.ValueOf(want).IsZero() && !reflect.DeepEqual(got, want) {
			faults = append(faults, fmt.Sprintf("%s is %v, want %v", what, got, want))
		}
	}
	from, to := address(r.From), address(r.To)
	is("direction", string(r.Direction), want.Direction)
	is("from", from.Number, want.From)
	is("from name", from.Name, want.FromName)
	is("to", to.Number, want.To)
	is("outcome", string(r.Outcome), want.Outcome)
	is("ivr_path", r.IVRPath, want.IVRPath)
	is("digits", r.Digits, want.Digits)
	is("hangup_by", r.HangupBy, want.HangupBy)
	if want.Q850 != 0 {
		is("q850", r.Cause.Q850, want.Q850)
	}
	if want.AnsweredBy != nil {
		is("answered_by", s.answeredBy(), *want.AnsweredBy)
	}
	if want.Offered != nil {
		if !sameSet(s.offered(), *want.Offered) {
			is("offered", s.offered(), *want.Offered)
		}
	}
	faults = append(faults, s.checkDetails(kind, want)...)
	return faults
}

func address(a *call.Address) call.Address {
	if a == nil {
		return call.Address{}
	}
	return *a
}

func (s Story) checkDetails(kind string, want Interaction) (faults []string) {
	r := s.Records[0]
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	if q := want.Queue; q != nil && (r.Queue == nil || r.Queue.ID != q.ID || r.Queue.Result != q.Result) {
		bad("queue is %+v, want %+v", r.Queue, q)
	}
	if want.CallerCodecs != nil && (s.caller().Media == nil || !slices.Equal(s.caller().Media.CodecsSeen, want.CallerCodecs)) {
		bad("caller codecs are %+v, want %v", s.caller().Media, want.CallerCodecs)
	}
	if c := want.Codec[kind]; c != "" && (s.caller().Media == nil || s.caller().Media.Codec != c) {
		bad("codec is %+v, want %s", s.caller().Media, c)
	}
	if want.Conference && (r.Conference == nil || !sameSet(r.Conference.Participants, want.Participants)) {
		bad("conference is %+v, want %v", r.Conference, want.Participants)
	}
	if got := s.holds(); len(got) != len(want.Holds) {
		bad("holds are %v, want %v", got, want.Holds)
	} else {
		for i, h := range want.Holds { // FreeSWITCH lets a re-INVITE wait for 250 ms, each end of a hold; wire_test.go has the packets' times
			if slack := map[string]float64{"freeswitch": 0.3}[kind] + 0.06; got[i].By != h.By || h.Seconds != 0 && math.Abs(got[i].Seconds-h.Seconds) > slack {
				bad("hold is %v, want %v", got[i], h)
			}
		}
	}
	if len(r.Transfers) != len(want.Transfers) {
		bad("transfers are %v, want %v", r.Transfers, want.Transfers)
	} else {
		for i, x := range want.Transfers {
			if g := r.Transfers[i]; g.Kind != x.Kind || g.By != x.By || g.To != x.To {
				bad("transfer is %v, want %v", g, x)
			}
		}
	}
	if len(r.Diversions) != len(want.Diverted) {
		bad("diversions are %v, want %v", r.Diversions, want.Diverted)
	} else {
		for i, x := range want.Diverted {
			if g := r.Diversions[i]; g.By != x.By || g.To != x.To {
				bad("diversion is %v, want %v", g, x)
			}
		}
	}
	return faults
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// CheckStream holds the promises about order: seq without holes, one call.ended a call, last but for the record.
func CheckStream(t testing.TB, events []*call.Event) {
	t.Helper()
	for _, fault := range StreamFaults(events) {
		t.Error(fault)
	}
}

// StreamFaults returns how events break the promises that CheckStream holds.
func StreamFaults(events []*call.Event) (faults []string) {
	bad := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	seq, ended, ids := map[string]uint64{}, map[string]int{}, map[string]bool{}
	for _, e := range events {
		if ids[e.ID] {
			bad("event id %s (%s) twice", e.ID, e.Type)
		}
		ids[e.ID] = true
		if e.CallID == "" || e.AfterEnd() || e.Type == call.MediaQuality {
			continue
		}
		if seq[e.CallID]++; e.Seq != seq[e.CallID] {
			bad("%s has seq %d, want %d", e.Type, e.Seq, seq[e.CallID])
		}
		switch {
		case e.Type == call.CallEnded:
			ended[e.CallID]++
		case ended[e.CallID] > 0 && e.Type != call.CallRecord:
			bad("%s after call.ended", e.Type)
		}
	}
	for id, n := range ended {
		if n != 1 {
			bad("call %s ended %d times", id, n)
		}
	}
	return faults
}
