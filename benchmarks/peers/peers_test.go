//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/perf"
)

// actAsRingmq makes the test binary be the ringmq that a run starts: it has the perf commands, and no broker.
const actAsRingmq = "PEERS_TEST_RINGMQ"

func TestMain(m *testing.M) {
	if os.Getenv(actAsRingmq) == "" {
		os.Exit(m.Run())
	}
	root := &cobra.Command{Use: "ringmq", Version: "of the test", SilenceErrors: true}
	root.AddCommand(perf.Command())
	os.Exit(perf.ExitCode(root.Execute()))
}

func testOptions(t *testing.T, peers ...string) *options {
	t.Setenv(actAsRingmq, "yes")
	dir := t.TempDir()
	return &options{
		ringmq: os.Args[0], work: filepath.Join(dir, "work"), results: filepath.Join(dir, "results"), peers: peers, out: io.Discard,
		rounds: 2, seconds: 100 * time.Millisecond, warmup: 100 * time.Millisecond, lead: time.Millisecond, rest: time.Millisecond,
		scenarios: []string{"open-5k"}, heap: "1g",
	}
}

// One load against the control, in processes of their own, from the start to the files.
func TestARunOfTheControlAlone(t *testing.T) {
	o := testOptions(t, stubServer)
	require.NoError(t, o.run(t.Context()))
	name := filepath.Join(o.results, time.Now().Format("2006-01-02")+"-peers-open-5k")
	text, err := os.ReadFile(name + ".md")
	require.NoError(t, err)
	require.Contains(t, string(text), "## open-5k\n\nopen loop, 5k/s, 1 KiB, 4 connections, not flushed before the acknowledgement. Rounds: 2.\n\n| | control |")
	require.NotContains(t, string(text), "Incomplete")
	require.NotContains(t, string(text), "Failed")
	raw, err := os.ReadFile(name + ".json")
	require.NoError(t, err)
	var kept struct{ Results []result }
	require.NoError(t, json.Unmarshal(raw, &kept))
	require.Len(t, kept.Results, 2)
	for round, r := range kept.Results {
		require.Equal(t, round, r.Round)
		require.Empty(t, r.Failure)
		require.True(t, r.Report.Verified.OK)
		require.Greater(t, r.Report.Latency("ack").Count, int64(50))
		require.Positive(t, r.Report.Server.RSS)
		require.Positive(t, r.Machine.Seconds)
	}
	left, err := os.ReadDir(o.work)
	require.NoError(t, err)
	require.Empty(t, left, "stores are removed")
}

// The control gives out records by sendfile: a hot read of it verifies every one of them.
func TestAHotReadOfTheControl(t *testing.T) {
	o := testOptions(t, stubServer)
	o.scenarios, o.rounds = []string{"hot-32"}, 1
	b := &bench{options: o, began: time.Now()}
	require.NoError(t, o.settle())
	require.NoError(t, b.measure(t.Context()))
	require.Len(t, b.results, 1)
	require.Empty(t, b.results[0].Failure)
	require.Equal(t, int64(4*hotCount*hotPasses), b.results[0].Report.Verified.Received)
}

func TestAServerThatFailsLeavesItsLogAndTheOthersGoOn(t *testing.T) {
	o := testOptions(t, ringServer, stubServer) // the test binary has no "standalone"
	err := o.run(t.Context())
	require.ErrorContains(t, err, "1 things failed: ringmq: ringmq ended by itself")
	_, file, _ := strings.Cut(err.Error(), "see ")
	log, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Empty(t, string(log), "cobra is told to be silent")
	found, err := filepath.Glob(filepath.Join(o.results, "*.md"))
	require.NoError(t, err)
	require.Len(t, found, 1, "the control has been measured")
	text, err := os.ReadFile(found[0])
	require.NoError(t, err)
	require.Contains(t, string(text), "**Failed:** ringmq: ringmq ended by itself")
}

