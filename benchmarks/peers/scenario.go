//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/perf"
)

// scenario is one load.
type scenario struct {
	name    string // of the topic, and for --only
	title   string
	sync    bool
	command string // of perf
	args    []string
	control bool // the stub takes part
}

func scenarios() []scenario {
	open := func(rate string) scenario {
		return scenario{
			name: "open-" + rate, title: "open loop, " + rate + "/s, 1 KiB, 4 connections, ASYNC_FLUSH", command: "produce",
			args: []string{"--rate", rate, "--conns", "4", "--size", "1024"}, control: true,
		}
	}
	inFlight := func(n, conns, depth int) scenario {
		return scenario{
			name: fmt.Sprintf("sync-%d", n), title: fmt.Sprintf("closed loop, %d in flight (%d connections × %d), 1 KiB, SYNC_FLUSH", n, conns, depth),
			sync: true, command: "produce",
			args: []string{"--conns", strconv.Itoa(conns), "--depth", strconv.Itoa(depth), "--size", "1024"},
		}
	}
	return []scenario{
		{
			name: "closed-128", title: "closed loop, 64 in flight (4 connections × 16), 128 B, ASYNC_FLUSH", command: "produce",
			args: []string{"--conns", "4", "--depth", "16", "--size", "128"}, control: true,
		},
		{
			name: "closed-1024", title: "closed loop, 64 in flight (4 connections × 16), 1 KiB, ASYNC_FLUSH", command: "produce",
			args: []string{"--conns", "4", "--depth", "16", "--size", "1024"}, control: true,
		},
		open("1k"), open("5k"), open("10k"), open("20k"),
		{
			name: "e2e-5k", title: "end to end, open loop, 5k/s, 1 KiB, 4 connections, long-polling consumer, ASYNC_FLUSH", command: "e2e",
			args: []string{"--rate", "5k", "--conns", "4", "--size", "1024"},
		},
		inFlight(1, 1, 1), inFlight(8, 8, 1), inFlight(64, 16, 4),
	}
}

// bench is a run of everything.
type bench struct {
	*options
	began   time.Time
	results []result
	memory  []memory
	started []started
}

// result is one load of one server in one round.
type result struct {
	Scenario string       `json:"scenario"`
	Server   string       `json:"server"`
	Round    int          `json:"round"`
	Failure  string       `json:"failure,omitempty"`
	Report   *perf.Report `json:"report,omitempty"`
}

// memory of one server, in bytes.
type memory struct {
	Server string `json:"server"`
	When   string `json:"when"`
	RSS    int64  `json:"rss"`
	Anon   int64  `json:"rssAnon"`
	File   int64  `json:"rssFile"`
}

// started is the time from exec to the first acknowledged send.
type started struct {
	Server string  `json:"server"`
	Round  int     `json:"round"`
	Millis float64 `json:"millis"`
}

func (b *bench) serverNames(control bool) []string {
	names := []string{javaServer, ringServer, stubServer}
	if b.noJava {
		names = names[1:]
	}
	if !control {
		names = names[:len(names)-1]
	}
	return names
}

