package broker

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

// pulled is the answer to a pull that was waited for.
type pulled struct {
	code   int32
	next   int64
	bodies []string
	err    error
	after  time.Duration
}

// await sends a pull that is willing to wait for the time given.
func (c *testClient) await(group, topic string, queueID int, offset int64, wait time.Duration, more ...string) <-chan pulled {
	c.t.Helper()
	answered, began := make(chan pulled, 1), time.Now()
	f := toPull(group, topic, queueID, offset, "sysFlag", strconv.Itoa(remoting.PullSubscription|remoting.PullSuspend),
		"suspendTimeoutMillis", strconv.FormatInt(wait.Milliseconds(), 10)).with(more...)
	require.NoError(c.t, c.Go(client.Request{Code: remoting.ReqPullMessage, Fields: f}, func(a *remoting.Command, err error) {
		p := pulled{err: err, after: time.Since(began)}
		if err == nil {
			p.code = a.Code
			p.next, _ = a.Int("nextBeginOffset", -1)
			for body := a.Body; len(body) > 0; {
				var r message.Record
				if p.err = message.Decode(body, &r); p.err != nil {
					break
				}
				p.bodies = append(p.bodies, string(r.Body))
				body = body[r.Size:]
			}
		}
		answered <- p
	}))
	return answered
}

// held counts the pulls that wait, in the table and in the lists of the reactors.
func (b *testBroker) held() (waiting int) {
	for i := range b.longPoll.shards {
		s := &b.longPoll.shards[i]
		s.mu.Lock()
		for _, list := range s.held {
			waiting += len(list)
		}
		s.mu.Unlock()
	}
	return waiting
}

// firstDeadline is the deadline of some held pull.
func (b *testBroker) firstDeadline() (deadline int64) {
	for i := range b.longPoll.shards {
		s := &b.longPoll.shards[i]
		s.mu.Lock()
		for _, list := range s.held {
			deadline = list[0].deadline
		}
		s.mu.Unlock()
	}
	return deadline
}

func monoNanos() int64 { return netpath.ReadClock().MonoNanos }

func (b *testBroker) waitHeld(n int) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("%d pulls are held", n), func() bool { return b.held() == n })
}

// noneHeld checks that nothing is left of held pulls anywhere.
func (b *testBroker) noneHeld() {
	b.t.Helper()
	b.waitHeld(0)
	for _, h := range b.allHandlers() {
		left := make(chan int, 1)
		require.True(b.t, h.reactor.Post(func() { left <- h.held.count }))
		require.Zero(b.t, receive(b.t, left))
	}
}

func wantNothing(t testing.TB, ch <-chan pulled) {
	t.Helper()
	select {
	case p := <-ch:
		t.Fatalf("answered: %+v", p)
	default:
	}
}

func TestHeldPullIsWokenByItsMessage(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.Reactors = 2 }})
	c, producer := b.client(), b.client()
	producer.createTopic("T")
	for _, tt := range []struct {
		rule  string
		group string
		queue int
		more  []string
	}{
		{"at the end of a queue", "G", 0, nil},
		{"of a queue without messages", "G", 1, nil},
		{"by the first pull of a group", "first", 2, nil},
		{"with a filter that the message passes", "G", 3, []string{"subscription", "no || t"}},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			if tt.queue == 0 {
				producer.send("T", 0, "before")
			}
			offset := int64(0)
			if q := b.store.Queue([]byte("T"), int32(tt.queue)); q != nil {
				offset = q.Max()
			}
			answer := c.await(tt.group, "T", tt.queue, offset, time.Hour, tt.more...)
			b.waitHeld(1)
			wantNothing(t, answer)
			producer.send("T", (tt.queue+1)%4, "to another queue", "properties", properties("TAGS", "t"))
			b.waitHeld(1)
			wantNothing(t, answer)
			producer.send("T", tt.queue, "it", "properties", properties("TAGS", "t"))
			p := receive(t, answer)
			require.NoError(t, p.err)
			require.Zero(t, p.code)
			require.Equal(t, []string{"it"}, p.bodies)
			require.Equal(t, offset+1, p.next)
			b.noneHeld()
		})
	}
}

// Messages that a filter stops do not end the wait, and it goes on from behind them.
func TestHeldPullIsNotWokenByOthersMessages(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	answer := c.await("G", "T", 0, 0, time.Hour, "subscription", "mine")
	b.waitHeld(1)
	for range 50 {
		c.send("T", 0, "x", "properties", properties("TAGS", "other"))
	}
	b.waitHeld(1)
	wantNothing(t, answer)
	c.send("T", 0, "y", "properties", properties("TAGS", "mine"))
	p := receive(t, answer)
	require.Equal(t, []string{"y"}, p.bodies)
	require.EqualValues(t, 51, p.next)
	b.noneHeld()
}

