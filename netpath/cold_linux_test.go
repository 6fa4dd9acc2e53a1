package netpath

import (
	"bytes"
	"io"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// coldness answers for the kernel whether a range is in memory, and counts the questions.
type coldness struct {
	cold  bool
	asked int
}

func (k *coldness) of(h *handTurned) {
	h.r.srv.resident = func(int, int64, int) bool {
		k.asked++
		return !k.cold
	}
}

// collect turns the reactor and reads until so many bytes have come.
func (h *handTurned) collect(t *testing.T, n int) []byte {
	t.Helper()
	got := make([]byte, 0, n+1)
	for turns := 0; len(got) < n; turns++ {
		k := h.drain(got[len(got):cap(got)])
		if got = got[:len(got)+k]; k == 0 {
			h.r.turn() // sleeps until the range has been read
		} else {
			h.turn()
		}
		if turns > 10_000 {
			t.Fatalf("%d of %d bytes came", len(got), n)
		}
	}
	return got
}

// A range whose pages leave memory while it waits behind a full socket is read by a goroutine; what comes out is the same.
func TestRangeThatTurnsColdIsReadByAGoroutine(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		for _, tt := range []struct {
			name string
			size int
		}{{"in several parts", 1 << 20}, {"in one", 300 << 10}} {
			t.Run(tt.name, func(t *testing.T) {
				var rel countedRelease
				h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
					echo(c, frame)
					c.SendFile(int(file.Fd()), 0, tt.size, &rel)
					echo(c, frame)
					c.SendFile(int(file.Fd()), 4096, 4096, &rel)
					echo(c, frame)
				}})
				var k coldness
				k.of(h)
				h.send(t, jsonFrame("pull"))
				h.turn()
				if k.asked != 0 {
					t.Errorf("asked %d times about a range of this turn", k.asked)
				}
				if !h.c.blocked {
					t.Fatal("the socket took everything: the test needs a range that waits")
				}
				k.cold = true
				sent := h.r.count.sendFiles
				x := jsonFrame("pull")
				want := slicesOf(x, data[:tt.size], x, data[4096:8192], x)
				if got := h.collect(t, len(want)); !bytes.Equal(got, want) {
					t.Error("the output differs")
				}
				if n := h.r.count.sendFiles - sent; n != 0 {
					t.Errorf("%d sendfiles of cold ranges", n)
				}
				if k.asked == 0 || h.r.count.coldReads == 0 || h.r.coldReads != 0 || rel.n.Load() != 2 {
					t.Errorf("asked %d times, %d reads, %d under way, %d releases", k.asked, h.r.count.coldReads, h.r.coldReads, rel.n.Load())
				}
				if h.c.Backlog() != 0 || h.c.outMem != 0 || h.c.charged != 0 {
					t.Errorf("backlog %d, in memory %d, charged %d", h.c.Backlog(), h.c.outMem, h.c.charged)
				}
			})
		}
	})
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// A range that stays in memory goes on by sendfile.
func TestRangeThatStaysWarmIsNotCopied(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		var rel countedRelease
		h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			c.SendFile(int(file.Fd()), 0, len(data), &rel)
		}})
		h.send(t, jsonFrame("pull"))
		h.turn()
		if got := h.collect(t, len(data)); !bytes.Equal(got, data) {
			t.Error("the output differs")
		}
		if h.r.count.coldReads != 0 {
			if !resident(int(file.Fd()), 0, len(data)) {
				t.Skip("this kernel does not tell what is in memory, or has let the file go")
			}
			t.Errorf("%d reads by a goroutine", h.r.count.coldReads)
		}
	})
}

// A connection that ends while its range is read releases it once, and not before the read is over.
func TestConnectionEndsWhileItsRangeIsRead(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		var rel countedRelease
		h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			c.SendFile(int(file.Fd()), 0, len(data), &rel)
			c.SendFile(int(file.Fd()), 0, 100, &rel)
		}})
		k := coldness{cold: true}
		k.of(h)
		for range cap(h.r.srv.cold) { // so that the read has to wait for a place
			h.r.srv.cold <- struct{}{}
		}
		h.send(t, jsonFrame("pull"))
		h.turn()
		h.drain(make([]byte, 1<<20))
		h.turn()
		if h.r.coldReads != 1 {
			t.Fatalf("%d reads under way", h.r.coldReads)
		}
		h.r.drop(h.c, io.EOF)
		if n := rel.n.Load(); n != 1 { // the second range
			t.Errorf("%d ranges released while the first is read", n)
		}
		h.r.startDrain()
		if h.r.finished() {
			t.Error("the reactor would end with a read under way")
		}
		for range cap(h.r.srv.cold) {
			<-h.r.srv.cold
		}
		for h.r.coldReads > 0 {
			h.r.turn()
		}
		if n := rel.n.Load(); n != 2 {
			t.Errorf("%d releases of 2 ranges", n)
		}
		if !h.r.finished() {
			t.Error("the reactor does not end")
		}
	})
}

