package ioengine

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

const (
	coldBenchBytes = 256 << 20
	coldBenchPiece = 256 << 10
	coldBenchAhead = 8 << 20
)

// coldBench is a file that is thrown out of memory before each pass, and a socket that swallows what is sent.
type coldBench struct {
	name  string
	sink  int
	takes []time.Duration // of the calls on the sending thread
}

func newColdBench(b *testing.B) *coldBench {
	p, err := NewColdProbe(filepath.Join(b.TempDir(), "cold"), coldBenchBytes)
	require.NoError(b, err)
	b.Cleanup(func() { p.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		raw, _ := c.(*net.TCPConn).SyscallConn()
		_ = raw.Read(func(fd uintptr) bool {
			for {
				// MSG_TRUNC: taken off the socket and not copied.
				n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, 0, 4<<20, unix.MSG_TRUNC, 0, 0)
				if errno == unix.EAGAIN {
					return false
				}
				if errno != 0 && errno != unix.EINTR || n == 0 {
					return true
				}
			}
		})
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(b, err)
	b.Cleanup(func() { c.Close() })
	out, err := c.(*net.TCPConn).File()
	require.NoError(b, err)
	b.Cleanup(func() { out.Close() })
	require.NoError(b, unix.SetNonblock(int(out.Fd()), false))
	return &coldBench{name: p.f.Name(), sink: int(out.Fd())}
}

// pass opens the file anew, so that the kernel knows nothing of earlier reads, and throws it out of memory.
func (c *coldBench) pass(b *testing.B, flags int, do func(fd int) error) (took, cpu float64) {
	f, err := os.OpenFile(c.name, os.O_RDONLY|flags, 0)
	require.NoError(b, err)
	defer f.Close()
	require.NoError(b, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	c.takes = c.takes[:0]
	return clocked(func() { require.NoError(b, do(int(f.Fd()))) })
}

// drain is a way to send the whole file in order.
func (c *coldBench) drain(name string, flags int, do func(fd int) error) way {
	return way{name, func(b *testing.B) []float64 {
		took, cpu := c.pass(b, flags, do)
		slices.Sort(c.takes)
		return []float64{coldBenchBytes / 1e6 / took, cpu / coldBenchBytes * (1 << 30), millisAt(c.takes, 0.5), millisAt(c.takes, 0.996), millisAt(c.takes, 1)}
	}}
}

// BenchmarkColdReadDrain sends a file that is not in memory from its beginning to its end. The times are those of a call on the thread that
// sends, which would be a reactor: what waits elsewhere is not in them.
func BenchmarkColdReadDrain(b *testing.B) {
	c := newColdBench(b)
	ways := []way{c.drain("the disk alone: O_DIRECT 1 MiB × 4", unix.O_DIRECT, func(fd int) error {
		return c.preads(fd, 4, 1<<20, func([]byte) error { return nil })
	})}
	for _, n := range []int{1, 2, 4} {
		ways = append(ways, c.drain(fmt.Sprintf("pread 256 KiB on %d goroutines, write", n), 0, func(fd int) error {
			return c.preads(fd, n, coldBenchPiece, c.write)
		}))
	}
	for _, n := range []int{1, 4, 8} {
		ways = append(ways, c.drain(fmt.Sprintf("ring READ 256 KiB × %d, write", n), 0, func(fd int) error { return c.ring(fd, n) }))
	}
	ways = append(ways,
		c.drain("ring READ O_DIRECT 256 KiB × 8, write", unix.O_DIRECT, func(fd int) error { return c.ring(fd, 8) }),
		c.drain("sendfile, which waits itself", 0, func(fd int) error {
			for off := int64(0); off < coldBenchBytes; off += coldBenchPiece {
				if err := c.sendfile(fd, off); err != nil {
					return err
				}
			}
			return nil
		}),
		c.drain("readahead(2) 1 MiB at a time by a goroutine, sendfile", 0, func(fd int) error {
			return c.ahead(fd, func(off int64) error { return readahead(fd, off, 1<<20) })
		}),
		c.drain("readahead(2) 128 KiB at a time by a goroutine, sendfile", 0, func(fd int) error {
			return c.ahead(fd, func(off int64) error {
				for end := off + 1<<20; off < end; off += 128 << 10 {
					if err := readahead(fd, off, 128<<10); err != nil {
						return err
					}
				}
				return nil
			})
		}),
		c.drain("sendfile to /dev/null by a goroutine, sendfile", 0, func(fd int) error {
			null, err := nowhere()
			if err != nil {
				return err
			}
			return c.ahead(fd, func(off int64) error {
				for end := off + 1<<20; off < end; {
					if _, err := unix.Sendfile(int(null.Fd()), fd, &off, int(end-off)); err != nil {
						return err
					}
				}
				return nil
			})
		}),
		c.drain("pread 128 KiB at a time by a goroutine, sendfile", 0, func(fd int) error {
			scratch := make([]byte, 128<<10)
			return c.ahead(fd, func(off int64) error {
				for end := off + 1<<20; off < end; off += int64(len(scratch)) {
					if _, err := unix.Pread(fd, scratch, off); err != nil {
						return err
					}
				}
				return nil
			})
		}))
	compare(b, []string{"MB/s", "CPU s/GiB", "a call p50 ms", "p99.6 ms", "max ms"}, ways)
}

func readahead(fd int, off int64, n int) error {
	_, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), uintptr(off), uintptr(n))
	if errno != 0 {
		return errno
	}
	return nil
}

