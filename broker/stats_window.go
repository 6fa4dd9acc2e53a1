package broker

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// Figures over sliding windows. Does the work of StatsItem, StoreStatsService and BrokerStats. Times named now are readings of one
// monotonic clock: a jump of the wall clock bends no figure.

// sample is what a counter showed at a time.
type sample struct {
	at time.Duration
	reading
}

// reading is the state of a counter.
type reading struct{ value, times int64 }

// windowKind is how often a window takes a sample and how many it keeps.
type windowKind struct {
	period time.Duration
	most   int
}

var (
	minuteWindow = windowKind{10 * time.Second, 7}
	hourWindow   = windowKind{10 * time.Minute, 7}
	dayWindow    = windowKind{time.Hour, 25}
)

// window is the latest samples of one counter, oldest first.
type window []sample

// add takes a sample. A counter that has none yet counts as before one period ago. A window in which nothing was counted is given back: its
// figures are those of an empty one, and there may be a counter for each of 100,000 queues.
func (w *window) add(kind windowKind, s sample, before reading) {
	if len(*w) == 0 {
		if s.reading == before {
			return
		}
		*w = append(*w, sample{s.at - kind.period, before})
	}
	if len(*w) == kind.most {
		*w = slices.Delete(*w, 0, 1)
	}
	*w = append(*w, s)
	if (*w)[0].reading == s.reading {
		*w = nil
	}
}

// figures are what came between the oldest and the newest sample: the sum, the sum per second, the average per call.
func (w window) figures() (item remoting.BrokerStatsItem) {
	if len(w) == 0 {
		return item
	}
	first, last := w[0], w[len(w)-1]
	item.Sum = last.value - first.value
	if elapsed := last.at - first.at; elapsed > 0 {
		item.Tps = float64(item.Sum) / elapsed.Seconds()
	}
	if calls := last.times - first.times; calls > 0 {
		item.Avgpt = float64(item.Sum) / float64(calls)
	}
	return item
}

// statsItem is one counter with its windows.
type statsItem struct {
	value atomic.Int64 // what is counted: messages, bytes, milliseconds
	times atomic.Int64 // how often it was added to

	mu                sync.Mutex
	minute, hour, day window
	last              [3]reading // the latest of each window, which it may have given back; zero at first
}

// add is for the hot path.
func (i *statsItem) add(value int64) { i.addSum(value, 1) }

// addSum adds what several calls came to.
func (i *statsItem) addSum(value, times int64) {
	if value != 0 {
		i.value.Add(value)
	}
	i.times.Add(times)
}

func (i *statsItem) sample(now time.Duration, due dueWindows) {
	s := sample{now, reading{i.value.Load(), i.times.Load()}}
	i.mu.Lock()
	defer i.mu.Unlock()
	for n, w := range [...]struct {
		due  bool
		kind windowKind
		*window
	}{{due.minute, minuteWindow, &i.minute}, {due.hour, hourWindow, &i.hour}, {due.day, dayWindow, &i.day}} {
		if w.due {
			w.add(w.kind, s, i.last[n])
			i.last[n] = s.reading
		}
	}
}

func (i *statsItem) data() remoting.BrokerStatsData {
	i.mu.Lock()
	defer i.mu.Unlock()
	return remoting.BrokerStatsData{StatsDay: i.day.figures(), StatsHour: i.hour.figures(), StatsMinute: i.minute.figures()}
}

// momentData are the figures of what is not a sum but the latest reading.
func momentData(value int64) remoting.BrokerStatsData {
	latest := remoting.BrokerStatsItem{Sum: value}
	return remoting.BrokerStatsData{StatsDay: latest, StatsHour: latest, StatsMinute: latest}
}

// dueWindows says which windows take a sample now.
type dueWindows struct{ minute, hour, day bool }

// sampleClock tells when windows are due. A tick that comes late takes one sample, not several.
type sampleClock struct {
	started                       bool
	nextMinute, nextHour, nextDay time.Duration
}

func (c *sampleClock) due(now time.Duration) dueWindows {
	if !c.started {
		c.started = true
		c.nextMinute, c.nextHour, c.nextDay = now, now, now
	}
	return dueWindows{
		advance(&c.nextMinute, minuteWindow.period, now), advance(&c.nextHour, hourWindow.period, now), advance(&c.nextDay, dayWindow.period, now),
	}
}

func advance(next *time.Duration, period, now time.Duration) bool {
	if now < *next {
		return false
	}
	*next += period * (1 + (now-*next)/period)
	return true
}

// putTimeNames are the classes of putMessageDistributeTime; putTimeLimits their upper ends in milliseconds, the first included, the others
// not. The last class has no end.
var (
	putTimeNames = [...]string{
		"[<=0ms]", "[0~10ms]", "[10~50ms]", "[50~100ms]", "[100~200ms]", "[200~500ms]", "[500ms~1s]", "[1~2s]", "[2~3s]", "[3~4s]", "[4~5s]",
		"[5~10s]", "[10s~]",
	}
	putTimeLimits = [...]int64{1, 10, 50, 100, 200, 500, 1000, 2000, 3000, 4000, 5000, 10000}
)

