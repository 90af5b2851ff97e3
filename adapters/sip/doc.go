// Package sip reads calls and their audio quality from the wire: from captured packets, from HEP agents, from SIPREC
// recording clients, and from RFC 4235 dialog events. It is an adapter like the others and says what happened to legs.
//
//	capture ─┐
//	         ├─ wire.Packet ── engine: dialogs, correlation, media ──┐
//	hep ─────┘                                                      ├── core.Frame ── router
//	siprec, dialoginfo ────────────── observations ─────────────────┘
//
// A dialog (RFC 3261, 12) is one leg of the switch at one of its ends, or two legs where neither end is a switch. Which
// ends are switches is configured, or learned: from what they call themselves, and from dialogs that go in and come out.
package sip
