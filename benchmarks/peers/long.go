//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/perf"
)

const (
	longName = "long"
	coldName = "cold"
	// share of a server's own maximum at which the long scenarios send.
	longShare = 0.6
	// controlRate is how much the control gets meanwhile: enough for a p99.6 in a second, little enough not to matter.
	controlRate = "1k"
	// longKept is how much of the store remains while old segments go, in bytes.
	longKept = 10 << 30
)

// Numbers that only these scenarios have.
const (
	valueMax         = "own maximum, messages/s"
	valueWindows     = "one-second windows"
	valueQuiet       = "of them with a quiet control"
	valueGood        = "of the quiet ones with p99.6 under 1 ms, %"
	valueGone        = "segments deleted meanwhile"
	valueControl     = "control beside it, p99.6, ms"
	valueAlone       = "send p99.6 without a drain, ms"
	valueControlA    = "control beside it without a drain, p99.6, ms"
	valueDuring      = "send p99.6 while draining, ms"
	valueUnder1Drain = "sends under 1 ms while draining, %"
	valueDrain       = "drain, MB/s of bodies"
	valueDrainDisk   = "drain, MB/s of records"
	valueDisk        = "the disk's sequential rate, MB/s"
)

func longScenarios() []scenario {
	three := func(name string) figure { return figure{name: name, format: decimals(3), of: kept(name), share: true} }
	whole := func(name string) figure { return figure{name: name, format: decimals(0), of: kept(name)} }
	brokers := without(serverNames, stubServer)
	return []scenario{
		{
			name: longName, run: longRun, rounds: 1, peers: brokers, // the control runs beside each
			title:   "long open loop at 60 % of the server's own maximum (--long, 15 minutes), 1 KiB, 4 connections, not flushed before the acknowledgement; segments roll, old ones go",
			figures: append(append(loadFigures(), lagFigure), whole(valueMax), whole(valueWindows), whole(valueQuiet), three(valueGood), three(valueControl), whole(valueGone)),
		},
		{
			name: coldName, run: coldRun, rounds: 2, peers: brokers, conf: largePulls,
			title: "the same sends while a consumer drains --fill-mb (10 GiB) from a cold cache, pulls of up to 1 MiB, 1 in flight per queue, 4 queues",
			figures: append(append(loadFigures(), lagFigure), whole(valueMax), three(valueAlone), three(valueControlA), three(valueDuring), three(valueControl),
				three(valueUnder1Drain), whole(valueDrain), whole(valueDrainDisk), whole(valueDisk), whole(valueStored)),
		},
	}
}

// maximum is what a server takes with 64 in flight.
func (b *bench) maximum(ctx context.Context, s *server) (float64, error) {
	args := []string{"produce", "--topic", "maximum", "--conns", "16", "--depth", "4", "--size", "1024", "--warmup", b.lead.String(), "--duration", (2 * b.seconds).String()}
	report, _, err := b.perf(ctx, s, args)
	if report == nil {
		return 0, err
	}
	return report.MessagesPerSecond, nil
}

// beside runs a load on a server and a small one on the control at the same time. Both report every second by itself.
func (b *bench) beside(ctx context.Context, s, control *server, sc *scenario, round int, args []string, until func() error) (r result, quiet *perf.Report, err error) {
	small := b.startPerf(ctx, control, []string{"produce", "--rate", controlRate, "--conns", "1", "--size", "1024", "--windows", "--duration", "24h"})
	before := readMachine(s.pid())
	load := b.startPerf(ctx, s, append(args, "--windows"))
	var untilErr error
	if until != nil {
		untilErr = until()
		load.interrupt()
	}
	report, generator, err := load.wait()
	small.interrupt()
	quiet, used, _ := small.wait()
	if ctx.Err() != nil {
		return r, nil, ctx.Err()
	}
	r = result{Scenario: sc.name, Server: s.name, Round: round, Report: report, Machine: readMachine(s.pid()).since(before, generator+used), Values: map[string]float64{}}
	if err != nil {
		r.Failure = err.Error()
	}
	if report == nil || quiet == nil || report.Server == nil || report.Latency("ack") == nil || quiet.Latency("ack") == nil || untilErr != nil {
		return r, nil, errors.Join(errors.New("no figures"), err, untilErr)
	}
	r.Values[valueControl] = p996(quiet)
	return r, quiet, nil
}

func p996(r *perf.Report) float64 { return float64(r.Latency("ack").Percentiles["p99.6"]) / 1e6 }

// withControl starts a server and the control.
func (b *bench) withControl(ctx context.Context, sc *scenario, name string, do func(s, control *server) error) error {
	return b.fresh(ctx, sc, name, func(s *server) error {
		return b.fresh(ctx, &scenario{name: sc.name}, stubServer, func(control *server) error {
			if err := b.warm(ctx, s); err != nil {
				return err
			}
			return do(s, control)
		})
	})
}

