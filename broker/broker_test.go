package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// The harness of the black-box tests: a broker on a port of its own, with a store of its own, reached through its socket.

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// brokerOptions are what a test wants of its broker; the zero value is a broker with small files.
type brokerOptions struct {
	FS     ioengine.FS // the machine's when nil
	Dir    string      // storePathRootDir; a folder of the test's own when empty
	Change func(*config.Broker)
	Now    func() time.Time
	Logger *slog.Logger
}

// testBroker is a broker that serves, and the requests that tests send it.
type testBroker struct {
	*Broker
	t   testing.TB
	cfg *config.Live[config.Broker]
	dir string
}

// testConfig is for small stores: a segment is 1 MiB.
func testConfig(dir string) *config.Broker {
	cfg := tableConfig()
	cfg.BindAddress, cfg.BrokerIP1, cfg.ListenPort, cfg.FastListenPort = "127.0.0.1", "127.0.0.1", 0, -1
	cfg.StorePathRootDir, cfg.LogTailBytes = dir, 32<<20
	cfg.StorePathCommitLog = filepath.Join(dir, "commitlog")
	cfg.MappedFileSizeCommitLog, cfg.MappedFileSizeConsumeQueue, cfg.MaxHashSlotNum, cfg.MaxIndexNum = 1<<20, 20*1000, 100, 4000
	cfg.TLSServerMode = "disabled"
	// A test does not fail over the free space of the machine that it runs on.
	cfg.DiskMaxUsedSpaceRatio, cfg.DiskSpaceCleanForciblyRatio, cfg.DiskSpaceWarningLevelRatio = 100, 100, 100
	return cfg
}

func newTestBroker(t testing.TB, o brokerOptions) *testBroker {
	t.Helper()
	b := openTestBroker(t, o)
	t.Cleanup(b.shutdown)
	return b
}

// underTest applies RINGMQ_TEST_IO_ENGINE and RINGMQ_TEST_SYNC, with which make test-engines runs these tests for each engine.
func underTest(cfg *config.Broker) {
	if engine := os.Getenv("RINGMQ_TEST_IO_ENGINE"); engine != "" {
		cfg.IoEngine = engine
	}
	if os.Getenv("RINGMQ_TEST_SYNC") != "" {
		cfg.FlushDiskType = config.SyncFlush
	}
	if poller := os.Getenv("RINGMQ_TEST_POLLER"); poller != "" {
		cfg.ReactorPoller = poller
	}
}

// openTestBroker leaves it to the caller to end the broker.
func openTestBroker(t testing.TB, o brokerOptions) *testBroker {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	cfg := testConfig(o.Dir)
	underTest(cfg)
	if o.Change != nil {
		o.Change(cfg)
	}
	live := config.NewLiveBroker(cfg)
	b, err := Open(live, Options{FS: o.FS, Logger: o.Logger, Now: o.Now})
	require.NoError(t, err)
	b.Start()
	return &testBroker{Broker: b, t: t, cfg: live, dir: o.Dir}
}

func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (b *testBroker) shutdown() {
	ctx, cancel := contextWithPatience()
	defer cancel()
	require.NoError(b.t, b.Shutdown(ctx))
}

// set changes one property as an operator would.
func (b *testBroker) set(key, value string) {
	b.t.Helper()
	require.NoError(b.t, b.cfg.Set(key, value))
}

// testClient is a client.Conn whose errors end the test.
type testClient struct {
	*client.Conn
	t testing.TB
}

func (b *testBroker) dial(o client.Options) *testClient {
	b.t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	c, err := client.Dial(context.Background(), b.Addr(), o)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = c.Close() })
	return &testClient{c, b.t}
}

func (b *testBroker) client() *testClient { return b.dial(client.Options{}) }

// fields are the header of a request.
type fields map[string]string

// absent as a value takes a field away.
const absent = "\x00absent"

// with sets fields, given as names and values in turn.
func (f fields) with(more ...string) fields {
	for i := 0; i < len(more); i += 2 {
		if more[i+1] == absent {
			delete(f, more[i])
		} else {
			f[more[i]] = more[i+1]
		}
	}
	return f
}

// ask sends a request and returns its answer, whatever the code.
func (c *testClient) ask(code int32, f fields, body []byte) *client.Response {
	c.t.Helper()
	r, err := c.Invoke(context.Background(), client.Request{Code: code, Fields: f, Body: body})
	require.NoError(c.t, err)
	return r
}

// must is ask for requests that succeed.
func (c *testClient) must(code int32, f fields, body []byte) *client.Response {
	c.t.Helper()
	r := c.ask(code, f, body)
	require.NoError(c.t, r.Err())
	return r
}

// intField is a decimal field of an answer.
func intField(t testing.TB, r *client.Response, key string) int64 {
	t.Helper()
	n, err := r.Int(key)
	require.NoError(t, err)
	return n
}

// toSend is the header of SEND_MESSAGE.
func toSend(topic string, queueID int, more ...string) fields {
	f := fields{
		"producerGroup": "PG", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": strconv.Itoa(queueID),
		"sysFlag": "0", "bornTimestamp": "1700000000000", "flag": "0", "properties": "", "reconsumeTimes": "0",
	}
	return f.with(more...)
}

