package perf

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// intervalLog writes the histograms of each second in the standard log format (version 1.3), which HdrHistogram's tools read.
// Every latency has a tag of its own.
type intervalLog struct {
	file   *os.File
	buffer *bufio.Writer
	log    *hdrhistogram.HistogramLogWriter
	from   time.Time
	err    error
}

func openIntervalLog(name string, began time.Time) (*intervalLog, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("--hdr: %w", err)
	}
	buffer := bufio.NewWriter(file)
	l := &intervalLog{file: file, buffer: buffer, log: hdrhistogram.NewHistogramLogWriter(buffer), from: began}
	millis := began.UnixMilli()
	l.log.SetBaseTime(millis / 1000 * 1000) // the header has whole seconds
	for _, write := range []func() error{
		func() error {
			return l.log.OutputComment("[ringmq perf, latencies in nanoseconds, maximum in milliseconds]")
		},
		l.log.OutputLogFormatVersion,
		func() error { return l.log.OutputBaseTime(millis) },
		func() error { return l.log.OutputStartTime(millis) },
		l.log.OutputLegend,
	} {
		if err := write(); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("--hdr: %w", err)
		}
	}
	return l, nil
}

// write adds what has come since the last time.
func (l *intervalLog) write(m *meter, now time.Time) {
	for k, h := range m.since.latencies {
		if h.TotalCount() == 0 || l.err != nil {
			continue
		}
		h.SetTag(strings.ReplaceAll(m.names[k], " ", "-"))
		h.SetStartTimeMs(l.from.UnixMilli())
		h.SetEndTimeMs(now.UnixMilli())
		l.err = l.log.OutputIntervalHistogram(h)
	}
	l.from = now
}

func (l *intervalLog) close() error {
	if l.file == nil {
		return nil
	}
	err := l.buffer.Flush()
	if closeErr := l.file.Close(); err == nil {
		err = closeErr
	}
	l.file = nil
	if l.err != nil {
		err = l.err
	}
	if err != nil {
		return fmt.Errorf("--hdr: %w", err)
	}
	return nil
}
