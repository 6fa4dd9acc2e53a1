package netpath

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// echoClient keeps so many requests in flight on each of its connections, from one thread.
type echoClient struct {
	epfd     int
	fds      []int
	request  []byte
	inFlight int
	partial  []int
}

func newEchoClient(b *testing.B, s *Server, conns, inFlight, size int) *echoClient {
	e := &echoClient{request: jsonFrame(strings.Repeat("x", size)), inFlight: inFlight, partial: make([]int, conns)}
	var err error
	if e.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		b.Fatal(err)
	}
	addr := netAddrPort(s.Addr(0))
	for i := range conns {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
			b.Fatal(err)
		}
		unix.EpollCtl(e.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		e.fds = append(e.fds, fd)
	}
	b.Cleanup(func() {
		for _, fd := range append(e.fds, e.epfd) {
			unix.Close(fd)
		}
	})
	return e
}

// run makes n requests at least, and leaves none in flight.
func (e *echoClient) run(b *testing.B, n int) (done int) {
	batch := bytes.Repeat(e.request, e.inFlight)
	buf := make([]byte, 256<<10)
	events := make([]unix.EpollEvent, 64)
	sent := 0
	for _, fd := range e.fds {
		unix.Write(fd, batch)
		sent += e.inFlight
	}
	for done < sent {
		k, err := unix.EpollWait(e.epfd, events, -1)
		if err == unix.EINTR {
			continue
		}
		for _, ev := range events[:k] {
			got, err := unix.Read(e.fds[ev.Fd], buf)
			if got <= 0 {
				b.Fatal(got, err)
			}
			e.partial[ev.Fd] += got
			answers := e.partial[ev.Fd] / len(e.request)
			e.partial[ev.Fd] %= len(e.request)
			done += answers
			if answers > 0 && sent < n {
				unix.Write(e.fds[ev.Fd], batch[:answers*len(e.request)])
				sent += answers
			}
		}
	}
	return done
}

// threadCPU is what the reactor's thread has used so far, in nanoseconds.
func threadCPU(r *Reactor) (nanos, switches int64) {
	done := make(chan unix.Rusage, 1)
	r.Post(func() {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_THREAD, &u)
		done <- u
	})
	u := <-done
	return u.Utime.Nano() + u.Stime.Nano(), u.Nvcsw
}

// BenchmarkPollers compares epoll and io_uring, an echo each. server-ns is CPU of the reactor's thread; calls/op, of a ring only, its
// calls into the kernel.
func BenchmarkPollers(b *testing.B) {
	for _, load := range []struct{ conns, inFlight, size int }{{1, 1, 128}, {16, 4, 128}, {16, 4, 1024}, {256, 1, 128}} {
		for _, poller := range []Poller{PollerEpoll, PollerUring} {
			name := [...]string{"epoll", "uring"}[poller]
			b.Run(fmt.Sprintf("conns=%d/inFlight=%d/bytes=%d/%s", load.conns, load.inFlight, load.size, name), func(b *testing.B) {
				if poller == PollerUring {
					needsRing(b)
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				s := serve(b, Options{Reactors: 1, Poller: poller}, &testHandler{frame: echo})
				e := newEchoClient(b, s, load.conns, load.inFlight, load.size)
				e.run(b, 10*load.conns)
				r := s.reactors[0]
				var entersBefore, enters uint64
				cpu, switches := threadCPU(r)
				turns := s.Stats().Turns
				if r.ring != nil {
					entersBefore = ringEnters(r)
				}
				b.ResetTimer()
				n := float64(e.run(b, b.N))
				b.StopTimer()
				cpuAfter, switchesAfter := threadCPU(r)
				b.ReportMetric(float64(cpuAfter-cpu)/n, "server-ns/op")
				b.ReportMetric(float64(switchesAfter-switches)/n, "switches/op")
				b.ReportMetric(float64(s.Stats().Turns-turns)/n, "turns/op")
				if r.ring != nil {
					enters = ringEnters(r)
					b.ReportMetric(float64(enters-entersBefore)/n, "calls/op")
				}
			})
		}
	}
}

func ringEnters(r *Reactor) uint64 {
	done := make(chan uint64, 1)
	r.Post(func() { done <- r.ring.Counts().Enters })
	return <-done
}
