package commitlog

import (
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// removeStep is how much of a file goes at a time, removePause how long the file system has between two steps.
const (
	removeStep  = 64 << 20
	removePause = 20 * time.Millisecond
)

// Segment tells about one segment: for retention.
type Segment struct {
	Base, End int64
	Name      string
}

// Segments lists the segments that hold records and are no longer appended to, oldest first.
func (l *Log) Segments() []Segment {
	published := l.published.Load()
	var out []Segment
	for _, s := range l.list() {
		if s.end() <= published {
			out = append(out, Segment{s.base, s.end(), s.file.Name()})
		}
	}
	return out
}

// dropper is what DropOldest keeps between two calls.
type dropper struct {
	mu sync.Mutex
	// left is a file that was taken out of the log and could not be removed. It goes first the next time: if a younger one went before it,
	// the next start would find a hole in the log.
	left string
}

// DropOldest takes the oldest segment out of the log, raises the minimum offset, and removes its file in steps once the last reader has
// let go. The segment that is appended to is never dropped. It waits for the removal: retention calls it on its own goroutine.
func (l *Log) DropOldest() error {
	d := &l.dropper
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := l.removeLeft(); err != nil {
		return err
	}
	s := l.takeOldest()
	if s == nil {
		return errors.New("the oldest segment is still being written")
	}
	s.release()
	<-s.unused
	l.cold.forget(s)
	d.left = s.file.Name()
	s.unmap(l)
	if err := s.file.Close(); err != nil {
		return err
	}
	return l.removeLeft()
}

// takeOldest takes the first segment out of the list, or returns nil when it is still needed.
func (l *Log) takeOldest() *segment {
	l.listMu.Lock()
	defer l.listMu.Unlock()
	segs := l.list()
	if len(segs) == 0 || segs[0].end() > l.flushed.Load() {
		return nil
	}
	rest := slices.Clone(segs[1:])
	l.minOffset.Store(segs[0].end())
	l.segments.Store(&rest)
	return segs[0]
}

func (l *Log) removeLeft() error {
	d := &l.dropper
	if d.left == "" {
		return nil
	}
	err := ioengine.RemoveInSteps(l.opt.FS, d.left, removeStep, func() { time.Sleep(removePause) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.left = ""
	return nil
}
