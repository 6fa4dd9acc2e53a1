package broker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// metricsBroker is a small broker on a folder of its own.
func metricsBroker(t *testing.T) *Broker {
	t.Helper()
	cfg := tableConfig()
	cfg.BindAddress, cfg.BrokerIP1, cfg.ListenPort, cfg.FastListenPort = "127.0.0.1", "127.0.0.1", 0, -1
	cfg.StorePathRootDir = t.TempDir()
	cfg.StorePathCommitLog = ""
	cfg.MappedFileSizeCommitLog, cfg.MaxHashSlotNum, cfg.MaxIndexNum = 1<<20, 100, 400
	cfg.IoEngine = "portable"
	// A test does not fail over the free space of the machine that it runs on.
	cfg.DiskMaxUsedSpaceRatio, cfg.DiskSpaceCleanForciblyRatio, cfg.DiskSpaceWarningLevelRatio = 95, 99, 99
	b, err := Open(config.NewLiveBroker(cfg), Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, b.Shutdown(ctx))
	})
	return b
}

// scrape gathers everything and returns each row's value by its name and labels; the labels that all rows have are checked and left out.
func scrape(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	require.NoError(t, err)
	rows := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			for name, want := range map[string]string{"cluster": "TestCluster", "node_type": "broker", "node_id": "broker-a"} {
				require.Equal(t, want, labels[name], "%s: label %s", f.GetName(), name)
				delete(labels, name)
			}
			row := f.GetName()
			for _, name := range slices.Sorted(maps.Keys(labels)) {
				row += " " + name + "=" + labels[name]
			}
			rows[row] = m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				rows[row] = m.GetCounter().GetValue()
			}
		}
	}
	return rows
}

// traffic sends n messages of one topic by the socket, pulls them, and commits the first one.
func traffic(t *testing.T, c *client.Conn, topic, group string, n int) {
	t.Helper()
	ctx := t.Context()
	for range n {
		r, err := c.Invoke(ctx, client.Request{Code: remoting.ReqSendMessage, Body: []byte("0123456789"), Fields: map[string]string{
			"producerGroup": "PG", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "1", "sysFlag": "0",
			"bornTimestamp": "1700000000000", "flag": "0", "properties": "", "reconsumeTimes": "0",
		}})
		require.NoError(t, err)
		require.NoError(t, r.Err())
	}
	pull := func(offset int) *client.Response {
		r, err := c.Invoke(ctx, client.Request{Code: remoting.ReqPullMessage, Fields: map[string]string{
			"consumerGroup": group, "topic": topic, "queueId": "1", "queueOffset": strconv.Itoa(offset), "maxMsgNums": "32",
			"sysFlag": strconv.Itoa(remoting.PullSubscription), "commitOffset": "0", "suspendTimeoutMillis": "0", "subVersion": "0", "subscription": "*",
		}})
		require.NoError(t, err)
		return r
	}
	require.NoError(t, pull(0).Err())
	r, err := c.Invoke(ctx, client.Request{Code: remoting.ReqUpdateConsumerOffset, Fields: map[string]string{
		"consumerGroup": group, "topic": topic, "queueId": "1", "commitOffset": "1",
	}})
	require.NoError(t, err)
	require.NoError(t, r.Err())
}

