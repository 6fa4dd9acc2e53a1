//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/perf"
)

func TestMedianSpreadRatio(t *testing.T) {
	require.InDelta(t, 2.5, median([]float64{4, 1, 3, 2}), 0)
	require.InDelta(t, 3.0, median([]float64{9, 1, 3}), 0)
	require.Equal(t, "3.0 (1.0–9.0)", spread(map[int]float64{0: 9, 1: 1, 2: 3}, decimals(1)))
	require.Equal(t, "–", spread(nil, decimals(1)))
	r, ok := ratio(map[int]float64{0: 1, 1: 2, 2: 30}, map[int]float64{0: 2, 1: 2, 3: 1})
	require.True(t, ok)
	require.InDelta(t, 0.75, r, 0, "of the rounds that both have")
	_, ok = ratio(map[int]float64{0: 1}, map[int]float64{1: 1})
	require.False(t, ok)
}

func TestPercentIsNotRoundedToTheEnds(t *testing.T) {
	require.Equal(t, "99.999 %", percent(99.99999))
	require.Equal(t, "100.000 %", percent(100))
	require.Equal(t, "0.001 %", percent(0.00001))
	require.Equal(t, "0.000 %", percent(0))
}

// measured is one load's figures: those that are named.
type measured struct {
	rate, micros, under1, under10 float64
	endToEnd, tail, afterAck      int64
	values                        map[string]float64
}

func (m measured) of(scenario, server string, round int) result {
	r := result{Scenario: scenario, Server: server, Round: round, Values: m.values}
	if m.values == nil {
		r.Report = &perf.Report{
			MessagesPerSecond: m.rate, Server: &perf.ServerUse{MicrosPerMessage: m.micros, RSSAnonPeak: 100 << 20},
			Latencies: []perf.Latency{
				{Name: "ack", Count: 99, Failed: 1, Under1ms: m.under1, Under10ms: m.under10, Percentiles: map[string]int64{"p50": 1e6}},
				{Name: "end to end", Count: 99, Percentiles: map[string]int64{"p50": m.endToEnd, "p99.6": m.tail}},
				{Name: "after the ack", Count: 99, Percentiles: map[string]int64{"p50": m.afterAck}},
			},
		}
	}
	return r
}

func testBench(results ...result) *bench {
	return &bench{options: &options{peers: serverNames, heap: "1g", rounds: 2}, results: results}
}

// verdictOf finds the verdict about the one aim whose text contains all of the words.
func verdictOf(t *testing.T, b *bench, words ...string) string {
	var found []aim
	for _, a := range b.aims() {
		all := true
		for _, w := range words {
			all = all && strings.Contains(a.Aim, w)
		}
		if all {
			found = append(found, a)
		}
	}
	require.Len(t, found, 1, "%v in %v", words, b.aims())
	return found[0].Verdict
}

func TestAimsAgainstOthers(t *testing.T) {
	others := []result{
		measured{rate: 100, micros: 100}.of("closed-1k", javaServer, 0), measured{rate: 400, micros: 20}.of("closed-1k", natsServer, 0),
		measured{rate: 2000, micros: 5}.of("closed-1k", stubServer, 0),
	}
	ring := func(rate, micros float64) *bench {
		return testBench(append(others, measured{rate: rate, micros: micros}.of("closed-1k", ringServer, 0))...)
	}
	good, bad := ring(800, 10), ring(799, 10.1)
	for _, words := range [][]string{{"throughput", "Java's"}, {"throughput", "NATS's"}, {"CPU", "Java's"}, {"CPU", "control's"}} {
		require.Equal(t, held, verdictOf(t, good, append(words, "closed-1k:")...))
		require.Equal(t, missed, verdictOf(t, bad, append(words, "closed-1k:")...))
	}
	require.Empty(t, testBench(others...).aims(), "nothing about ringmq")
}

func TestAimOfTheTailIsRelativeToTheControl(t *testing.T) {
	round := func(n int, control1, control10, ring1, ring10 float64) []result {
		return []result{
			measured{under1: control1 / 100, under10: control10 / 100}.of("open-10k", stubServer, n),
			measured{under1: ring1 / 100, under10: ring10 / 100}.of("open-10k", ringServer, n),
		}
	}
	for name, tc := range map[string]struct {
		results []result
		want    string
	}{
		"quiet, held":            {round(0, 99.7, 100, 99.6, 99.996), held},
		"quiet, missed at 1 ms":  {round(0, 99.7, 100, 99.59, 100), missed},
		"quiet, missed at 10 ms": {round(0, 99.7, 100, 99.7, 99.99), missed},
		"noisy, as the control":  {round(0, 99, 99.9, 98.85, 99.9), held},
		"noisy, worse":           {round(0, 99, 99.9, 98.7, 99.9), missed},
		"one of two missed":      {append(round(0, 99.7, 100, 99.7, 100), round(1, 99.7, 100, 99, 100)...), missed},
		"hopeless round":         {append(round(0, 99.7, 100, 99.7, 100), round(1, 80, 99, 10, 10)...), held},
		"never quiet":            {round(0, 89, 99, 88, 99), notKnown},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, verdictOf(t, testBench(tc.results...), "open-10k", "under 1 ms"))
		})
	}
}

func TestAimOfTheLongRun(t *testing.T) {
	for name, tc := range map[string]struct {
		windows, quiet, good float64
		want                 string
	}{
		"held": {100, 50, 99, held}, "missed": {100, 50, 98.9, missed}, "too few quiet windows": {100, 24, 100, notKnown},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBench(measured{values: map[string]float64{valueWindows: tc.windows, valueQuiet: tc.quiet, valueGood: tc.good}}.of(longName, ringServer, 0))
			require.Equal(t, tc.want, verdictOf(t, b, "long"))
		})
	}
}

