package main

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeapGrowsLessWhenItIsLarge(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 200}, {8 << 20, 200}, {16 << 20, 200}, {32 << 20, 100}, {60 << 20, 50}, {100 << 20, 40}, {1 << 40, 40}} {
		require.Equal(t, c.want, gcPercent(c.live), "%d bytes live", c.live)
	}
}

func TestEachCollectionIsSeen(t *testing.T) {
	seen := make(chan uint64, 1)
	afterEachCollection(func() {
		select {
		case seen <- liveHeap():
		default:
		}
	})
	for range 3 {
		for live := uint64(0); live == 0; {
			runtime.GC()
			select {
			case live = <-seen:
			default: // the one before is still at work
			}
		}
	}
}
