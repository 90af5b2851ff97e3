// Package media measures RTP: loss, bursts of loss, jitter, lateness, levels, DTMF and a MOS of each stream, and reads
// what RTCP says of it. It is pure: packets and times come in as data, nothing is kept of them, and a stream takes
// constant memory.
//
// A Stream is all RTP from one source to one destination, through its SSRCs, restarts and payload types. What it does
// where the standards leave a choice, or where Wireshark's RTP stream analysis, which many compare with, does otherwise:
//
// # Loss
//
// Expected, Lost and restarts are RFC 3550, A.1 and A.3, with its limits: a step of 3000 or more forward, or of 100 or
// more back, is no loss but a restart, once a second packet confirms it; so is a new SSRC. Differences to the RFC: the
// packets that confirm are counted, not discarded; a large step forward is loss after all where timestamps and
// arrival moved on as far (a network that was away for a minute). Packets are counted without duplicates, which are
// told within 64 packets; the RFC and Wireshark count them as received. So, for each SSRC:
//
//	Wireshark's packets = Packets + Duplicates
//	Wireshark's lost    = Lost - Duplicates
//
// Wireshark knows no restart: it counts a jump forward as loss, and one back as 65,536 packets less. It takes the
// last packet's number for the highest, so that it expects less when a capture ends with a reordered packet.
//
// # Jitter
//
// JitterMS is the mean, and MaxJitterMS the largest, of the interarrival jitter (RFC 3550, A.8) after each packet, in
// arithmetic modulo 2^32. Packets are compared in the order of their arrival, duplicates and reordered ones too. As in
// Wireshark, talkspurts' first packets (marker), comfort noise and the packet after it change the jitter but count in
// neither its mean nor its maximum.
//
// Unlike there, telephone events have no part in it: their timestamp stands still (RFC 4733, 2.2.1), so that Wireshark
// shows jitter of the length of each digit after it. Nor have jumps: a restart, a new clock rate (RFC 7160) or a
// difference of transit of more than 3 s begins anew, where Wireshark shows jitter of minutes. The comparison is with
// Wireshark 4.0; later ones compare a packet with the latest in time order, which makes less of reordering.
//
// # Late packets
//
// The receiver is assumed to have a jitter buffer of a fixed length (Options). A packet whose transit is longer by
// more than that than the shortest is late: discarded there, and so part of the loss in the MOS and in bursts. The
// shortest transit follows slowly when all become longer.
//
// # Bursts and gaps
//
// Those of RFC 3611, 4.7.2, with Gmin 16, counted by their definition. What is missing is taken for lost when 64
// packets have passed since; an interval's bursts are late by as much. A burst that spans the end of an interval counts
// in both.
//
// # MOS
//
// Conversational, by the E-model: ITU-T G.107 with all its default values (R 93.2, MOS 4.41 for undisturbed G.711),
// G.107.1 for wideband codecs (R up to 129, MOS by R/1.29; no echo). The loss is what was lost or late; the burst ratio
// is that of the losses seen; the one-way delay is the assumed jitter buffer, a packet's length, the codec's own delay
// and half of the round trip, once RTCP told it (RoundTrip). See impairmentOf for the codecs. A codec without published
// factors has no MOS, nor has an interval without packets. MOS of narrow and wideband are not on one scale.
//
// # Levels
//
// Of G.711 only, in blocks of 20 ms. 0 dBm0 is the digital milliwatt of ITU-T G.711; silence is below -50 dBm0; a sample
// is clipped when its code is one of the two outermost.
package media
