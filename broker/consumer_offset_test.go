package broker

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

func mustOpenOffsets(t testing.TB, fsys ioengine.FS) *consumerOffsets {
	t.Helper()
	o, err := openOffsets(fsys, metadataDir, tableConfig(), newTableClock().now, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

var offsetTopic, offsetGroup = []byte("T"), []byte("g")

func TestCommitAndQuery(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	if _, ok := o.query(offsetTopic, offsetGroup, 0); ok {
		t.Error("found before any commit")
	}
	o.commitPull(offsetTopic, offsetGroup, 0, 99)
	if _, ok := o.query(offsetTopic, offsetGroup, 0); ok {
		t.Error("a pull counts as a commit")
	}
	if o.committed("T", "g") != nil || len(o.groupsOf("T")) != 0 {
		t.Error("a pull counts as a commit in the lists")
	}
	for _, offset := range []int64{5, 3, 0, -1, math.MaxInt64} {
		if r := o.commit(offsetTopic, offsetGroup, 0, offset); r != commitStored {
			t.Errorf("commit %d: %d", offset, r)
		}
		if got, ok := o.query(offsetTopic, offsetGroup, 0); !ok || got != offset {
			t.Errorf("query: %d %t, want %d", got, ok, offset)
		}
	}
	if _, ok := o.query(offsetTopic, offsetGroup, 1); ok {
		t.Error("another queue has an offset")
	}
	if got, ok := o.queryPull(offsetTopic, offsetGroup, 0); !ok || got != 99 {
		t.Errorf("pulled %d %t", got, ok)
	}
	o.commit(offsetTopic, offsetGroup, 1, 7)
	if got, ok := o.queryPull(offsetTopic, offsetGroup, 1); !ok || got != 7 {
		t.Errorf("a queue that was not pulled: %d %t", got, ok)
	}
	for _, queueID := range []int32{-1, maxTopicQueues, math.MaxInt32} {
		if r := o.commit(offsetTopic, offsetGroup, queueID, 1); r != commitRefused {
			t.Errorf("queue %d: %d", queueID, r)
		}
	}
	o.pairs.limit = o.pairs.size()
	if r := o.commit(offsetTopic, []byte("other"), 0, 1); r != commitRefused {
		t.Errorf("full table: %d", r)
	}
}

func TestReset(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	o.commit(offsetTopic, offsetGroup, 0, 50)
	if _, r := o.assignReset("T", "g", 0, 10); r != commitStored {
		t.Fatal(r)
	}
	if got, ok := o.query(offsetTopic, offsetGroup, 0); !ok || got != 10 {
		t.Errorf("query while pending: %d %t", got, ok)
	}
	if r := o.commit(offsetTopic, offsetGroup, 0, 60); r != commitPending {
		t.Errorf("commit while pending: %d", r)
	}
	if r := o.commit(offsetTopic, offsetGroup, 1, 60); r != commitStored {
		t.Errorf("commit to another queue: %d", r)
	}
	if got, ok := o.takeReset(offsetTopic, offsetGroup, 0); !ok || got != 10 {
		t.Errorf("take: %d %t", got, ok)
	}
	if _, ok := o.takeReset(offsetTopic, offsetGroup, 0); ok {
		t.Error("taken twice")
	}
	if got, ok := o.query(offsetTopic, offsetGroup, 0); !ok || got != 10 {
		t.Errorf("after the pull: %d %t", got, ok)
	}
	if r := o.commit(offsetTopic, offsetGroup, 0, 12); r != commitStored {
		t.Errorf("commit after the pull: %d", r)
	}
	for _, c := range []struct {
		topic, group string
		queueID      int32
		offset       int64
	}{{"", "g", 0, 1}, {"T", "", 0, 1}, {"T", "g", -1, 1}, {"T", "g", 0, -1}, {"T", "g", maxTopicQueues, 1}} {
		if _, r := o.assignReset(c.topic, c.group, c.queueID, c.offset); r != commitRefused {
			t.Errorf("%+v: %d", c, r)
		}
	}
}

func TestOffsetLists(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	for _, pair := range [][2]string{{"T", "g"}, {"T", "h"}, {"U", "g"}} {
		for queueID := range int32(2) {
			o.commit([]byte(pair[0]), []byte(pair[1]), queueID, 10*int64(len(pair[1]))+int64(queueID))
		}
	}
	o.commit([]byte("T"), []byte("h"), 0, 4)
	if got := o.groupsOf("T"); !slices.Equal(got, []string{"g", "h"}) {
		t.Errorf("groups %v", got)
	}
	if got := o.topicsOf("g"); !slices.Equal(got, []string{"T", "U"}) {
		t.Errorf("topics %v", got)
	}
	fromZero := func(int32) int64 { return 0 }
	for _, c := range []struct {
		rule     string
		filtered []string
		compare  string
		least    func(int32) int64
		want     map[int32]int64
	}{
		{"the smallest of all groups", nil, "", fromZero, map[int32]int64{0: 4, 1: 11}},
		{"without the filtered groups", []string{"h"}, "", fromZero, map[int32]int64{0: 10, 1: 11}},
		{"offsets of deleted messages do not count", nil, "", func(int32) int64 { return 5 }, map[int32]int64{0: 10, 1: 11}},
		{"a group behind that is told to stay", []string{"h"}, "h", fromZero, map[int32]int64{0: math.MaxInt64, 1: 11}},
	} {
		if got := o.corrections("T", c.filtered, c.compare, c.least); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.rule, got, c.want)
		}
	}
	if !slices.Equal(o.groupsOf("T"), []string{"g", "h"}) {
		t.Error("asking for corrections deleted offsets")
	}
	if o.clone("g", "new", "U") == 0 || !maps.Equal(o.committed("U", "new"), map[int32]int64{0: 10, 1: 11}) {
		t.Errorf("clone: %v", o.committed("U", "new"))
	}
	if o.clone("nobody", "g", "U") != 0 || o.committed("U", "g") == nil {
		t.Error("cloning nothing changed something")
	}
	if o.deleteGroup("g") == 0 || len(o.topicsOf("g")) != 0 || len(o.topicsOf("h")) != 1 {
		t.Error("deleteGroup")
	}
	if o.deleteTopic("T") == 0 || len(o.groupsOf("T")) != 0 || len(o.groupsOf("U")) != 1 {
		t.Error("deleteTopic")
	}
}