func TestMetricsOfABroker(t *testing.T) {
	b := metricsBroker(t)
	collector := b.Collector()
	before := scrape(t, collector)
	require.NotContains(t, before, "ringmq_held_pulls", "reactors that have not started know nothing")
	require.Zero(t, before["ringmq_frames_total"])

	b.Start()
	c, err := client.Dial(t.Context(), b.Addr(), client.Options{})
	require.NoError(t, err)
	defer c.Close()
	traffic(t, c, "orders", "billing", 3)
	require.NoError(t, b.store.Log().Flush(10*time.Second))

	rows := scrape(t, collector)
	const in, out = " is_system=false message_type=normal topic=orders", " consumer_group=billing is_retry=false is_system=false topic=orders"
	for row, want := range map[string]float64{
		"rocketmq_messages_in_total" + in:                                               3,
		"rocketmq_messages_out_total" + out:                                             3,
		"rocketmq_throughput_in_total" + in:                                             float64(b.store.Log().Published()),
		"rocketmq_throughput_out_total" + out:                                           float64(b.store.Log().Published()),
		"rocketmq_consumer_lag_messages" + out:                                          2,
		"rocketmq_broker_permission":                                                    6,
		"rocketmq_topic_number":                                                         before["rocketmq_topic_number"] + 1,
		"rocketmq_consumer_group_number":                                                before["rocketmq_consumer_group_number"] + 1,
		"rocketmq_storage_flush_behind_bytes storage_medium=disk storage_type=local":    0,
		"rocketmq_storage_dispatch_behind_bytes storage_medium=disk storage_type=local": 0,
		"ringmq_unflushed_bytes":                                                        0,
		"ringmq_unflushed_age_seconds":                                                  0,
		"ringmq_commitlog_failed":                                                       0,
		"ringmq_writable":                                                               1,
		"ringmq_log_min_offset":                                                         0,
		"ringmq_log_max_offset":                                                         float64(b.store.Log().Published()),
		"ringmq_log_flushed_offset":                                                     float64(b.store.Log().Published()),
		"ringmq_log_dispatched_offset":                                                  float64(b.store.Log().Published()),
		"ringmq_quarantined_spans":                                                      0,
		"ringmq_start_recovered_records":                                                0,
		"ringmq_start_torn_bytes":                                                       0,
		"ringmq_connections":                                                            1,
		"ringmq_connections_accepted_total":                                             1,
		"ringmq_connections_refused_total reason=badFrame":                              0,
		"ringmq_frames_total":                                                           5,
		"ringmq_held_pulls":                                                             0,
		"ringmq_waiting_acks":                                                           0,
		"ringmq_lane_waiting lane=control":                                              0,
		"ringmq_lane_waiting lane=cold":                                                 0,
		"ringmq_lane_waiting lane=admin":                                                0,
		"ringmq_lane_waiting lane=put":                                                  0,
		"ringmq_metric_rows_beyond_limit family=messages_in":                            0,
		"ringmq_metric_rows_beyond_limit family=messages_out":                           0,
		"ringmq_metric_rows_beyond_limit family=consumer_lag":                           0,
	} {
		got, ok := rows[row]
		require.True(t, ok, "no row %s", row)
		require.Equal(t, want, got, row)
	}
	require.Contains(t, rows, "ringmq_log_indexed_offset")
	require.NotZero(t, rows["ringmq_writes_total"])
	require.Positive(t, rows["rocketmq_storage_size_bytes storage_medium=disk storage_type=local"])
	require.Positive(t, rows["ringmq_disk_used_ratio"])
	require.Less(t, rows["ringmq_disk_used_ratio"], 1.0)
	require.NoError(t, b.Healthy())
}

// A pull that is held, and names that are no UTF-8, which the library would panic over.
func TestMetricsOfHeldPullsAndStrangeNames(t *testing.T) {
	b := metricsBroker(t)
	b.Start()
	c, err := client.Dial(t.Context(), b.Addr(), client.Options{})
	require.NoError(t, err)
	defer c.Close()
	traffic(t, c, "orders", "billing", 1)
	require.NoError(t, c.Go(client.Request{Code: remoting.ReqPullMessage, Fields: map[string]string{
		"consumerGroup": "billing", "topic": "orders", "queueId": "1", "queueOffset": "1", "maxMsgNums": "32",
		"sysFlag": strconv.Itoa(remoting.PullSubscription | remoting.PullSuspend), "commitOffset": "0", "suspendTimeoutMillis": "60000", "subVersion": "0",
		"subscription": "*",
	}}, func(*remoting.Command, error) {}))
	b.offsets.commit([]byte("orders"), []byte("\xff\xfe"), 1, 0)
	collector := b.Collector()
	// The pull is on its way: a second request on the same connection is answered after it was read.
	r, err := c.Invoke(t.Context(), client.Request{Code: remoting.ReqGetMaxOffset, Fields: map[string]string{"topic": "orders", "queueId": "1"}})
	require.NoError(t, err)
	require.NoError(t, r.Err())
	rows := scrape(t, collector)
	require.Equal(t, 1.0, rows["ringmq_held_pulls"])
	require.Equal(t, 1.0, rows["rocketmq_consumer_lag_messages consumer_group=? is_retry=false is_system=false topic=orders"])
}

