//go:build !linux || portable

package perf

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// The portable poller: a goroutine per connection reads ahead, a channel tells the worker. See poller_linux.go for what it does.
type poller struct {
	readyMu sync.Mutex
	pending []*socket // that have something to read, each once
	signal  chan struct{}
	timer   *time.Timer
	ready   []*socket
	sockets []*socket
}

type socket struct {
	poller *poller
	conn   net.Conn
	owner  any

	mu     sync.Mutex
	more   *sync.Cond // the reader waits until data has been taken
	data   []byte
	err    error
	listed bool
	closed bool
}

var errAgain = errors.New("not ready")

func newPoller() (*poller, error) {
	return &poller{signal: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}, nil
}

func (p *poller) add(c net.Conn, owner any) (*socket, error) {
	s := &socket{poller: p, conn: c, owner: owner}
	s.more = sync.NewCond(&s.mu)
	p.sockets = append(p.sockets, s)
	go s.readAhead()
	return s, nil
}

func (s *socket) readAhead() {
	buf := make([]byte, inboxSize)
	for {
		n, err := s.conn.Read(buf)
		s.mu.Lock()
		for len(s.data) > 0 && !s.closed {
			s.more.Wait()
		}
		s.data, s.err = buf[:n], err
		done := s.closed || err != nil
		s.mu.Unlock()
		s.poller.list(s)
		if done {
			return
		}
		s.mu.Lock()
		for len(s.data) > 0 && !s.closed {
			s.more.Wait()
		}
		s.mu.Unlock()
	}
}

func (p *poller) list(s *socket) {
	p.readyMu.Lock()
	if !s.listed {
		s.listed = true
		p.pending = append(p.pending, s)
	}
	p.readyMu.Unlock()
	p.wake()
}

func (p *poller) wait(now, until int64) ([]*socket, error) {
	if until > now {
		p.timer.Reset(time.Duration(until - now))
		select {
		case <-p.signal:
		case <-p.timer.C:
		}
	} else {
		select {
		case <-p.signal:
		default:
		}
	}
	p.readyMu.Lock()
	defer p.readyMu.Unlock()
	p.ready = append(p.ready[:0], p.pending...)
	p.pending = p.pending[:0]
	for _, s := range p.ready {
		s.listed = false
	}
	return p.ready, nil
}

func (p *poller) wake() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (p *poller) close() {
	for _, s := range p.sockets {
		s.close()
	}
}

func (s *socket) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.data) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		return 0, errAgain
	}
	n := copy(b, s.data)
	if s.data = s.data[n:]; len(s.data) == 0 {
		s.more.Signal()
	}
	if len(s.data) > 0 || s.err != nil {
		defer s.poller.list(s)
	}
	return n, nil
}

func (s *socket) write(b []byte) (int, error) { return s.conn.Write(b) }

func (s *socket) writeMore(b []byte) (int, error) { return s.conn.Write(b) }

func (s *socket) sendFile(file *os.File, offset int64, n int) (int, error) {
	b := make([]byte, n)
	if _, err := file.ReadAt(b, offset); err != nil {
		return 0, err
	}
	return s.conn.Write(b)
}

func (s *socket) close() {
	s.mu.Lock()
	s.closed = true
	s.more.Broadcast()
	s.mu.Unlock()
	_ = s.conn.Close()
}
