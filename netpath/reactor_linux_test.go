package netpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// handTurned is a server whose only reactor is turned by the test, and one connection of it,
// made of a socket pair. So it is known what happens in which turn.
type handTurned struct {
	r    *Reactor
	c    *Conn
	peer int
}

func newHandTurned(t testing.TB, o Options, h *testHandler) *handTurned {
	t.Helper()
	o.Reactors, o.Tick, o.Logger = 1, time.Second, slog.New(slog.DiscardHandler)
	o.NewHandler = func(*Reactor) Handler { return h }
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ht := &handTurned{r: s.reactors[0], peer: fds[1]}
	if ht.r.ring != nil {
		runtime.LockOSThread() // the ring is this thread's; it ends with the test
		ht.r.enableRing()
	}
	s.enter(netip.AddrPort{})
	ht.c = s.newConn(s.leastLoaded(), 0, fds[0], netip.AddrPort{}, netip.AddrPort{})
	ht.r.adopt(ht.c)
	t.Cleanup(func() {
		ht.r.drop(ht.c, ErrShutdown)
		unix.Close(ht.peer)
		s.Shutdown(context.Background())
		if n := s.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes are still charged", n)
		}
	})
	return ht
}

func (h *handTurned) send(t testing.TB, b []byte) {
	if n, err := unix.Write(h.peer, b); n != len(b) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(b), err)
	}
}

// turn runs one turn that something is known to be there for.
func (h *handTurned) turn() {
	h.r.Wake()
	h.r.turn()
	h.letGo()
}

// letGo does what a ring's next wait begins with: the output of the turn leaves.
func (h *handTurned) letGo() {
	if h.r.ring != nil {
		h.r.submit()
		h.r.collect()
	}
}

// eachPoller runs a test that turns its reactor by hand with epoll and with io_uring.
func eachPoller(t *testing.T, test func(t *testing.T, o Options)) {
	t.Run("epoll", func(t *testing.T) { test(t, Options{}) })
	t.Run("uring", func(t *testing.T) {
		needsRing(t)
		test(t, Options{Poller: PollerUring})
	})
}

func (h *handTurned) drain(buf []byte) int {
	n, _ := unix.Read(h.peer, buf)
	return max(n, 0)
}

func TestFramesOfATurnAreAnsweredWithOneWrite(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		h := newHandTurned(t, o, &testHandler{frame: echo})
		for _, frames := range []int{1, 64, 500} {
			in := bytes.Repeat(jsonFrame("hello"), frames)
			before := h.r.count
			h.send(t, in)
			h.turn()
			if n := h.r.count.framesIn - before.framesIn; n != uint64(frames) {
				t.Errorf("%d frames handled, want %d", n, frames)
			}
			if n := h.r.count.writes - before.writes; n != 1 {
				t.Errorf("%d writes for %d frames, want 1", n, frames)
			}
			out := make([]byte, len(in)+1)
			if n := h.drain(out); !bytes.Equal(out[:n], in) {
				t.Errorf("%d bytes came back, want %d", n, len(in))
			}
		}
	})
}

func TestBytesAndRangesLeaveWithOneCallEach(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 4096)
		var rel countedRelease
		h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			echo(c, frame)
			echo(c, frame)
			c.SendFile(int(file.Fd()), 0, len(data), &rel)
			echo(c, frame)
		}})
		h.send(t, jsonFrame("x"))
		h.turn()
		if c := h.r.count; c.writes != 2 || c.sendFiles != 1 || rel.n.Load() != 1 {
			t.Errorf("%d writes, %d sendfiles, %d releases", c.writes, c.sendFiles, rel.n.Load())
		}
		want := append(bytes.Repeat(jsonFrame("x"), 2), data...)
		want = append(want, jsonFrame("x")...)
		got := make([]byte, len(want)+1)
		n := 0
		for k := 1; k > 0; n += k {
			k = h.drain(got[n:])
		}
		if !bytes.Equal(got[:n], want) {
			t.Errorf("%d bytes, want %d", n, len(want))
		}
	})
}

