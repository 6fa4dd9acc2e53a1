//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/perf"
)

// figure is one line of a scenario's table.
type figure struct {
	name   string
	format func(v float64) string
	of     func(r *perf.Report) float64
	share  bool // a ratio of shares says nothing
}

func figures(sc *scenario) []figure {
	list := []figure{
		{name: "messages/s", format: decimals(0), of: rate},
		{name: "server CPU, µs per message", format: decimals(2), of: cpu},
		{name: "context switches per message", format: decimals(3), of: func(r *perf.Report) float64 { return r.Server.SwitchesPerMsg }},
	}
	latencies := []string{"ack"}
	if sc.endToEnd() {
		latencies = append(latencies, "end to end")
	}
	for _, l := range latencies {
		for _, p := range []string{"p50", "p99", "p99.6", "p99.9", "max"} {
			list = append(list, figure{name: l + " " + p + ", ms", format: decimals(3), of: millis(l, p)})
		}
		list = append(list,
			figure{name: l + " under 1 ms", format: percent, of: under1ms(l), share: true},
			figure{name: l + " under 10 ms", format: percent, of: under10ms(l), share: true})
	}
	if sc.open() {
		list = append(list, figure{name: "generator late by, p99, ms", format: decimals(3), of: millis("send lag", "p99"), share: true})
	}
	return append(list, figure{name: "not acknowledged", format: percent, of: notAcknowledged, share: true})
}

func rate(r *perf.Report) float64 { return r.MessagesPerSecond }
func cpu(r *perf.Report) float64  { return r.Server.MicrosPerMessage }

func millis(latency, percentile string) func(r *perf.Report) float64 {
	return func(r *perf.Report) float64 {
		l := r.Latency(latency)
		switch {
		case l == nil:
			return 0
		case percentile == "max":
			return float64(l.Max) / 1e6
		}
		return float64(l.Percentiles[percentile]) / 1e6
	}
}

func under1ms(latency string) func(r *perf.Report) float64 {
	return func(r *perf.Report) float64 {
		if l := r.Latency(latency); l != nil {
			return l.Under1ms * 100
		}
		return 0
	}
}

func under10ms(latency string) func(r *perf.Report) float64 {
	return func(r *perf.Report) float64 {
		if l := r.Latency(latency); l != nil {
			return l.Under10ms * 100
		}
		return 0
	}
}

func notAcknowledged(r *perf.Report) float64 {
	l := r.Latency("ack")
	return 100 * float64(l.Failed) / float64(max(1, l.Failed+l.Count))
}

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

// values are a figure's values of one server by round.
func (b *bench) values(sc *scenario, server string, of func(r *perf.Report) float64) map[int]float64 {
	v := map[int]float64{}
	for i := range b.results {
		if r := &b.results[i]; r.Scenario == sc.name && r.Server == server {
			v[r.Round] = of(r.Report)
		}
	}
	return v
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(v))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// spread writes the median and the range.
func spread(rounds map[int]float64, format func(v float64) string) string {
	if len(rounds) == 0 {
		return "–"
	}
	v := slices.Collect(maps.Values(rounds))
	return fmt.Sprintf("%s (%s–%s)", format(median(v)), format(slices.Min(v)), format(slices.Max(v)))
}

// ratio is the median over the rounds of ringmq's value by Java's of the same round; ok is false where there is none.
func ratio(ring, java map[int]float64) (r float64, ok bool) {
	var each []float64
	for round, v := range ring {
		if other := java[round]; other != 0 {
			each = append(each, v/other)
		}
	}
	return median(each), len(each) > 0
}

func ratioText(ring, java map[int]float64) string {
	r, ok := ratio(ring, java)
	if !ok {
		return "–"
	}
	return strconv.FormatFloat(r, 'g', 3, 64) + " ×"
}

func (b *bench) markdown(ctx context.Context) string {
	var t strings.Builder
	fmt.Fprintf(&t, "# ringmq and Apache RocketMQ %s side by side, %s\n\n", javaVersion, b.began.Format("2006-01-02"))
	if b.broken != "" {
		fmt.Fprintf(&t, "**Incomplete: the run ended early.** %s\n\n", b.broken)
	}
	if b.quick {
		t.WriteString("**A quick run: it shows that everything works; its figures are no result.**\n\n")
	}
	b.conditions(ctx, &t)
	b.aims(&t)
	for _, sc := range scenarios() {
		b.scenarioTable(&t, &sc)
	}
	b.startTable(&t)
	b.memoryTable(&t)
	return t.String()
}

