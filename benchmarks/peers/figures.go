//go:build linux

package main

import (
	"strconv"

	"github.com/ringmq/ringmq/perf"
)

// figure is one line of a scenario's table.
type figure struct {
	name   string
	format func(v float64) string
	of     value
	share  bool // a ratio of shares says nothing
}

// value is a number of a result; ok is false where it has none.
type value func(r *result) (v float64, ok bool)

// reported is a number of a report.
func reported(of func(r *perf.Report) float64) value {
	return func(r *result) (float64, bool) {
		if r.Report == nil {
			return 0, false
		}
		return of(r.Report), true
	}
}

// kept is one of a result's own numbers.
func kept(name string) value {
	return func(r *result) (float64, bool) {
		v, ok := r.Values[name]
		return v, ok
	}
}

// firstOf is the first of several values that a result has.
func firstOf(values ...value) value {
	return func(r *result) (float64, bool) {
		for _, of := range values {
			if v, ok := of(r); ok {
				return v, true
			}
		}
		return 0, false
	}
}

// ofServer is a number of what the server used.
func ofServer(of func(u *perf.ServerUse) float64) value {
	return func(r *result) (float64, bool) {
		if r.Report == nil || r.Report.Server == nil {
			return 0, false
		}
		return of(r.Report.Server), true
	}
}

// Names of a result's own numbers.
const (
	valueRate     = "messages/s"
	valueSyscalls = "system calls per message"
	valueStop     = "orderly stop, ms"
	valuePort     = "start: the port answers, ms"
	valueFirstAck = "start: first acknowledged send, ms"
	valueCPU      = "CPU, % of a core"
	valueSwitches = "context switches/s"
	valueThreads  = "threads"
	valueAnon     = "anonymous memory, MiB"
	valueRSS      = "resident memory, MiB"
	valueLost     = "acknowledged messages lost"
	valueStored   = "files on the disk, MiB, with what is allocated ahead"
)

var (
	rate         = firstOf(reported(func(r *perf.Report) float64 { return r.MessagesPerSecond }), kept(valueRate))
	cpu          = ofServer(func(u *perf.ServerUse) float64 { return u.MicrosPerMessage })
	voluntary    = ofServer(func(u *perf.ServerUse) float64 { return u.VoluntaryPerMsg })
	anonPeak     = ofServer(func(u *perf.ServerUse) float64 { return float64(u.RSSAnonPeak) / (1 << 20) })
	lagFigure    = figure{name: "generator late by, p99, ms", format: decimals(3), of: millis("send lag", "p99"), share: true}
	syscallCount = kept(valueSyscalls)
)

func useFigures() []figure {
	return []figure{
		{name: "server CPU, µs per message", format: decimals(2), of: cpu},
		{name: "voluntary switches per message", format: decimals(3), of: voluntary},
		{name: "all context switches per message", format: decimals(3), of: ofServer(func(u *perf.ServerUse) float64 { return u.SwitchesPerMsg })},
		{name: "system calls per message (counted in a load of their own)", format: decimals(3), of: syscallCount},
		{name: "anonymous memory, peak, MiB", format: decimals(0), of: anonPeak},
		{name: "others' CPU, % of all cores", format: decimals(1), of: func(r *result) (float64, bool) { return r.Machine.Others * 100, r.Report != nil }, share: true},
	}
}

func loadFigures() []figure {
	list := append([]figure{{name: "messages/s", format: decimals(0), of: rate}}, useFigures()...)
	return append(append(list, latencyFigures("ack")...), figure{name: "not acknowledged", format: percent, of: notAcknowledged, share: true})
}

func latencyFigures(l string) (list []figure) {
	for _, p := range []string{"p50", "p99", "p99.6", "p99.9", "max"} {
		list = append(list, figure{name: l + " " + p + ", ms", format: decimals(3), of: millis(l, p)})
	}
	return append(list,
		figure{name: l + " under 1 ms", format: percent, of: under1ms(l), share: true},
		figure{name: l + " under 10 ms", format: percent, of: under10ms(l), share: true})
}

func readFigures() []figure {
	return append([]figure{
		{name: "messages/s", format: decimals(0), of: rate},
		{name: "messages per CPU second of the server", format: decimals(0), of: perCPUSecond},
	}, useFigures()...)
}

func perCPUSecond(r *result) (float64, bool) {
	micros, ok := cpu(r)
	if !ok || micros == 0 {
		return 0, false
	}
	return 1e6 / micros, true
}

// latency is a number of a report's histogram.
func latency(name string, of func(l *perf.Latency) float64) value {
	return func(r *result) (float64, bool) {
		if r.Report == nil {
			return 0, false
		}
		l := r.Report.Latency(name)
		if l == nil {
			return 0, false
		}
		return of(l), true
	}
}

func millis(name, percentile string) value {
	return latency(name, func(l *perf.Latency) float64 {
		if percentile == "max" {
			return float64(l.Max) / 1e6
		}
		return float64(l.Percentiles[percentile]) / 1e6
	})
}

func under1ms(name string) value {
	return latency(name, func(l *perf.Latency) float64 { return l.Under1ms * 100 })
}

func under10ms(name string) value {
	return latency(name, func(l *perf.Latency) float64 { return l.Under10ms * 100 })
}

var notAcknowledged = latency("ack", func(l *perf.Latency) float64 { return 100 * float64(l.Failed) / float64(max(1, l.Failed+l.Count)) })

func decimals(n int) func(v float64) string {
	return func(v float64) string { return strconv.FormatFloat(v, 'f', n, 64) }
}

// percent is never rounded up to 100 nor down to 0.
func percent(v float64) string {
	text := strconv.FormatFloat(v, 'f', 3, 64)
	switch {
	case v < 100 && text == "100.000":
		text = "99.999"
	case v > 0 && text == "0.000":
		text = "0.001"
	}
	return text + " %"
}