// No connection gets more than its share of a turn, and none loses what it did not get.
func TestShareOfATurn(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		h := newHandTurned(t, o, &testHandler{frame: echo})
		in := bytes.Repeat(makeFrame(1, "x", ""), 3*framesPerTurn/2)
		h.send(t, jsonFrame("first"))
		h.turn()
		h.drain(make([]byte, 1024))
		before := h.r.count.framesIn
		h.send(t, in)
		h.turn()
		// A ring's share ends with the piece in which it is used up.
		if n := h.r.count.framesIn - before; n != framesPerTurn && (h.r.ring == nil || n < framesPerTurn || n > framesPerTurn+defaultRingBufferSize/8) {
			t.Errorf("%d frames in the first turn", n)
		}
		h.r.turn() // does not wait: the connection is ready
		if n := h.r.count.framesIn - before; n != 3*framesPerTurn/2 {
			t.Errorf("%d frames in two turns", n)
		}
		if h.c.in != nil || h.c.pause != 0 {
			t.Errorf("%d bytes held, pause %b", len(h.c.in), h.c.pause)
		}
	})
}

// The buffer of an unfinished frame follows the bytes that came, not those that were announced.
func TestBuffersGrowWithWhatArrives(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		h := newHandTurned(t, o, &testHandler{frame: echo})
		frame := jsonFrame(strings.Repeat("x", 8<<20))
		h.send(t, frame[:3])
		h.turn()
		h.send(t, frame[3:9])
		h.turn()
		if n := cap(h.c.in); n > 4<<10 {
			t.Errorf("%d bytes for 9", n)
		}
		for sent := 9; sent < 1<<20; {
			n := min(50_000, len(frame)-sent)
			h.send(t, frame[sent:sent+n])
			sent += n
			h.turn()
			for turns := 0; len(h.c.in) != sent && h.r.ring != nil && turns < 10; turns++ {
				h.turn() // the kernel may hand a piece out later
			}
			if len(h.c.in) != sent {
				t.Fatalf("%d bytes held of %d", len(h.c.in), sent)
			}
			if n := cap(h.c.in); n > 4*sent+4<<10 {
				t.Fatalf("%d bytes for %d", n, sent)
			}
		}
		if h.r.srv.budget.used.Load() != int64(cap(h.c.in)) {
			t.Error("the buffer is not charged")
		}
	})
}

// Before the first frame proves its prefix, no more than FirstFrameBytes is read.
func TestStrangersAreReadInSmallBites(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		h := newHandTurned(t, o, &testHandler{frame: echo})
		h.send(t, bytes.Repeat(jsonFrame("hello"), 1000))
		h.turn()
		if n := h.r.count.bytesIn; n != 4096 {
			t.Errorf("%d bytes read at first", n)
		}
		h.turn()
		if n := h.r.count.bytesIn; n <= 8192 {
			t.Errorf("%d bytes read in two turns", n)
		}
	})
}

// Nothing is held for a connection that is not in the middle of something.
func TestIdleConnectionHoldsNoBuffers(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		h := newHandTurned(t, o, &testHandler{frame: echo})
		frame := jsonFrame(strings.Repeat("x", 10_000))
		h.send(t, frame[:5000])
		h.turn()
		h.send(t, frame[5000:])
		h.turn()
		if h.c.in != nil || h.c.head != nil || h.c.charged != 0 || h.c.partialSince != 0 {
			t.Errorf("held: in %d, output %v, charged %d", cap(h.c.in), h.c.head, h.c.charged)
		}
	})
}

// wantNoAllocs fails if a round of fn allocates. The race detector allocates by itself.
func wantNoAllocs(t *testing.T, what string, fn func()) {
	t.Helper()
	for range 10 {
		fn() // fills the free lists
	}
	if n := testing.AllocsPerRun(200, fn); n != 0 {
		t.Errorf("%s: %v allocations a round", what, n)
	}
}

