//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// options of a run.
type options struct {
	ringmq    string // the binary
	engine    string // ioEngine of ringmq
	java      string // folder with the jars of Apache RocketMQ; fetched when it has none
	kafka     string // the same of Apache Kafka
	bin       string // folder with nats-server and the binaries of rocketmq-rust
	work      string // stores, logs
	results   string
	heap      string   // of the Java broker: -Xms and -Xmx
	peers     []string // which take part
	scenarios []string // names, or what names begin with
	short     bool
	rounds    int
	seconds   time.Duration // measured per load
	warmup    time.Duration // of each server, once
	lead      time.Duration // of a load, not measured
	rest      time.Duration // a server's time to itself before and after a load
	long      time.Duration // of the long run
	fill      int64         // MiB that kill and cold store beforehand
	out       io.Writer
}

func main() {
	// Servers are told to end when the thread that started them does, so that none survives a run that is killed. Locked, this
	// is the process's first thread, which lives as long as the process.
	runtime.LockOSThread()
	o := &options{out: os.Stdout}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := command(o)
	cmd.SetArgs(longFlags(os.Args[1:]))
	if err := cmd.ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

// longFlags lets flags be written with one dash, too: -scenario closed-1k.
func longFlags(args []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			args[i] = "-" + arg
		}
	}
	return args
}

func command(o *options) *cobra.Command {
	list := false
	cmd := &cobra.Command{
		Use: "peers", Short: "ringmq and other brokers side by side", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return o.list()
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.scenarios, "scenario", nil, "scenarios by name, or by what their names begin with (all)")
	f.StringSliceVar(&o.peers, "peers", serverNames, "which take part")
	f.IntVar(&o.rounds, "rounds", 0, "rounds (5, fewer where one takes long; short: 1)")
	f.BoolVar(&o.short, "short", false, "a few seconds for each load: for trying, not for figures")
	f.BoolVar(&list, "list", false, "print the scenarios, and run nothing")
	f.StringVar(&o.ringmq, "ringmq", "bin/ringmq", "the ringmq binary")
	f.StringVar(&o.engine, "engine", "auto", "ringmq's ioEngine")
	f.StringVar(&o.java, "java-lib", "benchmarks/scratch/java-lib", "folder of Apache RocketMQ's jars; fetched with Maven when empty")
	f.StringVar(&o.kafka, "kafka-lib", "benchmarks/scratch/kafka-lib", "folder of Apache Kafka's jars; fetched with Maven when empty")
	f.StringVar(&o.bin, "bin", "benchmarks/scratch/bin", "folder of nats-server (built when it is not there) and rocketmq-rust's broker and name server")
	f.StringVar(&o.work, "work", "benchmarks/scratch", "folder for stores and logs; up to 30 GB for a full run")
	f.StringVar(&o.results, "results", "benchmarks/results", "folder for the result")
	f.StringVar(&o.heap, "heap", "", "heap of the Java broker, a half of it young ("+defaultHeap(memoryTotal())+"; short: 1g)")
	f.DurationVar(&o.seconds, "seconds", 0, "measured time of one load (4s; short: 2s)")
	f.DurationVar(&o.warmup, "warmup", 0, "warm-up of each server (24s; short: 3s)")
	f.DurationVar(&o.lead, "lead", time.Second, "time of each load that is not measured")
	f.DurationVar(&o.rest, "rest", 0, "a server's time to itself before and after each load (750ms; short: 250ms)")
	f.DurationVar(&o.long, "long", 0, "measured time of the long run (15m; short: 20s)")
	f.Int64Var(&o.fill, "fill-mb", 0, "MiB that kill-filled and cold store beforehand (10240; short: 256)")
	return cmd
}