func (b *bench) conditions(ctx context.Context, t *strings.Builder) {
	line := func(format string, args ...any) { fmt.Fprintf(t, "- "+format+"\n", args...) }
	line("Machine: %s, %d cores, %.0f GiB memory, kernel %s; disk: %s", cpuModel(), runtime.NumCPU(), float64(memoryTotal())/(1<<30),
		output(ctx, "uname", "-srm"), disk(ctx, b.work))
	b.noise(line)
	line("Java: %s; broker %s with `%s`, the options of the distribution's bin/runbroker.sh; broker.conf of the distribution, everything else default; its name server a process of its own, not measured",
		output(ctx, "java", "-version"), javaVersion, strings.Join(javaOptions(b.options.heap), " "))
	line("ringmq: %s, one process with its name server, the same broker.conf, everything else default", output(ctx, b.ringmq, "--version"))
	line("Control: a server that answers the frames and stores nothing. What it shows is the generator, the network stack and the noise of the machine")
	line("All: one broker, no replicas, empty store at the beginning, 1 topic × 4 queues per load, one message per request (no batches), JSON headers, no compression, loopback")
	line("Durability: ASYNC_FLUSH acknowledges what is in the page cache, SYNC_FLUSH what is on the device")
	line("%d rounds in turns (A B C, then C B A), %v measured each after %v of load; every server warmed up for %v; while one is under load the others are stopped (SIGSTOP), and its dirty pages are written back before the next one's turn. The whole took %v",
		b.pairs, b.seconds, b.lead, b.warmup, time.Since(b.began).Round(time.Second))
	line("Load: `ringmq perf`, another process on the same cores. Open loop: latency from the intended send time. Every answer's queue offset is verified; end to end every message, its order and its checksum")
	line("Figures: median of the rounds (lowest–highest); the last column is the median of the rounds' ratios, ringmq : Java. Percentiles are of acknowledged messages; in the shares, those that were not acknowledged count as late\n")
}

// noise says how quiet the machine was.
func (b *bench) noise(line func(format string, args ...any)) {
	if len(b.results) == 0 {
		return
	}
	others, stolen := map[int]float64{}, map[int]float64{}
	for i := range b.results {
		others[i], stolen[i] = b.results[i].Machine.Others*100, b.results[i].Machine.Stolen*100
	}
	line("Meanwhile, of all cores' time: other processes and the kernel's own work %s %%, stolen by the hypervisor %s %%", spread(others, decimals(1)), spread(stolen, decimals(1)))
}

func (b *bench) scenarioTable(t *strings.Builder, sc *scenario) {
	servers := slices.DeleteFunc(b.taking(sc.control != nil), func(s string) bool { return len(b.values(sc, s, rate)) == 0 })
	if len(servers) == 0 {
		return
	}
	fmt.Fprintf(t, "## %s\n\n| |", sc.title)
	for _, s := range servers {
		fmt.Fprintf(t, " %s |", s)
	}
	t.WriteString(" ringmq : Java |\n|---|" + strings.Repeat("---:|", len(servers)+1) + "\n")
	for _, f := range figures(sc) {
		fmt.Fprintf(t, "| %s |", f.name)
		for _, s := range servers {
			text := spread(b.values(sc, s, f.of), f.format)
			if s == stubServer && strings.HasPrefix(f.name, "end to end") {
				text = "–"
			}
			fmt.Fprintf(t, " %s |", text)
		}
		ratios := ""
		if !f.share {
			ratios = ratioText(b.values(sc, ringServer, f.of), b.values(sc, javaServer, f.of))
		}
		fmt.Fprintf(t, " %s |\n", ratios)
	}
	t.WriteString("\n")
	b.diskLine(t, sc)
	for _, r := range b.results {
		if r.Scenario == sc.name && r.Failure != "" {
			fmt.Fprintf(t, "Round %d, %s: %s\n\n", r.Round+1, r.Server, r.Failure)
		}
	}
}

func (b *bench) diskLine(t *strings.Builder, sc *scenario) {
	p50, p99 := map[int]float64{}, map[int]float64{}
	for _, d := range b.disk {
		if d.Scenario == sc.name {
			p50[d.Round], p99[d.Round] = d.P50, d.P99
		}
	}
	if len(p50) > 0 {
		fmt.Fprintf(t, "The disk alone, 4 KiB written with O_DSYNC, one at a time: p50 %s ms, p99 %s ms.\n\n", spread(p50, decimals(3)), spread(p99, decimals(3)))
	}
}

