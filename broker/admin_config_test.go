package broker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

func TestUpdateBrokerConfig(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	text := func() string { return string(c.must(remoting.ReqGetBrokerConfig, nil, nil).Body) }
	c.must(remoting.ReqUpdateBrokerConfig, nil, []byte("maxMessageSize=1000\ndefaultTopicQueueNums = 5\n"))
	require.Contains(t, text(), "maxMessageSize=1000\n")
	require.Contains(t, text(), "defaultTopicQueueNums=5\n")
	require.Equal(t, remoting.RespMessageIllegal, c.ask(remoting.ReqSendMessage, toSend("T", 0), make([]byte, 1001)).Code)

	before := text()
	for body, code := range map[string]int32{
		"maxMessageSize=2000\nconfigBlackList=x\n":  remoting.RespNoPermission,
		"maxMessageSize=2000\nbrokerConfigPath=x\n": remoting.RespNoPermission,
		"maxMessageSize=2000\nlistenPort=1\n":       remoting.RespNoPermission, // at a restart only
		"maxMessageSize=2000\nnoSuchKey=1\n":        remoting.RespSystemError,
		"maxMessageSize=-1\n":                       remoting.RespSystemError,
		"maxMessageSize=\\u00\n":                    remoting.RespSystemError,
	} {
		r := c.ask(remoting.ReqUpdateBrokerConfig, nil, []byte(body))
		require.Equal(t, code, r.Code, body)
		require.NotEmpty(t, r.Remark, body)
		require.Equal(t, before, text(), "%s: all or nothing", body)
	}
	require.Equal(t, remoting.RespSystemError, c.ask(remoting.ReqUpdateBrokerConfig, nil, []byte(strings.Repeat("#", config.MaxPropertiesSize+1))).Code)
}

func TestUpdateBrokerConfigIsKept(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "broker.conf")
	lines := "# ours\nbrokerName=broker-a\nbrokerClusterName=TestCluster\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort=0\nfastListenPort=-1\n" +
		"metricsListen=\nmappedFileSizeCommitLog=1048576\nmaxHashSlotNum=100\nmaxIndexNum=4000\nstorePathRootDir=" + filepath.Join(dir, "store") + "\n"
	require.NoError(t, os.WriteFile(file, []byte(lines), 0o600))
	live, err := config.LoadBroker(config.Source{File: file, Log: quiet()})
	require.NoError(t, err)
	raw, err := Open(live, Options{})
	require.NoError(t, err)
	raw.Start()
	b := &testBroker{Broker: raw, t: t, cfg: live}
	t.Cleanup(b.shutdown)
	b.client().must(remoting.ReqUpdateBrokerConfig, nil, []byte("fileReservedTime=71\n"))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, lines+"fileReservedTime=71\n", string(text))
}

// brokerPermission masks every topic's permission, so the name servers need all of them anew: they compare the data version.
func TestBrokerPermissionMakesANewDataVersion(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	c := b.client()
	version := func() int64 {
		return decoded[remoting.TopicConfigAndMappings](t, c.ask(remoting.ReqGetAllTopicConfig, nil, nil)).DataVersion.Counter
	}
	before := version()
	c.must(remoting.ReqUpdateBrokerConfig, nil, []byte("brokerPermission=2\n"))
	require.Greater(t, version(), before)
	r, _ := c.pull("g", "T", 0, 0)
	require.Equal(t, remoting.RespNoPermission, r.Code)
	before = version()
	c.must(remoting.ReqUpdateBrokerConfig, nil, []byte("brokerPermission=2\n"))
	require.Equal(t, before, version(), "what is already so is no change")
}

// Old segments go when a request shortens fileReservedTime and another asks for retention now; what is derived of them follows.
func TestRetentionByRequest(t *testing.T) {
	// The broker's clock is two hours ahead of the files'.
	later := func() time.Time { return time.Now().Add(2 * time.Hour) }
	b := newTestBroker(t, brokerOptions{Now: later, Change: func(c *config.Broker) {
		c.CleanResourceInterval, c.DeleteCommitLogFilesInterval = 100, 1
		c.DeleteWhen = later().Add(12 * time.Hour).Format("15")
	}})
	c := b.client()
	c.createTopic("T")
	for range 25 {
		c.send("T", 1, strings.Repeat("x", 100<<10))
	}
	log := b.store.Log()
	require.NoError(t, log.WaitFlushed(t.Context(), log.Published()), "what is not on the device stays")
	first := log.Segments()[0].Name
	require.Zero(t, log.MinOffset())

	c.must(remoting.ReqUpdateBrokerConfig, nil, []byte("fileReservedTime=1\n"))
	c.must(remoting.ReqDeleteExpiredCommitlog, nil, nil)
	eventually(t, "the old segment is deleted", func() bool { return log.MinOffset() > 0 })
	eventually(t, "its file is removed", func() bool { _, err := os.Stat(first); return os.IsNotExist(err) })
	c.must(remoting.ReqCleanExpiredConsumequeue, nil, nil)
	q := decoded[remoting.QueryConsumeQueueBody](t, c.ask(remoting.ReqQueryConsumeQueue, fields{"topic": "T", "queueId": "1", "index": "0", "count": "9"}, nil))
	require.Positive(t, q.MinQueueIndex)
	require.Equal(t, int64(25), q.MaxQueueIndex)
	require.Empty(t, q.QueueData)
}
