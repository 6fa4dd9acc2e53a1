package commitlog

import (
	"context"
	"fmt"
	"time"
)

// In the walk of one message: before this, group_commit.go advanced the flushed offset; after this, broker/send.go answers.

// Waiters are acknowledgements that wait for an offset, in log order: a ring that belongs to one reactor. One reactor's appends have
// growing offsets, so a look at the front is enough, and releasing a group is one pass on the thread that owns the connections.
// A full ring is an overload, answered at once (SYSTEM_BUSY).
type Waiters[T any] struct {
	ring        []waiter[T]
	first, size int
}

type waiter[T any] struct {
	end      int64 // released when this offset is reached
	deadline int64 // ns, the owner's monotonic clock
	value    T
}

// NewWaiters makes room for limit waiters.
func NewWaiters[T any](limit int) *Waiters[T] { return &Waiters[T]{ring: make([]waiter[T], limit)} }

// Add lets value wait until the log offset end is reached. It returns false when the ring is full.
func (w *Waiters[T]) Add(end, deadline int64, value T) bool {
	if w.size == len(w.ring) {
		return false
	}
	w.ring[(w.first+w.size)%len(w.ring)] = waiter[T]{end, deadline, value}
	w.size++
	return true
}

// Len is how many wait.
func (w *Waiters[T]) Len() int { return w.size }

// Full tells that Add would refuse.
func (w *Waiters[T]) Full() bool { return w.size == len(w.ring) }

// Next takes the first waiter out if reached is at or past its offset, or now past its deadline; timedOut tells which.
func (w *Waiters[T]) Next(reached, now int64) (value T, timedOut, ok bool) {
	if w.size == 0 {
		return value, false, false
	}
	front := &w.ring[w.first]
	if front.end > reached && front.deadline > now {
		return value, false, false
	}
	value, timedOut = front.value, front.end > reached
	*front = waiter[T]{}
	w.first = (w.first + 1) % len(w.ring)
	w.size--
	return value, timedOut, true
}

// WaitFlushed waits until everything before the log offset end is on the device. For goroutines of the control plane; reactors hold
// Waiters. The error is a *FailedError, ErrClosed or ctx's.
func (l *Log) WaitFlushed(ctx context.Context, end int64) error {
	for {
		l.listMu.Lock()
		if l.moved == nil {
			l.moved = make(chan struct{})
		}
		moved := l.moved
		l.listMu.Unlock()
		if l.flushed.Load() >= end {
			return nil
		}
		if err := l.refusal(); err != nil {
			return err
		}
		l.RequestFlush()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) announceFlushed() {
	l.listMu.Lock()
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
	l.listMu.Unlock()
	l.opt.OnFlushed()
}

func errLostSegment(off int64) error {
	return fmt.Errorf("BUG: no segment holds the log offset %d that is to be flushed", off)
}

// Flush makes everything published so far durable and waits for it, d at most.
func (l *Log) Flush(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return l.WaitFlushed(ctx, l.published.Load())
}
