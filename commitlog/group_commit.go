package commitlog

import (
	"context"
	"runtime/pprof"
	"time"

	"github.com/ringmq/ringmq/internal/beat"
)

// In the walk of one message: before this, append.go published its bytes; after this, waiters.go releases whoever waits for them.
//
// flusher makes the log durable. A group commit needs no list of requests: whatever has been published when a sync starts belongs to
// it, whatever comes later forms the next group while this one is on its way, and the result is one number, flushed. (Java hands each
// request to a service thread and back: 7.6 voluntary switches a message at 5,000/s.) Does the work of GroupCommitService,
// FlushRealTimeService.
type flusher struct {
	// kick asks for a look at write-back; commit asks for a group commit now.
	kick, commit chan struct{}
	quit         context.CancelFunc
	done         chan struct{}
	// started and waited are log offsets: write-back was started before the one, waited for before the other.
	started, waited int64
}

func (l *Log) kickFlusher() {
	if l.pipeline != nil {
		l.pipeline.ask(&l.pipeline.kick)
		return
	}
	select {
	case l.flusher.kick <- struct{}{}:
	default:
	}
}

// RequestFlush asks for a group commit of what is published by now. A reactor calls it once a turn, not once a message.
func (l *Log) RequestFlush() {
	if l.pipeline != nil {
		l.pipeline.ask(&l.pipeline.commit)
		return
	}
	select {
	case l.flusher.commit <- struct{}{}:
	default:
	}
}

func (l *Log) startFlusher() {
	ctx, cancel := context.WithCancel(context.Background())
	l.flusher.quit, l.flusher.done = cancel, make(chan struct{})
	go pprof.Do(ctx, pprof.Labels("room", "commitlog", "thread", "flusher"), func(ctx context.Context) {
		defer close(l.flusher.done)
		timer := time.NewTimer(beat.UntilNext(l.flushEvery()))
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-l.flusher.kick:
				l.writeBack()
			case <-l.flusher.commit:
				l.flush()
			case <-timer.C:
				timer.Reset(beat.UntilNext(l.flushEvery()))
				l.flush()
			}
		}
	})
}

// flushEvery is the time between two flushes that nobody asked for.
func (l *Log) flushEvery() time.Duration {
	return max(min(l.opt.FlushEvery, l.opt.Window/2), time.Millisecond)
}

// writeBack starts writing what is dirty, in steps, and waits for the steps that lie pacedSteps behind. It keeps the pages that a
// later sync finds dirty few, and the device's queue short, whatever the append rate.
func (l *Log) writeBack() {
	f := &l.flusher
	for end := l.published.Load(); f.started+writeBackStep <= end && l.failed.Load() == nil; {
		s := l.find(f.started)
		if s == nil {
			break
		}
		to := min(f.started+writeBackStep, s.end())
		if err := s.file.WriteBack(f.started-s.base, to-s.base); err != nil {
			l.fail(err)
			return
		}
		f.started = to
		if late := f.started - pacedSteps*writeBackStep; late > f.waited {
			if !l.waitWriteBack(late) {
				return
			}
		}
	}
	l.writeBackAt.Store(f.started + writeBackStep)
	// Far more is on its way than a tick should find: appends would have to wait at MaxUnflushed.
	if l.published.Load()-l.flushed.Load() >= l.opt.MaxUnflushed/2 {
		l.flush()
	}
}

// waitWriteBack waits for what was started before the log offset to.
func (l *Log) waitWriteBack(to int64) bool {
	f := &l.flusher
	for f.waited < to {
		s := l.find(f.waited)
		if s == nil {
			f.waited = to
			break
		}
		until := min(to, s.end())
		if err := s.file.WaitWriteBack(f.waited-s.base, until-s.base); err != nil {
			l.fail(err)
			return false
		}
		f.waited = until
	}
	return true
}

// flush is one group commit: everything published when it starts is on the device when it ends, or the log has failed.
func (l *Log) flush() {
	// The clock is the appenders': what is published after this line was appended at this time or later.
	l.mu.Lock()
	target, began := l.published.Load(), l.lastNow
	l.mu.Unlock()
	at := l.flushed.Load()
	if at == target {
		return
	}
	for at < target {
		if l.failed.Load() != nil {
			return
		}
		s := l.find(at)
		if s == nil {
			l.fail(errLostSegment(at))
			return
		}
		to := min(target, s.end())
		// The blank at the end of a segment lies behind its last record: syncing to the end covers it.
		if err := s.file.SyncRange(at-s.base, to-s.base); err != nil {
			l.fail(err)
			return
		}
		at = to
	}
	l.flusher.started = max(l.flusher.started, target)
	l.flusher.waited = max(l.flusher.waited, target)
	l.writeBackAt.Store(l.flusher.started + writeBackStep)
	if l.advanceFlushed(target, began) {
		l.announceFlushed()
	}
}

// advanceFlushed moves flushed on, unless the log has failed meanwhile, at whatever other place: from then on nobody is told of success.
func (l *Log) advanceFlushed(target, began int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed.Load() != nil {
		return false
	}
	if l.published.Load() == target {
		began = 0
	}
	l.oldestUnflushed.Store(began)
	l.flushed.Store(target)
	return true
}

// fail is rule R2: the first error of the device ends all appends and acknowledgements of this process. No sync is tried again: the
// kernel may answer the second one with success although the bytes of the first are gone.
func (l *Log) fail(err error) {
	// Under mu: an append that goes on holds it, and none comes after; so does the flusher while it advances.
	l.mu.Lock()
	first := l.failed.CompareAndSwap(nil, &FailedError{err})
	l.mu.Unlock()
	if !first {
		return
	}
	l.opt.Logger.Error("the commit log's device failed: the broker takes no more messages and acknowledges none; reading goes on. "+
		"Look at the kernel's log, repair or replace the device, start again", "err", err)
	l.opt.OnFail(err)
	l.announce()
	l.announceFlushed()
}
