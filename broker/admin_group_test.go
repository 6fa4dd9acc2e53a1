package broker

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

func TestGroupListIsSetWholeOrNotAtAll(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	list := func(names ...string) []byte {
		var body remoting.SubscriptionGroupList
		for _, name := range names {
			g := remoting.NewSubscriptionGroupConfig(name)
			g.RetryMaxTimes = 3
			body.GroupConfigList = append(body.GroupConfigList, g)
		}
		return remoting.EncodeBody(body)
	}
	require.Equal(t, remoting.RespInvalidParameter, c.ask(remoting.ReqUpdateAndCreateSubscriptiongroupList, nil, list("g1", "bad name")).Code)
	require.Equal(t, remoting.RespSubscriptionGroupNotExist, c.ask(remoting.ReqGetSubscriptiongroupConfig, fields{"group": "g1"}, nil).Code)
	c.must(remoting.ReqUpdateAndCreateSubscriptiongroupList, nil, list("g1", "g2"))

	r := c.ask(remoting.ReqGetAllSubscriptiongroupConfig, nil, nil)
	all := decoded[remoting.SubscriptionGroupTable](t, r)
	require.Equal(t, int32(3), all.SubscriptionGroupTable["g2"].RetryMaxTimes)
	require.Equal(t, int64(len(all.SubscriptionGroupTable)), intField(t, r, "totalGroupNum"))
	last := c.ask(remoting.ReqGetAllSubscriptiongroupConfig, fields{"dataVersion": string(remoting.EncodeBody(all.DataVersion)),
		"groupSeq": strconv.Itoa(len(all.SubscriptionGroupTable) - 2), "maxGroupNum": "50"}, nil)
	page := decoded[remoting.SubscriptionGroupTable](t, last).SubscriptionGroupTable
	require.Len(t, page, 2)
	require.Contains(t, page, "g2")
}

func TestForbiddenGroup(t *testing.T) {
	c := newTestBroker(t, brokerOptions{}).client()
	readable := func(more ...string) bool {
		f := fields{"group": "g", "topic": "T"}
		return *decoded[remoting.GroupForbidden](t, c.ask(remoting.ReqUpdateAndGetGroupForbidden, f.with(more...), nil)).Readable
	}
	require.True(t, readable())
	require.False(t, readable("readable", "false"))
	require.False(t, readable(), "asking changes nothing")
	c.createTopic("T")
	c.createGroup("g", nil)
	c.beat("me", "g", 1, map[string]string{"T": "*"})
	r, _ := c.pull("g", "T", 0, 0, "sysFlag", "0", "subVersion", "1", "subscription", "")
	require.Equal(t, remoting.RespNoPermission, r.Code)
	require.True(t, readable("readable", "true"))
	r, _ = c.pull("g", "T", 0, 0, "sysFlag", "0", "subVersion", "1", "subscription", "")
	require.NotEqual(t, remoting.RespNoPermission, r.Code)
	require.Equal(t, remoting.RespInvalidParameter,
		c.ask(remoting.ReqUpdateAndGetGroupForbidden, fields{"group": "no good", "topic": "T", "readable": "false"}, nil).Code)
}
