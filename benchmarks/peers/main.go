//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
	heap    string // of the Java broker: -Xms and -Xmx
	quick   bool
	pairs   int
	seconds time.Duration // measured per load
	warmup  time.Duration // of each server, once
	only    string        // scenarios whose name contains it
	noJava  bool
}

func main() {
	o := &options{}
	cmd := &cobra.Command{
		Use: "peers", Short: "ringmq and Apache RocketMQ side by side", Args: cobra.NoArgs, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ringmq, "ringmq", "bin/ringmq", "the ringmq binary")
	f.StringVar(&o.java, "java-lib", "benchmarks/work/java-lib", "folder of Apache RocketMQ's jars; fetched with Maven when empty")
	f.StringVar(&o.work, "work", "benchmarks/work", "folder for stores and logs; about 20 GB for a full run")
	f.StringVar(&o.results, "results", "benchmarks/results", "folder for the result")
	f.StringVar(&o.heap, "heap", "4g", "heap of the Java broker, a half of it young")
	f.BoolVar(&o.quick, "quick", false, "two pairs of two seconds")
	f.IntVar(&o.pairs, "pairs", 0, "rounds (5; quick: 2)")
	f.DurationVar(&o.seconds, "seconds", 0, "measured time of one load (4s; quick: 2s)")
	f.DurationVar(&o.warmup, "warmup", 0, "warm-up of each server (20s; quick: 8s)")
	f.StringVar(&o.only, "only", "", "only the scenarios whose name contains this")
	f.BoolVar(&o.noJava, "no-java", false, "ringmq and the control only")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := cmd.ExecuteContext(ctx); err != nil {
		stop()
		os.Exit(1)
	}
}

func (o *options) settle() error {
	pairs, seconds, warmup := 5, 4*time.Second, 20*time.Second
	if o.quick {
		pairs, seconds, warmup = 2, 2*time.Second, 8*time.Second
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
	for _, path := range []*string{&o.ringmq, &o.java, &o.work, &o.results} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if _, err := os.Stat(o.ringmq); err != nil {
		return fmt.Errorf("no ringmq binary: run make build first: %w", err)
	}
	return nil
}

func run(ctx context.Context, o *options) error {
	if err := o.settle(); err != nil {
		return err
	}
	if !o.noJava {
		if err := fetchJava(ctx, o.java); err != nil {
			return err
		}
	}
	b := &bench{options: o, began: time.Now()}
	for _, sync := range []bool{false, true} {
		if err := b.group(ctx, sync); err != nil {
			return err
		}
	}
	if err := b.starts(ctx); err != nil {
		return err
	}
	return b.write(ctx)
}

// say writes what is going on, with the time since the beginning.
func (b *bench) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
