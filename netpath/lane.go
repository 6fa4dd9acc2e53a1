package netpath

import "sync"

// Lane runs requests that may wait (for a disk, another server, a lock of the control plane) on a few goroutines, so that no reactor
// ever does. What a request needs is copied when it is handed over: the reactor's frame is gone when its handler returns.
type Lane struct {
	jobs chan laneJob
	wg   sync.WaitGroup
}

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
				j.run(j.conn, j.frame)
			}
		})
	}
	return l
}

// Submit copies frame and lets run have the copy on one of the lane's goroutines; run answers by Conn.Send. It returns false, and run is
// never called, when the lane is full: the caller answers SYSTEM_BUSY.
func (l *Lane) Submit(c *Conn, frame []byte, run func(c *Conn, frame []byte)) bool {
	if len(l.jobs) == cap(l.jobs) {
		return false
	}
	select {
	case l.jobs <- laneJob{c, append([]byte(nil), frame...), run}:
		return true
	default:
		return false
	}
}

// Waiting is the number of requests that wait for a goroutine.
func (l *Lane) Waiting() int { return len(l.jobs) }

// Close waits for the requests in hand. Nothing may be submitted any more.
func (l *Lane) Close() {
	close(l.jobs)
	l.wg.Wait()
}
