//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The bare commit program: what the disk gives to a program that does nothing but write groups of messages and wait until the device
// has them. It writes to a file that was filled with zeros and synced before, so that no commit has to write metadata. It is the
// control of the sync scenarios.
const (
	commitFileSize = 256 << 20
	commitBlock    = 4096
	commitMessage  = 1200 // bytes that a message of 1 KiB takes in a log, about
)

// commitWays are the variants. depth is how many groups are being written at a time; the messages in flight are divided among them.
var commitWays = []struct {
	name  string
	flags int
	depth int
}{
	{"write + fdatasync, one by one", syscall.O_DSYNC, 1},
	{"O_DIRECT|O_DSYNC, one by one", syscall.O_DSYNC | syscall.O_DIRECT, 1},
	{"O_DIRECT|O_DSYNC, 2 groups at a time", syscall.O_DSYNC | syscall.O_DIRECT, 2},
	{"O_DIRECT|O_DSYNC, 4 groups at a time", syscall.O_DSYNC | syscall.O_DIRECT, 4},
	{"O_DIRECT|O_DSYNC, 8 groups at a time", syscall.O_DSYNC | syscall.O_DIRECT, 8},
}

const valueCommitP50 = "p50 of a commit one by one, ms"

func commitFigures() (list []figure) {
	for _, way := range commitWays {
		list = append(list, figure{name: way.name + ": messages/s", format: decimals(0), of: kept(way.name), share: true})
	}
	return append(list, figure{name: valueCommitP50, format: decimals(3), of: kept(valueCommitP50), share: true})
}

// bareCommits measures every variant with so many messages in flight; messages/s is the best one's.
func bareCommits(inFlight int) func(ctx context.Context, b *bench, sc *scenario) (map[string]float64, error) {
	return func(ctx context.Context, b *bench, _ *scenario) (map[string]float64, error) {
		name := filepath.Join(b.work, "commits")
		defer os.Remove(name)
		if err := zeroFile(name, commitFileSize); err != nil {
			return nil, err
		}
		values := map[string]float64{}
		for i, way := range commitWays {
			if way.depth > inFlight {
				continue
			}
			c := commits{inFlight: inFlight, depth: way.depth, limit: b.seconds / time.Duration(len(commitWays)) * 2}
			if err := c.run(ctx, name, way.flags); err != nil {
				return nil, fmt.Errorf("bare commits, %s: %w", way.name, err)
			}
			values[way.name] = c.rate()
			values[valueRate] = max(values[valueRate], c.rate())
			if i <= 1 {
				values[valueCommitP50] = lower(values[valueCommitP50], c.p50())
			}
		}
		return values, nil
	}
}

// lower is the smaller one; 0 is none.
func lower(a, b float64) float64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

func zeroFile(name string, size int64) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := file.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	return file.Sync()
}

// commits is one measurement.
type commits struct {
	inFlight, depth int
	limit           time.Duration
	messages        atomic.Int64
	took            time.Duration
	mu              sync.Mutex
	each            []time.Duration
}

func (c *commits) rate() float64 { return float64(c.messages.Load()) / c.took.Seconds() }

func (c *commits) p50() float64 {
	slices.Sort(c.each)
	if len(c.each) == 0 {
		return 0
	}
	return c.each[len(c.each)/2].Seconds() * 1e3
}

// run has depth writers, each of which commits its share of the messages in flight again and again, at places one behind the other.
func (c *commits) run(ctx context.Context, name string, flags int) error {
	file, err := os.OpenFile(name, os.O_RDWR|flags, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var at atomic.Int64
	var writing sync.WaitGroup
	errs := make(chan error, c.depth)
	began := time.Now()
	for i := range c.depth {
		group := c.inFlight / c.depth
		if i < c.inFlight%c.depth {
			group++
		}
		writing.Go(func() {
			size := (group*commitMessage + commitBlock - 1) / commitBlock * commitBlock
			buffer := directBuffer(size)
			for ctx.Err() == nil && time.Since(began) < c.limit {
				place := at.Add(int64(size)) - int64(size)
				started := time.Now()
				if _, err := file.WriteAt(buffer, place%(commitFileSize-int64(size))/commitBlock*commitBlock); err != nil {
					errs <- err
					return
				}
				c.committed(group, time.Since(started))
			}
		})
	}
	writing.Wait()
	c.took = time.Since(began)
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

func (c *commits) committed(messages int, took time.Duration) {
	c.messages.Add(int64(messages))
	c.mu.Lock()
	c.each = append(c.each, took)
	c.mu.Unlock()
}
