package netpath

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// TLSMode says what to do with TLS and with plain connections (tls.server.mode).
type TLSMode int

const (
	TLSDisabled   TLSMode = iota // TLS is refused
	TLSPermissive                // both are served
	TLSEnforcing                 // plain text is refused
)

// Poller says what serves native connections.
type Poller int

const (
	PollerEpoll Poller = iota
	// PollerUring is io_uring (linux 6.0), see ring_linux.go. Where the kernel or a container refuses it, epoll serves; that is logged.
	// Connections stay at the reactor that they came to: there is no rebalancing.
	PollerUring
)

// Options of a server. Listen and NewHandler have to be set.
type Options struct {
	Listen        []string // addresses; a connection's Listener is its index here
	Reactors      int      // 0: half of the CPUs that the process may use, at least one
	CPUs          []int    // pin reactor i to CPUs[i % len]; empty, or on one or two CPUs: not pinned
	Portable      bool     // goroutines and Go's own poller, also where there is epoll
	Limits        Limits
	TLSMode       TLSMode
	TLSConfig     *tls.Config // GetConfigForClient is where certificates are reloaded
	ProxyProtocol bool        // accept a PROXY v1 or v2 header before everything else
	Backlog       int         // of each listener's accept queue; 0: 1024
	// Tick is the time between looks at what nobody reports: parts of a sweep for missed deadlines, memory that connections wait
	// for, a shutdown. A reactor with nothing of the kind sleeps longer. 0: 100 ms.
	Tick      time.Duration
	Rebalance Rebalance
	// Poller does not concern portable servers. RingBuffers (a power of two; 0: 512) and RingBufferSize (0: 4 KiB) are what a reactor's
	// connections receive into with PollerUring.
	Poller                      Poller
	RingBuffers, RingBufferSize int
	// NewHandler is called once for each reactor, by NewServer.
	NewHandler func(r *Reactor) Handler
	Logger     *slog.Logger

	pinAnyway bool // tests pin on two CPUs, too
}

const (
	defaultBacklog     = 1024
	acceptPause        = 100 * time.Millisecond
	defaultRingBuffers = 512
	// Of 4, 8 and 16 KiB the smallest is the fastest, also for 4 frames of 1 KiB at a time: it stays in the cache. It also bounds what a turn
	// brings from one connection: the kernel makes 32 pieces of it at most.
	defaultRingBufferSize = 4 << 10
	coldReaders           = 8 // goroutines that read a part of a file at the same time
)

// Server is a set of listeners and the reactors that serve their connections.
type Server struct {
	opt      Options
	reactors []*Reactor
	addrs    []net.Addr
	census   census
	budget   budget
	accepted atomic.Uint64
	refused  [refusals]atomic.Uint64
	force    atomic.Bool   // Shutdown has run out of time
	lastMove atomic.Int64  // MonoNanos of the last decision to move connections
	partTime time.Duration // tests have more of it
	// cold is a place for each goroutine that reads a file for a reactor; resident tells whether a part of a file is in memory.
	cold     chan struct{}
	resident func(fd int, off int64, n int) bool

	// mu guards the life of the server: Start, then Shutdown.
	mu        sync.Mutex
	started   bool
	stopped   bool
	listeners []net.Listener // portable path
	accepting sync.WaitGroup
}

// NewServer binds the listeners; nothing is accepted before Start.
func NewServer(o Options) (*Server, error) {
	if o.NewHandler == nil {
		return nil, errors.New("netpath: no handler; set Options.NewHandler")
	}
	if o.TLSMode == TLSEnforcing && o.TLSConfig == nil {
		return nil, errors.New("netpath: TLS is enforced without a certificate; set Options.TLSConfig")
	}
	if o.Reactors <= 0 {
		o.Reactors = max(1, runtime.GOMAXPROCS(0)/2) // unlike the number of CPUs, it follows a container's quota
	}
	if o.Tick <= 0 {
		o.Tick = 100 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Limits = o.Limits.withDefaults()
	o.Portable = o.Portable || !hasPoller
	o.RingBuffers, o.RingBufferSize = cmp.Or(o.RingBuffers, defaultRingBuffers), cmp.Or(o.RingBufferSize, defaultRingBufferSize)
	s := &Server{opt: o, census: census{byAddr: map[netip.Addr]int{}}, budget: budget{limit: o.Limits.MaxInFlightBytes},
		cold: make(chan struct{}, coldReaders), resident: resident, partTime: defaultPartTime}
	if err := s.makeReactors(); err != nil {
		return nil, err
	}
	for _, addr := range o.Listen {
		if err := s.listen(addr); err != nil {
			s.closeUnstarted()
			return nil, err
		}
	}
	for _, r := range s.reactors {
		r.handler = o.NewHandler(r)
		r.drainer, _ = r.handler.(Drainer)
		r.startBalancer()
	}
	return s, nil
}

// makeReactors makes them with the poller that was asked for, or with epoll.
func (s *Server) makeReactors() error {
	o := &s.opt
	if o.Poller == PollerUring && !o.Portable {
		err := ringUsable()
		if err == nil {
			err = s.openReactors()
		}
		if err == nil {
			return nil
		}
		o.Logger.Warn("reactors do without io_uring; epoll serves the connections", "err", err)
		o.Poller = PollerEpoll
	}
	return s.openReactors()
}

func (s *Server) openReactors() error {
	for i := range s.opt.Reactors {
		r := newReactor(s, i, !s.opt.Portable)
		if !s.opt.Portable {
			if err := r.openPoller(); err != nil {
				s.closeUnstarted()
				s.reactors = nil
				return fmt.Errorf("reactor %d: %w", i, err)
			}
		}
		s.reactors = append(s.reactors, r)
	}
	return nil
}

func (s *Server) listen(addr string) error {
	// An address without a host is bound for IPv4 and IPv6.
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return fmt.Errorf("netpath: %w", err)
	}
	s.addrs = append(s.addrs, l.Addr())
	if s.opt.Portable {
		s.listeners = append(s.listeners, l)
		return nil
	}
	if err := s.addListener(l); err != nil {
		return fmt.Errorf("netpath: listen on %s: %w", addr, err)
	}
	return nil
}