func TestFrameToResponseDoesNotAllocate(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, _ := testFile(t, 4096)
		var rel countedRelease
		fd := int(file.Fd())
		h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			echo(c, frame)
			if bytes.Contains(frame, []byte("pull")) {
				c.SendFile(fd, 0, 1024, &rel)
			}
		}})
		out := make([]byte, 1<<20)
		round := func(pieces ...[]byte) func() {
			return func() {
				for _, in := range pieces {
					h.send(t, in)
					h.turn()
				}
				got := h.drain(out)
				for turns := 0; got == 0 && h.r.ring != nil && turns < 10; turns++ {
					h.turn()
					got = h.drain(out)
				}
				if got == 0 {
					t.Fatal("no answer")
				}
			}
		}
		big := jsonFrame(strings.Repeat("x", 40_000))
		batch := bytes.Repeat(jsonFrame(strings.Repeat("x", 300)), 64)
		wantNoAllocs(t, "64 frames", round(batch))
		wantNoAllocs(t, "a frame in two pieces", round(big[:20_000], big[20_000:]))
		wantNoAllocs(t, "frames cut anywhere", round(batch[:999], batch[999:5000], batch[5000:]))
		wantNoAllocs(t, "pull", round(jsonFrame("pull")))
		reply := jsonFrame("reply")
		wantNoAllocs(t, "Send", func() {
			h.c.Send(reply)
			h.r.turn()
			h.letGo()
			h.drain(out)
		})
		ran := 0
		fn := func() { ran++ }
		wantNoAllocs(t, "Post", func() {
			h.r.Post(fn)
			h.r.turn()
		})
		if ran == 0 {
			t.Error("posted function did not run")
		}
	})
}

// A connection that is held up keeps at most what it was promised, and is not asked for more.
func TestPausedConnectionIsNotReported(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{frame: func(c *Conn, frame []byte) {
		c.End(append(c.Begin(), make([]byte, 400<<10)...))
	}})
	h.send(t, bytes.Repeat(jsonFrame("x"), 100))
	h.turn()
	if h.c.pause&pausedOutput == 0 || h.c.interest != unix.EPOLLOUT || h.c.Backlog() > pauseBacklog+400<<10 {
		t.Fatalf("pause %b, interest %x, backlog %d", h.c.pause, h.c.interest, h.c.Backlog())
	}
	if h.r.peek() != 0 {
		t.Error("the kernel reports a connection that is paused and full")
	}
	buf := make([]byte, 1<<20)
	for total, turns := 0, 0; total < 100*400<<10; turns++ {
		total += h.drain(buf)
		h.turn()
		if turns > 100_000 {
			t.Fatalf("%d bytes came", total)
		}
	}
	if h.c.pause != 0 || h.c.interest != unix.EPOLLIN || h.r.srv.budget.used.Load() != 0 {
		t.Errorf("pause %b, interest %x, charged %d", h.c.pause, h.c.interest, h.r.srv.budget.used.Load())
	}
}

// The eventfd is written only for a reactor that sleeps.
func TestWakeIsCoalesced(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{})
	reported := func() bool { return h.r.peek() > 0 }
	h.r.Wake()
	if reported() {
		t.Error("a reactor that does not sleep was interrupted")
	}
	h.r.state.Store(asleep)
	h.r.Wake()
	if !reported() {
		t.Error("a sleeping reactor was not interrupted")
	}
	h.r.Wake()
	if reported() {
		t.Error("a reactor that was woken was interrupted again")
	}
}

// The eventfd is never read: it must take any number of wakes.
func TestWakesDoNotRunOut(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{})
	for i := range 10_000 {
		h.r.state.Store(asleep)
		h.r.Wake()
		if h.r.peek() == 0 {
			t.Fatalf("wake %d did not interrupt", i)
		}
	}
}

// Deadlines are found in every slot, whatever the number of ticks a sweep takes.
func TestSweepReachesEveryConnection(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{})
	h.r.srv.opt.Tick = 100 * time.Millisecond
	for range 95 {
		h.r.srv.enter(netip.AddrPort{})
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[1])
		h.r.adopt(h.r.srv.newConn(h.r.srv.leastLoaded(), 0, fds[0], netip.AddrPort{}, netip.AddrPort{}))
	}
	h.r.now.MonoNanos += int64(h.r.limits.FirstFrameTimeout) + 1
	sweeps := 0
	for ; h.r.srv.census.count() > 0; sweeps++ {
		h.r.sweep()
		if sweeps > 10 {
			t.Fatalf("%d connections left after a second", h.r.srv.census.count())
		}
	}
	if sweeps < 9 {
		t.Errorf("all connections were swept in %d ticks", sweeps)
	}
}

func TestAcceptedSocketsHaveNoDelay(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		got := make(chan int, 1)
		s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			v, _ := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
			got <- v
		}})
		dial(t, s).send(jsonFrame("x"))
		if receive(t, got) == 0 {
			t.Error("TCP_NODELAY is off")
		}
	})
}

