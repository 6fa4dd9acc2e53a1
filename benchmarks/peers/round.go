//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/perf"
)

// group runs the scenarios of one group, or, for "", those that start their servers themselves. The servers of a group live until
// its end: a Java program needs its warm-up, and a fresh process for each load would not have it. All but the one under load are
// stopped by SIGSTOP. Their stores are removed with them.
func (b *bench) group(ctx context.Context, group string) (err error) {
	var list []scenario
	for _, sc := range scenarios() {
		if b.wants(&sc) && (group == "" && sc.run != nil || group != "" && sc.group == group) {
			list = append(list, sc)
		}
	}
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.end(err != nil && ctx.Err() == nil)
		}
	}()
	if group != "" {
		if err := b.prepare(ctx, list, servers); err != nil {
			return err
		}
	}
	rounds := 0
	for i := range list {
		rounds = max(rounds, b.roundsOf(&list[i]))
	}
	for round := range rounds {
		for i := range list {
			if round >= b.roundsOf(&list[i]) {
				continue
			}
			if err := b.scenario(ctx, servers, &list[i], round); err != nil {
				return err
			}
		}
	}
	for i := range list {
		if err := b.countSyscalls(ctx, servers, &list[i]); err != nil {
			return err
		}
	}
	if group == "closed" && servers[javaServer] != nil {
		servers[javaServer].signal(syscall.SIGCONT)
		b.heap = liveHeap(ctx, servers[javaServer])
	}
	return nil
}

// prepare starts the servers of a group, warms them up and gives them what their scenarios read.
func (b *bench) prepare(ctx context.Context, list []scenario, servers map[string]*server) error {
	for _, name := range b.peers {
		if name == bareServer || !slices.ContainsFunc(list, func(sc scenario) bool { return sc.takes(name) }) {
			continue
		}
		b.say("%s: start and warm up", title(name))
		s, err := b.launch(name, &list[0])
		if err == nil {
			err = b.makeReady(ctx, s, list)
		}
		switch {
		case ctx.Err() != nil:
			if s != nil {
				s.end(false)
			}
			return ctx.Err()
		case err != nil:
			b.fail("%s: %v", title(name), err)
			if s != nil {
				s.end(true)
			}
		default:
			servers[name] = s
		}
	}
	return nil
}

func (b *bench) makeReady(ctx context.Context, s *server, list []scenario) error {
	if _, err := s.ready(ctx); err != nil {
		return err
	}
	if err := b.warm(ctx, s); err != nil {
		return err
	}
	for i := range list {
		for _, load := range list[i].prepare {
			if s.name != stubServer && list[i].takes(s.name) {
				if err := b.must(ctx, s, append(slices.Clone(load), "--topic", hotTopic)); err != nil {
					return err
				}
			}
		}
	}
	return b.pause(ctx, s)
}

// must runs a load whose figures nobody wants. A server may refuse some of it (Java does when it is pressed), but what it has
// acknowledged must be right.
func (b *bench) must(ctx context.Context, s *server, args []string) error {
	report, _, err := b.perf(ctx, s, args)
	if report != nil && report.Verified != nil && report.Verified.OK && report.Verified.Acknowledged > 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: perf %s: %w", title(s.name), strings.Join(args, " "), err)
	}
	return nil
}

// taking lists who takes part in a scenario, in the order of the tables.
func (o *options) taking(sc *scenario) (names []string) {
	for _, name := range sc.peers {
		if name == bareServer || o.has(name) {
			names = append(names, name)
		}
	}
	return names
}

// turns is the order in a round: A B C, in the next C B A, so that a machine that gets faster or slower favours nobody.
func turns(names []string, round int) []string {
	names = slices.Clone(names)
	if round%2 == 1 {
		slices.Reverse(names)
	}
	return names
}