func or[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// settle fills in what depends on other flags. It changes the arguments into absolute paths, since servers have folders of their own.
func (o *options) settle() error {
	if o.short {
		or(&o.heap, "1g")
		or(&o.rounds, 1)
		or(&o.seconds, 2*time.Second)
		or(&o.warmup, 3*time.Second)
		or(&o.rest, 250*time.Millisecond)
		or(&o.long, 20*time.Second)
		or(&o.fill, 256)
	}
	or(&o.heap, defaultHeap(memoryTotal()))
	or(&o.seconds, 4*time.Second)
	or(&o.warmup, 24*time.Second)
	or(&o.rest, 750*time.Millisecond)
	or(&o.long, 15*time.Minute)
	or(&o.fill, 10<<10)
	for _, name := range o.peers {
		if !slices.Contains(serverNames, name) {
			return fmt.Errorf("--peers %s: want some of %s", name, strings.Join(serverNames, ", "))
		}
	}
	for _, name := range o.scenarios {
		if !slices.ContainsFunc(scenarios(), func(sc scenario) bool { return matches(sc.name, name) }) {
			return fmt.Errorf("--scenario %s: there is none whose name begins so; --list tells all", name)
		}
	}
	for _, path := range []*string{&o.ringmq, &o.java, &o.kafka, &o.bin, &o.work, &o.results} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if _, err := os.Stat(o.ringmq); err != nil {
		return fmt.Errorf("no ringmq binary, run make build first: %w", err)
	}
	return os.MkdirAll(o.work, 0o755)
}

// usualRounds is how many there are where nobody says anything else.
const usualRounds = 5

// roundsOf is how often a scenario is run.
func (o *options) roundsOf(sc *scenario) int {
	switch {
	case o.rounds > 0:
		return o.rounds
	case sc.rounds > 0:
		return sc.rounds
	}
	return usualRounds
}

func (o *options) has(server string) bool { return slices.Contains(o.peers, server) }

// matches tells whether a scenario is meant by a name: its own, or, where no scenario has just that name, what its own begins with.
func matches(own, name string) bool {
	exact := slices.ContainsFunc(scenarios(), func(sc scenario) bool { return sc.name == name })
	return own == name || !exact && strings.HasPrefix(own, name)
}

// wants tells whether a scenario takes part.
func (o *options) wants(sc *scenario) bool {
	return len(o.scenarios) == 0 || slices.ContainsFunc(o.scenarios, func(name string) bool { return matches(sc.name, name) })
}

func (o *options) list() error {
	for _, sc := range scenarios() {
		if _, err := fmt.Fprintf(o.out, "%-16s %s\n%17s%s\n", sc.name, sc.title, "", strings.Join(sc.peers, ", ")); err != nil {
			return err
		}
	}
	return nil
}

// run measures everything. What was measured before an error is kept, too, and says so.
func (o *options) run(ctx context.Context) error {
	if err := o.settle(); err != nil {
		return err
	}
	if err := o.fetch(ctx); err != nil {
		return err
	}
	b := &bench{options: o, began: time.Now()}
	err := b.measure(ctx)
	if err != nil {
		b.broken = err.Error()
	}
	if len(b.failures) > 0 {
		err = errors.Join(err, fmt.Errorf("%d things failed: %s", len(b.failures), strings.Join(b.failures, "; ")))
	}
	if len(b.results) > 0 {
		err = errors.Join(err, b.write(context.WithoutCancel(ctx)))
	}
	return err
}

// fetch gets the servers that take part and are not there yet.
func (o *options) fetch(ctx context.Context) error {
	for name, get := range map[string]func(context.Context) error{
		javaServer: o.fetchJava, kafkaServer: o.fetchKafka, natsServer: o.fetchNATS, rustServer: o.findRust,
	} {
		if !o.has(name) {
			continue
		}
		if err := get(ctx); err != nil {
			if name != rustServer {
				return err
			}
			_, _ = fmt.Fprintln(o.out, err)
			o.peers = slices.DeleteFunc(slices.Clone(o.peers), func(s string) bool { return s == rustServer })
		}
	}
	return nil
}

// measure runs the scenarios: those that share their servers group by group, the others one by one.
func (b *bench) measure(ctx context.Context) error {
	var groups []string
	for _, sc := range scenarios() {
		if !b.wants(&sc) {
			continue
		}
		if sc.run != nil {
			if !slices.Contains(groups, "") {
				groups = append(groups, "")
			}
		} else if !slices.Contains(groups, sc.group) {
			groups = append(groups, sc.group)
		}
	}
	for _, group := range groups {
		if err := b.group(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// say writes what is going on, with the time since the beginning.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
