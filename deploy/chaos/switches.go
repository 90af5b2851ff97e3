package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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

// startSwitches starts both. They play what is placed, and load a script when it is first wanted.
func startSwitches(ctx context.Context, seed uint64, speed float64) (*switches, error) {
	o := sim.Options{Seed: seed, Speed: speed, User: simUser, Password: simPassword, Ledger: ledgerSize, Buffer: 64 << 20,
		Mix: map[string]int{"busy": 1}}
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

// offer places so many calls a second of the ordinary mix, on either switch, until ctx ends.
func (s *switches) offer(ctx context.Context, seed uint64, rate float64) {
	var names []string
	for name, weight := range sim.DefaultMix() {
		for range weight {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	r := rand.New(rand.NewPCG(seed, 1))
	for sleepOr(ctx.Done(), time.Duration(r.ExpFloat64()*float64(time.Second)/rate)) {
		p := s.by[[]string{asterisk, freeswitch}[r.IntN(2)]]
		if p.Place(names[r.IntN(len(names))]) != nil {
			return // the switch has stopped
		}
	}
}
