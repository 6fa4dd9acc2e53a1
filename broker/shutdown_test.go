package broker

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

// A restart must not make producers send again what is stored: a shutdown answers it before it closes their connections.

const inFlight = 64

// askAll has so many sends in flight on c; their codes come out of the channel, -1 for a connection that ended.
func (c *testClient) askAll(topic string, n int) <-chan int32 {
	c.t.Helper()
	codes := make(chan int32, n)
	for i := range n {
		request := client.Request{Code: remoting.ReqSendMessage, Fields: toSend(topic, i%4), Body: []byte(strconv.Itoa(i))}
		require.NoError(c.t, c.Go(request, func(a *remoting.Command, err error) {
			if err != nil {
				codes <- -1
				return
			}
			codes <- a.Code
		}))
	}
	return codes
}

// beginShutdown returns when the broker's ports are closed, with what Shutdown will return.
func (b *testBroker) beginShutdown(ctx context.Context) <-chan error {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.Shutdown(ctx) }()
	eventually(b.t, "the ports are closed", func() bool {
		conn, err := net.Dial("tcp", b.Addr())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	return done
}

// Sends that wait for the device, or for a goroutine, are no output of their connection yet.
func TestShutdownAnswersWhatWaits(t *testing.T) {
	for _, tt := range []struct {
		rule, topic string
		hold        faultfs.Kind
	}{
		{"for the device", "T", faultfs.OpSyncRange},
		{"in the put lane, for the save of their topic", "New", faultfs.OpRename},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			fsys := faultfs.New()
			b := openTestBroker(t, brokerOptions{FS: fsys, Dir: "/store", Change: syncFlush})
			c := b.client()
			c.createTopic("T")
			c.send("T", 0, "x")
			gate := gateOf(t, fsys, tt.hold)
			codes := c.askAll(tt.topic, inFlight)
			held := receive(t, gate.Arrived)
			c.must(remoting.ReqGetMaxOffset, ofQueue("T", 0), nil) // all have been read
			ctx, cancel := contextWithPatience()
			defer cancel()
			done := b.beginShutdown(ctx)
			select {
			case err := <-done:
				t.Fatalf("shut down (%v) while sends wait", err)
			case code := <-codes:
				t.Fatalf("answered %d while its disk is held", code)
			default:
			}
			held.Pass(nil)
			gate.Open()
			for range inFlight {
				require.Zero(t, receive(t, codes))
			}
			require.NoError(t, receive(t, done))
		})
	}
}

// Whatever is in the store after a shutdown under load was answered SEND_OK, and nothing else was.
func TestShutdownUnderLoad(t *testing.T) {
	for _, disk := range []string{"disk", "memory"} {
		for _, engine := range []string{"auto", "portable"} {
			t.Run(disk+" "+engine, func(t *testing.T) {
				o := brokerOptions{Change: func(c *config.Broker) {
					syncFlush(c)
					c.IoEngine = engine
				}}
				if o.Dir = t.TempDir(); disk == "memory" {
					o.FS, o.Dir = faultfs.New(), "/store"
				}
				b := openTestBroker(t, o)
				b.client().createTopic("T")
				var load load
				load.start(b, 2)
				eventually(t, "the load runs", func() bool { return load.answered.Load() > 4*inFlight })
				b.shutdown()
				load.wg.Wait()
				stored := storedIn(t, o, "T")
				for body := range stored {
					if code, known := load.codes[body]; !known || code != 0 {
						t.Errorf("%s is stored, and was answered: %v (code %d)", body, known, code)
					}
				}
				for body, code := range load.codes {
					if code == 0 && !stored[body] {
						t.Errorf("%s was answered SEND_OK and is not stored", body)
					}
				}
			})
		}
	}
}

// load is clients that send without a pause until their connection ends.
type load struct {
	wg       sync.WaitGroup
	answered atomic.Int64
	mu       sync.Mutex
	codes    map[string]int32 // by the body of the message; those without an answer are not there
}

func (l *load) start(b *testBroker, clients int) {
	l.codes = map[string]int32{}
	for i := range clients {
		c := b.client()
		for j := range inFlight {
			l.wg.Go(func() { l.send(c, i, j) })
		}
	}
}

func (l *load) send(c *testClient, i, j int) {
	for n := 0; ; n++ {
		body := fmt.Sprintf("%d-%d-%d", i, j, n)
		r, err := c.Invoke(context.Background(), client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", j%4), Body: []byte(body)})
		if err != nil {
			return
		}
		l.mu.Lock()
		l.codes[body] = r.Code
		l.mu.Unlock()
		l.answered.Add(1)
	}
}

// storedIn opens the store again and reads the bodies of a topic.
func storedIn(t *testing.T, o brokerOptions, topic string) map[string]bool {
	t.Helper()
	b := newTestBroker(t, o)
	c := b.client()
	c.createGroup("G", nil)
	stored := map[string]bool{}
	for queue := range 4 {
		end := intField(t, c.must(remoting.ReqGetMaxOffset, ofQueue(topic, queue), nil), "offset")
		for next := int64(0); next < end; {
			_, got := c.pull("G", topic, queue, next)
			require.NotEmpty(t, got)
			next += int64(len(got))
			for _, body := range bodiesOf(got) {
				require.False(t, stored[body], "%s is stored twice", body)
				stored[body] = true
			}
		}
	}
	return stored
}

// A disk that never comes back does not hold a shutdown beyond its time, whatever waits for it.
func TestShutdownEndsWithItsContext(t *testing.T) {
	fsys := faultfs.New()
	b := openTestBroker(t, brokerOptions{FS: fsys, Dir: "/store", Change: syncFlush})
	c := b.client()
	c.createTopic("T")
	gate := gateOf(t, fsys, faultfs.OpRename)
	codes := c.askAll("New", inFlight)
	held := receive(t, gate.Arrived)
	eventually(t, "all are in the lane", func() bool { return b.putLane.Waiting() == inFlight })
	ctx, cancel := context.WithCancel(context.Background())
	done := b.beginShutdown(ctx)
	cancel()
	for range inFlight {
		require.EqualValues(t, -1, receive(t, codes), "the connection ends")
	}
	held.Pass(nil)
	gate.Open()
	require.ErrorIs(t, receive(t, done), context.Canceled)
	require.Zero(t, b.putLane.Waiting())
	require.LessOrEqual(t, len(storedIn(t, brokerOptions{FS: fsys, Dir: "/store"}, "New")), 1, "what nobody waits for any more is not stored")
}

// An Open that fails leaves nothing open: its ports can be bound again.
func TestFailedOpenFreesItsPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	for range 3 {
		cfg := testConfig(t.TempDir())
		cfg.ListenPort, cfg.BrokerIP1 = port, "no address"
		_, err := Open(config.NewLiveBroker(cfg), Options{})
		require.ErrorContains(t, err, "brokerIP1", "the port is free every time")
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err == nil {
		_ = conn.Close()
	}
	require.Error(t, err)
}
