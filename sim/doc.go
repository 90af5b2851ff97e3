// Package sim is a simulated Asterisk (ARI websocket and REST, AMI) and FreeSWITCH (event socket) for demos, load and
// fault tests. Their calls are scripted contact-centre calls: the same seed gives the same calls, ids and events.
//
// How it works: scores/ holds recordings of real switches, one call script each. A recording is compiled once into a
// score: its frames with every id, name, number, time and duration turned into a placeholder. Playing a call fills the
// placeholders and stretches the waits (ring, talk, hold …) to what was drawn for that call, so that every field of
// every event is the one a real switch sends, and an event costs microseconds to make. One goroutine per switch plays
// all its calls from a heap of timed steps; each connection has a bounded buffer and one writer.
//
// It shares no code with the adapters: a bug on both sides would hide itself. Package trunk, below, is a SIP trunk.
package sim
