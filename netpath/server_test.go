package netpath

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 20 * time.Second

// testHandler is a Handler made of functions; nil ones do nothing.
type testHandler struct {
	frame func(c *Conn, frame []byte)
	close func(c *Conn)
	turn  func(now Clock)
}

func (h *testHandler) OnFrame(c *Conn, frame []byte) {
	if h.frame != nil {
		h.frame(c, frame)
	}
}

func (h *testHandler) OnClose(c *Conn) {
	if h.close != nil {
		h.close(c)
	}
}

func (h *testHandler) OnTurn(now Clock) {
	if h.turn != nil {
		h.turn(now)
	}
}

func echo(c *Conn, frame []byte) {
	b := c.Begin()
	b = binary.BigEndian.AppendUint32(b, uint32(len(frame)))
	c.End(append(b, frame...))
}

// eachTransport runs the test with each native poller that there is, and on the portable path.
func eachTransport(t *testing.T, test func(t *testing.T, o Options)) {
	if hasPoller {
		t.Run("native", func(t *testing.T) { test(t, Options{}) })
	}
	t.Run("uring", func(t *testing.T) {
		needsRing(t)
		test(t, Options{Poller: PollerUring})
	})
	t.Run("portable", func(t *testing.T) { test(t, Options{Portable: true}) })
}

// needsRing skips a test where io_uring is refused.
func needsRing(t testing.TB) {
	t.Helper()
	if err := ringUsable(); err != nil {
		t.Skip(err)
	}
}

// serve starts a server on loopback whose reactors all use h, and ends it with the test.
func serve(t testing.TB, o Options, h *testHandler) *Server {
	t.Helper()
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.NewHandler == nil {
		o.NewHandler = func(*Reactor) Handler { return h }
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.Shutdown(ctx)
		if n := s.Stats().Conns; n != 0 {
			t.Errorf("%d connections left after Shutdown", n)
		}
		if n := s.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes charged after Shutdown", n)
		}
		if err := s.ringsAreEmpty(); err != nil {
			t.Error(err)
		}
		if c := s.budget.privileged.Load(); c != nil {
			t.Errorf("connection %d still has the memory privilege", c.ID)
		}
	})
	return s
}

// ringsAreEmpty says whether the rings of a server that is shut down ended with nothing in flight.
func (s *Server) ringsAreEmpty() error {
	for _, r := range s.reactors {
		if r.ring != nil && r.ring.inFlight != 0 {
			return fmt.Errorf("reactor %d ended with %d operations in flight", r.index, r.ring.inFlight)
		}
	}
	return nil
}

type testClient struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newClient(t testing.TB, conn net.Conn) *testClient {
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &testClient{conn, t, bufio.NewReader(conn)}
}

func dial(t testing.TB, s *Server) *testClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr(0).String())
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn)
}

func (c *testClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads exactly want.
func (c *testClient) expect(want []byte) {
	c.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c.r, got); err != nil {
		c.t.Fatalf("after %d of %d bytes: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		c.t.Fatalf("got %.100q, want %.100q", got, want)
	}
}

// expectClosed reads until the server closes, and fails on a byte or a timeout.
func (c *testClient) expectClosed() {
	c.t.Helper()
	n, err := io.Copy(io.Discard, c.r)
	var ne net.Error
	if n > 0 || errors.As(err, &ne) && ne.Timeout() {
		c.t.Fatalf("%d bytes, error %v; want the connection closed", n, err)
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestFramesAreEchoedHoweverTheyArrive(t *testing.T) {
	small, big := jsonFrame("hello"), jsonFrame(strings.Repeat("x", 3<<20))
	many := bytes.Repeat(makeFrame(1, "012345678901234567890", "b"), 5000)
	tests := []struct {
		name  string
		input []byte
		piece int
	}{
		{"one frame at once", small, 1 << 30},
		{"byte by byte", bytes.Repeat(small, 3), 1},
		{"in pieces that straddle frames", bytes.Repeat(small, 500), 37},
		{"thousands of frames at once", many, 1 << 30},
		{"a large frame at once", big, 1 << 30},
		{"large and small frames in pieces", append(append(bytes.Clone(big), small...), big...), 100_003},
		{"small frames behind a large one", append(bytes.Clone(big), many...), 1 << 20},
	}
	eachTransport(t, func(t *testing.T, o Options) {
		s := serve(t, o, &testHandler{frame: echo})
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				c := dial(t, s)
				go func() {
					for rest := tt.input; len(rest) > 0; {
						n, err := c.Write(rest[:min(len(rest), tt.piece)])
						if err != nil {
							return
						}
						rest = rest[n:]
					}
				}()
				c.expect(tt.input)
			})
		}
		eventually(t, "nothing is charged when all is answered", func() bool {
			return o.Portable || s.Stats().InFlightBytes == 0
		})
	})
}