// scenario does one round of one scenario.
func (b *bench) scenario(ctx context.Context, servers map[string]*server, sc *scenario, round int) error {
	for _, name := range turns(b.taking(sc), round) {
		if err := checkFree(ctx, b.work); err != nil {
			return err
		}
		var err error
		switch {
		case name == bareServer:
			err = b.bare(ctx, sc, round)
		case sc.run != nil:
			err = sc.run(ctx, b, sc, name, round)
		case servers[name] == nil:
			continue // it has failed before
		default:
			err = b.load(ctx, servers[name], sc, round)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.fail("round %d, %s, %s: %v", round+1, sc.name, title(name), err)
		}
	}
	return nil
}

// fail notes that one server did not do one thing, and lets the others go on. The run ends with an error.
func (b *bench) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.failures = append(b.failures, text)
	b.say("FAILED: %s", text)
}

func (b *bench) bare(ctx context.Context, sc *scenario, round int) error {
	before := readMachine(0)
	values, err := sc.bare(ctx, b, sc)
	if err != nil {
		return err
	}
	b.keep(result{Scenario: sc.name, Server: bareServer, Round: round, Values: values, Machine: readMachine(0).since(before, 0)})
	return nil
}

// warm lets a server run hot: a Java program compiles what runs often, ringmq has its segments mapped.
func (b *bench) warm(ctx context.Context, s *server) error {
	loads := [][]string{{"produce", "--depth", "16", "--conns", "4"}, {"produce", "--rate", "5k", "--conns", "4"}}
	if s.name != stubServer {
		loads = append(loads, []string{"e2e", "--rate", "2k", "--conns", "2"})
	}
	for i, args := range loads {
		args = append(args, "--topic", "warm-"+strconv.Itoa(i), "--duration", (b.warmup / time.Duration(len(loads))).String())
		report, _, err := b.perf(ctx, s, args)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case report == nil:
			return fmt.Errorf("warm up %s: %w", title(s.name), err)
		case err != nil:
			b.say("%s: while it warms up: %v %v", title(s.name), err, report.Errors)
		}
	}
	return nil
}

// pause gives a server a moment for what it has put off, stops it, and writes its dirty pages back, so that they are not written
// during the next one's turn.
func (b *bench) pause(ctx context.Context, s *server) error {
	if err := wait(ctx, b.rest); err != nil {
		return err
	}
	s.signal(syscall.SIGSTOP)
	return syncFiles(ctx, b.work)
}

// resume lets it go on; what its timers have missed, it does now.
func (b *bench) resume(ctx context.Context, s *server) error {
	s.signal(syscall.SIGCONT)
	return wait(ctx, b.rest)
}

// loadArgs are the arguments of perf for one measured load.
func (b *bench) loadArgs(sc *scenario) []string {
	if sc.drains() {
		return append(slices.Clone(sc.args), "--topic", hotTopic)
	}
	return append(slices.Clone(sc.args), "--topic", "bench-"+sc.name, "--warmup", b.lead.String(), "--duration", b.seconds.String())
}

// load runs one scenario against one server, while the others are stopped.
func (b *bench) load(ctx context.Context, s *server, sc *scenario, round int) error {
	if err := b.resume(ctx, s); err != nil {
		return err
	}
	r, err := b.measured(ctx, s, sc, round, b.loadArgs(sc))
	if err != nil {
		return err
	}
	b.keep(r)
	return b.pause(ctx, s)
}

// measured runs perf and looks at the machine meanwhile.
func (b *bench) measured(ctx context.Context, s *server, sc *scenario, round int, args []string) (result, error) {
	before := readMachine(s.pid())
	report, generator, err := b.perf(ctx, s, args)
	if ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	r := result{Scenario: sc.name, Server: s.name, Round: round, Report: report, Machine: readMachine(s.pid()).since(before, generator)}
	if err != nil {
		r.Failure = err.Error()
	}
	if report == nil || report.Server == nil || len(report.Latencies) == 0 {
		return r, fmt.Errorf("no figures: %w", err)
	}
	return r, nil
}

