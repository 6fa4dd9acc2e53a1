package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// someHeld is some pull that waits.
func (b *testBroker) someHeld() (p *heldPull) {
	b.t.Helper()
	for i := range b.longPoll.shards {
		s := &b.longPoll.shards[i]
		s.mu.Lock()
		for _, list := range s.held {
			p = list[0]
		}
		s.mu.Unlock()
	}
	require.NotNil(b.t, p)
	return p
}

// movable asks the connection's handler, on its reactor.
func (b *testBroker) movable(c *netpath.Conn) bool {
	b.t.Helper()
	h := b.allHandlers()[c.Reactor().Index()]
	answer := make(chan bool, 1)
	require.True(b.t, h.reactor.Post(func() { answer <- h.Movable(c) }))
	return receive(b.t, answer)
}

// A connection may go to another reactor only while nothing that its own keeps refers to it.
func TestConnectionIsMovableAtRest(t *testing.T) {
	fsys := faultfs.New()
	b := newFaultBroker(t, fsys, func(c *config.Broker) {
		syncFlush(c)
		c.Reactors = 2
	})
	c, other := b.client(), b.client()
	other.createTopic("T")
	other.createGroup("G", nil)
	answered := c.await("G", "T", 0, 0, time.Minute)
	b.waitHeld(1)
	conn := b.someHeld().conn
	require.False(t, b.movable(conn), "with a pull that is held")
	other.send("T", 0, "x")
	require.Len(t, receive(t, answered).bodies, 1)
	eventually(t, "it is movable", func() bool { return b.movable(conn) })

	gate := gateOf(t, fsys, faultfs.OpSyncRange)
	for rule, f := range map[string]fields{"with a send that waits for the disk": toSend("T", 0), "with one that came from the put lane": toSend("New", 0)} {
		acked := make(chan int32, 1)
		go func() { acked <- c.ask(remoting.ReqSendMessage, f, []byte("late")).Code }()
		eventually(t, "it is not movable "+rule, func() bool { return !b.movable(conn) })
		select {
		case code := <-acked:
			t.Fatalf("%s: answered %d", rule, code)
		default:
		}
		gate.Open()
		require.Zero(t, receive(t, acked), rule)
		eventually(t, "it is movable again", func() bool { return b.movable(conn) })
		gate = gateOf(t, fsys, faultfs.OpSyncRange)
	}
}

// A request that comes back from a lane after its connection has moved runs where the connection is.
func TestFrameFindsItsConnection(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.Reactors = 2 }})
	b.client().createTopic("T")
	c := b.raw()
	c.write(frame(remoting.SerializeJSON, remoting.ReqPullMessage, 1, 0,
		toPull("G", "T", 0, 0, "sysFlag", "6", "suspendTimeoutMillis", "60000"), nil))
	b.waitHeld(1)
	conn := b.someHeld().conn
	left := b.allHandlers()[1-conn.Reactor().Index()] // as if it had been there before
	ask := frame(remoting.SerializeJSON, remoting.ReqGetMaxOffset, 7, 0, fields{"topic": "T", "queueId": "0"}, nil)[4:]
	require.True(t, left.reactor.Post(func() {
		left.OnFrame(conn, ask)
		clear(ask) // it is the caller's again
	}))
	got := c.read()
	require.EqualValues(t, 7, got.Opaque)
	require.Zero(t, got.Code, string(got.Remark))
	max, err := got.Int("offset", -1)
	require.NoError(t, err)
	require.Zero(t, max)
}