// Addr is the bound address of Options.Listen[i], with the port that was given for port 0.
func (s *Server) Addr(i int) net.Addr { return s.addrs[i] }

// Reactors are the server's reactors, by index.
func (s *Server) Reactors() []*Reactor { return s.reactors }

// Start begins to serve.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopped {
		return
	}
	s.started = true
	for _, r := range s.reactors {
		go r.run()
	}
	for i, l := range s.listeners {
		s.accepting.Go(func() { s.acceptLoop(i, l) })
	}
}

// acceptLoop is the portable path's acceptor of one listener.
func (s *Server) acceptLoop(index int, l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.opt.Logger.Warn("no connection accepted; is the limit of open files too low (ulimit -n)?", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		remote, local := netAddrPort(conn.RemoteAddr()), netAddrPort(conn.LocalAddr())
		if !s.enter(remote) {
			conn.Close()
			continue
		}
		r := s.leastLoaded()
		c := s.newConn(r, index, -1, remote, local)
		c.stream = newStream(c, conn, nil, firstUnknown)
		if !r.write(letter{kind: letterAdopt, conn: c}) {
			c.abandon()
		}
	}
}

func netAddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// enter counts an accepted connection, or refuses it.
func (s *Server) enter(remote netip.AddrPort) bool {
	s.accepted.Add(1)
	why, ok := s.census.enter(remote.Addr(), &s.opt.Limits)
	if !ok {
		s.refused[why].Add(1)
	}
	return ok
}

// leastLoaded chooses the reactor of a new connection and counts it there.
func (s *Server) leastLoaded() *Reactor {
	best := s.reactors[0]
	for _, r := range s.reactors[1:] {
		if r.load.Load() < best.load.Load() {
			best = r
		}
	}
	best.load.Add(1)
	return best
}

// Shutdown stops accepting and reading, waits for what handlers still owe (Drainer), lets output leave, and closes every connection.
// When ctx ends first, what has not left by then is dropped, and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	started := s.started
	first := !s.stopped
	s.stopped = true
	s.mu.Unlock()
	if !started {
		if first {
			s.closeUnstarted()
		}
		return nil
	}
	for _, l := range s.listeners {
		l.Close()
	}
	s.accepting.Wait()
	for _, r := range s.reactors {
		r.write(letter{kind: letterDrain})
	}
	var err error
	for _, r := range s.reactors {
		select {
		case <-r.done:
		case <-ctx.Done():
			err = fmt.Errorf("netpath: output not written before shutdown: %w", ctx.Err())
			s.force.Store(true)
			for _, r := range s.reactors {
				r.Wake()
			}
			<-r.done
		}
	}
	return err
}

func (s *Server) closeUnstarted() {
	for _, l := range s.listeners {
		l.Close()
	}
	for _, r := range s.reactors {
		r.closeListeners()
		r.closePoller()
	}
}

// Stats sums up the reactors' counters.
func (s *Server) Stats() Stats {
	st := Stats{
		Conns:         s.census.count(),
		Accepted:      s.accepted.Load(),
		Refused:       make(map[string]uint64, refusals),
		InFlightBytes: s.budget.used.Load(),
	}
	for i := range s.refused {
		st.Refused[refusalNames[i]] = s.refused[i].Load()
	}
	for _, r := range s.reactors {
		p := &r.pub
		st.BytesIn += p.bytesIn.Load()
		st.BytesOut += p.bytesOut.Load()
		st.FramesIn += p.framesIn.Load()
		st.Writes += p.writes.Load()
		st.SendFiles += p.sendFiles.Load()
		st.Turns += p.turns.Load()
		st.Moved += p.moved.Load()
		st.ColdReads += p.coldReads.Load()
		st.Busy = append(st.Busy, time.Duration(p.busy.Load()))
		st.LongestTurn = max(st.LongestTurn, time.Duration(p.longest.Load()))
	}
	return st
}
