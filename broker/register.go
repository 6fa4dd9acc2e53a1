package broker

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/remoting"
)

// registrar tells the name servers of this broker: everything at the start and every registerNameServerPeriod, one topic when it changes, and
// a heartbeat every brokerHeartbeatInterval. Does the work of BrokerOuterAPI's registration and of scheduleSendHeartbeat.
type registrar struct {
	b   *Broker
	log *slog.Logger
	// again asks for a full registration soon.
	again chan struct{}

	mu    sync.Mutex
	conns map[string]*client.Conn
	topic map[string]bool // changed since the last round
	quit  bool            // the broker has left the route and stays out
	told  map[string]bool // name servers whose failure was logged
	// whole are the name servers that have everything, as far as is known: a full registration was taken, and none has failed since.
	whole map[string]bool
	// rounds counts the periodic registrations; last is the version of the latest one of any kind. Both are run's own.
	rounds int
	last   remoting.DataVersion
	// first is closed when the first round is over.
	first chan struct{}
	// asked counts the changes, covered those that a round which is over had; progress is closed when covered moves.
	asked, covered uint64
	progress       chan struct{}
}

func newRegistrar(b *Broker) *registrar {
	return &registrar{b: b, log: b.log, again: make(chan struct{}, 1), conns: map[string]*client.Conn{}, topic: map[string]bool{}, told: map[string]bool{}, whole: map[string]bool{},
		first: make(chan struct{}), progress: make(chan struct{})}
}

// servers are the addresses of namesrvAddr.
func (r *registrar) servers() []string {
	return strings.FieldsFunc(r.b.cfg.Load().NamesrvAddr, func(c rune) bool { return c == ';' || c == ',' || c == ' ' })
}

// topicChanged is told by the topic table; it must not wait.
func (r *registrar) topicChanged(t *Topic) {
	r.mu.Lock()
	r.topic[t.Name] = true
	r.asked++
	r.mu.Unlock()
	r.kick()
}

// await waits until the name servers were told of every change that was made before, d at most: whoever creates a topic finds its route, as with
// the original.
func (r *registrar) await(d time.Duration) {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for want := r.asked; r.covered < want && !r.quit; {
		progress := r.progress
		r.mu.Unlock()
		select {
		case <-progress:
			r.mu.Lock()
		case <-timeout.C:
			r.mu.Lock()
			return
		}
	}
}

// cover notes that a round is over which had the changes up to asked.
func (r *registrar) cover(asked uint64) {
	r.mu.Lock()
	r.covered = max(r.covered, asked)
	close(r.progress)
	r.progress = make(chan struct{})
	r.mu.Unlock()
}

func (r *registrar) kick() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

func (r *registrar) run(ctx context.Context) {
	r.registerAll(ctx)
	close(r.first)
	for {
		cfg := r.b.cfg.Load()
		pulse := time.NewTimer(beat.UntilNext(time.Duration(cfg.BrokerHeartbeatInterval) * time.Millisecond))
		full := time.NewTimer(time.Duration(cfg.RegisterNameServerPeriod) * time.Millisecond)
	round:
		for {
			select {
			case <-ctx.Done():
				pulse.Stop()
				full.Stop()
				r.closeAll()
				r.cover(math.MaxUint64)
				return
			case <-r.again:
				r.registerChanged(ctx)
			case <-pulse.C:
				r.heartbeat(ctx)
				pulse.Reset(beat.UntilNext(time.Duration(r.b.cfg.Load().BrokerHeartbeatInterval) * time.Millisecond))
			case <-full.C:
				r.registerAgain(ctx)
				pulse.Stop()
				break round
			}
		}
	}
}

// registerChanged registers everything when topics went or the table is small, else only the topics that changed.
func (r *registrar) registerChanged(ctx context.Context) {
	r.mu.Lock()
	changed, asked := r.topic, r.asked
	r.topic = map[string]bool{}
	r.mu.Unlock()
	version := r.b.topics.dataVersion() // before the configs: never newer than they are
	if version == r.last && len(changed) > 0 {
		// The topic that was registered with it last had it from this one's change: a name server would take it for nothing new.
		r.b.topics.touch()
		version = r.b.topics.dataVersion()
	}
	r.last = version
	var configs []remoting.TopicConfig
	for name := range changed {
		if t := r.b.topics.find(name); t != nil {
			configs = append(configs, r.masked(t.config.Load()))
		}
	}
	// A name server takes single topics only from a broker that it knows, with the table's new version.
	if len(configs) == 0 || len(configs) < len(changed) {
		r.registerAll(ctx)
		return
	}
	r.each(ctx, func(ctx context.Context, addr string) error { return r.register(ctx, addr, version, configs) })
	r.cover(asked)
}

