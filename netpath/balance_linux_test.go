package netpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// movingHandler is a testHandler whose connections may move, unless it says otherwise.
type movingHandler struct {
	testHandler
	held func(c *Conn) bool
}

func (h *movingHandler) Movable(c *Conn) bool { return h.held == nil || !h.held(c) }

// standing is a server that nobody turns, with so many connections at its reactor 0; all are at rest.
func standing(t *testing.T, reactors, conns int, h Handler) (*Server, []*Conn) {
	t.Helper()
	s, err := NewServer(Options{Reactors: reactors, Logger: slog.New(slog.DiscardHandler), NewHandler: func(*Reactor) Handler { return h }})
	if err != nil {
		t.Fatal(err)
	}
	var list []*Conn
	for range conns {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.enter(netip.AddrPort{})
		s.reactors[0].load.Add(1)
		c := s.newConn(s.reactors[0], 0, fds[0], netip.AddrPort{}, netip.AddrPort{})
		s.reactors[0].adopt(c)
		c.established, c.proven, c.framed = true, true, true
		list = append(list, c)
		t.Cleanup(func() { unix.Close(fds[1]) })
	}
	t.Cleanup(func() {
		for _, r := range s.reactors {
			r.readMail()
			for _, c := range r.conns {
				if c != nil {
					r.drop(c, ErrShutdown)
				}
			}
			if n := r.load.Load(); n != 0 {
				t.Errorf("reactor %d counts %d connections at the end", r.index, n)
			}
		}
		s.Shutdown(context.Background())
		if n := s.census.count(); n != 0 {
			t.Errorf("%d connections in the census at the end", n)
		}
	})
	return s, list
}

// second lets a second pass in which the reactors were busy for the given parts of it, and the connections of reactor 0 made so much effort.
func second(s *Server, conns []*Conn, busy []float64, efforts []int) {
	for i, c := range conns {
		if c.Reactor() == s.reactors[0] {
			s.reactors[0].worked(c, efforts[i])
		}
	}
	for i, r := range s.reactors {
		r.now.MonoNanos += int64(balanceEvery)
		r.count.busy += int64(busy[i] * float64(balanceEvery))
		r.publish()
	}
	s.reactors[0].rebalance()
}

func TestWhatMovesWhenLoadsDiffer(t *testing.T) {
	for _, tt := range []struct {
		rule    string
		busy    []float64
		efforts []int
		moved   []int // connections of reactor 0 that are gone from it after two seconds
		to      int
		before  func(s *Server, conns []*Conn)
	}{
		{"half of the load goes to the idle one", []float64{0.9, 0}, []int{50, 50}, []int{0}, 1, nil},
		{"the least busy one gets it", []float64{0.9, 0.5, 0.1}, []int{100, 100, 100}, []int{0}, 2, nil},
		{"several small ones go", []float64{0.8, 0}, []int{10, 10, 10, 10}, []int{0, 1}, 1, nil},
		{"one that makes all the load stays", []float64{0.9, 0}, []int{100, 0, 0}, nil, 1, nil},
		{"beside a great one the small one goes", []float64{0.9, 0}, []int{80, 20}, []int{1}, 1, nil},
		{"idle ones stay", []float64{0.9, 0}, []int{0, 0, 60, 40}, []int{3}, 1, nil},
		{"a small difference is left alone", []float64{0.6, 0.45}, []int{50, 50}, nil, 1, nil},
		{"a difference on a reactor that is hardly busy is left alone", []float64{0.22, 0}, []int{50, 50}, nil, 1, nil},
		{"who is not the busiest gives nothing", []float64{0.7, 0.9, 0}, []int{50, 50}, nil, 2, nil},
		{"who came a moment ago stays", []float64{0.9, 0}, []int{50, 50}, []int{1}, 1, func(s *Server, conns []*Conn) {
			conns[0].movedAt = s.reactors[0].now.MonoNanos
		}},
		{"one reactor of a server at a time", []float64{0.9, 0}, []int{50, 50}, nil, 1, func(s *Server, conns []*Conn) {
			s.lastMove.Store(s.reactors[0].now.MonoNanos + int64(2*balanceEvery) - 1)
		}},
		{"not in a shutdown", []float64{0.9, 0}, []int{50, 50}, nil, 1, func(s *Server, conns []*Conn) { s.reactors[0].draining = true }},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			s, conns := standing(t, len(tt.busy), len(tt.efforts), &movingHandler{})
			if tt.before != nil {
				tt.before(s, conns)
			}
			second(s, conns, tt.busy, tt.efforts)
			for i, c := range conns {
				if c.Reactor() != s.reactors[0] {
					t.Fatalf("connection %d moved after one second", i)
				}
			}
			second(s, conns, tt.busy, tt.efforts)
			var moved []int
			for i, c := range conns {
				if c.Reactor() == s.reactors[0] {
					continue
				}
				moved = append(moved, i)
				if c.Reactor() != s.reactors[tt.to] {
					t.Errorf("connection %d went to reactor %d, want %d", i, c.Reactor().index, tt.to)
				}
			}
			if !slices.Equal(moved, tt.moved) {
				t.Errorf("moved %v, want %v", moved, tt.moved)
			}
			if n := s.Stats().Moved; s.reactors[0].count.moved != uint64(len(moved)) || n > uint64(len(moved)) {
				t.Errorf("counted %d, published %d", s.reactors[0].count.moved, n)
			}
		})
	}
}

