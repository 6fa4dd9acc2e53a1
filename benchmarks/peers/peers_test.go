//go:build linux

package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
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

func testOptions(t *testing.T, servers ...string) *options {
	t.Setenv(actAsRingmq, "yes")
	dir := t.TempDir()
	return &options{
		ringmq: os.Args[0], work: filepath.Join(dir, "work"), results: filepath.Join(dir, "results"), servers: servers, out: io.Discard,
		pairs: 2, seconds: 100 * time.Millisecond, warmup: 100 * time.Millisecond, lead: time.Millisecond, rest: time.Millisecond, only: "open-1k", heap: "1g",
	}
}

// One load against the control, in processes of their own, from the start to the files.
func TestARunOfTheControlAlone(t *testing.T) {
	o := testOptions(t, stubServer)
	require.NoError(t, o.run(t.Context()))
	name := filepath.Join(o.results, time.Now().Format("2006-01-02")+"-peers-open-1k")
	text, err := os.ReadFile(name + ".md")
	require.NoError(t, err)
	require.Contains(t, string(text), "## open loop, 1k/s, 1 KiB, 4 connections, ASYNC_FLUSH\n\n| | control | ringmq : Java |")
	require.NotContains(t, string(text), "Incomplete")
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

func TestAServerThatEndsByItselfEndsTheRunAndLeavesItsLog(t *testing.T) {
	o := testOptions(t, ringServer, stubServer) // the test binary has no "standalone"
	err := o.run(t.Context())
	require.ErrorContains(t, err, "ringmq ended by itself")
	_, file, _ := strings.Cut(err.Error(), "see ")
	log, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Empty(t, string(log), "cobra is told to be silent")
	_, err = os.Stat(o.results)
	require.ErrorIs(t, err, os.ErrNotExist, "nothing was measured, nothing is kept")
}

func TestAnInterruptedRunKeepsWhatItHas(t *testing.T) {
	o := testOptions(t, stubServer)
	o.pairs = 1000
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
	require.NoError(t, cmd.ParseFlags([]string{"-q", "--servers", "ringmq,control", "--ringmq", os.Args[0], "--work", t.TempDir()}))
	require.NoError(t, o.settle())
	require.Equal(t, []string{ringServer, stubServer}, o.taking(true))
	require.Equal(t, []string{ringServer}, o.taking(false))
	require.Equal(t, 2, o.pairs)
	require.True(t, o.wants("open-10k", true))
	require.False(t, o.wants("open-1k", false), "not in a quick run")
	o.servers = []string{"kafka"}
	require.ErrorContains(t, o.settle(), "kafka")
	o.servers, o.ringmq = nil, "/nowhere"
	require.ErrorContains(t, o.settle(), "make build")
}

func TestTurnsAreABCThenCBA(t *testing.T) {
	names := []string{"A", "B", "C"}
	require.Equal(t, []string{"A", "B", "C"}, turns(names, 0))
	require.Equal(t, []string{"C", "B", "A"}, turns(names, 1))
	require.Equal(t, []string{"A", "B", "C"}, turns(names, 2))
}

// What issue and documents promise is a part of the run.
func TestScenarios(t *testing.T) {
	names := map[string]scenario{}
	for _, sc := range scenarios() {
		names[sc.name] = sc
	}
	for _, name := range []string{"closed-128", "closed-1024", "open-1k", "open-5k", "open-10k", "open-20k", "e2e-5k", "sync-1", "sync-8", "sync-64"} {
		require.Contains(t, names, name)
		sc := names[name]
		require.Equal(t, strings.HasPrefix(name, "sync"), sc.sync)
		require.Equal(t, !sc.sync, sc.control != nil, "the control has a part in every round but those of the disk")
		require.Equal(t, strings.HasPrefix(name, "open") || strings.HasPrefix(name, "e2e"), sc.open())
	}
	require.Len(t, names, 10)
}

func TestJavaOptionsAreThoseOfTheDistribution(t *testing.T) {
	require.Equal(t, "8g", defaultHeap(24<<30))
	require.Equal(t, "8g", defaultHeap(64<<30))
	require.Equal(t, "5g", defaultHeap(16<<30))
	require.Equal(t, "1g", defaultHeap(0))
	require.Subset(t, javaOptions("8g"), []string{"-server", "-Xms8g", "-Xmx8g", "-Xmn4096m", "-XX:+UseG1GC", "-XX:+AlwaysPreTouch"})
	require.Contains(t, javaOptions("512m"), "-Xmn256m")
	o := &options{servers: serverNames, heap: "1g"}
	require.Equal(t, []string{javaServer, lazyServer, ringServer}, o.starting())
	s := &server{name: lazyServer, dir: t.TempDir()}
	require.NoError(t, s.commands(o, 1000, 2000, true))
	require.NotContains(t, s.broker.Args, preTouch)
	conf, err := os.ReadFile(filepath.Join(s.dir, "broker.conf"))
	require.NoError(t, err)
	for _, line := range []string{"flushDiskType=SYNC_FLUSH", "listenPort=1000", "haListenPort=1001", "namesrvAddr=127.0.0.1:2000", "brokerRole=ASYNC_MASTER"} {
		require.Contains(t, string(conf), line+"\n")
	}
}

func TestReadingTheMachine(t *testing.T) {
	busy, stolen := parseCPU("cpu  100 1 50 10000 7 2 3 40 0 0")
	require.InDelta(t, 1.56, busy, 1e-9)
	require.InDelta(t, 0.4, stolen, 1e-9)
	require.Equal(t, int64(161<<20), parseHeap("garbage-first heap   total 8388608K, used 164864K [0x0000000600000000, 0x0000000800000000)"))
	require.Zero(t, parseHeap("no such thing"))
	probe, err := probeDisk(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, probe.P50)
	require.GreaterOrEqual(t, probe.P99, probe.P50)
	require.Positive(t, readStatus(os.Getpid())["VmRSS"])
	require.Positive(t, memoryTotal())
}
