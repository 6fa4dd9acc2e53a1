package remoting

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The texts are what Java 5.5.0 programs were seen to send.
func TestBodiesAreWrittenAsJavaWritesThem(t *testing.T) {
	mq := MessageQueue{BrokerName: "ba", QueueID: 0, Topic: "T"}
	for want, body := range map[string]any{
		`{"brokerDatas":[{"brokerAddrs":{0:"1.2.3.4:10911"},"brokerName":"ba","cluster":"DC","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"ba","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}`: &TopicRouteData{
			BrokerDatas: []BrokerData{{BrokerAddrs: map[int64]string{0: "1.2.3.4:10911"}, BrokerName: "ba", Cluster: "DC"}},
			QueueDatas:  []QueueData{{BrokerName: "ba", Perm: 6, ReadQueueNums: 4, WriteQueueNums: 4}},
		},
		`{"brokerAddrTable":{"golden-broker":{"brokerAddrs":{0:"127.0.0.1:39333"},"brokerName":"golden-broker","cluster":"golden-cluster","enableActingMaster":false}},"clusterAddrTable":{"golden-cluster":["golden-broker"]}}`: &ClusterInfo{
			BrokerAddrTable: map[string]BrokerData{"golden-broker": {
				BrokerAddrs: map[int64]string{0: "127.0.0.1:39333"}, BrokerName: "golden-broker", Cluster: "golden-cluster",
			}},
			ClusterAddrTable: map[string][]string{"golden-cluster": {"golden-broker"}},
		},
		`{"offsetTable":{{"brokerName":"ba","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":7,"maxOffset":1,"minOffset":0}},"topicPutTps":0.0}`: TopicStatsTable{
			OffsetTable: map[MessageQueue]TopicOffset{mq: {LastUpdateTimestamp: 7, MaxOffset: 1}},
		},
		`{"consumeTps":0.5,"offsetTable":{{"brokerName":"ba","queueId":0,"topic":"T"}:{"brokerOffset":9,"consumerOffset":4,"lastTimestamp":0,"pullOffset":6}}}`: ConsumeStats{
			ConsumeTps: 0.5, OffsetTable: map[MessageQueue]OffsetWrapper{mq: {BrokerOffset: 9, ConsumerOffset: 4, PullOffset: 6}},
		},
		`{"offsetTable":{{"brokerName":"ba","queueId":0,"topic":"T"}:0,{"brokerName":"ba","queueId":10,"topic":"T"}:3}}`: ResetOffsetBody{
			OffsetTable: map[MessageQueue]int64{{BrokerName: "ba", QueueID: 10, Topic: "T"}: 3, mq: 0},
		},
		`{"brokerMemberGroup":{"brokerAddrs":{0:"a:1",2:"a:3"},"brokerName":"ba","cluster":"DC"}}`: BrokerMemberGroupBody{
			BrokerMemberGroup{BrokerAddrs: map[int64]string{2: "a:3", 0: "a:1"}, BrokerName: "ba", Cluster: "DC"},
		},
		`{"lockOKMQSet":[{"brokerName":"golden-broker","queueId":1,"topic":"GoldenTopic"}]}`: LockBatchResult{
			[]MessageQueue{{BrokerName: "golden-broker", QueueID: 1, Topic: "GoldenTopic"}},
		},
		`{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}`: NewSubscriptionGroupConfig("g"),
		`{"correctionOffsets":{0:0}}`:           CorrectionOffsets{map[int32]int64{0: 0}},
		`{"topicList":[]}`:                      TopicList{},
		`{"table":{"a":"\"\\\n\u0001<é>"}}`:     KVTable{map[string]string{"a": "\"\\\n\x01<é>"}},
		`{"avgpt":1.0E10,"sum":0,"tps":1234.5}`: BrokerStatsItem{Avgpt: 1e10, Tps: 1234.5},
		`{"avgpt":1.5E-4,"sum":0,"tps":10.0}`:   BrokerStatsItem{Avgpt: 0.00015, Tps: 10},
	} {
		require.Equal(t, want, string(EncodeBody(body)))
		// And what was written reads back as the same.
		back := reflect.New(reflect.Indirect(reflect.ValueOf(body)).Type())
		require.NoError(t, DecodeBody([]byte(want), back.Interface()))
		require.Equal(t, want, string(EncodeBody(back.Interface())))
	}
}

