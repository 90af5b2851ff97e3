// Package cluster decides which node owns which unit of switch links, by a Kafka consumer group and nothing else.
//
// A unit is a set of switches that one node at a time runs through to the sinks; it is one partition of an assignment
// topic that carries no records. Every node is a Member of one group. A member that is assigned a unit owns it; it may
// publish for it only while its lease runs: until Lease after it sent the last heartbeat that the group's coordinator
// answered well, by its own monotonic clock. Whoever takes over from an owner that did not let go by itself waits until
// that lease must be over (Takeover.NotBefore). Owners are written down with the group's offsets, fenced by the group's
// generation, so that this holds through restarts of everything.
//
// Link tells nodes of each other's death within a fraction of a second; it decides nothing.
package cluster
