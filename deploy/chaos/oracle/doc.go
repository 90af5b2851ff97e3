// Package oracle judges what a gateway delivered while everything around it failed. It is given the Kafka messages, what
// the simulated switches say happened (their ledger and the truth of each call), what a gateway that nothing disturbed
// made of the same switches (the witness), and when which switch link was disturbed; it returns every way in which the
// messages break the gateway's promises:
//
//   - no received event is missing, but inside a published gap, and no gap is published without a cause;
//   - nothing is there that no switch sent;
//   - an id stands for one payload;
//   - the events of a call are in order, numbered 1, 2, 3 …, with one call.ended, one call.record, and an ended state;
//   - no writer writes after its successor has begun;
//   - a record tells the truth, unless a gap touched its call.
//
// It does no I/O and reads no clock.
package oracle
