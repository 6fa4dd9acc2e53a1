package broker

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

// A broker on a machine whose disk fails, is slow, or is full.

func newFaultBroker(t testing.TB, fsys *faultfs.FS, change func(*config.Broker)) *testBroker {
	t.Helper()
	b := openTestBroker(t, brokerOptions{FS: fsys, Dir: "/store", Change: func(c *config.Broker) {
		c.MessageIndexEnable = false
		if change != nil {
			change(c)
		}
	}})
	t.Cleanup(func() {
		ctx, cancel := contextWithPatience()
		defer cancel()
		_ = b.Shutdown(ctx) // its error is that of the disk
	})
	return b
}

func syncFlush(c *config.Broker) { c.FlushDiskType = config.SyncFlush }

// failing says which operations on the commit log fail from now on.
type failing struct {
	kinds atomic.Pointer[[]faultfs.Kind]
	err   error
}

func failCommitLog(fsys *faultfs.FS, err error) *failing {
	f := &failing{err: err}
	f.kinds.Store(&[]faultfs.Kind{})
	fsys.SetFault(func(op faultfs.Op) error {
		if strings.Contains(op.Name, "/commitlog") {
			for _, k := range *f.kinds.Load() {
				if op.Kind == k {
					return f.err
				}
			}
		}
		return nil
	})
	return f
}

// gateOf is a gate that opens with the end of the test, so that its broker can end.
func gateOf(t testing.TB, fsys *faultfs.FS, kinds ...faultfs.Kind) *faultfs.Gate {
	g := fsys.Gate(kinds...)
	t.Cleanup(g.Open)
	return g
}

func (f *failing) set(kinds ...faultfs.Kind) { f.kinds.Store(&kinds) }

// R2: after the first error of the log's device nothing is acknowledged any more, whatever the device says later. Reading goes on.
func TestNoSendOKAfterTheDeviceFailed(t *testing.T) {
	for name, change := range map[string]func(*config.Broker){
		config.SyncFlush:  syncFlush,
		config.AsyncFlush: func(c *config.Broker) { c.FlushIntervalCommitLog = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			fsys := faultfs.New()
			disk := failCommitLog(fsys, syscall.EIO)
			b := newFaultBroker(t, fsys, change)
			c := b.client()
			c.createTopic("T")
			c.createGroup("G", nil)
			c.send("T", 0, "good")
			require.NoError(t, b.store.Log().Flush(patience))
			disk.set(faultfs.OpSyncRange, faultfs.OpSync)
			r := c.ask(remoting.ReqSendMessageV2, toSend("T", 0).short(), []byte("lost"))
			if name == config.SyncFlush {
				require.EqualValues(t, remoting.RespServiceNotAvailable, r.Code, r.Remark)
				require.Contains(t, r.Remark, "commit log has failed")
			}
			eventually(t, "the failure is seen", func() bool { return b.store.Log().Failed() != nil })
			disk.set() // the device answers again; the bytes of the failed sync are gone all the same
			batch := inBatch("m", "")
			for range 3 {
				for rule, ask := range map[string]func() *client.Response{
					"a send":         func() *client.Response { return c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x")) },
					"to a new topic": func() *client.Response { return c.ask(remoting.ReqSendMessage, toSend("New", 0), []byte("x")) },
					"a batch":        func() *client.Response { return c.ask(remoting.ReqSendBatchMessage, toSend("T", 0).short(), batch) },
					"that does not wait": func() *client.Response {
						return c.ask(remoting.ReqSendMessage, toSend("T", 0, "properties", properties("WAIT", "false")), []byte("x"))
					},
					"with a delay": func() *client.Response {
						return c.ask(remoting.ReqSendMessage, toSend("T", 0, "properties", properties("DELAY", "3")), []byte("x"))
					},
					"a message sent back": func() *client.Response {
						return c.ask(remoting.ReqConsumerSendMsgBack, fields{"group": "G", "offset": "0", "delayLevel": "0"}, nil)
					},
				} {
					r := ask()
					require.EqualValues(t, remoting.RespServiceNotAvailable, r.Code, "%s: %s", rule, r.Remark)
					require.Contains(t, r.Remark, "service not available now: commit log has failed, no more messages are taken until the broker is started again", rule)
				}
			}
			r, got := c.pull("G", "T", 0, 0, "maxMsgNums", "1")
			require.Zero(t, r.Code, r.Remark)
			require.Equal(t, []string{"good"}, bodiesOf(got), "reading goes on")
			require.Zero(t, fsysCount(fsys, faultfs.OpSyncRange, func(op faultfs.Op) bool {
				return op.Err == nil && op.N > firstFailure(fsys) && strings.Contains(op.Name, "/commitlog/")
			}),
				"no sync is tried again")
		})
	}
}

