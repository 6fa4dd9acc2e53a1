package broker

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// Counters by queue. There may be 100,000 queues, each with a counter that every message adds to and windows that every tick looks at, so
// neighbours lie side by side, without a name of their own, and a window keeps what came between its samples in 8 bytes each; when the samples
// were taken is the same for all.

// queueItems are the counters of the queues of one topic, or of one group's pulls from it, made when a queue is first used.
type queueItems struct {
	mu sync.Mutex
	// closed: none are made any more, because the owner was dropped or is one of those that count what is lost. Belongs to mu.
	closed bool
	blocks atomic.Pointer[[]atomic.Pointer[queueBlock]] // by queueId / queueBlockItems; replaced under mu
}

// queueBlockItems is the queues of an ordinary topic.
const queueBlockItems = 8

type queueBlock [queueBlockItems]queueItem

// queueItem is the counter of one queue.
type queueItem struct {
	value, times atomic.Int64 // as in statsItem
	// Nil until something is counted; they belong to the holder of brokerStats.tickMu.
	minute, hour *shortWindow
	day          *longWindow
}

// add adds what several calls came to.
func (i *queueItem) add(value, times int64) {
	if value != 0 {
		i.value.Add(value)
	}
	i.times.Add(times)
}

// set is for a counter that is the latest reading and no sum.
func (i *queueItem) set(value int64) {
	i.value.Store(value)
	i.times.Store(1)
}

// at is nil for a queue without a counter.
func (q *queueItems) at(queueID int32) *queueItem {
	blocks := q.blocks.Load()
	if blocks == nil || queueID < 0 || int(queueID/queueBlockItems) >= len(*blocks) {
		return nil
	}
	b := (*blocks)[queueID/queueBlockItems].Load()
	if b == nil {
		return nil
	}
	return &b[queueID%queueBlockItems]
}

// queueItem makes the counter of a queue where there is none.
func (s *brokerStats) queueItem(q *queueItems, queueID int32) *queueItem {
	if i := q.at(queueID); i != nil {
		return i
	}
	if queueID < 0 || queueID >= maxTopicQueues {
		return &s.lostQueue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := q.at(queueID); i != nil {
		return i
	}
	if q.closed {
		return &s.lostQueue
	}
	return s.addBlockLocked(q, queueID)
}

func (s *brokerStats) addBlockLocked(q *queueItems, queueID int32) *queueItem {
	if s.queueBlocks.Add(1) > maxStatsKeys {
		s.queueBlocks.Add(-1)
		s.tellFull()
		return &s.lostQueue
	}
	at := int(queueID / queueBlockItems)
	blocks := q.blocks.Load()
	if blocks == nil || at >= len(*blocks) {
		longer := make([]atomic.Pointer[queueBlock], max(1, 2*at))
		if blocks != nil {
			for n := range *blocks {
				longer[n].Store((*blocks)[n].Load())
			}
		}
		q.blocks.Store(&longer)
		blocks = &longer
	}
	b := new(queueBlock)
	(*blocks)[at].Store(b)
	return &b[queueID%queueBlockItems]
}

// each visits the queues that something was counted for.
func (q *queueItems) each(visit func(i *queueItem)) {
	blocks := q.blocks.Load()
	if blocks == nil {
		return
	}
	for n := range *blocks {
		if b := (*blocks)[n].Load(); b != nil {
			for i := range b {
				if b[i].times.Load() != 0 {
					visit(&b[i])
				}
			}
		}
	}
}

// dropQueueItems makes room for others; whoever still adds to these adds in vain.
func (s *brokerStats) dropQueueItems(q *queueItems) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	blocks := q.blocks.Swap(nil)
	if blocks == nil {
		return
	}
	for n := range *blocks {
		if (*blocks)[n].Load() != nil {
			s.queueBlocks.Add(-1)
		}
	}
}

// counts is a reading of a counter modulo 2^32, or what came between two.
type counts struct{ value, times uint32 }

// shortWindow and longWindow are what came between the latest samples, n of them, oldest first.
type shortWindow struct {
	last   counts // the reading at the latest sample
	n      int64
	deltas [6]counts
}

type longWindow struct {
	last   counts
	n      int64
	deltas [24]counts
}

// take takes a sample. A window in which nothing was counted is empty.
func take(last *counts, n *int64, deltas []counts, now counts) {
	d := counts{now.value - last.value, now.times - last.times}
	*last = now
	if *n == 0 && d == (counts{}) {
		return
	}
	if int(*n) == len(deltas) {
		copy(deltas, deltas[1:])
		*n--
	}
	deltas[*n] = d
	*n++
	for _, d := range deltas[:*n] {
		if d != (counts{}) {
			return
		}
	}
	*n = 0
}

