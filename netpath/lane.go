package netpath

import (
	"sync"
	"sync/atomic"
)

// Lane runs requests that may wait (for a disk, another server, a lock of the control plane) on a few goroutines, so that no reactor
// ever does. What a request needs is copied when it is handed over: the reactor's frame is gone when its handler returns.
type Lane struct {
	jobs chan laneJob
	wg   sync.WaitGroup
	// count and bytes are of the requests that were handed over and are not done: those that wait and those that run.
	count, bytes atomic.Int64
	abandoned    atomic.Bool
}

// maxLaneBytes bounds the copies that a lane holds. Places alone would not: each may be a frame of Limits.MaxFrame.
const maxLaneBytes = 64 << 20

type laneJob struct {
	conn  *Conn
	frame []byte
	run   func(c *Conn, frame []byte)
}

// NewLane starts a lane of so many goroutines with so many places for requests that wait for one.
func NewLane(workers, places int) *Lane {
	l := &Lane{jobs: make(chan laneJob, places)}
	for range workers {
		l.wg.Go(func() {
			for j := range l.jobs {
				if !l.abandoned.Load() {
					j.run(j.conn, j.frame)
				}
				l.done(len(j.frame))
			}
		})
	}
	return l
}

// Submit copies frame and lets run have the copy on one of the lane's goroutines; run answers by Conn.Send. It returns false, and run is
// never called, when the lane is full: the caller answers SYSTEM_BUSY. A frame of any size fits into a lane that has nothing to do.
func (l *Lane) Submit(c *Conn, frame []byte, run func(c *Conn, frame []byte)) bool {
	n := int64(len(frame))
	if held := l.bytes.Add(n); held > maxLaneBytes && held > n || len(l.jobs) == cap(l.jobs) {
		l.bytes.Add(-n)
		return false
	}
	l.count.Add(1)
	select {
	case l.jobs <- laneJob{c, append([]byte(nil), frame...), run}:
		return true
	default:
		l.done(len(frame))
		return false
	}
}

func (l *Lane) done(bytes int) {
	l.bytes.Add(-int64(bytes))
	l.count.Add(-1)
}

// Waiting is the number of requests that were handed over and are not done.
func (l *Lane) Waiting() int { return int(l.count.Load()) }

// Abandon drops the requests that wait, for a shutdown that has run out of time. Those that run go on.
func (l *Lane) Abandon() { l.abandoned.Store(true) }

// Close waits for the requests in hand. Nothing may be submitted any more.
func (l *Lane) Close() {
	close(l.jobs)
	l.wg.Wait()
}