func TestStandardBodyQuotesNumbersAndIsASCII(t *testing.T) {
	body := BrokerMemberGroup{BrokerAddrs: map[int64]string{0: "a:1", 1: "b:1"}, BrokerName: "bröker😀", Cluster: "DC"}
	text := EncodeStandardBody(body)
	require.Equal(t, `{"brokerAddrs":{"0":"a:1","1":"b:1"},"brokerName":"br\u00f6ker\ud83d\ude00","cluster":"DC"}`, string(text))
	var back BrokerMemberGroup
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, body, back)
	require.True(t, json.Valid(EncodeStandardBody(ResetOffsetBody{map[MessageQueue]int64{{Topic: "T"}: 1}})))
}

func TestPrettyBodyIsTheFormOfTheConfigFiles(t *testing.T) {
	want := "{\n\t\"dataVersion\":{\n\t\t\"counter\":0,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1\n\t},\n\t\"offsetTable\":{\n\t\t\"T@g\":{\n\t\t\t0:10,\n\t\t\t1:6\n\t\t}\n\t}\n}"
	table := ConsumerOffsetTable{DataVersion: DataVersion{Timestamp: 1}, OffsetTable: map[string]map[int32]int64{"T@g": {0: 10, 1: 6}}}
	require.Equal(t, want, string(EncodePrettyBody(table)))
	require.Equal(t, "{\n\t\"topicList\":[]\n}", string(EncodePrettyBody(TopicList{})))
}

// Every struct must declare its members in alphabetical order: the order of declaration is the order on the wire.
func TestMembersAreAlphabetical(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			check(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[typ] {
			return
		}
		seen[typ] = true
		var names []string
		for _, f := range bodyFields(typ) {
			names = append(names, f.name)
			check(typ.Field(f.index).Type)
		}
		require.True(t, slices.IsSorted(names), "%s: %v", typ, names)
	}
	for _, body := range []any{
		TopicRouteData{}, ClusterInfo{}, BrokerMemberGroupBody{}, TopicList{}, KVTable{}, TopicConfigList{}, TopicConfigTable{},
		RegisterBrokerBody{}, HeartbeatData{}, CheckClientBody{}, SubscriptionGroupList{}, SubscriptionGroupTable{}, GroupForbidden{},
		GroupList{}, QuerySubscriptionBody{}, RequestModeTable{}, TopicStatsTable{}, ConsumeStatsList{}, ResetOffsetBody{},
		ResetOffsetBodyForC{}, ConsumerStatusBody{}, LockBatchBody{}, LockBatchResult{}, ConsumerOffsetTable{}, DelayOffsetTable{},
		CorrectionOffsets{}, QueryAssignmentBody{}, QueryAssignmentResult{}, ConsumerIDList{}, ConsumerConnection{}, ProducerConnection{},
		ProducerTableInfo{}, ConsumeTimeSpans{}, BrokerStatsData{}, QueryConsumeQueueBody{}, HARuntimeInfo{},
	} {
		check(reflect.TypeOf(body))
	}
}

func TestAbsentMembersHaveJavasDefaults(t *testing.T) {
	var g SubscriptionGroupConfig
	require.NoError(t, DecodeBody([]byte(`{"groupName":"g","groupRetryPolicy":{"exponentialRetryPolicy":{"max":60000},"type":"EXPONENTIAL"}}`), &g))
	want := NewSubscriptionGroupConfig("g")
	want.GroupRetryPolicy = GroupRetryPolicy{Type: RetryExponential, ExponentialRetryPolicy: &ExponentialRetryPolicy{5000, 60000, 2}}
	require.Equal(t, want, g)
	var topic TopicConfig
	require.NoError(t, DecodeBody([]byte(`{"topicName":"T","perm":4}`), &topic))
	require.Equal(t, TopicConfig{Perm: 4, ReadQueueNums: 16, TopicFilterType: SingleTag, TopicName: "T", WriteQueueNums: 16}, topic)
	var item LogicQueueMappingItem
	require.NoError(t, DecodeBody([]byte(`{"gen":3}`), &item))
	require.Equal(t, LogicQueueMappingItem{EndOffset: -1, Gen: 3, TimeOfEnd: -1, TimeOfStart: -1}, item)
}