// keep takes a result, and says so.
func (b *bench) keep(r result) {
	b.results = append(b.results, r)
	text := ""
	if r.Report != nil {
		first := r.Report.Latencies[0]
		text = fmt.Sprintf("%8.0f msg/s  %6.2f µs CPU/msg  p50 %.3f p99.6 %.3f max %.1f ms  < 1 ms %s", r.Report.MessagesPerSecond, r.Report.Server.MicrosPerMessage,
			float64(first.Percentiles["p50"])/1e6, float64(first.Percentiles["p99.6"])/1e6, float64(first.Max)/1e6, percent(first.Under1ms*100))
	}
	for _, name := range sortedKeys(r.Values) {
		text += fmt.Sprintf("  %s %.5g", name, r.Values[name])
	}
	b.say("round %d  %-14s %-8s %s  others %.0f %%  %s", r.Round+1, r.Scenario, title(r.Server), text, r.Machine.Others*100, r.Failure)
}

// syscallSeconds is how long system calls are counted, in a load of their own: counting costs the server time.
const syscallSeconds = 1

// countSyscalls adds the system calls per message to the last round's results of a scenario; nothing where perf stat cannot count them.
func (b *bench) countSyscalls(ctx context.Context, servers map[string]*server, sc *scenario) error {
	if sc.run != nil || sc.drains() || b.seconds < time.Second {
		return nil
	}
	for _, name := range b.taking(sc) {
		s := servers[name]
		if s == nil {
			continue
		}
		if err := b.resume(ctx, s); err != nil {
			return err
		}
		counted := make(chan float64, 1)
		go func() {
			n := 0.0
			if wait(ctx, time.Second) == nil {
				n = syscallsOf(ctx, s.pid(), syscallSeconds)
			}
			counted <- n
		}()
		args := append(slices.Clone(sc.args), "--topic", "bench-"+sc.name, "--duration", strconv.Itoa(syscallSeconds+2)+"s")
		report, _, err := b.perf(ctx, s, args)
		n := <-counted
		if report == nil {
			return err
		}
		if n > 0 && report.MessagesPerSecond > 0 {
			b.addValue(sc.name, name, valueSyscalls, n/syscallSeconds/report.MessagesPerSecond)
		}
		if err := b.pause(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// addValue adds a number to the last result of a scenario and server.
func (b *bench) addValue(scenario, server, name string, v float64) {
	for i := len(b.results) - 1; i >= 0; i-- {
		if r := &b.results[i]; r.Scenario == scenario && r.Server == server {
			if r.Values == nil {
				r.Values = map[string]float64{}
			}
			r.Values[name] = v
			return
		}
	}
}

// perf runs `ringmq perf` and gives what it reports and the CPU seconds that it used itself. The error tells what its exit status
// said; a report may come with it.
func (b *bench) perf(ctx context.Context, s *server, args []string) (*perf.Report, float64, error) {
	p := b.startPerf(ctx, s, args)
	return p.wait()
}

// perfRun is a `ringmq perf` that is running.
type perfRun struct {
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	failure   error
}

func (b *bench) startPerf(ctx context.Context, s *server, args []string) *perfRun {
	args = append([]string{"perf"}, adapt(s.name, args)...)
	args = append(args, "--broker", s.addr, "--server-pid", strconv.Itoa(s.pid()), "-q", "-o", "json")
	p := &perfRun{cmd: exec.CommandContext(ctx, b.ringmq, args...)}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 10 * time.Second
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	p.failure = p.cmd.Start()
	return p
}

// interrupt ends it before its time: it reports what it has.
func (p *perfRun) interrupt() {
	if p.failure == nil {
		_ = p.cmd.Process.Signal(syscall.SIGINT)
	}
}

func (p *perfRun) wait() (*perf.Report, float64, error) {
	if p.failure != nil {
		return nil, 0, p.failure
	}
	err := p.cmd.Wait()
	used := (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds()
	report := new(perf.Report)
	if jsonErr := json.Unmarshal(p.out.Bytes(), report); jsonErr != nil {
		return nil, used, fmt.Errorf("%w: %s", errors.Join(err, jsonErr), strings.TrimSpace(p.errs.String()))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return report, used, fmt.Errorf("exit status %d: %s %s", exit.ExitCode(), strings.TrimSpace(p.errs.String()), strings.Join(report.Verified.Problems, "; "))
	}
	return report, used, err
}

// wait is a sleep that ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
