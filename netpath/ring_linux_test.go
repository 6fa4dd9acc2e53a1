package netpath

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/internal/seccomp"
)

func newRungByHand(t testing.TB, o Options, h *testHandler) *handTurned {
	t.Helper()
	needsRing(t)
	o.Poller = PollerUring
	return newHandTurned(t, o, h)
}

// prove makes the connection one that a receive is in flight for.
func (h *handTurned) prove(t testing.TB) {
	t.Helper()
	h.send(t, jsonFrame("first"))
	h.turn()
	h.drain(make([]byte, 4096))
	if h.c.armed != armedRecv {
		t.Fatalf("in flight: %b", h.c.armed)
	}
}

// Everything that 16 connections sent, and the answers to it, is one call into the kernel.
func TestATurnIsOneCall(t *testing.T) {
	h := newRungByHand(t, Options{}, &testHandler{frame: echo})
	h.prove(t)
	var peers []int
	for range 16 {
		c, peer := h.another(t)
		if _, err := unix.Write(peer, jsonFrame("first")); err != nil {
			t.Fatal(err)
		}
		h.turn()
		if c.armed != armedRecv {
			t.Fatalf("in flight: %b", c.armed)
		}
		peers = append(peers, peer)
	}
	buf := make([]byte, 4096)
	for _, p := range peers {
		unix.Read(p, buf)
	}
	request := bytes.Repeat(jsonFrame("hello"), 4)
	before, calls := h.r.count, h.r.ring.Counts().Enters
	for range 10 {
		for _, p := range peers {
			unix.Write(p, request)
		}
		h.r.Wake()
		h.r.turn() // one call: the last round's answers leave, this one's requests come
	}
	if n := h.r.ring.Counts().Enters - calls; n != 10 {
		t.Errorf("%d calls in 10 turns", n)
	}
	if n := h.r.count.framesIn - before.framesIn; n != 10*16*4 {
		t.Errorf("%d frames", n)
	}
	if n := h.r.count.writes - before.writes; n != 10*16 {
		t.Errorf("%d sends for 16 connections in 10 turns", n)
	}
	h.letGo()
	for i, p := range peers {
		if n, _ := unix.Read(p, buf); !bytes.Equal(buf[:n], bytes.Repeat(request, 10)) {
			t.Errorf("connection %d got %d bytes", i, n)
		}
	}
}

// another is one more connection of the reactor.
func (h *handTurned) another(t testing.TB) (*Conn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.r.srv.enter(h.c.Remote)
	c := h.r.srv.newConn(h.r.srv.leastLoaded(), 0, fds[0], h.c.Remote, h.c.Local)
	h.r.adopt(c)
	t.Cleanup(func() {
		h.r.drop(c, ErrShutdown)
		unix.Close(fds[1])
	})
	return c, fds[1]
}

// While bytes wait to be submitted nothing is appended to them: an append might move them, and the kernel knows the old place.
func TestOutputInASendIsNotAppendedTo(t *testing.T) {
	h := newRungByHand(t, Options{}, &testHandler{frame: echo})
	h.prove(t)
	h.send(t, jsonFrame("one"))
	h.r.Wake()
	h.r.turn()
	if !h.c.sending || !h.c.head.sending || h.r.ring.Prepared() == 0 {
		t.Fatal("no send is prepared")
	}
	first := h.c.head
	big := jsonFrame(strings.Repeat("x", 100_000))
	h.c.End(append(h.c.Begin(), big...))
	if h.c.tail == first || len(first.buf) != len(jsonFrame("one")) {
		t.Error("the answer was put into a segment that is being sent")
	}
	h.turn()
	h.turn()
	want := append(jsonFrame("one"), big...)
	if got := h.collect(t, len(want)); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if h.c.head != nil || h.c.Backlog() != 0 || h.c.sending {
		t.Error("output is left")
	}
}

// Pieces of several segments leave with one operation, in order, however short the socket makes it.
func TestSendOfSeveralSegments(t *testing.T) {
	h := newRungByHand(t, Options{}, &testHandler{})
	h.send(t, jsonFrame("first"))
	h.turn()
	var want []byte
	for i := range 20 {
		piece := bytes.Repeat([]byte{byte(i)}, 40_000+i)
		h.c.queueSent(piece)
		want = append(want, piece...)
		h.c.End(append(h.c.Begin(), byte(i)))
		want = append(want, byte(i))
	}
	h.c.sent.Store(0)
	before := h.r.count.writes
	h.turn()
	if n := h.r.count.writes - before; n != 1 {
		t.Errorf("%d sends", n)
	}
	if !h.c.blocked || h.c.armed&armedPollOut == 0 {
		t.Fatal("the socket took everything: the test needs one that does not")
	}
	if got := h.collect(t, len(want)); !bytes.Equal(got, want) {
		t.Error("the output differs")
	}
	h.turn()
	if h.c.Backlog() != 0 || h.c.head != nil || h.c.blocked {
		t.Errorf("backlog %d", h.c.Backlog())
	}
}

