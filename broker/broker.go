package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/store"
)

// Broker is one broker process's broker. Does the work of BrokerController.
type Broker struct {
	cfg  *config.Live[config.Broker]
	log  *slog.Logger
	fsys ioengine.FS
	now  func() time.Time

	store      *store.Store
	topics     *topics
	groups     *groups
	offsets    *consumerOffsets
	clients    *clientTable
	locks      *queueLocks
	stats      *brokerStats
	storeStats *storeStats
	schedule   *schedule
	longPoll   longPolls
	calls      calls
	routes     *routes
	register   *registrar
	modes      *requestModes

	topicRoutes topicRoutes

	server  *netpath.Server
	lanes   [laneCount]*netpath.Lane
	putLane *netpath.Lane

	// Fixed at the start.
	storeHost        message.Host
	addr             string         // brokerIP1:listenPort, as clients reach it
	outgoing         client.Options // for connections to name servers
	syncFlush        bool
	syncFlushTimeout time.Duration
	delayLevels      []time.Duration
	addedProperties  []byte // the properties that every stored message gets
	memoryBytes      int64  // of this machine
	bootMillis       int64

	acceptFrom  atomic.Int64 // startAcceptSendRequestTimeStamp, ms
	uniqCounter atomic.Uint32

	handlersMu sync.Mutex
	handlers   atomic.Pointer[[]*handler]

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Options are what a process gives its broker besides the configuration.
type Options struct {
	FS     ioengine.FS      // ioengine.OS() when nil
	Logger *slog.Logger     // discarded when nil
	Now    func() time.Time // the wall clock; time.Now when nil
}

var errClientExpired = errors.New("no heartbeat for channelExpiredTimeout")

// processStart is where steadyNow counts from.
var processStart = time.Now()

// steadyNow is a clock that never jumps: for leases and expiry (R7).
func steadyNow() time.Duration { return time.Since(processStart) }

func (b *Broker) nowMillis() int64 { return b.now().UnixMilli() }

func (b *Broker) newSender() sender { return sender{b: b, stats: b.stats.lane(0)} }

// Open opens the store and binds the ports; requests are answered after Start. An error leaves nothing open.
func Open(cfg *config.Live[config.Broker], o Options) (*Broker, error) {
	b := &Broker{cfg: cfg, log: o.Logger, fsys: o.FS, now: o.Now}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.register = newRegistrar(b) // before the store: a device that fails at once leaves the route for good
	if b.fsys == nil {
		b.fsys = engineOf(cfg.Load())
	}
	if b.now == nil {
		b.now = time.Now
	}
	for _, step := range []func() error{b.listen, b.openTables, b.openStore, b.hostCommits} {
		if err := step(); err != nil {
			return nil, errors.Join(err, b.closeUnstarted())
		}
	}
	return b, nil
}

// Recover opens the store as a start does and closes it in order; nothing is served. Then any broker may open it: what a killed one had only
// in ringmq-tail is in the segments. The ports are bound meanwhile: 0 is best.
func Recover(cfg *config.Live[config.Broker], o Options) (*commitlog.Report, error) {
	b, err := Open(cfg, o)
	if err != nil {
		return nil, err
	}
	report := b.store.Recovery()
	return report, b.closeUnstarted()
}

func engineOf(c *config.Broker) ioengine.FS {
	if c.IoEngine == "portable" {
		return ioengine.Portable()
	}
	return ioengine.OS()
}

// logEngine is how the log is written: as configured, or for auto what is best here.
func (b *Broker) logEngine(c *config.Broker) commitlog.EngineOptions {
	o := commitlog.EngineOptions{Sync: b.syncFlush, TailSize: c.LogTailBytes, ColdCacheSize: c.ColdReadCacheBytes}
	if c.IoEngine == autoEngine {
		var why string
		o.Engine, why = b.autoLogEngine(c)
		b.log.Info("ioEngine=auto took a log engine", "engine", o.Engine, "why", why)
	} else if kind, err := ioengine.ParseEngine(c.IoEngine); err == nil {
		o.Engine = kind
	}
	return o
}

// listen binds the ports. It comes first because the port may be chosen by the system, and records carry it.
func (b *Broker) listen() error {
	c := b.cfg.Load()
	b.bootMillis = b.nowMillis()
	b.memoryBytes = totalMemory()
	b.syncFlush = c.FlushDiskType == config.SyncFlush
	b.syncFlushTimeout = time.Duration(c.SyncFlushTimeout) * time.Millisecond
	levels, err := config.ParseDelayLevels(c.MessageDelayLevel)
	if err != nil {
		return err
	}
	b.delayLevels = levels
	b.storeStats = newStoreStats(1+reactorsOf(c), b.bootMillis)
	b.stats = newBrokerStats(c.BrokerClusterName, b.storeStats, b.log)
	b.clients = newClientTable(b.log)
	b.locks = newQueueLocks(b.log)
	b.routes = newRoutes(b, routeTable(), adminRoutes())
	b.lanes[laneControl] = netpath.NewLane(8, 50_000)
	b.lanes[laneCold] = netpath.NewLane(8, coldPlaces)
	b.lanes[laneAdmin] = netpath.NewLane(4, 1_000)
	b.putLane = netpath.NewLane(1, putPlaces)
	if b.outgoing.TLS, err = clientTLS(&c.TLS); err != nil {
		return err
	}
	if b.server, err = b.newServer(c); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(b.server.Addr(0).String())
	if err != nil {
		return err
	}
	host, err := netip.ParseAddr(c.BrokerIP1)
	if err != nil {
		return fmt.Errorf("brokerIP1 %q must be an address: records carry it, and clients connect to it: %w", c.BrokerIP1, err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	b.storeHost = message.HostOf(netip.AddrPortFrom(host, uint16(number)))
	b.addr = net.JoinHostPort(c.BrokerIP1, port)
	b.addedProperties = message.AppendProperty(nil, message.PropertyMsgRegion, []byte(c.RegionID))
	b.addedProperties = message.AppendProperty(b.addedProperties, message.PropertyTraceOn, strconv.AppendBool(nil, c.TraceOn))
	b.addedProperties = message.AppendProperty(b.addedProperties, message.PropertyCluster, []byte(c.BrokerClusterName))
	return nil
}

func (b *Broker) newServer(c *config.Broker) (*netpath.Server, error) {
	bind := func(port int) string { return net.JoinHostPort(c.BindAddress, strconv.Itoa(port)) }
	addrs := []string{bind(c.ListenPort)}
	if fast := c.FastListenPort; fast >= 0 {
		if fast == 0 && c.ListenPort != 0 {
			fast = c.ListenPort - 2
		}
		addrs = append(addrs, bind(fast))
	}
	limits := netpath.DefaultLimits()
	limits.MaxFrame = c.FrameMaxLength
	limits.MaxConns, limits.MaxConnsPerAddr = c.MaxConnections, c.MaxConnectionsPerAddress
	limits.IdleTimeout = time.Duration(c.ServerChannelMaxIdleTimeSeconds) * time.Second
	cpus, err := config.ParseCPUs(c.ReactorCpus)
	if err != nil {
		return nil, err
	}
	mode, tlsConfig, err := serverTLS(&c.TLS, b.log)
	if err != nil {
		return nil, err
	}
	rebalance := netpath.RebalanceAuto
	if !c.ReactorRebalance {
		rebalance = netpath.RebalanceOff
	}
	return netpath.NewServer(netpath.Options{
		Listen: addrs, Reactors: reactorsOf(c), CPUs: cpus, Portable: c.IoEngine == "portable", Limits: limits, TLSMode: mode, TLSConfig: tlsConfig,
		ProxyProtocol: c.ProxyProtocol != "off", Backlog: c.ServerSocketBacklog, Rebalance: rebalance, Poller: b.pollerOf(c), Logger: b.log,
		NewHandler: func(r *netpath.Reactor) netpath.Handler { return newHandler(b, r) },
	})
}

// openTables loads what is kept under config/.
func (b *Broker) openTables() error {
	// Those that were opened are stopped by close, whatever comes of the rest.
	defer func() {
		for _, s := range b.savers() {
			go s.run()
		}
	}()
	c := b.cfg.Load()
	dir := filepath.Join(c.StorePathRootDir, "config")
	if err := b.fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var err error
	if b.topics, err = openTopics(b.fsys, dir, c, b.nowMillis, b.log); err != nil {
		return err
	}
	if b.groups, err = openGroups(b.fsys, dir, c, b.nowMillis, b.log); err != nil {
		return err
	}
	if b.offsets, err = openOffsets(b.fsys, dir, c, b.nowMillis, b.log); err != nil {
		return err
	}
	if b.modes, err = openRequestModes(b.fsys, dir, c.AcceptEmptyMetadata, b.log); err != nil {
		return err
	}
	b.schedule, err = openSchedule(b, b.fsys, dir, c.AcceptEmptyMetadata, b.log)
	return err
}

func (b *Broker) openStore() error {
	c := b.cfg.Load()
	retention, err := retentionOf(c)
	if err != nil {
		return err
	}
	b.store, err = store.Open(store.Options{
		FS: b.fsys, Root: c.StorePathRootDir, CommitLogDir: c.StorePathCommitLog, SegmentSize: c.MappedFileSizeCommitLog,
		QueueFileUnits: int((c.MappedFileSizeConsumeQueue + store.UnitSize - 1) / store.UnitSize), HashSlots: c.MaxHashSlotNum,
		IndexEntries: c.MaxIndexNum, IndexEnable: c.MessageIndexEnable,
		FlushEvery: time.Duration(c.FlushIntervalCommitLog) * time.Millisecond, Window: time.Duration(c.AsyncFlushWindowMillis) * time.Millisecond,
		Engine:    b.logEngine(c),
		AppendCRC: c.EnabledAppendPropCRC, StoreHost: b.storeHost, DelayLevels: b.delayLevels, Logger: b.log, Now: b.now,
		Retention: retention,
		OnFlushed: b.flushed, OnFail: b.deviceFailed, OnArrive: b.arrived,
	})
	return err
}

// retentionOf is when messages go, as configured.
func retentionOf(c *config.Broker) (store.Retention, error) {
	hours, err := config.ParseHours(c.DeleteWhen)
	return store.Retention{Reserved: time.Duration(c.FileReservedTime) * time.Hour, DeleteWhen: hours,
		Every: time.Duration(c.CleanResourceInterval) * time.Millisecond, MaxUsed: float64(c.DiskMaxUsedSpaceRatio) / 100,
		CleanForcibly: float64(c.DiskSpaceCleanForciblyRatio) / 100, WarningLevel: float64(c.DiskSpaceWarningLevelRatio) / 100,
		BetweenSegments: time.Duration(c.DeleteCommitLogFilesInterval) * time.Millisecond}, err
}

// deviceFailed is the broker's part of rule R2: leave the route, so that producers go elsewhere.
func (b *Broker) deviceFailed(error) {
	b.spawn(b.register.leave)
}

// Start answers requests and registers with the name servers.
func (b *Broker) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.topics.changed = b.register.topicChanged
	b.server.Start()
	b.goLabelled(ctx, "schedule", b.schedule.run)
	b.goLabelled(ctx, "register", b.register.run)
	b.goLabelled(ctx, "expiry", func(ctx context.Context) {
		beat.Every(ctx, 10*time.Second, func() {
			b.expireClients()
			b.locks.sweep(steadyNow())
		})
	})
	b.goLabelled(ctx, "stats", func(ctx context.Context) {
		beat.Every(ctx, time.Second, func() { b.stats.tick(steadyNow(), b.now()) })
	})
}

func (b *Broker) goLabelled(ctx context.Context, name string, run func(context.Context)) {
	b.wg.Go(func() { pprof.Do(ctx, pprof.Labels("room", "broker", "thread", name), run) })
}

// spawn runs work that a reactor must not wait for.
func (b *Broker) spawn(work func()) { b.wg.Go(work) }

// Addr is where clients reach this broker: brokerIP1:listenPort.
func (b *Broker) Addr() string { return b.addr }

// Shutdown leaves the name servers, answers what has been read, saves the tables and closes the store. When ctx ends first, requests
// that still wait for a goroutine are dropped, unanswered and not carried out; those that run already are waited for all the same.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.register.leave()
	defer context.AfterFunc(ctx, func() {
		for _, l := range b.allLanes() {
			l.Abandon()
		}
	})()
	err := b.server.Shutdown(ctx)
	if b.stop != nil {
		b.stop()
	}
	return errors.Join(err, b.close())
}

// Pending keeps the connections of a reactor open in a shutdown until what was stored for them is answered: sends wait for the log to be
// flushed, or are on their way through a lane. See netpath.Drainer.
func (h *handler) Pending() bool {
	for _, l := range h.b.allLanes() {
		if l.Waiting() > 0 {
			return true
		}
	}
	return h.acks.Len() > 0
}

func (b *Broker) allLanes() (list []*netpath.Lane) {
	for _, l := range append(b.lanes[:], b.putLane) {
		if l != nil {
			list = append(list, l)
		}
	}
	return list
}

// closeUnstarted is close for a broker that could not be opened: its ports may be bound.
func (b *Broker) closeUnstarted() error {
	if b.server == nil {
		return b.close()
	}
	return errors.Join(b.server.Shutdown(context.Background()), b.close())
}

func (b *Broker) close() error {
	var errs []error
	for _, l := range b.allLanes() {
		l.Close()
	}
	b.topicRoutes.close()
	b.wg.Wait()
	for _, s := range b.savers() {
		errs = append(errs, s.stop())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	return errors.Join(errs...)
}

func (b *Broker) savers() (list []*saver) {
	if b.topics != nil {
		list = append(list, b.topics.saver)
	}
	if b.groups != nil {
		list = append(list, b.groups.saver)
	}
	if b.offsets != nil {
		list = append(list, b.offsets.saver)
	}
	if b.schedule != nil {
		list = append(list, b.schedule.saver)
	}
	if b.modes != nil {
		list = append(list, b.modes.saver)
	}
	return list
}

func (b *Broker) addHandler(h *handler) {
	b.handlersMu.Lock()
	defer b.handlersMu.Unlock()
	list := append([]*handler(nil), b.allHandlers()...)
	list = append(list, h)
	b.handlers.Store(&list)
}

func (b *Broker) allHandlers() []*handler {
	if p := b.handlers.Load(); p != nil {
		return *p
	}
	return nil
}