func TestConnectionsStayWhereTheyAreAskedTo(t *testing.T) {
	for _, tt := range []struct {
		rule string
		o    Options
		h    Handler
	}{
		{"with RebalanceOff", Options{Reactors: 2, Rebalance: RebalanceOff}, &movingHandler{}},
		{"with a handler that is no Mover", Options{Reactors: 2}, &testHandler{}},
		{"with one reactor", Options{Reactors: 1}, &movingHandler{}},
		{"on the portable path", Options{Reactors: 2, Portable: true}, &movingHandler{}},
		{"with rings", Options{Reactors: 2, Poller: PollerUring}, &movingHandler{}},
	} {
		if tt.o.Poller == PollerUring && ringUsable() != nil {
			continue
		}
		tt.o.NewHandler = func(*Reactor) Handler { return tt.h }
		s, err := NewServer(tt.o)
		if err != nil {
			t.Fatal(err)
		}
		if s.reactors[0].balancer.on {
			t.Errorf("%s: connections move", tt.rule)
		}
		s.Shutdown(context.Background())
	}
}

// A connection with something in flight does not move before that has come to its end.
func TestMoveWaitsForWhatIsInFlight(t *testing.T) {
	held := false
	h := &movingHandler{held: func(*Conn) bool { return held }}
	for _, tt := range []struct {
		what    string
		begin   func(r *Reactor, c *Conn)
		end     func(r *Reactor, c *Conn)
		forEver bool
	}{
		{"nothing", func(*Reactor, *Conn) {}, nil, false},
		{"a part of a frame", func(r *Reactor, c *Conn) { c.hold([]byte{0, 0}); c.notePartial() },
			func(r *Reactor, c *Conn) { c.releaseIn(); c.notePartial() }, false},
		{"output", func(r *Reactor, c *Conn) { c.End(append(c.Begin(), 1)) }, func(r *Reactor, c *Conn) { r.settleDirty() }, false},
		{"a frame of Send in the mail", func(r *Reactor, c *Conn) { c.Send(jsonFrame("x")) },
			func(r *Reactor, c *Conn) { r.readMail(); r.settleDirty() }, false},
		{"a posted function in the mail", func(r *Reactor, c *Conn) { r.Post(func() {}) }, func(r *Reactor, c *Conn) { r.readMail() }, false},
		{"what the handler keeps", func(r *Reactor, c *Conn) { held = true }, func(r *Reactor, c *Conn) { held = false }, false},
		{"its end", func(r *Reactor, c *Conn) { c.Close(io.EOF) }, func(r *Reactor, c *Conn) {}, true},
		{"its turn", func(r *Reactor, c *Conn) { c.waitTurn() }, func(r *Reactor, c *Conn) { r.resumeReady() }, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			s, conns := standing(t, 2, 1, h)
			r, c := s.reactors[0], conns[0]
			tt.begin(r, c)
			if tt.end != nil {
				if r.give(c, s.reactors[1]) || c.Reactor() != r {
					t.Fatal("moved")
				}
				tt.end(r, c)
			}
			if moved := r.give(c, s.reactors[1]); moved == tt.forEver {
				t.Errorf("moved: %v", moved)
			}
			if r.peek() != 0 {
				t.Error("the old reactor's kernel object still reports something")
			}
		})
	}
}