// sample takes the samples that are due. The caller holds brokerStats.tickMu.
func (i *queueItem) sample(due dueWindows) {
	now := counts{uint32(i.value.Load()), uint32(i.times.Load())}
	if due.minute {
		i.minute = i.minute.sampled(now)
	}
	if due.hour {
		i.hour = i.hour.sampled(now)
	}
	if due.day {
		if i.day == nil {
			i.day = new(longWindow)
		}
		take(&i.day.last, &i.day.n, i.day.deltas[:], now)
	}
}

func (w *shortWindow) sampled(now counts) *shortWindow {
	if w == nil {
		w = new(shortWindow)
	}
	take(&w.last, &w.n, w.deltas[:], now)
	return w
}

// sampleTimes are when the latest samples of a window were taken, oldest first.
type sampleTimes []time.Duration

func (t *sampleTimes) add(kind windowKind, at time.Duration) {
	if len(*t) == kind.most {
		*t = append((*t)[:0], (*t)[1:]...)
	}
	*t = append(*t, at)
}

// figures are those of a window with these deltas. A counter that has existed for the first sample only counts as before one period ago.
func (t sampleTimes) figures(kind windowKind, deltas []counts) (item remoting.BrokerStatsItem) {
	if len(deltas) == 0 {
		return item
	}
	var calls int64
	for _, d := range deltas {
		item.Sum += int64(d.value)
		calls += int64(d.times)
	}
	var elapsed time.Duration
	if n := len(t); n > len(deltas) {
		elapsed = t[n-1] - t[n-1-len(deltas)]
	} else if n > 0 {
		elapsed = t[n-1] - t[0] + time.Duration(len(deltas)-n+1)*kind.period
	}
	if elapsed > 0 {
		item.Tps = float64(item.Sum) / elapsed.Seconds()
	}
	if calls > 0 {
		item.Avgpt = float64(item.Sum) / float64(calls)
	}
	return item
}

// queueStats are the counters that a statistic by queue has under the key of a topic, or of topic@group; moment: its values are no sums. Nil:
// there is no such statistic or key.
func (s *brokerStats) queueStats(name, key string) (items *queueItems, moment bool) {
	if name == statTopicPutLatency {
		if ts := s.topics.find(key); ts != nil {
			return &ts.latency, false
		}
		return nil, false
	}
	gs := s.groups.find(key)
	switch {
	case gs == nil:
		return nil, false
	case name == statGroupGetLatency:
		return &gs.latency, false
	case name == statGroupFallSize:
		return &gs.fallSize, true
	case name == statGroupFallTime:
		return &gs.fallTime, true
	}
	return nil, false
}

// viewQueue is view for a statistic by queue, whose keys begin with queueId@.
func (s *brokerStats) viewQueue(name, key string) (data remoting.BrokerStatsData, ok bool) {
	number, rest, _ := strings.Cut(key, "@")
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil || id > math.MaxInt32 || strconv.FormatUint(id, 10) != number {
		return data, false
	}
	items, moment := s.queueStats(name, rest)
	if items == nil {
		return data, false
	}
	i := items.at(int32(id))
	if i == nil || i.times.Load() == 0 {
		return data, false
	}
	if moment {
		return momentData(i.value.Load()), true
	}
	s.tickMu.Lock()
	defer s.tickMu.Unlock()
	if w := i.minute; w != nil {
		data.StatsMinute = s.minuteTimes.figures(minuteWindow, w.deltas[:w.n])
	}
	if w := i.hour; w != nil {
		data.StatsHour = s.hourTimes.figures(hourWindow, w.deltas[:w.n])
	}
	if w := i.day; w != nil {
		data.StatsDay = s.dayTimes.figures(dayWindow, w.deltas[:w.n])
	}
	return data, true
}

// sampleQueues takes the samples of all queues that are due. The caller holds tickMu.
func (s *brokerStats) sampleQueues(now time.Duration, due dueWindows) {
	if due.minute {
		s.minuteTimes.add(minuteWindow, now)
	}
	if due.hour {
		s.hourTimes.add(hourWindow, now)
	}
	if due.day {
		s.dayTimes.add(dayWindow, now)
	}
	sample := func(i *queueItem) { i.sample(due) }
	for _, ts := range s.topics.all() {
		ts.latency.each(sample)
	}
	for _, gs := range s.groups.all() {
		gs.latency.each(sample) // the others are no sums
	}
}
