//go:build !race

package adaptertest

// everyCut is which of the cuts are played: all.
const everyCut = 1
