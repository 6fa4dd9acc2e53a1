package broker

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// Names of statistics that request 315 asks for (Stats, BrokerStatsManager), and the form of their keys.
const (
	statTopicPutNums    = "TOPIC_PUT_NUMS"      // topic
	statTopicPutSize    = "TOPIC_PUT_SIZE"      // topic
	statTopicPutLatency = "TOPIC_PUT_LATENCY"   // queueId@topic
	statGroupGetNums    = "GROUP_GET_NUMS"      // topic@group
	statGroupGetSize    = "GROUP_GET_SIZE"      // topic@group
	statSendBackNums    = "SNDBCK_PUT_NUMS"     // topic@group
	statGroupGetLatency = "GROUP_GET_LATENCY"   // queueId@topic@group
	statGroupFallSize   = "GROUP_GET_FALL_SIZE" // queueId@topic@group
	statGroupFallTime   = "GROUP_GET_FALL_TIME" // queueId@topic@group
	statBrokerPutNums   = "BROKER_PUT_NUMS"     // cluster
	statBrokerGetNums   = "BROKER_GET_NUMS"     // cluster
	statUserPutNums     = "BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC"
	statUserGetNums     = "BROKER_GET_NUMS_WITHOUT_SYSTEM_TOPIC"
)

// statNames are those that are not by queue: see stats_queue.go.
var statNames = []string{
	statTopicPutNums, statTopicPutSize, statGroupGetNums, statGroupGetSize, statSendBackNums, statBrokerPutNums, statBrokerGetNums,
	statUserPutNums, statUserGetNums,
}

const (
	// maxStatsKeys bounds the keys of one statistic. What comes for one more is counted where nobody asks, and not by its own key.
	maxStatsKeys = 1 << 18
	// statsIdle is how long a topic or a pair of topic and group is kept without traffic.
	statsIdle = 30 * time.Minute
)

// brokerStats are the counters by topic and group. Does the work of BrokerStatsManager. The hot path holds topicStats and groupStats and adds
// to their items; tick takes the samples.
type brokerStats struct {
	log   *slog.Logger
	store *storeStats
	sets  map[string]*nameTable[statsItem] // by name of the statistic, then by key; the outer map never changes

	topics nameTable[topicStats] // by topic
	groups nameTable[groupStats] // by topic@group

	// What counts when a table is full; no key leads to them.
	lostTopic *topicStats
	lostGroup *groupStats
	lostItem  *statsItem
	lostQueue queueItem
	fullOnce  sync.Once
	// queueBlocks is how many there are in all queueItems. Invariant: queueBlocks <= maxStatsKeys, but for a moment.
	queueBlocks atomic.Int64

	brokerPut, brokerGet, userPut, userGet *statsItem

	// tickMu guards what follows, and the windows of the counters by queue.
	tickMu                           sync.Mutex
	clock                            sampleClock
	minuteTimes, hourTimes, dayTimes sampleTimes
}

// topicStats are the counters of one topic's sends.
type topicStats struct {
	topic            string
	putNums, putSize *statsItem
	latency          queueItems
	idle             idleMark
}

// groupStats are the counters of one group's pulls from a topic.
type groupStats struct {
	topic, group                string
	getNums, getSize, sendBack  *statsItem
	latency, fallSize, fallTime queueItems
	idle                        idleMark
}

// idleMark tells the holder of counters that they were dropped, and tick since when nothing was counted.
type idleMark struct {
	dropped atomic.Bool
	seen    int64 // calls at the latest look
	since   time.Duration
}

// expired is asked by tick only.
func (m *idleMark) expired(calls int64, now time.Duration) bool {
	if calls != m.seen || m.since == 0 {
		m.seen, m.since = calls, max(now, 1)
		return false
	}
	return now-m.since >= statsIdle
}

func newBrokerStats(cluster string, store *storeStats, log *slog.Logger) *brokerStats {
	s := &brokerStats{log: log, store: store, sets: map[string]*nameTable[statsItem]{}, lostItem: &statsItem{}}
	for _, name := range statNames {
		s.sets[name] = &nameTable[statsItem]{limit: maxStatsKeys}
	}
	s.topics.limit, s.groups.limit = maxStatsKeys, maxStatsKeys
	s.lostTopic = &topicStats{putNums: s.lostItem, putSize: s.lostItem}
	s.lostGroup = &groupStats{getNums: s.lostItem, getSize: s.lostItem, sendBack: s.lostItem}
	s.lostTopic.latency.closed = true
	for _, lost := range []*queueItems{&s.lostGroup.latency, &s.lostGroup.fallSize, &s.lostGroup.fallTime} {
		lost.closed = true
	}
	s.brokerPut, s.brokerGet = s.item(statBrokerPutNums, cluster), s.item(statBrokerGetNums, cluster)
	s.userPut, s.userGet = s.item(statUserPutNums, cluster), s.item(statUserGetNums, cluster)
	return s
}

