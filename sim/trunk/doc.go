// Package trunk is a simulated SIP trunk with real RTP: a carrier, a PBX between two calls of its own (a B2BUA), and
// the agents' phones, for demos, load and fault tests of whatever watches SIP and RTP on the wire.
//
// The calls are scripted: the same seed gives the same calls, messages and packets, down to the byte. All of a call is
// decided when it begins; one goroutine plays all calls from a heap of timed steps, through UDP sockets on one address.
// What is sent is mirrored as HEPv3, as a capture agent beside the PBX would do, and can be written to a pcap file.
// Render plays without sockets and without waiting.
//
// The network's faults happen before the capture point: a lost packet was never seen there. Only the profile far_loss
// loses packets beyond it, which only the receiver's RTCP reports tell.
//
// SIP is RFC 3261 with 3262 (PRACK), 3264 and 8866 (SDP), 3515 (REFER), 4028 (Session-Expires) and 5806 (Diversion);
// RTP and RTCP are RFC 3550, 3551 and 4733. It shares no code with the adapters: a bug on both sides would hide itself.
package trunk
