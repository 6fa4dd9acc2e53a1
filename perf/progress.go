package perf

import (
	"fmt"
	"io"
	"strings"
)

// progress is the line that tells, every second, how a run is going.
type progress struct {
	out      io.Writer
	terminal bool
	began    int64 // on the run's clock
	since    int64 // when the last line was written
	width    int   // of the last line
	written  bool
}

// print writes what has come since the last line.
func (p *progress) print(r *run) {
	now := r.clock.now()
	seconds := float64(now-p.since) / 1e9
	p.since = now
	if p.out == nil || seconds <= 0 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%4ds", (now-p.began)/1e9)
	if now < r.measureFrom {
		b.WriteString(" (warm-up)")
	}
	for _, m := range r.meters() {
		what, h := "sent", m.since.latencies[0]
		if m == r.read {
			what = "read"
		}
		fmt.Fprintf(&b, "  %s %s/s", what, count(float64(m.since.messages)/seconds))
		if h.TotalCount() > 0 {
			fmt.Fprintf(&b, "  %s p50 %s p99 %s max %s", m.names[0],
				nanos(h.ValueAtPercentile(50)), nanos(h.ValueAtPercentile(99)), nanos(h.Max()))
		}
		if m.since.failed > 0 {
			fmt.Fprintf(&b, "  FAILED %d", m.since.failed)
		}
	}
	line := b.String()
	p.written = true
	if !p.terminal {
		_, _ = fmt.Fprintln(p.out, line)
		return
	}
	_, _ = fmt.Fprintf(p.out, "\r%-*s", p.width, line)
	p.width = len(line)
}

func (p *progress) finish() {
	if p.out != nil && p.terminal && p.written {
		_, _ = fmt.Fprintln(p.out)
	}
}

// count writes a number with thousands apart.
func count(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// nanos writes a time in the unit that suits it.
func nanos(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d ns", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f µs", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.2f ms", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f s", float64(n)/1e9)
}

// size writes a number of bytes.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
}