func TestAnInterruptedRunKeepsWhatItHas(t *testing.T) {
	o := testOptions(t, stubServer)
	o.rounds = 1000
	ctx, cancel := context.WithCancel(t.Context())
	o.out = writerFunc(func(text string) {
		if strings.Contains(text, "round 3") {
			cancel()
		}
	})
	require.ErrorIs(t, o.run(ctx), context.Canceled)
	found, err := filepath.Glob(filepath.Join(o.results, "*.md"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	text, err := os.ReadFile(found[0])
	require.NoError(t, err)
	require.Contains(t, string(text), "Incomplete")
	left, err := os.ReadDir(o.work)
	require.NoError(t, err)
	require.Empty(t, left, "stores are removed")
}

type writerFunc func(text string)

func (f writerFunc) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

func TestFlags(t *testing.T) {
	o := &options{out: io.Discard}
	cmd := command(o)
	args := longFlags([]string{"-short", "-peers", "ringmq,control", "-scenario=closed-1k,sync", "--ringmq", os.Args[0], "--work", t.TempDir(), "-h"})
	require.Equal(t, []string{"--short", "--peers", "ringmq,control", "--scenario=closed-1k,sync", "--ringmq"}, args[:5])
	require.Equal(t, "-h", args[len(args)-1])
	require.NoError(t, cmd.ParseFlags(args[:len(args)-1]))
	require.NoError(t, o.settle())
	require.Equal(t, 1, o.rounds)
	wanted := map[string]bool{}
	for _, sc := range scenarios() {
		wanted[sc.name] = o.wants(&sc)
		if sc.name == "closed-1k" {
			require.Equal(t, []string{ringServer, stubServer}, o.taking(&sc))
		}
		if sc.name == "sync-8" {
			require.Equal(t, []string{ringServer, stubServer, bareServer}, o.taking(&sc))
		}
	}
	require.True(t, wanted["closed-1k"])
	require.False(t, wanted["closed-1k-1conn"], "closed-1k is a name of its own")
	require.True(t, wanted["sync-1"] && wanted["sync-512"], "sync is what their names begin with")
	require.False(t, wanted["open-10k"])
	o.scenarios = []string{"nothing"}
	require.ErrorContains(t, o.settle(), "nothing")
	o.scenarios, o.peers = nil, []string{"pulsar"}
	require.ErrorContains(t, o.settle(), "pulsar")
	o.peers, o.ringmq = nil, "/nowhere"
	require.ErrorContains(t, o.settle(), "make build")
}

func TestRounds(t *testing.T) {
	o := &options{}
	require.Equal(t, usualRounds, o.roundsOf(&scenario{}))
	require.Equal(t, 2, o.roundsOf(&scenario{rounds: 2}))
	o.rounds = 3
	require.Equal(t, 3, o.roundsOf(&scenario{rounds: 2}), "who says so gets them")
}

func TestTurnsAreABCThenCBA(t *testing.T) {
	names := []string{"A", "B", "C"}
	require.Equal(t, []string{"A", "B", "C"}, turns(names, 0))
	require.Equal(t, []string{"C", "B", "A"}, turns(names, 1))
	require.Equal(t, []string{"A", "B", "C"}, turns(names, 2))
}

// What the project promises has a scenario each.
func TestScenarios(t *testing.T) {
	names := map[string]scenario{}
	for _, sc := range scenarios() {
		require.NotContains(t, names, sc.name, "twice")
		names[sc.name] = sc
		require.NotEmpty(t, sc.figures)
		require.True(t, sc.run != nil || sc.group != "" && len(sc.args) > 0)
		require.True(t, sc.takes(ringServer))
		require.Equal(t, strings.HasPrefix(sc.name, "sync"), sc.sync)
		require.Equal(t, sc.sync, sc.takes(bareServer), "the disk's own control")
		require.Equal(t, sc.sync, sc.bare != nil)
		if sc.group != "" {
			require.True(t, sc.takes(stubServer), "the control has a part in every round")
		}
	}
	for _, name := range []string{
		"closed-1k", "closed-1k-1conn", "closed-128", "closed-128-1conn", "open-5k", "open-10k", "open-20k", "open-50k", "e2e-5k", "batch-16", "batch-64",
		"sync-1", "sync-8", "sync-64", "sync-512", "hot-32", "hot-large", "idle", "start", "kill-empty", "kill-filled",
		"queues-8", "queues-64", "queues-1024", "queues-10000", "queues-100000", "long", "cold",
	} {
		require.Contains(t, names, name)
		delete(names, name)
	}
	require.Empty(t, names)
}

func TestServersOfAGroupAreConfiguredAlike(t *testing.T) {
	groups := map[string]scenario{}
	for _, sc := range scenarios() {
		if sc.group == "" {
			continue
		}
		first, ok := groups[sc.group]
		if !ok {
			groups[sc.group] = sc
			continue
		}
		require.Equal(t, first.sync, sc.sync, sc.name)
		require.Equal(t, first.conf, sc.conf, sc.name)
		require.Equal(t, first.fill, sc.fill, sc.name)
	}
}

func TestLoadsAreAdapted(t *testing.T) {
	for name, tc := range map[string]struct {
		server string
		args   []string
		want   string
	}{
		"as it is":               {ringServer, []string{"e2e", "--rate", "5k"}, "e2e --rate 5k"},
		"control stores nothing": {stubServer, []string{"e2e", "--rate", "5k"}, "produce --rate 5k"},
		"nats sends":             {natsServer, []string{"produce"}, "produce --protocol nats"},
		"nats reads":             {natsServer, []string{"e2e"}, "e2e --protocol nats --queues 1 --pull-batch 500"},
		"nats fills":             {natsServer, []string{"produce", "--count", "5"}, "produce --count 5 --protocol nats --queues 1"},
		"kafka reads":            {kafkaServer, []string{"drain"}, "drain --protocol kafka --pull-conns 4"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, strings.Join(adapt(tc.server, tc.args), " ")) })
	}
}

