package nameserver

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// tables is a server without sockets, on a clock that the test drives.
type tables struct {
	*Server
	t     *testing.T
	clock time.Duration
}

func newTestTables(t *testing.T, change func(c *config.NameServer)) *tables {
	t.Helper()
	c := config.DefaultNameServer()
	c.KvConfigPath = "ns/kvConfig.json"
	if change != nil {
		change(c)
	}
	tb := &tables{t: t, clock: time.Hour}
	var err error
	tb.Server, err = newTables(Options{
		Config: config.NewLiveNameServer(c), FS: faultfs.New(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Duration { return tb.clock },
	})
	require.NoError(t, err)
	return tb
}

var testPeer = &peer{addr: netip.MustParseAddrPort("127.0.0.1:5")}

// ask sends a request to its handler as a 5.5.0 client would.
func (tb *tables) ask(code int32, fields map[string]string, body []byte) reply {
	return tb.askAs(testPeer, remoting.Version, code, fields, body)
}

func (tb *tables) askAs(p *peer, version, code int32, fields map[string]string, body []byte) reply {
	tb.t.Helper()
	cmd := remoting.Command{Code: code, Version: version, Body: body}
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		cmd.Fields = append(cmd.Fields, remoting.Field{Key: []byte(k), Value: []byte(fields[k])})
	}
	return tb.handleRequest(&request{&cmd, p})
}

func (a reply) field(key string) string {
	for _, f := range a.fields {
		if f.key == key {
			return f.value
		}
	}
	return ""
}

type fakeBroker struct {
	name, addr string
	id         int
	state      int64 // of the data version
	counter    int64
	topics     []string
	more       map[string]string // header fields
	peer       *peer
}

func (b *fakeBroker) fields() map[string]string {
	f := map[string]string{
		"brokerName": b.name, "brokerAddr": b.addr, "clusterName": "DC", "brokerId": fmt.Sprint(b.id), "haServerAddr": "ha-" + b.addr,
	}
	maps.Copy(f, b.more)
	return f
}

func (b *fakeBroker) body() *remoting.RegisterBrokerBody {
	table := make(map[string]remoting.TopicConfig)
	for _, name := range b.topics {
		t := remoting.NewTopicConfig(name)
		t.ReadQueueNums, t.WriteQueueNums = 4, 4
		table[name] = t
	}
	return &remoting.RegisterBrokerBody{Topics: remoting.TopicConfigAndMappings{
		DataVersion: remoting.DataVersion{StateVersion: b.state, Counter: b.counter, Timestamp: 1}, TopicConfigTable: table,
	}}
}

func (tb *tables) register(b *fakeBroker) reply {
	tb.t.Helper()
	p := b.peer
	if p == nil {
		p = testPeer
	}
	return tb.askAs(p, remoting.Version, remoting.ReqRegisterBroker, b.fields(), b.body().Encode())
}

func (tb *tables) mustRegister(b *fakeBroker) reply {
	tb.t.Helper()
	a := tb.register(b)
	require.Equal(tb.t, remoting.RespSuccess, a.code, a.remark)
	return a
}

// route asks for a topic; nil when it is unknown.
func (tb *tables) route(topic string) *remoting.TopicRouteData {
	tb.t.Helper()
	a := tb.ask(remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": topic}, nil)
	if a.code == remoting.RespTopicNotExist {
		return nil
	}
	require.Equal(tb.t, remoting.RespSuccess, a.code, a.remark)
	var data remoting.TopicRouteData
	require.NoError(tb.t, json.Unmarshal(a.body, &data))
	return &data
}

func master(name string, topics ...string) *fakeBroker {
	return &fakeBroker{name: name, addr: name + ":0", topics: append(topics, "TBW102"), more: map[string]string{}}
}

func slave(name string, id int, topics ...string) *fakeBroker {
	b := master(name, topics...)
	b.id, b.addr = id, fmt.Sprintf("%s:%d", name, id)
	b.more["enableActingMaster"] = "true"
	return b
}

func TestRouteInBothForms(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	want := `{"brokerDatas":[{"brokerAddrs":{%s:"ba:0"},"brokerName":"ba","cluster":"DC","enableActingMaster":false}],` +
		`"filterServerTable":{},"queueDatas":[{"brokerName":"ba","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}`
	for version, key := range map[int32]string{400: "0", 401: `"0"`, remoting.Version: `"0"`} {
		a := tb.askAs(testPeer, version, remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "T"}, nil)
		require.Equal(t, fmt.Sprintf(want, key), string(a.body), "version %d", version)
	}
	a := tb.askAs(testPeer, 317, remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "T", "acceptStandardJsonOnly": "true"}, nil)
	require.Equal(t, fmt.Sprintf(want, `"0"`), string(a.body))
	a = tb.ask(remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "nope"}, nil)
	require.Equal(t, remoting.RespTopicNotExist, a.code)
	require.Equal(t, "No topic route info in name server for the topic: nope"+faq, a.remark)
	a = tb.ask(remoting.ReqGetRouteinfoByTopic, nil, nil)
	require.Equal(t, "the custom field <topic> is null", a.remark)
}

