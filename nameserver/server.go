package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// Options of a name server.
type Options struct {
	Config *config.Live[config.NameServer]
	// FS holds the key-value configuration. nil: the system's.
	FS     ioengine.FS
	Logger *slog.Logger // nil: slog.Default()
	// Now is monotonic time since any fixed moment; nil: the process's. Leases run by it.
	Now func() time.Duration
}

// Places in the lanes. Registrations of thousands of brokers at once find room; more is SYSTEM_BUSY, and brokers try again.
const (
	orderedPlaces = 4096
	slowWorkers   = 2
	slowPlaces    = 1024
	// laneBytes bounds the frames that wait in both lanes together.
	laneBytes = 256 << 20
)

// Server is a name server.
type Server struct {
	config  *config.Live[config.NameServer]
	log     *slog.Logger
	now     func() time.Duration
	started time.Duration // when routes began to be collected
	routes  *routes
	kv      *kvConfig

	net      *netpath.Server
	ordered  *netpath.Lane // one goroutine
	slow     *netpath.Lane
	held     atomic.Int64 // bytes of the frames in the lanes. Invariant: <= laneBytes
	notifier *notifier

	watch watch
	quit  chan struct{}
	done  sync.WaitGroup
	once  sync.Once
}

// watch is the work of the goroutine that removes brokers.
type watch struct {
	mu sync.Mutex
	// closed are connections that are gone and have registered brokers. OnClose and registrations add, the goroutine takes all.
	closed []*peer
	wake   chan struct{} // holds one token when closed is not empty
}

// New reads the key-value configuration and binds the port. Nothing is served before Start.
func New(o Options) (*Server, error) {
	s, err := newTables(o)
	if err != nil {
		return nil, err
	}
	s.ordered = netpath.NewLane(1, orderedPlaces)
	s.slow = netpath.NewLane(slowWorkers, slowPlaces)
	if err := s.listen(); err != nil {
		s.ordered.Close()
		s.slow.Close()
		return nil, err
	}
	return s, nil
}

// newTables makes the part of a server that needs no socket.
func newTables(o Options) (*Server, error) {
	if o.Config == nil {
		return nil, errors.New("name server without configuration: set Options.Config")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.FS == nil {
		o.FS = ioengine.OS()
	}
	if o.Now == nil {
		o.Now = func() time.Duration { return time.Duration(netpath.ReadClock().MonoNanos) }
	}
	c := o.Config.Load()
	kv, err := loadKV(o.FS, c.KvConfigPath, c.AcceptEmptyMetadata, o.Logger)
	if err != nil {
		return nil, err
	}
	return &Server{
		config: o.Config, log: o.Logger, now: o.Now, started: o.Now(), routes: newRoutes(), kv: kv, notifier: newNotifier(o.Logger),
		watch: watch{wake: make(chan struct{}, 1)}, quit: make(chan struct{}),
	}, nil
}

func (s *Server) listen() error {
	c := s.config.Load()
	mode, tlsConfig, err := serverTLS(&c.TLS, s.log)
	if err != nil {
		return err
	}
	if s.notifier.tls, err = clientTLS(&c.TLS); err != nil {
		return err
	}
	server, err := netpath.NewServer(netpath.Options{
		Listen:   []string{net.JoinHostPort(c.BindAddress, strconv.Itoa(c.ListenPort))},
		Reactors: c.Reactors,
		Limits: netpath.Limits{
			MaxFrame: c.FrameMaxLength, IdleTimeout: time.Duration(c.ServerChannelMaxIdleTimeSeconds) * time.Second,
			MaxConns: c.MaxConnections, MaxConnsPerAddr: c.MaxConnectionsPerAddress,
		},
		TLSMode: mode, TLSConfig: tlsConfig, ProxyProtocol: c.ProxyProtocol == "accept", Backlog: c.ServerSocketBacklog, Logger: s.log,
		NewHandler: func(*netpath.Reactor) netpath.Handler { return &handler{s: s} },
	})
	if err != nil {
		return fmt.Errorf("name server: %w", err)
	}
	s.net = server
	return nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.net.Addr(0) }

// Start begins to serve.
func (s *Server) Start() {
	s.done.Go(s.watchBrokers)
	s.done.Go(s.notifier.run)
	s.net.Start()
	s.log.Info("name server started", "addr", s.Addr().String())
}

// Shutdown answers what is in hand, as far as ctx allows, and ends. Nothing has to be saved: what is on disk was written when it changed.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	s.once.Do(func() {
		err = s.net.Shutdown(ctx)
		s.ordered.Close()
		s.slow.Close()
		close(s.quit)
		s.notifier.stop()
		s.done.Wait()
	})
	return err
}

