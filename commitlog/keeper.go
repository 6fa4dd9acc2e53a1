package commitlog

import (
	"context"
	"errors"
	"math"
	"runtime/pprof"
	"time"

	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// keeper keeps memory ready ahead of the tail. Does the work of AllocateMappedFileService and of warmMappedFile, and more: first
// touch of a page was worth 19 ms at p99.6 where an append into ready memory took 0.1 ms.
//
// A page is made ready in three steps, each ahead of the next: zeroes are written (so that a group commit need not convert unwritten
// extents), the page is faulted in and locked, and only then may the tail reach it (segment.warm). Because the zeroes are written
// through the file and strictly ahead of warm, they can never hit a record.
type keeper struct {
	kick chan struct{}
	quit context.CancelFunc
	done chan struct{}
	// ready is closed and replaced whenever more memory became ready, at the end of each of the keeper's rounds, and when the log failed
	// or was closed: see WaitReady.
	ready chan struct{}
	// making is a segment that exists and whose first memory is not ready yet: the disk was full. The keeper's own.
	making *segment
	// unused are segments behind the log's end, which the last run made ahead: see dropUnused. zeroTo is the log offset before which what
	// is behind the end was found to be zeroes that were written. Both are set by Open; the keeper's own from then on.
	unused []*segment
	zeroTo int64
}

// warmStep is how much is made ready at a time.
const warmStep = 8 << 20

func (l *Log) kickKeeper() {
	select {
	case l.keeper.kick <- struct{}{}:
	default:
	}
}

func (l *Log) startKeeper() {
	ctx, cancel := context.WithCancel(context.Background())
	l.keeper.quit, l.keeper.done = cancel, make(chan struct{})
	go pprof.Do(ctx, pprof.Labels("room", "commitlog", "thread", "keeper"), func(ctx context.Context) {
		defer close(l.keeper.done)
		// A full disk is looked at again every second; so is what can be let go. On the beat: see package beat.
		tick := time.NewTimer(beat.UntilNext(time.Second))
		defer tick.Stop()
		for {
			l.keep()
			kick := l.keeper.kick
			if l.diskFull.Load() {
				// Each refused append kicks; the file system is not asked for 1 GiB each time.
				kick = nil
			}
			select {
			case <-ctx.Done():
				return
			case <-kick:
			case <-tick.C:
				l.cold.beat()
				tick.Reset(beat.UntilNext(time.Second))
			}
		}
	})
}

// keep brings everything up to what the tail's place asks for.
func (l *Log) keep() {
	// What somebody in WaitReady asked for may have become ready just before it began to wait: it must look again.
	defer l.announce()
	for more := true; more && l.refusal() == nil; {
		// Read together: a next that is nil stays so, because only the keeper sets it; so the tail does not move on under it.
		l.mu.Lock()
		tail, next := l.tail, l.next
		l.mu.Unlock()
		var err error
		if more, err = l.keepAhead(tail, next); err != nil {
			if errors.Is(err, ioengine.ErrDiskFull) && len(l.keeper.unused) > 0 {
				if err = l.dropUnused(); err == nil {
					more = true // there is room now
					continue
				}
			}
			if !errors.Is(err, ioengine.ErrDiskFull) {
				l.fail(err)
			} else if !l.diskFull.Swap(true) {
				l.logDiskFull(err)
			}
			return
		}
		if l.diskFull.Swap(false) {
			l.opt.Logger.Info("disk space is back: messages are taken again", "dir", l.opt.Dir)
		}
		l.coolBehind(tail)
	}
}

// keepAhead makes one step ready; more tells that another one is due. First the tail's segment, then the next one, which is begun while
// at least four times the memory kept ready is left in this one, or at once in small ones. When all is ready it sets kickAt.
func (l *Log) keepAhead(tail, next *segment) (more bool, err error) {
	at := l.published.Load()
	last := tail
	if next != nil && tail.warm.Load() == tail.size {
		last = next
	}
	ready := last.base + last.warm.Load()
	if to := min(ready+warmStep, last.end()); ready < min(at+l.opt.WarmAhead, last.end()) && l.makeRoom(to) {
		return true, l.warm(last, to-last.base)
	}
	if err := l.dropUnused(); err != nil {
		return false, err
	}
	begin := tail.end() - 4*l.opt.WarmAhead
	if next == nil && at >= begin {
		if made, err := l.makeNext(tail.end()); made || err != nil {
			return made, err
		}
	}
	// Invariant: kickAt > published here, so that an append kicks once a step and not each time.
	kickAt := ready - l.opt.WarmAhead/2
	if last == next && ready == next.end() {
		kickAt = next.base + 1
	}
	if next == nil {
		kickAt = min(kickAt, begin)
	}
	if l.roomWanted.Load() > 0 {
		kickAt = math.MaxInt64 // the pipeline kicks
	}
	l.kickAt.Store(kickAt)
	return false, nil
}

// makeNext makes the segment that starts at base and hands it to the tail's owner once its first memory is ready. False: there is no room
// in memory for it yet.
func (l *Log) makeNext(base int64) (bool, error) {
	k := &l.keeper
	if k.making == nil {
		s, err := l.createSegment(base)
		if err != nil {
			return false, err
		}
		k.making = s
	}
	first := min(warmStep, k.making.size)
	if !l.makeRoom(base + first) {
		return false, nil
	}
	if err := l.warm(k.making, first); err != nil {
		return false, err
	}
	l.addSegment(k.making)
	l.mu.Lock()
	l.next = k.making
	l.mu.Unlock()
	k.making = nil
	l.announce()
	return true, nil
}

// warm makes s ready up to the relative offset to.
func (l *Log) warm(s *segment, to int64) error {
	from := s.warm.Load()
	if s.zeroed < to && l.zeroAhead() {
		if err := s.file.Zero(s.zeroed, to); err != nil {
			return err
		}
		s.zeroed = to
	}
	if err := s.file.Warm(from, to); err != nil {
		return err
	}
	if l.memory != nil && from < s.stored {
		if err := l.loadTail(s, from); err != nil {
			return err
		}
	}
	s.warm.Store(to)
	l.announce()
	return nil
}

// zeroAhead tells that zeroes are written before records. Only what is written past the page cache and synced now and then can do without:
// nobody waits for the conversion of its extents, and the device has half to write.
func (l *Log) zeroAhead() bool { return l.opt.Engine < ioengine.EngineDirect || l.opt.Sync }

// createSegment makes the segment that starts at base. Its size and its name are durable when it returns: a power loss that finds
// records in it must find a whole file.
func (l *Log) createSegment(base int64) (*segment, error) {
	name := segmentName(l.opt.Dir, base)
	f, err := l.openSegmentFile(name, base, true)
	if err != nil {
		return nil, err
	}
	if err = f.Sync(); err == nil {
		err = l.opt.FS.SyncDir(l.opt.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Unmap(), f.Close(), l.opt.FS.Remove(name))
	}
	return newSegment(base, f, l.opt.SegmentSize), nil
}

// coolBehind lets go of memory that tail readers no longer ask for, and of the mappings of segments that are flushed and past.
func (l *Log) coolBehind(tail *segment) {
	keepFrom := l.published.Load() - l.opt.KeepBehind
	for _, s := range l.list() {
		if s.base > tail.base {
			break
		}
		// Counted among the users: DropOldest unmaps and closes what nobody uses any more.
		if s.hot.Load() < 0 || !s.acquire() {
			continue
		}
		l.cool(s, keepFrom)
		s.release()
	}
}

// cool lets go of what lies in s before the log offset keepFrom.
func (l *Log) cool(s *segment, keepFrom int64) {
	if s.end() <= min(keepFrom, l.flushed.Load()) {
		s.unmap(l)
		return
	}
	if l.memory != nil {
		return // see makeRoom
	}
	to := (keepFrom - s.base) &^ (warmStep - 1)
	if to <= s.cooled || to > s.size {
		return
	}
	s.hot.Store(to)
	if err := s.file.Cool(s.cooled, to); err != nil {
		l.opt.Logger.Warn("memory behind the log's tail is not let go", "err", err)
	}
	s.cooled = to
}

// unmap drops the mapping once no reader copies from it. Readers are counted only while they copy, a few microseconds.
func (s *segment) unmap(l *Log) {
	s.hot.Store(-1)
	s.waitViewers()
	if err := s.file.Unmap(); err != nil {
		l.opt.Logger.Warn("unmap a segment", "file", s.file.Name(), "err", err)
	}
}

// waitViewers waits until nobody looks at memory that the hot mark has passed.
func (s *segment) waitViewers() {
	for s.viewers.Load() != 0 {
		time.Sleep(10 * time.Microsecond)
	}
}

func (l *Log) logDiskFull(err error) {
	l.opt.Logger.Error("disk full: no more messages are taken until space returns; reading goes on", "dir", l.opt.Dir, "err", err)
}

// announce wakes those in WaitReady.
func (l *Log) announce() {
	l.listMu.Lock()
	close(l.keeper.ready)
	l.keeper.ready = make(chan struct{})
	l.listMu.Unlock()
}

// WaitReady waits until the append that got ErrNotReady may try again, the log has failed or closed, or ctx is done. After a nil the
// caller tries, and gets ErrNotReady again where it was too early.
func (l *Log) WaitReady(ctx context.Context) error {
	// The channel first: what becomes ready after the look at the tail closes it.
	l.listMu.Lock()
	ready := l.keeper.ready
	l.listMu.Unlock()
	there, flushFirst := l.lookReady()
	if err := l.refusal(); err != nil {
		return err
	}
	if there {
		if flushFirst > l.flushed.Load() {
			return l.WaitFlushed(ctx, flushFirst)
		}
		return nil
	}
	l.kickKeeper()
	select {
	case <-ready:
		return l.refusal()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookReady tells whether the memory for the append that was refused last is there by now, and up to which log offset the device has to
// come before MaxUnflushed lets it in; half of what may be unflushed more than that, so that not each append waits.
func (l *Log) lookReady() (there bool, flushFirst int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, size := l.published.Load(), l.refused
	if size+message.BlankSize > l.tail.end()-at {
		return l.next != nil, 0
	}
	if at+size+message.BlankSize > l.tail.base+l.tail.warm.Load() {
		return false, 0
	}
	if at+size-l.flushed.Load() <= l.opt.MaxUnflushed {
		return true, 0
	}
	return true, max(at+size-l.opt.MaxUnflushed, at-l.opt.MaxUnflushed/2)
}
