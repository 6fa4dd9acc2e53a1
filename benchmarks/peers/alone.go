//go:build linux

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// aloneScenarios start each server afresh, while no other one runs.
func aloneScenarios() []scenario {
	restarting := without(serverNames, stubServer)
	list := []scenario{
		{
			name: "idle", title: "idle broker: one message sent, no client connected", peers: serverNames, run: idleRun, rounds: 3, figures: []figure{
				{name: valueCPU, format: decimals(2), of: kept(valueCPU)}, {name: valueSwitches, format: decimals(0), of: kept(valueSwitches)},
				{name: valueThreads, format: decimals(0), of: kept(valueThreads)}, {name: valueAnon, format: decimals(0), of: kept(valueAnon)},
				{name: valueRSS, format: decimals(0), of: kept(valueRSS)},
			},
		},
		{name: "start", title: "start with an empty store, from exec", run: startRun, rounds: 3, figures: startFigures(), peers: append([]string{javaServer, lazyServer}, restarting[1:]...)},
		{name: "kill-empty", title: "start after kill -9, one message stored, from exec", run: killRun(false), rounds: 3, figures: startFigures(), peers: restarting},
		{name: "kill-filled", title: "start after kill -9 under load, with --fill-mb stored (10 GiB), from exec", run: killRun(true), rounds: 2, figures: startFigures(), peers: restarting},
	}
	for _, q := range queueCounts {
		peers := serverNames
		if q.topics*q.queues > 10_000 {
			peers = []string{ringServer, stubServer}
		}
		list = append(list, scenario{
			name: fmt.Sprintf("queues-%d", q.topics*q.queues), peers: peers, run: queuesRun, rounds: 3, topics: q.topics, queues: q.queues,
			title: fmt.Sprintf("%d queues (%d topics × %d): closed loop, 64 in flight (4 connections × 16), 1 KiB, every queue in turn, not flushed before the acknowledgement; then an orderly stop and a start",
				q.topics*q.queues, q.topics, q.queues),
			figures: append(loadFigures(), startFigures()...),
		})
	}
	return append(list, longScenarios()...)
}

var queueCounts = []struct{ topics, queues int }{{1, 8}, {1, 64}, {8, 128}, {10, 1000}, {100, 1000}}

func startFigures() []figure {
	return []figure{
		{name: valueStop, format: decimals(0), of: kept(valueStop)}, {name: valuePort, format: decimals(0), of: kept(valuePort)}, {name: valueFirstAck, format: decimals(0), of: kept(valueFirstAck)},
		{name: valueStored, format: decimals(0), of: kept(valueStored), share: true}, {name: valueLost, format: decimals(0), of: kept(valueLost), share: true},
	}
}

// fresh starts a server with an empty store, waits until it works, gives it to do, and removes it.
func (b *bench) fresh(ctx context.Context, sc *scenario, name string, do func(s *server) error) (err error) {
	s, err := b.launch(name, sc)
	if err != nil {
		return err
	}
	defer func() { s.end(err != nil && ctx.Err() == nil) }()
	if _, err := s.ready(ctx); err != nil {
		return err
	}
	return do(s)
}

// Times of the idle scenario.
const (
	idleSettle, idleLook           = 10 * time.Second, 20 * time.Second
	idleSettleShort, idleLookShort = 2 * time.Second, 3 * time.Second
)

func idleRun(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
	settle, look := idleSettle, idleLook
	if b.short {
		settle, look = idleSettleShort, idleLookShort
	}
	return b.fresh(ctx, sc, name, func(s *server) error {
		if err := wait(ctx, settle); err != nil {
			return err
		}
		machine, from := readMachine(s.pid()), readProcess(s.pid())
		if err := wait(ctx, look); err != nil {
			return err
		}
		to := readProcess(s.pid())
		seconds := to.at.Sub(from.at).Seconds()
		status := readStatus(s.pid())
		b.keep(result{Scenario: sc.name, Server: name, Round: round, Machine: readMachine(s.pid()).since(machine, 0), Values: map[string]float64{
			valueCPU: 100 * (to.cpu - from.cpu).Seconds() / seconds, valueSwitches: float64(to.switches-from.switches) / seconds,
			valueThreads: float64(to.threads), valueAnon: float64(status["RssAnon"]) / (1 << 20), valueRSS: float64(status["VmRSS"]) / (1 << 20),
		}})
		return nil
	})
}

// since gives the times between began and a server's first signs of life.
func (s *server) since(ctx context.Context, began time.Time) (map[string]float64, error) {
	answered, err := s.ready(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		valuePort: answered.Sub(began).Seconds() * 1e3, valueFirstAck: time.Since(began).Seconds() * 1e3,
	}, nil
}