func TestOffsetsSurviveARestart(t *testing.T) {
	fsys := faultfs.New()
	o := mustOpenOffsets(t, fsys)
	go o.saver.run()
	for queueID := range int32(3) {
		o.commit(offsetTopic, offsetGroup, queueID, int64(queueID)*100)
	}
	o.commit([]byte("A"), []byte("a"), 0, 1)
	o.commit([]byte("B"), []byte("a"), 0, 1)
	o.commitPull(offsetTopic, offsetGroup, 0, 7)
	o.assignReset("T", "g", 1, 5)
	if err := o.saver.stop(); err != nil {
		t.Fatal(err)
	}
	again := mustOpenOffsets(t, fsys.Crash(1, faultfs.LoseAll))
	if got, want := again.snapshot(), o.snapshot(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if r := again.commit(offsetTopic, offsetGroup, 1, 9); r != commitPending {
		t.Errorf("the pending reset was forgotten: %d", r)
	}
	if got, ok := again.takeReset(offsetTopic, offsetGroup, 1); !ok || got != 5 {
		t.Errorf("reset %d %t", got, ok)
	}
}

// The file is plain JSON (number keys quoted), with Java's members.
func TestOffsetFileForm(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	if text := string(o.encode()); text != `{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000001},"groupTopicMap":{},"offsetTable":{},"pullOffsetTable":{},"resetOffsetTable":{}}` {
		t.Errorf("empty: %s", text)
	}
	for _, pair := range [][2]string{{"T", "g"}, {"U", "g"}, {"T", "h"}} {
		o.commit([]byte(pair[0]), []byte(pair[1]), 10, 1)
		o.commit([]byte(pair[0]), []byte(pair[1]), 2, 3)
	}
	o.commitPull(offsetTopic, []byte("onlyPulls"), 0, 1)
	const want = `{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000001},"groupTopicMap":{"g":["T","U"],"h":["T"]},` +
		`"offsetTable":{"T@g":{"2":3,"10":1},"U@g":{"2":3,"10":1},"T@h":{"2":3,"10":1}},"pullOffsetTable":{"T@onlyPulls":{"0":1}},"resetOffsetTable":{}}`
	if text := o.encode(); string(text) != want || !json.Valid(text) {
		t.Errorf("%s\nwant %s", text, want)
	}
}

func TestOffsetsLoadJavasFile(t *testing.T) {
	fsys := faultfs.New()
	copyGolden(t, fsys, "consumerOffset.json")
	o := mustOpenOffsets(t, fsys)
	if !slices.Contains(o.groupsOf("GoldenTopic"), "golden-consumer") {
		t.Fatalf("groups %v", o.groupsOf("GoldenTopic"))
	}
	if got := o.committed("GoldenTopic", "golden-consumer"); len(got) == 0 || got[0] <= 0 {
		t.Errorf("offsets %v", got)
	}
}

func TestOffsetsLeaveBadKeysOut(t *testing.T) {
	fsys := faultfs.New()
	if err := fsys.MkdirAll(metadataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := `{"offsetTable":{"T@g":{0:1,-3:4,99999999:5},"noAt":{0:1},"a@b@c":{0:1},"@g":{0:1}}}`
	if err := ioengine.WriteFileAtomic(fsys, metadataDir+"/consumerOffset.json", []byte(text)); err != nil {
		t.Fatal(err)
	}
	o := mustOpenOffsets(t, fsys)
	if got := o.snapshot().OffsetTable; len(got) != 1 || !maps.Equal(got["T@g"], map[int32]int64{0: 1}) {
		t.Errorf("%v", got)
	}
}

func TestOffsetVersion(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	for i := range int64(2 * offsetVersionStep) {
		o.commit(offsetTopic, offsetGroup, 0, i)
	}
	if v := o.dataVersion(); v.Counter != 2 {
		t.Errorf("version %+v", v)
	}
	before := o.saver.dirty.Load()
	o.commit(offsetTopic, offsetGroup, 0, 2*offsetVersionStep-1)
	if o.saver.dirty.Load() != before {
		t.Error("a commit of the same offset makes the file be written again")
	}
}

func TestCommitAllocatesNothing(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	topic, group := []byte("some-longer-topic-name-than-32-bytes"), []byte("and-a-group-name")
	o.commit(topic, group, 3, 0)
	offset := int64(1)
	if n := testing.AllocsPerRun(2000, func() {
		o.commit(topic, group, 3, offset)
		o.commitPull(topic, group, 3, offset)
		o.query(topic, group, 3)
		o.takeReset(topic, group, 3)
		offset++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOffsetsConcurrent(t *testing.T) {
	o := mustOpenOffsets(t, faultfs.New())
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			group := fmt.Appendf(nil, "g%d", w%2)
			for i := range int64(500) {
				o.commit(fmt.Appendf(nil, "T%d", i%50), group, int32(w), i)
				if i%100 == 0 {
					o.encode()
					o.corrections("T1", nil, "g0", func(int32) int64 { return 0 })
				}
			}
		})
	}
	workers.Wait()
	if n := len(o.groupsOf("T7")); n != 2 {
		t.Errorf("%d groups", n)
	}
	if got := o.committed("T7", "g1"); !maps.Equal(got, map[int32]int64{1: 457, 3: 457}) {
		t.Errorf("%v", got)
	}
}

func BenchmarkCommit(b *testing.B) {
	o := mustOpenOffsets(b, faultfs.New())
	offset := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		o.commit(offsetTopic, offsetGroup, 3, offset)
		offset++
	}
}