func (b *bench) startTable(t *strings.Builder) {
	if len(b.started) == 0 {
		return
	}
	port, send := map[string]map[int]float64{}, map[string]map[int]float64{}
	for _, name := range b.starting() {
		port[name], send[name] = map[int]float64{}, map[int]float64{}
	}
	for _, s := range b.started {
		port[s.Server][s.Round], send[s.Server][s.Round] = s.PortMillis, s.SendMillis
	}
	t.WriteString("## start, empty store: ms from exec\n\n| | until the port answers | until the first acknowledged send |\n|---|---:|---:|\n")
	for _, name := range b.starting() {
		fmt.Fprintf(t, "| %s | %s | %s |\n", name, spread(port[name], decimals(0)), spread(send[name], decimals(0)))
	}
	fmt.Fprintf(t, "| ringmq : Java | %s | %s |\n\n", ratioText(port[ringServer], port[javaServer]), ratioText(send[ringServer], send[javaServer]))
	t.WriteString("Java: name server and broker started at once. ringmq: one process with both.\n\n")
}

// sizes are one server's memory at one moment by round, MiB.
func (b *bench) sizes(server, when string, of func(m *memory) int64) map[int]float64 {
	v := map[int]float64{}
	for i := range b.memory {
		if m := &b.memory[i]; m.Server == server && m.When == when {
			v[m.Round] = float64(of(m)) / (1 << 20)
		}
	}
	return v
}

func resident(m *memory) int64  { return m.RSS }
func anonymous(m *memory) int64 { return m.Anon }
func mapped(m *memory) int64    { return m.File }

func (b *bench) memoryTable(t *strings.Builder) {
	if len(b.memory) == 0 {
		return
	}
	t.WriteString("## resident memory of the broker process, MiB\n\n| | when | resident | anonymous | mapped files |\n|---|---|---:|---:|---:|\n")
	for _, moment := range []struct {
		when  string
		names []string
	}{{idle, b.starting()}, {afterLoads, b.taking(true)}} {
		for _, name := range moment.names {
			if len(b.sizes(name, moment.when, resident)) == 0 {
				continue
			}
			size := func(of func(m *memory) int64) string { return spread(b.sizes(name, moment.when, of), decimals(0)) }
			fmt.Fprintf(t, "| %s | %s | %s | %s | %s |\n", name, moment.when, size(resident), size(anonymous), size(mapped))
		}
	}
	fmt.Fprintf(t, "\nIdle: %v after the first send. Mapped files are page cache through which the store is read and written; unless it is locked, the kernel takes it back when others need it.", idleAfter)
	if b.heap > 0 {
		fmt.Fprintf(t, " Java's heap is resident as a whole because of AlwaysPreTouch: %.0f MiB of it were live after a full collection at the end.", float64(b.heap)/(1<<20))
	}
	t.WriteString("\n")
}

// write keeps tables and raw figures.
func (b *bench) write(ctx context.Context) error {
	if err := os.MkdirAll(b.options.results, 0o755); err != nil {
		return err
	}
	name := b.began.Format("2006-01-02") + "-peers"
	if b.quick {
		name += "-quick"
	}
	if b.only != "" {
		name += "-" + b.only
	}
	text := b.markdown(ctx)
	raw, err := b.raw()
	if err != nil {
		return err
	}
	for suffix, content := range map[string][]byte{".md": []byte(text), ".json": raw} {
		if err := os.WriteFile(filepath.Join(b.options.results, name+suffix), content, 0o644); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintf(b.out, "\n%s\nkept as %s\n", text, filepath.Join(b.options.results, name+".md"))
	return nil
}

// raw is everything that was measured, one line each.
func (b *bench) raw() ([]byte, error) {
	var t strings.Builder
	t.WriteString("{")
	for i, list := range []struct {
		name  string
		lines []any
	}{{"results", lines(b.results)}, {"memory", lines(b.memory)}, {"starts", lines(b.started)}, {"disk", lines(b.disk)}} {
		if i > 0 {
			t.WriteString(",")
		}
		fmt.Fprintf(&t, "\n%q: [", list.name)
		for j, one := range list.lines {
			text, err := json.Marshal(one)
			if err != nil {
				return nil, err
			}
			if j > 0 {
				t.WriteString(",")
			}
			t.WriteString("\n " + string(text))
		}
		t.WriteString("\n]")
	}
	t.WriteString("\n}\n")
	return []byte(t.String()), nil
}

func lines[T any](list []T) (all []any) {
	for _, one := range list {
		all = append(all, one)
	}
	return all
}