func TestServersAreConfiguredAsSaid(t *testing.T) {
	require.Equal(t, "8g", defaultHeap(24<<30))
	require.Equal(t, "8g", defaultHeap(64<<30))
	require.Equal(t, "5g", defaultHeap(16<<30))
	require.Equal(t, "1g", defaultHeap(0))
	require.Subset(t, javaOptions("8g"), []string{"-server", "-Xms8g", "-Xmx8g", "-Xmn4096m", "-XX:+UseG1GC", "-XX:+AlwaysPreTouch"})
	require.Contains(t, javaOptions("512m"), "-Xmn256m")
	o := &options{heap: "1g", bin: "/bin"}
	s := &server{name: lazyServer, dir: t.TempDir()}
	synced := &scenario{sync: true, conf: []string{"some=thing"}}
	require.NoError(t, s.commands(o, 1000, 2000, synced))
	require.NotContains(t, s.broker.Args, preTouch)
	conf, err := os.ReadFile(filepath.Join(s.dir, "broker.conf"))
	require.NoError(t, err)
	for _, line := range []string{"flushDiskType=SYNC_FLUSH", "listenPort=1000", "haListenPort=1001", "namesrvAddr=127.0.0.1:2000", "brokerRole=ASYNC_MASTER", "some=thing"} {
		require.Contains(t, string(conf), line+"\n")
	}
	ring := &server{name: ringServer, dir: t.TempDir()}
	require.NoError(t, ring.commands(&options{engine: "direct"}, 1000, 2000, synced))
	require.Contains(t, ring.broker.Args, "--ioEngine=direct")
	require.Contains(t, kafkaConf("/d", 1000, 2000, synced), "log.flush.interval.messages=1\n")
	require.NotContains(t, kafkaConf("/d", 1000, 2000, &scenario{}), "flush")
	require.Contains(t, kafkaConf("/d", 1000, 2000, &scenario{}), "listeners=PLAINTEXT://127.0.0.1:1000,CONTROLLER://127.0.0.1:2000\n")
	nats := &server{name: natsServer, dir: t.TempDir()}
	require.NoError(t, nats.natsCommand(o, 1000, synced))
	conf, err = os.ReadFile(filepath.Join(nats.dir, "nats.conf"))
	require.NoError(t, err)
	require.Contains(t, string(conf), "sync_interval: always")
}

