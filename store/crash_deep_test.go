//go:build crash

package store

// crashSeeds is in how many ways a crash is tried at each moment.
const crashSeeds = 40
