package netpath

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reactor sleeps until something is due, not from tick to tick.
func TestIdleReactorSleeps(t *testing.T) {
	h := newHandTurned(t, Options{Limits: Limits{FirstFrameTimeout: 20 * time.Second, IdleTimeout: time.Minute}}, &testHandler{frame: echo})
	h.send(t, jsonFrame("x"))
	h.turn()
	h.turn()
	if d := h.r.sleepTime(); d < 15*time.Second {
		t.Errorf("sleeps %v with nothing due for 20 s", d)
	}
	h.r.SetTimer(h.r.now.MonoNanos + int64(3*time.Second))
	if d := h.r.sleepTime(); d > 3*time.Second {
		t.Errorf("sleeps %v with a timer of 3 s", d)
	}
	h.r.starved = append(h.r.starved, h.c)
	if d := h.r.sleepTime(); d > h.r.srv.opt.Tick {
		t.Errorf("sleeps %v while a connection waits for memory", d)
	}
	h.r.starved = nil
	h.r.draining = true
	if d := h.r.sleepTime(); d > h.r.srv.opt.Tick {
		t.Errorf("sleeps %v in a shutdown", d)
	}
	h.r.draining = false
}

// However long rounds are apart, a deadline is found soon after it is over.
func TestSweepComesWhenADeadlineIsOver(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{frame: echo})
	h.r.srv.opt.Tick = 100 * time.Millisecond
	start := h.r.now.MonoNanos
	at := start + int64(3*time.Second)
	h.c.opened = at - int64(h.r.limits.FirstFrameTimeout)
	sweeps := 0
	for h.r.now.MonoNanos = start; !h.c.gone; sweeps++ {
		if sweeps > 20 {
			t.Fatal("still open")
		}
		h.r.now.MonoNanos = max(h.r.now.MonoNanos, h.r.nextSweep)
		h.r.sweep()
	}
	if late := h.r.now.MonoNanos - at; late < 0 || late > int64(200*time.Millisecond) || sweeps > 3 {
		t.Errorf("closed %v after its deadline, in sweep %d", time.Duration(late), sweeps)
	}
}

// A deadline that arises between two rounds is found, though no round knew of it.
func TestSweepFindsNewDeadlines(t *testing.T) {
	h := newHandTurned(t, Options{}, &testHandler{frame: echo})
	h.r.srv.opt.Tick = 100 * time.Millisecond
	h.send(t, jsonFrame("x"))
	h.turn()
	start := h.r.now.MonoNanos
	h.r.nextSweep = start
	h.r.sweep()
	came := start + int64(time.Second)
	h.c.partialSince = came // the beginning of a frame came
	for h.r.now.MonoNanos = came; !h.c.gone; {
		if h.r.now.MonoNanos > came+int64(time.Hour) {
			t.Fatal("still open")
		}
		h.r.now.MonoNanos = max(h.r.now.MonoNanos, h.r.nextSweep)
		h.r.sweep()
	}
	if late := h.r.now.MonoNanos - came - int64(h.r.limits.PartialFrameTimeout); late > int64(200*time.Millisecond) {
		t.Errorf("closed %v after its deadline", time.Duration(late))
	}
}

func TestReactorsArePinned(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil || allowed.Count() < 2 {
		t.Skip("one CPU")
	}
	var cpus []int
	for i := 0; len(cpus) < 2; i++ {
		if allowed.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	for _, tt := range []struct {
		rule   string
		cpus   []int
		anyway bool
		want   [][]int // CPUs of each reactor's thread, nil: all that are allowed
	}{
		{"one by one, from the beginning again", cpus, true, [][]int{cpus[:1], cpus[1:], cpus[:1]}},
		{"all to the only one", cpus[1:], true, [][]int{cpus[1:], cpus[1:], cpus[1:]}},
		{"a CPU that is not there is none", []int{1000}, true, [][]int{nil, nil, nil}},
		{"without a list not", nil, true, [][]int{nil, nil, nil}},
		{"on two CPUs not", cpus, false, [][]int{nil, nil, nil}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if !tt.anyway && runtime.NumCPU() > 2 {
				t.Skip("more than two CPUs")
			}
			s := serve(t, Options{Reactors: 3, CPUs: tt.cpus, pinAnyway: tt.anyway}, &testHandler{})
			for i, r := range s.reactors {
				got := make(chan unix.CPUSet, 1)
				r.Post(func() {
					var set unix.CPUSet
					if err := unix.SchedGetaffinity(0, &set); err != nil {
						t.Error(err)
					}
					got <- set
				})
				want := allowed
				if tt.want[i] != nil {
					want = unix.CPUSet{}
					want.Set(tt.want[i][0])
				}
				if set := receive(t, got); set != want {
					t.Errorf("reactor %d: %v, want %v", i, set, want)
				}
			}
		})
	}
}

