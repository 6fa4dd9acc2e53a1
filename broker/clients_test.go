package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

// members is what GET_CONSUMER_LIST_BY_GROUP tells.
func (c *testClient) members(group string) []string {
	c.t.Helper()
	r := c.ask(remoting.ReqGetConsumerListByGroup, fields{"consumerGroup": group}, nil)
	if r.Code == remoting.RespSystemError {
		require.Equal(c.t, "no consumer for this group, "+group, r.Remark)
		return nil
	}
	require.NoError(c.t, r.Err())
	var list struct{ ConsumerIDList []string }
	require.NoError(c.t, json.Unmarshal(r.Body, &list))
	slices.Sort(list.ConsumerIDList)
	return list.ConsumerIDList
}

// told collects the groups of which a client is told that members came or went.
func (b *testBroker) told() (*testClient, <-chan string) {
	groups := make(chan string, 100)
	c := b.dial(client.Options{Handler: func(_ *client.Conn, request *remoting.Command) {
		if request.Code == remoting.ReqNotifyConsumerIDsChanged && request.IsOneway() {
			groups <- request.String("consumerGroup")
		}
	}})
	return c, groups
}

func TestMembersOfAGroup(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	a, toldA := b.told()
	z, toldZ := b.told()
	require.Nil(t, a.members("G"))
	subscribed := map[string]string{"T": "*"}
	a.beat("a", "G", 1, subscribed)
	require.Equal(t, "G", receive(t, toldA), "itself, too")
	require.Equal(t, []string{"a"}, a.members("G"))
	z.beat("z", "G", 1, subscribed)
	require.Equal(t, "G", receive(t, toldA))
	require.Equal(t, "G", receive(t, toldZ))
	require.Equal(t, []string{"a", "z"}, a.members("G"))
	for range 3 {
		z.beat("z", "G", 1, subscribed)
	}
	require.Empty(t, toldA, "the same heartbeat again is no news")
	require.NotNil(t, b.topics.find("%RETRY%G"), "a heartbeat makes the retry topic")
	require.NotNil(t, b.groups.find("G"), "and the group")

	z.must(remoting.ReqUnregisterClient, fields{"clientID": "z", "consumerGroup": "G"}, nil)
	require.Equal(t, "G", receive(t, toldA))
	require.Equal(t, []string{"a"}, a.members("G"))
	z.beat("z", "G", 1, subscribed)
	require.Equal(t, "G", receive(t, toldA))
	require.NoError(t, z.Close())
	require.Equal(t, "G", receive(t, toldA), "a connection that ends takes its member along")
	require.Equal(t, []string{"a"}, a.members("G"))

	quiet, _ := b.told()
	a.createGroup("silent", func(g *remoting.SubscriptionGroupConfig) { g.NotifyConsumerIDsChangedEnable = false })
	a.beat("a", "silent", 1, subscribed)
	quiet.beat("q", "silent", 1, subscribed)
	a.beat("a", "loud", 1, subscribed)
	require.Equal(t, "loud", receive(t, toldA), "silent groups are told nothing")
}

// A client that leaves while its heartbeat is being handled does not stay a member.
func TestHeartbeatOfAConnectionThatIsGone(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	watcher := b.client()
	for i := range 200 {
		raw := b.raw()
		body := fmt.Sprintf(`{"clientID":"c%d","producerDataSet":[{"groupName":"P"}],"consumerDataSet":[{"groupName":"G","consumeType":"CONSUME_PASSIVELY",`+
			`"messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}]}`, i)
		raw.write(frame(remoting.SerializeJSON, remoting.ReqHeartBeat, 1, 0, nil, []byte(body)))
		require.NoError(t, raw.Close())
	}
	eventually(t, "all connections are gone", func() bool { return b.server.Stats().Conns == 1 })
	eventually(t, "all requests are done", func() bool { return b.lanes[laneControl].Waiting() == 0 })
	require.Nil(t, watcher.members("G"))
	b.clients.mu.Lock()
	defer b.clients.mu.Unlock()
	require.Empty(t, b.clients.conns)
	require.Empty(t, b.clients.producers)
}

func TestHeartbeatIsRefused(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	for rule, body := range map[string]string{
		"no JSON":               `{"clientID":`,
		"nothing":               ``,
		"without a client id":   `{"consumerDataSet":[{"groupName":"G"}]}`,
		"illegal group":         `{"clientID":"c","consumerDataSet":[{"groupName":"a.b"}]}`,
		"group without a name":  `{"clientID":"c","consumerDataSet":[{}]}`,
		"another kind of value": `{"clientID":{"a":1},"consumerDataSet":7}`,
	} {
		t.Run(rule, func(t *testing.T) {
			r := c.ask(remoting.ReqHeartBeat, nil, []byte(body))
			require.NotZero(t, r.Code)
			require.NotEmpty(t, r.Remark)
		})
	}
	require.Nil(t, c.members("G"))
	c.beat("c", "G", 1, nil)
	require.Equal(t, []string{"c"}, c.members("G"), "the connection still serves")
}

