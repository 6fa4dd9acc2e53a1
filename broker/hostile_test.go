package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// Strangers and broken clients: whatever they do, memory stays bounded and the others are served.

// witness is a client that works all the time; check ends it and fails the test if it was ever refused or kept waiting.
func (b *testBroker) witness() (check func()) {
	b.t.Helper()
	c := b.client()
	c.createTopic("witness")
	stop, ended := make(chan bool), make(chan error, 1)
	go func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				if i == 0 {
					ended <- errors.New("the witness came never to work")
					return
				}
				ended <- nil
				return
			default:
			}
			if err := oneMessage(c.Conn, i); err != nil {
				ended <- fmt.Errorf("round trip %d of the witness: %w", i, err)
				return
			}
		}
	}()
	require.NoError(b.t, oneMessage(b.client().Conn, -1))
	return func() {
		b.t.Helper()
		close(stop)
		require.NoError(b.t, receive(b.t, ended))
	}
}

// oneMessage sends a message, pulls it and commits its offset.
func oneMessage(c *client.Conn, i int64) error {
	text := []byte(strconv.FormatInt(i, 10))
	call := func(code int32, f fields, body []byte) (*client.Response, error) {
		began := time.Now()
		r, err := c.Invoke(context.Background(), client.Request{Code: code, Fields: f, Body: body})
		if err == nil {
			err = r.Err()
		}
		if took := time.Since(began); err == nil && took > 5*time.Second {
			err = fmt.Errorf("it took %s", took)
		}
		return r, err
	}
	r, err := call(remoting.ReqSendMessage, toSend("witness", 0), text)
	if err != nil {
		return err
	}
	offset, err := r.Int("queueOffset")
	if err != nil {
		return err
	}
	began := time.Now()
	if r, err = pullStored(c, "W", "witness", 0, offset); err != nil {
		return err
	}
	if took := time.Since(began); took > 5*time.Second {
		return fmt.Errorf("the pull took %s", took)
	}
	if !bytes.Contains(r.Body, text) {
		return errors.New("another message came back")
	}
	_, err = call(remoting.ReqUpdateConsumerOffset, ofQueue("witness", 0, "consumerGroup", "W", "commitOffset", strconv.FormatInt(offset, 10)), nil)
	return err
}

