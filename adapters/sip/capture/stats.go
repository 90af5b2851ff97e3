package capture

import "github.com/ctigate/ctigate/core/call"

// Stats is what the decoder did.
type Stats struct {
	Packets   uint64 // read
	Bytes     uint64 // of them, as captured
	Datagrams uint64 // UDP payloads handed over
	Messages  uint64 // SIP messages out of TCP handed over

	Filtered  uint64 // from and to other ports
	Other     uint64 // neither UDP nor TCP over IP, or an unknown link layer
	Malformed uint64 // headers that contradict themselves or the packet's length
	Empty     uint64 // UDP without payload
	VXLAN     uint64 // packets inside of others, taken out
	Truncated uint64 // cut by the capture's snap length; a UDP payload is handed over as far as it goes

	Fragments       uint64 // of IP
	Reassembled     uint64 // datagrams put together from them
	FragmentOverlap uint64 // datagrams given up since fragments overlap (RFC 5722)
	FragmentExpired uint64 // datagrams given up since a fragment did not come in time
	FragmentShed    uint64 // datagrams given up for lack of room

	Segments      uint64 // of TCP, with payload, of connections that are followed
	NotSIP        uint64 // of TCP, with payload, of others
	Retransmitted uint64 // segments seen before
	OutOfOrder    uint64 // segments that came too early, or belong to no window
	Gaps          uint64 // places where a stream lost bytes
	Connections   uint64 // followed from some point on
	Evicted       uint64 // connections given up for lack of room
	Skipped       uint64 // bytes of streams that belong to no message
	Oversized     uint64 // messages over the limit
	BadLength     uint64 // messages with an unusable Content-Length
	KeepAlives    uint64 // line ends between messages (RFC 5626, 4.4.1)

	First call.Time // earliest packet
	Last  call.Time // latest packet
}
