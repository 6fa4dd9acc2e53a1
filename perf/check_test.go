package perf

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBitsetAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var a, b bitset
	inA, inB := map[uint64]bool{}, map[uint64]bool{}
	for range 5000 {
		n := random.Uint64N(200_000)
		again, ok := a.set(n)
		require.True(t, ok)
		require.Equal(t, inA[n], again)
		inA[n] = true
		m := random.Uint64N(200_000)
		_, _ = b.set(m)
		inB[m] = true
	}
	var both, missing int64
	var end uint64
	for n := range inA {
		require.True(t, a.has(n))
		end = max(end, n+1)
		if inB[n] {
			both++
		} else {
			missing++
		}
	}
	require.Equal(t, int64(len(inA)), a.count)
	require.Equal(t, end, a.end())
	require.Equal(t, missing, a.missing(&b))
	require.Equal(t, both, b.merge(&a))
	require.Zero(t, a.missing(&b))
	require.Equal(t, int64(len(inA)+len(inB))-both, b.count)
	_, ok := a.set(1 << 60)
	require.False(t, ok, "a number from the wire does not make us allocate without bound")
	require.Zero(t, new(bitset).end())
}

func TestRuns(t *testing.T) {
	var b bitset
	for _, n := range []uint64{0, 1, 2, 5, 9, 10} {
		_, _ = b.set(n)
	}
	require.Equal(t, []uint64{0, 3, 5, 6, 9, 11}, b.runs())
	l := ledgerLane{Runs: b.runs()}
	require.Zero(t, b.missing(l.acked()))
	require.Zero(t, l.acked().missing(&b))
}

// The rule of order: a message may not stand behind one that was sent after its answer. Each case lists (sequence, settled) in the
// order of the queue.
func TestOrderRule(t *testing.T) {
	for name, tc := range map[string]struct {
		messages [][2]uint64
		want     findings
	}{
		"in order":                         {[][2]uint64{{0, 0}, {1, 1}, {2, 2}}, findings{}},
		"two in flight, overtaken":         {[][2]uint64{{1, 0}, {0, 0}, {2, 2}}, findings{Overtaken: 1}},
		"sent after the other's answer":    {[][2]uint64{{1, 1}, {0, 0}}, findings{Reordered: 1}},
		"settled is remembered":            {[][2]uint64{{5, 3}, {4, 0}, {2, 0}}, findings{Overtaken: 1, Reordered: 1}},
		"twice":                            {[][2]uint64{{0, 0}, {1, 1}, {0, 0}}, findings{Duplicated: 1}},
		"twice in a row":                   {[][2]uint64{{0, 0}, {0, 0}}, findings{Duplicated: 1}},
		"a sequence beyond any run":        {[][2]uint64{{1 << 50, 0}}, findings{Corrupt: 1}},
		"a hole is no matter of the order": {[][2]uint64{{0, 0}, {7, 3}, {8, 3}}, findings{}},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueueCheck(&queue{topic: "T"}, 0)
			for i, m := range tc.messages {
				q.sequence(int64(i), &stamp{generator: 1, stream: 1, sequence: m[0], settled: m[1]})
			}
			require.Equal(t, tc.want, q.found)
		})
	}
}

func TestOffsetsMustBeContiguous(t *testing.T) {
	q := newQueueCheck(&queue{topic: "T"}, 10)
	for _, o := range []int64{10, 11, 14, 15, 12, 16} {
		q.offset(o)
	}
	require.Equal(t, findings{OffsetGaps: 2, OffsetBack: 1}, q.found)
	require.Equal(t, int64(17), q.expect)
	free := newQueueCheck(&queue{}, -1)
	free.offset(99)
	free.offset(100)
	require.Zero(t, free.found)
}

func TestHoles(t *testing.T) {
	q := newQueueCheck(&queue{topic: "T"}, 0)
	for i, n := range []uint64{2, 3, 6} {
		q.sequence(int64(i), &stamp{sequence: n})
	}
	require.Equal(t, int64(4), q.holes(true), "0, 1, 4, 5")
	require.Equal(t, int64(2), q.holes(false), "4, 5")
}
