package broker

import (
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
)

// Metrics: everything here is read when somebody scrapes, from counters that are there anyway. Names and labels are RocketMQ's where it
// has the figure (BrokerMetricsManager, DefaultStoreMetricsManager, as its Prometheus exporter prints them, units appended), else ringmq_.
// Not printed is the label otel_scope_name, which only tells the library that RocketMQ exports with.

const (
	// maxMetricRows bounds the rows by topic, by topic and group, and of lags. What comes for more is summed under othersRow.
	maxMetricRows = 10_000
	othersRow     = "_others"
	// reactorPatience bounds the wait for what only reactors know. The figures of a stalled reactor are left out.
	reactorPatience = 250 * time.Millisecond
)

// moment is what one scrape has read of the broker.
type moment struct {
	min, flushed, dispatched, indexed, end int64 // log offsets
	unflushedAge                           time.Duration
	cold                                   commitlog.ColdStats
	net                                    netpath.Stats
	reactors                               reactorLoad
	reactorsKnown                          bool
	diskUsed, diskBytes                    float64
	diskUsedKnown, diskBytesKnown          bool
}

// figure is one metric without labels of its own. False: not known now, so it is left out.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(b *Broker, m *moment) (float64, bool)
}

// collector reads a broker. Its families with labels are bounded by rowLimit.
type collector struct {
	b       *Broker
	figures []figure

	messagesIn, bytesIn, messagesOut, bytesOut, lag *prometheus.Desc
	refused, laneWaiting, beyond, engine            *prometheus.Desc

	mu                     sync.Mutex // one scrape at a time; guards the limits
	topics, groups, lagged rowLimit
}

// Collector is what the process registers with its metrics registry. It may be scraped from Open on.
func (b *Broker) Collector() prometheus.Collector {
	c := b.cfg.Load()
	node := prometheus.Labels{"cluster": c.BrokerClusterName, "node_type": "broker", "node_id": c.BrokerName}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, node)
	}
	return &collector{
		b: b, figures: figures(node),
		messagesIn: desc("rocketmq_messages_in_total", "Messages stored; retry and dead letter topics are left out.",
			"topic", "message_type", "is_system"),
		bytesIn: desc("rocketmq_throughput_in_total", "Bytes stored; retry and dead letter topics are left out.",
			"topic", "message_type", "is_system"),
		messagesOut: desc("rocketmq_messages_out_total", "Messages sent to consumers; dead letter topics are left out.",
			"topic", "consumer_group", "is_system", "is_retry"),
		bytesOut: desc("rocketmq_throughput_out_total", "Bytes sent to consumers; dead letter topics are left out.",
			"topic", "consumer_group", "is_system", "is_retry"),
		lag: desc("rocketmq_consumer_lag_messages", "Messages behind the committed offsets of a group in a topic's queues.",
			"topic", "consumer_group", "is_system", "is_retry"),
		engine:      desc("ringmq_io_engine_info", "Always 1: how the log is written and how network threads wait.", "engine", "reactor"),
		refused:     desc("ringmq_connections_refused_total", "Connections refused or closed on the broker's decision.", "reason"),
		laneWaiting: desc("ringmq_lane_waiting", "Requests that wait for a goroutine where they may wait for a disk or a lock.", "lane"),
		beyond: desc("ringmq_metric_rows_beyond_limit", "Rows without one of their own because there are "+strconv.Itoa(maxMetricRows)+
			": counters are summed under "+othersRow+", lags left out.", "family"),
		topics: rowLimit{most: maxMetricRows}, groups: rowLimit{most: maxMetricRows}, lagged: rowLimit{most: maxMetricRows},
	}
}

// figureList builds the table of metrics without labels of their own.
type figureList struct {
	node, disk prometheus.Labels
	list       []figure
}

func figures(node prometheus.Labels) []figure {
	l := &figureList{node: node, disk: maps.Clone(node)}
	l.disk["storage_type"], l.disk["storage_medium"] = "local", "disk"
	l.tableFigures()
	l.storeFigures()
	l.logFigures()
	l.coldFigures()
	l.networkFigures()
	return l.list
}

func (l *figureList) add(kind prometheus.ValueType, labels prometheus.Labels, name, help string, read func(*Broker, *moment) (float64, bool)) {
	l.list = append(l.list, figure{prometheus.NewDesc(name, help, nil, labels), kind, read})
}

