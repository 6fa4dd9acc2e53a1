package broker

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

func newTestStats(lanes int) *brokerStats {
	return newBrokerStats("TestCluster", newStoreStats(lanes, 0), quiet())
}

// statsDay is a morning; tick's wall clock is it plus now.
var statsDay = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func tickTo(s *brokerStats, from, to time.Duration) {
	for now := from; now <= to; now += time.Second {
		s.tick(now, statsDay.Add(now))
	}
}

func mustView(t testing.TB, s *brokerStats, name, key string) remoting.BrokerStatsData {
	t.Helper()
	data, ok := s.view(name, key)
	if !ok {
		t.Fatalf("no %s %s", name, key)
	}
	return data
}

func TestWindows(t *testing.T) {
	var w window
	if w.figures() != (remoting.BrokerStatsItem{}) {
		t.Error("figures without samples")
	}
	// 100 calls of 5 each in every period, so 30 samples hold the latest six periods.
	for i := range int64(30) {
		w.add(minuteWindow, sample{time.Duration(i+1) * 10 * time.Second, reading{500 * (i + 1), 100 * (i + 1)}}, reading{})
		periods := min(i+1, 6)
		want := remoting.BrokerStatsItem{Sum: 500 * periods, Tps: 50, Avgpt: 5}
		if got := w.figures(); got != want {
			t.Fatalf("after %d samples: %+v, want %+v", i+1, got, want)
		}
	}
	if len(w) != 7 {
		t.Errorf("%d samples are kept", len(w))
	}
}

