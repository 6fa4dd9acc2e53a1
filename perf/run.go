package perf

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// run is one load from its start to its report.
type run struct {
	kind       string
	config     *Config
	clock      *clock
	began      time.Time
	wire       wire
	target     *target
	generator  uint64
	senders    []*sender
	pullers    []*puller
	sent       *meter // nil in a run that does not send
	read       *meter // nil in a run that does not read
	log        *intervalLog
	windows    []Window
	windowFrom time.Time // when the window in hand began
	line       progress

	// The measured time on the clock. measureTo is noLimit in a run that ends by itself.
	measureFrom, measureTo int64
	interrupted            atomic.Int64 // when ctx ended; 0: it did not
	server                 *serverWatch
	collected              chan struct{}
	stopCollect            chan struct{}
}

func newRun(ctx context.Context, kind string, config Config) (*run, error) {
	c := &config
	if err := c.settle(); err != nil {
		return nil, err
	}
	r := &run{kind: kind, config: c, began: time.Now(), measureTo: noLimit, collected: make(chan struct{}), stopCollect: make(chan struct{})}
	var id [8]byte
	_, _ = rand.Read(id[:])
	r.generator = binary.BigEndian.Uint64(id[:])
	var err error
	if r.server, err = watchServer(c.ServerPID); err != nil {
		return nil, err
	}
	if r.wire, err = newWire(c); err != nil {
		return nil, err
	}
	if r.target, err = r.wire.find(ctx, c); err != nil {
		r.wire.close()
		return nil, err
	}
	if c.HDR != "" {
		if r.log, err = openIntervalLog(c.HDR, r.began); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

func (r *run) close() {
	r.wire.close()
	for _, s := range r.senders {
		s.poller.close()
	}
	for _, p := range r.pullers {
		p.poller.close()
	}
	if r.log != nil {
		_ = r.log.close()
	}
}

// addSenders builds the workers that send. Stream i goes to broker i modulo their number, and belongs to one worker.
func (r *run) addSenders() error {
	c := r.config
	r.sent = newMeter("ack", "send lag")
	body := filler(c.Size)
	c.Conns = max(c.Conns, len(r.target.brokers))
	for range min(c.Workers, c.Conns) {
		s := &sender{
			config: c, clock: r.clock, generator: r.generator, recorder: r.sent.recorder(), budget: -1,
			errors: map[int32]int64{}, ended: make(chan struct{}),
		}
		var err error
		if s.poller, err = newPoller(); err != nil {
			return err
		}
		r.senders = append(r.senders, s)
	}
	if c.Count > 0 {
		for i, s := range r.senders {
			s.budget = share(c.Count, len(r.senders), i)
		}
	}
	templates := map[*queue]template{}
	perSender := make([]map[*queue]*sendQueue, len(r.senders))
	for id := range c.Conns {
		at := id % len(r.senders)
		if perSender[at] == nil {
			perSender[at] = map[*queue]*sendQueue{}
		}
		addr := r.target.brokers[id%len(r.target.brokers)]
		var lanes []lane
		for _, q := range r.target.queues {
			if q.addr != addr {
				continue
			}
			if templates[q] == nil {
				t, err := r.wire.template(c, q, body)
				if err != nil {
					return err
				}
				templates[q] = t
			}
			if perSender[at][q] == nil {
				perSender[at][q] = &sendQueue{queue: q, template: templates[q]}
			}
			lanes = append(lanes, lane{sendQueue: perSender[at][q], floor: -1})
		}
		if len(lanes) == 0 {
			return fmt.Errorf("broker %s: %w", addr, errNoQueues)
		}
		r.senders[at].streams = append(r.senders[at].streams, newStream(r.senders[at], id, addr, lanes, r.wire.sending(c, id)))
	}
	return nil
}

// share divides n into parts that differ by at most one.
func share(n int64, parts, i int) int64 {
	part := n / int64(parts)
	if int64(i) < n%int64(parts) {
		part++
	}
	return part
}

// addPullers builds the workers that read, each queue from begin(queue). kinds are the latencies that they record.
func (r *run) addPullers(ctx context.Context, begin func(q *queue) int64, kinds ...string) error {
	c := r.config
	r.read = newMeter(kinds...)
	c.PullConns = max(c.PullConns, len(r.target.brokers))
	for range min(c.Readers, c.PullConns) {
		p := &puller{config: c, clock: r.clock, recorder: r.read.recorder(), errors: map[int32]int64{}, ended: make(chan struct{})}
		p.measureTo.Store(noLimit)
		var err error
		if p.poller, err = newPoller(); err != nil {
			return err
		}
		r.pullers = append(r.pullers, p)
	}
	byBroker := map[string][]*pullConn{}
	for id := range c.PullConns {
		p := r.pullers[id%len(r.pullers)]
		addr := r.target.brokers[id%len(r.target.brokers)]
		conn := &pullConn{puller: p, addr: addr, wire: r.wire.pulling(c)}
		p.conns = append(p.conns, conn)
		byBroker[addr] = append(byBroker[addr], conn)
	}
	taken := map[string]int{}
	for _, q := range r.target.queues {
		conns := byBroker[q.addr]
		conn := conns[taken[q.addr]%len(conns)]
		taken[q.addr]++
		from := begin(q)
		pq := &pullQueue{queueCheck: newQueueCheck(q, from), next: from, began: from}
		pq.limit.Store(noLimit)
		if err := r.wire.subscribe(ctx, c, pq); err != nil {
			return err
		}
		conn.queues = append(conn.queues, pq)
	}
	return nil
}

// begins is where a reading run starts in a queue, by Config.From.
func (r *run) begins(fallback string) (func(q *queue) int64, error) {
	from := r.config.From
	if from == "" {
		from = fallback
	}
	switch from {
	case "min":
		return func(q *queue) int64 { return q.least }, nil
	case "max":
		return func(q *queue) int64 { return q.base }, nil
	}
	n, err := strconv.ParseInt(from, 10, 64)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("--from %q is neither min, max nor a queue offset", from)
	}
	return func(q *queue) int64 { return min(max(n, q.least), q.base) }, nil
}

func (r *run) connect() error {
	for _, p := range r.pullers {
		if err := p.connect(); err != nil {
			return err
		}
	}
	for _, s := range r.senders {
		if err := s.connect(); err != nil {
			return err
		}
	}
	return nil
}

// lead is how long after set-up the load begins: time for the workers to get to their loops.
const lead = int64(20 * time.Millisecond)

// schedule gives every worker its times. A run that reads only what is there (drain) has no end and measures everything.
func (r *run) schedule() {
	c := r.config
	start := r.clock.now() + lead
	r.measureFrom = start + int64(c.Warmup)
	if c.Count == 0 {
		r.measureTo = r.measureFrom + int64(c.Duration)
	}
	for i, s := range r.senders {
		s.start, s.measureFrom, s.until = start, r.measureFrom, r.measureTo
		if c.Rate > 0 {
			every := 1e9 * float64(c.Batch) / c.Rate // between two requests of the whole run
			s.spacing = every * float64(len(r.senders))
			s.first = float64(start) + float64(i)*every
		}
	}
	for _, p := range r.pullers {
		p.measureFrom = r.measureFrom
		p.measureTo.Store(r.measureTo)
	}
}

func (r *run) startSenders(ctx context.Context) {
	for _, s := range r.senders {
		go s.run()
	}
	context.AfterFunc(ctx, func() {
		for _, s := range r.senders {
			s.stopped.Store(true)
		}
	})
}

func (r *run) waitSenders() error {
	var failure error
	for _, s := range r.senders {
		<-s.ended
		if s.failure != nil {
			failure = s.failure
		}
	}
	return failure
}

func (r *run) startPullers() {
	for _, p := range r.pullers {
		go p.run()
	}
}

func (r *run) stopPullers() error {
	var failure error
	for _, p := range r.pullers {
		p.stopped.Store(true)
	}
	for _, p := range r.pullers {
		<-p.ended
		if p.failure != nil {
			failure = p.failure
		}
	}
	return failure
}

// collect is the goroutine that merges intervals, prints the progress line, writes the interval log and looks at the server.
func (r *run) collect() {
	defer close(r.collected)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	from := time.NewTimer(time.Duration(r.measureFrom - r.clock.now()))
	defer from.Stop()
	to := time.NewTimer(time.Duration(min(r.measureTo, int64(365*24*time.Hour)) - r.clock.now()))
	defer to.Stop()
	var sent, read chan *filled
	if r.sent != nil {
		sent = r.sent.full
	}
	if r.read != nil {
		read = r.read.full
	}
	for {
		select {
		case f := <-sent:
			r.sent.take(f)
		case f := <-read:
			r.read.take(f)
		case <-second.C:
			r.everySecond()
		case <-from.C:
			r.server.begin()
		case <-to.C:
			r.server.end()
		case <-r.stopCollect:
			r.server.end()
			for _, m := range r.meters() {
				m.takeAll()
			}
			r.finishSecond()
			return
		}
	}
}

func (r *run) meters() (m []*meter) {
	for _, one := range []*meter{r.sent, r.read} {
		if one != nil {
			m = append(m, one)
		}
	}
	return m
}

func (r *run) everySecond() {
	r.server.sample()
	r.line.print(r)
	r.rollMeters()
}

// finishSecond ends the last, shorter interval.
func (r *run) finishSecond() {
	if r.clock.now()-r.line.since > int64(500*time.Millisecond) {
		r.line.print(r)
	}
	r.line.finish()
	r.rollMeters()
}

func (r *run) rollMeters() {
	now := time.Now()
	for _, m := range r.meters() {
		if r.log != nil {
			r.log.write(m, now)
		}
		if r.config.Windows {
			r.addWindow(m, now)
		}
		m.roll()
	}
	r.windowFrom = now
}

// addWindow keeps what has come since the last one, once the measured time has begun.
func (r *run) addWindow(m *meter, now time.Time) {
	h := m.since.latencies[0]
	if h.TotalCount()+m.since.failed == 0 || r.clock.now() < r.measureFrom {
		return
	}
	r.windows = append(r.windows, Window{
		From: r.windowFrom.UnixMilli(), To: now.UnixMilli(), Kind: m.names[0], Count: h.TotalCount(), Failed: m.since.failed,
		P50: h.ValueAtPercentile(50), P996: h.ValueAtPercentile(99.6), Max: h.Max(), Under1ms: under(h, m.since.failed, time.Millisecond),
	})
}

func (r *run) startCollect(ctx context.Context) {
	context.AfterFunc(ctx, func() { r.interrupted.Store(r.clock.now()) })
	r.line = progress{out: r.config.Progress, terminal: r.config.ProgressTo, since: r.clock.now(), began: r.clock.now()}
	r.windowFrom = time.Now()
	go r.collect()
}

func (r *run) finishCollect() {
	close(r.stopCollect)
	<-r.collected
}

func (r *run) pullQueues() (all []*pullQueue) {
	for _, p := range r.pullers {
		for _, c := range p.conns {
			all = append(all, c.queues...)
		}
	}
	return all
}

// storedEnd is, per queue, one more than the highest offset that an answer named.
func (r *run) storedEnd() map[*queue]int64 {
	ends := map[*queue]int64{}
	for _, s := range r.senders {
		for _, q := range s.queues() {
			ends[q.queue] = max(ends[q.queue], q.base+int64(q.offsets.end()))
		}
	}
	return ends
}

// queues lists the sender's queues, each once.
func (s *sender) queues() (all []*sendQueue) {
	seen := map[*sendQueue]bool{}
	for _, st := range s.streams {
		for i := range st.lanes {
			if q := st.lanes[i].sendQueue; !seen[q] {
				seen[q] = true
				all = append(all, q)
			}
		}
	}
	return all
}
