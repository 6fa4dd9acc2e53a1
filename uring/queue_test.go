//go:build linux

package uring

import (
	"errors"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCompletionsBeyondTheQueueAreKept(t *testing.T) {
	r := newRing(t, Options{Entries: 8, Completions: 8})
	const rounds = 100
	for i := range rounds {
		for j := range 8 {
			e := r.Next()
			e.Nop()
			e.SetData(uint64(i*8 + j))
		}
		err := r.Submit()
		if errors.Is(err, unix.EBUSY) { // linux before 5.19, which wants completions taken first
			t.Skip(err)
		}
		require.NoError(t, err)
	}
	require.LessOrEqual(t, r.Ready(), 8)
	seen := make([]bool, rounds*8)
	for range seen {
		c := next(t, r)
		require.NoError(t, c.Err())
		require.False(t, seen[c.Data])
		seen[c.Data] = true
	}
	require.NoError(t, r.Wait(time.Millisecond))
	_, ok := r.Completed()
	require.False(t, ok)
	counts := r.Counts()
	require.EqualValues(t, rounds*8, counts.Completed)
	require.GreaterOrEqual(t, counts.Submitted, counts.Completed)
}

// The indexes grow on past the queues' lengths, and every place is used again and again.
func TestPlacesAreUsedAgain(t *testing.T) {
	r := newRing(t, Options{Entries: 4})
	for i := range uint64(100_000) {
		e := r.Next()
		e.Nop()
		e.SetData(i)
		if i%3 == 0 {
			if err := r.Submit(); err != nil {
				t.Fatal(err)
			}
		}
		for {
			c, ok := r.Completed()
			if ok && c.Data == i {
				break
			}
			if ok {
				t.Fatalf("%d: %+v", i, c)
			}
			if err := r.Wait(patience); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWaitDoesNotWaitForWhatIsThere(t *testing.T) {
	r := newRing(t, Options{})
	r.Next().Nop()
	r.Next().Nop()
	require.NoError(t, r.Submit())
	require.Equal(t, 2, r.Ready())
	before := r.Counts()
	require.NoError(t, r.Wait(-1))
	require.Equal(t, before, r.Counts(), "nothing prepared, something ready: no call at all")
	r.Next().Nop()
	require.NoError(t, r.Wait(-1))
	after := r.Counts()
	require.Equal(t, before.Waits, after.Waits)
	require.Equal(t, before.Enters+1, after.Enters, "one call, which submits")
	for range 3 {
		require.NoError(t, next(t, r).Err())
	}
	require.NoError(t, r.Wait(0))
	require.Equal(t, before.Waits, r.Counts().Waits, "no time to wait")
}

// One bad entry fails alone. The kernel stops at it without SUBMIT_ALL, and what lies behind it must go all the same.
func TestABadEntryDoesNotHoldUpTheOthers(t *testing.T) {
	r := newRing(t, Options{})
	for i := range 6 {
		e := r.Next()
		if e.Nop(); i%2 == 0 {
			e.sqe.PrepOperation(250, -1, 0, 0, 0) // no such operation
		}
		e.SetData(uint64(i))
	}
	require.NoError(t, r.Submit())
	require.Zero(t, r.Prepared())
	for range 6 {
		c := next(t, r)
		if c.Data%2 == 0 {
			require.ErrorIs(t, c.Err(), unix.EINVAL)
		} else {
			require.NoError(t, c.Err())
		}
	}
	require.EqualValues(t, 6, r.Counts().Submitted)
}

func TestEntriesAreCleared(t *testing.T) {
	r := newRing(t, Options{Entries: 1})
	fd := newFile(t, 0)
	e := r.Next()
	e.Write(fd, []byte("x"), 0)
	e.DSync()
	e.Async()
	e.SetData(9)
	require.EqualValues(t, 1, next(t, r).Result)
	e = r.Next()
	require.Equal(t, Entry{}, *e)
	e.Nop()
	require.Zero(t, next(t, r).Data)
}

func TestSizes(t *testing.T) {
	for _, s := range []struct{ entries, completions, wantEntries, wantCompletions int }{
		{0, 0, 64, 128}, {-3, -3, 64, 128}, {1, 0, 1, 2}, {5, 0, 8, 16}, {8, 2, 8, 8}, {8, 100, 8, 128}, {math.MaxInt, 0, 1 << 15, 1 << 16}, {2, math.MaxInt, 2, 1 << 16},
	} {
		r := newRing(t, Options{Entries: s.entries, Completions: s.completions})
		require.Equal(t, s.wantEntries, r.Room(), "%+v", s)
		require.Len(t, r.completions, s.wantCompletions, "%+v", s)
		require.NoError(t, r.Close())
	}
}

func TestAClosedRing(t *testing.T) {
	r := newRing(t, Options{})
	r.Next().Nop()
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.Nil(t, r.Next())
	require.Zero(t, r.Room()+r.Prepared()+r.Ready())
	_, ok := r.Completed()
	require.False(t, ok)
	_, err := r.NewBufferRing(1, 2, 64)
	for _, err := range []error{r.Submit(), r.Wait(0), r.Wait(time.Second), r.Wait(-1), r.Enable(), r.RegisterFiles(1), r.SetFile(0, 0),
		r.RegisterBuffers(make([]byte, 1)), r.UnregisterBuffers(), err} {
		require.ErrorIs(t, err, ErrClosed)
	}
	r.Wake()
}

// Made here, enabled and used on another thread, which is the owner from then on.
func TestEnableOnAnotherThread(t *testing.T) {
	r := newRing(t, Options{Disabled: true})
	require.ErrorIs(t, r.Submit(), unix.EBADFD)
	require.ErrorIs(t, r.Wait(-1), errNotEnabled)
	a := newArena(t, 4096)
	require.NoError(t, r.RegisterBuffers(a.Bytes), "what is registered may be so before")
	require.NoError(t, r.RegisterFiles(4))

	enabled, stop, stopped := make(chan error), make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := r.Enable()
		r.Next().Nop()
		enabled <- errors.Join(err, r.Wait(-1))
		<-stop
		c, ok := r.Completed()
		if !ok {
			err = errors.New("the completion is lost")
		}
		stopped <- errors.Join(err, c.Err(), r.Close())
	}()
	require.NoError(t, <-enabled)
	if r.Deferred() {
		// Against the rule, to see that it is told.
		_, errno := r.call(0, 0, 0)
		require.ErrorIs(t, errno, unix.EEXIST)
		err := r.enter(0, 0, 0)
		require.ErrorIs(t, err, unix.EEXIST)
		require.ErrorContains(t, err, "belongs to another thread")
		require.ErrorContains(t, r.UnregisterBuffers(), "belongs to another thread")
	}
	close(stop)
	require.NoError(t, <-stopped)
}
