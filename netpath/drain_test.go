package netpath

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// drainingHandler is a testHandler that owes answers.
type drainingHandler struct {
	testHandler
	owed atomic.Int64
}

func (h *drainingHandler) Pending() bool { return h.owed.Load() > 0 }

func serveDraining(t *testing.T, o Options, h *drainingHandler) *Server {
	t.Helper()
	o.Listen, o.Reactors, o.Logger = []string{"127.0.0.1:0"}, 2, slog.New(slog.DiscardHandler)
	o.NewHandler = func(*Reactor) Handler { return h }
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	return s
}

// begun waits until every reactor of s is draining.
func begun(t *testing.T, s *Server) {
	t.Helper()
	for _, r := range s.reactors {
		seen := make(chan bool, 1)
		eventually(t, "the shutdown begins", func() bool {
			if !r.Post(func() { seen <- r.draining }) {
				return true // it is over already: nobody is connected to this reactor
			}
			select {
			case draining := <-seen:
				return draining
			case <-r.done:
				return true
			}
		})
	}
}

// What a handler owes is answered before its connection is closed, though there is no output when the shutdown begins.
func TestShutdownWaitsForWhatIsOwed(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		h, conns := &drainingHandler{}, make(chan *Conn, 1)
		h.frame = func(c *Conn, _ []byte) { h.owed.Add(1); conns <- c }
		s := serveDraining(t, o, h)
		owing, idle := dial(t, s), dial(t, s)
		owing.send(jsonFrame("hello"))
		c := receive(t, conns)
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		begun(t, s)
		select {
		case err := <-done:
			t.Fatalf("shut down (%v) with an answer owed", err)
		default:
		}
		if !c.Send([]byte("late answer")) {
			t.Fatal("the answer was refused")
		}
		h.owed.Add(-1)
		owing.expect([]byte("late answer"))
		owing.expectClosed()
		owing.Close()
		idle.expectClosed()
		idle.Close()
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownWaitsForWhatIsOwedNoLongerThanItsContext(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		h, got := &drainingHandler{}, make(chan bool, 1)
		h.frame = func(*Conn, []byte) { h.owed.Add(1); got <- true }
		s := serveDraining(t, o, h)
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		receive(t, got)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		c.expectClosed()
	})
}

// Requests that come too late must not cost the peer the answers on their way: closing a socket with unread input resets it.
func TestShutdownUnderLoadDoesNotReset(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		const size = 8 << 20
		answered := make(chan bool, 1)
		s := serve(t, o, &testHandler{frame: func(c *Conn, _ []byte) {
			c.End(append(c.Begin(), make([]byte, size)...))
			answered <- true
		}})
		s.partTime = patience // the goodbye is to end with the peer's close, whatever time the machine gives the peer
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		receive(t, answered)
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		begun(t, s)
		sent := make(chan error, 1)
		go func() { // more than buffers of the server take
			_, err := c.Write(bytes.Repeat(jsonFrame(strings.Repeat("too late", 512)), 2000))
			sent <- err
		}()
		c.expect(make([]byte, size))
		if rest, err := io.ReadAll(c.r); len(rest) != 0 || err != nil {
			t.Fatalf("%d bytes and error %v behind the answer; want its end", len(rest), err)
		}
		if err := receive(t, sent); err != nil {
			t.Errorf("what came too late was not read: %v", err)
		}
		c.Close()
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	})
}

// A peer that never closes its end is not waited for without end.
func TestShutdownPartsFromASilentPeer(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		s := serve(t, o, &testHandler{frame: echo})
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		if _, err := c.r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	})
}
