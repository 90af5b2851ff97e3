package sim

import "sync"

// Entry is one event that was written to an open socket.
type Entry struct {
	Conn int64  // the connection's number
	Nth  int64  // its place among that connection's events, from 1
	Kind string // ari, ami, esl
	Type string // the event's name
	Call int64  // number of the call on its switch, 0: none
	Step int    // place of the event in its call's script
	Leg  string // native id of the leg it is about, if any
}

// ledger keeps the last size entries and truths.
type ledger struct {
	size   int
	mu     sync.Mutex
	all    []Entry
	truths []Truth
	lost   int64
}

func (l *ledger) on() bool { return l.size > 0 }

func (l *ledger) enter(marks []mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range marks {
		l.all = append(l.all, m.e)
	}
	if over := len(l.all) - l.size; over > l.size/4 {
		l.lost += int64(over)
		l.all = append(l.all[:0], l.all[over:]...)
	}
}

func (l *ledger) close(t Truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.truths = append(l.truths, t)
	if over := len(l.truths) - l.size; over > l.size/4 {
		l.truths = append(l.truths[:0], l.truths[over:]...)
	}
}

func (l *ledger) entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Entry(nil), l.all[max(0, len(l.all)-l.size):]...)
}

func (l *ledger) ended() []Truth {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Truth(nil), l.truths[max(0, len(l.truths)-l.size):]...)
}