// A connection that is dropped in the turn in which its send was prepared: the bytes leave before its memory and its descriptor go, and its
// peer sees the end although a receive was in flight.
func TestDropWithASendPrepared(t *testing.T) {
	h := newRungByHand(t, Options{}, &testHandler{frame: echo})
	h.prove(t)
	h.send(t, jsonFrame("last"))
	h.r.Wake()
	h.r.turn()
	if !h.c.sending {
		t.Fatal("no send is prepared")
	}
	h.r.drop(h.c, io.EOF)
	buf := make([]byte, 100)
	if n := h.drain(buf); !bytes.Equal(buf[:n], jsonFrame("last")) {
		t.Errorf("%q left", buf[:n])
	}
	h.turn()
	if n, err := unix.Read(h.peer, buf); n != 0 || err != nil {
		t.Errorf("read %d bytes, %v; want the end", n, err)
	}
	h.turn()
	if n := h.r.ring.inFlight; n != 0 && (n != 1 || !h.r.poll.listenersArmed()) {
		t.Errorf("%d operations in flight", n)
	}
}

func (p *poller) listenersArmed() bool {
	return slices.ContainsFunc(p.listeners, func(l listener) bool { return l.armed })
}

// What comes for a connection that is gone is not its successor's in the slot, and its buffer goes back.
func TestLateCompletionsAreNobodys(t *testing.T) {
	got := 0
	h := newRungByHand(t, Options{RingBuffers: 4}, &testHandler{frame: func(c *Conn, frame []byte) { got++ }})
	for round := range 20 { // five times as often as there are buffers
		c, peer := h.another(t)
		unix.Write(peer, jsonFrame("first"))
		h.turn()
		if c.armed != armedRecv {
			t.Fatalf("round %d: in flight %b", round, c.armed)
		}
		unix.Write(peer, jsonFrame("late"))
		h.letGo() // collects it
		if len(h.r.ring.events) != 1 {
			t.Fatalf("round %d: %d completions", round, len(h.r.ring.events))
		}
		slot := c.slot
		h.r.drop(c, io.EOF)
		if d, _ := h.another(t); d.slot != slot {
			t.Fatalf("round %d: the slot was not taken again", round)
		}
		before := got
		h.turn()
		if got != before {
			t.Fatalf("round %d: a frame of the old connection was handled", round)
		}
	}
}

// A paused connection has its receive cancelled; what came before that had an effect is handled when it goes on.
func TestPauseCancelsTheReceive(t *testing.T) {
	var got []string
	h := newRungByHand(t, Options{}, &testHandler{frame: func(c *Conn, frame []byte) { got = append(got, string(frame[6:])) }})
	h.prove(t)
	got = nil
	h.c.pause |= pausedMemory
	h.r.touch(h.c)
	h.send(t, jsonFrame("while it is paused"))
	h.turn()
	if h.c.armed != 0 && h.c.armed&armedCancel == 0 {
		t.Errorf("in flight: %b", h.c.armed)
	}
	h.turn()
	if h.c.armed != 0 {
		t.Errorf("in flight: %b", h.c.armed)
	}
	h.send(t, jsonFrame("after that"))
	h.turn()
	if len(got) != 0 {
		t.Errorf("handled during the pause: %q", got)
	}
	h.c.pause = 0
	h.r.touch(h.c)
	for range 4 {
		h.turn()
	}
	if len(got) != 2 || !strings.Contains(got[0], "while") || !strings.Contains(got[1], "after") {
		t.Errorf("handled: %q", got)
	}
	if h.c.in != nil || h.c.armed != armedRecv || h.r.srv.budget.used.Load() != 0 {
		t.Errorf("held %d, in flight %b", len(h.c.in), h.c.armed)
	}
}

