package store

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// Whatever comes and goes, Get answers what the table of topics holds, and a table that has seen many names does not grow for it.
func TestLookupFollowsTheTopics(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		topic := fmt.Sprintf("T%d", rng.IntN(40))
		if rng.IntN(8) == 0 {
			require.NoError(t, table.Delete(topic))
		} else {
			mustQueue(t, table, topic, int32(rng.IntN(6)))
		}
		if round%100 != 0 {
			continue
		}
		there := 0
		for n := range 40 {
			topic := fmt.Sprintf("T%d", n)
			for id := range int32(7) {
				want := findQueue(table.Queues([]byte(topic)), id)
				require.Same(t, want, table.Get([]byte(topic), id))
				if want != nil {
					there++
				}
			}
		}
		require.LessOrEqual(t, len(*table.lookup.table.Load()), 1024, "%d queues", there)
	}
	require.Nil(t, table.Get(nil, 0))
}

// A queue that stays is found at every moment, while the table is made anew around it.
func TestLookupWhileOthersComeAndGo(t *testing.T) {
	table := openTable(t, faultfs.New(), "/s")
	var stay []*ConsumeQueue
	for id := range int32(16) {
		stay = append(stay, mustQueue(t, table, "stays", id))
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				for id, q := range stay {
					if got := table.Get([]byte("stays"), int32(id)); got != q {
						t.Errorf("queue %d is %p, not %p", id, got, q)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for n := range 300 {
		topic := fmt.Sprintf("T%d", n)
		for id := range int32(8) {
			mustQueue(t, table, topic, id)
		}
		if n%3 > 0 {
			require.NoError(t, table.Delete(topic))
		}
	}
	close(done)
	wg.Wait()
}

func BenchmarkQueueGet100kQueues(b *testing.B) {
	table := openTable(b, faultfs.New(), "/s")
	topics := make([][]byte, 12_500)
	for i := range topics {
		topics[i] = fmt.Appendf(nil, "topic-%06d", i)
		for id := range int32(8) {
			mustQueue(b, table, string(topics[i]), id)
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += 3989
		if table.Get(topics[n%len(topics)], int32(n&7)) == nil {
			b.Fatal()
		}
	}
}