func TestLocksOfQueues(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	queue := func(id int) string { return fmt.Sprintf(`{"brokerName":"broker-a","queueId":%d,"topic":"T"}`, id) }
	request := func(code int32, clientID string, ids ...int) *client.Response {
		body := `{"clientId":"` + clientID + `","consumerGroup":"G","mqSet":[`
		for i, id := range ids {
			if i > 0 {
				body += ","
			}
			body += queue(id)
		}
		return c.must(code, nil, []byte(body+"]}"))
	}
	lock := func(clientID string, ids ...int) (granted []int32) {
		var result remoting.LockBatchResult
		require.NoError(t, remoting.DecodeBody(request(remoting.ReqLockBatchMQ, clientID, ids...).Body, &result))
		for _, q := range result.LockOKMQSet {
			require.Equal(t, [2]string{"broker-a", "T"}, [2]string{q.BrokerName, q.Topic})
			granted = append(granted, q.QueueID)
		}
		slices.Sort(granted)
		return granted
	}
	unlock := func(clientID string, ids ...int) { request(remoting.ReqUnlockBatchMQ, clientID, ids...) }
	require.Equal(t, []int32{0, 1}, lock("a", 0, 1))
	require.Equal(t, []int32{0, 1}, lock("a", 0, 1), "again")
	require.Equal(t, []int32{2}, lock("b", 0, 1, 2), "what is free")
	unlock("b", 0, 1)
	require.Empty(t, lock("b", 0, 1), "nobody unlocks for another")
	unlock("a", 0)
	require.Equal(t, []int32{0}, lock("b", 0, 1))
	require.Empty(t, lock("b"))
	// Time goes on: the broker's own clock for leases is the argument of its tables.
	b.locks.mu.Lock()
	for _, g := range b.locks.groups {
		for _, l := range g.queues {
			l.renewed -= queueLockLife + time.Second
		}
	}
	b.locks.mu.Unlock()
	require.Equal(t, []int32{0, 1, 2}, lock("c", 0, 1, 2), "those expired that were not renewed")
	for _, code := range []int32{remoting.ReqLockBatchMQ, remoting.ReqUnlockBatchMQ} {
		require.NotZero(t, c.ask(code, nil, []byte("[")).Code)
	}
}

// A client without heartbeats is forgotten, and its connection closed; the others are told.
func TestSilentClientsExpire(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	alive, told := b.told()
	silent := b.client()
	alive.beat("alive", "G", 1, nil)
	silent.beat("silent", "G", 1, nil)
	for range 2 {
		require.Equal(t, "G", receive(t, told))
	}
	b.clients.mu.Lock()
	for _, ch := range b.clients.consumers.find("G").members {
		if ch.clientID == "silent" {
			ch.seen -= time.Hour
		}
	}
	b.clients.mu.Unlock()
	b.expireClients()
	require.Equal(t, "G", receive(t, told))
	require.Equal(t, []string{"alive"}, alive.members("G"))
	select {
	case <-silent.Done():
	case <-time.After(patience):
		t.Fatal("the connection of a client that expired stays open")
	}
}

// Requests that this broker does not know are answered as RocketMQ does, and the connection goes on.
func TestUnknownRequests(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		c := b.dial(client.Options{Serialize: serialize})
		for _, code := range []int32{0, 1, 9999, 32767, -1} {
			r := c.ask(code, fields{"a": "b"}, []byte("body"))
			require.EqualValues(t, remoting.RespRequestCodeNotSupported, r.Code)
			require.Equal(t, fmt.Sprintf(" request type %d not supported", code), r.Remark)
		}
		c.send(fmt.Sprintf("T%d", serialize), 0, "x")
	}
}

// Answers to requests of the broker that nobody waits for are dropped.
func TestAnswersThatNobodyAskedFor(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	raw := b.raw()
	for i := range int32(100) {
		w := remoting.Respond(nil, &remoting.Command{Opaque: i}, 0, "")
		raw.write(w.Finish([]byte("lie")))
	}
	raw.write(frame(remoting.SerializeJSON, remoting.ReqGetMaxOffset, 5, 0, ofQueue("T", 0), nil))
	require.EqualValues(t, 5, raw.read().Opaque)
}

func TestClientIsAskedForItsState(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	asked := b.dial(client.Options{Handler: func(c *client.Conn, request *remoting.Command) {
		_ = c.Reply(request, 0, "", nil, []byte(request.String("consumerGroup")+" "+request.String("clientId")))
	}})
	tool := b.client()
	asked.beat("me", "G", 1, nil)
	r := tool.must(remoting.ReqGetConsumerRunningInfo, fields{"consumerGroup": "G", "clientId": "me", "jstackEnable": "false"}, nil)
	require.Equal(t, "G me", string(r.Body))
	r = tool.ask(remoting.ReqGetConsumerRunningInfo, fields{"consumerGroup": "G", "clientId": "you"}, nil)
	require.EqualValues(t, remoting.RespSystemError, r.Code)
	require.Contains(t, r.Remark, "The Consumer <G> <you> not online")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := tool.Invoke(ctx, client.Request{Code: remoting.ReqGetConsumerRunningInfo, Fields: fields{"consumerGroup": "none", "clientId": "you"}})
	require.NoError(t, err)
}
