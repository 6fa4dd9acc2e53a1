package perf

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Range and precision of every latency histogram: 1 ns to 60 s, 3 digits.
const (
	lowestNanos  = 1
	highestNanos = int64(60 * time.Second)
	digits       = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(lowestNanos, highestNanos, digits)
}

// record counts a latency; beyond the range it counts as the nearest bound.
func record(h *hdrhistogram.Histogram, nanos int64) {
	_ = h.RecordValue(min(max(nanos, lowestNanos), highestNanos))
}

// interval is what one worker measured in some time.
type interval struct {
	latencies []*hdrhistogram.Histogram
	messages  int64 // acknowledged or received, inside the measured time or not
	bytes     int64 // of their bodies
	records   int64 // bytes of what was read, as the broker gives it out
	failed    int64
}

func newInterval(kinds int) *interval {
	i := &interval{latencies: make([]*hdrhistogram.Histogram, kinds)}
	for k := range i.latencies {
		i.latencies[k] = newHistogram()
	}
	return i
}

func (i *interval) add(other *interval) {
	for k := range i.latencies {
		i.latencies[k].Merge(other.latencies[k])
	}
	i.messages += other.messages
	i.bytes += other.bytes
	i.records += other.records
	i.failed += other.failed
}

func (i *interval) reset() {
	for _, h := range i.latencies {
		h.Reset()
	}
	i.messages, i.bytes, i.records, i.failed = 0, 0, 0, 0
}

// handover is how often a worker hands its interval over.
const handover = int64(250 * time.Millisecond)

// recorder is a worker's end of a meter: it owns one interval at a time. Two go round between worker and meter, so that neither
// waits for the other, and no histogram is touched by two goroutines.
type recorder struct {
	current *interval
	next    int64 // when current is handed over
	full    chan<- *filled
	free    chan *interval
	out     filled
}

type filled struct {
	*interval
	from *recorder
}

// turn hands the interval over when it is time and the other one is back.
func (r *recorder) turn(now int64) {
	if now < r.next {
		return
	}
	r.next = now + handover
	select {
	case fresh := <-r.free:
		r.hand(fresh)
	default:
	}
}

func (r *recorder) hand(fresh *interval) {
	r.out = filled{r.current, r}
	r.full <- &r.out
	r.current = fresh
}

// finish hands the last interval over.
func (r *recorder) finish() { r.hand(<-r.free) }

// meter gathers the intervals of all workers of a kind.
type meter struct {
	names []string // of the latencies
	full  chan *filled
	// since is what has come since the last tick, total everything. Both belong to the run's collector.
	since, total *interval
}

func newMeter(names ...string) *meter {
	return &meter{names: names, full: make(chan *filled, 1024), since: newInterval(len(names)), total: newInterval(len(names))}
}

// recorder makes the end for one more worker. A worker never has more than one interval in full, so sending does not block as long
// as there are no more workers than full holds.
func (m *meter) recorder() *recorder {
	r := &recorder{current: newInterval(len(m.names)), full: m.full, free: make(chan *interval, 1)}
	r.free <- newInterval(len(m.names))
	return r
}

func (m *meter) take(f *filled) {
	m.since.add(f.interval)
	f.reset()
	f.from.free <- f.interval
}

// takeAll takes what is there.
func (m *meter) takeAll() {
	for {
		select {
		case f := <-m.full:
			m.take(f)
		default:
			return
		}
	}
}

// roll adds since to total and begins anew; since is valid until then.
func (m *meter) roll() {
	m.total.add(m.since)
	m.since.reset()
}
