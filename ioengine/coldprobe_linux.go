package ioengine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// ColdProbe measures ways to send parts of a file that are not in memory: "ringmq tune". It has a file of its own, throws it out of the
// page cache, and reads each of its blocks once, in a random order, without reading ahead. Each read ends in a socket whose other end
// somebody empties, because that is where a broker needs the bytes.
type ColdProbe struct {
	f      *os.File
	fd     int
	blocks int
}

// NewColdProbe makes a file of size bytes, which must not be there yet.
func NewColdProbe(name string, size int64) (*ColdProbe, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fail("create", name, err)
	}
	p := &ColdProbe{f: f, fd: int(f.Fd()), blocks: int(size / ColdBlock)}
	if err := p.fill(); err != nil {
		return nil, errors.Join(fail("fill", name, err), p.Close())
	}
	return p, nil
}

// fill writes bytes that no file system squeezes, and makes readers ask for just what they want.
func (p *ColdProbe) fill() error {
	var seed [32]byte
	source, block := rand.NewChaCha8(seed), make([]byte, ColdBlock)
	for i := range p.blocks {
		_, _ = source.Read(block) // never fails
		if _, err := p.f.WriteAt(block, int64(i)*ColdBlock); err != nil {
			return err
		}
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(p.fd, 0, 0, unix.FADV_RANDOM)
}

// Close removes the file.
func (p *ColdProbe) Close() error { return errors.Join(p.f.Close(), os.Remove(p.f.Name())) }

// Forget throws a file out of the page cache, as far as the system does that at once.
func Forget(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fail("open", name, err)
	}
	// Only what is on the device can be let go.
	err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	return fail("forget", name, err)
}

// drop throws the file out of the page cache.
func (p *ColdProbe) drop() error {
	if err := unix.Fadvise(p.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fail("throw out of the page cache", p.f.Name(), err)
	}
	f := newLinuxFile(&plainFile{f: p.f, name: p.f.Name()})
	for i := range p.blocks {
		if !f.Resident(int64(i)*ColdBlock, ColdBlock) {
			return nil
		}
	}
	return fmt.Errorf("%w: the file system of %s keeps its files in memory", ErrColdRefused, p.f.Name())
}

// Run reads for d, once at least. The error wraps ErrColdRefused where the way is not to be had here.
func (p *ColdProbe) Run(ctx context.Context, way ColdRead, d time.Duration) (*ColdFigures, error) {
	s, err := openSinks(ColdDepth)
	if err != nil {
		return nil, err
	}
	defer s.close()
	r := &coldRun{p: p, sinks: s}
	for figures := &r.figures; figures.Elapsed < d || len(figures.Latencies) == 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := p.drop(); err != nil {
			return nil, err
		}
		r.order, r.until = rand.Perm(p.blocks), d-figures.Elapsed%max(d, 1)
		r.next.Store(0)
		cpu, _ := ProcessCPU()
		r.began = time.Now()
		if way == ColdUring {
			err = r.ring()
		} else {
			err = r.pool(way)
		}
		figures.Elapsed += time.Since(r.began)
		if spent, ok := ProcessCPU(); ok {
			figures.CPU += spent - cpu
		}
		if err != nil {
			return nil, err
		}
	}
	return &r.figures, nil
}

// coldRun is one pass over the file after the other.
type coldRun struct {
	p       *ColdProbe
	sinks   *sinks
	order   []int
	next    atomic.Int64
	began   time.Time
	until   time.Duration
	mu      sync.Mutex
	figures ColdFigures
}

// take gives out the offset of the next block; false: the pass is over.
func (r *coldRun) take() (int64, bool) {
	i := int(r.next.Add(1) - 1)
	if i >= len(r.order) || time.Since(r.began) >= r.until {
		return 0, false
	}
	return int64(r.order[i]) * ColdBlock, true
}

func (r *coldRun) add(latencies []time.Duration) {
	r.mu.Lock()
	r.figures.Latencies = append(r.figures.Latencies, latencies...)
	r.mu.Unlock()
}

