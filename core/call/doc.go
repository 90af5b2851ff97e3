// Package call is the canonical call model: its types, its states and their transitions, its ids, and the Tracker
// that turns what adapters observe on legs into events and records. One vocabulary for every switch.
//
// It is pure: no I/O, no clock, no goroutine. Time comes in as data, and the same observations in the same order
// give the same events, byte for byte, on every run and on every node.
package call