func (l *figureList) gauge(name, help string, read func(*Broker, *moment) float64) {
	l.add(prometheus.GaugeValue, l.node, name, help, func(b *Broker, m *moment) (float64, bool) { return read(b, m), true })
}

// maybe is a gauge that is not always known.
func (l *figureList) maybe(name, help string, read func(*Broker, *moment) (float64, bool)) {
	l.add(prometheus.GaugeValue, l.node, name, help, read)
}

func (l *figureList) counter(name, help string, read func(*netpath.Stats) uint64) {
	l.add(prometheus.CounterValue, l.node, name, help, func(_ *Broker, m *moment) (float64, bool) { return float64(read(&m.net)), true })
}

func (l *figureList) tableFigures() {
	l.gauge("rocketmq_broker_permission", "brokerPermission: 4 read, 2 write.",
		func(b *Broker, _ *moment) float64 { return float64(b.cfg.Load().BrokerPermission) })
	l.gauge("rocketmq_topic_number", "Topics, the broker's own included.",
		func(b *Broker, _ *moment) float64 { return float64(b.topics.table.size()) })
	l.gauge("rocketmq_consumer_group_number", "Consumer groups.",
		func(b *Broker, _ *moment) float64 { return float64(b.groups.table.size()) })
}

func (l *figureList) storeFigures() {
	l.add(prometheus.GaugeValue, l.disk, "rocketmq_storage_size_bytes", "Used bytes of the store's file system.",
		func(_ *Broker, m *moment) (float64, bool) { return m.diskBytes, m.diskBytesKnown })
	l.add(prometheus.GaugeValue, l.disk, "rocketmq_storage_flush_behind_bytes", "Bytes of the commit log that are not on the device.",
		func(_ *Broker, m *moment) (float64, bool) { return float64(m.end - m.flushed), true })
	l.add(prometheus.GaugeValue, l.disk, "rocketmq_storage_dispatch_behind_bytes", "Bytes of the commit log that are not in their queues.",
		func(_ *Broker, m *moment) (float64, bool) { return float64(m.end - m.dispatched), true })
	l.gauge("ringmq_commitlog_failed", "1: the device failed, and no message is taken until the broker is started again.",
		func(b *Broker, _ *moment) float64 { return number(b.store.Log().Failed() != nil) })
	l.gauge("ringmq_writable", "1: messages are taken; 0: the device failed or the disk is full.",
		func(b *Broker, _ *moment) float64 { return number(b.store.Writable() == nil) })
	l.maybe("ringmq_disk_used_ratio", "Used share of the commit log's file system, 0 to 1.",
		func(_ *Broker, m *moment) (float64, bool) { return m.diskUsed, m.diskUsedKnown })
	l.gauge("ringmq_quarantined_spans", "Damaged parts of the log that this start set aside.",
		func(b *Broker, _ *moment) float64 { return float64(len(b.store.Recovery().Quarantined)) })
	l.gauge("ringmq_start_recovered_records", "Records that this start read again.",
		func(b *Broker, _ *moment) float64 { return float64(b.store.Recovery().Records) })
	l.gauge("ringmq_start_torn_bytes", "Bytes of an append that was cut short, zeroed by this start.",
		func(b *Broker, _ *moment) float64 { return float64(b.store.Recovery().TornBytes) })
}

// coldFigures are of old messages that are read from the disk.
func (l *figureList) coldFigures() {
	total := func(name, help string, read func(*commitlog.ColdStats) int64) {
		l.add(prometheus.CounterValue, l.node, name, help, func(_ *Broker, m *moment) (float64, bool) { return float64(read(&m.cold)), true })
	}
	total("ringmq_cold_cache_hits_total", "Parts of old messages that were in coldReadCacheBytes.", func(s *commitlog.ColdStats) int64 { return s.Hits })
	total("ringmq_cold_cache_misses_total", "Parts of old messages that were not.", func(s *commitlog.ColdStats) int64 { return s.Misses })
	total("ringmq_cold_cache_loads_total", "Blocks of 1 MiB that were read from the disk for them.", func(s *commitlog.ColdStats) int64 { return s.Loaded })
	l.gauge("ringmq_cold_cache_bytes", "Memory that is taken for them now; coldReadCacheBytes bounds it.",
		func(_ *Broker, m *moment) float64 { return float64(m.cold.Bytes) })
}