// heap is what lives in memory, in MiB.
// pullStored pulls the one message that was acknowledged with this offset, as consumers do: the acknowledgement may be there before another
// thread has put the message into its queue, so the pull waits for it to arrive. While more than that one are on their way, the answer tells
// where the queue ends: the pull waits there first.
func pullStored(c *client.Conn, group, topic string, queueID int, offset int64) (*client.Response, error) {
	for at := offset; ; {
		r, err := c.Invoke(context.Background(), client.Request{Code: remoting.ReqPullMessage, Fields: toPull(group, topic, queueID, at, "maxMsgNums", "1",
			"sysFlag", strconv.Itoa(remoting.PullSubscription|remoting.PullSuspend), "suspendTimeoutMillis", strconv.FormatInt((patience/2).Milliseconds(), 10))})
		if err != nil {
			return nil, err
		}
		end, err := r.Int("nextBeginOffset")
		switch {
		case err != nil:
			return nil, errors.Join(r.Err(), err)
		case r.Code == remoting.RespPullOffsetMoved && end < at:
			at = end
		case r.Code == remoting.RespSuccess && at < offset:
			at = offset
		default:
			return r, r.Err()
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc >> 20)
}

// flood writes a frame over and over until so many are out or the broker takes no more for a while; it tells how many it took.
func (c *rawConn) flood(frame []byte, n int, patience time.Duration) (written int) {
	c.t.Helper()
	for written < n {
		require.NoError(c.t, c.SetWriteDeadline(time.Now().Add(patience)))
		_, err := c.Write(frame)
		if err != nil {
			require.True(c.t, errors.Is(err, os.ErrDeadlineExceeded) || isReset(err), "%v", err)
			return written
		}
		written++
	}
	return written
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestLiesCloseOnlyTheirConnection(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	check := b.witness()
	good := frame(remoting.SerializeJSON, remoting.ReqGetMaxOffset, 5, 0, ofQueue("T", 0), nil)
	header := func(text string) []byte {
		n := byte(len(text))
		return append([]byte{0, 0, 0, n + 4, 0, 0, 0, n}, text...)
	}
	many := fields{}
	for i := range 300 {
		many[fmt.Sprintf("f%d", i)] = "v"
	}
	for rule, lie := range map[string][]byte{
		"a length of 4 GiB":                           {0xff, 0xff, 0xff, 0xff},
		"a length of 2 GiB":                           {0x80, 0, 0, 0, 0, 0, 0, 9},
		"a length just above the frame limit":         {1, 0, 0, 0, 0, 0, 0, 9},
		"a length of 0":                               {0, 0, 0, 0},
		"a length without room for the mark":          {0, 0, 0, 3, 0, 0, 0},
		"a header longer than its frame":              {0, 0, 0, 20, 0, 0, 0, 17, '{'},
		"a header above 64 KiB":                       {0, 0x20, 0, 0, 0, 1, 0, 1, '{'},
		"an unknown serialisation":                    {0, 0, 0, 20, 2, 0, 0, 9},
		"a header that is no JSON":                    header(`{"code":}`),
		"a header that is cut off":                    header(`{"code":10,"extFields":{"a":`),
		"a header that is an array":                   header(`[1,2,3]`),
		"a code of 64 bits":                           header(`{"code":4294967306}`),
		"more fields than a header may have":          frame(remoting.SerializeJSON, 10, 1, 0, many, nil),
		"the same in binary":                          frame(remoting.SerializeRocketMQ, 10, 1, 0, many, nil),
		"a binary header shorter than its fixed part": {0, 0, 0, 12, 1, 0, 0, 8, 0, 10, 9, 2, 1, 0, 0, 0},
		"a binary length beyond the header":           append([]byte{0, 0, 0, 25, 1, 0, 0, 21, 0, 10, 9, 2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}, 0, 0, 0, 0),
		"something else than frames":                  []byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
		"a TLS greeting where TLS is off":             {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3},
	} {
		t.Run(rule, func(t *testing.T) {
			first := b.raw()
			first.write(lie)
			first.wantClosed()
			later := b.raw()
			later.write(append(bytes.Clone(good), lie...))
			require.EqualValues(t, 5, later.read().Opaque, "what came before the lie is answered")
			later.wantClosed()
		})
	}
	check()
	eventually(t, "they are gone", func() bool { return b.server.Stats().Conns == 2 })
}

// Frames that are begun and never ended cost what has arrived of them, whatever length they claim.
func TestHalfFramesHoldLittle(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	check := b.witness()
	before := heap()
	whole := frame(remoting.SerializeRocketMQ, remoting.ReqSendMessageV2, 1, 0, toSend("T", 0).short(), make([]byte, 15<<20))
	good := frame(remoting.SerializeJSON, remoting.ReqGetMaxOffset, 5, 0, ofQueue("T", 0), nil)
	const strangers = 300
	for i := range strangers {
		c := b.raw()
		if i%2 == 0 {
			c.write(good)
			c.read()
		}
		c.write(whole[:4+i*8])
	}
	eventually(t, "all have arrived", func() bool { return b.server.Stats().Conns == strangers+2 })
	require.Less(t, heap()-before, int64(16), "MiB for 300 frames that claim 15 MiB each")
	require.Less(t, b.server.Stats().InFlightBytes, int64(8<<20))
	check()
}

// A byte now and then: the connection costs little and bothers nobody. (That it is closed in the end is tested in netpath.)
func TestTricklingClients(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	check := b.witness()
	goroutines := runtime.NumGoroutine()
	text := frame(remoting.SerializeJSON, remoting.ReqGetMaxOffset, 5, 0, ofQueue("T", 0), nil)
	var all []*rawConn
	for range 100 {
		all = append(all, b.raw())
	}
	for i := range text {
		for _, c := range all {
			c.write(text[i : i+1])
		}
	}
	b.fewGoroutines(goroutines)
	for _, c := range all {
		require.EqualValues(t, 5, c.read().Opaque)
	}
	check()
}

func TestFloodOfConnections(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MaxConnectionsPerAddress = 60 }})
	check := b.witness()
	goroutines, before := runtime.NumGoroutine(), heap()
	var kept []net.Conn
	refused := 0
	for range 500 {
		conn, err := net.Dial("tcp", b.Addr())
		require.NoError(t, err)
		kept = append(kept, conn)
	}
	eventually(t, "the limit is kept", func() bool { return b.server.Stats().Refused["maxConnsPerAddr"] == 500-58 })
	require.Equal(t, 60, b.server.Stats().Conns)
	for _, conn := range kept[58:] {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
		}
	}
	require.Equal(t, 500-58, refused, "who is refused is told at once")
	b.fewGoroutines(goroutines)
	require.Less(t, heap()-before, int64(8))
	check()
	for _, conn := range kept {
		require.NoError(t, conn.Close())
	}
	eventually(t, "the places are free again", func() bool { return b.server.Stats().Conns == 2 })
	b.client().send("T", 0, "x")
}