func (c *coldBench) write(p []byte) error {
	began := time.Now()
	defer func() { c.takes = append(c.takes, time.Since(began)) }()
	return writeWhole(c.sink, p)
}

func (c *coldBench) sendfile(fd int, off int64) error {
	began := time.Now()
	defer func() { c.takes = append(c.takes, time.Since(began)) }()
	for end := off + coldBenchPiece; off < end; {
		n, err := unix.Sendfile(c.sink, fd, &off, int(end-off))
		if err != nil && err != unix.EINTR {
			return err
		}
		_ = n
	}
	return nil
}

// preads has n goroutines read in order; what they read is sent by one thread, in whatever order it comes.
func (c *coldBench) preads(fd, n, size int, send func([]byte) error) error {
	var next atomic.Int64
	var readers sync.WaitGroup
	type piece struct {
		b    []byte
		back chan []byte
		err  error
	}
	pieces := make(chan piece)
	for range n {
		readers.Go(func() {
			// Two buffers, so that one is read while the other one is sent.
			back := make(chan []byte, 2)
			for range 2 {
				a, err := uring.NewArena(size)
				if err != nil {
					pieces <- piece{err: err}
					return
				}
				defer a.Free()
				a.Populate()
				back <- a.Bytes
			}
			for off := next.Add(int64(size)) - int64(size); off < coldBenchBytes; off = next.Add(int64(size)) - int64(size) {
				buf := <-back
				_, err := unix.Pread(fd, buf, off)
				pieces <- piece{buf, back, err}
			}
			<-back
			<-back
		})
	}
	go func() { readers.Wait(); close(pieces) }()
	var failed error
	for p := range pieces {
		if p.err == nil {
			p.err = send(p.b)
			p.back <- p.b
		}
		if p.err != nil {
			failed = p.err
		}
	}
	return failed
}

// ring has n reads in flight.
func (c *coldBench) ring(fd, n int) error {
	arena, err := uring.NewArena(n * coldBenchPiece)
	if err != nil {
		return err
	}
	defer arena.Free()
	return ringReads(n, func(i int, e *uring.Entry, k int) bool {
		if k >= coldBenchBytes/coldBenchPiece {
			return false
		}
		e.Read(fd, arena.Bytes[i*coldBenchPiece:(i+1)*coldBenchPiece], int64(k)*coldBenchPiece)
		e.Async()
		return true
	}, func(i int, got int32) error {
		if got != coldBenchPiece {
			return fmt.Errorf("read %d bytes", got)
		}
		return c.write(arena.Bytes[i*coldBenchPiece : (i+1)*coldBenchPiece])
	})
}

// ringReads keeps n operations in flight: prepare fills the k-th, done takes its result.
func ringReads(n int, prepare func(i int, e *uring.Entry, k int) bool, done func(i int, got int32) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := uring.New(uring.Options{Entries: 2 * n})
	if err != nil {
		return err
	}
	defer ring.Close()
	flying, k := 0, 0
	start := func(i int) {
		var e uring.Entry
		if !prepare(i, &e, k) {
			return
		}
		e.SetData(uint64(i))
		*ring.Next() = e
		k++
		flying++
	}
	for i := range n {
		start(i)
	}
	var failed error
	for flying > 0 {
		if err := ring.Wait(-1); err != nil {
			return err
		}
		for c, ok := ring.Completed(); ok; c, ok = ring.Completed() {
			flying--
			if err := done(int(c.Data), c.Result); err != nil {
				failed = err
				continue
			}
			start(int(c.Data))
		}
	}
	return failed
}

// ahead has a goroutine bring each MiB into memory, some ahead of the one that is sent.
func (c *coldBench) ahead(fd int, load func(off int64) error) error {
	loaded, room := make(chan error, coldBenchAhead>>20), make(chan bool, coldBenchAhead>>20)
	go func() {
		for off := int64(0); off < coldBenchBytes; off += 1 << 20 {
			room <- true
			loaded <- load(off)
		}
	}()
	var last [1]byte
	for off := int64(0); off < coldBenchBytes; off += coldBenchPiece {
		if off%(1<<20) == 0 {
			if err := <-loaded; err != nil {
				return err
			}
			// What is on its way is waited for here, as the cold lane does it.
			for at := off + coldBenchPiece - 1; at < off+1<<20; at += coldBenchPiece {
				if _, err := unix.Pread(fd, last[:], at); err != nil {
					return err
				}
			}
		}
		if err := c.sendfile(fd, off); err != nil {
			return err
		}
		if (off+coldBenchPiece)%(1<<20) == 0 {
			<-room
		}
	}
	return nil
}