func (l *figureList) logFigures() {
	l.gauge("ringmq_unflushed_bytes", "Bytes of the log that are not on the device: what a power loss would take.",
		func(_ *Broker, m *moment) float64 { return float64(m.end - m.flushed) })
	l.gauge("ringmq_unflushed_age_seconds", "Age of the oldest byte that is not on the device; above asyncFlushWindowMillis acknowledgements wait.",
		func(_ *Broker, m *moment) float64 { return m.unflushedAge.Seconds() })
	l.gauge("ringmq_log_min_offset", "First log offset that is still there.", func(_ *Broker, m *moment) float64 { return float64(m.min) })
	l.gauge("ringmq_log_max_offset", "End of the log.", func(_ *Broker, m *moment) float64 { return float64(m.end) })
	l.gauge("ringmq_log_flushed_offset", "Log offset before which everything is on the device.",
		func(_ *Broker, m *moment) float64 { return float64(m.flushed) })
	l.gauge("ringmq_log_dispatched_offset", "Log offset before which everything is in its queue.",
		func(_ *Broker, m *moment) float64 { return float64(m.dispatched) })
	l.maybe("ringmq_log_indexed_offset", "Log offset before which every key is indexed; absent without an index.",
		func(b *Broker, m *moment) (float64, bool) { return float64(m.indexed), b.cfg.Load().MessageIndexEnable })
}

func (l *figureList) networkFigures() {
	l.gauge("ringmq_connections", "Open connections.", func(_ *Broker, m *moment) float64 { return float64(m.net.Conns) })
	l.gauge("ringmq_in_flight_bytes", "Memory of unfinished frames and of answers that are not written.",
		func(_ *Broker, m *moment) float64 { return float64(m.net.InFlightBytes) })
	l.gauge("ringmq_longest_turn_seconds", "Longest turn of a reactor since the start.",
		func(_ *Broker, m *moment) float64 { return m.net.LongestTurn.Seconds() })
	l.counter("ringmq_connections_accepted_total", "Connections that came.", func(s *netpath.Stats) uint64 { return s.Accepted })
	l.counter("ringmq_frames_total", "Frames received.", func(s *netpath.Stats) uint64 { return s.FramesIn })
	l.counter("ringmq_received_bytes_total", "Bytes received.", func(s *netpath.Stats) uint64 { return s.BytesIn })
	l.counter("ringmq_sent_bytes_total", "Bytes sent.", func(s *netpath.Stats) uint64 { return s.BytesOut })
	l.counter("ringmq_writes_total", "System calls that wrote bytes to sockets.", func(s *netpath.Stats) uint64 { return s.Writes })
	l.counter("ringmq_sendfiles_total", "System calls that sent a part of a file.", func(s *netpath.Stats) uint64 { return s.SendFiles })
	l.counter("ringmq_reactor_turns_total", "Turns of all reactors.", func(s *netpath.Stats) uint64 { return s.Turns })
	l.maybe("ringmq_held_pulls", "Pulls that wait for messages; absent while a reactor does not answer.",
		func(_ *Broker, m *moment) (float64, bool) { return float64(m.reactors.held), m.reactorsKnown })
	l.maybe("ringmq_waiting_acks", "Acknowledgements that wait for the device; absent while a reactor does not answer.",
		func(_ *Broker, m *moment) (float64, bool) { return float64(m.reactors.acks), m.reactorsKnown })
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Healthy tells why the process should be looked at or started again, or nil. A full disk is no such reason.
func (b *Broker) Healthy() error { return b.store.Log().Failed() }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		ch <- f.desc
	}
	for _, d := range []*prometheus.Desc{c.messagesIn, c.bytesIn, c.messagesOut, c.bytesOut, c.lag, c.refused, c.laneWaiting, c.beyond, c.engine} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.b.readMoment()
	for _, f := range c.figures {
		if v, ok := f.read(c.b, m); ok {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v)
		}
	}
	ch <- prometheus.MustNewConstMetric(c.engine, prometheus.GaugeValue, 1, c.b.engineName(), c.b.reactorName())
	for reason, n := range m.net.Refused {
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(n), reason)
	}
	for name, lane := range map[string]*netpath.Lane{
		"control": c.b.lanes[laneControl], "cold": c.b.lanes[laneCold], "admin": c.b.lanes[laneAdmin], "put": c.b.putLane,
	} {
		ch <- prometheus.MustNewConstMetric(c.laneWaiting, prometheus.GaugeValue, float64(lane.Waiting()), name)
	}
	c.collectIn(ch)
	c.collectOut(ch)
	c.collectLag(ch)
}