// item makes the counter of a key where there is none.
func (s *brokerStats) item(name, key string) *statsItem {
	i, _ := s.sets[name].getOrAdd(key, func() *statsItem { return new(statsItem) })
	if i == nil {
		s.tellFull()
		return s.lostItem
	}
	return i
}

func (s *brokerStats) tellFull() {
	s.fullOnce.Do(func() {
		s.log.Warn("statistics: too many topics and groups, some are not counted by name", "limit", maxStatsKeys)
	})
}

// ofTopic are a topic's counters. The answer is kept in the topic; it costs one load.
func (s *brokerStats) ofTopic(t *Topic) *topicStats {
	if ts := t.stats.Load(); ts != nil && !ts.idle.dropped.Load() {
		return ts
	}
	ts, _ := s.topics.getOrAdd(t.Name, func() *topicStats {
		return &topicStats{topic: t.Name, putNums: s.item(statTopicPutNums, t.Name), putSize: s.item(statTopicPutSize, t.Name)}
	})
	if ts == nil {
		s.tellFull()
		return s.lostTopic
	}
	t.stats.Store(ts)
	return ts
}

// ofGroup are the counters of a group's pulls from a topic; nothing is allocated when they are there.
func (s *brokerStats) ofGroup(topic, group string) *groupStats {
	var buf [maxPairKey]byte
	key := appendPairKey(buf[:0], topic, group)
	if gs := s.groups.get(key); gs != nil {
		return gs
	}
	return s.addGroup(string(key), topic, group)
}

func (s *brokerStats) addGroup(key, topic, group string) *groupStats {
	gs, _ := s.groups.getOrAdd(key, func() *groupStats {
		return &groupStats{
			topic: topic, group: group, getNums: s.item(statGroupGetNums, key), getSize: s.item(statGroupGetSize, key),
			sendBack: s.item(statSendBackNums, key),
		}
	})
	if gs == nil {
		s.tellFull()
		return s.lostGroup
	}
	return gs
}

// lane is where the i-th reactor counts. Goroutines use any: its counters are safe for all, only slower when shared.
func (s *brokerStats) lane(i int) statsLane { return statsLane{s, s.store.lane(i)} }

// stored, got and the like without a lane count in the first.
func (s *brokerStats) stored(t *Topic, messages int, bytes int64) {
	s.lane(0).stored(t, messages, bytes)
}

func (s *brokerStats) got(group string, t *Topic, messages, bytes int) {
	s.lane(0).got(group, t, messages, bytes)
}

// statsLane is what a reactor counts with.
type statsLane struct {
	stats *brokerStats
	store *storeLane
}

// stored counts messages of one send (a batch has several) and their bytes in the log.
func (l statsLane) stored(t *Topic, messages int, bytes int64) {
	l.storedSends(t, 1, int64(messages), bytes)
}

// storedSends counts several sends to one topic.
func (l statsLane) storedSends(t *Topic, sends, messages, bytes int64) {
	ts := l.stats.ofTopic(t)
	ts.putNums.addSum(messages, sends)
	ts.putSize.addSum(bytes, sends)
	l.store.stored(messages, bytes, t.system)
}

// putTook counts how long a send took from the frame to the answer.
func (l statsLane) putTook(t *Topic, queueID int32, millis int64) { l.putsTook(t, queueID, 1, millis) }

// putsTook counts several sends to one queue that took as long.
func (l statsLane) putsTook(t *Topic, queueID int32, sends, millis int64) {
	l.store.putsTook(sends, millis)
	ts := l.stats.ofTopic(t)
	l.stats.queueItem(&ts.latency, queueID).add(sends*millis, sends)
}

// putFailed counts a send that could not be stored.
func (l statsLane) putFailed() { l.store.putFailed.Add(1) }