// Errors of the read end the connection.
func TestColdReadFails(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		for _, tt := range []struct {
			name string
			fail func(s *segment)
		}{
			{"behind the end of the file", func(s *segment) { s.fileOff += 1 << 20 }},
			{"of a descriptor that is not open", func(s *segment) { s.fd = 1 << 20 }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				var rel countedRelease
				h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
					c.SendFile(int(file.Fd()), 0, len(data), &rel)
				}})
				k := coldness{cold: true}
				k.of(h)
				h.send(t, jsonFrame("pull"))
				h.turn()
				tt.fail(h.c.head)
				h.drain(make([]byte, 1<<20))
				for !h.c.gone {
					h.r.turn()
				}
				if n := rel.n.Load(); n != 1 {
					t.Errorf("%d releases", n)
				}
			})
		}
	})
}

// While memory is scarce, little is read for each connection.
func TestColdReadsAreSmallWhileMemoryIsScarce(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		var rel countedRelease
		h := newHandTurned(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
			c.SendFile(int(file.Fd()), 0, len(data), &rel)
		}})
		k := coldness{cold: true}
		k.of(h)
		h.send(t, jsonFrame("pull"))
		h.turn()
		h.drain(make([]byte, 1<<20))
		over := h.r.srv.budget.limit + 1
		h.r.srv.budget.used.Add(over)
		h.turn()
		if h.r.coldReads != 1 {
			t.Fatalf("%d reads under way", h.r.coldReads)
		}
		var took int
		for h.r.coldReads == 1 && took == 0 {
			h.r.mu.Lock()
			for _, l := range h.r.mail {
				if l.kind == letterCold {
					took = len(l.frame)
				}
			}
			h.r.mu.Unlock()
			runtime.Gosched()
		}
		if took != scarceRead {
			t.Errorf("%d bytes were read, want %d", took, scarceRead)
		}
		h.r.srv.budget.used.Add(-over)
		for h.r.coldReads > 0 {
			h.r.turn()
		}
	})
}

// What the kernel says of a file: all there after it was written, nothing beyond its end, and not after it was let go.
func TestResident(t *testing.T) {
	file, data := testFile(t, 1<<20)
	fd := int(file.Fd())
	if !resident(fd, 0, len(data)) {
		t.Skip("this kernel does not tell what is in memory")
	}
	if !resident(fd, 100, 1) || !resident(fd, 4095, 2) || resident(fd, 1<<20-1, 4096) || resident(fd, 1<<30, 1) || resident(-1, 0, 1) {
		t.Error("wrong answers about a file in memory")
	}
	// Only what is on the device can be let go.
	w, err := os.OpenFile(file.Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Sync(); err != nil {
		t.Skip(err)
	}
	letGo := func() {
		for tries := 0; tries < 100 && cached(fd, 512<<10, 4096); tries++ { // what another processor is about to put on a list stays at first
			if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
				t.Skip(err)
			}
			unix.Sync()
		}
	}
	letGo()
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		t.Skip("a tmpfs keeps its files in memory")
	}
	if present(t, file, 512<<10) {
		t.Skip("the kernel keeps the pages")
	}
	// To ask has the kernel read ahead, and on a busy machine that is sometimes done before it looks.
	for _, where := range []struct{ off, n int }{{0, len(data)}, {512 << 10, 4096}} {
		for tries := 0; ; tries++ {
			if letGo(); !resident(fd, int64(where.off), where.n) {
				break
			}
			if tries == 1000 {
				t.Error("what was let go is said to be in memory")
				break
			}
		}
	}
}

// present asks mincore for the page at off.
func present(t *testing.T, file *os.File, off int64) bool {
	t.Helper()
	m, err := unix.Mmap(int(file.Fd()), off, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	var in [1]byte
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), 4096, uintptr(unsafe.Pointer(&in[0]))); errno != 0 {
		t.Fatal(errno)
	}
	return in[0]&1 != 0
}
