package ioengine

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// The measurements behind docs/performance.md, "Cold reads and zeroing". Ways take turns in each round, to and fro, and a figure is the
// median of the rounds with its lowest and highest: `go test -run '^$' -bench 'Zero|ColdRead' ./ioengine`, on the disk of TMPDIR.

const benchRounds = 9

// way is one candidate; run gives its figures in the order of the columns.
type way struct {
	name string
	run  func(b *testing.B) []float64
}

// compare runs the ways in turns and prints a table.
func compare(b *testing.B, columns []string, ways []way) {
	figures := make([][][]float64, len(ways)) // way, column, round
	for round := range benchRounds {
		for n := range ways {
			if round%2 == 1 {
				n = len(ways) - 1 - n
			}
			for column, value := range ways[n].run(b) {
				if round == 0 {
					figures[n] = append(figures[n], nil)
				}
				figures[n][column] = append(figures[n][column], value)
			}
		}
	}
	fmt.Printf("| %d rounds, median (lowest–highest) |", benchRounds)
	for _, c := range columns {
		fmt.Printf(" %s |", c)
	}
	fmt.Println()
	for n, w := range ways {
		fmt.Printf("| %s |", w.name)
		for _, values := range figures[n] {
			slices.Sort(values)
			fmt.Printf(" %s (%s–%s) |", short(values[len(values)/2]), short(values[0]), short(values[len(values)-1]))
		}
		fmt.Println()
	}
}

func short(v float64) string {
	if v == 0 || v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.*f", max(0, 1-int(math.Floor(math.Log10(v)))), v)
}

// clocked is how long do took, and the processor time of the process meanwhile, in seconds.
func clocked(do func()) (took, cpu float64) {
	before, _ := ProcessCPU()
	began := time.Now()
	do()
	took = time.Since(began).Seconds()
	after, _ := ProcessCPU()
	return took, (after - before).Seconds()
}

// millisAt is a percentile of durations that are sorted.
func millisAt(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Microseconds()) / 1e3
}

// The keeper zeroes in such steps.
const (
	zeroBenchBytes = 128 << 20
	zeroBenchStep  = 8 << 20
)