// pool has ColdDepth goroutines that wait for the disk.
func (r *coldRun) pool(way ColdRead) error {
	errs := make([]error, ColdDepth)
	var workers sync.WaitGroup
	for i := range ColdDepth {
		workers.Go(func() {
			var latencies []time.Duration
			buf, socket := make([]byte, ColdBlock), r.sinks.in[i]
			for errs[i] == nil {
				off, ok := r.take()
				if !ok {
					break
				}
				began := time.Now()
				if way == ColdSendfile {
					errs[i] = sendWhole(socket, r.p.fd, off)
				} else if _, errs[i] = r.p.f.ReadAt(buf, off); errs[i] == nil {
					errs[i] = writeWhole(socket, buf)
				}
				latencies = append(latencies, time.Since(began))
			}
			r.add(latencies)
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

func sendWhole(socket, fd int, off int64) error {
	for end := off + ColdBlock; off < end; {
		n, err := unix.Sendfile(socket, fd, &off, int(end-off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return errors.Join(fmt.Errorf("sendfile from %d: %d bytes", off, n), err)
		}
	}
	return nil
}

func writeWhole(socket int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(socket, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// ring has one thread with ColdDepth reads in an io_uring.
func (r *coldRun) ring() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ring, err := uring.New(uring.Options{Entries: ColdDepth})
	if errors.Is(err, uring.ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrColdRefused, err)
	} else if err != nil {
		return err
	}
	arena, err := uring.NewArena(ColdDepth * ColdBlock)
	if err != nil {
		return errors.Join(err, ring.Close())
	}
	flying, err := r.turnRing(ring, arena.Bytes)
	err = errors.Join(err, ring.Close())
	if flying > 0 {
		return err // the kernel may still write into the arena: it is left to the end of the process
	}
	return errors.Join(err, arena.Free())
}

// turnRing returns when nothing is in flight any more, unless the ring itself fails.
func (r *coldRun) turnRing(ring *uring.Ring, memory []byte) (flying int, err error) {
	var latencies []time.Duration
	var started [ColdDepth]time.Time
	start := func(i int) {
		off, ok := r.take()
		if !ok || err != nil {
			return
		}
		started[i] = time.Now()
		e := ring.Next()
		e.Read(r.p.fd, memory[i*ColdBlock:(i+1)*ColdBlock], off)
		e.Async()
		e.SetData(uint64(i))
		flying++
	}
	for i := range ColdDepth {
		start(i)
	}
	for flying > 0 {
		if e := ring.Wait(-1); e != nil && e != unix.EBUSY && e != unix.EAGAIN {
			return flying, e
		}
		for c, ok := ring.Completed(); ok; c, ok = ring.Completed() {
			flying--
			i := int(c.Data)
			if c.Result != ColdBlock && err == nil {
				err = errors.Join(fmt.Errorf("io_uring read %d of %d bytes", c.Result, ColdBlock), c.Err())
			}
			if err == nil {
				err = writeWhole(r.sinks.in[i], memory[i*ColdBlock:(i+1)*ColdBlock])
			}
			latencies = append(latencies, time.Since(started[i]))
			start(i)
		}
	}
	r.add(latencies)
	return flying, err
}

// sinks are sockets that swallow what is written to them.
type sinks struct {
	in    []int
	empty sync.WaitGroup
}

func openSinks(n int) (*sinks, error) {
	s := new(sinks)
	for range n {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("make a pair of sockets: %w", err)
		}
		s.in = append(s.in, pair[0])
		s.empty.Go(func() {
			defer unix.Close(pair[1])
			buf := make([]byte, 2*ColdBlock)
			for {
				if n, err := unix.Read(pair[1], buf); n == 0 || err != nil && err != unix.EINTR {
					return
				}
			}
		})
	}
	return s, nil
}

func (s *sinks) close() {
	for _, fd := range s.in {
		unix.Close(fd)
	}
	s.empty.Wait()
}
