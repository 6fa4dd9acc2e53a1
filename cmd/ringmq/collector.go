package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much a server process lets its heap grow before Go's collector runs. With little in memory it is twice what lives, so that the collector
// runs rarely. A broker of 100,000 queues has 80 MB that live and takes nothing for a message, only a few MB a second for queue entries: there
// twice as much would be 160 MB that hold garbage, and a collection every ten seconds instead of every minute costs nothing that can be
// measured.
const (
	mostPercent  = 200
	leastPercent = 40
	spareHeap    = 32 << 20 // garbage that is let be while this is between the two
)

// tuneRuntime sets Go's collector for a server process, and never bounds it because of the mapped log.
func tuneRuntime() {
	if os.Getenv("GOGC") == "" {
		percent := mostPercent
		debug.SetGCPercent(percent)
		afterEachCollection(func() {
			if p := gcPercent(liveHeap()); p != percent {
				percent = p
				debug.SetGCPercent(p)
			}
		})
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(1 << 40)
	}
}

// gcPercent is in steps, because setting it stops the world for a moment.
func gcPercent(live uint64) int {
	const step = 10
	percent := spareHeap * 100 / max(live, 1) / step * step
	return int(max(leastPercent, min(percent, mostPercent)))
}

// liveHeap is what the latest collection found in use.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// afterEachCollection runs work, on a goroutine of the runtime's, soon after each collection: no timer wakes an idle process for it.
func afterEachCollection(work func()) {
	// Not so small that it shares its memory with what lives longer.
	sentinel := new([64]byte)
	runtime.AddCleanup(sentinel, func(work func()) {
		work()
		afterEachCollection(work)
	}, work)
}
