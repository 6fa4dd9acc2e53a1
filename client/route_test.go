package client

import (
	"encoding/json"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// What a Java 5.5.0 name server answers.
const (
	routeJSON   = `{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"ba","cluster":"DC","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"ba","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":8}]}`
	clusterJSON = `{"brokerAddrTable":{"bb":{"brokerAddrs":{0:"10.0.0.3:10911"},"brokerName":"bb","cluster":"DC"},"ba":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"ba","cluster":"DC"},"other":{"brokerAddrs":{1:"10.0.0.9:10911"},"brokerName":"other","cluster":"X"}},"clusterAddrTable":{"DC":["ba","bb"]}}`
)

func nameServer(t *testing.T, asked *atomic.Int32) string {
	return serve(t, func(c *remoting.Command) []byte {
		asked.Add(1)
		code, remark, body := remoting.RespSuccess, "", ""
		switch {
		case c.Code == remoting.ReqGetBrokerClusterInfo:
			body = clusterJSON
		case c.String("topic") == "T" && c.String("acceptStandardJsonOnly") == "true":
			body = routeJSON
		default:
			code, remark = remoting.RespTopicNotExist, "No topic route info"
		}
		w := remoting.Respond(nil, c, code, remark)
		return w.Finish([]byte(body))
	})
}

func TestRouteIsCachedFor30Seconds(t *testing.T) {
	var asked atomic.Int32
	n, err := NewNameServers([]string{nameServer(t, &asked)}, Options{})
	require.NoError(t, err)
	defer n.Close()
	now := time.Now()
	n.now = func() time.Time { return now }
	for range 3 {
		r, err := n.Route(t.Context(), "T")
		require.NoError(t, err)
		require.Equal(t, []Queues{{Broker: "ba", Read: 4, Write: 8, Perm: 6}}, r.Queues)
		require.Equal(t, "10.0.0.1:10911", r.Broker("ba").Master())
		require.Nil(t, r.Broker("bx"))
	}
	require.Equal(t, int32(1), asked.Load())
	now = now.Add(31 * time.Second)
	_, err = n.Route(t.Context(), "T")
	require.NoError(t, err)
	require.Equal(t, int32(2), asked.Load())
	_, err = n.Route(t.Context(), "unknown")
	var code *CodeError
	require.ErrorAs(t, err, &code)
	require.Equal(t, remoting.RespTopicNotExist, code.Code)
}

func TestClusterWithUnquotedKeys(t *testing.T) {
	var asked atomic.Int32
	n, err := NewNameServers([]string{nameServer(t, &asked)}, Options{})
	require.NoError(t, err)
	defer n.Close()
	c, err := n.Cluster(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"10.0.0.1:10911", "10.0.0.3:10911"}, c.Masters("DC"))
	require.Equal(t, []string{"10.0.0.1:10911", "10.0.0.3:10911"}, c.Masters(""))
	require.Empty(t, c.Masters("nowhere"))
}

func TestNextNameServerWhenOneIsDown(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, down.Close())
	var asked atomic.Int32
	n, err := NewNameServers([]string{down.Addr().String() + ";" + nameServer(t, &asked)}, Options{})
	require.NoError(t, err)
	defer n.Close()
	for range 2 {
		_, err = n.Refresh(t.Context(), "T")
		require.NoError(t, err)
	}
	require.Equal(t, int32(2), asked.Load())

	none, err := NewNameServers([]string{down.Addr().String()}, Options{})
	require.NoError(t, err)
	_, err = none.Route(t.Context(), "T")
	require.ErrorContains(t, err, down.Addr().String())
	_, err = NewNameServers([]string{" ; "}, Options{})
	require.Error(t, err)
}

func TestHeartbeatBody(t *testing.T) {
	got := make(chan []byte, 1)
	addr := serve(t, func(c *remoting.Command) []byte {
		got <- append([]byte(nil), c.Body...)
		return echo(c)
	})
	m := &Member{ClientID: "me", ProducerGroups: []string{"pg"}, Consumers: []Consumer{{Group: "cg", Topics: map[string]string{"T": "a || b"}, Version: 7}}}
	require.NoError(t, dial(t, addr, Options{}).Heartbeat(t.Context(), m))
	var h heartbeat
	require.NoError(t, json.Unmarshal(<-got, &h))
	require.Equal(t, "me", h.ClientID)
	require.Equal(t, "pg", h.Producers[0].Group)
	s := h.Consumers[0].Subscriptions[0]
	require.Equal(t, []string{"a", "b"}, s.Tags)
	require.Equal(t, []int32{97, 98}, s.Codes)
	require.Equal(t, "a || b", s.Text)
	require.Equal(t, int64(7), s.Version)
	all := subscribe("T", "", 1)
	require.Equal(t, "*", all.Text)
	require.Empty(t, all.Tags)
}