func TestKeptRoutesFollowEveryChange(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	require.Len(t, tb.route("T").BrokerDatas, 1)
	tb.mustRegister(master("bb", "T"))
	require.Len(t, tb.route("T").BrokerDatas, 2)
	tb.ask(remoting.ReqWipeWritePermOfBroker, map[string]string{"brokerName": "ba"}, nil)
	require.Equal(t, int32(4), tb.route("T").QueueDatas[0].Perm)
	zoned := master("bb", "T")
	zoned.more[zoneNameField] = "z1"
	tb.mustRegister(zoned)
	require.Equal(t, "z1", tb.route("T").BrokerDatas[1].ZoneName)
	tb.ask(remoting.ReqUnregisterBroker, master("ba").fields(), nil)
	require.Equal(t, []string{"bb"}, []string{tb.route("T").BrokerDatas[0].BrokerName})
	tb.ask(remoting.ReqDeleteTopicInNamesrv, map[string]string{"topic": "T"}, nil)
	require.Nil(t, tb.route("T"))
}

func TestRepeatedRegistrationsChangeNothing(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	tb.route("T")
	epoch := tb.routes.epoch.Load()
	tb.mustRegister(master("ba", "T"))
	require.Equal(t, epoch, tb.routes.epoch.Load(), "encoded routes stay valid over the 30 s registrations")
}

func TestTopicsAreTakenByDataVersion(t *testing.T) {
	tb := newTestTables(t, nil)
	b := master("ba", "T")
	tb.mustRegister(b)
	tb.ask(remoting.ReqWipeWritePermOfBroker, map[string]string{"brokerName": "ba"}, nil)
	tb.mustRegister(b)
	require.Equal(t, int32(4), tb.route("T").QueueDatas[0].Perm, "the same version does not bring the permission back")
	tb.ask(remoting.ReqDeleteTopicInNamesrv, map[string]string{"topic": "T"}, nil)
	tb.mustRegister(b)
	require.Equal(t, int32(6), tb.route("T").QueueDatas[0].Perm, "a missing row is written whatever the version")
	b.counter, b.topics = 1, []string{"U", "TBW102"}
	tb.mustRegister(b)
	require.NotNil(t, tb.route("U"))
	require.NotNil(t, tb.route("T"), "topics that are no longer named stay")
	require.NoError(t, tb.config.Set("deleteTopicWithBrokerRegistration", "true"))
	tb.mustRegister(b)
	require.Nil(t, tb.route("T"), "unless the configuration says otherwise")
}

