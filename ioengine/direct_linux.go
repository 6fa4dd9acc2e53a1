package ioengine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// EngineWorks tries what an engine needs in the folder of a log with segments of segmentSize bytes. ErrEngineRefused: take the next one.
func EngineWorks(kind EngineKind, dir string, segmentSize int64) error {
	if kind == EngineUring {
		if _, err := uring.Probe(); errors.Is(err, uring.ErrUnsupported) {
			return fmt.Errorf("%w: %w", ErrEngineRefused, err)
		} else if err != nil {
			return err
		}
	}
	if kind < EngineDirect {
		return nil
	}
	if segmentSize%TailBlock != 0 {
		return fmt.Errorf("%w: segments of %d bytes are no multiple of %d", ErrEngineRefused, segmentSize, TailBlock)
	}
	return tryDirect(dir)
}

// tryDirect writes one block past the page cache, to a file without a name.
func tryDirect(dir string) error {
	a, err := uring.NewArena(TailBlock)
	if err != nil {
		return err
	}
	defer a.Free()
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE|unix.O_DIRECT, 0o600)
	if err == nil {
		_, err = f.WriteAt(a.Bytes, 0)
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%w: the file system of %s has no O_DIRECT: %w", ErrEngineRefused, dir, err)
	}
	return err
}

// directFiles are the O_DIRECT descriptors of the segments that are written now: two at most at a time, when the log rolls.
type directFiles struct {
	open map[Segment]*os.File
	flag int
}

const keptDirectFiles = 4

// file opens the segment's file once more. Segments that were left behind are closed, those apart that busy knows of an operation for.
func (f *directFiles) file(s Segment, busy func(Segment) bool) (*os.File, error) {
	if file := f.open[s]; file != nil {
		return file, nil
	}
	if len(f.open) >= keptDirectFiles {
		if err := f.closeIdle(busy); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(s.Name(), os.O_RDWR|unix.O_DIRECT|f.flag, 0)
	if err != nil {
		return nil, fail("open for direct writes", s.Name(), err)
	}
	if f.open == nil {
		f.open = map[Segment]*os.File{}
	}
	f.open[s] = file
	return file, nil
}

func (f *directFiles) closeIdle(busy func(Segment) bool) error {
	var errs []error
	for s, file := range f.open {
		if !busy(s) {
			errs = append(errs, file.Close())
			delete(f.open, s)
		}
	}
	return errors.Join(errs...)
}

func (f *directFiles) closeAll() error { return f.closeIdle(never) }

// never is for writers whose operations are done when they return.
func never(Segment) bool { return false }

// directWriter writes past the page cache, one operation at a time.
type directWriter struct {
	plainWriter
	files, durable directFiles
}

func newDirectWriter() *directWriter {
	return &directWriter{plainWriter: *newPlainWriter(), durable: directFiles{flag: unix.O_DSYNC}}
}

func (w *directWriter) Block() int64 { return TailBlock }

func (w *directWriter) Write(s Segment, off int64, data []byte, durable bool, ticket uint64) error {
	files := &w.files
	if durable {
		files = &w.durable
	}
	f, err := files.file(s, never)
	switch {
	case isScarce(err):
		return w.plainWriter.Write(s, off, data, durable, ticket)
	case err != nil:
		return err
	}
	if w.failed == nil {
		_, err = f.WriteAt(data, off)
		w.failed = fail("write", s.Name(), err)
	}
	w.done = append(w.done, Done{ticket, w.failed})
	return nil
}

func (w *directWriter) Close() error { return errors.Join(w.files.closeAll(), w.durable.closeAll()) }

// ringWriter writes past the page cache with several writes in flight.
type ringWriter struct {
	ring  *uring.Ring
	files directFiles
	depth int
	// flights are the operations in the ring; their index is the entry's data. free lists those that are not used.
	flights []flight
	free    []int
	// mu keeps a late Wake off a closed ring.
	mu     sync.Mutex
	closed bool
}

// flight is one operation in the ring.
type flight struct {
	ticket  uint64
	seg     Segment
	file    *os.File // nil: fd is the segment's own
	fd      int
	data    []byte // what is still to be written; nil for a sync
	off     int64
	durable bool
}

func newRingWriter(depth int, shared bool) (SharedWriter, error) {
	// A direct write is submitted without waiting, or handed to one of the kernel's threads.
	r, err := uring.New(uring.Options{Entries: max(2*depth, 8), Shared: shared, RawSubmit: shared, Parked: !shared})
	if err != nil {
		return nil, err
	}
	w := &ringWriter{ring: r, depth: depth, flights: make([]flight, depth)}
	for i := range depth {
		w.free = append(w.free, i)
	}
	return w, nil
}

func (w *ringWriter) FD() int { return w.ring.FD() }

func (w *ringWriter) Await(d time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(w.ring.FD()), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, int(d.Milliseconds())); err != nil && err != unix.EINTR {
		return fmt.Errorf("wait for the log's writes: %w", err)
	}
	return nil
}