func TestHeldPullEndsWithItsTime(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "x")
	const wait = 300 * time.Millisecond
	for _, tt := range []struct {
		rule   string
		queue  int
		offset int64
		more   []string
		code   int32
		next   int64
	}{
		{"nothing came", 0, 1, nil, 19, 1},
		{"nothing ever came", 1, 0, nil, 19, 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			p := receive(t, c.await("G", "T", tt.queue, tt.offset, wait, tt.more...))
			require.NoError(t, p.err)
			require.Equal(t, tt.code, p.code)
			require.Equal(t, tt.next, p.next)
			require.Empty(t, p.bodies)
			require.GreaterOrEqual(t, p.after, wait-time.Millisecond)
			b.noneHeld()
		})
	}
	t.Run("only others' messages came", func(t *testing.T) {
		answer := c.await("G", "T", 0, 1, wait, "subscription", "mine")
		b.waitHeld(1)
		c.send("T", 0, "x", "properties", properties("TAGS", "other"))
		p := receive(t, answer)
		require.Contains(t, []int32{19, 20}, p.code)
		require.EqualValues(t, 2, p.next, "behind what was looked at")
		require.GreaterOrEqual(t, p.after, wait-time.Millisecond)
	})
	for rule, ms := range map[string]string{"no time at all": "0", "less than none": "-5"} {
		t.Run(rule, func(t *testing.T) {
			p := receive(t, c.await("G", "T", 0, 2, 0, "suspendTimeoutMillis", ms))
			require.EqualValues(t, 19, p.code)
		})
	}
	t.Run("more time than there is", func(t *testing.T) {
		answer := c.await("G", "T", 0, b.store.Queue([]byte("T"), 0).Max(), 0, "suspendTimeoutMillis", strconv.FormatInt(1<<63-1, 10))
		b.waitHeld(1)
		require.Greater(t, b.firstDeadline(), monoNanos()+int64(time.Hour), "it does not wrap around")
		c.send("T", 0, "z")
		require.Equal(t, []string{"z"}, receive(t, answer).bodies)
	})
	t.Run("without long polling shortPollingTimeMills counts", func(t *testing.T) {
		b.set("longPollingEnable", "false")
		b.set("shortPollingTimeMills", "1")
		p := receive(t, c.await("G", "T", 0, b.store.Queue([]byte("T"), 0).Max(), time.Hour))
		require.EqualValues(t, 19, p.code)
	})
	b.noneHeld()
}

// Only a pull that finds nothing new waits.
func TestPullThatIsNotHeld(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.send("T", 0, "x")
	for rule, tt := range map[string]struct {
		offset int64
		code   int32
	}{
		"a message is there": {0, 0},
		"behind the end":     {2, 21},
		"before the start":   {-1, 21},
	} {
		t.Run(rule, func(t *testing.T) {
			require.Equal(t, tt.code, receive(t, c.await("G", "T", 0, tt.offset, time.Hour)).code)
		})
	}
	r, _ := c.pull("G", "T", 0, 1)
	require.EqualValues(t, 19, r.Code, "without the flag")
	require.EqualValues(t, 20, receive(t, c.await("G", "T", 0, 0, time.Hour, "subscription", "mine")).code, "all filtered out")
	b.noneHeld()
}

func TestHeldPullsGoWithTheirConnection(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.Reactors = 2 }})
	stays := b.client()
	stays.createTopic("T")
	answer := stays.await("G", "T", 0, 0, time.Hour)
	b.waitHeld(1)
	for range 4 {
		leaves := b.client()
		for i := range 50 {
			leaves.await("G", "T", i%4, 0, time.Hour)
		}
		b.waitHeld(51)
		require.NoError(t, leaves.Close())
		b.waitHeld(1)
	}
	wantNothing(t, answer)
	stays.send("T", 0, "x")
	require.Equal(t, []string{"x"}, receive(t, answer).bodies)
	b.noneHeld()
}

// All who wait on a queue get its message, whichever reactor they belong to.
func TestManyHeldPullsAreWokenAtOnce(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.Reactors = 3 }})
	producer := b.client()
	producer.createTopic("T")
	const conns, each = 9, 20
	var answers []<-chan pulled
	for i := range conns {
		c := b.client()
		for range each {
			answers = append(answers, c.await(fmt.Sprintf("G%d", i), "T", 0, 0, time.Hour))
		}
	}
	b.waitHeld(conns * each)
	producer.send("T", 0, "x")
	for _, a := range answers {
		require.Equal(t, []string{"x"}, receive(t, a).bodies)
	}
	b.noneHeld()
}

// A consumer that pulls again as soon as it is answered gets every message once, in order, without waiting for any time to be over.
func TestWakeUpIsNeverLost(t *testing.T) {
	b := newTestBroker(t, brokerOptions{Change: func(c *config.Broker) { c.Reactors = 2 }})
	producer, consumer := b.client(), b.client()
	producer.createTopic("T")
	const n = 3000
	failed := make(chan error, 1)
	go func() {
		for i := range n {
			_, err := producer.Call(t.Context(), client.Request{Code: remoting.ReqSendMessage, Fields: toSend("T", 0), Body: []byte(strconv.Itoa(i))})
			if err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for next := int64(0); next < n; {
		p := receive(t, consumer.await("G", "T", 0, next, time.Hour))
		require.NoError(t, p.err)
		require.Zero(t, p.code)
		for _, body := range p.bodies {
			require.Equal(t, strconv.FormatInt(next, 10), body)
			next++
		}
		require.Equal(t, next, p.next)
	}
	require.NoError(t, receive(t, failed))
	b.noneHeld()
}

// A held pull is judged again when it wakes: its topic may be gone.
func TestHeldPullOfADeletedTopic(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "x")
	answer := c.await("G", "T", 0, 1, 300*time.Millisecond)
	b.waitHeld(1)
	c.must(remoting.ReqDeleteTopicInBroker, fields{"topic": "T"}, nil)
	require.EqualValues(t, remoting.RespTopicNotExist, receive(t, answer).code)
	// The name again: another queue, which those wait on who come now.
	c.createTopic("T")
	answer = c.await("G", "T", 0, 0, time.Hour)
	b.waitHeld(1)
	c.send("T", 0, "again")
	require.Equal(t, []string{"again"}, receive(t, answer).bodies)
	b.noneHeld()
}

// A broker that ends does not wait for those it holds.
func TestShutdownWithHeldPulls(t *testing.T) {
	b := openTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	answer := c.await("G", "T", 0, 0, time.Hour)
	b.waitHeld(1)
	b.shutdown()
	require.Error(t, receive(t, answer).err)
}
