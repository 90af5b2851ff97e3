package sip

import (
	"fmt"
	"sync/atomic"

	"github.com/ctigate/ctigate/adapters/sip/hep"
	"github.com/ctigate/ctigate/core/call"
)

// load is what could not be taken before the engine saw it.
type load struct {
	ring uint64       // packets that the capture's kernel dropped, as far as told
	shed atomic.Int64 // RTP that the HEP listener left out, since the last look
	lost atomic.Int64 // frames that the HEP listener lost, SIP among them, since the last look
}

// counted passes on what the HEP listener counts, and notes what it could not take.
func (s *session) counted(name string, n int) {
	switch name {
	case hep.CountShedRTP:
		s.load.shed.Add(int64(n))
	case hep.CountShedSIP, hep.CountKernel:
		s.load.lost.Add(int64(n))
	}
	s.out.Count(name, n)
}

// Of the capture's ring: how full it is when fewer streams are to be measured, and how empty when more may be.
const (
	ringFull  = 0.5
	ringCalm  = 0.05
	calmAfter = 10 * call.Second
)

// look measures fewer streams while more comes than can be taken, and tells of what was lost.
func (s *session) look() {
	ring, backlog := s.dropped()
	shed, lost := s.load.shed.Swap(0), s.load.lost.Swap(0)
	s.adjust(ring > 0 || shed > 0 || lost > 0 || backlog > ringFull, backlog < ringCalm)
	if ring > 0 {
		s.out.Count("kernel_drops", int(ring))
		_ = s.out.Gap(fmt.Sprintf("the kernel dropped %d packets of %s: the ring was full", ring, s.cfg.Capture.Interface), 0)
	}
	if lost > 0 {
		_ = s.out.Gap(fmt.Sprintf("%d HEP frames were lost: more came than could be taken, see hep_shed_sip and hep_kernel_drops", lost), 0)
	}
}

// dropped is how many packets the kernel has dropped since the last look, and how full the ring is.
func (s *session) dropped() (n uint64, backlog float64) {
	if s.live == nil {
		return 0, 0
	}
	st := s.live.Stats()
	n, s.load.ring = st.KernelDrops-s.load.ring, st.KernelDrops
	return n, st.Backlog
}

// adjust changes how many streams are measured: fewer at once, more only after some time of calm.
func (s *session) adjust(busy, calm bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.engine
	if busy {
		e.sample(e.sampling + 1)
	} else if calm && e.sampling > 0 && e.now-e.calm > calmAfter {
		e.sample(e.sampling - 1)
	}
	if busy || !calm {
		e.calm = e.now
	}
}