func firstFailure(fsys *faultfs.FS) int64 {
	for _, op := range fsys.Ops() {
		if op.Err != nil {
			return op.N
		}
	}
	return 0
}

func fsysCount(fsys *faultfs.FS, kind faultfs.Kind, match func(faultfs.Op) bool) (n int) {
	for _, op := range fsys.Ops() {
		if op.Kind == kind && match(op) {
			n++
		}
	}
	return n
}

// All who wait for one sync are told of its failure; who had been told OK before, rightly so, finds the message after a power loss.
func TestWaitersOfAFailedSync(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, syncFlush)
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "kept")
	gate := gateOf(t, fsys, faultfs.OpSyncRange)
	const n = 50
	codes := make(chan int32, n)
	for range n {
		require.NoError(t, c.Go(client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", 0), Body: []byte("lost")}, func(a *remoting.Command, err error) {
			if err != nil {
				codes <- -1
				return
			}
			codes <- a.Code
		}))
	}
	held := receive(t, gate.Arrived)
	require.Empty(t, codes, "nobody is told before the sync has ended")
	eventually(t, "all are stored", func() bool { return b.store.Queue([]byte("T"), 0).Max() == n+1 })
	require.Empty(t, codes)
	held.Pass(syscall.EIO)
	gate.Open()
	for range n {
		require.EqualValues(t, remoting.RespServiceNotAvailable, receive(t, codes))
	}
	after := newFaultBroker(t, fsys.Crash(1, faultfs.LoseAll), nil)
	_, got := after.client().pull("G", "T", 0, 0)
	require.NotEmpty(t, got)
	require.Equal(t, "kept", string(got[0].Body))
}

// SYNC_FLUSH: nothing is acknowledged that a power loss could take, and everything that was acknowledged is there after it.
func TestSyncFlushSurvivesPowerLoss(t *testing.T) {
	for seed := range int64(6) {
		fsys := faultfs.New()
		b := newFaultBroker(t, fsys, syncFlush)
		c := b.client()
		c.createTopic("T")
		var mu sync.Mutex
		acked := map[int64]string{}
		var done sync.WaitGroup
		for i := range 40 {
			done.Add(1)
			body := strconv.Itoa(i)
			require.NoError(t, c.Go(client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", i%4), Body: []byte(body)}, func(a *remoting.Command, err error) {
				defer done.Done()
				if err == nil && a.Code == 0 {
					offset, _ := a.Int("queueOffset", -1)
					mu.Lock()
					acked[int64(i%4)<<32|offset] = body
					mu.Unlock()
				}
			}))
		}
		done.Wait()
		require.Len(t, acked, 40)
		require.NoError(t, c.Oneway(client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", 0), Body: []byte("nobody waits for this one")}))
		b.shutdownNet()
		mode := []faultfs.CrashMode{faultfs.LoseAll, faultfs.Random, faultfs.Torn}[seed%3]
		after := newFaultBroker(t, fsys.Crash(seed, mode), nil)
		reader := after.client()
		for key, body := range acked {
			_, got := reader.pull("G", "T", int(key>>32), key&0xFFFFFFFF, "maxMsgNums", "1")
			require.Len(t, got, 1, "seed %d, %s", seed, mode)
			require.Equal(t, body, string(got[0].Body))
		}
	}
}

// shutdownNet ends the traffic, so that the file system is at rest.
func (b *testBroker) shutdownNet() {
	ctx, cancel := contextWithPatience()
	defer cancel()
	require.NoError(b.t, b.server.Shutdown(ctx))
}

func TestFlushThatTakesTooLong(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, func(c *config.Broker) {
		syncFlush(c)
		c.SyncFlushTimeout = 200
	})
	c := b.client()
	c.createTopic("T")
	c.createGroup("G", nil)
	c.send("T", 0, "x")
	gate := gateOf(t, fsys, faultfs.OpSyncRange)
	for rule, f := range map[string]fields{"on the reactor": toSend("T", 0), "on the put lane": toSend("New", 0)} {
		r := c.ask(remoting.ReqSendMessage, f, []byte("late"))
		require.EqualValues(t, remoting.RespFlushDiskTimeout, r.Code, "%s: %s", rule, r.Remark)
		require.NotEmpty(t, r.Fields["msgId"], "%s: the full header, for the message is stored", rule)
		require.NotEmpty(t, r.Fields["queueOffset"], rule)
	}
	r := c.ask(remoting.ReqSendMessage, toSend("T", 0, "properties", properties("WAIT", "false")), []byte("does not wait"))
	require.Zero(t, r.Code, r.Remark)
	gate.Open()
	require.EqualValues(t, 3, c.send("T", 0, "goes on"))
}

