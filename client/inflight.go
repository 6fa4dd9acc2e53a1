package client

import (
	"errors"
	"math/bits"
	"sync"

	"github.com/ringmq/ringmq/remoting"
)

// ErrBusy tells that as many requests are in flight as the table holds (Options.MaxInFlight).
var ErrBusy = errors.New("too many requests in flight on this connection")

// Done gets the answer to one request, or the reason why there is none. It runs on the connection's reader: it must not block,
// and answer is valid only until it returns.
type Done func(answer *remoting.Command, err error)

// inflight matches answers to requests. The table is allocated once; a request's opaque is its slot's number below a generation,
// so that an answer that comes after its caller gave up finds another generation and is dropped.
type inflight struct {
	mu sync.Mutex
	// slots[i].done is nil while slot i is free.
	// Invariant: i is in free if and only if slots[i].done is nil.
	slots []slot
	free  []int32
	shift int
	// closed is why no more requests are taken; nil while the connection lives.
	closed error
}

type slot struct {
	opaque int32
	done   Done
}

func (t *inflight) init(size int) {
	size = 1 << bits.Len(uint(size-1))
	t.shift = bits.TrailingZeros(uint(size))
	t.slots = make([]slot, size)
	t.free = make([]int32, size)
	for i := range t.free {
		t.slots[i].opaque = int32(i)
		t.free[i] = int32(size - 1 - i)
	}
}

// add takes a slot and returns the opaque for the request.
func (t *inflight) add(done Done) (opaque int32, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil {
		return 0, t.closed
	}
	if len(t.free) == 0 {
		return 0, ErrBusy
	}
	at := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := &t.slots[at]
	// The next generation; the sign bit stays clear, some servers print opaque as they find it.
	s.opaque = (s.opaque + 1<<t.shift) & 0x7FFFFFFF
	s.done = done
	return s.opaque, nil
}

// take frees the slot of opaque and returns who waits for it; nil when nobody does (any more).
func (t *inflight) take(opaque int32) Done {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := opaque & int32(len(t.slots)-1)
	s := &t.slots[at]
	if s.done == nil || s.opaque != opaque {
		return nil
	}
	done := s.done
	s.done = nil
	t.free = append(t.free, at)
	return done
}

// fail ends every request in flight with err and takes no more. It tells whether it was the first to do so.
func (t *inflight) fail(err error) bool {
	t.mu.Lock()
	if t.closed != nil {
		t.mu.Unlock()
		return false
	}
	t.closed = err
	var waiting []Done
	for i := range t.slots {
		if s := &t.slots[i]; s.done != nil {
			waiting = append(waiting, s.done)
			s.done = nil
			t.free = append(t.free, int32(i))
		}
	}
	t.mu.Unlock()
	for _, done := range waiting {
		done(nil, err)
	}
	return true
}

func (t *inflight) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}
