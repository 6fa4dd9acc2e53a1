//go:build !crash && race

package store

// The race detector makes everything some twenty times slower, and looks for something else.
const crashSeeds = 1
