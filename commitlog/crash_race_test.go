//go:build !crash && race

package commitlog

// The race detector makes everything some twenty times slower, and looks for something else.
const (
	crashDepth  = 3
	sampleEvery = 16
)
