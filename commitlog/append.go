package commitlog

import (
	"errors"
	"fmt"

	"github.com/ringmq/ringmq/message"
)

// In the walk of one message: before this, store/put.go checked and measured it; after this, group_commit.go makes it durable.

// Encoder writes what is appended into the log's own memory. It is called with the tail held, so it may give out queue offsets in
// log order; it must not wait, and must fill dst.
type Encoder interface {
	EncodeAt(dst []byte, physicalOffset, storeTimestamp int64)
}

// Why an append was refused. Nothing was written then.
var (
	// ErrNotReady: the memory ahead of the tail is still being prepared, or MaxUnflushed is reached. The caller tries again after WaitReady; a reactor hands
	// the message to a goroutine that does.
	ErrNotReady = errors.New("the next part of the commit log is not ready yet: the disk is slower than the messages come")
	// ErrDiskFull: no space for the next segment. Reads go on; appends resume by themselves when space returns.
	ErrDiskFull = errors.New("no disk space for the next commit log segment: free some, or lower fileReservedTime")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("commit log is closed")
)

// FailedError says that the device of the log has failed (R2): this process takes no more messages.
type FailedError struct{ Cause error }

func (e *FailedError) Error() string {
	return "commit log has failed, no more messages are taken until the broker is started again: " + e.Cause.Error()
}

func (e *FailedError) Unwrap() error { return e.Cause }

// TooLargeError is a record or batch that the log never takes: Limit is what fits into a segment and into the memory kept ready.
type TooLargeError struct {
	Size  int
	Limit int64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d bytes are more than the commit log takes in one piece, which is %d (mappedFileSizeCommitLog bounds it)", e.Size, e.Limit)
}

// Append gives size bytes at the end of the log to e, which fills them, and publishes them: readers and followers see them from now
// on. They never span two segments. now is the caller's clock in ms; the store time handed on never runs backwards.
//
// The tail has one owner at a time. What is done under its lock is arithmetic and one copy into memory that is already there: no
// system call, no allocation, no page that is not present.
func (l *Log) Append(size int, now int64, e Encoder) (at int64, err error) {
	if size <= 0 {
		panic(fmt.Sprintf("BUG: append of %d bytes", size))
	}
	if int64(size) > l.maxAppend {
		return 0, &TooLargeError{size, l.maxAppend}
	}
	l.mu.Lock()
	dst, at, err := l.reserveLocked(int64(size))
	if err != nil {
		l.refused = int64(size)
		l.mu.Unlock()
		l.kickKeeper()
		return 0, err
	}
	l.lastNow = now
	l.lastStoreTime = max(l.lastStoreTime, now)
	e.EncodeAt(dst, at, l.lastStoreTime)
	end := at + int64(size)
	l.publish(end)
	if l.oldestUnflushed.Load() == 0 {
		l.oldestUnflushed.Store(now)
	}
	l.mu.Unlock()
	if end >= l.kickAt.Load() {
		l.kickKeeper()
	}
	if end >= l.writeBackAt.Load() {
		l.kickFlusher()
	}
	return at, nil
}

// reserveLocked finds the place for size bytes, going to the next segment where the tail's has no room left for them and a blank.
func (l *Log) reserveLocked(size int64) (dst []byte, at int64, err error) {
	if err := l.refusal(); err != nil {
		return nil, 0, err
	}
	at = l.published.Load()
	if room := l.tail.end() - at; size+message.BlankSize > room {
		if err := l.rollLocked(at, room); err != nil {
			return nil, 0, err
		}
		at = l.tail.base
	}
	// Room for a blank is needed too: it goes where the next record does not fit.
	if at+size+message.BlankSize > l.tail.base+l.tail.warm.Load() {
		return nil, 0, l.notReady()
	}
	if at+size-l.flushed.Load() > l.opt.MaxUnflushed {
		return nil, 0, ErrNotReady
	}
	return l.tail.file.Window(at-l.tail.base, size), at, nil
}

// rollLocked ends the tail's segment with a blank and makes the next one the tail.
func (l *Log) rollLocked(at, room int64) error {
	next := l.next
	if next == nil {
		return l.notReady()
	}
	if room >= message.BlankSize {
		message.PutBlank(l.tail.file.Window(at-l.tail.base, message.BlankSize), int(room))
	}
	l.tail, l.next = next, nil
	l.publish(next.base)
	return nil
}

func (l *Log) publish(end int64) {
	l.published.Store(end)
	if l.memory != nil {
		l.memory.SetPublished(end)
	}
}

// refusal is why the log takes nothing at all, or nil.
func (l *Log) refusal() error {
	if f := l.failed.Load(); f != nil {
		return f
	}
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

func (l *Log) notReady() error {
	if l.diskFull.Load() {
		return ErrDiskFull
	}
	return ErrNotReady
}