// send stores one message and returns its queue offset.
func (c *testClient) send(topic string, queueID int, body string, more ...string) int64 {
	c.t.Helper()
	r := c.must(remoting.ReqSendMessage, toSend(topic, queueID, more...), []byte(body))
	return intField(c.t, r, "queueOffset")
}

// toPull is the header of PULL_MESSAGE for a reader that names its subscription itself and does not wait.
func toPull(group, topic string, queueID int, offset int64, more ...string) fields {
	f := fields{
		"consumerGroup": group, "topic": topic, "queueId": strconv.Itoa(queueID), "queueOffset": strconv.FormatInt(offset, 10), "maxMsgNums": "32",
		"sysFlag": strconv.Itoa(remoting.PullSubscription), "commitOffset": "0", "suspendTimeoutMillis": "0", "subVersion": "0", "subscription": "*",
	}
	return f.with(more...)
}

// pull asks once and returns what came.
func (c *testClient) pull(group, topic string, queueID int, offset int64, more ...string) (*client.Response, []message.Record) {
	c.t.Helper()
	r := c.ask(remoting.ReqPullMessage, toPull(group, topic, queueID, offset, more...), nil)
	return r, recordsOf(c.t, r.Body)
}

// recordsOf decodes records that lie back to back.
func recordsOf(t testing.TB, body []byte) (list []message.Record) {
	t.Helper()
	for len(body) > 0 {
		var r message.Record
		require.NoError(t, message.Decode(body, &r))
		list = append(list, r)
		body = body[r.Size:]
	}
	return list
}

func bodiesOf(list []message.Record) (bodies []string) {
	for i := range list {
		bodies = append(bodies, string(list[i].Body))
	}
	return bodies
}

// property is the text of one property of a record.
func property(r *message.Record, name string) string {
	v, _ := message.Property(r.Properties, name)
	return string(v)
}

// properties encodes names and values as clients do.
func properties(pairs ...string) string {
	var p []byte
	for i := 0; i < len(pairs); i += 2 {
		p = message.AppendProperty(p, pairs[i], []byte(pairs[i+1]))
	}
	return string(p)
}

// createTopic makes a topic as mqadmin does.
func (c *testClient) createTopic(name string, more ...string) {
	c.t.Helper()
	f := fields{"topic": name, "defaultTopic": "TBW102", "readQueueNums": "4", "writeQueueNums": "4", "perm": "6", "topicFilterType": "SINGLE_TAG",
		"topicSysFlag": "0", "order": "false"}
	c.must(remoting.ReqUpdateAndCreateTopic, f.with(more...), nil)
}

// createGroup makes a subscription group as mqadmin does.
func (c *testClient) createGroup(name string, change func(*remoting.SubscriptionGroupConfig)) {
	c.t.Helper()
	g := remoting.NewSubscriptionGroupConfig(name)
	if change != nil {
		change(&g)
	}
	c.must(remoting.ReqUpdateAndCreateSubscriptiongroup, nil, remoting.EncodeBody(g))
}

// beat registers the client as a consumer.
func (c *testClient) beat(clientID, group string, version int64, topics map[string]string) {
	c.t.Helper()
	require.NoError(c.t, c.Heartbeat(context.Background(), &client.Member{ClientID: clientID,
		Consumers: []client.Consumer{{Group: group, Topics: topics, Version: version}}}))
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, 2*time.Millisecond, what)
}

// receive waits for one value.
func receive[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// rawConn is a client that sends what bytes it likes.
type rawConn struct {
	net.Conn
	t testing.TB
}

func (b *testBroker) raw() *rawConn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.Addr())
	require.NoError(b.t, err)
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(patience)))
	b.t.Cleanup(func() { _ = conn.Close() })
	return &rawConn{conn, b.t}
}

// frame is a whole request.
func frame(serialize byte, code, opaque, flag int32, f fields, body []byte) []byte {
	w := remoting.Request(nil, serialize, code, opaque, flag)
	for key, value := range f {
		w.Text(key, value)
	}
	return w.Finish(body)
}

// write has patience of its own, and read has: what was done before may have taken long.
func (c *rawConn) write(b []byte) {
	c.t.Helper()
	require.NoError(c.t, c.SetWriteDeadline(time.Now().Add(patience)))
	_, err := c.Write(b)
	require.NoError(c.t, err)
}

// read returns the next frame's command.
func (c *rawConn) read() *remoting.Command {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(patience)))
	var length [4]byte
	_, err := io.ReadFull(c, length[:])
	require.NoError(c.t, err)
	text := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err = io.ReadFull(c, text)
	require.NoError(c.t, err)
	cmd := new(remoting.Command)
	require.NoError(c.t, cmd.Decode(text))
	return cmd
}

// wantClosed reads until the broker closes the connection; what comes before is thrown away.
func (c *rawConn) wantClosed() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c)
	var late net.Error
	require.False(c.t, err != nil && errors.As(err, &late) && late.Timeout(), "the connection is still open")
}

// testClock is a wall clock that moves when told.
type testClock struct{ millis atomic.Int64 }

func newTestClock() *testClock {
	c := &testClock{}
	c.millis.Store(time.Now().UnixMilli())
	return c
}

func (c *testClock) now() time.Time { return time.UnixMilli(c.millis.Load()) }

func (c *testClock) advance(d time.Duration) { c.millis.Add(d.Milliseconds()) }
