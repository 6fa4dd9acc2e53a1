package perf

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

func TestSummary(t *testing.T) {
	h := newHistogram()
	for i := range int64(1000) {
		record(h, (i+1)*int64(20*time.Microsecond)) // 20 µs to 20 ms
	}
	record(h, int64(time.Hour))
	l := summarise("ack", h, 0)
	require.InEpsilon(t, 10e6, l.Percentiles["p50"], 0.01)
	require.InEpsilon(t, 19.8e6, l.Percentiles["p99"], 0.01)
	require.InDelta(t, 0.049, l.Under1ms, 0.0011)
	require.InDelta(t, 0.499, l.Under10ms, 0.0011)
	require.InEpsilon(t, 60e9, l.Max, 0.001, "beyond the range counts as its end")
	require.Len(t, l.Percentiles, 7)
	require.Contains(t, l.Percentiles, "p99.996")
	l = summarise("ack", h, 1001)
	require.InDelta(t, 0.0245, l.Under1ms, 0.0011, "what has failed was not under the limit")
	require.Equal(t, int64(1001), l.Failed)
}

func TestShareIsNotRoundedUpTo100(t *testing.T) {
	require.Equal(t, "99.999 %", share100(0.9999999))
	require.Equal(t, "100.000 %", share100(1))
	require.Equal(t, "98.100 %", share100(0.981))
}

func runCommand(args ...string) (stdout, stderr string, code int) {
	cmd := Command()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	cmd.SilenceErrors = true
	err := cmd.ExecuteContext(context.Background())
	return out.String(), errs.String(), ExitCode(err)
}

func TestCommandWritesReportLogAndPlot(t *testing.T) {
	s, err := NewStub("127.0.0.1:0")
	require.NoError(t, err)
	defer s.Close()
	dir := t.TempDir()
	log, plot := filepath.Join(dir, "run.hdr"), filepath.Join(dir, "run.svg")
	out, _, code := runCommand("produce", "--broker", s.Addr(), "--rate", "2k/s", "--count", "1000", "--size", "100", "-c", "2",
		"-o", "json", "--hdr", log, "--plot", plot, "--server-pid", strconv.Itoa(os.Getpid()))
	require.Zero(t, code)
	var report Report
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.Equal(t, int64(1000), report.Verified.Acknowledged)
	require.Less(t, report.MessagesPerSecond, 2100.0, "never faster than asked for")
	require.Greater(t, report.MessagesPerSecond, 500.0)
	require.Equal(t, "open", report.Load.Loop)
	if runtime.GOOS == "linux" {
		require.Positive(t, report.Server.RSS)
		require.Positive(t, report.Server.RSSAnon)
		require.Positive(t, report.Server.Voluntary)
	}

	file, err := os.Open(log)
	require.NoError(t, err)
	defer file.Close()
	reader := hdrhistogram.NewHistogramLogReader(file)
	acks := int64(0)
	for {
		h, err := reader.NextIntervalHistogram()
		if h == nil || errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if h.Tag() == "ack" {
			acks += h.TotalCount()
		}
	}
	require.Equal(t, int64(1000), acks)

	requireSVG(t, plot, 2)
	again := filepath.Join(dir, "both.svg")
	_, _, code = runCommand("plot", again, log, log, "--tag", "ack", "--title", "a & b")
	require.Zero(t, code)
	requireSVG(t, again, 2)
}

// requireSVG parses the document and counts its lines.
func requireSVG(t *testing.T, file string, lines int) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	decoder := xml.NewDecoder(bytes.NewReader(text))
	found := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Local != "polyline" {
			continue
		}
		found++
		for _, a := range start.Attr {
			if a.Name.Local == "points" {
				require.Greater(t, len(strings.Fields(a.Value)), 100)
				require.NotContains(t, a.Value, "NaN")
			}
		}
	}
	require.Equal(t, lines, found)
}

func TestPlotOfNothingAndOfOneValue(t *testing.T) {
	one := newHistogram()
	record(one, 5)
	for _, series := range [][]Series{nil, {{"empty", newHistogram()}}, {{"one", one}}} {
		require.NotContains(t, Plot("x", series), "NaN")
		require.NotContains(t, Plot("x", series), "Inf")
	}
}

func TestCommandTableAndProgress(t *testing.T) {
	b := newFakeBroker(t)
	out, progress, code := runCommand("e2e", "-b", b.addr, "--rate", "1000", "--duration", "1200ms", "--size", "64")
	require.Zero(t, code, out)
	for _, want := range []string{"ack", "send lag", "end to end", "p99.996", "< 1 ms", "throughput", "verified    OK"} {
		require.Contains(t, out, want)
	}
	require.Contains(t, progress, "sent ")
	require.Contains(t, progress, "read ")
}

func TestCommandsThatCannotStart(t *testing.T) {
	b := newFakeBroker(t)
	for _, args := range [][]string{
		{"produce"}, {"produce", "-b", "x", "--rate", "fast"}, {"produce", "-b", b.addr, "--size", "10"}, {"produce", "-b", b.addr, "-o", "xml"},
		{"drain", "-b", b.addr, "--from", "nowhere"}, {"produce", "-b", b.addr, "--serialize", "xml"}, {"produce", "-b", b.addr, "-t", "a b"},
		{"produce", "-b", b.addr, "--hdr", "/nowhere/at/all"}, {"drain", "-b", b.addr, "--ledger", "/nowhere/at/all"},
		{"produce", "-b", b.addr, "--server-pid", "999999999"},
	} {
		_, _, code := runCommand(args...)
		require.Equal(t, ExitUsage, code, args)
	}
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"": 0, "1000": 1000, "10k": 10000, "10k/s": 10000, "1.5M/s": 1.5e6, "20000/s": 20000} {
		rate, err := parseRate(text)
		require.NoError(t, err)
		require.Equal(t, want, rate, text)
	}
	for _, text := range []string{"x", "-1", "0", "1e12", "k"} {
		_, err := parseRate(text)
		require.Error(t, err, text)
	}
}

func TestFormats(t *testing.T) {
	require.Equal(t, "1,234,567", count(1234567))
	require.Equal(t, "-12,345", count(-12345))
	require.Equal(t, "999", count(999))
	require.Equal(t, "1.50 ms", nanos(1_500_000))
	require.Equal(t, "12.0 µs", nanos(12_000))
	require.Equal(t, "2.0 MiB", size(2<<20))
}