func (b *testBroker) portable() bool { return b.cfg.Load().IoEngine == portableEngine }

// fewGoroutines checks that there are hardly more than before: only the portable path has some for each connection.
func (b *testBroker) fewGoroutines(before int) {
	b.t.Helper()
	if !b.portable() {
		require.Less(b.t, runtime.NumGoroutine(), before+20, "no goroutine for each connection")
	}
}

// A client that asks for much and reads nothing: its answers are bounded, it is not read any more, and the others are served.
func TestReaderThatNeverReads(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MappedFileSizeCommitLog = 8 << 20 }})
	c := b.client()
	c.createTopic("files")
	c.createTopic("copies")
	for range 32 {
		c.send("files", 0, strings.Repeat("x", 32<<10))
		c.send("copies", 0, strings.Repeat("x", 7<<10)) // the parts lie apart and are small: they are copied into memory
		c.send("copies", 1, "y")
	}
	for _, topic := range []string{"files", "copies"} {
		t.Run(topic, func(t *testing.T) {
			check := b.witness()
			before, inFlight := heap(), b.server.Stats().InFlightBytes // the portable path keeps the buffers of who has sent much
			pull := frame(remoting.SerializeRocketMQ, remoting.ReqPullMessage, 1, 0, toPull("G", topic, 0, 0), nil)
			const readers = 8
			var all []*rawConn
			for range readers {
				c := b.raw()
				require.NoError(t, c.Conn.(*net.TCPConn).SetReadBuffer(4<<10))
				all = append(all, c)
			}
			for _, c := range all {
				require.Less(t, c.flood(bytes.Repeat(pull, 100), 2000, 100*time.Millisecond), 2000, "it is not read any more")
			}
			most := readers * 4
			if b.portable() || b.store.Log().Engine() != ioengine.EngineMmap {
				most *= 2 // copied, where else the file is sent
			}
			require.Less(t, heap()-before, int64(most), "MiB for answers that nobody takes")
			check()
			for _, c := range all {
				require.NoError(t, c.Close())
			}
			eventually(t, "they are gone", func() bool { return b.server.Stats().InFlightBytes <= inFlight })
		})
	}
}

// Requests that wait for a goroutine are bounded in bytes, not only in number.
func TestFloodOfLargeRequests(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	check := b.witness()
	// All goroutines of the lane wait, as they would for a slow disk.
	entered, hold := make(chan bool), make(chan bool)
	for range 8 {
		require.True(t, b.lanes[laneControl].Submit(nil, nil, func(*netpath.Conn, []byte) { entered <- true; <-hold }))
		receive(t, entered)
	}
	before := heap()
	c := b.raw()
	request := func(flag int32) []byte {
		return frame(remoting.SerializeJSON, remoting.ReqHeartBeat, 1, flag, nil, bytes.Repeat([]byte("x"), 1<<20))
	}
	require.Equal(t, 300, c.flood(request(remoting.FlagOneway), 300, patience))
	c.write(request(0))
	answer := c.read()
	require.EqualValues(t, remoting.RespSystemBusy, answer.Code)
	require.Contains(t, string(answer.Remark), "try again later")
	require.Less(t, heap()-before, int64(100), "MiB of 300 sent")
	check()
	close(hold)
	eventually(t, "the lane is done", func() bool { return b.lanes[laneControl].Waiting() == 0 })
	c.write(request(0))
	require.EqualValues(t, remoting.RespSystemError, c.read().Code, "it is looked at again, and is no heartbeat")
}

