package broker

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// runtimeKeys are what the original answers to GET_BROKER_RUNTIME_INFO, each with the form that tools cut it by.
var runtimeKeys = map[string]string{
	"brokerVersionDesc": `V5_5_0`, "brokerActive": `true`,
	"putTps": threeForm, "getTotalTps": threeForm, "getFoundTps": threeForm, "getMissTps": threeForm, "getTransferredTps": threeForm,
	"msgPutTotalTodayNow": `\d+`, "msgPutTotalTodayMorning": `\d+`, "msgPutTotalYesterdayMorning": `\d+`,
	"msgGetTotalTodayNow": `\d+`, "msgGetTotalTodayMorning": `\d+`, "msgGetTotalYesterdayMorning": `\d+`,
	"sendThreadPoolQueueSize": `\d+`, "sendThreadPoolQueueCapacity": `\d+`, "sendThreadPoolQueueHeadWaitTimeMills": `\d+`,
	"pullThreadPoolQueueSize": `\d+`, "pullThreadPoolQueueCapacity": `\d+`, "pullThreadPoolQueueHeadWaitTimeMills": `\d+`,
	"litePullThreadPoolQueueSize": `\d+`, "litePullThreadPoolQueueCapacity": `\d+`, "litePullThreadPoolQueueHeadWaitTimeMills": `\d+`,
	"queryThreadPoolQueueSize": `\d+`, "queryThreadPoolQueueCapacity": `\d+`, "queryThreadPoolQueueHeadWaitTimeMills": `\d+`,
	"ackThreadPoolQueueSize": `\d+`, "ackThreadPoolQueueCapacity": `\d+`, "ackThreadPoolQueueHeadWaitTimeMills": `\d+`,
	"EndTransactionQueueSize": `\d+`, "EndTransactionThreadPoolQueueCapacity": `\d+`,
	"pageCacheLockTimeMills": `\d+`, "earliestMessageTimeStamp": `-?\d+`, "startAcceptSendRequestTimeStamp": `\d+`,
	"dispatchBehindBytes": `\d+`, "dispatchMaxBuffer": `\d+`, "remainHowManyDataToFlush": sizeForm, "remainTransientStoreBufferNumbs": `\d+`,
	"commitLogMinOffset": `\d+`, "commitLogMaxOffset": `\d+`, "commitLogDiskRatio": `0\.\d+`, "consumeQueueDiskRatio": `0\.\d+`,
	"commitLogDirCapacity": `Total : ` + sizeForm + `, Free : ` + sizeForm + `\.`,
	"timerReadBehind":      `\d+`, "timerOffsetBehind": `\d+`, "timerCongestNum": `\d+`, "timerEnqueueTps": `\d+\.\d+`, "timerDequeueTps": `\d+\.\d+`,
	"bootTimestamp": `\d{13}`, "runtime": `\[ \d+ days, \d+ hours, \d+ minutes, \d+ seconds \]`,
	"putMessageTimesTotal": `\d+`, "putMessageSizeTotal": `\d+`, "putMessageAverageSize": `\d+\.\d+`, "putMessageFailedTimes": `\d+`,
	"putMessageDistributeTime": `\[<=0ms\]:\d+ (\[.*\]:\d+ )+`, "putMessageEntireTimeMax": `\d+`, "getMessageEntireTimeMax": `\d+`,
	"putLatency99": `\d+\.\d\d`, "putLatency999": `\d+\.\d\d`,
}

const (
	threeForm = `\d+\.\d+(E-?\d+)? \d+\.\d+(E-?\d+)? \d+\.\d+(E-?\d+)?`
	sizeForm  = `(\d+|\d+\.\d [KMGTPE]i) ?B`
)

func TestRuntimeInfo(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	ask := func() map[string]string {
		return decoded[remoting.KVTable](t, c.ask(remoting.ReqGetBrokerRuntimeInfo, nil, nil)).Table
	}
	require.Equal(t, "-1", ask()["earliestMessageTimeStamp"], "an empty log")
	c.createTopic("T")
	for range 3 {
		c.send("T", 0, "0123456789")
	}
	_, got := c.pull("g", "T", 0, 0)
	table := ask()
	for key, form := range runtimeKeys {
		require.Regexp(t, regexp.MustCompile("^"+form+"$"), table[key], key)
	}
	end := b.store.Log().Published()
	for key, want := range map[string]int64{
		"putMessageTimesTotal": 3, "putMessageSizeTotal": end, "commitLogMaxOffset": end, "commitLogMinOffset": 0, "msgPutTotalTodayNow": 3,
		"msgGetTotalTodayNow": 3, "msgPutTotalTodayMorning": 0, "earliestMessageTimeStamp": got[0].StoreTimestamp, "dispatchBehindBytes": 0,
	} {
		require.Equal(t, strconv.FormatInt(want, 10), table[key], key)
	}
	require.Equal(t, table["commitLogDiskRatio"], table["commitLogDiskRatio_"+b.cfg.Load().StorePathCommitLog])

	c.send("T", 0, "later", "properties", properties("DELAY", "1"))
	eventually(t, "the delayed message is delivered", func() bool {
		return strings.HasPrefix(ask()["scheduleMessageOffset_1"], "1,1")
	})
}

func TestRuntimeInfoHasTps(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	// The ticks are the test's: ten seconds with twenty messages.
	now := steadyNow() + time.Hour
	b.stats.tick(now, time.Now())
	for range 20 {
		c.send("T", 0, "x")
	}
	b.stats.tick(now+10*time.Second, time.Now())
	table := decoded[remoting.KVTable](t, c.ask(remoting.ReqGetBrokerRuntimeInfo, nil, nil)).Table
	require.NotEqual(t, "0.0 0.0 0.0", table["putTps"])
	data := decoded[remoting.BrokerStatsData](t, c.ask(remoting.ReqViewBrokerStatsData, fields{"statsName": "TOPIC_PUT_NUMS", "statsKey": "T"}, nil))
	require.Equal(t, int64(20), data.StatsMinute.Sum)
	r := c.ask(remoting.ReqViewBrokerStatsData, fields{"statsName": "TOPIC_PUT_NUMS", "statsKey": "none"}, nil)
	require.Equal(t, remoting.RespSystemError, r.Code)
	require.Equal(t, "The stats <TOPIC_PUT_NUMS> <none> not exist", r.Remark)
}

func TestByteText(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 252 << 30: "252.0 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		require.Equal(t, want, byteText(n))
	}
}

func TestHAStatusOfAMasterAlone(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.send("T", 0, "x")
	r := c.ask(remoting.ReqGetBrokerHAStatus, nil, nil)
	require.Equal(t, remoting.HARuntimeInfo{Master: true, MasterCommitLogMaxOffset: b.store.Log().Published(),
		HaConnectionInfo: []remoting.HAConnectionRuntimeInfo{}}, decoded[remoting.HARuntimeInfo](t, r))
	require.Contains(t, string(r.Body), `"haConnectionInfo":[]`)
}

func TestEpochCacheNeedsAController(t *testing.T) {
	r := newTestBroker(t, brokerOptions{}).client().ask(remoting.ReqGetBrokerEpochCache, nil, nil)
	require.Equal(t, remoting.RespSystemError, r.Code)
	require.Equal(t, "this request only for controllerMode ", r.Remark)
}