func TestRegistrationRefusals(t *testing.T) {
	tb := newTestTables(t, nil)
	one := master("ba")
	require.Equal(t, "register broker failed", tb.register(one).remark, "a single topic of an unknown broker")
	require.Empty(t, tb.routes.brokers)
	b := master("ba", "T")
	for rule, field := range map[string][2]string{
		"<brokerId> is null": {"brokerId", ""}, "<brokerId> is not valid": {"brokerId", "x"}, "<brokerName> is null": {"brokerName", ""},
		"<clusterName> has 256 bytes": {"clusterName", string(make([]byte, 256))}, "<haServerAddr> is null": {"haServerAddr", ""},
		"crc32 not match": {"bodyCrc32", "7"},
	} {
		fields := b.fields()
		if fields[field[0]] = field[1]; field[1] == "" {
			delete(fields, field[0])
		}
		a := tb.ask(remoting.ReqRegisterBroker, fields, b.body().Encode())
		require.Equal(t, remoting.RespSystemError, a.code)
		require.Contains(t, a.remark, rule)
	}
	a := tb.ask(remoting.ReqRegisterBroker, b.fields(), []byte(`{"topicConfigSerializeWrapper":`))
	require.Contains(t, a.remark, "registration of broker ba: body:")
	b.more["bodyCrc32"] = fmt.Sprint(message.BodyCRC(b.body().EncodeDeflated()))
	a = tb.ask(remoting.ReqRegisterBroker, b.fields(), b.body().EncodeDeflated())
	require.Equal(t, remoting.RespSuccess, a.code, a.remark)
	require.NotNil(t, tb.route("T"), "deflated, though the header does not say so")
}

func TestOldMasterThatComesBackYields(t *testing.T) {
	tb := newTestTables(t, nil)
	newer := master("ba", "T")
	newer.addr, newer.state = "new:0", 5
	tb.mustRegister(newer)
	older := master("ba", "T")
	older.addr, older.state = "old:0", 4
	tb.mustRegister(older)
	require.Equal(t, map[int64]string{0: "new:0"}, tb.route("T").BrokerDatas[0].BrokerAddrs)
	require.Len(t, tb.routes.live, 1)
	older.state = 5
	tb.mustRegister(older)
	require.Equal(t, map[int64]string{0: "old:0"}, tb.route("T").BrokerDatas[0].BrokerAddrs, "not older: the last one wins")
	require.Len(t, tb.routes.live, 1, "who lost the id is forgotten")
}

func TestSlaveThatBecomesMasterLeavesItsID(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	s := slave("ba", 1, "T")
	a := tb.mustRegister(s)
	require.Equal(t, "ba:0", a.field("masterAddr"))
	require.Equal(t, "ha-ba:0", a.field("haServerAddr"))
	tb.ask(remoting.ReqUnregisterBroker, master("ba").fields(), nil)
	s.id = 0
	tb.mustRegister(s)
	require.Equal(t, map[int64]string{0: "ba:1"}, tb.route("T").BrokerDatas[0].BrokerAddrs)
}

func TestActingMaster(t *testing.T) {
	tb := newTestTables(t, func(c *config.NameServer) { c.SupportActingMaster = true })
	m := master("ba", "T")
	m.more["enableActingMaster"] = "true"
	tb.mustRegister(m)
	tb.mustRegister(slave("ba", 1, "T"))
	tb.mustRegister(slave("ba", 2, "T"))
	require.Equal(t, map[int64]string{0: "ba:0", 1: "ba:1", 2: "ba:2"}, tb.route("T").BrokerDatas[0].BrokerAddrs)
	tb.ask(remoting.ReqUnregisterBroker, m.fields(), nil)
	r := tb.route("T")
	require.Equal(t, map[int64]string{0: "ba:1", 2: "ba:2"}, r.BrokerDatas[0].BrokerAddrs, "the smallest id is shown as master")
	require.Equal(t, int32(remoting.PermRead), r.QueueDatas[0].Perm, "read only")
	require.Equal(t, map[int64]string{1: "ba:1", 2: "ba:2"}, tb.routes.memberGroup("DC", "ba").BrokerAddrs, "members are asked for as they are")
	require.NoError(t, tb.config.Set("supportActingMaster", "false"))
	require.Equal(t, map[int64]string{1: "ba:1", 2: "ba:2"}, tb.route("T").BrokerDatas[0].BrokerAddrs)
	// The prime slave's topics come in read only as well.
	s := slave("ba", 1, "U")
	s.counter = 1
	tb.mustRegister(s)
	require.Equal(t, int32(remoting.PermRead), tb.route("U").QueueDatas[0].Perm)
}

