//go:build crash

package commitlog

const (
	crashDepth  = 256
	sampleEvery = 1
)