// readMoment asks the reactors first: with its answer a reactor has published its counters of all turns before. It reads the end of the
// log last, so that nothing lies behind it by less than nothing.
func (b *Broker) readMoment() *moment {
	log := b.store.Log()
	m := &moment{}
	m.reactors, m.reactorsKnown = b.askReactors(reactorPatience)
	m.min, m.indexed, m.dispatched, m.flushed = log.MinOffset(), b.store.IndexedOffset(), b.store.Dispatched(), log.Flushed()
	m.unflushedAge = log.UnflushedAge(b.nowMillis())
	m.end = log.Published()
	m.cold = log.ColdStats()
	m.net = b.server.Stats()
	if used, err := b.store.DiskUsed(); err == nil {
		m.diskUsed, m.diskUsedKnown = used, true
	}
	if free, total, err := b.fsys.Usage(b.cfg.Load().StorePathRootDir); err == nil {
		m.diskBytes, m.diskBytesKnown = float64(total-free), true
	}
	return m
}

// reactorLoad is what waits on reactors. Only their threads may look.
type reactorLoad struct{ held, acks int }

// askReactors sums up the load of all reactors; false when one did not answer in time.
func (b *Broker) askReactors(patience time.Duration) (sum reactorLoad, ok bool) {
	handlers := b.allHandlers()
	answers := make(chan reactorLoad, len(handlers))
	for _, h := range handlers {
		if !h.reactor.Post(func() { answers <- reactorLoad{h.held.count, h.acks.Len()} }) {
			return sum, false
		}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for range handlers {
		select {
		case l := <-answers:
			sum.held += l.held
			sum.acks += l.acks
		case <-timer.C:
			return sum, false
		}
	}
	return sum, true
}

// rowKey names a row of a family with labels; group is empty where rows are by topic.
type rowKey struct{ topic, group string }

// rowKeyOf makes names fit for labels: the library panics over bytes that are no UTF-8, and a group's name may come from the wire unchecked.
func rowKeyOf(topic, group string) rowKey {
	return rowKey{strings.ToValidUTF8(topic, "?"), strings.ToValidUTF8(group, "?")}
}

// tally is what a row counts.
type tally struct{ messages, bytes int64 }

// rowLimit bounds the rows of one family. A key that has a row of its own keeps it as long as it is there, so that its counter does not
// jump between its own row and the sum.
type rowLimit struct {
	most  int
	given map[rowKey]bool
	// sum is what the keys without a row came to at the last scrape, others what is shown for them. Counters of idle topics are
	// dropped and topics get rows that become free, so the sum may shrink, but what is shown never does: a counter that falls is
	// taken for one that began anew.
	sum, others tally
}

// choose tells which keys have a row, and how many have none.
func (l *rowLimit) choose(keys []rowKey) (own []bool, beyond int) {
	own = make([]bool, len(keys))
	given := make(map[rowKey]bool, min(len(keys), l.most))
	for i, k := range keys {
		if l.given[k] {
			own[i], given[k] = true, true
		}
	}
	for i, k := range keys {
		switch {
		case own[i]:
		case len(given) < l.most:
			own[i], given[k] = true, true
		default:
			beyond++
		}
	}
	l.given = given
	return own, beyond
}

// split gives the tallies of rows to each and returns what is shown for the others.
func (l *rowLimit) split(keys []rowKey, tallies []tally, each func(rowKey, tally)) (others tally, beyond int) {
	own, beyond := l.choose(keys)
	var sum tally
	for i, k := range keys {
		if own[i] {
			each(k, tallies[i])
			continue
		}
		sum.messages += tallies[i].messages
		sum.bytes += tallies[i].bytes
	}
	l.others.messages += max(0, sum.messages-l.sum.messages)
	l.others.bytes += max(0, sum.bytes-l.sum.bytes)
	l.sum = sum
	return l.others, beyond
}

// collectIn shows the sends by topic.
func (c *collector) collectIn(ch chan<- prometheus.Metric) {
	var keys []rowKey
	var tallies []tally
	for _, ts := range c.b.stats.topics.all() {
		if isRetryOrDLQ(ts.topic) {
			continue
		}
		keys = append(keys, rowKeyOf(ts.topic, ""))
		tallies = append(tallies, tally{ts.putNums.value.Load(), ts.putSize.value.Load()})
	}
	show := func(t tally, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.messagesIn, prometheus.CounterValue, float64(t.messages), labels...)
		ch <- prometheus.MustNewConstMetric(c.bytesIn, prometheus.CounterValue, float64(t.bytes), labels...)
	}
	others, beyond := c.topics.split(keys, tallies, func(k rowKey, t tally) {
		show(t, k.topic, c.b.messageTypeOf(k.topic), strconv.FormatBool(c.b.topics.isSystem(k.topic)))
	})
	if others != (tally{}) {
		show(others, othersRow, "unspecified", "false")
	}
	c.showBeyond(ch, "messages_in", beyond)
}