func TestLiesCloseTheConnection(t *testing.T) {
	tests := []struct {
		name   string
		input  []byte
		echoed int // bytes that must come back before the end
	}{
		{"a length of 4 GiB", []byte{0xff, 0xff, 0xff, 0xff}, 0},
		{"a length of 0", []byte{0, 0, 0, 0}, 0},
		{"an unknown serialization", []byte{0, 0, 1, 0, 9, 0, 0, 9}, 0},
		{"a header longer than the frame", []byte{0, 0, 1, 0, 0, 0, 2, 0}, 0},
		{"a first header that is no JSON", []byte{0, 0, 1, 0, 0, 0, 0, 9, 'x'}, 0},
		{"an HTTP request", []byte("GET / HTTP/1.1\r\n\r\n"), 0},
		{"a lie behind a good frame, which is answered", append(jsonFrame("good"), 0, 0, 0, 1), len(jsonFrame("good"))},
	}
	eachTransport(t, func(t *testing.T, o Options) {
		s := serve(t, o, &testHandler{frame: echo})
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				before := s.Stats().Refused["badFrame"]
				c := dial(t, s)
				c.send(tt.input)
				c.expect(tt.input[:tt.echoed])
				c.expectClosed()
				eventually(t, "it is counted", func() bool { return s.Stats().Refused["badFrame"] == before+1 })
			})
		}
	})
}

func TestDeadlines(t *testing.T) {
	const short, long = 60 * time.Millisecond, time.Hour
	frame := jsonFrame("hello")
	tests := []struct {
		name   string
		limits Limits
		send   []byte
		answer int
		reason string
	}{
		{"silence from the start", Limits{FirstFrameTimeout: short, PartialFrameTimeout: long}, nil, 0, "firstFrameTimeout"},
		{"a first frame that never ends", Limits{FirstFrameTimeout: short, PartialFrameTimeout: long}, frame[:12], 0, "firstFrameTimeout"},
		{"a later frame that never ends", Limits{FirstFrameTimeout: long, PartialFrameTimeout: short}, append(bytes.Clone(frame), frame[:12]...), len(frame), "partialFrameTimeout"},
		{"silence after a frame", Limits{FirstFrameTimeout: long, PartialFrameTimeout: long, IdleTimeout: short}, frame, len(frame), "idle"},
	}
	eachTransport(t, func(t *testing.T, o Options) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				o := o
				o.Limits, o.Tick = tt.limits, 5*time.Millisecond
				s := serve(t, o, &testHandler{frame: echo})
				c := dial(t, s)
				if len(tt.send) > 0 {
					c.send(tt.send)
				}
				c.expect(tt.send[:tt.answer])
				c.expectClosed()
				eventually(t, "it is counted", func() bool { return s.Stats().Refused[tt.reason] == 1 })
			})
		}
	})
}

// A client that sends a byte now and then is not idle, but its frame still has its deadline.
func TestTricklingDoesNotMoveTheDeadline(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Limits.PartialFrameTimeout, o.Tick = 100*time.Millisecond, 5*time.Millisecond
		s := serve(t, o, &testHandler{frame: echo})
		c := dial(t, s)
		c.send(jsonFrame("first"))
		c.expect(jsonFrame("first"))
		// Byte by byte without a rest: the connection is never silent, and 4 MiB take longer than that in any case.
		slow := jsonFrame(strings.Repeat("x", 4<<20))
		for i := range slow {
			if _, err := c.Write(slow[i : i+1]); err != nil {
				break
			}
			if i == len(slow)-1 {
				t.Fatal("still open")
			}
		}
		eventually(t, "it is counted", func() bool { return s.Stats().Refused["partialFrameTimeout"] == 1 })
	})
}

func TestConnectionFloods(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		reason string
	}{
		{"in all", Limits{MaxConns: 3}, "maxConns"},
		{"from one address", Limits{MaxConnsPerAddr: 3}, "maxConnsPerAddr"},
	}
	eachTransport(t, func(t *testing.T, o Options) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				o := o
				o.Limits = tt.limits
				s := serve(t, o, &testHandler{frame: echo})
				var kept []*testClient
				for range 3 {
					c := dial(t, s)
					c.send(jsonFrame("in"))
					c.expect(jsonFrame("in"))
					kept = append(kept, c)
				}
				for range 10 {
					dial(t, s).expectClosed()
				}
				st := s.Stats()
				if st.Conns != 3 || st.Refused[tt.reason] != 10 || st.Accepted != 13 {
					t.Errorf("%d connections, %d accepted, refused %v", st.Conns, st.Accepted, st.Refused)
				}
				kept[0].Close()
				eventually(t, "the place is free", func() bool { return s.Stats().Conns == 2 })
				c := dial(t, s)
				c.send(jsonFrame("next"))
				c.expect(jsonFrame("next"))
			})
		}
	})
}

