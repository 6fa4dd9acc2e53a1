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
)

// values are a figure's values of one server by round.
func (b *bench) values(scenario, server string, of value) map[int]float64 {
	v := map[int]float64{}
	for i := range b.results {
		if r := &b.results[i]; r.Scenario == scenario && r.Server == server {
			if one, ok := of(r); ok {
				v[r.Round] = one
			}
		}
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

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

// ratio is the median over the rounds of one server's value by another's of the same round; ok is false where there is none.
func ratio(ring, other map[int]float64) (r float64, ok bool) {
	var each []float64
	for round, v := range ring {
		if o := other[round]; o != 0 {
			each = append(each, v/o)
		}
	}
	return median(each), len(each) > 0
}

func ratioText(ring, other map[int]float64) string {
	r, ok := ratio(ring, other)
	if !ok {
		return "–"
	}
	return strconv.FormatFloat(r, 'g', 3, 64) + " ×"
}

func (b *bench) markdown(ctx context.Context) string {
	var t strings.Builder
	fmt.Fprintf(&t, "# ringmq and others side by side, %s\n\n", b.began.Format("2006-01-02"))
	if b.broken != "" {
		fmt.Fprintf(&t, "**Incomplete: the run ended early.** %s\n\n", b.broken)
	}
	for _, failure := range b.failures {
		fmt.Fprintf(&t, "**Failed:** %s\n\n", failure)
	}
	if b.short {
		t.WriteString("**A short run: it shows that everything works; its figures are no result.**\n\n")
	}
	b.conditions(ctx, &t)
	b.aimTable(&t)
	for _, sc := range scenarios() {
		b.scenarioTable(&t, &sc)
	}
	return t.String()
}

func (b *bench) conditions(ctx context.Context, t *strings.Builder) {
	line := func(format string, args ...any) { fmt.Fprintf(t, "- "+format+"\n", args...) }
	line("Machine: %s, %d cores, %.0f GiB memory, kernel %s; disk: %s", cpuModel(), runtime.NumCPU(), float64(memoryTotal())/(1<<30),
		output(ctx, "uname", "-srm"), disk(ctx, b.work))
	b.noise(line)
	for _, about := range []struct {
		server string
		text   func() string
	}{
		{javaServer, func() string {
			return fmt.Sprintf("Apache RocketMQ %s on %s, `%s`, the options of the distribution's bin/runbroker.sh; broker.conf of the distribution; its name server a process of its own, not measured",
				javaVersion, output(ctx, "java", "-version"), strings.Join(javaOptions(b.options.heap), " "))
		}},
		{rustServer, func() string { return "rocketmq-rust 1.0.0, the same broker.conf" }},
		{natsServer, func() string { return "nats-server " + natsVersion + " with JetStream, file storage, one replica" }},
		{kafkaServer, func() string {
			return fmt.Sprintf("Apache Kafka %s, KRaft, one process, `%s`, server.properties of the distribution", kafkaVersion, strings.Join(kafkaOptions, " "))
		}},
		{ringServer, func() string {
			return output(ctx, b.ringmq, "--version") + ", one process with its name server, the same broker.conf as Java, ioEngine=" + b.engine
		}},
		{stubServer, func() string {
			return "a plain epoll loop that answers RocketMQ's frames and stores nothing. What it shows is the generator, the network stack and the noise of the machine"
		}},
	} {
		if b.has(about.server) {
			line("%s: %s", title(about.server), about.text())
		}
	}
	line("All: one broker, no replicas, empty store at the beginning, 1 topic × 4 queues per load where nothing else is said (Kafka: partitions; NATS: subjects of one stream, one subject where it is read), JSON headers, no compression, loopback, everything that is not named here default")
	line("Durability: not flushed before the acknowledgement = it is in the page cache, nobody syncs for it (ASYNC_FLUSH; NATS's and Kafka's default); on the device = synced before the acknowledgement (SYNC_FLUSH; NATS: sync_interval always; Kafka: log.flush.interval.messages=1)")
	line("Rounds in turns (A B C, then C B A), how many each table says; %v measured each after %v of load; every server warmed up for %v; while one is under load the others are stopped (SIGSTOP), and its dirty pages are written back before the next one's turn. The whole took %v",
		b.seconds, b.lead, b.warmup, time.Since(b.began).Round(time.Second))
	line("Load: `ringmq perf`, another process on the same cores, one code for all protocols. Open loop: latency from the intended send time. Every answer's queue offset is verified; what is read: every message, its order and its checksum")
	line("Figures: median of the rounds (lowest–highest); the last columns are medians of the rounds' ratios. Percentiles are of acknowledged messages; in the shares, those that were not acknowledged count as late")
	if b.heap > 0 {
		line("Java's heap is resident as a whole because of AlwaysPreTouch: %.0f MiB of it were live after a full collection behind the closed loops", float64(b.heap)/(1<<20))
	}
	t.WriteString("\n")
}

func (b *bench) aimTable(t *strings.Builder) {
	aims := b.aims()
	if len(aims) == 0 {
		return
	}
	t.WriteString("## What was aimed at\n\n| aim | seen | |\n|---|---|---|\n")
	for _, a := range aims {
		fmt.Fprintf(t, "| %s | %s | %s |\n", a.Aim, a.Seen, a.Verdict)
	}
	t.WriteString("\n")
}

// noise says how quiet the machine was.
func (b *bench) noise(line func(format string, args ...any)) {
	others, stolen := map[int]float64{}, map[int]float64{}
	for i := range b.results {
		others[i], stolen[i] = b.results[i].Machine.Others*100, b.results[i].Machine.Stolen*100
	}
	line("Meanwhile, of all cores' time: other processes and the kernel's own work %s %%, stolen by the hypervisor %s %%", spread(others, decimals(1)), spread(stolen, decimals(1)))
}

// compared are the servers that ringmq has a column of ratios with.
var compared = []string{javaServer, natsServer, kafkaServer, stubServer, bareServer}

func (b *bench) scenarioTable(t *strings.Builder, sc *scenario) {
	servers := slices.DeleteFunc(b.taking(sc), func(s string) bool { return !b.measuredServer(sc.name, s) })
	if len(servers) == 0 {
		return
	}
	fmt.Fprintf(t, "## %s\n\n%s. Rounds: %d.\n\n| |", sc.name, sc.title, b.roundsSeen(sc.name))
	for _, s := range servers {
		fmt.Fprintf(t, " %s |", title(s))
	}
	var ratios []string
	if slices.Contains(servers, ringServer) {
		ratios = slices.DeleteFunc(slices.Clone(compared), func(s string) bool { return !slices.Contains(servers, s) })
	}
	for _, s := range ratios {
		fmt.Fprintf(t, " ringmq : %s |", title(s))
	}
	t.WriteString("\n|---|" + strings.Repeat("---:|", len(servers)+len(ratios)) + "\n")
	for _, f := range sc.figures {
		b.figureLine(t, sc, f, servers, ratios)
	}
	t.WriteString("\n")
	for _, r := range b.results {
		if r.Scenario == sc.name && r.Failure != "" {
			fmt.Fprintf(t, "Round %d, %s: %s\n\n", r.Round+1, title(r.Server), r.Failure)
		}
	}
}

// figureLine writes one line of a table, unless nobody has that figure.
func (b *bench) figureLine(t *strings.Builder, sc *scenario, f figure, servers, ratios []string) {
	cells, some := "", false
	for _, s := range servers {
		rounds := b.values(sc.name, s, f.of)
		some = some || len(rounds) > 0
		cells += " " + spread(rounds, f.format) + " |"
	}
	if !some {
		return
	}
	for _, s := range ratios {
		if f.share {
			cells += "  |"
			continue
		}
		cells += " " + ratioText(b.values(sc.name, ringServer, f.of), b.values(sc.name, s, f.of)) + " |"
	}
	fmt.Fprintf(t, "| %s |%s\n", f.name, cells)
}

func (b *bench) measuredServer(scenario, server string) bool {
	return slices.ContainsFunc(b.results, func(r result) bool { return r.Scenario == scenario && r.Server == server })
}

func (b *bench) roundsSeen(scenario string) (n int) {
	for i := range b.results {
		if b.results[i].Scenario == scenario {
			n = max(n, b.results[i].Round+1)
		}
	}
	return n
}

// write keeps tables and raw figures.
func (b *bench) write(ctx context.Context) error {
	if err := os.MkdirAll(b.options.results, 0o755); err != nil {
		return err
	}
	name := b.began.Format("2006-01-02") + "-peers"
	if b.short {
		name += "-short"
	}
	if len(b.scenarios) > 0 {
		name += "-" + strings.Join(b.scenarios, "-")
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
	}{{"results", lines(b.results)}, {"aims", lines(b.aims())}} {
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
