package call

import "slices"

// PackVersion is the version of the model's binary form: a change to what the functions below write raises it, and they
// go on to read the earlier ones.
const PackVersion = 1

// Event packs e and all that it points to.
func (p *Pack) Event(e **Event) { share(p, &p.events, e, packEvent) }

// Observation packs o.
func (p *Pack) Observation(o *Observation) { packObservation(p, o) }

// SwitchRef packs s.
func (p *Pack) SwitchRef(s *SwitchRef) { packSwitchRef(p, s) }

func packEvent(p *Pack, e *Event) {
	p.String(&e.ID)
	PackWord(p, &e.Type)
	p.String(&e.InteractionID)
	p.String(&e.CallID)
	p.String(&e.ConnectionID)
	p.Uint(&e.Seq)
	packSwitchRef(p, &e.Switch)
	packNative(p, &e.Native)
	p.Bool(&e.Synthetic)
	PackList(p, &e.Flags, (*Pack).Word)
	optional(p, &e.Cause, packCause)
	packEventTime(p, &e.Time)
	packDetail(p, e)
	optional(p, &e.Call, packCall)
}

// packDetail packs what few types of event carry, behind one byte when there is nothing.
func packDetail(p *Pack, e *Event) {
	optional(p, &e.Party, packParty)
	if !p.flag(e.detailed()) {
		return
	}
	optional(p, &e.Queue, packQueue)
	optional(p, &e.Agent, packAgentInfo)
	optional(p, &e.Transfer, packTransfer)
	optional(p, &e.Diversion, packDiversion)
	optional(p, &e.DTMF, packDTMF)
	p.Word(&e.IVRPath)
	optional(p, &e.Media, packMedia)
	optional(p, &e.Quality, packQuality)
	optional(p, &e.Conference, packConference)
	p.String(&e.MergedInto)
	optional(p, &e.Source, packSource)
}

func (e *Event) detailed() bool {
	return e.Queue != nil || e.Agent != nil || e.Transfer != nil || e.Diversion != nil || e.DTMF != nil || e.IVRPath != "" ||
		e.Media != nil || e.Quality != nil || e.Conference != nil || e.MergedInto != "" || e.Source != nil
}

func packCall(p *Pack, c *Call) {
	p.String(&c.ID)
	p.String(&c.InteractionID)
	p.String(&c.MergedInto)
	packSwitchRef(p, &c.Switch)
	PackWord(p, &c.State)
	PackWord(p, &c.Direction)
	optional(p, &c.From, packAddress)
	optional(p, &c.To, packAddress)
	p.Time(&c.StartedAt)
	p.Time(&c.OfferedAt)
	p.Time(&c.AnsweredAt)
	p.Time(&c.EndedAt)
	PackWord(p, &c.Outcome)
	p.Word(&c.HangupBy)
	optional(p, &c.Cause, packCause)
	optional(p, &c.Queue, packQueue)
	p.Word(&c.IVRPath)
	p.String(&c.Digits)
	packAttributes(p, &c.Attributes)
	PackList(p, &c.Connections, packConnections)
	PackList(p, &c.Transfers, packTransfer)
	PackList(p, &c.Diversions, packDiversion)
	optional(p, &c.Conference, packConference)
	optional(p, &c.Durations, packDurations)
	optional(p, &c.Completeness, packCompleteness)
}

func packConnections(p *Pack, c **Connection) { share(p, &p.conns, c, packConnection) }

func packConnection(p *Pack, c *Connection) {
	p.String(&c.ID)
	p.String(&c.SIPCallID)
	p.Word(&c.LinkedBy)
	packParty(p, &c.Party)
	PackWord(p, &c.State)
	PackWord(p, &c.Outcome)
	p.Time(&c.OfferedAt)
	p.Time(&c.AlertingAt)
	p.Time(&c.ConnectedAt)
	p.Time(&c.ClearedAt)
	PackList(p, &c.Holds, packSpan)
	optional(p, &c.Cause, packCause)
	optional(p, &c.Media, packMedia)
}