func TestOnCloseComesOnceForEstablishedConnectionsOnly(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		var mu sync.Mutex
		closed := map[uint64]int{}
		ids := make(chan uint64, 10)
		s := serve(t, o, &testHandler{
			frame: func(c *Conn, frame []byte) {
				if bytes.Contains(frame, []byte("close")) {
					for range 3 {
						c.Close(io.EOF)
					}
				}
				ids <- c.ID
			},
			close: func(c *Conn) {
				mu.Lock()
				defer mu.Unlock()
				closed[c.ID]++
				if !c.Closed() || c.Send(jsonFrame("late")) {
					t.Error("a closed connection took a frame")
				}
				c.End(append(c.Begin(), "nobody reads this"...))
			},
		})
		silent := dial(t, s)
		byUs, byThem := dial(t, s), dial(t, s)
		byUs.send(jsonFrame("close"))
		byUs.expectClosed()
		byThem.send(jsonFrame("hello"))
		a, b := receive(t, ids), receive(t, ids)
		byThem.Close()
		silent.Close()
		eventually(t, "all are gone", func() bool { return s.Stats().Conns == 0 })
		mu.Lock()
		defer mu.Unlock()
		if len(closed) != 2 || closed[a] != 1 || closed[b] != 1 {
			t.Errorf("OnClose calls by connection: %v; established: %d, %d", closed, a, b)
		}
	})
}

func TestQueuedOutputLeavesBeforeClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			echo(c, frame)
			c.Send(jsonFrame("sent"))
			c.Close(io.EOF)
			echo(c, frame)
		}})
		c := dial(t, s)
		c.send(jsonFrame("bye"))
		c.expect(jsonFrame("bye"))
		c.expect(jsonFrame("bye")) // answered in the same turn, and so before Send's letter was read
		c.expect(jsonFrame("sent"))
		c.expectClosed()
	})
}

func TestSendAndPostFromOtherGoroutines(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		conns := make(chan *Conn, 1)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) { conns <- c }})
		client := dial(t, s)
		client.send(jsonFrame("hello"))
		c := receive(t, conns)
		const senders, each = 4, 500
		var wg sync.WaitGroup
		var posted atomic.Int64
		for g := range senders {
			wg.Go(func() {
				for i := range each {
					body := strings.Repeat(string(rune('a'+g)), 1+i*20) // beyond sendCopyMax, too
					if !c.Send(jsonFrame(body)) || !c.Reactor().Post(func() { posted.Add(1) }) {
						t.Error("refused")
						return
					}
				}
			})
		}
		next := [senders]int{}
		for range senders * each {
			head := make([]byte, prefixSize)
			if _, err := io.ReadFull(client.r, head); err != nil {
				t.Fatal(err)
			}
			rest := make([]byte, frameSize(head)-prefixSize)
			if _, err := io.ReadFull(client.r, rest); err != nil {
				t.Fatal(err)
			}
			body := rest[len(`{"code":10}`):]
			g := int(body[0] - 'a')
			if want := 1 + next[g]*20; len(body) != want || len(bytes.Trim(body, string(body[:1]))) != 0 {
				t.Fatalf("sender %d: body of %d bytes, want %d", g, len(body), want)
			}
			next[g]++
		}
		wg.Wait()
		eventually(t, "all functions ran", func() bool { return posted.Load() == senders*each })
		client.Close()
		eventually(t, "closed", func() bool { return c.Closed() && s.Stats().Conns == 0 })
		if c.Send(jsonFrame("late")) {
			t.Error("Send on a closed connection returned true")
		}
	})
}

func TestPostIsBounded(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		s := serve(t, o, &testHandler{})
		r := s.Reactors()[0]
		entered, hold := make(chan bool), make(chan bool)
		r.Post(func() { close(entered); <-hold })
		receive(t, entered)
		var ran atomic.Int64
		n := 0
		for r.Post(func() { ran.Add(1) }) {
			n++
		}
		if n != maxPosts {
			t.Errorf("%d functions were taken, want %d", n, maxPosts)
		}
		close(hold)
		eventually(t, "those that were taken run", func() bool { return ran.Load() == int64(n) })
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if r.Post(func() {}) {
			t.Error("Post after Shutdown returned true")
		}
		r.Wake()
	})
}