func TestMetricLabelsOfTopics(t *testing.T) {
	b := &Broker{cfg: config.NewLiveBroker(tableConfig())}
	b.topics = &topics{system: map[string]bool{"TestCluster": true}}
	b.stats = newBrokerStats("TestCluster", newStoreStats(1, 0), slog.New(slog.DiscardHandler))
	b.offsets = &consumerOffsets{}
	add := func(name, kind string) *Topic {
		c := remoting.NewTopicConfig(name)
		if kind != "" {
			c.Attributes = map[string]string{attributeMessageType: kind}
		}
		return b.topics.add(c)
	}
	for name, kind := range map[string]string{"fifo": "FIFO", "plain": "", "TestCluster": "", "%RETRY%g": "", "%DLQ%g": ""} {
		topic := add(name, kind)
		b.stats.stored(topic, 2, 100)
		b.stats.got("g", topic, 1, 50)
	}
	b.stats.got("CID_RMQ_SYS_x", b.topics.find("plain"), 1, 50)

	c := b.Collector().(*collector)
	rows := scrape(t, part{c.Describe, func(ch chan<- prometheus.Metric) { c.collectIn(ch); c.collectOut(ch) }})
	want := map[string]float64{
		"rocketmq_messages_in_total is_system=false message_type=fifo topic=fifo":                            2,
		"rocketmq_messages_in_total is_system=false message_type=normal topic=plain":                         2,
		"rocketmq_messages_in_total is_system=true message_type=normal topic=TestCluster":                    2,
		"rocketmq_messages_out_total consumer_group=g is_retry=false is_system=false topic=fifo":             1,
		"rocketmq_messages_out_total consumer_group=g is_retry=false is_system=false topic=plain":            1,
		"rocketmq_messages_out_total consumer_group=CID_RMQ_SYS_x is_retry=false is_system=true topic=plain": 1,
		"rocketmq_messages_out_total consumer_group=g is_retry=false is_system=true topic=TestCluster":       1,
		"rocketmq_messages_out_total consumer_group=g is_retry=true is_system=false topic=%RETRY%g":          1,
	}
	got := map[string]float64{}
	for row, v := range rows {
		if strings.HasPrefix(row, "rocketmq_messages_") {
			got[row] = v
		}
	}
	require.Equal(t, want, got)
}

// part is a part of a collector.
type part struct {
	describe func(chan<- *prometheus.Desc)
	collect  func(chan<- prometheus.Metric)
}

func (p part) Describe(ch chan<- *prometheus.Desc) { p.describe(ch) }
func (p part) Collect(ch chan<- prometheus.Metric) { p.collect(ch) }

func TestRowsAreBounded(t *testing.T) {
	l := &rowLimit{most: 2}
	counters := map[string]int64{}
	scrapeRows := func() (own map[string]int64, others int64, beyond int) {
		own = map[string]int64{}
		var keys []rowKey
		var tallies []tally
		for name, n := range counters { // in any order
			keys = append(keys, rowKey{topic: name})
			tallies = append(tallies, tally{n, 10 * n})
		}
		sum, beyond := l.split(keys, tallies, func(k rowKey, v tally) { own[k.topic] = v.messages })
		require.Equal(t, 10*sum.messages, sum.bytes)
		return own, sum.messages, beyond
	}
	counters["a"], counters["b"] = 1, 2
	own, others, beyond := scrapeRows()
	require.Equal(t, map[string]int64{"a": 1, "b": 2}, own)
	require.Zero(t, others)
	require.Zero(t, beyond)

	// Newcomers are summed, whatever the order in which they are met; a and b keep their rows.
	for i := range 20 {
		counters[fmt.Sprint("n", i)] = 5
	}
	counters["a"] = 7
	for range 5 {
		own, others, beyond = scrapeRows()
		require.Equal(t, map[string]int64{"a": 7, "b": 2}, own)
		require.Equal(t, int64(100), others)
		require.Equal(t, 20, beyond)
	}

	// A row that becomes free is given to another; the sum never falls, and goes on with what is added.
	delete(counters, "b")
	own, others, beyond = scrapeRows()
	require.Len(t, own, 2)
	require.Equal(t, int64(100), others)
	require.Equal(t, 19, beyond)
	for name := range counters {
		if _, has := own[name]; !has {
			counters[name] += 3
			break
		}
	}
	_, others, _ = scrapeRows()
	require.Equal(t, int64(103), others)
}