// latencyLimits are the upper ends, included, of the classes from which putLatency99 is worked out: steps of 1 ms to 20 ms, of 2 to 50, of 5
// to 100, of 10 to 200, of 50 to 500, of 100 to 1 s, of 1 s to 10 s, and the rest.
var latencyLimits = func() []int64 {
	var limits []int64
	end := int64(0)
	for _, steps := range [][2]int64{{1, 20}, {2, 15}, {5, 10}, {10, 10}, {50, 6}, {100, 5}, {1000, 9}} {
		for range steps[1] {
			end += steps[0]
			limits = append(limits, end)
		}
	}
	return append(limits, math.MaxInt64)
}()

const latencyClasses = 76

// storeLane is the counters of one reactor. Each reactor adds to its own; they are summed when somebody looks.
type storeLane struct {
	puts, putBytes, putFailed  atomic.Int64 // messages, their bytes, calls that failed
	found, missed, transferred atomic.Int64 // pulls that found something, that did not, messages sent out
	userPuts, userGets         atomic.Int64 // messages of topics that are not the system's
	putMaxMillis, getMaxMillis atomic.Int64
	putTimes                   [len(putTimeNames)]atomic.Int64
	latency                    [latencyClasses]atomic.Int64
	_                          [64]byte // the next lane belongs to another core
}

// putsTook counts how long storing several messages took, each of them.
func (l *storeLane) putsTook(sends, millis int64) {
	class := 0
	for class < len(putTimeLimits) && millis >= putTimeLimits[class] {
		class++
	}
	l.putTimes[class].Add(sends)
	place, _ := slices.BinarySearch(latencyLimits, millis)
	l.latency[place].Add(sends)
	raise(&l.putMaxMillis, millis)
}

// stored counts messages (a batch has several) and their bytes in the log.
func (l *storeLane) stored(messages, bytes int64, system bool) {
	l.puts.Add(messages)
	l.putBytes.Add(bytes)
	if !system {
		l.userPuts.Add(messages)
	}
}

// got counts one pull: how many messages it sends; 0: it found none.
func (l *storeLane) got(messages int64, system bool) {
	if messages == 0 {
		l.missed.Add(1)
		return
	}
	l.found.Add(1)
	l.transferred.Add(messages)
	if !system {
		l.userGets.Add(messages)
	}
}

func raise(highest *atomic.Int64, v int64) {
	for old := highest.Load(); v > old; old = highest.Load() {
		if highest.CompareAndSwap(old, v) {
			return
		}
	}
}

// storeTotals is the sum of all lanes.
type storeTotals struct {
	puts, putBytes, putFailed, found, missed, transferred, userPuts, userGets int64
	putMaxMillis, getMaxMillis                                                int64
	putTimes                                                                  [len(putTimeNames)]int64
	latency                                                                   [latencyClasses]int64
}

// storeSample is what the tps figures are made of.
type storeSample struct {
	at                               time.Duration
	puts, found, missed, transferred int64
}

// storeSamples is ten minutes of one sample a second, and the one they are compared with.
const storeSamples = 601

// storeStats are the figures of request 28 about sending and pulling.
type storeStats struct {
	bootMillis int64 // wall clock at the start
	lanes      []storeLane

	mu           sync.Mutex
	samples      []storeSample // oldest first, at most storeSamples
	minuteAt     time.Duration // when the running minute began; minuteKnown before the first tick
	minuteKnown  bool
	minuteStart  storeTotals // as the running minute began
	lastPutTimes [len(putTimeNames)]int64
	lastLatency  [latencyClasses]int64
	today        int // year and day of the latest tick
	// Totals at the beginning of today and of yesterday.
	putsToday, getsToday, putsYesterday, getsYesterday int64
}

// newStoreStats takes the number of reactors.
func newStoreStats(lanes int, bootMillis int64) *storeStats {
	return &storeStats{bootMillis: bootMillis, lanes: make([]storeLane, max(lanes, 1))}
}

// lane is the counters of the i-th reactor.
func (s *storeStats) lane(i int) *storeLane { return &s.lanes[i%len(s.lanes)] }

func (s *storeStats) totals() (t storeTotals) {
	for i := range s.lanes {
		l := &s.lanes[i]
		t.puts += l.puts.Load()
		t.putBytes += l.putBytes.Load()
		t.putFailed += l.putFailed.Load()
		t.found += l.found.Load()
		t.missed += l.missed.Load()
		t.transferred += l.transferred.Load()
		t.userPuts += l.userPuts.Load()
		t.userGets += l.userGets.Load()
		t.putMaxMillis = max(t.putMaxMillis, l.putMaxMillis.Load())
		t.getMaxMillis = max(t.getMaxMillis, l.getMaxMillis.Load())
		for c := range t.putTimes {
			t.putTimes[c] += l.putTimes[c].Load()
		}
		for c := range t.latency {
			t.latency[c] += l.latency[c].Load()
		}
	}
	return t
}

