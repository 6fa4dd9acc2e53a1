package perf

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// barLimits are the upper ends of the histogram's rows; the last row has what lies above them.
var barLimits = func() (limits []time.Duration) {
	for decade := 10 * time.Microsecond; decade <= 10*time.Second; decade *= 10 {
		limits = append(limits, decade, 2*decade, 5*decade)
	}
	return limits
}()

// barWidth is the longest bar, in characters.
const barWidth = 40

// buckets counts the values of h by row.
func buckets(h *hdrhistogram.Histogram) []int64 {
	rows := make([]int64, len(barLimits)+1)
	row := 0
	for _, b := range h.Distribution() {
		if b.Count == 0 {
			continue
		}
		for row < len(barLimits) && b.To > int64(barLimits[row]) {
			row++
		}
		rows[row] += b.Count
	}
	return rows
}

// printBars draws how the latencies are spread: a row for each step of 1, 2, 5, with its share and a bar in proportion to the fullest.
func printBars(w io.Writer, name string, h *hdrhistogram.Histogram) {
	if h == nil || h.TotalCount() == 0 {
		return
	}
	rows := buckets(h)
	first, last, most := -1, 0, int64(0)
	for i, n := range rows {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last, most = i, max(most, n)
		}
	}
	_, _ = fmt.Fprintf(w, "\n%s\n", name)
	for i := first; i <= last; i++ {
		label := fmt.Sprintf("> %v", barLimits[len(barLimits)-1])
		if i < len(barLimits) {
			label = fmt.Sprintf("≤ %v", barLimits[i])
		}
		share := float64(rows[i]) / float64(h.TotalCount())
		_, _ = fmt.Fprintf(w, "%9s %9s  %s\n", label, share100(share), bar(rows[i], most))
	}
}

// bar is n in proportion to most, in eighths of a character; whatever there is of n shows.
func bar(n, most int64) string {
	if n == 0 {
		return ""
	}
	eighths := max(1, int(n*barWidth*8/most))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}
