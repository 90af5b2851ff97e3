// Package capture hands over SIP and RTP packets from pcap and pcapng files and, on Linux, from a live interface.
//
// Both go through one decoder: link layer (Ethernet with VLAN tags, Linux cooked, loopback, raw IP), IPv4 and IPv6 with
// fragments put together, UDP datagrams as they are, and TCP streams that look like SIP cut into messages. Checksums are
// not verified: packets that a machine captures of itself have none yet where its network card computes them.
//
// A packet that passes two capture points, such as a bridge and its port under "any", or both sides of a mirrored
// switch, is handed over twice, but for TCP, where the second is a retransmission. Naming one interface avoids it.
package capture
