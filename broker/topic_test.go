package broker

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

func mustOpenTopics(t testing.TB, fsys ioengine.FS, dir string, cfg *config.Broker) *topics {
	t.Helper()
	table, err := openTopics(fsys, dir, cfg, newTableClock().now, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func copyGolden(t testing.TB, fsys ioengine.FS, name string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(goldenConfig, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := fsys.MkdirAll(metadataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := ioengine.WriteFileAtomic(fsys, filepath.Join(metadataDir, name), text); err != nil {
		t.Fatal(err)
	}
}

func TestSystemTopics(t *testing.T) {
	cfg := tableConfig()
	table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	for name, want := range map[string][2]int32{ // queues, perm
		"SELF_TEST_TOPIC": {1, 6}, "TBW102": {8, 7}, "BenchmarkTest": {1024, 6}, "TestCluster": {16, 7}, "broker-a": {1, 7},
		"OFFSET_MOVED_EVENT": {1, 6}, "SCHEDULE_TOPIC_XXXX": {18, 6}, "TestCluster_REPLY_TOPIC": {1, 6}, "rmq_sys_REVIVE_LOG_TestCluster": {8, 6},
		"rmq_sys_SYNC_BROKER_MEMBER_broker-a": {1, 1}, "RMQ_SYS_TRANS_HALF_TOPIC": {1, 6}, "RMQ_SYS_TRANS_OP_HALF_TOPIC": {1, 6},
		"RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC": {1, 6}, "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC": {1, 6}, "rmq_sys_wheel_timer": {1, 6},
	} {
		topic := table.lookup([]byte(name))
		if topic == nil {
			t.Errorf("no %s", name)
			continue
		}
		c := topic.config.Load()
		if c.ReadQueueNums != want[0] || c.WriteQueueNums != want[0] || c.Perm != want[1] || !topic.system || !table.isSystem(name) {
			t.Errorf("%+v, system %t, want %d queues, perm %d", c, topic.system, want[0], want[1])
		}
	}
	if n := len(table.list()); n != 15 {
		t.Errorf("%d topics", n)
	}
	if table.find("RMQ_SYS_TRACE_TOPIC") != nil {
		t.Error("trace topic without traceTopicEnable")
	}
	cfg.TraceTopicEnable, cfg.AutoCreateTopicEnable = true, false
	table = mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	if table.find("RMQ_SYS_TRACE_TOPIC") == nil || table.find("TBW102") != nil {
		t.Error("traceTopicEnable or autoCreateTopicEnable has no effect")
	}
}

func TestCreateInSend(t *testing.T) {
	var from netip.AddrPort
	cases := []struct {
		rule          string
		setup         func(cfg *config.Broker, table *topics)
		defaultTopic  string
		asked, queues int32
		perm          int32
		created       bool
	}{
		{"as many queues as asked", nil, "TBW102", 4, 4, 6, true},
		{"no more queues than the default topic has", nil, "TBW102", 100, 8, 6, true},
		{"a negative number of queues is none", nil, "TBW102", -1, 0, 6, true},
		{"the cluster's topic may be inherited from", nil, "TestCluster", 32, 16, 6, true},
		{"a default topic that is not here", nil, "Nobody", 4, 0, 0, false},
		{"a default topic without the inherit bit", nil, "BenchmarkTest", 4, 0, 0, false},
		{"TBW102 loses the bit when autoCreateTopicEnable is off", func(cfg *config.Broker, _ *topics) {
			cfg.AutoCreateTopicEnable = false
		}, "TBW102", 4, 0, 0, false},
		{"the default topic's perm is inherited", func(_ *config.Broker, table *topics) {
			table.add(remoting.TopicConfig{TopicName: "ReadOnly", Perm: remoting.PermInherit | remoting.PermRead, WriteQueueNums: 2})
		}, "ReadOnly", 4, 2, remoting.PermRead, true},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			cfg := tableConfig()
			table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
			if c.setup != nil {
				c.setup(cfg, table)
			}
			var told []string
			table.changed = func(topic *Topic) { told = append(told, topic.Name) }
			before := table.dataVersion()
			topic, generation, err := table.createInSend(cfg, []byte("New"), []byte(c.defaultTopic), c.asked, 1, from)
			if err != nil || (topic != nil) != c.created {
				t.Fatalf("topic %v, error %v", topic, err)
			}
			if !c.created {
				if table.find("New") != nil || generation != 0 || len(told) > 0 || table.dataVersion() != before {
					t.Fatal("something changed")
				}
				return
			}
			got := topic.config.Load()
			if got.ReadQueueNums != c.queues || got.WriteQueueNums != c.queues || got.Perm != c.perm || got.TopicSysFlag != 1 {
				t.Fatalf("%+v", got)
			}
			if generation == 0 || !slices.Equal(told, []string{"New"}) || table.dataVersion().Counter != before.Counter+1 {
				t.Fatalf("generation %d, told %v, version %v", generation, told, table.dataVersion())
			}
			again, generation, err := table.createInSend(cfg, []byte("New"), []byte(c.defaultTopic), 1, 0, from)
			if again != topic || generation != 0 || err != nil || len(told) != 1 {
				t.Fatal("the second sender made it again")
			}
		})
	}
}

func TestTopicTableFull(t *testing.T) {
	cfg := tableConfig()
	table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	table.table.limit = table.table.size() + 1
	if _, _, err := table.createInSend(cfg, []byte("A"), []byte("TBW102"), 4, 0, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	var refusal *tableError
	if _, _, err := table.createInSend(cfg, []byte("B"), []byte("TBW102"), 4, 0, netip.AddrPort{}); !errors.As(err, &refusal) || refusal.Code != remoting.RespSystemError {
		t.Errorf("error %v", err)
	}
	if _, err := table.update(cfg, remoting.NewTopicConfig("B")); !errors.As(err, &refusal) {
		t.Errorf("error %v", err)
	}
}

func TestCreateSendBack(t *testing.T) {
	table := mustOpenTopics(t, faultfs.New(), metadataDir, tableConfig())
	topic, generation, err := table.createSendBack("%RETRY%g", 2, 6, false, 2)
	if c := topic.config.Load(); err != nil || generation == 0 || c.ReadQueueNums != 2 || c.Perm != 6 || c.TopicSysFlag != 2 || c.Order {
		t.Fatalf("%+v %d %v", c, generation, err)
	}
	if _, generation, _ = table.createSendBack("%RETRY%g", 5, 4, false, 0); generation != 0 || topic.config.Load().ReadQueueNums != 2 {
		t.Error("an existing topic was changed")
	}
	if _, generation, _ = table.createSendBack("%RETRY%g", 5, 4, true, 0); generation == 0 || !topic.config.Load().Order || topic.config.Load().ReadQueueNums != 2 {
		t.Error("the order flag was not brought up to date")
	}
	dlq, _, err := table.createDLQ("g")
	if c := dlq.config.Load(); err != nil || dlq.Name != "%DLQ%g" || c.WriteQueueNums != 1 || c.Perm != 6 {
		t.Errorf("%+v %v", c, err)
	}
	if _, _, err := table.createSendBack("%RETRY%h", maxTopicQueues+1, 6, false, 0); err == nil {
		t.Error("any number of queues is taken")
	}
}

func TestUpdateTopic(t *testing.T) {
	with := func(name string, attributes ...string) remoting.TopicConfig {
		c := remoting.NewTopicConfig(name)
		c.Attributes = map[string]string{}
		for i := 0; i < len(attributes); i += 2 {
			c.Attributes[attributes[i]] = attributes[i+1]
		}
		return c
	}
	wide := with("Wide")
	wide.ReadQueueNums = maxTopicQueues + 1
	cases := []struct {
		rule   string
		want   remoting.TopicConfig
		code   int32
		remark string
	}{
		{"a blank name", with(""), 29, "The specified topic is blank."},
		{"a name with a space", with("a b"), 29, "contains illegal characters"},
		{"a system topic", with("BenchmarkTest"), 29, "The topic[BenchmarkTest] is conflict with system topic."},
		{"the cluster's topic", with("TestCluster"), 29, "The topic[TestCluster] is conflict with system topic."},
		{"MIXED is switched off", with("T", "+message.type", "MIXED"), 29, "MIXED message type is not supported."},
		{"too many queues", wide, 29, "not in 0..65536"},
		{"an unknown attribute", with("T", "+colour", "red"), 1, "unsupported key: colour"},
		{"a value outside its set", with("T", "+message.type", "RED"), 1, "value is not in set: ["},
		{"taking away from what is not there", with("New", "-message.type", ""), 1, "only add attribute is supported while creating topic. key: message.type"},
		{"taking away what is not there", with("T", "-reserve.time", ""), 1, "attempt to delete a nonexistent key: reserve.time"},
		{"changing what cannot change", with("T", "+queue.type", "BatchCQ"), 1, "attempt to update an unchangeable attribute. key: queue.type"},
		{"no sign", with("T", "message.type", "FIFO"), 1, ""},
	}
	cfg := tableConfig()
	table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	if _, err := table.update(cfg, with("T", "+message.type", "FIFO", "+queue.type", "SimpleCQ")); err != nil {
		t.Fatal(err)
	}
	version := table.dataVersion()
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			generation, err := table.update(cfg, with("Other"), c.want)
			var refusal *tableError
			if !errors.As(err, &refusal) || refusal.Code != c.code || !strings.Contains(refusal.Remark, c.remark) || generation != 0 {
				t.Fatalf("generation %d, error %#v", generation, err)
			}
			if table.find("Other") != nil || table.dataVersion() != version {
				t.Fatal("one of two was made although the other was refused")
			}
		})
	}
}

