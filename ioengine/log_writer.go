package ioengine

import (
	"errors"
	"fmt"
	"time"
)

// EngineKind says how the bytes of a log reach its segments (ioEngine).
type EngineKind int

const (
	// EngineMmap stores into the mapped segment; write-back and fdatasync do the rest.
	EngineMmap EngineKind = iota
	// EnginePwrite stores into a Tail and writes groups from there with pwrite, through the page cache.
	EnginePwrite
	// EngineDirect is EnginePwrite past the page cache: O_DIRECT, and O_DSYNC for group commits.
	EngineDirect
	// EngineUring is EngineDirect with several writes in flight in an io_uring.
	EngineUring
)

var engineNames = [...]string{"mmap", "pwrite", "direct", "uring"}

func (k EngineKind) String() string { return engineNames[k] }

// ParseEngine reads a name that String gives.
func ParseEngine(name string) (EngineKind, error) {
	for k, n := range engineNames {
		if n == name {
			return EngineKind(k), nil
		}
	}
	return 0, fmt.Errorf("log engine %q: it is one of %v", name, engineNames)
}

// ErrEngineRefused is wrapped by EngineWorks when the system lacks or refuses what an engine needs.
var ErrEngineRefused = errors.New("log engine is refused")

// LogWriter writes parts of a log to its segments. All methods but Wake belong to the goroutine that made it.
type LogWriter interface {
	// Block is what ranges are multiples of, their ends apart that are the ends of segments. A block may be in one write at a time.
	Block() int64
	// Depth is how many operations may be in flight.
	Depth() int
	// Write starts to make data what [off, off+len(data)) of the segment's file holds. data is the kernel's until the operation is done.
	// durable: done means on the device, like everything that a Sync would cover of these bytes.
	Write(s Segment, off int64, data []byte, durable bool, ticket uint64) error
	// Sync starts to make durable what is written. Writes in flight are not part of it.
	Sync(s Segment, ticket uint64) error
	// Next waits for an operation to be done, until d has passed (0: not at all; below 0: no limit) or Wake is called; false: none was.
	Next(d time.Duration) (Done, bool)
	// Wake ends the wait that runs, or the next one. Any goroutine.
	Wake()
	// Close ends the writer; nothing is in flight any more.
	Close() error
}

// SharedWriter is a LogWriter that has no goroutine of its own: whoever holds the lock of its pipeline uses it. Next never waits, and nobody
// is to be woken.
type SharedWriter interface {
	LogWriter
	// FD is to be watched for being readable (EPOLLIN, edge-triggered) by the thread that starts operations: then one is done.
	FD() int
	// Await does that for a thread that has nothing else to wait for, for d at most; it may return early.
	Await(d time.Duration) error
	// Ready tells, from any thread at any time before Close, that Next has something.
	Ready() bool
}

// Done is an operation that ended.
type Done struct {
	Ticket uint64
	Err    error
}

// NewLogWriter makes the writer of an engine with a Tail. For EngineUring the caller has locked its goroutine to a thread; where the kernel
// refuses io_uring the error wraps uring.ErrUnsupported.
func NewLogWriter(kind EngineKind, depth int) (LogWriter, error) {
	switch kind {
	case EngineUring:
		return newRingWriter(depth, false)
	case EngineDirect:
		return newDirectWriter(), nil
	default:
		return newPlainWriter(), nil
	}
}

// NewSharedWriter makes a writer of EngineUring for whoever has the lock of its pipeline. Where the kernel refuses io_uring the error wraps
// uring.ErrUnsupported.
func NewSharedWriter(depth int) (SharedWriter, error) { return newRingWriter(depth, true) }

// plainWriter does one operation after the other, with the segment's own calls, in Write and Sync themselves.
type plainWriter struct {
	done []Done
	// failed is the first error: nothing is tried after it.
	failed error
	wake   chan struct{}
	// timer is for Next; made once.
	timer *time.Timer
}

func newPlainWriter() *plainWriter {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &plainWriter{wake: make(chan struct{}, 1), timer: t}
}

func (w *plainWriter) Block() int64 { return 1 }

func (w *plainWriter) Depth() int { return 1 }

func (w *plainWriter) Write(s Segment, off int64, data []byte, durable bool, ticket uint64) error {
	if w.failed == nil {
		_, w.failed = s.WriteAt(data, off)
	}
	if to := off + int64(len(data)); w.failed == nil && durable {
		w.failed = s.SyncRange(off, to)
	} else if w.failed == nil {
		w.failed = s.WriteBack(off, to)
	}
	w.done = append(w.done, Done{ticket, w.failed})
	return nil
}

func (w *plainWriter) Sync(s Segment, ticket uint64) error {
	if w.failed != nil {
		w.done = append(w.done, Done{ticket, w.failed})
		return nil
	}
	size, err := s.Size()
	if err == nil {
		err = s.SyncRange(0, size)
	}
	w.failed = err
	w.done = append(w.done, Done{ticket, err})
	return nil
}

func (w *plainWriter) Next(d time.Duration) (Done, bool) {
	if len(w.done) > 0 {
		done := w.done[0]
		w.done = w.done[:copy(w.done, w.done[1:])]
		return done, true
	}
	switch {
	case d < 0:
		<-w.wake
	case d > 0:
		w.timer.Reset(d)
		select {
		case <-w.wake:
		case <-w.timer.C:
		}
		w.timer.Stop()
	}
	return Done{}, false
}

func (w *plainWriter) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *plainWriter) Close() error { return nil }