// A full disk refuses sends with code 14, serves reads, and takes messages again by itself when there is space.
func TestFullDisk(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, nil)
	c := b.client()
	c.createTopic("T")
	body := strings.Repeat("x", 100<<10)
	c.send("T", 0, body)
	_, total, err := fsys.Usage("/store/commitlog")
	require.NoError(t, err)
	free, _, err := fsys.Usage("/store/commitlog")
	require.NoError(t, err)
	fsys.SetCapacity(total - free + 64<<10) // room for the small files, not for a segment
	var refused *client.Response
	stored := int64(1)
	for refused == nil {
		r := c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte(body))
		if r.Code == 0 {
			stored++
			require.Less(t, stored, int64(100))
			continue
		}
		refused = r
	}
	require.EqualValues(t, remoting.RespServiceNotAvailable, refused.Code, refused.Remark)
	require.Contains(t, refused.Remark, "no disk space for the next commit log segment")
	require.Equal(t, "DefaultRegion", refused.Fields["MSG_REGION"])
	for range 3 {
		require.EqualValues(t, remoting.RespServiceNotAvailable, c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte(body)).Code)
	}
	_, got := c.pull("G", "T", 0, stored-1)
	require.Len(t, got, 1, "what was stored is read")
	fsys.SetCapacity(total)
	eventually(t, "messages are taken again", func() bool {
		return c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte(body)).Code == 0
	})
	require.Equal(t, stored+1, c.send("T", 0, body))
	require.NoError(t, b.store.Log().Err())
}

// Above diskSpaceWarningLevelRatio messages are refused before the disk is full.
func TestDiskUsedAboveTheWarningLevel(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, func(c *config.Broker) {
		c.DiskSpaceWarningLevelRatio, c.CleanResourceInterval = 90, 100
	})
	c := b.client()
	c.send("T", 0, "x")
	free, total, err := fsys.Usage("/store/commitlog")
	require.NoError(t, err)
	fsys.SetCapacity((total - free) * 20 / 19)
	eventually(t, "it is refused", func() bool { return c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x")).Code != 0 })
	r := c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x"))
	require.EqualValues(t, remoting.RespServiceNotAvailable, r.Code)
	require.Contains(t, r.Remark, "diskSpaceWarningLevelRatio")
	fsys.SetCapacity(total)
	eventually(t, "it is taken again", func() bool { return c.ask(remoting.ReqSendMessage, toSend("T", 0), []byte("x")).Code == 0 })
}

// While the save of a new topic is awaited, what the same connection sends next waits behind the first message.
func TestNothingOvertakesTheFirstMessageOfATopic(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, nil)
	c := b.client()
	c.send("other", 0, "x")
	gate := gateOf(t, fsys, faultfs.OpRename)
	offsets := make(chan [2]int64, 2)
	send := func(i int64) {
		require.NoError(t, c.Go(client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", 0), Body: []byte{byte(i)}}, func(a *remoting.Command, err error) {
			offset := int64(-1)
			if err == nil && a.Code == 0 {
				offset, _ = a.Int("queueOffset", -1)
			}
			offsets <- [2]int64{i, offset}
		}))
	}
	send(0)
	held := receive(t, gate.Arrived)
	require.Contains(t, held.Op.Name, "topics.json")
	require.NotNil(t, b.topics.find("T"), "the topic is there, but not yet durable")
	send(1)
	c.must(remoting.ReqGetMaxOffset, ofQueue("T", 0), nil) // the second send has been read
	held.Pass(nil)
	gate.Open()
	for range 2 {
		got := receive(t, offsets)
		require.Equal(t, got[0], got[1])
	}
}

// One send that had to wait must not make all that follow wait for the device one by one.
func TestGroupCommitAfterASlowSend(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, syncFlush)
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "x")
	gate := gateOf(t, fsys, faultfs.OpSyncRange)
	const n = 64
	answered := make(chan int32, n)
	send := func(topic string) {
		require.NoError(t, c.Go(client.Request{Code: remoting.ReqSendMessage, Fields: toSend(topic, 0), Body: []byte("x")}, func(a *remoting.Command, err error) {
			if err != nil {
				answered <- -1
				return
			}
			answered <- a.Code
		}))
	}
	send("New") // waits for its topic, then for the device
	held := receive(t, gate.Arrived)
	for range n - 1 {
		send("T")
	}
	c.must(remoting.ReqGetMaxOffset, ofQueue("T", 0), nil)
	syncs := 1
	held.Pass(nil)
	for done := 0; done < n; {
		select {
		case held := <-gate.Arrived:
			syncs++
			held.Pass(nil)
		case code := <-answered:
			require.Zero(t, code)
			done++
		case <-time.After(patience):
			t.Fatal("nothing came")
		}
	}
	require.Less(t, syncs, n/4, "syncs for %d messages that were sent at once", n)
	gate.Open()
}