// packAttributes packs m in the order of its keys.
func packAttributes(p *Pack, m *map[string]string) {
	n, is := p.size(len(*m), *m != nil)
	if !is {
		return
	}
	if p.reading {
		takeAttributes(p, n, m)
		return
	}
	var room [16]string
	keys := room[:0]
	for k := range *m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		v := (*m)[k]
		p.Word(&k)
		p.Word(&v)
	}
}

func takeAttributes(p *Pack, n int, m *map[string]string) {
	out := make(map[string]string, min(n, 16))
	for range n {
		var k, v string
		p.Word(&k)
		p.Word(&v)
		if p.err != nil {
			return
		}
		out[k] = v
	}
	*m = out
}

func packSwitchRef(p *Pack, s *SwitchRef) {
	p.Word(&s.ID)
	p.Word(&s.Kind)
	p.Word(&s.Instance)
}

func packNative(p *Pack, n *Native) {
	p.Word(&n.Type)
	p.String(&n.ID)
	p.Uint(&n.Seq)
}

func packEventTime(p *Pack, t *EventTime) {
	p.Time(&t.Switch)
	p.Time(&t.Received)
	p.Float(&t.OffsetMS)
	p.Float(&t.UncertaintyMS)
	p.Float(&t.AgeMS)
	PackWord(p, &t.Freshness)
}

func packCause(p *Pack, c *Cause) {
	p.Word(&c.CSTA)
	packInt(p, &c.Q850)
	packInt(p, &c.SIP)
}

func packAddress(p *Pack, a *Address) {
	p.String(&a.Number)
	p.String(&a.E164)
	p.String(&a.Name)
}

func packParty(p *Pack, y *Party) {
	p.String(&y.ID)
	PackWord(p, &y.Role)
	p.String(&y.Number)
	p.String(&y.E164)
	p.String(&y.Name)
	p.String(&y.Device)
}

func packSpan(p *Pack, s *Span) {
	p.Time(&s.From)
	p.Time(&s.To)
}

func packQueue(p *Pack, q *Queue) {
	p.Word(&q.ID)
	p.Time(&q.EnteredAt)
	p.Time(&q.LeftAt)
	p.Word(&q.Result)
	packInt(p, &q.Position)
}

func packAgentInfo(p *Pack, a *AgentInfo) {
	p.Word(&a.ID)
	p.Word(&a.State)
	p.Word(&a.Reason)
	p.Word(&a.Queue)
}

func packTransfer(p *Pack, t *Transfer) {
	p.Word(&t.Kind)
	p.Word(&t.By)
	p.Word(&t.To)
	p.Time(&t.At)
	p.Word(&t.Result)
}

func packDiversion(p *Pack, d *Diversion) {
	p.Word(&d.By)
	p.Word(&d.To)
	p.Time(&d.At)
}

func packDTMF(p *Pack, d *DTMF) {
	p.Word(&d.Digit)
	packInt(p, &d.DurationMS)
}

func packConference(p *Pack, c *Conference) {
	p.Word(&c.ID)
	PackList(p, &c.Participants, (*Pack).Word)
}

func packDurations(p *Pack, d *Durations) {
	p.Int(&d.RingMS)
	p.Int(&d.QueueMS)
	p.Int(&d.TalkMS)
	p.Int(&d.HoldMS)
	p.Int(&d.TotalMS)
}

func packCompleteness(p *Pack, c *Completeness) {
	PackList(p, &c.Missing, (*Pack).Word)
	packInt(p, &c.SyntheticEvents)
	packInt(p, &c.Gaps)
	packInt(p, &c.Violations)
	packInt(p, &c.Late)
}

func packSource(p *Pack, s *Source) {
	p.Word(&s.Version)
	p.Word(&s.Reason)
	p.Time(&s.From)
	p.Time(&s.To)
	p.Float(&s.OffsetMS)
	p.Float(&s.StepMS)
	packInt(p, &s.Calls)
	packInt(p, &s.Synthetic)
	p.Word(&s.Mark)
}

