//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/perf"
)

// figure is one line of a scenario's table.
type figure struct {
	name   string
	format func(v float64) string
	of     func(r *perf.Report) float64
}

func millis(latency, percentile string) func(r *perf.Report) float64 {
	return func(r *perf.Report) float64 {
		l := r.Latency(latency)
		if l == nil {
			return 0
		}
		if percentile == "max" {
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

func decimals(n int) func(v float64) string {
	return func(v float64) string { return strconv.FormatFloat(v, 'f', n, 64) }
}

func percent(v float64) string {
	text := strconv.FormatFloat(v, 'f', 3, 64)
	if v < 100 && text == "100.000" {
		text = "99.999"
	}
	return text + " %"
}

func figures(sc *scenario) []figure {
	list := []figure{
		{"messages/s", decimals(0), func(r *perf.Report) float64 { return r.MessagesPerSecond }},
		{"server CPU, µs per message", decimals(2), func(r *perf.Report) float64 { return r.Server.MicrosPerMessage }},
		{"context switches per message", decimals(3), func(r *perf.Report) float64 { return r.Server.SwitchesPerMsg }},
	}
	latencies := []string{"ack"}
	if sc.command == "e2e" {
		latencies = append(latencies, "end to end")
	}
	for _, l := range latencies {
		for _, p := range []string{"p50", "p99", "p99.6", "p99.9", "max"} {
			list = append(list, figure{l + " " + p + ", ms", decimals(3), millis(l, p)})
		}
		list = append(list, figure{l + " under 1 ms", percent, under1ms(l)})
	}
	return list
}

// values are a figure's values of one server, in the order of the rounds.
func (b *bench) values(sc *scenario, server string, of func(r *perf.Report) float64) (v []float64) {
	for i := range b.results {
		if r := &b.results[i]; r.Scenario == sc.name && r.Server == server && r.Report.Server != nil {
			v = append(v, of(r.Report))
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
func spread(v []float64, format func(v float64) string) string {
	if len(v) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", format(median(v)), format(slices.Min(v)), format(slices.Max(v)))
}

// ratio is the median over the rounds of ringmq's value by Java's.
func ratio(ring, java []float64) float64 {
	var r []float64
	for i := range min(len(ring), len(java)) {
		if java[i] != 0 {
			r = append(r, ring[i]/java[i])
		}
	}
	return median(r)
}

func ratioText(ring, java []float64) string {
	r := ratio(ring, java)
	if r == 0 {
		return "–"
	}
	return strconv.FormatFloat(r, 'g', 3, 64) + " ×"
}

func (b *bench) markdown(ctx context.Context) string {
	var t strings.Builder
	fmt.Fprintf(&t, "# ringmq and Apache RocketMQ 5.5.0 side by side, %s\n\n", b.began.Format("2006-01-02"))
	b.conditions(ctx, &t)
	b.goals(&t)
	for _, sc := range scenarios() {
		b.scenarioTable(&t, &sc)
	}
	b.startTable(&t)
	b.memoryTable(&t)
	return t.String()
}

func (b *bench) conditions(ctx context.Context, t *strings.Builder) {
	fmt.Fprintf(t, "- Machine: %s, %d cores, %s memory, %s, file system %s\n", cpuModel(), runtime.NumCPU(), memoryTotal(), output(ctx, "uname", "-srm"), fileSystem(ctx, b.work))
	fmt.Fprintf(t, "- Java: %s; broker with `%s`, everything else the default of 5.5.0\n", javaVersion(ctx), strings.Join(javaOptions(b.heap), " "))
	fmt.Fprintf(t, "- ringmq: %s, one process with its name server, defaults\n", output(ctx, b.ringmq, "--version"))
	t.WriteString("- Both: one broker, no replicas, empty store at the beginning, 1 topic × 4 queues per scenario, one message per request (no batches), JSON headers, no compression, loopback\n")
	fmt.Fprintf(t, "- Control: a server that answers the frames and stores nothing; what it shows is the generator, the network stack and the noise of the machine\n")
	fmt.Fprintf(t, "- %d rounds in turns (A B C, then C B A), %v measured each after 1 s of load; only one server runs at a time; every server warmed up for %v\n", b.pairs, b.seconds, b.warmup)
	t.WriteString("- Load: `ringmq perf` in another process on the same cores. Open loop: latency from the intended send time. Every answer's queue offset is verified; end to end every message\n")
	t.WriteString("- Figures: median of the rounds (lowest–highest); the last column is the median of the rounds' ratios, ringmq : Java\n\n")
}

func (b *bench) scenarioTable(t *strings.Builder, sc *scenario) {
	if len(b.values(sc, ringServer, func(*perf.Report) float64 { return 0 })) == 0 {
		return
	}
	servers := b.serverNames(sc.control)
	fmt.Fprintf(t, "## %s\n\n| |", sc.title)
	for _, s := range servers {
		fmt.Fprintf(t, " %s |", s)
	}
	t.WriteString(" ringmq : Java |\n|---|" + strings.Repeat("---:|", len(servers)+1) + "\n")
	for _, f := range figures(sc) {
		fmt.Fprintf(t, "| %s |", f.name)
		for _, s := range servers {
			fmt.Fprintf(t, " %s |", spread(b.values(sc, s, f.of), f.format))
		}
		ratios := ""
		if !strings.HasSuffix(f.name, "under 1 ms") { // a ratio of shares says nothing
			ratios = ratioText(b.values(sc, ringServer, f.of), b.values(sc, javaServer, f.of))
		}
		fmt.Fprintf(t, " %s |\n", ratios)
	}
	t.WriteString("\n")
	for _, r := range b.results {
		if r.Scenario == sc.name && r.Failure != "" {
			fmt.Fprintf(t, "Round %d, %s: %s (%v)\n\n", r.Round+1, r.Server, r.Failure, r.Report.Errors)
		}
	}
}

func (b *bench) startTable(t *strings.Builder) {
	if len(b.started) == 0 {
		return
	}
	by := map[string][]float64{}
	for _, s := range b.started {
		by[s.Server] = append(by[s.Server], s.Millis)
	}
	t.WriteString("## start: from exec to the first acknowledged send, empty store\n\n| | ms |\n|---|---:|\n")
	for _, name := range b.serverNames(false) {
		fmt.Fprintf(t, "| %s | %s |\n", name, spread(by[name], decimals(0)))
	}
	fmt.Fprintf(t, "| ringmq : Java | %s |\n\nJava: name server and broker started at once. ringmq: one process with both.\n\n", ratioText(by[ringServer], by[javaServer]))
}

func (b *bench) memoryTable(t *strings.Builder) {
	if len(b.memory) == 0 {
		return
	}
	t.WriteString("## resident memory of the broker process, MiB\n\n| | when | resident | anonymous | mapped files |\n|---|---|---:|---:|---:|\n")
	list := slices.Clone(b.memory)
	slices.SortStableFunc(list, func(x, y memory) int { return cmp.Compare(y.When, x.When) })
	for _, m := range list {
		fmt.Fprintf(t, "| %s | %s | %d | %d | %d |\n", m.Server, m.When, m.RSS>>20, m.Anon>>20, m.File>>20)
	}
	t.WriteString("\nMapped files are page cache that the store is read and written through; the kernel takes it back when others need it, unless it is locked.\n\n")
}

// goals compares with what the project aims at.
func (b *bench) goals(t *strings.Builder) {
	if b.noJava {
		return
	}
	t.WriteString("## What was aimed at\n\n| aim | seen | |\n|---|---|---|\n")
	line := func(aim, seen string, met bool) {
		mark := "missed"
		if met {
			mark = "met"
		}
		fmt.Fprintf(t, "| %s | %s | %s |\n", aim, seen, mark)
	}
	cpu := func(r *perf.Report) float64 { return r.Server.MicrosPerMessage }
	rate := func(r *perf.Report) float64 { return r.MessagesPerSecond }
	for _, sc := range scenarios() {
		ring, java := b.values(&sc, ringServer, cpu), b.values(&sc, javaServer, cpu)
		if len(ring) == 0 || len(java) == 0 {
			continue
		}
		switch sc.name {
		case "closed-128", "closed-1024":
			r := ratio(b.values(&sc, ringServer, rate), b.values(&sc, javaServer, rate))
			line(sc.name+": throughput at least 4 × Java's", fmt.Sprintf("%.3g ×", r), r >= 4)
			r = ratio(ring, java)
			line(sc.name+": CPU per message at most a fifth of Java's", fmt.Sprintf("%.3g ×", r), r <= 0.2)
		case "open-5k", "open-10k":
			r := ratio(ring, java)
			line(sc.name+": CPU per message at most a fifth of Java's", fmt.Sprintf("%.3g ×", r), r <= 0.2)
		}
		if sc.name == "open-10k" {
			b.tailGoal(&sc, line)
		}
	}
	b.memoryGoal(line)
	t.WriteString("\n")
}

// tailGoal looks only at the rounds in which the control shows that the machine was quiet.
func (b *bench) tailGoal(sc *scenario, line func(aim, seen string, met bool)) {
	control, ring := b.values(sc, stubServer, under1ms("ack")), b.values(sc, ringServer, under1ms("ack"))
	quiet, good, lowest := 0, 0, 100.0
	for i := range min(len(control), len(ring)) {
		if control[i] < 99.5 {
			continue
		}
		quiet++
		lowest = min(lowest, ring[i])
		if ring[i] >= 99 {
			good++
		}
	}
	const aim = "open-10k: at least 99 % under 1 ms in the rounds in which the control has 99.5 %"
	if quiet == 0 {
		line(aim, "the control never had: too noisy to tell", false)
		return
	}
	line(aim, fmt.Sprintf("%d of %d such rounds, lowest %s", good, quiet, percent(lowest)), good == quiet)
}

func (b *bench) memoryGoal(line func(aim, seen string, met bool)) {
	resident := map[string]int64{}
	for _, m := range b.memory {
		if m.When == "after the loads" {
			resident[m.Server] = m.RSS
		}
	}
	if java, ring := resident[javaServer], resident[ringServer]; java > 0 && ring > 0 {
		line("resident memory under a tenth of Java's", fmt.Sprintf("%d of %d MiB", ring>>20, java>>20), ring*10 < java)
	}
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
	raw, err := json.MarshalIndent(struct {
		Results []result  `json:"results"`
		Memory  []memory  `json:"memory"`
		Starts  []started `json:"starts"`
	}{b.results, b.memory, b.started}, "", " ")
	if err != nil {
		return err
	}
	for suffix, content := range map[string][]byte{".md": []byte(text), ".json": append(raw, '\n')} {
		if err := os.WriteFile(filepath.Join(b.options.results, name+suffix), content, 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s\nkept as %s\n", text, filepath.Join(b.options.results, name+".md"))
	return nil
}

func output(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

func javaVersion(ctx context.Context) string { return output(ctx, "java", "-version") }

func fileSystem(ctx context.Context, dir string) string {
	return output(ctx, "findmnt", "-n", "-o", "FSTYPE", "-T", dir)
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func memoryTotal() string {
	text, _ := os.ReadFile("/proc/meminfo")
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return "unknown"
	}
	kib, _ := strconv.ParseInt(fields[1], 10, 64)
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}
