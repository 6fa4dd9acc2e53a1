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

// measured is one load's figures.
func measured(scenario, server string, round int, rate, micros, under1ms float64) result {
	return result{Scenario: scenario, Server: server, Round: round, Report: &perf.Report{
		MessagesPerSecond: rate, Server: &perf.ServerUse{MicrosPerMessage: micros},
		Latencies: []perf.Latency{{Name: "ack", Count: 99, Failed: 1, Under1ms: under1ms, Percentiles: map[string]int64{"p50": 1e6}}},
	}}
}

func testBench(results ...result) *bench {
	return &bench{options: &options{servers: serverNames, heap: "1g", pairs: 2}, results: results}
}

func aimsOf(b *bench) string {
	var t strings.Builder
	b.aims(&t)
	return t.String()
}

func TestAimsOfThroughputAndCPU(t *testing.T) {
	for name, tc := range map[string]struct {
		rate, micros float64
		want         []string
	}{
		"both held":   {400, 20, []string{"throughput at least 4 × Java's | 4 × | held |", "a fifth of Java's | 0.2 ×; the control: 0.1 × | held |"}},
		"both missed": {399, 21, []string{"throughput at least 4 × Java's | 3.99 × | missed |", "a fifth of Java's | 0.21 ×; the control: 0.1 × | missed |"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := aimsOf(testBench(measured("closed-128", javaServer, 0, 100, 100, 0), measured("closed-128", ringServer, 0, tc.rate, tc.micros, 0),
				measured("closed-128", stubServer, 0, 1000, 10, 1)))
			for _, want := range tc.want {
				require.Contains(t, text, want)
			}
		})
	}
}

func TestAimOfTheTailCountsQuietRoundsOnly(t *testing.T) {
	round := func(n int, control, ring float64) []result {
		return []result{measured("open-10k", stubServer, n, 1, 1, control/100), measured("open-10k", ringServer, n, 1, 1, ring/100)}
	}
	for name, tc := range map[string]struct {
		results []result
		want    string
	}{
		"held":          {append(round(0, 99.6, 99.1), round(1, 99.4, 50)...), "1 of 1 such rounds, lowest 99.100 % | held |"},
		"missed":        {append(round(0, 99.6, 99.1), round(1, 99.9, 98.9)...), "1 of 2 such rounds, lowest 98.900 % | missed |"},
		"never quiet":   {round(0, 99.4, 99.9), "the control had 99.400 % at best: the machine is too noisy to tell | not known |"},
		"exactly quiet": {round(0, 99.5, 99), "1 of 1 such rounds, lowest 99.000 % | held |"},
	} {
		t.Run(name, func(t *testing.T) { require.Contains(t, aimsOf(testBench(tc.results...)), tc.want) })
	}
}

func TestAimOfMemory(t *testing.T) {
	b := testBench()
	b.memory = []memory{
		{Server: javaServer, When: afterLoads, RSS: 8000 << 20, Anon: 7000 << 20}, {Server: ringServer, When: afterLoads, RSS: 799 << 20, Anon: 700 << 20},
		{Server: javaServer, When: idle, RSS: 1000 << 20, Anon: 1000 << 20}, {Server: ringServer, When: idle, RSS: 100 << 20, Anon: 10 << 20},
	}
	text := aimsOf(b)
	require.Contains(t, text, "after the loads: resident memory under a tenth of Java's | 0.0999 × | held |")
	require.Contains(t, text, "after the loads: anonymous part of it under a tenth of Java's | 0.1 × | missed |")
	require.Contains(t, text, "idle: resident memory under a tenth of Java's | 0.1 × | missed |")
	var table strings.Builder
	b.memoryTable(&table)
	require.Contains(t, table.String(), "| Java | idle | 1000 (1000–1000) | 1000 (1000–1000) | 0 (0–0) |")
}

func TestNoAimsWithoutJava(t *testing.T) {
	b := testBench(measured("closed-128", ringServer, 0, 1, 1, 1))
	b.servers = []string{ringServer, stubServer}
	require.Empty(t, aimsOf(b))
}

func TestScenarioTable(t *testing.T) {
	failed := measured("open-10k", javaServer, 1, 80, 60, 0)
	failed.Failure = "exit status 3: some requests failed"
	b := testBench(measured("open-10k", javaServer, 0, 100, 50, 0.5), measured("open-10k", ringServer, 0, 200, 10, 0.99),
		failed, measured("open-10k", ringServer, 1, 200, 10, 0.99))
	var text strings.Builder
	for _, sc := range scenarios() {
		b.scenarioTable(&text, &sc)
	}
	require.Equal(t, 1, strings.Count(text.String(), "## "), "what was not measured has no table")
	for _, want := range []string{
		"| | Java | ringmq | ringmq : Java |", "| messages/s | 90 (80–100) | 200 (200–200) | 2.25 × |",
		"| ack under 1 ms | 25.000 % (0.000 %–50.000 %) | 99.000 % (99.000 %–99.000 %) |  |",
		"| not acknowledged | 1.000 % (1.000 %–1.000 %) |", "Round 2, Java: exit status 3: some requests failed",
	} {
		require.Contains(t, text.String(), want)
	}
}
