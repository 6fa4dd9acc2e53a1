package commitlog

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// Threads that append and carry out the group commits themselves, beside the flusher, which serves a goroutine and its own tick: every wait
// ends, and a start finds everything.
func TestCommittersShareTheLog(t *testing.T) {
	const threads, each = 3, 150
	o := quiet(ioengine.OS(), t.TempDir(), 1<<20)
	o.EngineOptions = EngineOptions{Engine: ioengine.EngineUring, TailSize: 16 << 20, Sync: true}
	o.FlushEvery = 10 * time.Millisecond
	l := openLog(t, o, 0, false)
	first, err := l.NewCommitter()
	if errors.Is(err, ErrNotHosted) {
		closeLog(t, l.Log)
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var mu sync.Mutex // of appended: bodies and sequence numbers are one writer's
	appended := newWriter(l.Log)
	appended.keep = []stored{}
	for i := range threads {
		c := first
		if i > 0 {
			if c, err = l.NewCommitter(); err != nil {
				t.Fatal(err)
			}
		}
		running.Go(func() {
			runtime.LockOSThread()
			for n := range each {
				mu.Lock()
				appended.append(t, 100+n*20)
				end := l.Published()
				mu.Unlock()
				c.Commit()
				for l.Flushed() < end {
					// Another one may take what this one waits for: nobody wakes it for that here.
					if err := c.Await(5 * time.Millisecond); err != nil {
						t.Error(err)
						return
					}
					c.Look()
				}
			}
		})
	}
	running.Go(func() {
		for range each {
			if err := l.WaitFlushed(t.Context(), l.Published()); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	running.Wait()
	if l.Flushed() != l.Published() {
		t.Errorf("flushed up to %d of %d", l.Flushed(), l.Published())
	}
	closeLog(t, l.Log)
	again := openLog(t, o, 0, false)
	sameRecords(t, again.records, appended.keep)
	closeLog(t, again.Log)
}

// A log whose commits are the flusher's says so.
func TestNoCommitterWithoutARing(t *testing.T) {
	for _, e := range []EngineOptions{{}, {Sync: true}, {Engine: ioengine.EngineDirect, Sync: true, TailSize: 4 << 20}, {Engine: ioengine.EngineUring, TailSize: 4 << 20}} {
		o := quiet(ioengine.OS(), t.TempDir(), 1<<20)
		o.EngineOptions = e
		l, _, err := Open(o, 0, false, t.TempDir(), func([]byte, *message.Record) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.NewCommitter(); !errors.Is(err, ErrNotHosted) {
			t.Errorf("%+v: %v", e, err)
		}
		closeLog(t, l)
	}
}