func TestNoticesOfTheSmallestID(t *testing.T) {
	tb := newTestTables(t, func(c *config.NameServer) { c.NotifyMinBrokerIDChanged = true })
	tb.mustRegister(slave("ba", 1, "T"))
	tb.mustRegister(slave("ba", 2, "T"))
	require.Empty(t, tb.notifier.notices)
	m := master("ba", "T")
	m.more["enableActingMaster"] = "true"
	tb.mustRegister(m)
	require.Equal(t, &minIDNotice{name: "ba", minID: 0, minAddr: "ba:0", haAddr: "ha-ba:0", to: []string{"ba:1", "ba:2"}}, <-tb.notifier.notices)
	tb.ask(remoting.ReqUnregisterBroker, m.fields(), nil)
	require.Equal(t, &minIDNotice{name: "ba", minID: 1, minAddr: "ba:1", offlineAddr: "ba:0", to: []string{"ba:1", "ba:2"}}, <-tb.notifier.notices)
	for range maxNotices + 5 {
		tb.notify(&minIDNotice{name: "ba"})
	}
	require.Len(t, tb.notifier.notices, maxNotices, "bounded")
}

func TestSilentBrokersAreRemoved(t *testing.T) {
	tb := newTestTables(t, nil)
	short := master("ba", "T")
	short.more["heartbeatTimeoutMillis"] = "10000"
	tb.mustRegister(short)
	tb.mustRegister(master("bb", "T"))
	tb.clock += 9 * time.Second
	tb.ask(remoting.ReqBrokerHeartbeat, short.fields(), nil)
	tb.clock += 9 * time.Second
	tb.removeSilent()
	require.Len(t, tb.route("T").BrokerDatas, 2, "a heartbeat counts")
	tb.clock += 2 * time.Second
	tb.removeSilent()
	require.Equal(t, "bb", tb.route("T").BrokerDatas[0].BrokerName, "its own lease has run out")
	tb.ask(remoting.ReqQueryDataVersion, master("bb").fields(), []byte(`{"counter":0}`))
	tb.clock += 119 * time.Second
	tb.removeSilent()
	require.NotNil(t, tb.route("T"), "a question for the version counts too")
	tb.clock += 2 * time.Second
	tb.removeSilent()
	require.Nil(t, tb.route("T"))
	require.Empty(t, tb.routes.clusters)
	require.Zero(t, tb.routes.rows)
	tb.requireNothing()
}

// requireNothing holds the tables to their invariant when no broker is left.
func (tb *tables) requireNothing() {
	tb.t.Helper()
	r := tb.routes
	require.Zero(tb.t, len(r.topics)+len(r.brokers)+len(r.clusters)+len(r.live)+len(r.byPeer)+len(r.filters))
}

func TestClosedConnectionTakesItsBrokersAlong(t *testing.T) {
	tb := newTestTables(t, nil)
	first, second := &peer{}, &peer{}
	a, b := master("ba", "T"), master("bb", "T")
	a.peer, b.peer = first, first
	tb.mustRegister(a)
	tb.mustRegister(b)
	a.peer = second
	tb.mustRegister(a) // through another connection now
	tb.peerClosed(first)
	tb.removeClosed()
	require.Equal(t, "ba", tb.route("T").BrokerDatas[0].BrokerName)
	require.Len(t, tb.route("T").BrokerDatas, 1)
	// A registration that is handled after its connection closed leaves nothing behind.
	late := master("bc", "T")
	late.peer = &peer{}
	late.peer.closed.Store(true)
	tb.mustRegister(late)
	tb.removeClosed()
	require.Len(t, tb.route("T").BrokerDatas, 1)
	tb.peerClosed(second)
	tb.removeClosed()
	tb.requireNothing()
}

func TestDataVersionQuery(t *testing.T) {
	tb := newTestTables(t, nil)
	b := master("ba", "T")
	same := remoting.EncodeBody(b.body().Topics.DataVersion)
	a := tb.ask(remoting.ReqQueryDataVersion, b.fields(), same)
	require.Equal(t, "true", a.field("changed"))
	require.Nil(t, a.body)
	tb.mustRegister(b)
	a = tb.ask(remoting.ReqQueryDataVersion, b.fields(), same)
	require.Equal(t, "false", a.field("changed"))
	require.Equal(t, same, a.body)
	a = tb.ask(remoting.ReqQueryDataVersion, b.fields(), []byte(`{"counter":9}`))
	require.Equal(t, "true", a.field("changed"))
	require.Equal(t, remoting.RespSystemError, tb.ask(remoting.ReqQueryDataVersion, b.fields(), nil).code)
}

