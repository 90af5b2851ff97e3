package cloudevents

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/ctigate/ctigate/core/call"
)

// AppendCall appends c as JSON: the row of the records and calls streams.
func AppendCall(dst []byte, c *call.Call) []byte {
	b := buf(dst)
	b.open('{')
	b.str("call_id", c.ID)
	b.str("interaction_id", c.InteractionID)
	b.optStr("merged_into", c.MergedInto)
	b.switchRef(&c.Switch)
	b.str("state", string(c.State))
	b.optStr("direction", string(c.Direction))
	b.address("from", c.From)
	b.address("to", c.To)
	b.optTime("started_at", c.StartedAt)
	b.optTime("offered_at", c.OfferedAt)
	b.optTime("answered_at", c.AnsweredAt)
	b.optTime("ended_at", c.EndedAt)
	b.optStr("outcome", string(c.Outcome))
	b.optStr("hangup_by", c.HangupBy)
	b.cause(c.Cause)
	b.queue(c.Queue)
	b.optStr("ivr_path", c.IVRPath)
	b.optStr("digits", c.Digits)
	b.attributes(c.Attributes)
	b.connections(c.Connections)
	b.transfers(c.Transfers)
	b.diversions(c.Diversions)
	b.conference(c.Conference)
	b.durations(c.Durations)
	b.completeness(c.Completeness)
	b.close('}')
	return b
}

// appendEvent appends e as JSON; its call is given already encoded, for it is shared between streams.
func appendEvent(dst []byte, e *call.Event, callJSON []byte) []byte {
	b := buf(dst)
	b.open('{')
	b.optStr("interaction_id", e.InteractionID)
	b.optStr("call_id", e.CallID)
	b.optStr("connection_id", e.ConnectionID)
	b.optUint("seq", e.Seq)
	b.switchRef(&e.Switch)
	b.native(&e.Native)
	b.bool("synthetic", e.Synthetic)
	b.optStrings("flags", e.Flags)
	b.cause(e.Cause)
	b.eventTime(&e.Time)
	b.detail(e)
	if e.Call != nil {
		b.key("call")
		b = append(b, callJSON...)
	}
	b.close('}')
	return b
}

// detail writes what only some types of event carry.
func (b *buf) detail(e *call.Event) {
	if e.Party != nil {
		b.party(e.Party)
	}
	b.queue(e.Queue)
	b.agent(e.Agent)
	if e.Transfer != nil {
		b.key("transfer")
		b.transfer(e.Transfer)
	}
	if e.Diversion != nil {
		b.key("diversion")
		b.diversion(e.Diversion)
	}
	if e.DTMF != nil {
		b.key("dtmf")
		b.open('{')
		b.str("digit", e.DTMF.Digit)
		b.optInt("duration_ms", int64(e.DTMF.DurationMS))
		b.close('}')
	}
	b.optStr("ivr_path", e.IVRPath)
	b.media(e.Media)
	if e.Quality != nil {
		b.key("quality")
		b.quality(e.Quality)
	}
	b.conference(e.Conference)
	b.optStr("merged_into", e.MergedInto)
	b.source(e.Source)
}

func (b *buf) switchRef(s *call.SwitchRef) {
	b.key("switch")
	b.open('{')
	b.str("id", s.ID)
	b.str("kind", s.Kind)
	b.optStr("instance", s.Instance)
	b.close('}')
}

func (b *buf) native(n *call.Native) {
	b.key("native")
	b.open('{')
	b.optStr("type", n.Type)
	b.optStr("id", n.ID)
	b.optUint("seq", n.Seq)
	b.close('}')
}

func (b *buf) eventTime(t *call.EventTime) {
	b.key("time")
	b.open('{')
	b.optTime("switch", t.Switch)
	b.optTime("received", t.Received)
	b.float("offset_ms", t.OffsetMS)
	b.float("uncertainty_ms", t.UncertaintyMS)
	b.float("age_ms", t.AgeMS)
	b.optStr("freshness", string(t.Freshness))
	b.close('}')
}

func (b *buf) cause(c *call.Cause) {
	if c == nil {
		return
	}
	b.key("cause")
	b.open('{')
	b.optStr("csta", c.CSTA)
	b.optInt("q850", int64(c.Q850))
	b.optInt("sip", int64(c.SIP))
	b.close('}')
}

func (b *buf) address(k string, a *call.Address) {
	if a == nil {
		return
	}
	b.key(k)
	b.open('{')
	b.optStr("number", a.Number)
	b.optStr("e164", a.E164)
	b.optStr("name", a.Name)
	b.close('}')
}

func (b *buf) party(p *call.Party) {
	b.key("party")
	b.open('{')
	b.optStr("id", p.ID)
	b.optStr("role", string(p.Role))
	b.optStr("number", p.Number)
	b.optStr("e164", p.E164)
	b.optStr("name", p.Name)
	b.optStr("device", p.Device)
	b.close('}')
}

func (b *buf) queue(q *call.Queue) {
	if q == nil {
		return
	}
	b.key("queue")
	b.open('{')
	b.str("id", q.ID)
	b.optTime("entered_at", q.EnteredAt)
	b.optTime("left_at", q.LeftAt)
	b.optStr("result", q.Result)
	b.optInt("position", int64(q.Position))
	b.close('}')
}

func (b *buf) agent(a *call.AgentInfo) {
	if a == nil {
		return
	}
	b.key("agent")
	b.open('{')
	b.str("id", a.ID)
	b.optStr("state", a.State)
	b.optStr("reason", a.Reason)
	b.optStr("queue", a.Queue)
	b.close('}')
}