// A broker with many topics asks a name server before it sends them all again, because that costs both a tenth of a second for 10,000 of
// them, every 30 s and for nothing. (The original asks with forceRegister=false.) But the same version does not prove that nobody took rows
// away there, so each tenth time it does not ask.
const (
	askAboveTopics = 1000
	askRounds      = 10
)

// registerAgain is the periodic registration.
func (r *registrar) registerAgain(ctx context.Context) {
	if r.rounds++; r.rounds%askRounds == 0 || r.b.topics.table.size() <= askAboveTopics {
		r.registerAll(ctx)
		return
	}
	all := sync.OnceValues(r.allTopics)
	r.each(ctx, func(ctx context.Context, addr string) error {
		if r.isCurrent(ctx, addr) {
			return nil
		}
		version, configs := all()
		return r.registerWhole(ctx, addr, version, configs)
	})
}

// isCurrent asks a name server whether it has what we would register; it counts as a heartbeat there. When in doubt: no.
func (r *registrar) isCurrent(ctx context.Context, addr string) bool {
	r.mu.Lock()
	whole := r.whole[addr] && len(r.topic) == 0
	r.mu.Unlock()
	if !whole {
		return false
	}
	c, fresh, err := r.conn(ctx, addr)
	if err != nil || fresh {
		return false
	}
	version := r.b.topics.dataVersion()
	answer, err := c.Invoke(ctx, client.Request{Code: remoting.ReqQueryDataVersion, Body: remoting.EncodeBody(version), Header: r.identity})
	return err == nil && answer.Err() == nil && answer.Fields["changed"] == "false"
}

// registerAll registers every topic with every name server.
func (r *registrar) registerAll(ctx context.Context) {
	r.mu.Lock()
	r.topic = map[string]bool{}
	asked := r.asked
	r.mu.Unlock()
	version, configs := r.allTopics()
	r.last = version
	r.each(ctx, func(ctx context.Context, addr string) error { return r.registerWhole(ctx, addr, version, configs) })
	r.cover(asked)
}

// allTopics are all topics as they are registered, with a version that is not newer.
func (r *registrar) allTopics() (version remoting.DataVersion, configs []remoting.TopicConfig) {
	version = r.b.topics.dataVersion()
	for _, t := range r.b.topics.list() {
		configs = append(configs, r.masked(t.config.Load()))
	}
	return version, configs
}

// registerWhole registers every topic with one name server.
func (r *registrar) registerWhole(ctx context.Context, addr string, version remoting.DataVersion, configs []remoting.TopicConfig) error {
	size := len(configs)
	if cfg := r.b.cfg.Load(); cfg.EnableSplitRegistration {
		size = cfg.SplitRegistrationSize
	}
	for chunk := range slices.Chunk(configs, max(size, 1)) {
		if err := r.register(ctx, addr, version, chunk); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.whole[addr] = true
	r.mu.Unlock()
	return nil
}

// masked is a topic's config as brokerPermission lets it be seen.
func (r *registrar) masked(c *remoting.TopicConfig) remoting.TopicConfig {
	out := *c
	out.Perm &= int32(r.b.cfg.Load().BrokerPermission) | remoting.PermInherit
	return out
}

// each is tell unless the broker has left the route.
func (r *registrar) each(ctx context.Context, work func(ctx context.Context, addr string) error) {
	r.mu.Lock()
	quit := r.quit
	r.mu.Unlock()
	if !quit {
		r.tell(ctx, work)
	}
}

// tell runs work for every name server side by side, and logs a failure once until it works again.
func (r *registrar) tell(ctx context.Context, work func(ctx context.Context, addr string) error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.b.cfg.Load().RegisterBrokerTimeoutMills)*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for _, addr := range r.servers() {
		wg.Go(func() {
			err := work(ctx, addr)
			r.mu.Lock()
			defer r.mu.Unlock()
			if err != nil && !errors.Is(err, context.Canceled) && !r.told[addr] {
				r.log.Warn("name server does not take the registration; clients that ask it do not find this broker. It is tried again", "addr", addr, "err", err)
			}
			r.told[addr] = err != nil
		})
	}
	wg.Wait()
}

