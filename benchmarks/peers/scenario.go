//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ringmq/ringmq/perf"
)

// scenario is one row of what the project promises, or a part of one.
type scenario struct {
	name  string // for --scenario, and of the topic
	title string
	group string   // scenarios of one group share their servers, which live through all its rounds
	sync  bool     // what is acknowledged is on the device
	peers []string // who can take part, in the order of the tables
	conf  []string // lines that RocketMQ's brokers and ringmq have in their broker.conf besides
	args  []string // of perf
	// prepare are loads that every server gets once, before the first round.
	prepare [][]string
	fill    []string // of the control, which gives out records
	// bare measures what the machine alone does, once a round.
	bare func(ctx context.Context, b *bench, sc *scenario) (map[string]float64, error)
	// run does one round of one server, for scenarios that start their servers themselves.
	run func(ctx context.Context, b *bench, sc *scenario, name string, round int) error
	// rounds are fewer than usual, where one takes long; 0: as many as usual.
	rounds int
	// queues, topics of the scenarios with many of them.
	queues, topics int
	figures        []figure
}

func (sc *scenario) drains() bool { return len(sc.args) > 0 && sc.args[0] == "drain" }

func (sc *scenario) takes(server string) bool { return slices.Contains(sc.peers, server) }

// Layouts of 64 in flight.
var layouts = []struct {
	suffix       string
	conns, depth int
}{{"", 16, 4}, {"-1conn", 1, 64}}

func scenarios() []scenario {
	var list []scenario
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1k", 1024}, {"128", 128}} {
		for _, l := range layouts {
			list = append(list, closedLoop(size.name+l.suffix, size.bytes, l.conns, l.depth))
		}
	}
	for _, rate := range []string{"5k", "10k", "20k", "50k"} {
		list = append(list, openLoop(rate))
	}
	list = append(list, endToEnd("5k"), batches(16), batches(64))
	for _, s := range []struct{ conns, depth int }{{1, 1}, {8, 1}, {16, 4}, {32, 16}} {
		list = append(list, syncFlush(s.conns, s.depth))
	}
	list = append(list, hotRead(), hotReadLarge())
	return append(list, aloneScenarios()...)
}

func closedLoop(name string, size, conns, depth int) scenario {
	return scenario{
		name: "closed-" + name, group: "closed", peers: serverNames, figures: loadFigures(),
		title: fmt.Sprintf("closed loop, 64 in flight (%s), %d B, not flushed before the acknowledgement", layout(conns, depth), size),
		args:  []string{"produce", "--conns", strconv.Itoa(conns), "--depth", strconv.Itoa(depth), "--size", strconv.Itoa(size)},
	}
}

func layout(conns, depth int) string {
	if conns == 1 {
		return fmt.Sprintf("1 connection × %d", depth)
	}
	return fmt.Sprintf("%d connections × %d", conns, depth)
}

func openLoop(rate string) scenario {
	return scenario{
		name: "open-" + rate, group: "open", peers: serverNames, figures: append(loadFigures(), lagFigure),
		title: "open loop, " + rate + "/s, 1 KiB, 4 connections, not flushed before the acknowledgement",
		args:  []string{"produce", "--rate", rate, "--conns", "4", "--size", "1024"},
	}
}

// endToEnd reads what it sends. The stub stores nothing that could be read: its part is the sending.
func endToEnd(rate string) scenario {
	return scenario{
		name: "e2e-" + rate, group: "open", peers: serverNames,
		figures: append(append(append(loadFigures(), latencyFigures("end to end")...), latencyFigures("after the ack")...), lagFigure),
		title:   "end to end, open loop, " + rate + "/s, 1 KiB, 4 connections, consumer waiting at the broker, not flushed before the acknowledgement",
		args:    []string{"e2e", "--rate", rate, "--conns", "4", "--size", "1024"},
	}
}

func batches(n int) scenario {
	return scenario{
		name: fmt.Sprintf("batch-%d", n), group: "batch", figures: loadFigures(),
		peers: without(serverNames, natsServer), // it has no request with several messages
		title: fmt.Sprintf("batches of %d (SEND_BATCH; Kafka: a record batch), closed loop, 16 requests in flight (4 connections × 4), 1 KiB, not flushed before the acknowledgement", n),
		args:  []string{"produce", "--conns", "4", "--depth", "4", "--size", "1024", "--batch", strconv.Itoa(n)},
	}
}

