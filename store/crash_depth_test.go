//go:build !crash && !race

package store

// crashSeeds is in how many ways a crash is tried at each moment; make crash tries more.
const crashSeeds = 4