// BenchmarkZero writes the zeroes of a part of a preallocated segment in several ways, in the keeper's steps of 8 MiB, as fast as it goes, and then
// one every 40 ms beside a loop of synchronous 4 KiB writes.
func BenchmarkZero(b *testing.B) {
	arena, err := uring.NewArena(32 << 20)
	require.NoError(b, err)
	arena.Populate()
	defer arena.Free()
	commits := openDirect(b, filepath.Join(b.TempDir(), "commits"), unix.O_DSYNC)
	for at := int64(0); at < 16<<20; at += 1 << 20 {
		_, err := commits.WriteAt(arena.Bytes[:1<<20], at)
		require.NoError(b, err)
	}
	ways := []way{{"nothing", nil}}
	add := func(name string, zero func(f *os.File, from, to int64) error) {
		ways = append(ways, way{name: name, run: func(b *testing.B) []float64 {
			f := preallocated(b)
			took, cpu := clocked(func() {
				for at := int64(0); at < zeroBenchBytes; at += zeroBenchStep {
					require.NoError(b, zero(f, at, at+zeroBenchStep))
				}
			})
			beside := commitBeside(b, commits, arena.Bytes[:4096], func() {
				f := preallocated(b)
				steps := time.NewTicker(40 * time.Millisecond)
				defer steps.Stop()
				for at := int64(0); at < zeroBenchBytes; at += zeroBenchStep {
					<-steps.C
					require.NoError(b, zero(f, at, at+zeroBenchStep))
				}
			})
			return append([]float64{zeroBenchBytes / 1e6 / took, cpu / zeroBenchBytes * (1 << 30)}, beside...)
		}})
	}
	ways[0].run = func(b *testing.B) []float64 {
		beside := commitBeside(b, commits, arena.Bytes[:4096], func() { <-time.After(zeroBenchBytes / zeroBenchStep * 40 * time.Millisecond) })
		return append([]float64{0, 0}, beside...)
	}
	add("pwrite O_DIRECT 1 MiB", func(f *os.File, from, to int64) error {
		for ; from < to; from += 1 << 20 {
			if _, err := f.WriteAt(arena.Bytes[:1<<20], from); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct{ depth, size int }{{1, 1 << 20}, {4, 1 << 20}, {8, 1 << 20}, {32, 256 << 10}} {
		add(fmt.Sprintf("ring O_DIRECT %d KiB × %d", c.size>>10, c.depth), func(f *os.File, from, to int64) error {
			return ringZeroes(f, arena.Bytes[:c.size], from, to, c.depth)
		})
	}
	add("FALLOC_FL_ZERO_RANGE", func(f *os.File, from, to int64) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, from, to-from)
	})
	compare(b, []string{"MB/s", "CPU s/GiB", "commits beside it /s", "p50 ms", "p99 ms", "max ms"}, ways)
}

// BenchmarkZeroed is what synchronous writes of 4 KiB cost in what was only allocated, and in what was zeroed.
func BenchmarkZeroed(b *testing.B) {
	arena, err := uring.NewArena(1 << 20)
	require.NoError(b, err)
	defer arena.Free()
	write := func(zeroed bool) func(b *testing.B) []float64 {
		return func(b *testing.B) []float64 {
			f := openDirect(b, filepath.Join(b.TempDir(), "first"), unix.O_DSYNC)
			require.NoError(b, unix.Fallocate(int(f.Fd()), 0, 0, 4<<20))
			for at := int64(0); zeroed && at < 4<<20; at += 1 << 20 {
				_, err := f.WriteAt(arena.Bytes, at)
				require.NoError(b, err)
			}
			require.NoError(b, f.Sync())
			var took []time.Duration
			for at := int64(0); at < 2<<20; at += 4096 {
				began := time.Now()
				_, err := f.WriteAt(arena.Bytes[:4096], at)
				require.NoError(b, err)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			return []float64{millisAt(took, 0.5), millisAt(took, 0.99)}
		}
	}
	compare(b, []string{"p50 ms", "p99 ms"}, []way{{"fallocate only (unwritten extents)", write(false)}, {"zeroes written", write(true)}})
}

func openDirect(b *testing.B, name string, flags int) *os.File {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_DIRECT|flags, 0o600)
	require.NoError(b, err)
	b.Cleanup(func() { f.Close() })
	return f
}

func preallocated(b *testing.B) *os.File {
	f := openDirect(b, filepath.Join(b.TempDir(), "segment"), 0)
	require.NoError(b, unix.Ftruncate(int(f.Fd()), 0))
	require.NoError(b, unix.Fallocate(int(f.Fd()), 0, 0, zeroBenchBytes))
	require.NoError(b, f.Sync())
	return f
}

// commitBeside writes one block after the other, each on the device before the next, while do runs.
func commitBeside(b *testing.B, f *os.File, block []byte, do func()) []float64 {
	var took []time.Duration
	var stop atomic.Bool
	done := make(chan error)
	began := time.Now()
	go func() {
		for at := int64(0); !stop.Load(); at = (at + int64(len(block))) % (16 << 20) {
			start := time.Now()
			if _, err := f.WriteAt(block, at); err != nil {
				done <- err
				return
			}
			took = append(took, time.Since(start))
		}
		done <- nil
	}()
	do()
	stop.Store(true)
	require.NoError(b, <-done)
	rate := float64(len(took)) / time.Since(began).Seconds()
	slices.Sort(took)
	return []float64{rate, millisAt(took, 0.5), millisAt(took, 0.99), millisAt(took, 1)}
}

// ringZeroes has depth writes of one block of zeroes in flight.
func ringZeroes(f *os.File, zeroes []byte, from, to int64, depth int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := uring.New(uring.Options{Entries: depth})
	if err != nil {
		return err
	}
	defer ring.Close()
	for flying := 0; from < to || flying > 0; {
		for ; from < to && flying < depth; flying++ {
			e := ring.Next()
			e.Write(int(f.Fd()), zeroes, from)
			from += int64(len(zeroes))
		}
		if err := ring.Wait(-1); err != nil {
			return err
		}
		for c, ok := ring.Completed(); ok; c, ok = ring.Completed() {
			flying--
			if int(c.Result) != len(zeroes) {
				return fmt.Errorf("wrote %d of %d bytes: %w", c.Result, len(zeroes), c.Err())
			}
		}
	}
	return nil
}
