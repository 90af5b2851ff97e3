package call

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The state of a Tracker as bytes: name and version of the format, what stateCodec packs, and the CRC-32C of all that.
const (
	stateName    = "ctigate calls "
	stateVersion = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendState appends all that t knows to dst, so that RestoreTracker makes a Tracker that goes on as t does, to the same
// events. Of the ended calls, which matter only to what arrives late, the newest Options.SaveEnded are told, as if the
// others had been forgotten. Two trackers that were given the same have the same state. t is not changed.
func (t *Tracker) AppendState(dst []byte) []byte {
	s := &stateCodec{t: t}
	s.gather()
	from := len(dst)
	s.p.Write(dst)
	s.p.ids = true
	s.p.Format(stateName, stateVersion)
	s.state()
	b := s.p.Bytes()
	return checksummed(b, from)
}

// checksummed appends the checksum of b from the given place on.
func checksummed(b []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

// RestoreTracker makes a Tracker that goes on where the one left off whose AppendState made state. Nothing of state is
// kept. o may differ from the Options of then. An error says what is wrong with state and what to do; a state that was
// cut off or damaged is always noticed.
func RestoreTracker(o Options, state []byte) (*Tracker, error) {
	t, err := restore(o, state)
	if err != nil {
		return nil, fmt.Errorf("restoring the calls from a state of %d bytes: %w; use an earlier checkpoint, or set it aside "+
			"to begin without: calls in progress are then found by the switch's snapshot, under ids of their own", len(state), err)
	}
	return t, nil
}

func restore(o Options, state []byte) (*Tracker, error) {
	body := len(state) - crc32.Size
	if body < 0 {
		return nil, errors.New("it is cut off")
	}
	s := &stateCodec{t: NewTracker(o)}
	s.p.Read(state[:body])
	s.p.own = true
	s.p.Format(stateName, stateVersion) // first: a newer format may have another checksum
	if s.p.err != nil {
		return nil, s.p.err
	}
	if got, want := crc32.Checksum(state[:body], castagnoli), binary.LittleEndian.Uint32(state[body:]); got != want {
		return nil, fmt.Errorf("it is damaged: checksum %08x, not %08x", got, want)
	}
	s.state()
	if err := s.p.Done(); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	return s.t, nil
}
