package perf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Exit codes of the perf commands.
const (
	ExitOK         = 0 // everything was answered and verified
	ExitUsage      = 1 // the load could not be started
	ExitUnverified = 2 // something was lost, twice, out of order, corrupt or missing
	ExitFailed     = 3 // verified, but some requests failed or got no answer
)

// Report is the result of a run.
type Report struct {
	Kind              string           `json:"kind"`
	Began             time.Time        `json:"began"`
	Load              Load             `json:"load"`
	Seconds           float64          `json:"seconds"` // measured
	Messages          int64            `json:"messages"`
	MessagesPerSecond float64          `json:"messagesPerSecond"`
	MBPerSecond       float64          `json:"mbPerSecond"`                 // of bodies, 10^6 bytes
	RecordMBPerSecond float64          `json:"recordMBPerSecond,omitempty"` // drain: of what the broker gave out
	ReadPerSecond     float64          `json:"readPerSecond,omitempty"`
	Latencies         []Latency        `json:"latencies"`
	Windows           []Window         `json:"windows,omitempty"`
	Errors            map[string]int64 `json:"errors,omitempty"` // by response code
	Server            *ServerUse       `json:"server,omitempty"`
	Verified          *Verification    `json:"verified"`
}

// Load is what the run did, as far as one has to know it to compare figures.
type Load struct {
	Loop      string  `json:"loop"` // open or closed
	Rate      float64 `json:"rate,omitempty"`
	Conns     int     `json:"conns"`
	Depth     int     `json:"depth,omitempty"`
	Size      int     `json:"size"`
	Batch     int     `json:"batch"`
	Topics    int     `json:"topics"`
	Queues    int     `json:"queues"`
	Serialize string  `json:"serialize"`
	Protocol  string  `json:"protocol,omitempty"`
	Warmup    float64 `json:"warmupSeconds"`
	Brokers   int     `json:"brokers"`
}

// Window is one second of a run: what the workers handed over within it, a quarter of a second late at the most.
type Window struct {
	From     int64   `json:"from"` // ms since 1970
	To       int64   `json:"to"`
	Kind     string  `json:"kind"` // the latency
	Count    int64   `json:"count"`
	Failed   int64   `json:"failed,omitempty"`
	P50      int64   `json:"p50"` // ns, as the following
	P996     int64   `json:"p99.6"`
	Max      int64   `json:"max"`
	Under1ms float64 `json:"under1ms"` // share of Count and Failed
}

// Percentiles of the table, p99.996 last.
var Percentiles = []float64{50, 90, 99, 99.6, 99.9, 99.99, 99.996}

// Latency is one histogram in numbers, nanoseconds.
type Latency struct {
	Name        string           `json:"name"`
	Count       int64            `json:"count"`
	Min         int64            `json:"min"`
	Mean        float64          `json:"mean"`
	Max         int64            `json:"max"`
	Percentiles map[string]int64 `json:"percentiles"`
	// Shares of Count and Failed together: what was never acknowledged was not under any limit.
	Under1ms  float64 `json:"under1ms"`
	Under10ms float64 `json:"under10ms"`
	Failed    int64   `json:"failed,omitempty"` // not acknowledged, so without a latency

	Histogram *hdrhistogram.Histogram `json:"-"`
}

// PercentileName is the key of a percentile in Latency.Percentiles: "p99.6".
func PercentileName(p float64) string { return fmt.Sprintf("p%v", p) }

func summarise(name string, h *hdrhistogram.Histogram, failed int64) Latency {
	l := Latency{
		Name: name, Count: h.TotalCount(), Min: h.Min(), Mean: h.Mean(), Max: h.Max(), Percentiles: map[string]int64{}, Failed: failed,
		Under1ms: under(h, failed, time.Millisecond), Under10ms: under(h, failed, 10*time.Millisecond), Histogram: h,
	}
	for _, p := range Percentiles {
		l.Percentiles[PercentileName(p)] = h.ValueAtPercentile(p)
	}
	return l
}

// under is the share of latencies below limit, among these and the failed.
func under(h *hdrhistogram.Histogram, failed int64, limit time.Duration) float64 {
	if h.TotalCount() == 0 {
		return 0
	}
	var below int64
	for _, bar := range h.Distribution() {
		if bar.To < int64(limit) {
			below += bar.Count
		}
	}
	return float64(below) / float64(h.TotalCount()+failed)
}

// Latency finds a histogram by name; nil when the run has none of it.
func (r *Report) Latency(name string) *Latency {
	for i := range r.Latencies {
		if r.Latencies[i].Name == name {
			return &r.Latencies[i]
		}
	}
	return nil
}

// Err is nil when everything was answered and verified; else an *ExitError.
func (r *Report) Err() error {
	if !r.Verified.OK {
		return &ExitError{Code: ExitUnverified, Reason: "verification found something wrong"}
	}
	if len(r.Errors) > 0 {
		return &ExitError{Code: ExitFailed, Reason: "some requests failed"}
	}
	return nil
}

