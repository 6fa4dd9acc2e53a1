//go:build linux

package uring

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The owner sleeps without limit whenever it has nothing to do, and those who have work for it wait for its answer: one lost wake-up and
// everything stands still.
func TestNoWakeUpIsLost(t *testing.T) {
	for name, o := range map[string]Options{"in the kernel": {}, "parked": {Parked: true}} {
		t.Run(name, func(t *testing.T) { noWakeUpIsLost(t, o) })
	}
}

func noWakeUpIsLost(t *testing.T, o Options) {
	r := newRing(t, o)
	const wakers, rounds = 8, 100_000 / 8
	watchdog := time.AfterFunc(2*time.Minute, func() { panic("a wake-up was lost, or the machine is very slow") })
	defer watchdog.Stop()
	work := make(chan chan struct{}, wakers)
	var group sync.WaitGroup
	for range wakers {
		group.Go(func() {
			answer := make(chan struct{}, 1)
			for range rounds {
				work <- answer
				r.Wake()
				<-answer
			}
		})
	}
	for done := 0; done < wakers*rounds; {
		select {
		case answer := <-work:
			answer <- struct{}{}
			done++
		default:
			if err := r.Wait(-1); err != nil {
				t.Fatal(err)
			}
			if c, ok := r.Completed(); ok {
				t.Fatalf("nobody asked for %+v", c)
			}
		}
	}
	group.Wait()
	counts := r.Counts()
	require.Positive(t, counts.Waits, "the owner has slept")
	require.Zero(t, counts.Completed)
	t.Logf("%d rounds, %d sleeps", wakers*rounds, counts.Waits)
}

func TestAWakeBeforeTheWait(t *testing.T) {
	for name, o := range map[string]Options{"in the kernel": {}, "parked": {Parked: true}} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, o)
			r.Wake()
			r.Wake()
			require.NoError(t, r.Wait(-1))
			require.Zero(t, r.Counts().Waits)
		})
	}
}

// A parked owner hears of what is done, while it sleeps and before, and of the time.
func TestParkedWaitEndsWithACompletion(t *testing.T) {
	r := newRing(t, Options{Parked: true})
	a, b := socketPair(t)
	for i := range 200 {
		r.Next().Poll(a, unix.POLLIN)
		require.NoError(t, r.Submit())
		go func() {
			if i%2 == 0 {
				for r.state.Load() != asleep {
					runtime.Gosched()
				}
			}
			_, _ = unix.Write(b, []byte{1})
		}()
		for done := false; !done; {
			require.NoError(t, r.Wait(patience))
			_, done = r.Completed()
		}
		_, err := unix.Read(a, make([]byte, 1))
		require.NoError(t, err)
	}
	began := time.Now()
	for time.Since(began) < 20*time.Millisecond {
		require.NoError(t, r.Wait(20*time.Millisecond-time.Since(began)))
	}
	_, done := r.Completed()
	require.False(t, done)
	require.Less(t, r.Counts().Waits, uint64(1000))
}

// The wake-up's own READ needs a place in a queue that is full.
func TestWakeWithAFullQueue(t *testing.T) {
	r := newRing(t, Options{Entries: 4})
	a, _ := socketPair(t)
	for e := r.Next(); e != nil; e = r.Next() {
		e.Poll(a, unix.POLLIN)
	}
	require.Zero(t, r.Room())
	go r.Wake()
	require.NoError(t, r.Wait(-1))
	_, ok := r.Completed()
	require.False(t, ok)
	require.NoError(t, r.Wait(time.Millisecond))
	require.Equal(t, 4, r.Room())
}

// Whoever gets the eventfd's number next must not find a late Wake's bytes in his file.
func TestWakeAfterClose(t *testing.T) {
	r := newRing(t, Options{})
	number := r.wakeFD
	require.NoError(t, r.Close())
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if number != pipe[0] && number != pipe[1] {
		require.NoError(t, unix.Dup3(pipe[1], number, unix.O_CLOEXEC))
		defer unix.Close(number)
	}
	r.state.Store(asleep) // as a Wake sees it that began before Close
	r.Wake()
	_, err := unix.Read(pipe[0], make([]byte, 8))
	require.ErrorIs(t, err, unix.EAGAIN)
}

// To the collector a thread in a raw system call is a goroutine that runs: it stops it by a signal, again and again, and waits meanwhile.
func TestASleepingOwnerDoesNotStopTheWorld(t *testing.T) {
	// If the world stood still no timer of Go's would come: the kernel's ends the sleep.
	limit, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(limit)
	require.NoError(t, unix.TimerfdSettime(limit, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(patience))}, nil))
	for name, o := range map[string]Options{"plain": {}, "raw submit": {RawSubmit: true}, "parked": {Parked: true}} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, o)
			r.Next().Poll(limit, unix.POLLIN)
			var collected atomic.Bool
			go func() {
				for range 20 {
					for r.state.Load() != asleep {
						runtime.Gosched()
					}
					runtime.GC()
				}
				collected.Store(true)
				r.Wake()
			}()
			for !collected.Load() {
				require.NoError(t, r.Wait(-1))
				_, ok := r.Completed()
				require.False(t, ok, "the collector waits for the owner")
			}
			// One sleep, and here and there a signal that hit the thread on its way into the kernel.
			require.Less(t, r.Counts().Waits, uint64(10), "the collector has to interrupt the sleep")
		})
	}
}
