package hep

import "sync/atomic"

// Names given to Run's count.
const (
	CountKey         = "hep_bad_key"            // frames without the right authentication key
	CountProtocol    = "hep_other_protocol"     // frames whose payload is neither SIP, RTP nor RTCP
	CountFrame       = "hep_bad_frame"          // malformed frames
	CountSource      = "hep_refused_source"     // datagrams and connections from outside allow_from
	CountConnections = "hep_refused_connection" // connections over max_connections, shut for newer ones, or whose TLS handshake failed
	CountShedRTP     = "hep_shed_rtp"           // RTP and RTCP dropped because the queue was full
	CountShedSIP     = "hep_shed_sip"           // SIP dropped because the queue was full
	CountShedDead    = "hep_shed_dead"          // malformed frames that were counted and not handed on
	CountKernel      = "hep_kernel_drops"       // datagrams the kernel dropped because the socket's buffer was full
)

// counter is an index into counterNames.
type counter int

const (
	badKey counter = iota
	otherProtocol
	badFrame
	refusedSource
	refusedConnection
	shedRTP
	shedSIP
	shedDead
	kernelDrops
	counterCount
)

var counterNames = [counterCount]string{
	CountKey, CountProtocol, CountFrame, CountSource, CountConnections, CountShedRTP, CountShedSIP, CountShedDead, CountKernel,
}

// counters are added to by all readers and handed on by Run's goroutine.
type counters [counterCount]atomic.Int64

func (c *counters) add(i counter, n int) { c[i].Add(int64(n)) }

func (c *counters) flush(count func(string, int)) {
	for i := range c {
		if n := c[i].Swap(0); n != 0 {
			count(counterNames[i], int(n))
		}
	}
}