// startRun measures from exec to the first acknowledged send. For RocketMQ name server and broker are started at once.
func startRun(ctx context.Context, b *bench, sc *scenario, name string, round int) (err error) {
	machine, began := readMachine(0), time.Now()
	s, err := b.launch(name, sc)
	if err != nil {
		return err
	}
	defer func() { s.end(err != nil && ctx.Err() == nil) }()
	values, err := s.since(ctx, began)
	if err != nil {
		return err
	}
	b.keep(result{Scenario: sc.name, Server: name, Round: round, Values: values, Machine: readMachine(0).since(machine, 0)})
	return nil
}

// again restarts a server by a signal and measures its start.
func (b *bench) again(ctx context.Context, s *server, sig syscall.Signal) (map[string]float64, error) {
	stopped, began, err := s.restart(ctx, sig)
	if err != nil {
		return nil, err
	}
	values, err := s.since(ctx, began)
	if err == nil && sig == syscall.SIGTERM {
		values[valueStop] = stopped.Seconds() * 1e3
	}
	return values, err
}

// killRun kills a server and starts it again; filled: in the middle of a load, with a store of --fill-mb, of which everything that
// was acknowledged must be there afterwards.
func killRun(filled bool) func(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
	return func(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
		return b.fresh(ctx, sc, name, func(s *server) error {
			ledger := filepath.Join(s.dir, "ledger")
			if filled {
				if err := b.must(ctx, s, append(b.fillArgs(name, "stored"), "--ledger", ledger)); err != nil {
					return err
				}
				last := b.startPerf(ctx, s, []string{"produce", "--topic", "last", "--conns", "4", "--depth", "4", "--duration", "1h", "--timeout", "1s"})
				if err := wait(ctx, time.Second); err != nil {
					return err
				}
				s.signal(syscall.SIGKILL)
				last.interrupt()
				_, _, _ = last.wait() // it has lost its connections: what it says does not matter
			}
			machine := readMachine(0)
			values, err := b.again(ctx, s, syscall.SIGKILL)
			if err != nil {
				return err
			}
			r := result{Scenario: sc.name, Server: name, Round: round, Values: values, Machine: readMachine(0).since(machine, 0)}
			if filled {
				values[valueStored] = float64(storedBytes(s.dir)) / (1 << 20)
				report, _, err := b.perf(ctx, s, append(b.drainArgs(name, "stored"), "--ledger", ledger))
				if report == nil {
					return err
				}
				if err != nil {
					r.Failure = err.Error()
				}
				values[valueLost] = float64(report.Verified.Lost)
			}
			b.keep(r)
			return nil
		})
	}
}

// fillArgs store --fill-mb: in batches, where there are any.
func (b *bench) fillArgs(name, topic string) []string {
	const perMessage = 1200 // what a message of 1 KiB takes in a store, about
	args := []string{"produce", "--topic", topic, "--conns", "4", "--depth", "4", "--size", "1024", "--count", strconv.FormatInt(b.fill<<20/perMessage, 10)}
	if name == natsServer {
		return append(args, "--queues", "1")
	}
	return append(args, "--batch", "16")
}

// drainArgs read a topic from its beginning to its end.
func (b *bench) drainArgs(name, topic string) []string {
	args := []string{"drain", "--topic", topic, "--idle", "1m", "--timeout", "30s"}
	if name == natsServer {
		return append(args, "--queues", "1", "--pull-batch", "2000")
	}
	return append(args, "--pull-batch", "900")
}

func queuesRun(ctx context.Context, b *bench, sc *scenario, name string, round int) error {
	return b.fresh(ctx, sc, name, func(s *server) error {
		args := []string{"produce", "--topic", "q", "--topics", strconv.Itoa(sc.topics), "--queues", strconv.Itoa(sc.queues), "--conns", "4", "--depth", "16", "--size", "1024"}
		// Every queue gets its first messages before the measured time: that is when its files are made.
		if err := b.must(ctx, s, append(slices.Clone(args), "--count", strconv.Itoa(max(10_000, 2*sc.topics*sc.queues)), "--timeout", "1m")); err != nil {
			return err
		}
		r, err := b.measured(ctx, s, sc, round, append(args, "--warmup", b.lead.String(), "--duration", b.seconds.String()))
		if err != nil {
			return err
		}
		if name != stubServer {
			r.Values, err = b.again(ctx, s, syscall.SIGTERM)
		}
		b.keep(r) // the load's figures stand, whatever became of the start
		return err
	})
}