func TestShutdownWritesWhatWasAnswered(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		const size = 8 << 20
		answered := make(chan bool, 1)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			c.End(append(c.Begin(), make([]byte, size)...))
			answered <- true
		}})
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		receive(t, answered)
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		c.expect(make([]byte, size))
		c.expectClosed()
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
		if conn, err := net.Dial("tcp", s.Addr(0).String()); err == nil {
			conn.Close()
			t.Error("a connection was accepted after Shutdown")
		}
	})
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		answered, closed := make(chan bool, 1), make(chan bool, 1)
		s := serve(t, o, &testHandler{
			frame: func(c *Conn, frame []byte) {
				c.End(append(c.Begin(), make([]byte, 24<<20)...))
				answered <- true
			},
			close: func(*Conn) { closed <- true },
		})
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		receive(t, answered)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		receive(t, closed)
	})
}

func TestServerThatNeverStarted(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"}
		o.NewHandler = func(*Reactor) Handler { return &testHandler{} }
		s, err := NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		s.Start()
		if _, err := net.Dial("tcp", s.Addr(1).String()); err == nil {
			t.Error("connected to a server that was shut down")
		}
	})
}

// OnTurn comes when it was asked for, and not from tick to tick while nothing is due.
func TestOnTurnComesWithTimer(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Tick = time.Millisecond
		turns := make(chan Clock, 1000)
		s := serve(t, o, &testHandler{turn: func(now Clock) {
			select {
			case turns <- now:
			default:
			}
		}})
		r := s.Reactors()[0]
		wish := make(chan int64, 1)
		r.Post(func() {
			at := r.Now().MonoNanos + int64(100*time.Millisecond)
			r.SetTimer(at + int64(time.Hour))
			r.SetTimer(at)
			wish <- at
		})
		at := receive(t, wish)
		before := 0
		for receive(t, turns).MonoNanos < at {
			before++
		}
		if before > 5 {
			t.Errorf("%d turns within 100 ms in which nothing happened", before)
		}
	})
}

func TestListenersAndReactors(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		o.Listen = []string{"127.0.0.1:0", ":0"}
		o.Reactors = 3
		type seen struct {
			listener, reactor int
			remote, local     netip.AddrPort
		}
		got := make(chan seen, 100)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			got <- seen{c.Listener, c.Reactor().Index(), c.Remote, c.Local}
		}})
		reactors := map[int]int{}
		for i := range 12 {
			_, port, _ := net.SplitHostPort(s.Addr(i % 2).String())
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(t, conn)
			c.send(jsonFrame("hello"))
			v := receive(t, got)
			if v.listener != i%2 || v.remote.String() != conn.LocalAddr().String() || v.local.String() != conn.RemoteAddr().String() {
				t.Errorf("connection %d: %+v, from %v to %v", i, v, conn.LocalAddr(), conn.RemoteAddr())
			}
			reactors[v.reactor]++
		}
		if len(reactors) != 3 || reactors[0] != 4 || reactors[1] != 4 {
			t.Errorf("connections by reactor: %v", reactors)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	h := func(*Reactor) Handler { return &testHandler{} }
	for name, o := range map[string]Options{
		"no handler":                {Listen: []string{"127.0.0.1:0"}},
		"TLS without a certificate": {TLSMode: TLSEnforcing, NewHandler: h},
		"an address that is none":   {Listen: []string{"127.0.0.1:0", "nonsense"}, NewHandler: h},
	} {
		if s, err := NewServer(o); err == nil {
			s.Shutdown(context.Background())
			t.Errorf("%s: no error", name)
		}
	}
}

// syncBuffer collects a log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestStallIsLoggedWithItsStep(t *testing.T) {
	eachTransport(t, func(t *testing.T, o Options) {
		var log syncBuffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := serve(t, o, &testHandler{})
		for range 3 {
			done := make(chan bool)
			s.Reactors()[0].Post(func() { <-time.After(4 * stallThreshold); close(done) })
			receive(t, done)
		}
		eventually(t, "the log names the step", func() bool { return strings.Contains(log.String(), "step=mail") })
		if n := strings.Count(log.String(), "took long"); n != 1 {
			t.Errorf("%d lines within a second, want 1:\n%s", n, log.String())
		}
		if s.Stats().LongestTurn < stallThreshold {
			t.Errorf("longest turn %v", s.Stats().LongestTurn)
		}
	})
}