// watchBrokers removes brokers whose connection closed, and looks for silent ones.
func (s *Server) watchBrokers() {
	scan := time.NewTicker(time.Duration(s.config.Load().ScanNotActiveBrokerInterval) * time.Millisecond)
	defer scan.Stop()
	for {
		select {
		case <-s.watch.wake:
			s.removeClosed()
		case <-scan.C:
			s.removeSilent()
		case <-s.quit:
			return
		}
	}
}

// peerClosed has the brokers of a closed connection removed soon. Any goroutine; it does not wait.
func (s *Server) peerClosed(p *peer) {
	if !s.routes.keeps(p) {
		return
	}
	s.watch.mu.Lock()
	s.watch.closed = append(s.watch.closed, p)
	s.watch.mu.Unlock()
	select {
	case s.watch.wake <- struct{}{}:
	default:
	}
}

func (s *Server) removeClosed() {
	s.watch.mu.Lock()
	closed := s.watch.closed
	s.watch.closed = nil
	s.watch.mu.Unlock()
	for _, p := range closed {
		gone, notices := s.routes.unregisterPeer(p)
		for _, g := range gone {
			s.log.Warn("broker removed: its connection closed", "cluster", g.cluster, "broker", g.name, "brokerId", g.id, "addr", g.addr)
		}
		s.notify(notices...)
	}
}

func (s *Server) removeSilent() {
	now := s.now()
	gone, peers := s.routes.silent(now, s.log)
	if len(gone) == 0 {
		return
	}
	s.notify(s.routes.unregisterSilent(gone, now)...)
	for _, p := range peers {
		if p.conn != nil {
			p.conn.Close(errSilent)
		}
	}
}

var errSilent = errors.New("the broker that registered here was silent for longer than its lease")

func (s *Server) notify(notices ...*minIDNotice) {
	if !s.config.Load().NotifyMinBrokerIDChanged {
		return
	}
	for _, n := range notices {
		if n != nil {
			s.notifier.add(n)
		}
	}
}

// handler is a reactor's way into the server.
type handler struct {
	s   *Server
	cmd remoting.Command
}

var errBusy = reply{code: remoting.RespSystemBusy, remark: "[OVERLOAD] too many requests are waiting, try again later"}

// OnFrame answers what only looks something up, and hands the rest to a lane.
func (h *handler) OnFrame(c *netpath.Conn, frame []byte) {
	if err := h.cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	if h.cmd.IsResponse() {
		return // we ask nothing over connections that others opened
	}
	p, _ := c.User.(*peer)
	if p == nil {
		p = &peer{conn: c, addr: c.Remote}
		c.User = p
	}
	var a reply
	switch e, ok := endpoints[h.cmd.Code]; {
	case !ok:
		a = unsupported(h.cmd.Code)
	case e.lane == inline:
		a = e.handle(h.s, &request{&h.cmd, p})
	case h.s.submit(e.lane, c, frame):
		return
	default:
		a = errBusy
	}
	if !h.cmd.IsOneway() {
		c.End(a.appendTo(c.Begin(), &h.cmd))
	}
}

// submit hands a copy of the frame to a lane; false when the lane is full.
func (s *Server) submit(l lane, c *netpath.Conn, frame []byte) bool {
	to := s.slow
	if l == ordered {
		to = s.ordered
	}
	size := int64(len(frame))
	if s.held.Add(size) <= laneBytes && to.Submit(c, frame, s.runInLane) {
		return true
	}
	s.held.Add(-size)
	return false
}

// runInLane handles a request that OnFrame has decoded once already. c.User was set before the request got here and does not change.
func (s *Server) runInLane(c *netpath.Conn, frame []byte) {
	defer s.held.Add(-int64(len(frame)))
	var cmd remoting.Command
	if err := cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	a := s.handleRequest(&request{&cmd, c.User.(*peer)})
	if !cmd.IsOneway() {
		c.Send(a.appendTo(nil, &cmd))
	}
}

// OnClose has the brokers removed that registered through c.
func (h *handler) OnClose(c *netpath.Conn) {
	if p, _ := c.User.(*peer); p != nil {
		p.closed.Store(true)
		h.s.peerClosed(p)
	}
}

// Movable lets every connection go to another reactor: nothing is kept for one. See netpath.Mover.
func (h *handler) Movable(*netpath.Conn) bool { return true }

// OnTurn has nothing to do: answers are written by netpath.
func (h *handler) OnTurn(netpath.Clock) {}