func TestZones(t *testing.T) {
	tb := newTestTables(t, nil)
	near, far := master("ba", "T"), master("bb", "T")
	near.more[zoneNameField], far.more[zoneNameField] = "z1", "z2"
	tb.mustRegister(near)
	tb.mustRegister(far)
	tb.mustRegister(slave("bc", 1, "T")) // without master: from anywhere
	a := tb.ask(remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "T", zoneModeField: "true", zoneNameField: "Z1"}, nil)
	var data remoting.TopicRouteData
	require.NoError(t, json.Unmarshal(a.body, &data))
	names := []string{}
	for _, b := range data.BrokerDatas {
		names = append(names, b.BrokerName)
	}
	require.Equal(t, []string{"ba", "bc"}, names)
	require.Len(t, data.QueueDatas, 2)
	require.Len(t, tb.route("T").BrokerDatas, 3)
}

func TestStaticTopicMappings(t *testing.T) {
	tb := newTestTables(t, nil)
	b := master("ba", "T")
	body := b.body()
	body.Topics.TopicQueueMappingInfoMap = map[string]remoting.TopicQueueMappingInfo{
		"T":       {Bname: "ba", CurrIDMap: map[int32]int32{0: 1}, Scope: remoting.GlobalScope, Topic: "T", TotalQueues: 1},
		"unknown": {Bname: "ba", Topic: "unknown"},
	}
	require.Zero(t, tb.ask(remoting.ReqRegisterBroker, b.fields(), body.Encode()).code)
	require.Equal(t, map[int32]int32{0: 1}, tb.route("T").TopicQueueMappingByBroker["ba"].CurrIDMap)
	require.Nil(t, tb.route("TBW102").TopicQueueMappingByBroker)
	tb.ask(remoting.ReqUnregisterBroker, b.fields(), nil)
	tb.requireNothing()
}

func TestTopicLists(t *testing.T) {
	tb := newTestTables(t, nil)
	b := master("ba", "T", "U", "V")
	body := b.body()
	for name, flag := range map[string]int32{"T": remoting.TopicUnit, "U": remoting.TopicUnitSub, "V": remoting.TopicUnit | remoting.TopicUnitSub} {
		c := body.Topics.TopicConfigTable[name]
		c.TopicSysFlag = flag
		body.Topics.TopicConfigTable[name] = c
	}
	require.Zero(t, tb.ask(remoting.ReqRegisterBroker, b.fields(), body.Encode()).code)
	for code, want := range map[int32]string{
		remoting.ReqGetAllTopicListFromNameserver: `{"topicList":["T","TBW102","U","V"]}`,
		remoting.ReqGetTopicsByCluster:            `{"topicList":["T","TBW102","U","V"]}`,
		remoting.ReqGetSystemTopicListFromNS:      `{"brokerAddr":"ba:0","topicList":["DC","ba"]}`,
		remoting.ReqGetUnitTopicList:              `{"topicList":["T","V"]}`,
		remoting.ReqGetHasUnitSubTopicList:        `{"topicList":["U","V"]}`,
		remoting.ReqGetHasUnitSubUnunitTopicList:  `{"topicList":["U"]}`,
		remoting.ReqGetBrokerClusterInfo: `{"brokerAddrTable":{"ba":{"brokerAddrs":{0:"ba:0"},"brokerName":"ba","cluster":"DC",` +
			`"enableActingMaster":false}},"clusterAddrTable":{"DC":["ba"]}}`,
		remoting.ReqGetBrokerMemberGroup: `{"brokerMemberGroup":{"brokerAddrs":{0:"ba:0"},"brokerName":"ba","cluster":"DC"}}`,
	} {
		a := tb.ask(code, map[string]string{"cluster": "DC", "clusterName": "DC", "brokerName": "ba"}, nil)
		require.Equal(t, want, string(a.body), remoting.RequestName(code))
	}
	require.Equal(t, `{"topicList":[]}`, string(tb.ask(remoting.ReqGetTopicsByCluster, map[string]string{"cluster": "x"}, nil).body))
	require.NoError(t, tb.config.Set("enableTopicList", "false"))
	require.NoError(t, tb.config.Set("enableAllTopicList", "false"))
	for _, code := range []int32{206, 224, 311, 312, 313} {
		require.Equal(t, disabled, tb.ask(code, map[string]string{"cluster": "DC"}, nil))
	}
}

