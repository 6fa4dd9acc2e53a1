package broker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

// passedOn is a request that the broker sent to a client, copied.
type passedOn struct {
	code   int32
	fields map[string]string
	body   string
}

// member is a consumer that notes each request of the code and answers it with a body, or closes its connection when body is nil.
func (b *testBroker) member(clientID string, code int32, body []byte) (*testClient, chan passedOn) {
	b.t.Helper()
	requests := make(chan passedOn, 8)
	c := b.dial(client.Options{Handler: func(c *client.Conn, cmd *remoting.Command) {
		if cmd.Code != code {
			return
		}
		p := passedOn{code: cmd.Code, fields: map[string]string{}, body: string(cmd.Body)}
		for _, f := range cmd.Fields {
			p.fields[string(f.Key)] = string(f.Value)
		}
		requests <- p
		if body == nil {
			go c.Close()
			return
		}
		if err := c.Reply(cmd, remoting.RespSuccess, "from "+clientID, nil, body); err != nil {
			b.t.Error(err)
		}
	}})
	c.beat(clientID, "g", 1, map[string]string{"T": "a || b"})
	return c, requests
}

func TestWhoConsumes(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.commitTo("left", "T", 0, 1)
	c.commitTo("g", "T", 0, 1)
	b.member("me", 0, nil)
	require.Equal(t, []string{"g", "left"}, decoded[remoting.GroupList](t, c.ask(remoting.ReqQueryTopicConsumeByWho, fields{"topic": "T"}, nil)).GroupList)
	require.Empty(t, decoded[remoting.GroupList](t, c.ask(remoting.ReqQueryTopicConsumeByWho, fields{"topic": "U"}, nil)).GroupList)
	topics := decoded[remoting.TopicList](t, c.ask(remoting.ReqQueryTopicsByConsumer, fields{"group": "left"}, nil))
	require.Equal(t, remoting.TopicList{BrokerAddr: b.Addr(), TopicList: []string{"T"}}, topics)

	sub := decoded[remoting.QuerySubscriptionBody](t, c.ask(remoting.ReqQuerySubscriptionByConsumer, fields{"group": "g", "topic": "T"}, nil))
	require.Equal(t, "a || b", sub.SubscriptionData.SubString)
	sub = decoded[remoting.QuerySubscriptionBody](t, c.ask(remoting.ReqQuerySubscriptionByConsumer, fields{"group": "left", "topic": "T"}, nil))
	require.Nil(t, sub.SubscriptionData)
}

func TestProducersAreListed(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	require.NoError(t, c.Heartbeat(t.Context(), &client.Member{ClientID: "p1", ProducerGroups: []string{"PG"}}))
	all := decoded[remoting.ProducerTableInfo](t, c.ask(remoting.ReqGetAllProducerInfo, nil, nil)).Data
	require.Len(t, all["PG"], 1)
	require.Equal(t, "p1", all["PG"][0].ClientID)
	require.Equal(t, "/"+c.LocalAddr().String(), all["PG"][0].RemoteIP)
}

func TestRunningInfoIsTheClientsAnswer(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	_, requests := b.member("me", remoting.ReqGetConsumerRunningInfo, []byte("{raw bytes}"))
	r := b.client().must(remoting.ReqGetConsumerRunningInfo, fields{"consumerGroup": "g", "clientId": "me", "jstackEnable": "true"}, nil)
	require.Equal(t, "{raw bytes}", string(r.Body))
	require.Equal(t, "from me", r.Remark)
	require.Equal(t, map[string]string{"consumerGroup": "g", "clientId": "me", "jstackEnable": "true"}, receive(t, requests).fields)
	r = b.client().ask(remoting.ReqGetConsumerRunningInfo, fields{"consumerGroup": "g", "clientId": "you"}, nil)
	require.Equal(t, remoting.RespSystemError, r.Code)
	require.Equal(t, "The Consumer <g> <you> not online", r.Remark)
}

