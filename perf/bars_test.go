package perf

import (
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

func TestBarsShowEveryValueOnce(t *testing.T) {
	h := hdrhistogram.New(1, int64(time.Minute), 3)
	for value, n := range map[time.Duration]int64{15 * time.Microsecond: 10, 150 * time.Microsecond: 80, 3 * time.Millisecond: 9, 55 * time.Second: 1} {
		require.NoError(t, h.RecordValues(int64(value), n))
	}
	var sum int64
	for _, n := range buckets(h) {
		sum += n
	}
	require.Equal(t, h.TotalCount(), sum)
	var text strings.Builder
	printBars(&text, "ack", h)
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	require.Equal(t, "ack", lines[0])
	require.Contains(t, lines[1], "≤ 20µs")
	require.Contains(t, lines[1], "10.000 %")
	require.Contains(t, lines[len(lines)-1], "> 50s")
	require.Contains(t, lines[len(lines)-1], "▌", "what is rare shows")
	require.Contains(t, text.String(), "≤ 200µs  80.000 %  "+strings.Repeat("█", barWidth)+"\n")
}

func TestBarsOfNothing(t *testing.T) {
	var text strings.Builder
	printBars(&text, "ack", nil)
	printBars(&text, "ack", hdrhistogram.New(1, 10, 1))
	require.Empty(t, text.String())
}
