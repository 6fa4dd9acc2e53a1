package netpath

import "time"

// The shutdown of one reactor: it reads no more, waits for what its handler still owes, lets the output leave, says goodbye to each
// connection, and ends when the last one is gone.
//
// The goodbye has two steps. A socket that is closed while bytes of its peer are unread, or still on their way, answers them with a
// reset, and a reset throws away what the peer has not taken yet: under load that would be the last answers. So the sending side is
// closed first, and what comes is read and thrown away until the peer closes as well, or partTime is over.

// Drainer is a Handler that answers some frames later than in OnFrame, and wants to do so before a shutdown closes its connections.
type Drainer interface {
	Handler
	// Pending says whether answers to frames that OnFrame got are still to come. It is asked on the reactor's thread, in each turn of
	// a shutdown, until that is out of time. An answer that is not counted any more must have been given to its connection.
	Pending() bool
}

// defaultPartTime is Server.partTime: it bounds the wait for a peer that does not close its end.
const defaultPartTime = 500 * time.Millisecond

// startDrain begins the shutdown: no connection is read any more, output still leaves.
func (r *Reactor) startDrain() {
	if r.draining {
		return
	}
	r.draining = true
	r.closeListeners()
	for _, c := range r.conns {
		if c != nil {
			c.pause |= pausedDrain
			r.touch(c)
		}
	}
}

// finished says whether the loop may end. While draining it drops connections as they run out of output.
func (r *Reactor) finished() bool {
	if !r.draining {
		return false
	}
	left := 0
	force := r.srv.force.Load()
	owes := !force && r.owes()
	for _, c := range r.conns {
		switch {
		case c == nil:
		case force:
			if c.stream != nil {
				c.stream.abort()
			}
			r.drop(c, ErrShutdown)
		case owes || c.head != nil || c.Backlog() > 0 || c.dirty || !c.parted():
			left++
		default:
			r.drop(c, ErrShutdown)
		}
	}
	return left == 0 && r.streams == 0 && r.coldReads == 0
}

// owes says whether output may still come. The handler is asked before the mail is looked at: what it does not count any more is there.
func (r *Reactor) owes() bool {
	if r.drainer != nil && r.drainer.Pending() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mail) > 0
}

// parted begins the goodbye of a connection, and says whether it is over. That of a stream is its own goroutine's.
func (c *Conn) parted() bool {
	r := c.Reactor()
	if c.stream != nil || !c.established {
		return true
	}
	if c.partUntil == 0 {
		c.partUntil = r.now.MonoNanos + int64(r.srv.partTime)
		r.part(c) // may find it broken, and drop it
		return c.gone
	}
	return r.now.MonoNanos >= c.partUntil
}
