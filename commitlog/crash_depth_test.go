//go:build !crash && !race

package commitlog

// crashDepth is in how many ways a crash is tried at each moment; make crash tries more. sampleEvery: damage is tried at each place, or at
// every so many.
const (
	crashDepth  = 16
	sampleEvery = 1
)