// A counter of which nothing was counted for a whole window holds no memory for it, and goes on from where it was.
func TestIdleWindowsAreGivenBack(t *testing.T) {
	var i statsItem
	now := time.Duration(0)
	tick := func(ticks int) {
		for range ticks {
			now += 10 * time.Second
			i.sample(now, dueWindows{minute: true, hour: true, day: true})
		}
	}
	tick(3)
	if i.minute != nil || i.hour != nil || i.day != nil {
		t.Error("a counter that was never used holds windows")
	}
	i.add(50)
	tick(1)
	if got, want := i.data().StatsMinute, (remoting.BrokerStatsItem{Sum: 50, Tps: 5, Avgpt: 50}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	tick(5)
	if i.data().StatsMinute.Sum != 50 {
		t.Error("given back while it still shows something")
	}
	tick(30)
	if i.minute != nil || i.hour != nil || i.day != nil {
		t.Errorf("%d, %d and %d samples of nothing are kept", len(i.minute), len(i.hour), len(i.day))
	}
	if allocs := testing.AllocsPerRun(100, func() { tick(1) }); allocs > 0 {
		t.Errorf("%v allocations to sample an idle counter", allocs)
	}
	i.add(7)
	tick(1)
	if got, want := i.data().StatsMinute, (remoting.BrokerStatsItem{Sum: 7, Tps: 0.7, Avgpt: 7}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestSampleClock(t *testing.T) {
	var c sampleClock
	start := 1000 * time.Second
	counts := [3]int{}
	for now := start; now <= start+2*time.Hour; now += time.Second {
		due := c.due(now)
		for i, d := range []bool{due.minute, due.hour, due.day} {
			if d {
				counts[i]++
			}
		}
	}
	if counts != [3]int{721, 13, 3} {
		t.Errorf("samples %v", counts)
	}
	if due := c.due(start + 10*time.Hour); due != (dueWindows{true, true, true}) {
		t.Errorf("late tick: %+v", due)
	}
	if due := c.due(start + 10*time.Hour + time.Second); due != (dueWindows{}) {
		t.Errorf("a late tick is made up for: %+v", due)
	}
}

func TestBrokerStats(t *testing.T) {
	s := newTestStats(2)
	topic := &Topic{Name: "T"}
	system := &Topic{Name: "SCHEDULE_TOPIC_XXXX", system: true}
	s.tick(0, statsDay)
	for second := range 60 {
		lane := s.lane(second)
		lane.stored(topic, 2, 300)
		lane.putTook(topic, 3, 4)
		lane.stored(system, 1, 10)
		lane.got("g", topic, 5, 1000)
		lane.got("g", topic, 0, 0)
		lane.getTook(s.ofGroup(topic.Name, "g"), 3, 6)
		s.sentBack("T", "g")
		now := time.Duration(second+1) * time.Second
		s.tick(now, statsDay.Add(now))
	}
	s.fellBehind("T", "g", 3, 4096, 17)
	for _, c := range []struct {
		name, key string
		sum       int64
		tps, avg  float64
	}{
		{"TOPIC_PUT_NUMS", "T", 120, 2, 2},
		{"TOPIC_PUT_SIZE", "T", 18000, 300, 300},
		{"TOPIC_PUT_LATENCY", "3@T", 240, 4, 4},
		{"GROUP_GET_NUMS", "T@g", 300, 5, 5},
		{"GROUP_GET_SIZE", "T@g", 60000, 1000, 1000},
		{"GROUP_GET_LATENCY", "3@T@g", 360, 6, 6},
		{"SNDBCK_PUT_NUMS", "T@g", 60, 1, 1},
		{"BROKER_PUT_NUMS", "TestCluster", 180, 3, 0},
		{"BROKER_GET_NUMS", "TestCluster", 300, 5, 0},
		{"BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC", "TestCluster", 120, 2, 0},
	} {
		got := mustView(t, s, c.name, c.key).StatsMinute
		if got.Sum != c.sum || math.Abs(got.Tps-c.tps) > 1e-9 || math.Abs(got.Avgpt-c.avg) > 1e-9 {
			t.Errorf("%s %s: %+v", c.name, c.key, got)
		}
	}
	if got := mustView(t, s, "GROUP_GET_FALL_SIZE", "3@T@g").StatsMinute.Sum; got != 4096 {
		t.Errorf("fall size %d", got)
	}
	if got := mustView(t, s, "GROUP_GET_FALL_TIME", "3@T@g").StatsMinute.Sum; got != 17 {
		t.Errorf("fall time %d", got)
	}
	for _, c := range [][2]string{{"TOPIC_PUT_NUMS", "U"}, {"NO_SUCH_NAME", "T"}, {"TOPIC_PUT_LATENCY", "4@T"}} {
		if _, ok := s.view(c[0], c[1]); ok {
			t.Errorf("%v exists", c)
		}
	}
}

func TestStatsAreForgotten(t *testing.T) {
	s := newTestStats(1)
	busy, idle := &Topic{Name: "busy"}, &Topic{Name: "idle"}
	use := func(topic *Topic) {
		s.stored(topic, 1, 1)
		s.lane(0).putTook(topic, 40, 1)
		s.got("g", topic, 1, 1)
	}
	exists := func(topic string) [3]bool {
		_, a := s.view(statTopicPutNums, topic)
		_, b := s.view(statTopicPutLatency, "40@"+topic)
		_, c := s.view(statGroupGetNums, topic+"@g")
		return [3]bool{a, b, c}
	}
	all, none := [3]bool{true, true, true}, [3]bool{}
	use(idle)
	for now := time.Duration(0); now <= statsIdle+20*time.Minute; now += 10 * time.Second {
		use(busy)
		s.tick(now, statsDay.Add(now))
	}
	if exists("busy") != all || exists("idle") != none {
		t.Fatalf("busy %v, idle %v", exists("busy"), exists("idle"))
	}
	use(idle)
	if exists("idle") != all {
		t.Fatal("a topic that wakes up is not counted")
	}
	s.topicDeleted("idle")
	if exists("idle") != none || exists("busy") != all {
		t.Fatalf("busy %v, idle %v", exists("busy"), exists("idle"))
	}
	s.groupDeleted("g")
	if exists("busy") != [3]bool{true, true, false} {
		t.Fatalf("busy %v", exists("busy"))
	}
}

func TestStatsAreBounded(t *testing.T) {
	s := newTestStats(1)
	s.topics.limit, s.groups.limit = 2, 2
	for i := range 5 {
		topic := &Topic{Name: fmt.Sprint("T", i)}
		s.stored(topic, 1, 1)
		s.lane(0).putTook(topic, 1, 1)
		s.got("g", topic, 1, 1)
		s.lane(0).getTook(s.ofGroup(topic.Name, "g"), 1, 1)
		s.lane(0).putTook(topic, -1, 1)
		s.lane(0).putTook(topic, math.MaxInt32, 1)
	}
	if n := s.sets[statTopicPutNums].size(); n != 2 {
		t.Errorf("%d topics are counted", n)
	}
	if n := s.queueBlocks.Load(); n != 4 {
		t.Errorf("%d blocks of queues are counted", n)
	}
	if n := s.store.totals().puts; n != 5 {
		t.Errorf("%d messages in all", n)
	}
}

func TestRuntimeFigures(t *testing.T) {
	s := newTestStats(3)
	topic := &Topic{Name: "T"}
	table := map[string]string{}
	s.store.addTo(table, 0)
	for name, want := range map[string]string{"putTps": "0.0 0.0 0.0", "putMessageTimesTotal": "0", "putMessageAverageSize": "0.0", "putLatency99": "0.00"} {
		if table[name] != want {
			t.Errorf("at start %s = %s", name, table[name])
		}
	}
	s.tick(0, statsDay)
	for second := 1; second <= 61; second++ {
		for i := range 100 {
			lane := s.lane(i)
			lane.stored(topic, 1, 50)
			lane.putTook(topic, 0, []int64{0, 0, 0, 5, 15}[i%5])
		}
		s.lane(1).got("g", topic, 10, 10)
		s.lane(2).got("g", topic, 0, 0)
		now := time.Duration(second) * time.Second
		s.tick(now, statsDay.Add(now))
	}
	s.lane(0).putFailed()
	s.lane(1).putTook(topic, 0, 777)
	s.lane(1).getTook(s.ofGroup(topic.Name, "g"), 0, 33)
	s.store.addTo(table, (26*time.Hour + 3*time.Minute + 4*time.Second).Milliseconds())
	for name, want := range map[string]string{
		"bootTimestamp": "0", "runtime": "[ 1 days, 2 hours, 3 minutes, 4 seconds ]",
		"putTps": "100.0 100.0 100.0", "getFoundTps": "1.0 1.0 1.0", "getMissTps": "1.0 1.0 1.0", "getTotalTps": "2.0 2.0 2.0", "getTransferredTps": "10.0 10.0 10.0",
		"putMessageTimesTotal": "6100", "putMessageSizeTotal": "305000", "putMessageAverageSize": "50.0", "putMessageFailedTimes": "1",
		"putMessageEntireTimeMax": "777", "getMessageEntireTimeMax": "33",
		"putMessageDistributeTime": "[<=0ms]:3600 [0~10ms]:1200 [10~50ms]:1200 [50~100ms]:0 [100~200ms]:0 [200~500ms]:0 [500ms~1s]:0 [1~2s]:0 [2~3s]:0 [3~4s]:0 [4~5s]:0 [5~10s]:0 [10s~]:0 ",
		"putLatency99":             "14.95", "putLatency999": "14.99",
		"msgPutTotalTodayNow": "6100", "msgPutTotalTodayMorning": "0", "msgPutTotalYesterdayMorning": "0", "msgGetTotalTodayNow": "610",
	} {
		if table[name] != want {
			t.Errorf("%s = %s, want %s", name, table[name], want)
		}
	}
}

func TestDayTotals(t *testing.T) {
	s := newStoreStats(1, 0)
	s.lane(0).stored(7, 1, false)
	s.lane(0).stored(100, 1, true)
	s.tick(1, statsDay)
	s.tick(2, statsDay.AddDate(0, 0, 1))
	s.lane(0).stored(3, 1, false)
	s.lane(0).got(2, false)
	s.tick(3, statsDay.AddDate(0, 0, -5)) // the wall clock was put back
	s.tick(4, statsDay.AddDate(0, 0, 1))
	s.tick(5, statsDay.AddDate(1, 0, 2))
	table := map[string]string{}
	s.addTo(table, 0)
	got := []string{table["msgPutTotalYesterdayMorning"], table["msgPutTotalTodayMorning"], table["msgPutTotalTodayNow"], table["msgGetTotalTodayMorning"]}
	if strings.Join(got, " ") != "7 10 10 2" {
		t.Errorf("%v", got)
	}
}

func TestLatencyClasses(t *testing.T) {
	if len(latencyLimits) != latencyClasses {
		t.Fatalf("%d classes", len(latencyLimits))
	}
	ends := map[int]int64{0: 1, 19: 20, 34: 50, 44: 100, 54: 200, 60: 500, 65: 1000, 74: 10000, 75: math.MaxInt64}
	for class, end := range ends {
		if latencyLimits[class] != end {
			t.Errorf("class %d ends at %d, want %d", class, latencyLimits[class], end)
		}
	}
	s := newStoreStats(1, 0)
	for millis, class := range map[int64]int{0: 0, 1: 1, 9: 1, 10: 2, 49: 2, 50: 3, 999: 6, 1000: 7, 9999: 11, 10000: 12, math.MaxInt64: 12, -5: 0} {
		before := s.totals().putTimes[class]
		s.lane(0).putsTook(1, millis)
		if s.totals().putTimes[class] != before+1 {
			t.Errorf("%d ms is not counted as %s", millis, putTimeNames[class])
		}
	}
}

func TestStatsAllocateNothing(t *testing.T) {
	s := newTestStats(1)
	topic := &Topic{Name: "some-topic-with-a-longer-name"}
	lane := s.lane(0)
	use := func() {
		lane.stored(topic, 1, 100)
		lane.putTook(topic, 7, 1)
		lane.got("and-its-consumer-group", topic, 1, 100)
		lane.getTook(s.ofGroup(topic.Name, "and-its-consumer-group"), 7, 1)
	}
	use()
	if n := testing.AllocsPerRun(200, use); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTickOverHours(t *testing.T) {
	s := newTestStats(1)
	topic := &Topic{Name: "T"}
	for minute := range 120 {
		s.stored(topic, 60, 1)
		from := time.Duration(minute) * time.Minute
		tickTo(s, from, from+59*time.Second)
	}
	data := mustView(t, s, statTopicPutNums, "T")
	if data.StatsHour.Sum != 3600 || math.Abs(data.StatsHour.Tps-1) > 1e-9 || data.StatsDay.Sum < 3600 {
		t.Errorf("%+v", data)
	}
	if n := len(s.store.samples); n != storeSamples {
		t.Errorf("%d samples are kept", n)
	}
}