func TestUpdateTopicChanges(t *testing.T) {
	cfg := tableConfig()
	table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	told := 0
	table.changed = func(*Topic) { told++ }
	step := func(text string, order, changes bool, want map[string]string) {
		t.Helper()
		c := remoting.NewTopicConfig("T")
		c.Order = order
		var err error
		if c.Attributes, err = parseAttributes(text); err != nil {
			t.Fatal(err)
		}
		before := told
		generation, err := table.update(cfg, c)
		if err != nil || (generation != 0) != changes || (told != before) != changes {
			t.Fatalf("%q: generation %d, told %d times, error %v", text, generation, told-before, err)
		}
		got := table.find("T").config.Load()
		if !maps.Equal(got.Attributes, want) || got.Order != order {
			t.Fatalf("%q: %+v", text, got)
		}
	}
	fifo := map[string]string{"message.type": "FIFO"}
	step("+message.type=FIFO", true, true, fifo)
	step("", true, false, fifo)
	step("+message.type=FIFO", true, false, fifo)
	step("", false, true, fifo)
	step("+reserve.time=1000,-message.type", false, true, map[string]string{"reserve.time": "1000"})
}

func TestDeleteTopic(t *testing.T) {
	cfg := tableConfig()
	table := mustOpenTopics(t, faultfs.New(), metadataDir, cfg)
	topic, _, _ := table.createInSend(cfg, []byte("T"), []byte("TBW102"), 4, 0, netip.AddrPort{})
	for _, retry := range []string{"%RETRY%g_T", "%RETRY%h+T", "%RETRY%g_Other"} {
		if _, _, err := table.createSendBack(retry, 1, 6, false, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := table.popRetryTopics("T", []string{"g", "h", "i"}); !slices.Equal(got, []string{"%RETRY%g_T", "%RETRY%h+T"}) {
		t.Errorf("retry topics %v", got)
	}
	if err := table.checkDelete(cfg, "TBW102"); err == nil || !strings.Contains(err.Error(), "conflict with system topic") {
		t.Errorf("error %v", err)
	}
	if err := table.checkDelete(cfg, "  "); err == nil {
		t.Error("a blank name may be deleted")
	}
	if err := table.checkDelete(cfg, "T"); err != nil {
		t.Error(err)
	}
	fault := errors.New("fault")
	got, generation, err := table.delete("T", func(name string) error {
		if name != "T" || table.mu.TryLock() {
			t.Error("the queues must go while no topic can be made")
		}
		return fault
	})
	if got != topic || generation == 0 || err != fault || !topic.deleted.Load() || table.lookup([]byte("T")) != nil {
		t.Error("not deleted")
	}
	if got, generation, err := table.delete("T", func(string) error { return fault }); got != nil || generation != 0 || err != nil {
		t.Error("deleted twice")
	}
	if again, _, _ := table.createInSend(cfg, []byte("T"), []byte("TBW102"), 4, 0, netip.AddrPort{}); again == topic || again.deleted.Load() {
		t.Error("the deleted topic came back")
	}
}

func TestTopicPages(t *testing.T) {
	table := mustOpenTopics(t, faultfs.New(), metadataDir, tableConfig())
	version := string(remoting.EncodeBody(table.dataVersion()))
	all := table.list()
	var names []string
	for seq := 0; ; {
		page, total := table.page(version, seq, 4)
		if total != len(all) {
			t.Fatalf("total %d", total)
		}
		if len(page.TopicConfigTable) == 0 {
			break
		}
		names = append(names, slices.Sorted(maps.Keys(page.TopicConfigTable))...)
		seq += len(page.TopicConfigTable)
	}
	if len(names) != len(all) || !slices.IsSorted(names) {
		t.Fatalf("pages hold %v", names)
	}
	for _, version := range []string{"", "{", `{"counter":99,"stateVersion":0,"timestamp":1}`} {
		if page, _ := table.page(version, 4, 1); len(page.TopicConfigTable) != 1 || page.TopicConfigTable[all[0].Name].TopicName == "" {
			t.Errorf("version %q: %v does not begin again", version, page.TopicConfigTable)
		}
	}
	for _, c := range [][2]int{{-1, 4}, {0, 0}, {0, -1}, {1 << 40, 1 << 40}} {
		if page, _ := table.page(version, c[0], c[1]); len(page.TopicConfigTable) != 0 {
			t.Errorf("seq %d most %d: %d topics", c[0], c[1], len(page.TopicConfigTable))
		}
	}
	if page, _ := table.page(version, 2, 1<<62); len(page.TopicConfigTable) != len(all)-2 {
		t.Errorf("%d topics", len(page.TopicConfigTable))
	}
}

func TestTopicsSurviveARestart(t *testing.T) {
	cfg := tableConfig()
	fsys := faultfs.New()
	table := mustOpenTopics(t, fsys, metadataDir, cfg)
	go table.saver.run()
	c := remoting.NewTopicConfig("T")
	c.Attributes = map[string]string{"+message.type": "FIFO"}
	generation, err := table.update(cfg, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.waitSaved(generation, time.Minute); err != nil {
		t.Fatal(err)
	}
	want := table.snapshot()
	if err := table.saver.stop(); err != nil {
		t.Fatal(err)
	}
	got := mustOpenTopics(t, fsys.Crash(1, faultfs.LoseAll), metadataDir, cfg).snapshot()
	if got.DataVersion != want.DataVersion || len(got.TopicConfigTable) != len(want.TopicConfigTable) || got.TopicConfigTable["T"].Attributes["message.type"] != "FIFO" {
		t.Fatalf("%+v", got)
	}
}

func TestTopicsLoadJavasFile(t *testing.T) {
	fsys := faultfs.New()
	copyGolden(t, fsys, "topics.json")
	table := mustOpenTopics(t, fsys, metadataDir, tableConfig())
	if v := table.dataVersion(); v.Counter < 1 || v.Timestamp < 1_790_000_000_000 {
		t.Errorf("version %+v", v)
	}
	golden := table.find("GoldenTopic")
	if golden == nil || golden.config.Load().WriteQueueNums == 0 || golden.config.Load().Perm&remoting.PermWrite == 0 {
		t.Fatalf("GoldenTopic %+v", golden)
	}
	if c := table.find("%RETRY%golden-orderly"); c == nil || c.config.Load().ReadQueueNums != 1 {
		t.Error("retry topic is missing")
	}
}

func TestTopicCountLeavesLMQOut(t *testing.T) {
	table := mustOpenTopics(t, faultfs.New(), metadataDir, tableConfig())
	before := table.count()
	for i := range 3 {
		if _, _, err := table.createSendBack(fmt.Sprintf("%%LMQ%%child%d", i), 1, 6, false, 0); err != nil {
			t.Fatal(err)
		}
	}
	if table.count() != before {
		t.Errorf("%d topics, before %d", table.count(), before)
	}
}

func TestMarkOrdered(t *testing.T) {
	table := mustOpenTopics(t, faultfs.New(), metadataDir, tableConfig())
	if table.markOrdered([]string{"Nobody"}) != 0 {
		t.Error("an unknown topic is a change")
	}
	if table.markOrdered([]string{"Nobody", "BenchmarkTest"}) == 0 || !table.find("BenchmarkTest").config.Load().Order {
		t.Error("not marked")
	}
	if table.markOrdered([]string{"BenchmarkTest"}) != 0 {
		t.Error("marked twice")
	}
}

func TestTopicLookupAllocatesNothing(t *testing.T) {
	table := mustOpenTopics(t, faultfs.New(), metadataDir, tableConfig())
	name := []byte("rmq_sys_REVIVE_LOG_TestCluster")
	if n := testing.AllocsPerRun(100, func() { table.lookup(name).config.Load() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParseAttributes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "map[]",
		"+a=1":                             "map[+a:1]",
		"+a=1,-b,+c=x":                     "map[+a:1 +c:x -b:]",
		"+a=1,":                            "map[+a:1]",
		"a=1":                              "add/alter attribute format is wrong: a",
		"b":                                "delete attribute format is wrong: b",
		"+a=1,+a=2":                        "key duplication: +a",
		"+a=":                              "kv string format wrong.",
		strings.Repeat("+a=1,", 65) + "-b": "more than 64 attributes in one request",
	} {
		got, err := parseAttributes(text)
		if s := fmt.Sprint(got); err == nil && s != want || err != nil && err.Error() != want {
			t.Errorf("%q: %s %v, want %s", text, s, err, want)
		}
	}
}

func TestAttributeValues(t *testing.T) {
	for _, c := range []struct {
		known      map[string]attribute
		key, value string
		remark     string // "" when the value is right
	}{
		{topicAttributes, "cleanup.policy", "COMPACTION", ""},
		{topicAttributes, "reserve.time", "-1", ""},
		{topicAttributes, "reserve.time", "-2", "value is not in range(-1, 9223372036854775807)"},
		{topicAttributes, "reserve.time", "soon", `For input string: "soon"`},
		{topicAttributes, "lite.topic.expiration", "43200", ""},
		{topicAttributes, "lite.topic.expiration", "43201", "value is not in range(-1, 43200)"},
		{groupAttributes, "priority.factor", "101", "value is not in range(0, 100)"},
		{groupAttributes, "lite.sub.model", "Exclusive", ""},
		{groupAttributes, "lite.sub.reset.offset.exclusive", "TRUE", ""},
		{groupAttributes, "lite.sub.reset.offset.exclusive", "yes", "boolean attribute format is wrong."},
		{groupAttributes, "lite.bind.topic", strings.Repeat("x", 2000), "value of lite.bind.topic is longer than 1024"},
	} {
		got, err := alterAttributes(true, c.known, nil, map[string]string{"+" + c.key: c.value})
		switch {
		case c.remark == "" && (err != nil || got[c.key] != c.value):
			t.Errorf("%s=%s: %v %v", c.key, c.value, got, err)
		case c.remark != "" && (err == nil || err.Error() != c.remark):
			t.Errorf("%s=%s: error %v, want %s", c.key, c.value, err, c.remark)
		}
	}
	if _, err := alterAttributes(false, topicAttributes, map[string]string{"message.type": "FIFO"}, map[string]string{"+message.type": "NORMAL", "-message.type": ""}); err == nil ||
		err.Error() != "alter duplication key. key: message.type" {
		t.Errorf("error %v", err)
	}
	if _, err := alterAttributes(true, topicAttributes, nil, map[string]string{"+": "1"}); err == nil || err.Error() != "kv string format wrong." {
		t.Errorf("error %v", err)
	}
}
