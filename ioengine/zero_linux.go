package ioengine

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// Zeroes that go past the page cache are written by a ring, a whole step of the commit log's keeper at once: that took a tenth less time than
// one write after the other on a quiet disk and half of it on a busy one, and a quarter less processor time, the making of the ring included
// (docs/performance.md, "Cold reads and zeroing"). Where there is no io_uring, one write follows the other.

const (
	// directZeroes is how much is written by one operation.
	directZeroes = 1 << 20
	// zeroesInFlight are a step of the commit log's keeper: more have nothing to write.
	zeroesInFlight = 8
)

// zeroSource are the zeroes of all writes, aligned as O_DIRECT wants them.
var zeroSource = sync.OnceValues(func() (*uring.Arena, error) { return uring.NewArena(directZeroes) })

// zeroDirect writes zeroes past the page cache; from and to are multiples of TailBlock.
func zeroDirect(name string, from, to int64) error {
	zeroes, err := zeroSource()
	if err != nil {
		return fail("zero", name, err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fail("open for direct writes", name, err)
	}
	z := zeroing{file: f, zeroes: zeroes.Bytes, at: from, to: to}
	if err = z.byRing(); errors.Is(err, uring.ErrUnsupported) {
		err = z.rest()
	}
	return fail("zero", name, errors.Join(err, f.Close()))
}

// zeroing is one call of zeroDirect.
type zeroing struct {
	file   *os.File
	zeroes []byte
	// Invariant: what lies before at is written, or in flight.
	at, to int64
}

// rest writes what is left, one piece after the other.
func (z *zeroing) rest() error {
	for z.at < z.to {
		if err := z.write(z.take()); err != nil {
			return err
		}
	}
	return nil
}

func (z *zeroing) write(from, to int64) error {
	_, err := z.file.WriteAt(z.zeroes[:to-from], from)
	return err
}

// take gives out the next piece.
func (z *zeroing) take() (from, to int64) {
	from = z.at
	z.at = min(z.to, from+directZeroes)
	return from, z.at
}

// byRing makes a ring for this one call, so that no thread has to be kept for it.
func (z *zeroing) byRing() error {
	if z.to-z.at <= directZeroes {
		return z.rest()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := uring.New(uring.Options{Entries: zeroesInFlight})
	if err != nil {
		return err
	}
	err = z.turn(ring)
	return errors.Join(err, ring.Close())
}

// turn returns when nothing is in flight any more, unless the ring itself fails; then the kernel goes on reading zeroes, which stay.
func (z *zeroing) turn(ring *uring.Ring) error {
	var failed error
	for flying := 0; ; {
		for ; flying < zeroesInFlight && z.at < z.to && failed == nil; flying++ {
			from, to := z.take()
			e := ring.Next()
			e.Write(int(z.file.Fd()), z.zeroes[:to-from], from)
			e.SetData(uint64(from))
		}
		if flying == 0 {
			return failed
		}
		if err := ring.Wait(-1); err != nil && err != unix.EBUSY && err != unix.EAGAIN {
			return err
		}
		for c, ok := ring.Completed(); ok; c, ok = ring.Completed() {
			flying--
			from := int64(c.Data)
			to := min(z.to, from+directZeroes)
			// A plain write of the same place does the rest of a short one, and tells why one failed.
			if int64(c.Result) != to-from && failed == nil {
				failed = z.write(from, to)
			}
		}
	}
}