func TestAimsOfTheColdDrain(t *testing.T) {
	cold := func(during, control, drain float64) *bench {
		return testBench(measured{values: map[string]float64{
			valueAlone: 1, valueDuring: during, valueControlA: 1, valueControl: control, valueDrainDisk: drain, valueDisk: 1000,
		}}.of(coldName, ringServer, 0))
	}
	require.Equal(t, held, verdictOf(t, cold(2, 1, 800), "send p99.6"))
	require.Equal(t, missed, verdictOf(t, cold(2.1, 2, 800), "send p99.6"))
	require.Equal(t, notKnown, verdictOf(t, cold(2.1, 2.1, 800), "send p99.6"))
	require.Equal(t, held, verdictOf(t, cold(2, 1, 800), "drain at least"))
	require.Equal(t, missed, verdictOf(t, cold(2, 1, 799), "drain at least"))
}

func TestAimsWithABareProgramAndWithManyQueues(t *testing.T) {
	b := testBench(
		measured{values: map[string]float64{valueRate: 1000}}.of("sync-8", bareServer, 0), measured{rate: 900}.of("sync-8", ringServer, 0),
		measured{rate: 300}.of("sync-8", javaServer, 0), measured{rate: 1500}.of("sync-64", stubServer, 0), measured{rate: 539}.of("sync-64", ringServer, 0),
		measured{values: map[string]float64{valueRate: 1000}}.of("sync-64", bareServer, 0), // 1,500 and 1,000 one after the other: 600
		measured{rate: 100}.of("queues-8", ringServer, 0), measured{rate: 89}.of("queues-10000", ringServer, 0), measured{rate: 75}.of("queues-100000", ringServer, 0),
	)
	require.Equal(t, held, verdictOf(t, b, "sync-8", "bare"))
	require.Equal(t, missed, verdictOf(t, b, "sync-8", "Java"))
	require.Equal(t, missed, verdictOf(t, b, "sync-64", "one after the other"))
	require.Equal(t, missed, verdictOf(t, b, "queues-10000:"))
	require.Equal(t, held, verdictOf(t, b, "queues-100000", "throughput"))
}

func TestAimsEndToEndAndAlone(t *testing.T) {
	values := func(name string, v float64) measured { return measured{values: map[string]float64{name: v}} }
	b := testBench(
		measured{endToEnd: 1000, tail: 4000}.of("e2e-5k", javaServer, 0), measured{endToEnd: 150, tail: 9999}.of("e2e-5k", natsServer, 0),
		measured{endToEnd: 200, tail: 1001, afterAck: 50_000}.of("e2e-5k", ringServer, 0),
		values(valueFirstAck, 501).of("kill-filled", ringServer, 0), values(valueFirstAck, 150).of("kill-empty", ringServer, 0),
		values(valueCPU, 0.3).of("idle", ringServer, 0),
	)
	require.Equal(t, held, verdictOf(t, b, "e2e-5k", "p50", "Java's"))
	require.Equal(t, missed, verdictOf(t, b, "e2e-5k", "p50", "NATS's"))
	require.Equal(t, held, verdictOf(t, b, "e2e-5k", "after the ack"))
	require.Equal(t, missed, verdictOf(t, b, "e2e-5k", "p99.6"))
	require.Equal(t, missed, verdictOf(t, b, "kill-filled", "first acknowledgement"))
	require.Equal(t, held, verdictOf(t, b, "kill-empty"))
	require.Equal(t, held, verdictOf(t, b, "idle", "CPU"))
	require.Equal(t, held, verdictOf(t, b, "anonymous memory under load"))
}

// A control that is twice as fast in one round as in another says that comparisons of throughput are luck.
func TestThroughputIsNotJudgedWhereTheControlIsNoisy(t *testing.T) {
	b := testBench(
		measured{rate: 100}.of("closed-1k", javaServer, 0), measured{rate: 900, micros: 9}.of("closed-1k", ringServer, 0), measured{rate: 1000, micros: 5}.of("closed-1k", stubServer, 0),
		measured{rate: 2100, micros: 5}.of("closed-1k", stubServer, 1),
	)
	require.Equal(t, notKnown, verdictOf(t, b, "closed-1k", "throughput", "Java's"))
	require.Equal(t, held, verdictOf(t, b, "closed-1k", "CPU", "control's"))
}

func TestScenarioTable(t *testing.T) {
	failed := measured{rate: 80, micros: 60}.of("open-10k", javaServer, 1)
	failed.Failure = "exit status 3: some requests failed"
	fast := measured{rate: 200, micros: 10, under1: 0.99}
	b := testBench(measured{rate: 100, micros: 50, under1: 0.5}.of("open-10k", javaServer, 0), fast.of("open-10k", ringServer, 0), failed, fast.of("open-10k", ringServer, 1))
	b.addValue("open-10k", ringServer, valueSyscalls, 0.25)
	var text strings.Builder
	for _, sc := range scenarios() {
		b.scenarioTable(&text, &sc)
	}
	require.Equal(t, 1, strings.Count(text.String(), "## "), "what was not measured has no table")
	for _, want := range []string{
		"| | Java | ringmq | ringmq : Java |", "| messages/s | 90 (80–100) | 200 (200–200) | 2.25 × |",
		"| ack under 1 ms | 25.000 % (0.000 %–50.000 %) | 99.000 % (99.000 %–99.000 %) |  |",
		"| not acknowledged | 1.000 % (1.000 %–1.000 %) |", "Round 2, Java: exit status 3: some requests failed",
		"| system calls per message (counted in a load of their own) | – | 0.250 (0.250–0.250) | – |",
	} {
		require.Contains(t, text.String(), want)
	}
}
