package commitlog

import (
	"errors"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// In the walk of one message: this takes the place of the flusher's goroutine where the reactor that appended can carry out the group commit itself.

// Committer carries out the group commits of SYNC_FLUSH on the thread that asks for them: it starts the write at the end of its turn, waits for
// the device together with its connections, and answers. With a goroutine in between, one message took twelve switches between
// threads, which was more time than the device needed.
//
// One thread of those that have a Committer carries on with the log at a time. The others do not wait for it: they leave a note, and it looks
// after theirs, too.
type Committer struct {
	p *pipeline
	w ioengine.SharedWriter
}

// ErrNotHosted: group commits of this log are the flusher's: use RequestFlush.
var ErrNotHosted = errors.New("the log's group commits are carried out by its flusher")

// NewCommitter makes the Committer of one thread; it ends with the log, and is not used any more then. The error wraps ErrNotHosted where the
// engine is not EngineUring or the log is not Sync.
func (l *Log) NewCommitter() (*Committer, error) {
	if l.opt.Engine != ioengine.EngineUring || !l.opt.Sync {
		return nil, ErrNotHosted
	}
	w, err := ioengine.NewSharedWriter(pipelineDepth)
	if err != nil {
		return nil, errors.Join(ErrNotHosted, err)
	}
	return l.host(w)
}

func (l *Log) host(w ioengine.SharedWriter) (*Committer, error) {
	p := l.pipeline
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, errors.Join(ErrClosed, w.Close())
	}
	p.hosted = append(p.hosted, w)
	return &Committer{p, w}, nil
}

// FD becomes readable when something is done that Look takes. It is to be watched for edges.
func (c *Committer) FD() int { return c.w.FD() }

// Await waits until something may be done, d at most: for a thread that has nothing else to wait for. It may return early.
func (c *Committer) Await(d time.Duration) error { return c.w.Await(d) }

// Commit starts a group commit of what is published by now, and does what Look does.
func (c *Committer) Commit() {
	c.p.commit.Store(true)
	c.p.drive(c.w)
}

// Look takes what is done, which may move Flushed on, and starts what waited for it. When nothing is done it costs two loads.
func (c *Committer) Look() {
	if c.w.Ready() {
		c.p.drive(c.w)
	}
}

// turnsInOne is how many turns a thread takes for others before it goes on with its own work.
const turnsInOne = 4

// drive takes turns at w as long as somebody wants one, unless another thread does already: that one looks after it. What is too much for one
// thread is left to the flusher.
func (p *pipeline) drive(w ioengine.LogWriter) {
	p.look.Store(true)
	for turns := 0; p.look.Load() && p.mu.TryLock(); turns++ {
		if turns == turnsInOne {
			p.mu.Unlock()
			p.w.Wake()
			return
		}
		p.turn(w, false)
		p.mu.Unlock()
	}
}