// What comes for a connection after it has moved, and before its new reactor knows it, finds it there.
func TestLettersFollowAConnection(t *testing.T) {
	s, conns := standing(t, 2, 1, &movingHandler{})
	a, b, c := s.reactors[0], s.reactors[1], conns[0]
	if !a.give(c, b) {
		t.Fatal("not moved")
	}
	if !c.Send(jsonFrame("x")) {
		t.Fatal("refused")
	}
	c.Close(io.EOF)
	if len(a.mail) != 0 || len(b.mail) != 3 || b.mail[0].kind != letterMoved || b.mail[1].kind != letterSend || b.mail[2].kind != letterClose {
		t.Fatalf("mail of the two: %v, %v", a.mail, b.mail)
	}
	b.readMail()
	if !c.gone || a.load.Load() != 0 || b.load.Load() != 0 {
		t.Errorf("gone: %v; %d and %d connections", c.gone, a.load.Load(), b.load.Load())
	}
}

// Whoever was about to write to the old reactor when the connection moved writes to the new one.
func TestLetterThatMeetsAMove(t *testing.T) {
	s, conns := standing(t, 2, 1, &movingHandler{})
	a, b, c := s.reactors[0], s.reactors[1], conns[0]
	a.mu.Lock()
	sent := make(chan bool)
	go func() { sent <- c.Send(jsonFrame("x")) }()
	for c.sent.Load() == 0 {
		runtime.Gosched()
	}
	for range 1000 { // it is on its way to the lock
		runtime.Gosched()
	}
	c.reactor.Store(b)
	a.mu.Unlock()
	if !receive(t, sent) || len(a.mail) != 0 || len(b.mail) != 1 {
		t.Errorf("%d letters at the old reactor, %d at the new one", len(a.mail), len(b.mail))
	}
	b.mail = nil
	c.sent.Store(0)
	c.reactor.Store(a)
}

// A connection that arrives at a reactor in a shutdown, or at one that has just ended, is closed as all are.
func TestMoveIntoAShutdown(t *testing.T) {
	for _, ended := range []bool{false, true} {
		closed := 0
		h := &movingHandler{testHandler: testHandler{close: func(*Conn) { closed++ }}}
		s, conns := standing(t, 2, 1, h)
		b := s.reactors[1]
		if !s.reactors[0].give(conns[0], b) {
			t.Fatal("not moved")
		}
		b.startDrain()
		if ended {
			b.end()
		} else {
			for b.turn(); !b.finished(); {
				b.turn()
			}
		}
		if closed != 1 || !conns[0].gone {
			t.Errorf("ended %v: OnClose %d times, gone %v", ended, closed, conns[0].gone)
		}
		if s.reactors[0].give(conns[0], b) {
			t.Error("a closed connection moved")
		}
	}
}

// travelled is a connection's own state in TestConnectionsMoveWhileTheyAreUsed; its fields are plain, so that the race detector
// sees who touches them.
type travelled struct {
	frames   uint64
	late     atomic.Int64 // answers on their way through the lane
	reactors map[int]bool
}