// BenchmarkColdReadRandom reads 4 KiB here and there, so many at a time.
func BenchmarkColdReadRandom(b *testing.B) {
	c := newColdBench(b)
	const reads = 2000
	var ways []way
	add := func(name string, do func(fd int, order []int) error) {
		ways = append(ways, way{name, func(b *testing.B) []float64 {
			order := rand.Perm(coldBenchBytes / 4096)[:reads]
			took, cpu := c.pass(b, 0, func(fd int) error {
				if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
					return err
				}
				return do(fd, order)
			})
			return []float64{reads / took, cpu / reads * 1e6}
		}})
	}
	for _, n := range []int{1, 8, 32} {
		add(fmt.Sprintf("pread on %d goroutines", n), func(fd int, order []int) error {
			var next atomic.Int64
			var readers sync.WaitGroup
			var failed atomic.Pointer[error]
			for range n {
				readers.Go(func() {
					buf := make([]byte, 4096)
					for k := next.Add(1) - 1; k < int64(len(order)); k = next.Add(1) - 1 {
						if _, err := unix.Pread(fd, buf, int64(order[k])*4096); err != nil {
							failed.Store(&err)
						}
					}
				})
			}
			readers.Wait()
			if err := failed.Load(); err != nil {
				return *err
			}
			return nil
		})
		for _, async := range []bool{false, true} {
			name := fmt.Sprintf("ring READ × %d", n)
			if async {
				name += ", IOSQE_ASYNC"
			}
			add(name, func(fd int, order []int) error {
				buf := make([]byte, 32*4096)
				return ringReads(n, func(i int, e *uring.Entry, k int) bool {
					if k >= len(order) {
						return false
					}
					e.Read(fd, buf[i*4096:(i+1)*4096], int64(order[k])*4096)
					if async {
						e.Async()
					}
					return true
				}, func(_ int, got int32) error {
					if got != 4096 {
						return fmt.Errorf("read %d bytes", got)
					}
					return nil
				})
			})
		}
	}
	compare(b, []string{"reads/s", "CPU µs a read"}, ways)
}

// BenchmarkColdReadScattered is what pulls of a topic that others write between need: 32 parts of 4 KiB, far apart, on 8 goroutines.
func BenchmarkColdReadScattered(b *testing.B) {
	c := newColdBench(b)
	const pulls, parts, workers = 64, 32, 8
	each := func(name string, read func(fd int, pull []int, buf []byte) error) way {
		return way{name, func(b *testing.B) []float64 {
			order := rand.Perm(coldBenchBytes / 4096)[:pulls*parts]
			var next atomic.Int64
			took, cpu := c.pass(b, 0, func(fd int) error {
				errs := make(chan error, workers)
				for range workers {
					go func() {
						buf := make([]byte, parts*4096)
						for {
							at := next.Add(1) - 1
							if at >= pulls {
								errs <- nil
								return
							}
							if err := read(fd, order[at*parts:(at+1)*parts], buf); err != nil {
								errs <- err
								return
							}
						}
					}()
				}
				var failed error
				for range workers {
					if err := <-errs; err != nil {
						failed = err
					}
				}
				return failed
			})
			return []float64{pulls / took, cpu / pulls * 1e6}
		}}
	}
	preads := func(fd int, pull []int, buf []byte) error {
		for i, at := range pull {
			if _, err := unix.Pread(fd, buf[i*4096:(i+1)*4096], int64(at)*4096); err != nil {
				return err
			}
		}
		return nil
	}
	compare(b, []string{"pulls/s", "CPU µs a pull"}, []way{
		each("pread, one after the other", preads),
		each("readahead(2) of all, then pread", func(fd int, pull []int, buf []byte) error {
			for _, at := range pull {
				if err := readahead(fd, int64(at)*4096, 4096); err != nil {
					return err
				}
			}
			return preads(fd, pull, buf)
		}),
		each("a ring READ of all", func(fd int, pull []int, buf []byte) error {
			return ringReads(parts, func(i int, e *uring.Entry, k int) bool {
				if k >= parts {
					return false
				}
				e.Read(fd, buf[k*4096:(k+1)*4096], int64(pull[k])*4096)
				return true
			}, func(_ int, got int32) error {
				if got != 4096 {
					return fmt.Errorf("read %d bytes", got)
				}
				return nil
			})
		}),
	})
}
