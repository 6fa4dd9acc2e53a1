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
	ringmq  string // the binary
	java    string // folder with the jars of Apache RocketMQ; fetched when it has none
	work    string // stores, logs
	results string
	heap    string   // of the Java broker: -Xms and -Xmx
	servers []string // which take part
	quick   bool
	pairs   int           // rounds
	seconds time.Duration // measured per load
	warmup  time.Duration // of each server, once
	lead    time.Duration // of a load, not measured
	rest    time.Duration // a server's time to itself before and after a load
	only    string        // scenarios whose name contains it
	out     io.Writer
}

func main() {
	// Servers are told to end when the thread that started them does, so that none survives a run that is killed. Locked, this
	// is the process's first thread, which lives as long as the process.
	runtime.LockOSThread()
	o := &options{out: os.Stdout}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(o).ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

func command(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "peers", Short: "ringmq and Apache RocketMQ side by side", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ringmq, "ringmq", "bin/ringmq", "the ringmq binary")
	f.StringVar(&o.java, "java-lib", "benchmarks/scratch/java-lib", "folder of Apache RocketMQ's jars; fetched with Maven when empty")
	f.StringVar(&o.work, "work", "benchmarks/scratch", "folder for stores and logs; about 15 GB for a full run")
	f.StringVar(&o.results, "results", "benchmarks/results", "folder for the result")
	f.StringVar(&o.heap, "heap", "", "heap of the Java broker, a half of it young ("+defaultHeap(memoryTotal())+"; quick: 1g)")
	f.StringSliceVar(&o.servers, "servers", serverNames, "which take part")
	f.BoolVarP(&o.quick, "quick", "q", false, "about three minutes: two pairs, two seconds, some of the loads; for trying, not for figures")
	f.IntVar(&o.pairs, "pairs", 0, "rounds (5; quick: 2)")
	f.DurationVar(&o.seconds, "seconds", 0, "measured time of one load (4s; quick: 2s)")
	f.DurationVar(&o.warmup, "warmup", 0, "warm-up of each server (24s; quick: 6s)")
	f.DurationVar(&o.lead, "lead", time.Second, "time of each load that is not measured")
	f.DurationVar(&o.rest, "rest", 0, "a server's time to itself before and after each load (750ms; quick: 250ms)")
	f.StringVar(&o.only, "only", "", "only the scenarios whose name contains this; start is one")
	return cmd
}

// settle fills in what depends on other flags. It changes the arguments into absolute paths, since servers have folders of their own.
func (o *options) settle() error {
	heap, pairs, seconds, warmup, rest := defaultHeap(memoryTotal()), 5, 4*time.Second, 24*time.Second, 750*time.Millisecond
	if o.quick {
		heap, pairs, seconds, warmup, rest = "1g", 2, 2*time.Second, 6*time.Second, 250*time.Millisecond
	}
	if o.heap == "" {
		o.heap = heap
	}
	if o.pairs == 0 {
		o.pairs = pairs
	}
	if o.seconds == 0 {
		o.seconds = seconds
	}
	if o.warmup == 0 {
		o.warmup = warmup
	}
	if o.rest == 0 {
		o.rest = rest
	}
	for _, name := range o.servers {
		if !slices.Contains(serverNames, name) {
			return fmt.Errorf("--servers %s: want some of %s", name, strings.Join(serverNames, ", "))
		}
	}
	for _, path := range []*string{&o.ringmq, &o.java, &o.work, &o.results} {
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

func (o *options) has(server string) bool { return slices.Contains(o.servers, server) }

// wants tells whether a scenario takes part.
func (o *options) wants(name string, quick bool) bool {
	return strings.Contains(name, o.only) && (quick || !o.quick)
}

// run measures everything. What was measured before an error is kept, too, and says so.
func (o *options) run(ctx context.Context) error {
	if err := o.settle(); err != nil {
		return err
	}
	if o.has(javaServer) {
		if err := o.fetchJava(ctx); err != nil {
			return err
		}
	}
	b := &bench{options: o, began: time.Now()}
	err := b.measure(ctx)
	if err != nil {
		b.broken = err.Error()
	}
	if len(b.results)+len(b.started) > 0 {
		err = errors.Join(err, b.write(context.WithoutCancel(ctx)))
	}
	return err
}

func (b *bench) measure(ctx context.Context) error {
	for _, sync := range []bool{false, true} {
		if err := b.group(ctx, sync); err != nil {
			return err
		}
	}
	return b.starts(ctx)
}

// say writes what is going on, with the time since the beginning.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
