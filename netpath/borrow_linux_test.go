package netpath

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What is borrowed is given back in its turn, whether the socket took it or not, and the other side gets it as it was then.
func TestBorrowedBytesAreGivenBackInTheirTurn(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		for name, size := range map[string]int{"taken": 20 << 10, "not all taken": 900 << 10} {
			t.Run(name, func(t *testing.T) {
				memory := make([]byte, size)
				for i := range memory {
					memory[i] = byte(i >> 5)
				}
				want := slices.Clone(memory)
				var rel countedRelease
				h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
					echo(c, frame)
					pieces := slices.Collect(slices.Chunk(memory, 1500))
					for i, piece := range pieces {
						if i < len(pieces)-1 {
							c.Borrow(piece, nil)
						} else {
							c.Borrow(piece, &rel)
						}
					}
					echo(c, frame)
				}})
				x := jsonFrame("pull")
				writes := h.r.count.writes
				h.send(t, x)
				h.turn()
				if n := rel.n.Load(); n != 1 {
					t.Fatalf("%d releases", n)
				}
				if n := h.r.count.writes - writes; size < 64<<10 && n != 1 {
					t.Errorf("%d writes", n)
				}
				if size > 800<<10 && !h.c.blocked {
					t.Fatal("the socket took everything: the test needs one that does not")
				}
				clear(memory)
				h.send(t, x[:4]) // another turn, of which nothing is heard
				want = slicesOf(x, want, x)
				if got := h.collect(t, len(want)); !bytes.Equal(got, want) {
					t.Error("the output differs")
				}
				if h.c.Backlog() != 0 || h.c.charged != 0 && h.r.ring == nil && len(h.c.in) == 0 {
					t.Errorf("backlog %d, charged %d", h.c.Backlog(), h.c.charged)
				}
			})
		}
	})
}

// A connection that breaks gives back what it borrowed, once.
func TestBorrowedBytesOfABrokenConnection(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		var rel countedRelease
		var h *handTurned
		h = newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			unix.Shutdown(h.peer, unix.SHUT_RDWR)
			c.Borrow(frame, nil)
			c.Borrow(frame, &rel)
		}})
		h.send(t, jsonFrame("pull"))
		for range 3 {
			h.turn()
		}
		if n := rel.n.Load(); n != 1 || !h.c.gone {
			t.Errorf("%d releases; gone: %v", n, h.c.gone)
		}
	})
}