// got counts one pull that was answered: the messages that it sends and their bytes. 0 messages: it found none.
func (l statsLane) got(group string, t *Topic, messages, bytes int) {
	if messages == 0 {
		l.store.got(0, t.system)
		return
	}
	l.gotOf(l.stats.ofGroup(t.Name, group), t, messages, bytes)
}

// gotOf counts a pull that found messages.
func (l statsLane) gotOf(gs *groupStats, t *Topic, messages, bytes int) {
	l.store.got(int64(messages), t.system)
	gs.getNums.add(int64(messages))
	gs.getSize.add(int64(bytes))
}

// getTook counts how long a pull that found messages took to look them up.
func (l statsLane) getTook(gs *groupStats, queueID int32, millis int64) {
	raise(&l.store.getMaxMillis, millis)
	l.stats.queueItem(&gs.latency, queueID).add(millis, 1)
}

// sentBack counts one message that a consumer wants again.
func (s *brokerStats) sentBack(topic, group string) { s.ofGroup(topic, group).sendBack.add(1) }

// fellBehind notes how far behind the end of the log a pull was that had to read from the disk.
func (s *brokerStats) fellBehind(topic, group string, queueID int32, bytes, millis int64) {
	gs := s.ofGroup(topic, group)
	s.queueItem(&gs.fallSize, queueID).set(bytes)
	s.queueItem(&gs.fallTime, queueID).set(millis)
}

// view is the answer to request 315. False: there is no such statistic or key.
func (s *brokerStats) view(name, key string) (remoting.BrokerStatsData, bool) {
	set := s.sets[name]
	if set == nil {
		return s.viewQueue(name, key)
	}
	i := set.find(key)
	if i == nil {
		return remoting.BrokerStatsData{}, false
	}
	return i.data(), true
}

// tick is called about once a second with the monotonic and the wall clock. It takes the samples that are due and drops what is idle.
func (s *brokerStats) tick(now time.Duration, wall time.Time) {
	s.store.tick(now, wall)
	s.tickMu.Lock()
	defer s.tickMu.Unlock()
	due := s.clock.due(now)
	if due == (dueWindows{}) {
		return
	}
	t := s.store.totals()
	s.brokerPut.value.Store(t.puts)
	s.brokerGet.value.Store(t.transferred)
	s.userPut.value.Store(t.userPuts)
	s.userGet.value.Store(t.userGets)
	for _, set := range s.sets {
		for _, i := range set.all() {
			i.sample(now, due)
		}
	}
	s.sampleQueues(now, due)
	if due.hour {
		s.dropIdle(now)
	}
}

func (s *brokerStats) dropIdle(now time.Duration) {
	for _, ts := range s.topics.all() {
		if ts.idle.expired(ts.putNums.times.Load(), now) {
			s.dropTopicStats(ts)
		}
	}
	for _, gs := range s.groups.all() {
		if gs.idle.expired(gs.getNums.times.Load()+gs.sendBack.times.Load(), now) {
			s.dropGroupStats(gs)
		}
	}
}

func (s *brokerStats) dropTopicStats(ts *topicStats) {
	ts.idle.dropped.Store(true)
	s.topics.remove(ts.topic)
	s.sets[statTopicPutNums].remove(ts.topic)
	s.sets[statTopicPutSize].remove(ts.topic)
	s.dropQueueItems(&ts.latency)
}

func (s *brokerStats) dropGroupStats(gs *groupStats) {
	gs.idle.dropped.Store(true)
	key := gs.topic + "@" + gs.group
	s.groups.remove(key)
	for _, name := range []string{statGroupGetNums, statGroupGetSize, statSendBackNums} {
		s.sets[name].remove(key)
	}
	s.dropQueueItems(&gs.latency)
	s.dropQueueItems(&gs.fallSize)
	s.dropQueueItems(&gs.fallTime)
}

// topicDeleted forgets what was counted for a topic.
func (s *brokerStats) topicDeleted(topic string) {
	if ts := s.topics.find(topic); ts != nil {
		s.dropTopicStats(ts)
	}
	for _, gs := range s.groups.all() {
		if gs.topic == topic {
			s.dropGroupStats(gs)
		}
	}
}

// groupDeleted forgets what was counted for a group.
func (s *brokerStats) groupDeleted(group string) {
	for _, gs := range s.groups.all() {
		if gs.group == group {
			s.dropGroupStats(gs)
		}
	}
}