func TestWritePermission(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	tb.mustRegister(master("bb", "T"))
	a := tb.ask(remoting.ReqWipeWritePermOfBroker, map[string]string{"brokerName": "ba"}, nil)
	require.Equal(t, "2", a.field("wipeTopicCount"))
	r := tb.route("T")
	require.Equal(t, []int32{4, 6}, []int32{r.QueueDatas[0].Perm, r.QueueDatas[1].Perm})
	a = tb.ask(remoting.ReqAddWritePermOfBroker, map[string]string{"brokerName": "ba"}, nil)
	require.Equal(t, "2", a.field("addTopicCount"))
	require.Equal(t, int32(6), tb.route("T").QueueDatas[0].Perm)
}

func TestDeleteAndRegisterTopic(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.mustRegister(master("ba", "T"))
	tb.mustRegister(master("bb", "T"))
	tb.ask(remoting.ReqDeleteTopicInNamesrv, map[string]string{"topic": "T", "clusterName": "other"}, nil)
	require.NotNil(t, tb.route("T"))
	tb.ask(remoting.ReqDeleteTopicInNamesrv, map[string]string{"topic": "T", "clusterName": "DC"}, nil)
	require.Nil(t, tb.route("T"))
	body := remoting.EncodeBody(remoting.TopicRouteData{QueueDatas: []remoting.QueueData{{BrokerName: "ba", Perm: 6, ReadQueueNums: 1, WriteQueueNums: 1}}})
	require.Zero(t, tb.ask(remoting.ReqRegisterTopicInNamesrv, map[string]string{"topic": "N"}, body).code)
	require.Equal(t, "ba", tb.route("N").QueueDatas[0].BrokerName)
	for _, bad := range []string{``, `{}`, `{"queueDatas":[{"brokerName":"nobody"}]}`} {
		a := tb.ask(remoting.ReqRegisterTopicInNamesrv, map[string]string{"topic": "N"}, []byte(bad))
		require.Equal(t, remoting.RespSystemError, a.code, bad)
	}
}

func TestNotReadyUntilBrokersHadTime(t *testing.T) {
	tb := newTestTables(t, func(c *config.NameServer) { c.NeedWaitForService = true })
	tb.mustRegister(master("ba", "T"))
	tb.clock += 44 * time.Second
	require.Equal(t, "name server not ready", tb.ask(remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "T"}, nil).remark)
	tb.clock += time.Second
	require.NotNil(t, tb.route("T"))
}

func TestOrderTopicConf(t *testing.T) {
	tb := newTestTables(t, nil)
	require.Nil(t, tb.mustRegister(master("ba", "T")).body)
	put := map[string]string{"namespace": orderTopicNamespace, "key": "T", "value": "ba:4"}
	require.Zero(t, tb.ask(remoting.ReqPutKVConfig, put, nil).code)
	require.Equal(t, `{"table":{"T":"ba:4"}}`, string(tb.mustRegister(master("ba", "T")).body))
	require.Empty(t, tb.route("T").OrderTopicConf)
	require.NoError(t, tb.config.Set("orderMessageEnable", "true"))
	require.Equal(t, "ba:4", tb.route("T").OrderTopicConf)
}

