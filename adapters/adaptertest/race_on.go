//go:build race

package adaptertest

// everyCut is which of the cuts are played: the race detector makes each ten times as slow, and has seen all after a few.
const everyCut = 16
