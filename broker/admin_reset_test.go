package broker

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

func toReset(more ...string) fields {
	return fields{"topic": "T", "group": "g", "timestamp": "-1", "isForce": "true"}.with(more...)
}

func TestResetOffset(t *testing.T) {
	_, c, _, times := consumed(t)
	mq := func(id int32) remoting.MessageQueue {
		return remoting.MessageQueue{BrokerName: "broker-a", QueueID: id, Topic: "T"}
	}
	at := func(millis int64) string { return strconv.FormatInt(millis, 10) }
	cases := []struct {
		rule string
		f    fields
		want map[remoting.MessageQueue]int64
	}{
		{"a negative time is the end", toReset(), map[remoting.MessageQueue]int64{mq(0): 0, mq(1): 3, mq(2): 0, mq(3): 0}},
		{"a time is the first message from then on", toReset("timestamp", at(times[1])), map[remoting.MessageQueue]int64{mq(0): 0, mq(1): 1, mq(2): 0, mq(3): 0}},
		{"one queue", toReset("timestamp", at(times[0]), "queueId", "1"), map[remoting.MessageQueue]int64{mq(1): 0}},
		{"an offset", toReset("queueId", "1", "offset", "2"), map[remoting.MessageQueue]int64{mq(1): 2}},
		{"an offset needs a queue", toReset("offset", "2"), map[remoting.MessageQueue]int64{mq(0): 0, mq(1): 3, mq(2): 0, mq(3): 0}},
	}
	for _, tc := range cases {
		got := decoded[remoting.ResetOffsetBody](t, c.ask(remoting.ReqInvokeBrokerToResetOffset, tc.f, nil)).OffsetTable
		require.Equal(t, tc.want, got, tc.rule)
		r, _ := c.pull("g", "T", 1, 0)
		require.Equal(t, remoting.RespPullOffsetMoved, r.Code, tc.rule)
		require.Equal(t, tc.want[mq(1)], intField(t, r, "nextBeginOffset"), tc.rule)
	}
}

func TestResetOffsetIsRefused(t *testing.T) {
	_, c, _, _ := consumed(t)
	for rule, tc := range map[string]struct {
		f    fields
		code int32
	}{
		"an unknown topic":          {toReset("topic", "none"), remoting.RespTopicNotExist},
		"an unknown group":          {toReset("group", "none"), remoting.RespSubscriptionGroupNotExist},
		"an offset behind the end":  {toReset("queueId", "1", "offset", "5"), remoting.RespSystemError},
		"an offset below zero":      {toReset("queueId", "1", "offset", "-2"), remoting.RespSystemError},
		"a queue out of range":      {toReset("queueId", "65536"), remoting.RespInvalidParameter},
		"a time that is no number":  {toReset("timestamp", "now"), remoting.RespSystemError},
		"a queue that is no number": {toReset("queueId", "4294967296"), remoting.RespInvalidParameter},
	} {
		require.Equal(t, tc.code, c.ask(remoting.ReqInvokeBrokerToResetOffset, tc.f, nil).Code, rule)
	}
	r, _ := c.pull("g", "T", 1, 2)
	require.Equal(t, remoting.RespSuccess, r.Code, "nothing was reset")
}

func TestResetOffsetInTheClients(t *testing.T) {
	b, c, _, times := consumed(t)
	b.set("useServerSideResetOffset", "false")
	for id := range 4 {
		if id != 1 {
			c.commitTo("g", "T", id, 0)
		}
	}
	r := c.ask(remoting.ReqInvokeBrokerToResetOffset, toReset(), nil)
	require.Equal(t, remoting.RespConsumerNotOnline, r.Code)

	type told struct {
		fields map[string]string
		table  map[remoting.MessageQueue]int64
	}
	requests := make(chan told, 1)
	member := b.dial(client.Options{Handler: func(_ *client.Conn, cmd *remoting.Command) {
		if cmd.Code != remoting.ReqResetConsumerClientOffset {
			return
		}
		var body remoting.ResetOffsetBody
		if err := remoting.DecodeBody(cmd.Body, &body); err != nil {
			t.Error(err)
		}
		requests <- told{map[string]string{"topic": cmd.String("topic"), "group": cmd.String("group")}, body.OffsetTable}
	}})
	member.beat("me", "g", 1, map[string]string{"T": "*"})
	mq := remoting.MessageQueue{BrokerName: "broker-a", QueueID: 1, Topic: "T"}
	for force, want := range map[string]int64{"true": 3, "false": 2} {
		decoded[remoting.ResetOffsetBody](t, c.ask(remoting.ReqInvokeBrokerToResetOffset, toReset("isForce", force), nil))
		got := receive(t, requests)
		require.Equal(t, want, got.table[mq], "isForce %s", force)
		require.Equal(t, map[string]string{"topic": "T", "group": "g"}, got.fields)
	}
	decoded[remoting.ResetOffsetBody](t, c.ask(remoting.ReqInvokeBrokerToResetOffset,
		toReset("isForce", "false", "timestamp", strconv.FormatInt(times[0], 10)), nil))
	require.Equal(t, int64(0), receive(t, requests).table[mq])
}