func packMedia(p *Pack, m *Media) {
	p.Word(&m.Codec)
	packInt(p, &m.SampleRate)
	PackList(p, &m.CodecsSeen, (*Pack).Word)
	packInt(p, &m.ClockRate)
	packInt(p, &m.PTimeMS)
	p.Word(&m.Direction)
	p.Word(&m.Encryption)
	p.Uint(&m.Packets)
	p.Int(&m.Lost)
	p.Float(&m.JitterMS)
	p.Float(&m.MOS)
	PackList(p, &m.Streams, packQuality)
}

func packQuality(p *Pack, q *Quality) {
	p.Word(&q.Direction)
	p.Bool(&q.Final)
	p.String(&q.Stream)
	p.String(&q.Source)
	p.String(&q.Destination)
	p.Time(&q.From)
	p.Time(&q.To)
	p.Word(&q.Codec)
	packInt(p, &q.PayloadType)
	optional(p, &q.NegotiatedType, packInt)
	packInt(p, &q.ClockRate)
	p.Float(&q.PTimeMS)
	p.Bool(&q.Encrypted)
	for _, v := range [...]*uint64{&q.Packets, &q.Bytes, &q.Expected, &q.Duplicates, &q.Reordered, &q.Late, &q.Restarts, &q.Bursts} {
		p.Uint(v)
	}
	p.Int(&q.Lost)
	for _, v := range [...]*float64{
		&q.LossPercent, &q.JitterMS, &q.MaxJitterMS, &q.MaxGapMS, &q.JitterBufferMS, &q.BurstDensity, &q.GapDensity,
		&q.BurstDurationMS, &q.GapDurationMS, &q.MOS, &q.RFactor, &q.DelayMS, &q.Sampling,
	} {
		p.Float(v)
	}
	for _, v := range [...]**float64{&q.SilencePercent, &q.ClippingPercent, &q.LevelDBM0} {
		optional(p, v, (*Pack).Float)
	}
	PackList(p, &q.Flags, (*Pack).Word)
	optional(p, &q.Remote, packRemote)
}

func packRemote(p *Pack, r *RemoteQuality) {
	p.Time(&r.At)
	p.Int(&r.Lost)
	for _, v := range [...]*float64{
		&r.LossPercent, &r.JitterMS, &r.RoundTripMS, &r.MOSLQ, &r.MOSCQ, &r.RFactor, &r.BurstDensity, &r.GapDensity,
		&r.EndSystemMS, &r.DiscardedPart,
	} {
		p.Float(v)
	}
	packInt(p, &r.SignalDBM)
	packInt(p, &r.NoiseDBM)
}

func packObservation(p *Pack, o *Observation) {
	packKind(p, &o.Kind)
	for _, v := range [...]*string{&o.Leg, &o.Link, &o.Other, &o.Parent} {
		p.String(v)
	}
	p.Time(&o.At)
	p.Time(&o.Received)
	packNative(p, &o.Native)
	feed := uint64(o.Feed)
	p.Uint(&feed)
	o.Feed = Feed(feed)
	for _, v := range [...]*bool{&o.Synthetic, &o.Inbound, &o.Local, &o.Unseen, &o.Forward, &o.ByParty} {
		p.Bool(v)
	}
	for _, v := range [...]*string{
		&o.Number, &o.Name, &o.Dialed, &o.User, &o.Device, &o.SIPCallID, &o.Correlation, &o.Evidence, &o.Bridge,
		&o.Conference, &o.Queue, &o.Agent, &o.Reason, &o.Value,
	} {
		p.String(v)
	}
	for _, v := range [...]*int{&o.Count, &o.Q850, &o.SIP} {
		packInt(p, v)
	}
	optional(p, &o.Media, packMedia)
	optional(p, &o.Quality, packQuality)
}

func packKind(p *Pack, k *Kind) {
	n := uint64(*k)
	p.Uint(&n)
	if p.reading {
		*k = Kind(n)
	}
}
