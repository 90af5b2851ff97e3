package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// newest is the journal's segment that was written last.
func (n *node) newest() (string, error) {
	all, err := filepath.Glob(filepath.Join(n.journal(), "*.cti"))
	if err != nil {
		return "", fmt.Errorf("looking for the segments of %s's journal: %w", n.name, err)
	}
	if len(all) == 0 {
		return "", fmt.Errorf("%s has no segment in its journal", n.name)
	}
	return slices.Max(all), nil
}

// tearJournal kills a node and leaves, behind what its journal has, the beginning of a record that was never finished.
func (r *run) tearJournal(f fault) {
	r.damaged(f, func(name string, rng *rand.Rand) error {
		file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		torn := make([]byte, 1+rng.IntN(300))
		for i := range torn {
			torn[i] = byte(rng.Uint32())
		}
		_, err = file.Write(torn)
		return errors.Join(err, file.Close())
	})
}

// flipJournal kills a node and flips a bit somewhere in its journal.
func (r *run) flipJournal(f fault) {
	r.damaged(f, func(name string, rng *rand.Rand) error {
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			return err
		}
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return os.WriteFile(name, b, 0o600)
	})
}

// loseDisk kills a node, and starts it again on an empty disk.
func (r *run) loseDisk(f fault) {
	r.killed(f, func(n *node) error {
		names, err := filepath.Glob(filepath.Join(n.journal(), "*"))
		for _, name := range names {
			err = errors.Join(err, os.RemoveAll(name))
		}
		return err
	})
}

func (r *run) damaged(f fault, do func(name string, rng *rand.Rand) error) {
	r.killed(f, func(n *node) error {
		name, err := n.newest()
		if err == nil {
			err = do(name, rand.New(rand.NewPCG(r.seed, uint64(f.at))))
		}
		return err
	})
}

// smallDisk is how much room a journal has in a run that fills its disk.
const smallDisk = "size=64m"

// mountJournals gives each node whose disk the plan fills a small disk for its journal.
func (r *run) mountJournals() error {
	for _, f := range r.faults {
		if f.kind != "disk full" {
			continue
		}
		n := r.nodes[f.target]
		if n.mounted {
			continue
		}
		if err := os.MkdirAll(n.journal(), 0o700); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", n.journal(), "tmpfs", 0, smallDisk); err != nil {
			return fmt.Errorf("mounting a small disk on %s: %w", n.journal(), err)
		}
		n.mounted = true
	}
	return nil
}

// fillDisk leaves no room beside the journal, and makes room again.
func (r *run) fillDisk(f fault) {
	n := r.nodes[f.target]
	n.disk.Lock()
	defer n.disk.Unlock()
	name := filepath.Join(n.journal(), "filler")
	file, err := os.Create(name)
	if err != nil {
		r.note("filling the disk of %s: %v", n.name, err)
		return
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err := file.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	file.Close()
	time.Sleep(f.length)
	if s, err := n.status(); err == nil && s.Ready {
		r.note("the disk of %s is full, and /readyz says all is well", n.name)
	}
	r.wrong(os.Remove(name))
}

// keepJournal takes the small disk away, and keeps what is on it where wanted.
func (n *node) keepJournal(keep bool) {
	if !n.mounted {
		return
	}
	kept := filepath.Join(n.dir, "journal-kept")
	if keep {
		_ = os.CopyFS(kept, os.DirFS(n.journal())) // as much as can be
	}
	_ = syscall.Unmount(n.journal(), syscall.MNT_DETACH) // a process that still holds it ends with the driver
	n.mounted = false
}
