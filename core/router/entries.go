package router

import (
	"fmt"

	"github.com/ctigate/ctigate/core/call"
	"github.com/ctigate/ctigate/core/codec"
)

// Entries of the cluster's log.
const (
	entryTurn  = iota // a turn's inputs
	entryAlive        // the owner has nothing to say
	entryState        // a piece of a checkpoint
)

const (
	entryName    = "C"
	entryVersion = 1
	pieceBytes   = 512 << 10 // of a checkpoint, or a turn, in one entry
)

// entry is one of the cluster's log.
type entry struct {
	kind      uint64
	gen       uint64 // of the owner
	node      string
	turn      uint64 // of the owner, the latest that the log has, whole, with this entry
	delivered uint64 // the latest turn of which every sink has accepted all
	state     int64  // where the latest checkpoint begins in the log; -1: there is none
	piece     uint64 // of a checkpoint or a turn, from 0
	pieces    uint64
	data      []byte
}

func (e *entry) pack(p *call.Pack) {
	p.Format(entryName, entryVersion)
	p.Uint(&e.kind)
	p.Uint(&e.gen)
	p.Word(&e.node)
	p.Uint(&e.turn)
	p.Uint(&e.delivered)
	p.Int(&e.state)
	p.Uint(&e.piece)
	p.Uint(&e.pieces)
	p.Data(&e.data)
}

func (e *entry) bytes() []byte {
	p := new(call.Pack)
	p.Write(nil)
	e.pack(p)
	return p.Bytes()
}

func readEntry(b []byte) (e entry, err error) {
	p := new(call.Pack)
	p.Read(b)
	e.pack(p)
	if err := p.Done(); err != nil {
		return entry{}, fmt.Errorf("reading an entry of the cluster's log, %d bytes: %w", len(b), err)
	}
	return e, nil
}

// pieces cuts b into entries, at least one.
func pieces(kind uint64, b []byte) (out []entry) {
	n := max(1, (len(b)+pieceBytes-1)/pieceBytes)
	for i := range n {
		out = append(out, entry{kind: kind, piece: uint64(i), pieces: uint64(n), data: b[i*pieceBytes : min((i+1)*pieceBytes, len(b))]})
	}
	return out
}

// assembly puts together what was cut into pieces.
type assembly struct {
	data []byte
	next uint64 // piece
	at   int64  // offset of the first
}

// add returns the whole once the last piece is there. What began before its first piece was read is passed over.
func (a *assembly) add(e *entry, offset int64) (whole []byte, ok bool) {
	if e.piece == 0 {
		*a = assembly{at: offset}
	}
	if e.piece != a.next {
		return nil, false
	}
	if a.next++; e.pieces <= 1 {
		return e.data, true
	}
	a.data = append(a.data, e.data...)
	if a.next < e.pieces {
		return nil, false
	}
	whole, a.data = a.data, nil
	return whole, true
}

// savedTurns is a checkpoint in the cluster's log.
type savedTurns struct {
	state []byte // of the loop
	gen   uint64
	turns []unsure // before it, not delivered for sure
}

const (
	savedName    = "S"
	savedVersion = 1
)

func (s *savedTurns) pack(p *call.Pack) {
	p.Format(savedName, savedVersion)
	p.Uint(&s.gen)
	p.Data(&s.state)
	call.PackList(p, &s.turns, func(p *call.Pack, u *unsure) {
		p.Uint(&u.turn)
		p.Time(&u.at)
		var b []byte
		if !p.Reading() {
			b = codec.AppendItems(nil, u.items)
		}
		p.Data(&b)
		if p.Reading() && !p.Failed() {
			items, err := codec.ReadItems(b)
			if err != nil {
				p.Fail("%w", err)
			}
			u.items = items
		}
	})
}

func (s *savedTurns) bytes() []byte {
	p := new(call.Pack)
	p.Write(nil)
	s.pack(p)
	return p.Bytes()
}