func TestConfigRequests(t *testing.T) {
	tb := newTestTables(t, nil)
	require.Contains(t, string(tb.ask(remoting.ReqGetNamesrvConfig, nil, nil).body), "orderMessageEnable=false\n")
	require.Zero(t, tb.ask(remoting.ReqUpdateNamesrvConfig, nil, []byte("orderMessageEnable=true\n")).code)
	require.True(t, tb.config.Load().OrderMessageEnable)
	for text, code := range map[string]int32{
		"kvConfigPath=/x\n": remoting.RespNoPermission, "listenPort=1\n": remoting.RespNoPermission, "nonsense=1\n": remoting.RespSystemError,
		"orderMessageEnable=maybe\n": remoting.RespSystemError,
	} {
		a := tb.ask(remoting.ReqUpdateNamesrvConfig, nil, []byte(text))
		require.Equal(t, code, a.code, text)
		require.NotEmpty(t, a.remark)
	}
}

func TestTablesAreBounded(t *testing.T) {
	tb := newTestTables(t, nil)
	tb.routes.rows = maxTopicRows - 1
	a := tb.register(master("ba", "T"))
	require.Contains(t, a.remark, "topic rows")
	require.Empty(t, tb.routes.topics, "refused as a whole")
	tb.routes.rows = 0
	for i := range maxBrokers {
		tb.routes.live[brokerAddr{"x", fmt.Sprint(i)}] = &liveBroker{}
	}
	require.Contains(t, tb.register(master("ba", "T")).remark, "brokers")
	require.Equal(t, maxLease, lease(1<<62))
	require.Equal(t, defaultLease, lease(-1))
}

// goldenFrame is a frame that went between the official 5.5.0 programs.
func goldenFrame(t *testing.T, name string) *remoting.Command {
	t.Helper()
	frame, err := os.ReadFile(filepath.Join("..", "e2e", "golden", "frames", name))
	require.NoError(t, err)
	c := new(remoting.Command)
	require.NoError(t, c.Decode(frame[4:]))
	return c
}

// What a Java broker registered gives the bytes that a Java name server answered.
func TestGoldenAnswers(t *testing.T) {
	tb := newTestTables(t, nil)
	for _, name := range []string{"broker-103-register-broker-request.bin", "broker-103-register-broker-request-2.bin"} {
		a := tb.handleRequest(&request{goldenFrame(t, name), testPeer})
		require.Equal(t, reply{}, a, name)
	}
	a := tb.handleRequest(&request{goldenFrame(t, "broker-106-get-broker-cluster-info-request.bin"), testPeer})
	require.Equal(t, string(goldenFrame(t, "broker-106-get-broker-cluster-info-response.bin").Body), string(a.body))
	a = tb.handleRequest(&request{goldenFrame(t, "java-json-105-get-routeinfo-by-topic-request.bin"), testPeer})
	require.Equal(t, string(goldenFrame(t, "java-json-105-get-routeinfo-by-topic-response.bin").Body), string(a.body))
	// client-go asks with version 317 and gets the raw form of the same route.
	a = tb.handleRequest(&request{goldenFrame(t, "go-105-get-routeinfo-by-topic-request-2.bin"), testPeer})
	require.Equal(t, string(goldenFrame(t, "go-105-get-routeinfo-by-topic-response.bin").Body), string(a.body))
	unknown := goldenFrame(t, "java-json-105-get-routeinfo-by-topic-response-code17.bin")
	a = tb.ask(remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": "%RETRY%golden-consumer"}, nil)
	require.Equal(t, reply{code: unknown.Code, remark: string(unknown.Remark)}, a)
	a = tb.handleRequest(&request{goldenFrame(t, "broker-104-unregister-broker-request.bin"), testPeer})
	require.Equal(t, reply{}, a)
	tb.requireNothing()
	// A 5.5.0 broker with compressedRegister=true deflates the body and says compressed=false. Java's name server answers an error.
	require.Equal(t, remoting.RespSystemError, goldenFrame(t, "broker-compressed-103-register-broker-response-code1.bin").Code)
	compressed := goldenFrame(t, "broker-compressed-103-register-broker-request.bin")
	require.Equal(t, "false", compressed.String("compressed"))
	require.Equal(t, reply{}, tb.handleRequest(&request{compressed, testPeer}))
	require.NotNil(t, tb.route("TBW102"))
}