func TestConsumeDirectly(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T", "topicSysFlag", "1")
	c.createGroup("g", nil)
	sent := c.must(remoting.ReqSendMessage, toSend("T", 1), []byte("the body"))
	_, requests := b.member("me", remoting.ReqConsumeMessageDirectly, []byte(`{"consumeResult":"CR_SUCCESS"}`))
	f := fields{"consumerGroup": "g", "clientId": "me", "msgId": sent.Fields["msgId"], "topic": "T"}
	r := c.must(remoting.ReqConsumeMessageDirectly, f, nil)
	require.JSONEq(t, `{"consumeResult":"CR_SUCCESS"}`, string(r.Body))
	got := receive(t, requests)
	require.Equal(t, []string{"the body"}, bodiesOf(recordsOf(t, []byte(got.body))))
	for key, want := range map[string]string{"brokerName": "broker-a", "topicSysFlag": "1", "groupSysFlag": "0", "consumerGroup": "g"} {
		require.Equal(t, want, got.fields[key], key)
	}
	for rule, id := range map[string]string{"no id": "x", "no record there": sent.Fields["msgId"][:30] + "77"} {
		require.Equal(t, remoting.RespSystemError, c.ask(remoting.ReqConsumeMessageDirectly, f.with("msgId", id), nil).Code, rule)
	}
}

// A client that goes away while it is asked must not keep whoever asks waiting for the time limit.
func TestAClientThatLeavesEndsTheQuestion(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	_, requests := b.member("me", remoting.ReqGetConsumerRunningInfo, nil)
	r := b.client().ask(remoting.ReqGetConsumerRunningInfo, fields{"consumerGroup": "g", "clientId": "me"}, nil)
	require.Equal(t, remoting.RespConsumerNotOnline, r.Code, r.Remark)
	receive(t, requests)
	eventually(t, "nothing runs any more", func() bool { return b.calls.running.Load() == 0 })
}

func TestConsumerStatus(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	ask := func(addr string) *client.Response {
		return c.ask(remoting.ReqInvokeBrokerToGetConsumerStatus, fields{"topic": "T", "group": "g", "clientAddr": addr}, nil)
	}
	require.Equal(t, remoting.RespSystemError, ask("").Code)
	mq := remoting.MessageQueue{BrokerName: "broker-a", QueueID: 1, Topic: "T"}
	status := func(offset int64) []byte {
		return remoting.EncodeBody(remoting.ConsumerStatusBody{MessageQueueTable: map[remoting.MessageQueue]int64{mq: offset}})
	}
	_, asked := b.member("one", remoting.ReqGetConsumerStatusFromClient, status(1))
	b.member("two", remoting.ReqGetConsumerStatusFromClient, status(2))
	b.member("liar", remoting.ReqGetConsumerStatusFromClient, []byte("{"))
	want := map[string]map[remoting.MessageQueue]int64{"one": {mq: 1}, "two": {mq: 2}}
	require.Equal(t, want, decoded[remoting.ConsumerStatusBody](t, ask("")).ConsumerTable)
	require.Equal(t, map[string]string{"topic": "T", "group": "g"}, receive(t, asked).fields)
	delete(want, "one")
	require.Equal(t, want, decoded[remoting.ConsumerStatusBody](t, ask("two")).ConsumerTable)
}

func TestRequestsThatWaitForClientsAreBounded(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	b.member("me", remoting.ReqGetConsumerRunningInfo, []byte("x"))
	c, f := b.client(), fields{"consumerGroup": "g", "clientId": "me"}
	b.calls.running.Add(maxLater)
	require.Equal(t, remoting.RespSystemBusy, c.ask(remoting.ReqGetConsumerRunningInfo, f, nil).Code)
	b.calls.running.Add(-1)
	c.must(remoting.ReqGetConsumerRunningInfo, f, nil)
	b.calls.running.Add(1 - maxLater)
}
