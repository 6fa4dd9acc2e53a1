//go:build linux

package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/perf"
)

// scenario is one load.
type scenario struct {
	name    string // of the topic, and for --only
	title   string
	sync    bool
	quick   bool     // part of a quick run, too
	args    []string // of perf
	control []string // what the stub gets; nil: it takes no part
}

func (sc *scenario) endToEnd() bool { return sc.args[0] == "e2e" }

func (sc *scenario) open() bool {
	for _, arg := range sc.args {
		if arg == "--rate" {
			return true
		}
	}
	return false
}

func scenarios() []scenario {
	return []scenario{
		closedLoop(128, false), closedLoop(1024, true),
		openLoop("1k", false), openLoop("5k", false), openLoop("10k", true), openLoop("20k", false),
		endToEnd("5k"),
		syncFlush(1, 1, 1, false), syncFlush(8, 8, 1, true), syncFlush(64, 16, 4, false),
	}
}

func closedLoop(size int, quick bool) scenario {
	args := []string{"produce", "--conns", "4", "--depth", "16", "--size", strconv.Itoa(size)}
	return scenario{
		name: fmt.Sprintf("closed-%d", size), title: fmt.Sprintf("closed loop, 64 in flight (4 connections × 16), %d B, ASYNC_FLUSH", size),
		quick: quick, args: args, control: args,
	}
}

func openLoop(rate string, quick bool) scenario {
	args := []string{"produce", "--rate", rate, "--conns", "4", "--size", "1024"}
	return scenario{
		name: "open-" + rate, title: "open loop, " + rate + "/s, 1 KiB, 4 connections, ASYNC_FLUSH", quick: quick, args: args, control: args,
	}
}

// endToEnd reads what it sends. The stub stores nothing that could be read: its part is the sending.
func endToEnd(rate string) scenario {
	load := []string{"--rate", rate, "--conns", "4", "--size", "1024"}
	return scenario{
		name: "e2e-" + rate, title: "end to end, open loop, " + rate + "/s, 1 KiB, 4 connections, long-polling consumer, ASYNC_FLUSH", quick: true,
		args: append([]string{"e2e"}, load...), control: append([]string{"produce"}, load...),
	}
}

func syncFlush(inFlight, conns, depth int, quick bool) scenario {
	return scenario{
		name:  fmt.Sprintf("sync-%d", inFlight),
		title: fmt.Sprintf("closed loop, %d in flight (%d connections × %d), 1 KiB, SYNC_FLUSH", inFlight, conns, depth),
		sync:  true, quick: quick,
		args: []string{"produce", "--conns", strconv.Itoa(conns), "--depth", strconv.Itoa(depth), "--size", "1024"},
	}
}

// bench is a run of everything, and what it has measured so far.
type bench struct {
	*options
	began   time.Time
	results []result
	memory  []memory
	started []started
	disk    []diskProbe
	heap    int64  // live on the Java heap after the loads, bytes; 0: unknown
	broken  string // what ended the run early
}

// result is one load of one server in one round.
type result struct {
	Scenario string       `json:"scenario"`
	Server   string       `json:"server"`
	Round    int          `json:"round"`
	Failure  string       `json:"failure,omitempty"` // what perf said at its end, when its exit status is not 0
	Machine  machineUse   `json:"machine"`
	Report   *perf.Report `json:"report"`
}

// memory of one server's process, in bytes.
type memory struct {
	Server string `json:"server"`
	When   string `json:"when"`
	Round  int    `json:"round"`
	RSS    int64  `json:"rss"`
	Anon   int64  `json:"rssAnon"`
	File   int64  `json:"rssFile"`
}

// started is how long after exec the port answered, and the first send was acknowledged.
type started struct {
	Server     string  `json:"server"`
	Round      int     `json:"round"`
	PortMillis float64 `json:"portMillis"`
	SendMillis float64 `json:"sendMillis"`
}