// segsOut is the number of TCP segments with data that c has sent.
func segsOut(t *testing.T, c *Conn) uint32 {
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Error(err)
		return 0
	}
	return info.Data_segs_out
}

// The head of an answer and its ranges leave in as few segments as their bytes need: 1448 bytes each, as on a network.
func TestHeadAndRangesShareSegments(t *testing.T) {
	eachPoller(t, func(t *testing.T, o Options) {
		file, data := testFile(t, 1<<20)
		const segment = 1448
		for _, tt := range []struct {
			name   string
			ranges []int
			heads  bool // one before each range
			spare  int  // segments that are allowed besides those that the bytes need
		}{
			{"a head and a small range", []int{1000}, false, 0},
			{"a head and a range", []int{40_000}, false, 0},
			{"a head and three ranges", []int{20_000, 30_000, 17_000}, false, 2},
			{"three heads, each with a range", []int{20_000, 30_000, 17_000}, true, 4},
		} {
			t.Run(tt.name, func(t *testing.T) {
				sent := make(chan uint32, 1)
				var rel countedRelease
				var before uint32
				s := serve(t, o, &testHandler{frame: func(c *Conn, frame []byte) {
					sent <- segsOut(t, c) - before
					before = segsOut(t, c)
					for i, n := range tt.ranges {
						if i == 0 || tt.heads {
							echo(c, frame)
						}
						c.SendFile(int(file.Fd()), int64(i)*100_000, n, &rel)
					}
				}})
				dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
					return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, segment+12) })
				}}
				conn, err := dialer.Dial("tcp", s.Addr(0).String())
				if err != nil {
					t.Fatal(err)
				}
				c := newClient(t, conn)
				head := jsonFrame("pull")
				size := 0
				ask := func() {
					size = 0
					c.send(head)
					for i, n := range tt.ranges {
						if i == 0 || tt.heads {
							c.expect(head)
							size += len(head)
						}
						c.expect(data[i*100_000 : i*100_000+n])
						size += n
					}
				}
				for range 5 { // until the window is open
					ask()
					receive(t, sent)
				}
				c.send(head)
				got := int(receive(t, sent))
				if least := (size + segment - 1) / segment; got > least+tt.spare {
					t.Errorf("%d segments for %d bytes, want %d at most", got, size, least+tt.spare)
				}
				io.CopyN(io.Discard, c.r, int64(size))
			})
		}
	})
}

// Accepting many connections takes a bounded part of a turn.
func TestAcceptsAreSharedOutOverTurns(t *testing.T) {
	s, err := NewServer(Options{Listen: []string{"127.0.0.1:0"}, Reactors: 1, NewHandler: func(*Reactor) Handler { return &testHandler{} }})
	if err != nil {
		t.Fatal(err)
	}
	r := s.reactors[0]
	const conns = 3*acceptsPerTurn + 1
	for range conns {
		conn, err := net.Dial("tcp", s.Addr(0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for turn := 1; turn <= 4; turn++ {
		r.turn()
		if n := s.census.count(); n != min(turn*acceptsPerTurn, conns) {
			t.Errorf("%d connections after %d turns", n, turn)
		}
	}
	for _, c := range r.conns {
		r.drop(c, ErrShutdown)
	}
	s.closeUnstarted()
}