// conn is the connection to a name server, opened when there is none.
func (r *registrar) conn(ctx context.Context, addr string) (*client.Conn, bool, error) {
	r.mu.Lock()
	c := r.conns[addr]
	r.mu.Unlock()
	if c != nil && c.Err() == nil {
		return c, false, nil
	}
	c, err := client.Dial(ctx, addr, r.b.outgoing)
	if err != nil {
		return nil, false, err
	}
	r.mu.Lock()
	r.conns[addr] = c
	r.mu.Unlock()
	return c, true, nil
}

// register sends REGISTER_BROKER.
func (r *registrar) register(ctx context.Context, addr string, version remoting.DataVersion, configs []remoting.TopicConfig) (err error) {
	defer func() {
		if err != nil {
			r.mu.Lock()
			r.whole[addr] = false
			r.mu.Unlock()
		}
	}()
	c, _, err := r.conn(ctx, addr)
	if err != nil {
		return err
	}
	cfg := r.b.cfg.Load()
	body := remoting.RegisterBrokerBody{FilterServerList: []string{}}
	body.Topics.DataVersion = version
	body.Topics.TopicConfigTable = map[string]remoting.TopicConfig{}
	for _, t := range configs {
		body.Topics.TopicConfigTable[t.TopicName] = t
	}
	raw := body.Encode()
	if cfg.CompressedRegister {
		raw = body.EncodeDeflated()
	}
	answer, err := c.Invoke(ctx, client.Request{Code: remoting.ReqRegisterBroker, Body: raw, Header: func(w *remoting.Writer) {
		r.identity(w)
		w.Text("haServerAddr", r.b.haAddr())
		w.Int("heartbeatTimeoutMillis", cfg.BrokerNotActiveTimeoutMillis)
		w.Bool("enableActingMaster", false)
		w.Bool("compressed", cfg.CompressedRegister)
		w.Int("bodyCrc32", int64(crc32.ChecksumIEEE(raw)&0x7FFFFFFF))
	}})
	if err != nil {
		return err
	}
	return answer.Err()
}

func (r *registrar) identity(w *remoting.Writer) {
	cfg := r.b.cfg.Load()
	w.Text("brokerName", cfg.BrokerName)
	w.Text("brokerAddr", r.b.addr)
	w.Text("clusterName", cfg.BrokerClusterName)
	w.Int("brokerId", cfg.BrokerID)
}

// heartbeat sends BROKER_HEARTBEAT; a name server that was restarted gets everything anew.
func (r *registrar) heartbeat(ctx context.Context) {
	lost := false
	var mu sync.Mutex
	r.each(ctx, func(ctx context.Context, addr string) error {
		c, fresh, err := r.conn(ctx, addr)
		if err != nil {
			return err
		}
		if fresh {
			mu.Lock()
			lost = true
			mu.Unlock()
			return nil
		}
		cfg := r.b.cfg.Load()
		return c.Oneway(client.Request{Code: remoting.ReqBrokerHeartbeat, Header: func(w *remoting.Writer) {
			r.identity(w)
			w.Int("heartbeatTimeoutMills", cfg.BrokerNotActiveTimeoutMillis)
		}})
	})
	if lost {
		r.registerAll(ctx)
	}
}

// leave takes this broker out of the route and keeps it out.
func (r *registrar) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r.mu.Lock()
	r.quit = true // first: a round that begins now must not register it again
	r.mu.Unlock()
	r.tell(ctx, func(ctx context.Context, addr string) error {
		c, _, err := r.conn(ctx, addr)
		if err != nil {
			return err
		}
		answer, err := c.Invoke(ctx, client.Request{Code: remoting.ReqUnregisterBroker, Header: r.identity})
		if err != nil {
			return err
		}
		return answer.Err()
	})
}

func (r *registrar) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
}

// WaitRegistered waits until each name server was told of this broker once, or could not be.
func (b *Broker) WaitRegistered(ctx context.Context) error {
	select {
	case <-b.register.first:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
