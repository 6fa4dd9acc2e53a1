package tune

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine"
)

// Keys of figures.
const (
	keyMessages  = "messagesPerSecond"
	keyGroups    = "groupCommitsPerSecond"
	keyMegabytes = "megabytesPerSecond"
	keyP50       = "p50Micros"
	keyP996      = "p996Micros"
	keyCPU       = "cpuMicros" // a message of 1 KiB, a read, a request
)

// commitDepths are how many messages wait for the device at a time.
var commitDepths = []int{1, 8, 64, 512}

// appendRate is the load of the asynchronous appends that is not "as fast as it goes", bytes a second.
const appendRate = 100_000_000

func engineNames(kinds ...ioengine.EngineKind) (names []string) {
	for _, k := range kinds {
		names = append(names, k.String())
	}
	return names
}

func syncSection(m *machine) *section {
	s := &section{
		name: "syncCommit", title: "sync commit",
		about:   "SYNC_FLUSH: messages of 1 KiB, each waits for the device; so many are in flight",
		columns: []column{{keyMessages, "messages/s", inThousands}, {keyP50, "p50", inMicros}, {keyP996, "p99.6", inMicros}, {keyCPU, "CPU a message", inMicros}},
		kinds:   engineNames(ioengine.EngineUring, ioengine.EngineDirect, ioengine.EnginePwrite, ioengine.EngineMmap),
		scale:   "messages/s, the geometric mean of all four",
		measure: func(ctx context.Context, kind string, d time.Duration) ([]Figures, error) {
			return m.tryEngine(kind, true, len(commitDepths), func(t *commitlog.Trial, i int) (*commitlog.TrialFigures, error) {
				return t.Commits(ctx, commitDepths[i], d)
			})
		},
		score: func(loads []Figures) float64 {
			var all []float64
			for _, f := range loads {
				all = append(all, f[keyMessages])
			}
			return geometricMean(all...)
		},
	}
	for _, n := range commitDepths {
		s.loads = append(s.loads, strconv.Itoa(n))
	}
	return s
}

func asyncSection(m *machine) *section {
	rates := []int64{appendRate, 0}
	return &section{
		name: "asyncAppend", title: "async append",
		about:   "ASYNC_FLUSH: messages of 1 KiB; p99.6 from when one was due to the end of its append",
		columns: []column{{keyMegabytes, "MB/s", inUnits}, {keyP996, "p99.6", inMicros}, {keyCPU, "CPU a KiB", inMicros}},
		kinds:   engineNames(ioengine.EngineUring, ioengine.EngineDirect, ioengine.EnginePwrite, ioengine.EngineMmap),
		loads:   []string{"100 MB/s", "no limit"},
		scale:   "the geometric mean of: MB/s without limit; 1/p99.6 and 1/CPU at 100 MB/s",
		measure: func(ctx context.Context, kind string, d time.Duration) ([]Figures, error) {
			return m.tryEngine(kind, false, len(rates), func(t *commitlog.Trial, i int) (*commitlog.TrialFigures, error) {
				return t.Appends(ctx, rates[i], d)
			})
		},
		score: func(loads []Figures) float64 {
			paced, free := loads[0], loads[1]
			score := []float64{free[keyMegabytes], 1 / paced[keyP996]}
			if cpu, known := paced[keyCPU]; known {
				score = append(score, 1/cpu)
			}
			return geometricMean(score...)
		},
	}
}

// tryEngine opens a log and runs n measurements on it.
func (m *machine) tryEngine(name string, sync bool, n int, run func(*commitlog.Trial, int) (*commitlog.TrialFigures, error)) (loads []Figures, err error) {
	kind, err := ioengine.ParseEngine(name)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	t, err := commitlog.OpenTrial(commitlog.TrialOptions{FS: m.fsys, Dir: filepath.Join(m.scratch, "log.tmp"), SegmentSize: m.segment,
		EngineOptions: commitlog.EngineOptions{Engine: kind, TailSize: m.tail, Sync: sync}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for i := range n {
		f, err := run(t, i)
		if err != nil {
			return nil, err
		}
		loads = append(loads, figuresOf(f))
	}
	return loads, nil
}

func figuresOf(f *commitlog.TrialFigures) Figures {
	out := Figures{keyMessages: f.PerSecond(), keyGroups: f.GroupsPerSecond(), keyMegabytes: f.PerSecond() * commitlog.TrialMessage / 1e6,
		keyP50: micros(f.P50), keyP996: micros(f.P996)}
	if f.CPUKnown {
		out[keyCPU] = micros(f.CPU) / float64(max(f.Messages, 1))
	}
	return out
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// geometricMean weighs relative differences: twice as good in one thing makes up for half as good in another.
func geometricMean(values ...float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	if mean := math.Exp(sum / float64(len(values))); !math.IsNaN(mean) && !math.IsInf(mean, 0) {
		return mean
	}
	return 0
}