// With few and small buffers many connections go on, each in its turn.
func TestBuffersThatRunOut(t *testing.T) {
	needsRing(t)
	s := serve(t, Options{Poller: PollerUring, Reactors: 1, RingBuffers: 2, RingBufferSize: 256}, &testHandler{frame: echo})
	var clients sync.WaitGroup
	for i := range 16 {
		c := dial(t, s)
		clients.Go(func() {
			in := bytes.Repeat(jsonFrame(strings.Repeat(fmt.Sprint(i), 1000)), 50)
			go c.Write(in)
			got := make([]byte, len(in))
			if n, err := io.ReadFull(c.r, got); err != nil || !bytes.Equal(got, in) {
				t.Errorf("client %d: %d bytes, %v", i, n, err)
			}
		})
	}
	clients.Wait()
}

// A peer that floods gets its answers; what is held of it meanwhile stays bounded.
func TestFloodIsHeldWithinBounds(t *testing.T) {
	var peak atomic.Int64
	h := newRungByHand(t, Options{}, &testHandler{frame: func(c *Conn, frame []byte) {
		peak.Store(max(peak.Load(), int64(len(c.in)-c.inOff)))
	}})
	h.prove(t)
	unix.SetsockoptInt(h.peer, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	in := bytes.Repeat(makeFrame(1, "x", ""), 20_000)
	before, sent, turns := h.r.count.framesIn, 0, 0
	const total = 40
	for h.r.count.framesIn-before < total*20_000 {
		for sent < total*len(in) {
			n, err := unix.Write(h.peer, in[sent%len(in):])
			if err != nil {
				break
			}
			sent += n
		}
		h.turn()
		if turns++; turns > 1_000_000 {
			t.Fatalf("%d frames handled", h.r.count.framesIn-before)
		}
	}
	if p := peak.Load(); p > maxHeld+1<<20 {
		t.Errorf("%d bytes were held", p)
	}
	for range 3 {
		h.turn()
	}
	if h.c.in != nil || h.c.pause != 0 {
		t.Errorf("held %d, pause %b", len(h.c.in), h.c.pause)
	}
}

// Connections come and go, some in the middle of something: nothing stays in flight, which serve looks at.
func TestConnectionsComeAndGoOnRings(t *testing.T) {
	needsRing(t)
	s := serve(t, Options{Poller: PollerUring, Reactors: 2}, &testHandler{frame: func(c *Conn, frame []byte) {
		echo(c, frame)
		if bytes.Contains(frame, []byte("bye")) {
			c.Close(io.EOF)
		}
	}})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for j := range 50 {
				conn, err := net.Dial("tcp", s.Addr(0).String())
				if err != nil {
					t.Error(err)
					return
				}
				c := newClient(t, conn)
				switch (i + j) % 4 {
				case 0:
					c.Write(jsonFrame("hello"))
					c.r.ReadByte()
				case 1:
					c.Write(jsonFrame("bye"))
					if b, err := io.ReadAll(c.r); err != nil || !bytes.Equal(b, jsonFrame("bye")) {
						t.Errorf("%q, %v", b, err)
					}
				case 2:
					c.Write(jsonFrame("half")[:9])
				case 3:
					c.Write(bytes.Repeat(jsonFrame("hello"), 1000)) // and does not read
				}
				c.Close()
			}
		})
	}
	clients.Wait()
	eventually(t, "all are gone", func() bool { return s.Stats().Conns == 0 })
}

const refuseVariable = "RINGMQ_TEST_REFUSE_IO_URING"

// Where io_uring is refused epoll serves, and the log says why, once. The filter stays for the life of a process: it is a child's.
func TestRefusedRing(t *testing.T) {
	if os.Getenv(refuseVariable) == "" {
		needsRing(t)
		child := exec.Command(os.Args[0], "-test.run=^TestRefusedRing$", "-test.v")
		child.Env = append(os.Environ(), refuseVariable+"=1")
		if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestRefusedRing")) {
			if bytes.Contains(out, []byte("SKIP: ")) {
				t.Skip(string(out))
			}
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := seccomp.Refuse(unix.EPERM, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER); err != nil {
		t.Skip(err)
	}
	var log bytes.Buffer
	s := serve(t, Options{Poller: PollerUring, Reactors: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))}, &testHandler{frame: echo})
	for range 6 {
		c := dial(t, s)
		c.send(jsonFrame("hello"))
		c.expect(jsonFrame("hello"))
	}
	if n := strings.Count(log.String(), "seccomp"); n != 1 {
		t.Errorf("%d lines say why: %s", n, log.String())
	}
	for _, r := range s.reactors {
		if r.ring != nil {
			t.Error("a reactor has a ring")
		}
	}
}
