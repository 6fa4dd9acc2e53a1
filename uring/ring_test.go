//go:build linux

package uring

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newRing makes a ring on a locked thread, or skips where io_uring is refused.
func newRing(t testing.TB, o Options) *Ring {
	t.Helper()
	runtime.LockOSThread()
	r, err := New(o)
	if errors.Is(err, ErrUnsupported) && !errors.Is(err, unix.EINVAL) { // that would be our own parameters
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		r.Close()
		runtime.UnlockOSThread()
	})
	return r
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func next(t testing.TB, r *Ring) Completion {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < patience; {
		if c, ok := r.Completed(); ok {
			return c
		}
		require.NoError(t, r.Wait(patience))
	}
	t.Fatal("no completion")
	return Completion{}
}

func TestNopsComeBackWithTheirData(t *testing.T) {
	r := newRing(t, Options{Entries: 8})
	for i := range 8 {
		e := r.Next()
		e.Nop()
		e.SetData(uint64(i))
	}
	require.Nil(t, r.Next(), "a full queue has no next entry")
	require.Equal(t, 8, r.Prepared())
	require.NoError(t, r.Submit())
	seen := map[uint64]bool{}
	for range 8 {
		c := next(t, r)
		require.NoError(t, c.Err())
		seen[c.Data] = true
	}
	require.Len(t, seen, 8)
	require.Equal(t, 8, r.Room())
}

func TestWaitEndsByTimeAndByWake(t *testing.T) {
	r := newRing(t, Options{})
	begun := time.Now()
	require.NoError(t, r.Wait(5*time.Millisecond))
	require.GreaterOrEqual(t, time.Since(begun), 4*time.Millisecond)
	for range 100 {
		done := make(chan struct{})
		go func() { r.Wake(); close(done) }()
		require.NoError(t, r.Wait(-1)) // would hang for ever if the wake were lost
		<-done
		_, ok := r.Completed()
		require.False(t, ok, "the ring's own wake-up is not shown")
	}
}

func TestWriteSyncAndReadAFile(t *testing.T) {
	r := newRing(t, Options{})
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	defer f.Close()
	a, err := NewArena(8192)
	require.NoError(t, err)
	defer a.Free()
	require.NoError(t, r.RegisterBuffers(a.Bytes))
	require.NoError(t, r.RegisterFiles(2))
	require.NoError(t, r.SetFile(1, int(f.Fd())))
	copy(a.Bytes, "hello")
	e := r.Next()
	e.WriteFixed(0, a.Bytes[:5], 3, 0)
	e.FixedFile(1)
	e.DSync()
	require.EqualValues(t, 5, next(t, r).Result)
	r.Next().Fdatasync(int(f.Fd()))
	require.NoError(t, next(t, r).Err())
	r.Next().Read(int(f.Fd()), a.Bytes[4096:], 0)
	require.EqualValues(t, 8, next(t, r).Result)
	require.Equal(t, "\x00\x00\x00hello", string(a.Bytes[4096:4104]))
	r.Next().Read(-1, a.Bytes, 0)
	require.ErrorIs(t, next(t, r).Err(), unix.EBADF)
}

func TestNothingIsAllocated(t *testing.T) {
	r := newRing(t, Options{Entries: 64})
	n := testing.AllocsPerRun(100, func() {
		for range 64 {
			r.Next().Nop()
		}
		if err := r.Wait(time.Second); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < 64; {
			if _, ok := r.Completed(); ok {
				got++
			} else if err := r.Wait(time.Second); err != nil {
				t.Fatal(err)
			}
		}
	})
	require.Zero(t, n)
}

func BenchmarkNop(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(map[int]string{1: "one", 64: "batch-64"}[batch], func(b *testing.B) {
			r := newRing(b, Options{Entries: 64})
			b.ReportAllocs()
			for i := 0; i < b.N; i += batch {
				for range batch {
					r.Next().Nop()
				}
				for got := 0; got < batch; {
					if _, ok := r.Completed(); ok {
						got++
					} else if err := r.Wait(time.Second); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