// collectOut shows the pulls by topic and group.
func (c *collector) collectOut(ch chan<- prometheus.Metric) {
	var keys []rowKey
	var tallies []tally
	for _, gs := range c.b.stats.groups.all() {
		if message.IsDLQTopic([]byte(gs.topic)) {
			continue
		}
		keys = append(keys, rowKeyOf(gs.topic, gs.group))
		tallies = append(tallies, tally{gs.getNums.value.Load(), gs.getSize.value.Load()})
	}
	show := func(t tally, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.messagesOut, prometheus.CounterValue, float64(t.messages), labels...)
		ch <- prometheus.MustNewConstMetric(c.bytesOut, prometheus.CounterValue, float64(t.bytes), labels...)
	}
	others, beyond := c.groups.split(keys, tallies, func(k rowKey, t tally) { show(t, c.groupLabels(k)...) })
	if others != (tally{}) {
		show(others, othersRow, othersRow, "false", "false")
	}
	c.showBeyond(ch, "messages_out", beyond)
}

func (c *collector) groupLabels(k rowKey) []string {
	system := c.b.topics.isSystem(k.topic) || message.IsSystemGroup(k.group)
	return []string{k.topic, k.group, strconv.FormatBool(system), strconv.FormatBool(message.IsRetryTopic([]byte(k.topic)))}
}

// collectLag shows how far groups are behind, whether their members are online or not.
func (c *collector) collectLag(ch chan<- prometheus.Metric) {
	var keys []rowKey
	var pairs []*groupOffsets
	for _, p := range c.b.offsets.pairs.all() {
		if p.hasAny(hasCommitted) && c.b.topics.find(p.topic) != nil {
			keys = append(keys, rowKeyOf(p.topic, p.group))
			pairs = append(pairs, p)
		}
	}
	own, beyond := c.lagged.choose(keys)
	for i, p := range pairs {
		if own[i] {
			ch <- prometheus.MustNewConstMetric(c.lag, prometheus.GaugeValue, float64(c.b.lagOf(p)), c.groupLabels(keys[i])...)
		}
	}
	c.showBeyond(ch, "consumer_lag", beyond)
}

// lagOf is the difference that mqadmin consumerProgress shows, over the queues that the group has committed an offset for.
func (b *Broker) lagOf(p *groupOffsets) (lag int64) {
	topic := []byte(p.topic)
	for queueID, offset := range p.table(hasCommitted) {
		if q := b.store.Queue(topic, queueID); q != nil {
			lag += max(0, q.Max()-offset)
		}
	}
	return lag
}

func (c *collector) showBeyond(ch chan<- prometheus.Metric, family string, n int) {
	ch <- prometheus.MustNewConstMetric(c.beyond, prometheus.GaugeValue, float64(n), family)
}

// messageTypeOf is the type that a topic is declared for; without one it is normal, as in RocketMQ. (The original looks at each message; a
// topic holds one type unless it is declared as mixed.)
func (b *Broker) messageTypeOf(topic string) string {
	if t := b.topics.find(topic); t != nil {
		if kind := t.config.Load().Attributes[attributeMessageType]; kind != "" {
			return strings.ToLower(kind)
		}
	}
	return "normal"
}

func isRetryOrDLQ(topic string) bool {
	return message.IsRetryTopic([]byte(topic)) || message.IsDLQTopic([]byte(topic))
}