// ExitError carries the exit status of a command.
type ExitError struct {
	Code   int
	Reason string
}

func (e *ExitError) Error() string { return e.Reason }

// ExitCode is the exit status for what a command returned.
func ExitCode(err error) int {
	var exit *ExitError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		return exit.Code
	}
	return ExitUsage
}

// report builds the report, after every worker has ended. failure is what ended a worker early.
func (r *run) report(failure error) (*Report, error) {
	c := r.config
	var expected *ledger
	if c.Ledger != "" && len(r.senders) == 0 {
		var err error
		if expected, err = readLedger(c.Ledger); err != nil {
			return nil, err
		}
	}
	v := r.verify(expected)
	report := &Report{Kind: r.kind, Began: r.began, Load: r.load(), Verified: v, Errors: r.errors(), Windows: r.windows}
	if failure != nil {
		v.OK = false
		v.problem("%v", failure)
	}
	r.throughput(report)
	for _, m := range r.meters() {
		for k, h := range m.total.latencies {
			if m == r.sent && k == latencyLag && c.Rate == 0 {
				continue // in a closed loop a message is due when it is sent
			}
			failed := int64(0)
			if m == r.sent && k == latencyAck {
				failed = r.missed()
			}
			report.Latencies = append(report.Latencies, summarise(m.names[k], h, failed))
		}
	}
	report.Server = r.server.use(report, r.measureTo != noLimit)
	return report, r.writeFiles(report)
}

func (r *run) writeFiles(report *Report) error {
	c := r.config
	if c.Ledger != "" && len(r.senders) > 0 {
		if err := r.ledger().write(c.Ledger); err != nil {
			return err
		}
	}
	if r.log != nil {
		if err := r.log.close(); err != nil {
			return err
		}
	}
	if c.Plot != "" {
		return report.plot(c.Plot)
	}
	return nil
}

func (r *run) load() Load {
	c := r.config
	l := Load{
		Loop: "closed", Conns: c.Conns, Depth: c.Depth, Size: c.Size, Batch: c.Batch, Topics: c.Topics, Queues: c.Queues,
		Serialize: serializeName(c.Serialize), Protocol: c.Protocol, Warmup: c.Warmup.Seconds(), Brokers: len(r.target.brokers),
	}
	if c.Rate > 0 {
		l.Loop, l.Rate, l.Depth = "open", c.Rate, 0
	}
	if len(r.senders) == 0 {
		l.Conns, l.Depth, l.Loop = c.PullConns, 0, "pull"
	}
	return l
}

func (r *run) errors() map[string]int64 {
	errs := map[string]int64{}
	for _, s := range r.senders {
		for code, n := range s.errors {
			errs[codeName(code)] += n
		}
	}
	for _, p := range r.pullers {
		for code, n := range p.errors {
			errs["pull: "+codeName(code)] += n
		}
	}
	return errs
}

// missed counts the messages of the measured time that were not acknowledged.
func (r *run) missed() (n int64) {
	for _, s := range r.senders {
		n += s.missed
	}
	return n
}

// throughput counts what was acknowledged (or read, where nothing was sent) within the measured time.
func (r *run) throughput(report *Report) {
	var acked, readCount, last int64
	for _, s := range r.senders {
		acked += s.measured
		last = max(last, s.lastAck)
	}
	for _, p := range r.pullers {
		readCount += p.measured
		if len(r.senders) == 0 {
			last = max(last, p.lastRead)
		}
	}
	to := r.measureTo
	if to == noLimit || last < to && r.config.Count > 0 {
		to = last
	}
	if at := r.interrupted.Load(); at != 0 {
		to = min(to, at)
	}
	report.Seconds = max(float64(to-r.measureFrom)/1e9, 1e-9)
	report.Messages = acked
	bytes := acked * int64(r.config.Size)
	if len(r.senders) == 0 {
		report.Messages, bytes = readCount, r.read.total.bytes
		if r.read.total.messages > 0 {
			bytes = int64(float64(bytes) * float64(readCount) / float64(r.read.total.messages))
		}
	} else if len(r.pullers) > 0 {
		report.ReadPerSecond = float64(readCount) / report.Seconds
	}
	report.MessagesPerSecond = float64(report.Messages) / report.Seconds
	report.MBPerSecond = float64(bytes) / 1e6 / report.Seconds
	if r.kind == "drain" {
		report.RecordMBPerSecond = float64(r.read.total.records) / 1e6 / report.Seconds
	}
}

func serializeName(s byte) string {
	if s == 1 {
		return "rocketmq"
	}
	return "json"
}