func syncFlush(conns, depth int) scenario {
	return scenario{
		name: fmt.Sprintf("sync-%d", conns*depth), group: "sync", sync: true, figures: append(loadFigures(), commitFigures()...),
		peers: append(slices.Clone(serverNames), bareServer),
		title: fmt.Sprintf("closed loop, %d in flight (%s), 1 KiB, on the device before the acknowledgement", conns*depth, layout(conns, depth)),
		args:  []string{"produce", "--conns", strconv.Itoa(conns), "--depth", strconv.Itoa(depth), "--size", "1024"},
		bare:  bareCommits(conns * depth),
	}
}

// Hot reads: what is stored is in the page cache. 4 queues × hotCount messages are read several times.
const (
	hotCount  = 100_000
	hotPasses = 3
)

func hotRead() scenario {
	return scenario{
		name: "hot-32", group: "hot", peers: serverNames, figures: readFigures(),
		title: fmt.Sprintf("hot read, 32 messages a pull, 1 pull in flight per queue, 4 queues × %d messages of 1 KiB, %d times over; control: sendfile of ready records", hotCount, hotPasses),
		args:  []string{"drain", "--passes", strconv.Itoa(hotPasses), "--pull-bytes", strconv.Itoa(32 * 1120)}, prepare: hotFill, fill: stubFill,
	}
}

var hotFill = [][]string{{"produce", "--count", strconv.Itoa(4 * hotCount), "--conns", "4", "--depth", "16", "--size", "1024"}}

var stubFill = []string{"--fill-topic", hotTopic, "--fill-count", strconv.Itoa(hotCount)}

const hotTopic = "hot"

// hotReadLarge lets pulls be as large as Kafka's are by default: 1 MiB.
func hotReadLarge() scenario {
	return scenario{
		name: "hot-large", group: "hot-large", peers: serverNames, figures: readFigures(), conf: largePulls,
		title: fmt.Sprintf("hot read, up to 1 MiB a pull, 1 pull in flight per queue, 4 queues × %d messages of 1 KiB, %d times over; control: sendfile of ready records", hotCount, hotPasses),
		args:  []string{"drain", "--passes", strconv.Itoa(hotPasses), "--pull-batch", "900", "--pull-bytes", strconv.Itoa(1 << 20)}, prepare: hotFill, fill: stubFill,
	}
}

var largePulls = []string{
	"maxTransferBytesOnMessageInMemory=1048576", "maxTransferCountOnMessageInMemory=1024",
	"maxTransferBytesOnMessageInDisk=1048576", "maxTransferCountOnMessageInDisk=1024",
}

func without(names []string, out ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(out, s) })
}

// adapt changes a load into what it is for one of the servers.
func adapt(name string, args []string) []string {
	args = slices.Clone(args)
	switch name {
	case stubServer:
		if args[0] == "e2e" {
			args[0] = "produce"
		}
	case natsServer:
		args = append(args, "--protocol", "nats")
		if args[0] != "produce" || slices.Contains(args, "--count") {
			// One subject: a stream of one consumer, which needs no filter. 500 is what NATS's own client asks for.
			args = append(args, "--queues", "1")
		}
		if args[0] == "e2e" {
			args = append(args, "--pull-batch", "500")
		}
	case kafkaServer:
		args = append(args, "--protocol", "kafka")
		if args[0] != "produce" {
			args = append(args, "--pull-conns", "4") // one per partition
		}
	}
	return args
}

// bench is a run of everything, and what it has measured so far.
type bench struct {
	*options
	began    time.Time
	results  []result
	failures []string // what single servers did not do
	heap     int64    // live on the Java heap after the loads, bytes; 0: unknown
	broken   string   // what ended the run early
}

// result is one scenario of one server in one round.
type result struct {
	Scenario string             `json:"scenario"`
	Server   string             `json:"server"`
	Round    int                `json:"round"`
	Failure  string             `json:"failure,omitempty"` // what perf said at its end, when its exit status is not 0
	Machine  machineUse         `json:"machine"`
	Values   map[string]float64 `json:"values,omitempty"` // what no report has
	Report   *perf.Report       `json:"report,omitempty"`
}
