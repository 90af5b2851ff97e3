package router

import (
	"fmt"

	"github.com/ctigate/ctigate/core"
	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
)

// inputs is what the core loop took in one turn.
type inputs struct {
	gen  uint64 // the generation of the cluster in which this node owned the links; 0 without a cluster
	turn uint64 // counted from 1 without holes, on whichever node
	msgs []message
}

func (in *inputs) size() (n int) {
	for i := range in.msgs {
		n += in.msgs[i].size()
	}
	return n
}

const (
	inputsName    = "T"
	inputsVersion = 1
)

// append encodes in. Native bytes are kept only where items are made of them.
func (in *inputs) append(p *call.Pack, dst []byte) []byte {
	p.Write(dst)
	in.pack(p, nil)
	return p.Bytes()
}

// readInputs decodes a turn. of finds a link by its id; what links that are not there any more said is left out.
func readInputs(b []byte, of func(id string) *link) (in inputs, err error) {
	p := new(call.Pack)
	p.Read(b)
	in.pack(p, of)
	if err := p.Done(); err != nil {
		return inputs{}, fmt.Errorf("reading the inputs of a turn, %d bytes: %w", len(b), err)
	}
	known := in.msgs[:0]
	for _, m := range in.msgs {
		if m.link != nil || m.kind == msgTick {
			known = append(known, m)
		}
	}
	in.msgs = known
	return in, nil
}

func (in *inputs) pack(p *call.Pack, of func(id string) *link) {
	p.Format(inputsName, inputsVersion)
	p.Uint(&in.gen)
	p.Uint(&in.turn)
	call.PackList(p, &in.msgs, func(p *call.Pack, m *message) { m.pack(p, of) })
}

func (m *message) pack(p *call.Pack, of func(id string) *link) {
	kind, id := uint64(m.kind), ""
	if m.link != nil {
		id = m.link.id
	}
	p.Uint(&kind)
	p.Word(&id)
	if p.Reading() {
		m.kind = msgKind(min(kind, uint64(msgNote)))
		m.link = of(id)
	}
	for _, t := range [...]*call.Time{&m.at, &m.now, &m.ahead, &m.from} {
		p.Time(t)
	}
	p.Word(&m.text)
	switch m.kind {
	case msgFrame, msgDead:
		m.packFrame(p)
	case msgUp, msgMissing:
		need(p, &m.inst)
		codec.PackInstance(p, m.inst)
	case msgClock:
		need(p, &m.clock)
		codec.PackClockSample(p, m.clock)
	}
}

func (m *message) packFrame(p *call.Pack) {
	raw := m.raw
	if !p.Reading() && m.kind != msgDead && !m.link.raw {
		raw = nil
	}
	p.Data(&raw)
	if p.Reading() {
		m.raw = raw
	}
	call.PackList(p, &m.obs, (*call.Pack).Observation)
}

// need makes room for what is about to be read.
func need[T any](p *call.Pack, v **T) {
	if p.Reading() {
		*v = new(T)
	}
}

// Turn is a turn's inputs for people to read.
type Turn struct {
	Generation uint64  `json:"generation,omitempty"` // of the cluster
	Turn       uint64  `json:"turn"`
	Inputs     []Input `json:"inputs"`
}

// Input is one thing that the core loop took.
type Input struct {
	Kind         string             `json:"kind"`
	Link         string             `json:"link,omitempty"`
	At           call.Time          `json:"at,omitzero"` // received, by our clock
	Text         string             `json:"text,omitempty"`
	Observations []call.Observation `json:"observations,omitempty"`
	Instance     *core.Instance     `json:"instance,omitempty"`
	Clock        *core.ClockSample  `json:"clock,omitempty"`
}

// ReadTurn decodes the data of a record of the kind RecordInputs.
func ReadTurn(data []byte) (Turn, error) {
	in, err := readInputs(data, func(id string) *link { return &link{id: id} })
	if err != nil {
		return Turn{}, err
	}
	t := Turn{Generation: in.gen, Turn: in.turn, Inputs: []Input{}}
	for _, m := range in.msgs {
		t.Inputs = append(t.Inputs, Input{Kind: m.kind.String(), Link: m.link.id, At: m.at, Text: m.text, Observations: m.obs,
			Instance: m.inst, Clock: m.clock})
	}
	return t, nil
}