// Print writes the tables for people.
func (r *Report) Print(w io.Writer) {
	load := fmt.Sprintf("%s, %s loop", r.Kind, r.Load.Loop)
	if r.Load.Loop == "open" {
		load += fmt.Sprintf(" %s msg/s", count(r.Load.Rate))
	}
	load += fmt.Sprintf(", %d connections", r.Load.Conns)
	if r.Load.Depth > 0 {
		load += fmt.Sprintf(" × %d in flight", r.Load.Depth)
	}
	_, _ = fmt.Fprintf(w, "\n%s, %d B × batch %d, %d topics × %d queues, %s headers, measured %.1f s after %.1f s of warm-up\n",
		load, r.Load.Size, r.Load.Batch, r.Load.Topics, r.Load.Queues, r.Load.Serialize, r.Seconds, r.Load.Warmup)
	r.printLatencies(w)
	for i := range r.Latencies {
		if l := &r.Latencies[i]; l.Name != "send lag" {
			printBars(w, l.Name, l.Histogram)
		}
	}
	_, _ = fmt.Fprintln(w)
	_, _ = fmt.Fprintf(w, "throughput  %s msg/s  %.1f MB/s  (%s messages)", count(r.MessagesPerSecond), r.MBPerSecond, count(float64(r.Messages)))
	if r.ReadPerSecond > 0 {
		_, _ = fmt.Fprintf(w, "  read %s msg/s", count(r.ReadPerSecond))
	}
	_, _ = fmt.Fprintln(w)
	r.printServer(w)
	if len(r.Errors) > 0 {
		var parts []string
		for _, code := range slices.Sorted(maps.Keys(r.Errors)) {
			parts = append(parts, fmt.Sprintf("%s: %d", code, r.Errors[code]))
		}
		_, _ = fmt.Fprintf(w, "errors      %s\n", strings.Join(parts, ", "))
	} else {
		_, _ = fmt.Fprintln(w, "errors      none")
	}
	r.Verified.print(w)
}

func (r *Report) printLatencies(w io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	header := table.Row{"latency", "count"}
	var align []table.ColumnConfig
	for _, p := range Percentiles {
		header = append(header, PercentileName(p))
	}
	header = append(header, "max", "< 1 ms", "< 10 ms")
	for i := 2; i <= len(header); i++ {
		align = append(align, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(align)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(header)
	for i := range r.Latencies {
		l := &r.Latencies[i]
		row := table.Row{l.Name, count(float64(l.Count))}
		for _, p := range Percentiles {
			row = append(row, nanos(l.Percentiles[PercentileName(p)]))
		}
		t.AppendRow(append(row, nanos(l.Max), share100(l.Under1ms), share100(l.Under10ms)))
	}
	t.Render()
}

// share100 writes a share in percent, never rounded up to 100.
func share100(s float64) string {
	text := fmt.Sprintf("%.3f %%", s*100)
	if s < 1 && text == "100.000 %" {
		return "99.999 %"
	}
	return text
}

func (r *Report) printServer(w io.Writer) {
	u := r.Server
	if u == nil {
		return
	}
	_, _ = fmt.Fprintf(w, "server      %.2f µs CPU per message (user %.2f s, system %.2f s in %.1f s), %.3f context switches per message (%s voluntary, %s involuntary)\n",
		u.MicrosPerMessage, u.UserSeconds, u.SystemSeconds, u.Seconds, u.SwitchesPerMsg, count(float64(u.Voluntary)), count(float64(u.Involuntary)))
	_, _ = fmt.Fprintf(w, "            memory %s resident (anonymous %s, file %s), peak %s (anonymous %s), %d threads\n",
		size(u.RSS), size(u.RSSAnon), size(u.RSSFile), size(u.RSSPeak), size(u.RSSAnonPeak), u.Threads)
}

func (v *Verification) print(w io.Writer) {
	verdict := "OK"
	if !v.OK {
		verdict = "FAILED"
	}
	_, _ = fmt.Fprintf(w, "verified    %s: ", verdict)
	if v.Sent > 0 {
		_, _ = fmt.Fprintf(w, "%s sent, %s acknowledged, %d unknown; ", count(float64(v.Sent)), count(float64(v.Acknowledged)), v.Unknown)
	}
	if v.Received > 0 || v.Sent == 0 {
		_, _ = fmt.Fprintf(w, "%s read, ", count(float64(v.Received)))
	}
	_, _ = fmt.Fprintf(w, "%d lost, %d duplicated, %d corrupt, %d out of order (%s overtaken in flight)\n",
		v.Lost, v.Duplicated, v.Corrupt, v.Reordered, count(float64(v.Overtaken)))
	for _, other := range []struct {
		what string
		n    int64
	}{
		{"in the wrong queue", v.Misplaced}, {"queue offsets passed over", v.OffsetGaps}, {"queue offsets going back", v.OffsetBack},
		{"queue offsets never given out", v.AnswerGaps}, {"queue offsets given out twice", v.AnswerRepeats},
		{"queue offsets not above an earlier one", v.AnswerOrder}, {"answers naming another queue", v.AnswerQueue},
		{"messages not read", v.NotRead}, {"messages of others", v.Foreign},
	} {
		if other.n > 0 {
			_, _ = fmt.Fprintf(w, "            %s %s\n", count(float64(other.n)), other.what)
		}
	}
	for _, p := range v.Problems {
		_, _ = fmt.Fprintf(w, "            - %s\n", p)
	}
}