// group runs the scenarios of one flush mode.
func (b *bench) group(ctx context.Context, sync bool) (err error) {
	var list []scenario
	for _, s := range scenarios() {
		if s.sync == sync && strings.Contains(s.name, b.only) {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil
	}
	servers := map[string]*server{}
	defer func() {
		for _, s := range servers {
			s.kill()
		}
	}()
	for _, name := range b.serverNames(!sync) {
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
		for _, sc := range list {
			order := b.serverNames(sc.control)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, name := range order {
				if err := b.load(ctx, servers[name], &sc, round); err != nil {
					return err
				}
			}
		}
	}
	if !sync {
		for _, name := range b.serverNames(true) {
			b.remember(servers[name], "after the loads")
		}
	}
	return nil
}

// rest is how long a server goes on after a load, for its flushes to end before it is stopped.
const rest = time.Second

func (b *bench) warm(ctx context.Context, s *server) error {
	b.say("%s: start and warm up", s.name)
	if err := s.ready(ctx); err != nil {
		return err
	}
	b.remember(s, "after the start")
	loads := [][]string{{"produce", "--depth", "16", "--conns", "4"}, {"produce", "--rate", "5k", "--conns", "4"}}
	if s.name != stubServer {
		loads = append(loads, []string{"e2e", "--rate", "2k", "--conns", "2"})
	}
	for _, args := range loads {
		args = append(args, "--topic", "warm", "--duration", (b.warmup / time.Duration(len(loads))).String())
		if report, err := b.perf(ctx, s, args); report == nil {
			return fmt.Errorf("warm up %s: %w", s.name, err)
		} else if err != nil {
			b.say("%s: while it warms up: %v %v", s.name, err, report.Errors)
		}
	}
	time.Sleep(rest)
	s.signal(syscall.SIGSTOP)
	return nil
}

// load runs one scenario against one server, while the others are stopped.
func (b *bench) load(ctx context.Context, s *server, sc *scenario, round int) error {
	s.signal(syscall.SIGCONT)
	time.Sleep(rest / 2)
	args := append([]string{sc.command, "--topic", "bench-" + sc.name, "--warmup", "1s", "--duration", b.seconds.String()}, sc.args...)
	report, err := b.perf(ctx, s, args)
	r := result{Scenario: sc.name, Server: s.name, Round: round, Report: report}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Failure = err.Error()
	}
	if report == nil || report.Server == nil || report.Latency("ack") == nil {
		return fmt.Errorf("%s, %s: no figures: %w", s.name, sc.name, err)
	}
	b.results = append(b.results, r)
	ack := report.Latency("ack")
	b.say("round %d  %-12s %-10s %9.0f msg/s  %7.1f µs CPU/msg  p50 %.3f p99 %.3f max %.1f ms  < 1 ms %.3f %%  %s", round+1, sc.name, s.name,
		report.MessagesPerSecond, report.Server.MicrosPerMessage, float64(ack.Percentiles["p50"])/1e6, float64(ack.Percentiles["p99"])/1e6,
		float64(ack.Max)/1e6, ack.Under1ms*100, r.Failure)
	time.Sleep(rest)
	s.signal(syscall.SIGSTOP)
	return nil
}

// perf runs `ringmq perf`. The error tells what the exit status said; a report may come with it.
func (b *bench) perf(ctx context.Context, s *server, args []string) (*perf.Report, error) {
	args = append([]string{"perf"}, args...)
	args = append(args, "--broker", s.addr, "--server-pid", strconv.Itoa(s.pid()), "-q", "-o", "json")
	cmd := exec.CommandContext(ctx, b.ringmq, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	report := new(perf.Report)
	if jsonErr := json.Unmarshal(out.Bytes(), report); jsonErr != nil {
		if err == nil {
			err = jsonErr
		}
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return report, fmt.Errorf("exit status %d: %s", exit.ExitCode(), strings.TrimSpace(errs.String()))
	}
	return report, err
}

func (b *bench) remember(s *server, when string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		return
	}
	m := memory{Server: s.name, When: when}
	for name, value := range map[string]*int64{"VmRSS:": &m.RSS, "RssAnon:": &m.Anon, "RssFile:": &m.File} {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
				n, _ := strconv.ParseInt(fields[1], 10, 64)
				*value = n << 10
			}
		}
	}
	b.memory = append(b.memory, m)
}

// starts measures the time from exec to the first acknowledged send, with an empty store.
func (b *bench) starts(ctx context.Context) error {
	if !strings.Contains("start", b.only) {
		return nil
	}
	for round := range b.pairs {
		order := b.serverNames(false)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, name := range order {
			began := time.Now()
			s, err := b.launch(name, false)
			if err != nil {
				return err
			}
			err = s.ready(ctx)
			took := time.Since(began)
			s.kill()
			if err != nil {
				return err
			}
			b.say("round %d  start        %-10s %.0f ms", round+1, name, took.Seconds()*1e3)
			b.started = append(b.started, started{name, round, took.Seconds() * 1e3})
		}
	}
	return nil
}
