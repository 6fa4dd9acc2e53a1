package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// recordingNameServer answers what a broker says to a name server, and counts it.
type recordingNameServer struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	counts map[int32]int
	topics int  // of the latest registration
	fail   bool // registrations are refused
	// version is that of the latest registration that was taken.
	version remoting.DataVersion
}

func newRecordingNameServer(t *testing.T) *recordingNameServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &recordingNameServer{t: t, addr: l.Addr().String(), counts: map[int32]int{}}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { n.serve(c) })
		}
	})
	return n
}

func (n *recordingNameServer) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [4]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		var cmd remoting.Command
		if err := cmd.Decode(frame); err != nil {
			n.t.Errorf("a frame that is none: %v", err)
			return
		}
		answer := n.answer(&cmd)
		if cmd.IsOneway() {
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (n *recordingNameServer) answer(cmd *remoting.Command) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[cmd.Code]++
	code := remoting.RespSuccess
	changed := true
	switch cmd.Code {
	case remoting.ReqRegisterBroker:
		var body remoting.RegisterBrokerBody
		if err := body.Decode(cmd.Body); err != nil {
			n.t.Errorf("registration: %v", err)
		}
		n.topics = len(body.Topics.TopicConfigTable)
		if n.fail {
			code = remoting.RespSystemError
		} else {
			n.version = body.Topics.DataVersion
		}
	case remoting.ReqQueryDataVersion:
		var theirs remoting.DataVersion
		if err := remoting.DecodeBody(cmd.Body, &theirs); err != nil {
			n.t.Errorf("data version: %v", err)
		}
		changed = theirs != n.version
	}
	w := remoting.Respond(nil, cmd, code, "")
	w.Bool("changed", changed)
	return w.Finish(nil)
}

// take answers how many of a request there were since the last look.
func (n *recordingNameServer) take(code int32) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := n.counts[code]
	delete(n.counts, code)
	return count
}

func (n *recordingNameServer) refuse(fail bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = fail
}

// unstartedBroker has a name server and makes no rounds of its own.
func unstartedBroker(t *testing.T) (*Broker, *recordingNameServer, context.Context) {
	t.Helper()
	names := newRecordingNameServer(t)
	cfg := testConfig(t.TempDir())
	cfg.NamesrvAddr = names.addr
	b, err := Open(config.NewLiveBroker(cfg), Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() {
		cancel()
		b.register.closeAll()
		require.NoError(t, b.closeUnstarted())
	})
	return b, names, ctx
}

// A broker with many topics does not send them all again every 30 s to a name server that has them.
func TestManyTopicsAreNotRegisteredForNothing(t *testing.T) {
	b, names, ctx := unstartedBroker(t)
	r := b.register
	again := func() (asked, registered int) {
		r.registerAgain(ctx)
		return names.take(remoting.ReqQueryDataVersion), names.take(remoting.ReqRegisterBroker)
	}
	expect := func(asked, registered int, msg string) {
		t.Helper()
		a, n := again()
		require.Equal(t, [2]int{asked, registered}, [2]int{a, n}, msg)
	}
	expect(0, 1, "few topics cost nothing")
	var many []remoting.TopicConfig
	for i := range askAboveTopics {
		many = append(many, remoting.NewTopicConfig(fmt.Sprintf("many%d", i)))
	}
	_, err := b.topics.update(b.cfg.Load(), many...)
	require.NoError(t, err)
	expect(1, 1, "it has not the latest")
	require.Greater(t, names.topics, askAboveTopics)
	expect(1, 0, "it has")
	expect(1, 0, "it still has")
	_, err = b.topics.update(b.cfg.Load(), remoting.NewTopicConfig("one"))
	require.NoError(t, err)
	expect(1, 1, "a topic came")
	names.refuse(true)
	r.registerAll(ctx)
	names.refuse(false)
	names.take(remoting.ReqRegisterBroker)
	expect(0, 1, "after a failure nobody knows what it has")
	expect(1, 0, "now it has everything again")
	for r.rounds%askRounds != askRounds-1 {
		expect(1, 0, "it has")
	}
	expect(0, 1, "from time to time it is told without being asked")
}

// Two topics come at nearly the same time: the first one's registration has the version of the second one already. A name server takes
// nothing with a version that it has, so the second one's must have another.
func TestTopicsAtTheSameTimeAreBothRegistered(t *testing.T) {
	b, names, ctx := unstartedBroker(t)
	r := b.register
	r.registerAll(ctx)
	whole := names.latest()
	_, err := b.topics.update(b.cfg.Load(), remoting.NewTopicConfig("one"), remoting.NewTopicConfig("two"))
	require.NoError(t, err)
	r.topicChanged(b.topics.find("one"))
	r.registerChanged(ctx)
	first := names.latest()
	require.NotEqual(t, whole, first)
	r.topicChanged(b.topics.find("two"))
	r.registerChanged(ctx)
	second := names.latest()
	require.NotEqual(t, first, second)
	r.registerChanged(ctx)
	require.Equal(t, second, names.latest(), "a round for no topic is no change")
}

func (n *recordingNameServer) latest() remoting.DataVersion {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.version
}

// Whoever creates a topic finds it at the name servers when the answer comes.
func TestTopicIsRegisteredWhenTheAnswerComes(t *testing.T) {
	names := newRecordingNameServer(t)
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.NamesrvAddr = names.addr }})
	c := b.client()
	for i := range 20 {
		c.createTopic(fmt.Sprintf("T%d", i))
		require.Equal(t, b.topics.dataVersion(), names.latest())
		c.send(fmt.Sprintf("byMessage%d", i), 0, "first")
		require.Equal(t, b.topics.dataVersion(), names.latest())
	}
}
