package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ctigate/ctigate/sim"
)

// The two simulated switches, by switch_id.
const (
	asterisk   = "ast"
	freeswitch = "fs"
)

const (
	simUser     = "gw"
	simPassword = "chaos-password"
)

// pbx is what a simulated switch is to the driver.
type pbx interface {
	Place(script string) error
	Stats() sim.Stats
	Truths() []sim.Truth
	Ledger() []sim.Entry
	SetClockSkew(d time.Duration)
}

// switches are the run's.
type switches struct {
	ast *sim.Asterisk
	fs  *sim.FreeSWITCH
	by  map[string]pbx
}

// ledgerSize is how many events and calls the ledger keeps: more than any run has.
const ledgerSize = 5_000_000

func startSwitches(ctx context.Context, seed uint64, speed float64, mix map[string]int, rate float64) (*switches, error) {
	o := sim.Options{Seed: seed, Speed: speed, User: simUser, Password: simPassword, Ledger: ledgerSize, Mix: mix, Rate: rate, Buffer: 64 << 20}
	s := &switches{ast: sim.NewAsterisk(o), fs: sim.NewFreeSWITCH(o)}
	if err := s.ast.Start(ctx, "127.0.0.1:0", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("starting the switches: %w", err)
	}
	if err := s.fs.Start(ctx, "127.0.0.1:0"); err != nil {
		s.ast.Close()
		return nil, fmt.Errorf("starting the switches: %w", err)
	}
	s.by = map[string]pbx{asterisk: s.ast, freeswitch: s.fs}
	return s, nil
}

func (s *switches) close() {
	s.ast.Close()
	s.fs.Close()
}

// active is how many simulated calls are up.
func (s *switches) active() (n int64) {
	for _, p := range s.by {
		n += p.Stats().Active
	}
	return n
}

// truths and legs are what the oracle compares with.
func (s *switches) truths() map[string][]sim.Truth {
	return map[string][]sim.Truth{asterisk: s.ast.Truths(), freeswitch: s.fs.Truths()}
}

func (s *switches) legs() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for id, p := range s.by {
		out[id] = map[string]bool{}
		for _, e := range p.Ledger() {
			if e.Leg != "" {
				out[id][e.Leg] = true
			}
		}
	}
	return out
}