func TestHeartbeatsOfOtherLanguages(t *testing.T) {
	// Ordinals and numbers in quotes, as the C++ core sends them.
	text := `{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":1,"messageModel":1,"consumeFromWhere":0,
		"subscriptionDataSet":[{"topic":"T","subString":"a","subVersion":"1700000000000","codeSet":["97"],"tagsSet":["a"]}]}]}`
	var h HeartbeatData
	require.NoError(t, DecodeBody([]byte(text), &h))
	require.Equal(t, []ConsumerData{{
		ConsumeFromWhere: ConsumeFromLastOffset, ConsumeType: ConsumePassively, GroupName: "g", MessageModel: Clustering,
		SubscriptionDataSet: []SubscriptionData{{
			CodeSet: []int32{97}, ExpressionType: ExpressionTag, SubString: "a", SubVersion: 1700000000000, TagsSet: []string{"a"}, Topic: "T",
		}},
	}}, h.ConsumerDataSet)
	for _, bad := range []string{`{"consumerDataSet":[{"consumeType":3}]}`, `{"consumerDataSet":[{"messageModel":"X"}]}`, `{"consumerDataSet":7}`} {
		require.Error(t, DecodeBody([]byte(bad), &h), bad)
	}
}

func TestNewTagSubscription(t *testing.T) {
	for expression, want := range map[string]struct {
		sub   string
		tags  []string
		codes []int32
	}{
		"":                {sub: "*"},
		"*":               {sub: "*"},
		"TagA":            {sub: "TagA", tags: []string{"TagA"}, codes: []int32{2598919}},
		" TagA || TagB||": {sub: " TagA || TagB||", tags: []string{"TagA", "TagB"}, codes: []int32{2598919, 2598920}},
		"a||a":            {sub: "a||a", tags: []string{"a"}, codes: []int32{97}},
		"Aa||BB":          {sub: "Aa||BB", tags: []string{"Aa", "BB"}, codes: []int32{2112}},
	} {
		s, err := NewTagSubscription("T", expression, 5)
		require.NoError(t, err, expression)
		require.Equal(t, SubscriptionData{
			CodeSet: want.codes, ExpressionType: ExpressionTag, SubString: want.sub, SubVersion: 5, TagsSet: want.tags, Topic: "T",
		}, s, expression)
	}
	_, err := NewTagSubscription("T", "||", 0)
	require.ErrorIs(t, err, ErrSubscription)
	_, err = NewTagSubscription("T", strings.Repeat("a||", maxTags)+"b", 0)
	require.NoError(t, err, "equal tags count once")
	many := make([]string, maxTags+1)
	for i := range many {
		many[i] = string(rune('一' + i))
	}
	_, err = NewTagSubscription("T", strings.Join(many, "||"), 0)
	require.ErrorIs(t, err, ErrSubscription)
}

func TestRetryDelays(t *testing.T) {
	plain := GroupRetryPolicy{Type: RetryCustomized}
	require.Equal(t, int64(10_000), plain.NextDelayMillis(0))
	require.Equal(t, int64(30_000), plain.NextDelayMillis(1))
	require.Equal(t, int64(7_200_000), plain.NextDelayMillis(1<<30))
	own := GroupRetryPolicy{Type: RetryCustomized, CustomizedRetryPolicy: &CustomizedRetryPolicy{[]int64{1, 2, 3, 4}}}
	require.Equal(t, []int64{3, 4, 4}, []int64{own.NextDelayMillis(-1), own.NextDelayMillis(1), own.NextDelayMillis(9)})
	exp := GroupRetryPolicy{Type: RetryExponential, ExponentialRetryPolicy: &ExponentialRetryPolicy{5000, 7_200_000, 2}}
	require.Equal(t, []int64{5000, 10_000, 7_200_000}, []int64{exp.NextDelayMillis(0), exp.NextDelayMillis(1), exp.NextDelayMillis(40)})
	wild := GroupRetryPolicy{Type: RetryExponential, ExponentialRetryPolicy: &ExponentialRetryPolicy{1 << 40, 1<<63 - 1, 1 << 40}}
	require.Equal(t, int64(1<<63-1), wild.NextDelayMillis(32), "no overflow")
}

