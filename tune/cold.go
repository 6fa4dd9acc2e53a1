package tune

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// coldBytes is the size of the file that is read: a few hundred MB/s take a while to read it once.
const coldBytes = 128 << 20

func coldSection(m *machine) *section {
	ways := []ioengine.ColdRead{ioengine.ColdPread, ioengine.ColdSendfile, ioengine.ColdUring}
	s := &section{
		name: "coldRead", title: "cold read",
		about:   "64 KiB that are not in memory, from the disk into a socket, 8 at a time, in random order",
		columns: []column{{keyMegabytes, "MB/s", inUnits}, {keyP50, "p50", inMicros}, {keyP996, "p99.6", inMicros}, {keyCPU, "CPU a read", inMicros}},
		loads:   []string{"8 x 64 KiB"},
		scale:   "MB/s",
		measure: func(ctx context.Context, kind string, d time.Duration) ([]Figures, error) {
			for _, way := range ways {
				if way.String() == kind {
					return m.readCold(ctx, way, d)
				}
			}
			panic("BUG: no cold read is called " + kind)
		},
		score: func(loads []Figures) float64 { return loads[0][keyMegabytes] },
	}
	for _, way := range ways {
		s.kinds = append(s.kinds, way.String())
	}
	return s
}

func (m *machine) readCold(ctx context.Context, way ioengine.ColdRead, d time.Duration) ([]Figures, error) {
	if m.cold == nil {
		probe, err := ioengine.NewColdProbe(filepath.Join(m.scratch, "cold.tmp"), m.coldBytes)
		if err != nil {
			return nil, err
		}
		m.cold = probe
	}
	f, err := m.cold.Run(ctx, way, d)
	if err != nil {
		return nil, err
	}
	n := len(f.Latencies)
	slices.Sort(f.Latencies)
	return []Figures{{
		keyMegabytes: float64(n) * ioengine.ColdBlock / 1e6 / f.Elapsed.Seconds(), keyCPU: micros(f.CPU) / float64(n),
		keyP50: micros(f.Latencies[n/2]), keyP996: micros(f.Latencies[min(n-1, n*996/1000)]),
	}}, nil
}