func longRun(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
	limited := *sc
	var err error
	if limited.conf, err = retention(ctx, b.work); err != nil {
		return err
	}
	return b.withControl(ctx, &limited, name, func(s, control *server) error {
		top, err := b.maximum(ctx, s)
		if err != nil {
			return err
		}
		args := []string{"produce", "--topic", "bench-long", "--rate", strconv.Itoa(int(top * longShare)), "--conns", "4", "--size", "1024",
			"--warmup", b.lead.String(), "--duration", b.long.String()}
		if protocol := s.protocol; protocol != "rocketmq" {
			args = append(args, "--keep-bytes", strconv.FormatInt(keptBytes(protocol), 10))
		}
		r, quiet, err := b.beside(ctx, s, control, &limited, round, args, nil)
		if err != nil {
			return err
		}
		w := countWindows(r.Report.Windows, quiet.Windows)
		r.Values[valueMax], r.Values[valueWindows], r.Values[valueQuiet] = top, float64(w.all), float64(w.quiet)
		if w.quiet > 0 {
			r.Values[valueGood] = 100 * float64(w.good) / float64(w.quiet)
		}
		if gone, ok := segmentsGone(s.dir); ok {
			r.Values[valueGone] = gone
		}
		r.Report.Windows = nil // thousands of lines that are counted now
		b.keep(r)
		return nil
	})
}

// keptBytes: Kafka counts per partition.
func keptBytes(protocol string) int64 {
	if protocol == "kafka" {
		return longKept / 4
	}
	return longKept
}

// retention is what makes RocketMQ's brokers delete old segments although no hour and no age allows it yet: a disk that counts as
// too full with longKept more than it has now (a broker that counts the disk's reserve as used keeps less), and that never counts
// as too full to write.
func retention(ctx context.Context, dir string) ([]string, error) {
	used, free, err := space(ctx, dir)
	if err != nil {
		return nil, err
	}
	ratio := strconv.Itoa(int(math.Ceil(100 * float64(used+longKept) / float64(used+free))))
	return []string{"diskMaxUsedSpaceRatio=" + ratio, "diskSpaceCleanForciblyRatio=" + ratio, "diskSpaceWarningLevelRatio=100"}, nil
}

// segmentsGone tells how many segments of a RocketMQ commit log have been deleted: the first one's name is where it begins.
func segmentsGone(dir string) (float64, bool) {
	entries, err := os.ReadDir(filepath.Join(dir, "store", "commitlog"))
	if err != nil {
		return 0, false
	}
	for _, e := range entries { // sorted by name
		if from, err := strconv.ParseInt(e.Name(), 10, 64); err == nil && !strings.HasPrefix(e.Name(), ".") {
			return float64(from >> 30), true
		}
	}
	return 0, false
}

// windowCount is what one-second windows say.
type windowCount struct{ all, quiet, good int }

// windowLimit is the promise about each window, and what a quiet control keeps in the same time.
const windowLimit = int64(time.Millisecond)

// countWindows looks at the seconds of a load. A second counts as quiet when the control kept the limit in each of its own seconds
// that touch it; workers hand their figures over every quarter of a second, so that much around it counts, too.
func countWindows(load, control []perf.Window) (n windowCount) {
	const slack = 250 // ms
	for _, w := range load {
		if w.Kind != "ack" {
			continue
		}
		n.all++
		near := slices.DeleteFunc(slices.Clone(control), func(c perf.Window) bool { return c.To <= w.From-slack || c.From >= w.To+slack })
		loud := slices.ContainsFunc(near, func(c perf.Window) bool { return c.P996 >= windowLimit || c.Failed > 0 })
		if len(near) == 0 || loud {
			continue
		}
		n.quiet++
		if w.P996 < windowLimit && w.Failed == 0 {
			n.good++
		}
	}
	return n
}

func coldRun(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
	return b.withControl(ctx, sc, name, func(s, control *server) error {
		ledger := filepath.Join(s.dir, "ledger")
		if err := b.must(ctx, s, append(b.fillArgs(name, "cold"), "--ledger", ledger)); err != nil {
			return err
		}
		stored := float64(storedBytes(s.dir))
		if err := dropCaches(ctx, b.work); err != nil {
			return err
		}
		disk, err := sequentialRate(ctx, s.dir, b.fill<<20)
		if err != nil {
			return err
		}
		top, err := b.maximum(ctx, s)
		if err != nil {
			return err
		}
		args := []string{"produce", "--topic", "bench-cold", "--rate", strconv.Itoa(int(top * longShare)), "--conns", "4", "--size", "1024", "--warmup", b.lead.String()}
		alone, _, err := b.beside(ctx, s, control, sc, round, append(slices.Clone(args), "--duration", (4*b.seconds).String()), nil)
		if err != nil {
			return err
		}
		if err := dropCaches(ctx, b.work); err != nil {
			return err
		}
		var drained *perf.Report
		r, _, err := b.beside(ctx, s, control, sc, round, append(args, "--duration", "24h"), func() error {
			if err := wait(ctx, b.lead); err != nil {
				return err
			}
			var err error
			drained, _, err = b.perf(ctx, s, append(b.drainArgs(name, "cold"), "--pull-conns", "4", "--ledger", ledger))
			if drained == nil {
				return fmt.Errorf("drain: %w", err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if drainErr := drained.Err(); drainErr != nil {
			r.Failure += fmt.Sprintf("drain: %v %v %v", drainErr, drained.Errors, drained.Verified.Problems)
		}
		r.Values[valueMax], r.Values[valueAlone], r.Values[valueControlA] = top, p996(alone.Report), alone.Values[valueControl]
		r.Values[valueDuring], r.Values[valueUnder1Drain] = p996(r.Report), 100*r.Report.Latency("ack").Under1ms
		r.Values[valueDrain], r.Values[valueDisk], r.Values[valueStored] = drained.MBPerSecond, disk, stored/(1<<20)
		r.Values[valueDrainDisk] = drained.RecordMBPerSecond
		r.Report.Windows = nil
		b.keep(r)
		return nil
	})
}