func registration() *RegisterBrokerBody {
	return &RegisterBrokerBody{FilterServerList: []string{"fs:1"}, Topics: TopicConfigAndMappings{
		DataVersion: DataVersion{Counter: 3, StateVersion: 1, Timestamp: 1700000000000},
		TopicConfigTable: map[string]TopicConfig{
			"A": {Attributes: map[string]string{"message.type": "FIFO"}, Perm: 6, ReadQueueNums: 4, TopicFilterType: SingleTag, TopicName: "A", WriteQueueNums: 8},
			"B": {Attributes: map[string]string{"key": "with blank"}, Perm: 7, ReadQueueNums: 1, TopicFilterType: MultiTag, TopicName: "B", WriteQueueNums: 1},
		},
		TopicQueueMappingInfoMap: map[string]TopicQueueMappingInfo{
			"A": {Bname: "ba", CurrIDMap: map[int32]int32{0: 1}, Epoch: 2, Scope: GlobalScope, Topic: "A", TotalQueues: 3},
		},
	}}
}

func TestRegistrationInBothForms(t *testing.T) {
	want := registration()
	var plain, deflated RegisterBrokerBody
	require.NoError(t, deflated.Decode(want.EncodeDeflated()))
	require.Equal(t, want, &deflated)
	want.Topics.TopicQueueMappingDetailMap = map[string]TopicQueueMappingDetail{}
	require.NoError(t, plain.Decode(want.Encode()))
	require.Equal(t, want, &plain)
	var empty, bare RegisterBrokerBody
	require.NoError(t, empty.Decode(nil))
	require.Equal(t, RegisterBrokerBody{}, empty)
	require.NoError(t, bare.Decode([]byte(`{"dataVersion":{"counter":2},"topicConfigTable":{"T":{"topicName":"T"}}}`)))
	require.Equal(t, int64(2), bare.Topics.DataVersion.Counter)
	require.Equal(t, NewTopicConfig("T"), bare.Topics.TopicConfigTable["T"])
}

func TestDamagedRegistrationsAreErrors(t *testing.T) {
	whole := registration().EncodeDeflated()
	plain, err := inflate(whole, maxBodySize)
	require.NoError(t, err)
	var b RegisterBrokerBody
	require.Error(t, b.Decode(whole[:len(whole)/2]), "cut stream")
	for cut := range len(plain) {
		b = RegisterBrokerBody{}
		if err := b.decodeBlocks(blockReader{plain[:cut]}); err == nil {
			require.True(t, strings.HasSuffix(string(plain[:cut]), `["fs:1"]`), "only the mappings may be missing: cut at %d", cut)
		}
	}
	lie := binary.BigEndian.AppendUint32(appendBlock(nil, []byte(`{}`)), 1<<31-1)
	require.ErrorIs(t, b.Decode(deflate(lie)), errRegisterBody, "a count that the rest cannot hold")
	bomb := deflate(make([]byte, 1<<20))
	_, err = inflate(bomb, 1<<20)
	require.NoError(t, err)
	_, err = inflate(bomb, 1<<20-1)
	require.ErrorContains(t, err, "when inflated")
}

// goldenBody is the body of a frame that a Java program sent.
func goldenBody(t *testing.T, name string) []byte {
	t.Helper()
	frame, err := os.ReadFile(filepath.Join("..", "e2e", "golden", "frames", name))
	require.NoError(t, err)
	var c Command
	require.NoError(t, c.Decode(frame[4:]))
	return append([]byte(nil), c.Body...)
}