// One-way sends cannot be slowed down by their answers; the log takes what it can, and the broker lives on.
func TestFloodOfOnewaySends(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.MappedFileSizeCommitLog = 16 << 20 }})
	b.client().createTopic("T")
	check := b.witness()
	before, goroutines := heap(), runtime.NumGoroutine()
	request := frame(remoting.SerializeRocketMQ, remoting.ReqSendMessageV2, 1, remoting.FlagOneway, toSend("T", 0).short(), make([]byte, 4<<10))
	batch := bytes.Repeat(request, 64)
	flooded := make(chan int, 4)
	for range 4 {
		c := b.raw()
		go func() { flooded <- c.flood(batch, 100, patience) }()
	}
	for range 4 {
		require.Equal(t, 100, receive(t, flooded), "it is slowed down, not refused")
	}
	require.Less(t, heap()-before, int64(150))
	require.Less(t, runtime.NumGoroutine(), goroutines+20)
	check()
	c := b.client()
	offset := c.send("T", 0, "after")
	answer, err := pullStored(c.Conn, "G", "T", 0, offset)
	require.NoError(t, err)
	require.Equal(t, []string{"after"}, bodiesOf(recordsOf(t, answer.Body)))
}

func TestTenThousandTinyFrames(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	check := b.witness()
	before := heap()
	const n = 10_000
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		c := b.raw()
		written := make(chan int, 1)
		tiny := frame(serialize, 9999, 7, 0, nil, nil)
		go func() { written <- c.flood(bytes.Repeat(tiny, n/10), 10, patience) }()
		for range n {
			answer := c.read()
			require.EqualValues(t, remoting.RespRequestCodeNotSupported, answer.Code)
			require.EqualValues(t, 7, answer.Opaque)
		}
		require.Equal(t, 10, receive(t, written))
	}
	require.Less(t, heap()-before, int64(16))
	check()
}

// Held pulls keep what they need of their request, and all together a bounded part of memory.
func TestHeldPullsWithLargeRequests(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	b.client().createTopic("T")
	check := b.witness()
	before := heap()
	suspended := []string{"sysFlag", strconv.Itoa(remoting.PullSubscription | remoting.PullSuspend), "suspendTimeoutMillis", "3600000"}
	t.Run("a body", func(t *testing.T) {
		c := b.raw()
		request := frame(remoting.SerializeRocketMQ, remoting.ReqPullMessage, 1, 0, toPull("G", "T", 0, 0, suspended...), make([]byte, 1<<20))
		require.Equal(t, 200, c.flood(request, 200, patience))
		b.waitHeld(200)
		require.Less(t, heap()-before, int64(32), "MiB for 200 pulls with a body of 1 MiB")
		require.NoError(t, c.Close())
		b.waitHeld(0)
	})
	t.Run("a header", func(t *testing.T) {
		c := b.raw()
		request := frame(remoting.SerializeRocketMQ, remoting.ReqPullMessage, 1, 0, toPull("G", "T", 0, 0, suspended...).with("padding", strings.Repeat("x", 60<<10)), nil)
		const n = 4000
		flooded := make(chan int, 1)
		go func() { flooded <- c.flood(request, n, patience) }()
		require.Equal(t, n, receive(t, flooded))
		c.write(frame(remoting.SerializeRocketMQ, remoting.ReqGetMaxOffset, 2, 0, ofQueue("T", 0), nil))
		for c.read().Opaque != 2 { // those that are not held are answered
		}
		require.Less(t, heap()-before, int64(160), "MiB for %d pulls with a header of 60 KiB", n)
		require.NoError(t, c.Close())
		b.waitHeld(0)
	})
	check()
}
