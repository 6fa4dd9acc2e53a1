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

// group runs the scenarios of one flush mode. All its servers live until its end: a Java program needs its warm-up, and a fresh
// process for each load would not have it. All but the one under load are stopped by SIGSTOP.
func (b *bench) group(ctx context.Context, sync bool) (err error) {
	var list []scenario
	for _, sc := range scenarios() {
		if sc.sync == sync && b.wants(sc.name, sc.quick) {
			list = append(list, sc)
		}
	}
	if len(list) == 0 {
		return nil
	}
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.end(err != nil && ctx.Err() == nil)
		}
	}()
	for _, name := range b.taking(!sync) {
		s, err := b.launch(name, sync)
		if err != nil {
			return err
		}
		servers[name] = s
		if err := b.warm(ctx, s); err != nil {
			return err
		}
	}
	for round := range b.pairs {
		for i := range list {
			if err := b.scenario(ctx, servers, &list[i], round); err != nil {
				return err
			}
		}
	}
	if !sync {
		for _, s := range servers {
			s.signal(syscall.SIGCONT)
			b.remember(s, afterLoads, 0)
		}
		b.heap = liveHeap(ctx, servers[javaServer])
	}
	return nil
}

// taking lists the servers that take part, in the order of the tables.
func (o *options) taking(control bool) (names []string) {
	for _, name := range serverNames {
		if o.has(name) && (control || name != stubServer) {
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

// scenario puts one load on each server.
func (b *bench) scenario(ctx context.Context, servers map[string]*server, sc *scenario, round int) error {
	if sc.sync {
		probe, err := probeDisk(b.work)
		if err != nil {
			return err
		}
		probe.Scenario, probe.Round = sc.name, round
		b.disk = append(b.disk, probe)
	}
	for _, name := range turns(b.taking(sc.control != nil), round) {
		if err := b.load(ctx, servers[name], sc, round); err != nil {
			return err
		}
	}
	return nil
}

// warm lets a server run hot: a Java program compiles what runs often, ringmq has its segments mapped.
func (b *bench) warm(ctx context.Context, s *server) error {
	b.say("%s: start and warm up", s.name)
	if _, err := s.ready(ctx); err != nil {
		return err
	}
	loads := [][]string{{"produce", "--depth", "16", "--conns", "4"}, {"produce", "--rate", "5k", "--conns", "4"}}
	if s.name == javaServer || s.name == ringServer {
		loads = append(loads, []string{"e2e", "--rate", "2k", "--conns", "2"})
	}
	for _, args := range loads {
		args = append(args, "--topic", "warm", "--duration", (b.warmup / time.Duration(len(loads))).String())
		report, _, err := b.perf(ctx, s, args)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case report == nil:
			return fmt.Errorf("warm up %s: %w", s.name, err)
		case err != nil:
			b.say("%s: while it warms up: %v %v", s.name, err, report.Errors)
		}
	}
	return b.pause(ctx, s)
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

// load runs one scenario against one server, while the others are stopped.
func (b *bench) load(ctx context.Context, s *server, sc *scenario, round int) error {
	s.signal(syscall.SIGCONT)
	// What the server's timers have missed, they do now.
	if err := wait(ctx, b.rest); err != nil {
		return err
	}
	load := sc.args
	if s.name == stubServer {
		load = sc.control
	}
	before := readMachine(s.pid())
	report, generator, err := b.perf(ctx, s, append(slices.Clone(load), "--topic", "bench-"+sc.name, "--warmup", b.lead.String(), "--duration", b.seconds.String()))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r := result{Scenario: sc.name, Server: s.name, Round: round, Report: report, Machine: readMachine(s.pid()).since(before, generator)}
	if err != nil {
		r.Failure = err.Error()
	}
	if report == nil || report.Server == nil || report.Latency("ack") == nil {
		return fmt.Errorf("%s, %s: no figures: %w", s.name, sc.name, err)
	}
	b.results = append(b.results, r)
	ack := report.Latency("ack")
	b.say("round %d  %-11s %-8s %8.0f msg/s  %6.1f µs CPU/msg  p50 %.3f p99 %.3f max %.1f ms  < 1 ms %s  others %.0f %%  %s", round+1, sc.name, s.name,
		report.MessagesPerSecond, report.Server.MicrosPerMessage, float64(ack.Percentiles["p50"])/1e6, float64(ack.Percentiles["p99"])/1e6,
		float64(ack.Max)/1e6, percent(ack.Under1ms*100), r.Machine.Others*100, r.Failure)
	return b.pause(ctx, s)
}

// perf runs `ringmq perf` and gives what it reports and the CPU seconds that it used itself. The error tells what its exit status
// said; a report may come with it.
func (b *bench) perf(ctx context.Context, s *server, args []string) (*perf.Report, float64, error) {
	args = append([]string{"perf"}, args...)
	args = append(args, "--broker", s.addr, "--server-pid", strconv.Itoa(s.pid()), "-q", "-o", "json")
	cmd := exec.CommandContext(ctx, b.ringmq, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	used := 0.0
	if cmd.ProcessState != nil {
		used = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	report := new(perf.Report)
	if jsonErr := json.Unmarshal(out.Bytes(), report); jsonErr != nil {
		return nil, used, fmt.Errorf("%w: %s", errors.Join(err, jsonErr), strings.TrimSpace(errs.String()))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return report, used, fmt.Errorf("exit status %d: %s %s", exit.ExitCode(), strings.TrimSpace(errs.String()), strings.Join(report.Verified.Problems, "; "))
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