// Golden frames: what the official programs sent reads into our structs without loss and is written again with the same content.
func TestGoldenBodies(t *testing.T) {
	for name, body := range map[string]any{
		"broker-103-register-broker-request.bin":                        &RegisterBrokerBody{},
		"broker-103-register-broker-request-2.bin":                      &RegisterBrokerBody{},
		"broker-106-get-broker-cluster-info-response.bin":               &ClusterInfo{},
		"java-json-034-heart-beat-request.bin":                          &HeartbeatData{},
		"java-json-038-get-consumer-list-by-group-response.bin":         &ConsumerIDList{},
		"java-json-041-lock-batch-mq-request.bin":                       &LockBatchBody{},
		"java-json-041-lock-batch-mq-response.bin":                      &LockBatchResult{},
		"java-json-042-unlock-batch-mq-request.bin":                     &LockBatchBody{},
		"java-json-105-get-routeinfo-by-topic-response.bin":             &TopicRouteData{},
		"java-json-200-update-and-create-subscriptiongroup-request.bin": &SubscriptionGroupConfig{},
		"mqadmin-201-get-all-subscriptiongroup-config-response.bin":     &SubscriptionGroupTable{},
		"mqadmin-202-get-topic-stats-info-response.bin":                 &TopicStatsTable{},
		"mqadmin-203-get-consumer-connection-list-response.bin":         &ConsumerConnection{},
		"mqadmin-204-get-producer-connection-list-response.bin":         &ProducerConnection{},
		"mqadmin-206-get-all-topic-list-from-nameserver-response.bin":   &TopicList{},
		"mqadmin-208-get-consume-stats-response.bin":                    &ConsumeStats{},
		"mqadmin-222-invoke-broker-to-reset-offset-response.bin":        &ResetOffsetBody{},
		"mqadmin-300-query-topic-consume-by-who-response.bin":           &GroupList{},
		"mqadmin-315-view-broker-stats-data-response.bin":               &BrokerStatsData{},
		"mqadmin-317-get-broker-consume-stats-response.bin":             &ConsumeStatsList{},
		"mqadmin-321-query-consume-queue-response.bin":                  &QueryConsumeQueueBody{},
		"mqadmin-328-get-all-producer-info-response.bin":                &ProducerTableInfo{},
		"mqadmin-351-get-topic-config-response.bin":                     &TopicConfig{},
		"mqadmin-028-get-broker-runtime-info-response.bin":              &KVTable{},
		"go-105-get-routeinfo-by-topic-response.bin":                    &TopicRouteData{},
	} {
		text := goldenBody(t, name)
		require.NoError(t, DecodeBody(text, body), name)
		encode := EncodeBody
		if bytes.Contains(text, []byte(`"0":`)) {
			encode = EncodeStandardBody
		}
		requireSameContent(t, text, encode(body), name)
	}
	for name, body := range map[string]any{
		"topics.json": &TopicConfigTable{}, "consumerOffset.json": &ConsumerOffsetTable{}, "subscriptionGroup.json": &SubscriptionGroupTable{},
		"delayOffset.json": &DelayOffsetTable{},
	} {
		text, err := os.ReadFile(filepath.Join("..", "e2e", "golden", "store-clean", "config", name))
		require.NoError(t, err)
		require.NoError(t, DecodeBody(text, body), name)
		requireSameContent(t, text, EncodePrettyBody(body), name)
	}
}

func requireSameContent(t *testing.T, want, got []byte, name string) {
	t.Helper()
	var texts [2]any
	for i, text := range [][]byte{want, got} {
		standard, err := StandardJSON(nil, text)
		require.NoError(t, err, name)
		require.NoError(t, json.Unmarshal(standard, &texts[i]), name)
	}
	require.Equal(t, texts[0], texts[1], name)
	require.Len(t, got, len(want), name) // the same bytes, in another order
}

func FuzzRegisterBrokerBody(f *testing.F) {
	f.Add(registration().EncodeDeflated())
	f.Add(registration().Encode())
	f.Fuzz(func(t *testing.T, body []byte) {
		var b, back RegisterBrokerBody
		if b.Decode(body) != nil {
			return
		}
		require.NoError(t, back.Decode(b.Encode()))
		require.Len(t, back.Topics.TopicConfigTable, len(b.Topics.TopicConfigTable))
	})
}