// Connections move all the time while clients pipeline requests and a lane answers some of them: nothing is lost, and order is kept.
func TestConnectionsMoveWhileTheyAreUsed(t *testing.T) {
	const clients, rounds, batch, moves = 6, 100, 40, 300
	var mu sync.Mutex
	var known []*Conn
	var closed atomic.Int64
	lane := NewLane(1, 100_000)
	defer lane.Close()
	newHandler := func(r *Reactor) Handler {
		return &movingHandler{testHandler: testHandler{
			frame: func(c *Conn, frame []byte) {
				if c.Reactor() != r {
					t.Error("a frame at a reactor that its connection is not of")
				}
				st, _ := c.User.(*travelled)
				if st == nil {
					st = &travelled{reactors: map[int]bool{}}
					c.User = st
					mu.Lock()
					known = append(known, c)
					mu.Unlock()
				}
				if bytes.HasSuffix(frame, []byte("end")) {
					go c.Close(io.EOF)
					return
				}
				st.frames++
				st.reactors[r.index] = true
				echo(c, frame)
				if st.frames%3 == 0 {
					st.late.Add(1)
					n := st.frames
					lane.Submit(c, frame, func(c *Conn, frame []byte) {
						c.Send(makeFrame(0, "{}", fmt.Sprintf("late %06d", n)))
						st.late.Add(-1)
					})
				}
			},
			close: func(c *Conn) {
				closed.Add(1)
				if n := len(c.User.(*travelled).reactors); n < 2 {
					t.Error("a connection stayed at one reactor")
				}
			},
		}}
	}
	s := serve(t, Options{Reactors: 3, NewHandler: newHandler}, nil)
	stop := make(chan bool)
	var movers sync.WaitGroup
	movers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			conns := slices.Clone(known)
			mu.Unlock()
			for _, c := range conns {
				r := c.Reactor()
				done := make(chan bool)
				r.Post(func() {
					if b := &r.balancer; c.Reactor() == r && len(b.want) == 0 {
						b.want, b.to, b.until = append(b.want, c), s.reactors[(r.index+1+rand.IntN(2))%3], 1<<62
					}
					close(done)
				})
				<-done
			}
		}
	})
	var users sync.WaitGroup
	for k := range clients {
		users.Go(func() {
			useMovingConn(t, s, k, batch, func(round int) bool { return round >= rounds && s.Stats().Moved >= moves })
		})
	}
	users.Wait()
	close(stop)
	movers.Wait()
	eventually(t, "all are closed", func() bool { return closed.Load() == clients })
}

// useMovingConn sends batches of numbered frames until there were enough, and checks that both kinds of answers come in order.
func useMovingConn(t *testing.T, s *Server, k, batch int, enough func(round int) bool) {
	conn, err := net.Dial("tcp", s.Addr(0).String())
	if err != nil {
		t.Error(err)
		return
	}
	c := newClient(t, conn)
	next := uint64(0)
	asked, got, late := 0, 0, 0
	for i, last := 0, false; !last; i++ {
		last = enough(i)
		var out []byte
		for range batch {
			asked++
			out = append(out, makeFrame(0, "{}", fmt.Sprintf("%d %06d", k, asked))...)
		}
		if i%5 == 0 { // a frame in two pieces
			c.Write(out[:len(out)-7])
			out = out[len(out)-7:]
		}
		if _, err := c.Write(out); err != nil {
			t.Error(err)
			return
		}
		for got < asked || last && late < asked/3 {
			var size [4]byte
			if _, err := io.ReadFull(c.r, size[:]); err != nil {
				t.Errorf("after %d of %d answers: %v", got, asked, err)
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(c.r, frame); err != nil {
				t.Error(err)
				return
			}
			if bytes.Contains(frame, []byte("late")) {
				next += 3
				if late++; !bytes.HasSuffix(frame, fmt.Appendf(nil, "late %06d", next)) {
					t.Errorf("%.60q, want number %d", frame, next)
					return
				}
				continue
			}
			if got++; !bytes.HasSuffix(frame, fmt.Appendf(nil, "%d %06d", k, got)) {
				t.Errorf("%.60q, want number %d", frame, got)
				return
			}
		}
	}
	if k%2 == 0 {
		c.Write(makeFrame(0, "{}", "end"))
		io.Copy(io.Discard, c.r)
	}
	c.Close()
}

// A move costs what a few system calls do, and takes no memory beyond its letter's.
func TestMoveDoesNotAllocate(t *testing.T) {
	s, conns := standing(t, 2, 1, &movingHandler{})
	a, b, c := s.reactors[0], s.reactors[1], conns[0]
	wantNoAllocs(t, "a move there and back", func() {
		if !a.give(c, b) {
			t.Fatal("not moved")
		}
		b.readMail()
		if !b.give(c, a) {
			t.Fatal("not moved back")
		}
		a.readMail()
	})
}

func BenchmarkMove(b *testing.B) {
	s, err := NewServer(Options{Reactors: 2, Logger: slog.New(slog.DiscardHandler), NewHandler: func(*Reactor) Handler { return &movingHandler{} }})
	if err != nil {
		b.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	c := s.newConn(s.reactors[0], 0, fds[0], netip.AddrPort{}, netip.AddrPort{})
	s.reactors[0].adopt(c)
	c.framed = true
	for i := 0; b.Loop(); i++ {
		s.reactors[i%2].give(c, s.reactors[1-i%2])
		s.reactors[1-i%2].readMail()
	}
	unix.Close(fds[0])
	unix.Close(fds[1])
}