func (w *ringWriter) Ready() bool { return w.ring.Posted() }

func (w *ringWriter) Block() int64 { return TailBlock }

func (w *ringWriter) Depth() int { return w.depth }

func (w *ringWriter) Write(s Segment, off int64, data []byte, durable bool, ticket uint64) error {
	return w.start(flight{ticket: ticket, seg: s, data: data, off: off, durable: durable})
}

func (w *ringWriter) Sync(s Segment, ticket uint64) error {
	return w.start(flight{ticket: ticket, seg: s})
}

// isScarce says that a descriptor more was too much for now. That is no failure of the device: writes go through the page cache then, by the descriptor that
// the segment has.
func isScarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// busy tells that an operation of s is not done: an entry that was prepared holds its descriptor by number.
func (w *ringWriter) busy(s Segment) bool {
	return slices.ContainsFunc(w.flights, func(f flight) bool { return f.seg == s })
}

func (w *ringWriter) start(f flight) error {
	if len(w.free) == 0 {
		panic("BUG: more operations of the log in flight than the ring has places for")
	}
	var err error
	switch f.file, err = w.files.file(f.seg, w.busy); {
	case err == nil:
		f.fd = int(f.file.Fd())
	case isScarce(err) && f.seg.Fd() >= 0:
		f.file, f.fd = nil, f.seg.Fd()
	default:
		return err
	}
	i := w.free[len(w.free)-1]
	w.free = w.free[:len(w.free)-1]
	w.flights[i] = f
	w.prepare(i)
	return nil
}

// prepare puts flight i into the submission queue, which has room for all of them.
func (w *ringWriter) prepare(i int) {
	f, e := &w.flights[i], w.ring.Next()
	if e == nil {
		panic("BUG: the ring is full although it has a place for each operation")
	}
	if f.data == nil {
		e.Fdatasync(f.fd)
	} else {
		e.Write(f.fd, f.data, f.off)
		if f.durable {
			e.DSync()
		}
	}
	e.SetData(uint64(i))
}

// submitTries bounds how often Next tries to submit what the kernel has no memory for at the moment.
const submitTries = 3

func (w *ringWriter) Next(d time.Duration) (Done, bool) {
	for tries := 0; ; {
		if c, ok := w.ring.Completed(); ok {
			if done, ended := w.ended(c); ended {
				if w.ring.Prepared() > 0 {
					// What was started before this call must not wait for the next one.
					_ = w.submit(0)
				}
				return done, true
			}
			continue
		}
		// Behind the wait there is something to submit only where an operation goes on.
		if w.ring.Prepared() == 0 && (d == 0 || tries > 0) || tries == submitTries {
			return Done{}, false
		}
		if err := w.submit(d); err != nil {
			return Done{}, false
		}
		tries, d = tries+1, 0
	}
}

// submit gives what is prepared to the kernel. EBUSY and EAGAIN end by taking completions and trying again, which the caller does anyway.
func (w *ringWriter) submit(d time.Duration) error {
	err := w.ring.Wait(d)
	if err == unix.EBUSY || err == unix.EAGAIN {
		return nil
	}
	return err
}

// ended tells what a completion means. A short write goes on where it stopped; so does one that the kernel had no memory for.
func (w *ringWriter) ended(c uring.Completion) (Done, bool) {
	i := int(c.Data)
	f := &w.flights[i]
	err := c.Err()
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		w.prepare(i)
		return Done{}, false
	case err == nil && int(c.Result) < len(f.data) && c.Result > 0:
		// O_DIRECT wants whole blocks: the one that was cut is written again.
		n := int(c.Result) &^ (TailBlock - 1)
		if n == 0 {
			err = unix.EIO
			break
		}
		f.data, f.off = f.data[n:], f.off+int64(n)
		w.prepare(i)
		return Done{}, false
	case err == nil && c.Result == 0 && len(f.data) > 0:
		err = unix.EIO
	}
	op := "write"
	if f.data == nil {
		op = "sync"
	}
	done := Done{f.ticket, fail(op, f.seg.Name(), err)}
	runtime.KeepAlive(unsafe.SliceData(f.data))
	w.flights[i] = flight{}
	w.free = append(w.free, i)
	return done, true
}

func (w *ringWriter) Wake() {
	w.mu.Lock()
	if !w.closed {
		w.ring.Wake()
	}
	w.mu.Unlock()
}

func (w *ringWriter) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return errors.Join(w.ring.Close(), w.files.closeAll())
}