// tick takes the sample of this second; wall is for the change of day only.
func (s *storeStats) tick(now time.Duration, wall time.Time) {
	t := s.totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.samples) == storeSamples {
		s.samples = slices.Delete(s.samples, 0, 1)
	}
	s.samples = append(s.samples, storeSample{now, t.puts, t.found, t.missed, t.transferred})
	switch {
	case !s.minuteKnown:
		s.minuteKnown, s.minuteAt, s.minuteStart = true, now, storeTotals{}
	case now-s.minuteAt >= time.Minute:
		for c := range t.putTimes {
			s.lastPutTimes[c] = t.putTimes[c] - s.minuteStart.putTimes[c]
		}
		for c := range t.latency {
			s.lastLatency[c] = t.latency[c] - s.minuteStart.latency[c]
		}
		s.minuteAt, s.minuteStart = now, t
	}
	day := wall.Year()*1000 + wall.YearDay()
	if s.today != 0 && day > s.today {
		s.putsYesterday, s.getsYesterday = s.putsToday, s.getsToday
		s.putsToday, s.getsToday = t.userPuts, t.userGets
	}
	s.today = max(s.today, day)
}

// tpsLocked is how often per second something happened in the last 10 s, 1 min, 10 min, or since the start where that is less.
func (s *storeStats) tpsLocked(count func(storeSample) int64) (tps [3]float64) {
	if len(s.samples) < 2 {
		return tps
	}
	last := s.samples[len(s.samples)-1]
	for i, seconds := range []int{10, 60, 600} {
		first := s.samples[max(len(s.samples)-1-seconds, 0)]
		if elapsed := last.at - first.at; elapsed > 0 {
			tps[i] = float64(count(last)-count(first)) / elapsed.Seconds()
		}
	}
	return tps
}

// percentileLocked is the time in milliseconds that the share p of the last minute's sends did not exceed.
func (s *storeStats) percentileLocked(p float64) float64 {
	total := int64(0)
	for _, n := range s.lastLatency {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := int64(float64(total) * p)
	passed, lower := int64(0), int64(0)
	for c, n := range s.lastLatency {
		upper := latencyLimits[c]
		if c == latencyClasses-1 {
			return float64(lower)
		}
		if n > 0 && rank <= passed+n {
			return float64(lower) + float64(upper-lower)*float64(rank-passed)/float64(n)
		}
		passed += n
		lower = upper
	}
	return float64(lower)
}

// addTo writes the figures into the table of request 28, under Java's names. nowMillis is the wall clock.
func (s *storeStats) addTo(table map[string]string, nowMillis int64) {
	t := s.totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	number := func(name string, n int64) { table[name] = strconv.FormatInt(n, 10) }
	number("bootTimestamp", s.bootMillis)
	table["runtime"] = runtimeText(nowMillis - s.bootMillis)
	number("putMessageEntireTimeMax", t.putMaxMillis)
	number("getMessageEntireTimeMax", t.getMaxMillis)
	number("putMessageTimesTotal", t.puts)
	number("putMessageSizeTotal", t.putBytes)
	number("putMessageFailedTimes", t.putFailed)
	table["putMessageAverageSize"] = doubleText(float64(t.putBytes) / float64(max(t.puts, 1)))
	table["putMessageDistributeTime"] = s.putTimesTextLocked()
	table["putLatency99"] = fmt.Sprintf("%.2f", s.percentileLocked(0.99))
	table["putLatency999"] = fmt.Sprintf("%.2f", s.percentileLocked(0.999))
	table["putTps"] = threeDoubles(s.tpsLocked(func(x storeSample) int64 { return x.puts }))
	table["getFoundTps"] = threeDoubles(s.tpsLocked(func(x storeSample) int64 { return x.found }))
	table["getMissTps"] = threeDoubles(s.tpsLocked(func(x storeSample) int64 { return x.missed }))
	table["getTotalTps"] = threeDoubles(s.tpsLocked(func(x storeSample) int64 { return x.found + x.missed }))
	table["getTransferredTps"] = threeDoubles(s.tpsLocked(func(x storeSample) int64 { return x.transferred }))
	number("msgPutTotalYesterdayMorning", s.putsYesterday)
	number("msgPutTotalTodayMorning", s.putsToday)
	number("msgPutTotalTodayNow", t.userPuts)
	number("msgGetTotalYesterdayMorning", s.getsYesterday)
	number("msgGetTotalTodayMorning", s.getsToday)
	number("msgGetTotalTodayNow", t.userGets)
}

func (s *storeStats) putTimesTextLocked() string {
	var b strings.Builder
	for c, name := range putTimeNames {
		fmt.Fprintf(&b, "%s:%d ", name, s.lastPutTimes[c])
	}
	return b.String()
}

func runtimeText(millis int64) string {
	seconds := max(millis, 0) / 1000
	return fmt.Sprintf("[ %d days, %d hours, %d minutes, %d seconds ]", seconds/86400, seconds/3600%24, seconds/60%60, seconds%60)
}

func threeDoubles(v [3]float64) string {
	return doubleText(v[0]) + " " + doubleText(v[1]) + " " + doubleText(v[2])
}

// doubleText is a number as Java prints a double that is neither tiny nor huge.
func doubleText(f float64) string {
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