func TestReadingTheMachine(t *testing.T) {
	busy, stolen := parseCPU("cpu  100 1 50 10000 7 2 3 40 0 0")
	require.InDelta(t, 1.56, busy, 1e-9)
	require.InDelta(t, 0.4, stolen, 1e-9)
	require.Equal(t, int64(161<<20), parseHeap("garbage-first heap   total 8388608K, used 164864K [0x0000000600000000, 0x0000000800000000)"))
	require.Zero(t, parseHeap("no such thing"))
	require.InDelta(t, 109.0, parsePerfStat("109,,raw_syscalls:sys_enter,1657325,100.00,,\n"), 0)
	require.Zero(t, parsePerfStat("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n"))
	require.Zero(t, parsePerfStat("event syntax error"))
	require.Positive(t, readStatus(os.Getpid())["VmRSS"])
	require.Positive(t, memoryTotal())
	u := readProcess(os.Getpid())
	require.Positive(t, u.threads)
	require.Positive(t, u.switches)
}

func TestBareCommits(t *testing.T) {
	o := testOptions(t)
	require.NoError(t, os.MkdirAll(o.work, 0o755))
	name := filepath.Join(o.work, "zeros")
	require.NoError(t, zeroFile(name, commitFileSize))
	c := commits{inFlight: 5, depth: 2, limit: 50 * time.Millisecond}
	require.NoError(t, c.run(t.Context(), name, os.O_SYNC))
	require.Positive(t, c.rate())
	require.Positive(t, c.p50())
	n := c.messages.Load()
	require.GreaterOrEqual(t, n, int64(5), "groups of 3 and 2")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.run(cancelled, name, os.O_SYNC), context.Canceled)
}

func TestStoredBytesAndLargeFiles(t *testing.T) {
	dir := t.TempDir()
	require.Zero(t, storedBytes(dir))
	require.NoError(t, zeroFile(filepath.Join(dir, "large"), 9<<20))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "small"), []byte("x"), 0o600))
	require.GreaterOrEqual(t, storedBytes(dir), int64(9<<20))
	names, err := largeFiles(dir)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "large")}, names)
	used, free, err := space(t.Context(), dir)
	require.NoError(t, err)
	require.Positive(t, used+free)
}

func TestSegmentsGone(t *testing.T) {
	dir := t.TempDir()
	_, ok := segmentsGone(dir)
	require.False(t, ok)
	log := filepath.Join(dir, "store", "commitlog")
	require.NoError(t, os.MkdirAll(log, 0o755))
	for _, from := range []int64{3 << 30, 4 << 30} {
		require.NoError(t, os.WriteFile(filepath.Join(log, fmt.Sprintf("%020d", from)), nil, 0o600))
	}
	gone, ok := segmentsGone(dir)
	require.True(t, ok)
	require.InDelta(t, 3.0, gone, 0)
}

func TestCountWindows(t *testing.T) {
	second := func(n, p996 int64) perf.Window {
		return perf.Window{From: n * 1000, To: n*1000 + 1000, Kind: "ack", Count: 100, P996: p996}
	}
	control := []perf.Window{second(0, 1e5), second(1, 1e5), second(2, 5e6), second(3, 1e5), second(4, 1e5), second(5, 1e5), second(6, 1e5)}
	load := []perf.Window{second(0, 5e5), second(1, 5e5), second(2, 5e5), second(3, 5e5), second(4, 2e6), second(5, 5e5), second(20, 1)}
	n := countWindows(load, control)
	require.Equal(t, windowCount{all: 7, quiet: 3, good: 2}, n, "seconds 1 to 3 are near the loud one, 20 has no control, 4 is late")
	load[5].Failed = 1
	require.Equal(t, 1, countWindows(load, control).good)
	require.Equal(t, windowCount{}, countWindows(slices.Clone(load[:0]), control))
}