// With all descriptors in use connections wait at the listener, and are served later.
func TestAcceptSurvivesWantOfDescriptors(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		o.Tick = 5 * time.Millisecond
		// A ring goes by the limit of the time when it began to accept.
		var old unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Skip(err)
		}
		limit := old
		limit.Cur = 400
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Skip(err)
		}
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		s := serve(t, o, &testHandler{frame: echo})
		c := dial(t, s)
		c.send(jsonFrame("x"))
		c.expect(jsonFrame("x"))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var taken []int
		for {
			n, err := unix.Dup(fd)
			if err != nil {
				break
			}
			taken = append(taken, n)
		}
		restore := func() {
			for _, n := range taken {
				unix.Close(n)
			}
			taken = nil
		}
		defer restore()
		addr := s.Addr(0).(*net.TCPAddr)
		sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
		if err := unix.Connect(fd, sa); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		before := s.Stats().Turns
		c.send(jsonFrame("others are served"))
		c.expect(jsonFrame("others are served"))
		eventually(t, "some turns", func() bool { return s.Stats().Turns > before+5 })
		if n := s.Stats().Accepted; n != 1 {
			t.Errorf("%d connections accepted", n)
		}
		restore()
		unix.Write(fd, jsonFrame("late"))
		got := make([]byte, len(jsonFrame("late")))
		if n, err := unix.Read(fd, got); n != len(got) || !bytes.Equal(got, jsonFrame("late")) {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}

// BenchmarkEcho is a client with 64 requests in flight on one loopback connection.
func BenchmarkEcho(b *testing.B) {
	for _, portable := range []bool{false, true} {
		for _, inFlight := range []int{1, 64} {
			b.Run(fmt.Sprintf("portable=%v/inFlight=%d", portable, inFlight), func(b *testing.B) {
				s := serve(b, Options{Reactors: 1, Portable: portable}, &testHandler{frame: echo})
				conn, err := net.Dial("tcp", s.Addr(0).String())
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				batch := bytes.Repeat(jsonFrame(strings.Repeat("x", 200)), inFlight)
				answer := make([]byte, len(batch))
				start := s.Stats()
				b.ReportAllocs()
				b.ResetTimer()
				for n := 0; n < b.N; n += inFlight {
					conn.Write(batch)
					if _, err := io.ReadFull(conn, answer); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				st := s.Stats()
				b.ReportMetric(float64(st.FramesIn-start.FramesIn)/float64(max(1, st.Writes-start.Writes)), "frames/write")
			})
		}
	}
}

// BenchmarkTurn is the reactor's own cost: 64 frames read, cut, answered and written, a turn.
func BenchmarkTurn(b *testing.B) {
	h := newHandTurned(b, Options{}, &testHandler{frame: func(c *Conn, frame []byte) {
		c.End(binary.BigEndian.AppendUint32(c.Begin(), uint32(len(frame))))
	}})
	batch := bytes.Repeat(jsonFrame(strings.Repeat("x", 200)), 64)
	out := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		h.send(b, batch)
		h.turn()
		h.drain(out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/frame")
}

// A watched descriptor begins a turn each time that it becomes readable, however deep the reactor sleeps, and is left to the handler.
func TestWatchedDescriptorsBeginTurns(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) }) // behind the server's end
		seen := make(chan uint64, 1)
		h := &testHandler{turn: func(Clock) {
			b := make([]byte, 8)
			if n, _ := unix.Read(fd, b); n == 8 {
				seen <- binary.NativeEndian.Uint64(b)
			}
		}}
		o.Reactors = 1
		o.NewHandler = func(r *Reactor) Handler {
			if err := r.Watch(fd); err != nil {
				t.Error(err)
			}
			return h
		}
		serve(t, o, h)
		for i := range uint64(50) {
			one := make([]byte, 8)
			binary.NativeEndian.PutUint64(one, i+1)
			if _, err := unix.Write(fd, one); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-seen:
				if got != i+1 {
					t.Fatalf("read %d, want %d", got, i+1)
				}
			case <-time.After(patience):
				t.Fatal("no turn began")
			}
		}
	})
	if err := newReactor(&Server{}, 0, false).Watch(0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on the portable path: %v", err)
	}
}