func (b *buf) media(m *call.Media) {
	if m == nil {
		return
	}
	b.key("media")
	b.open('{')
	b.optStr("codec", m.Codec)
	b.optInt("sample_rate", int64(m.SampleRate))
	b.optStrings("codecs_seen", m.CodecsSeen)
	b.optInt("clock_rate", int64(m.ClockRate))
	b.optInt("ptime_ms", int64(m.PTimeMS))
	b.optStr("direction", m.Direction)
	b.optStr("encryption", m.Encryption)
	b.optUint("packets", m.Packets)
	b.optInt("lost", m.Lost)
	b.optFloat("jitter_ms", m.JitterMS)
	b.optFloat("mos", m.MOS)
	if len(m.Streams) > 0 {
		b.key("streams")
		b.open('[')
		for i := range m.Streams {
			b.elem()
			b.quality(&m.Streams[i])
		}
		b.close(']')
	}
	b.close('}')
}

// quality writes a report by encoding/json: it has forty fields and comes every ten seconds.
func (b *buf) quality(q *call.Quality) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(q); err != nil { // an infinite or undefined number: what is left says which stream it was
		*b = append(*b, "{}"...)
		return
	}
	*b = append(*b, bytes.TrimRight(text.Bytes(), "\n")...)
}

func (b *buf) source(s *call.Source) {
	if s == nil {
		return
	}
	b.key("source")
	b.open('{')
	b.optStr("version", s.Version)
	b.optStr("reason", s.Reason)
	b.optTime("from", s.From)
	b.optTime("to", s.To)
	b.optFloat("offset_ms", s.OffsetMS)
	b.optFloat("step_ms", s.StepMS)
	b.optInt("calls", int64(s.Calls))
	b.optInt("synthetic", int64(s.Synthetic))
	b.optStr("mark", s.Mark)
	b.close('}')
}

// attributes are written in the order of their names.
func (b *buf) attributes(m map[string]string) {
	if len(m) == 0 {
		return
	}
	var room [16]string
	names := room[:0]
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	b.key("attributes")
	b.open('{')
	for i, k := range names {
		if i > 0 {
			*b = append(*b, ',')
		}
		*b = appendString(*b, k)
		*b = append(*b, ':')
		*b = appendString(*b, m[k])
	}
	b.close('}')
}

func (b *buf) connections(cs []*call.Connection) {
	if len(cs) == 0 {
		return
	}
	b.key("connections")
	b.open('[')
	for _, c := range cs {
		b.elem()
		if c == nil {
			*b = append(*b, "null"...)
			continue
		}
		b.connection(c)
	}
	b.close(']')
}

func (b *buf) connection(c *call.Connection) {
	b.open('{')
	b.str("connection_id", c.ID)
	b.optStr("sip_call_id", c.SIPCallID)
	b.optStr("linked_by", c.LinkedBy)
	b.party(&c.Party)
	b.str("state", string(c.State))
	b.optStr("outcome", string(c.Outcome))
	b.optTime("offered_at", c.OfferedAt)
	b.optTime("alerting_at", c.AlertingAt)
	b.optTime("connected_at", c.ConnectedAt)
	b.optTime("cleared_at", c.ClearedAt)
	b.holds(c.Holds)
	b.cause(c.Cause)
	b.media(c.Media)
	b.close('}')
}

func (b *buf) holds(spans []call.Span) {
	if len(spans) == 0 {
		return
	}
	b.key("holds")
	b.open('[')
	for _, s := range spans {
		b.elem()
		b.open('{')
		b.time("from", s.From)
		b.optTime("to", s.To)
		b.close('}')
	}
	b.close(']')
}

func (b *buf) transfers(ts []call.Transfer) {
	if len(ts) == 0 {
		return
	}
	b.key("transfers")
	b.open('[')
	for i := range ts {
		b.elem()
		b.transfer(&ts[i])
	}
	b.close(']')
}

func (b *buf) transfer(t *call.Transfer) {
	b.open('{')
	b.str("kind", t.Kind)
	b.optStr("by", t.By)
	b.optStr("to", t.To)
	b.time("at", t.At)
	b.optStr("result", t.Result)
	b.close('}')
}

func (b *buf) diversions(ds []call.Diversion) {
	if len(ds) == 0 {
		return
	}
	b.key("diversions")
	b.open('[')
	for i := range ds {
		b.elem()
		b.diversion(&ds[i])
	}
	b.close(']')
}

func (b *buf) diversion(d *call.Diversion) {
	b.open('{')
	b.optStr("by", d.By)
	b.optStr("to", d.To)
	b.time("at", d.At)
	b.close('}')
}

func (b *buf) conference(c *call.Conference) {
	if c == nil {
		return
	}
	b.key("conference")
	b.open('{')
	b.str("id", c.ID)
	b.optStrings("participants", c.Participants)
	b.close('}')
}

func (b *buf) durations(d *call.Durations) {
	if d == nil {
		return
	}
	b.key("durations")
	b.open('{')
	b.int("ring_ms", d.RingMS)
	b.int("queue_ms", d.QueueMS)
	b.int("talk_ms", d.TalkMS)
	b.int("hold_ms", d.HoldMS)
	b.int("total_ms", d.TotalMS)
	b.close('}')
}

func (b *buf) completeness(c *call.Completeness) {
	if c == nil {
		return
	}
	b.key("completeness")
	b.open('{')
	b.optStrings("missing", c.Missing)
	b.optInt("synthetic_events", int64(c.SyntheticEvents))
	b.optInt("gaps", int64(c.Gaps))
	b.optInt("violations", int64(c.Violations))
	b.optInt("late", int64(c.Late))
	b.close('}')
}
