//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// What the project promises. Tails are judged against the control of the same round; ratios are those within a round, their median.
const (
	aimJavaThroughput = 8.0  // times Java's, at least, 64 in flight
	aimNATSThroughput = 2.0  // times NATS's, at least
	aimJavaCPU        = 0.1  // of Java's CPU per message, at most
	aimControlCPU     = 2.0  // times the control's CPU per message, at most
	aimUnder1ms       = 99.6 // percent, open loop
	aimUnder10ms      = 99.996
	aimMisses         = 1.2 // times the control's misses, where the control does not reach the above
	aimGoodWindows    = 99.0
	aimColdTail       = 2.0
	aimColdDrain      = 0.8
	aimBareCommits    = 0.9
	aimSyncJavaOne    = 2.0
	aimSyncJavaMore   = 4.0
	aimJavaEndToEnd   = 0.2
	aimAfterAck       = 0.05 // ms
	aimJavaTail       = 0.25
	aimIdleCPU        = 0.3 // % of a core
	aimIdleSwitches   = 50.0
	aimVoluntary      = 1.0
	aimHotJava        = 4.0
	aimHotSendfile    = 1.5
	aimManyQueues     = 0.9  // of the throughput with 8 queues, with 10,000
	aimMostQueues     = 0.75 // with 100,000
	aimMostStart      = 2000.0
	aimBatchJava      = 6.0
	aimBatchKafka     = 3.0
	aimKillFilled     = 500.0
	aimKillEmpty      = 150.0
	aimMemoryLoad     = 150.0 // MiB, anonymous
	aimMemoryIdle     = 40.0
)

// hopeless is how many percent of the control's messages may miss a millisecond before a round tells nothing about anybody.
const hopeless = 10.0

// Verdicts.
const (
	held     = "held"
	missed   = "missed"
	notKnown = "not known: control too noisy"
)

// aim is one promise and what became of it.
type aim struct {
	Aim     string `json:"aim"`
	Seen    string `json:"seen"`
	Verdict string `json:"verdict"`
}

func verdict(ok bool) string {
	if ok {
		return held
	}
	return missed
}

// judge collects the aims about what was measured. Those about scenarios or servers that took no part are left out.
type judge struct {
	*bench
	aims []aim
}

// aims judges everything.
func (b *bench) aims() []aim {
	j := &judge{bench: b}
	j.closed()
	j.openLoops()
	j.longRun()
	j.cold()
	j.sync()
	j.endToEnd()
	j.idle()
	j.hot()
	j.queues()
	j.batches()
	j.starts()
	j.memory()
	return j.aims
}

func (j *judge) add(text, seen, verdict string) { j.aims = append(j.aims, aim{text, seen, verdict}) }

// atLeast and atMost compare ringmq's figure with another server's by the median of the rounds' ratios.
func (j *judge) atLeast(scenario, what string, of value, other string, limit float64) {
	j.against(scenario, what, of, other, fmt.Sprintf("at least %g ×", limit), func(r float64) bool { return r >= limit })
}

func (j *judge) atMost(scenario, what string, of value, other string, limit float64) {
	j.against(scenario, what, of, other, fmt.Sprintf("at most %g ×", limit), func(r float64) bool { return r <= limit })
}

func (j *judge) against(scenario, what string, of value, other string, bound string, ok func(r float64) bool) {
	r, there := ratio(j.values(scenario, ringServer, of), j.values(scenario, other, of))
	if !there {
		return
	}
	text, seen := fmt.Sprintf("%s: %s %s %s", scenario, what, bound, possessive(other)), fmt.Sprintf("%.3g ×", r)
	if spread := j.controlSpread(scenario); what == throughput && spread > noisySpread {
		j.add(text, fmt.Sprintf("%s; the control's best round %.3g × its worst", seen, spread), notKnown)
		return
	}
	j.add(text, seen, verdict(ok(r)))
}

// throughput is the figure that noise moves most; CPU per message hardly notices it.
const throughput = "throughput"

// noisySpread is how much faster the control may be in its best round than in its worst, for throughputs to be compared.
const noisySpread = 2.0

// controlSpread is the control's best throughput by its worst; 1 where there are no two rounds.
func (j *judge) controlSpread(scenario string) float64 {
	rounds := slices.Collect(maps.Values(j.values(scenario, stubServer, rate)))
	if len(rounds) < 2 || slices.Min(rounds) <= 0 {
		return 1
	}
	return slices.Max(rounds) / slices.Min(rounds)
}

func possessive(server string) string {
	switch server {
	case stubServer:
		return "the control's"
	case bareServer:
		return "the best bare program's"
	}
	return title(server) + "'s"
}

// below compares the median of ringmq's figure with a limit of its own.
func (j *judge) below(scenario, what string, of value, limit float64, unit string) {
	rounds := j.values(scenario, ringServer, of)
	if len(rounds) == 0 {
		return
	}
	v := median(slices.Collect(maps.Values(rounds)))
	j.add(fmt.Sprintf("%s: %s at most %g%s", scenario, what, limit, unit), fmt.Sprintf("%.3g%s", v, unit), verdict(v <= limit))
}

// named lists the scenarios whose name begins so.
func named(prefix string) (names []string) {
	for _, sc := range scenarios() {
		if strings.HasPrefix(sc.name, prefix) {
			names = append(names, sc.name)
		}
	}
	return names
}

func (j *judge) closed() {
	for _, name := range named("closed-") {
		j.atLeast(name, throughput, rate, javaServer, aimJavaThroughput)
		j.atLeast(name, throughput, rate, natsServer, aimNATSThroughput)
		j.atMost(name, "CPU per message", cpu, javaServer, aimJavaCPU)
		j.atMost(name, "CPU per message", cpu, stubServer, aimControlCPU)
	}
}

func (j *judge) openLoops() {
	for _, name := range named("open-") {
		j.tail(name)
	}
	j.below("open-5k", "voluntary switches per message", voluntary, aimVoluntary, "")
}

// tail: in a round in which the control reaches the aim the server has to, too; else it may miss it aimMisses times as often.
func (j *judge) tail(name string) {
	ring1, control1 := j.values(name, ringServer, under1ms("ack")), j.values(name, stubServer, under1ms("ack"))
	ring10, control10 := j.values(name, ringServer, under10ms("ack")), j.values(name, stubServer, under10ms("ack"))
	good, judged, total, worst := 0, 0, 0, 0.0
	for round, share := range ring1 {
		c1, there := control1[round]
		if !there {
			continue
		}
		total++
		if 100-c1 > hopeless {
			continue
		}
		judged++
		worst = max(worst, 100-share)
		if tailHolds(share, c1, aimUnder1ms) && tailHolds(ring10[round], control10[round], aimUnder10ms) {
			good++
		}
	}
	if total == 0 {
		return
	}
	text := fmt.Sprintf("%s: ≥ %g %% under 1 ms and ≥ %g %% under 10 ms in every round in which the control has that, else ≤ %g × the control's misses",
		name, aimUnder1ms, aimUnder10ms, aimMisses)
	if judged == 0 {
		best := slices.Max(slices.Collect(maps.Values(control1)))
		j.add(text, fmt.Sprintf("the control had %s under 1 ms at best", percent(best)), notKnown)
		return
	}
	j.add(text, fmt.Sprintf("%d of %d rounds, at worst %s over 1 ms", good, judged, percent(worst)), verdict(good == judged))
}

func tailHolds(share, control, aim float64) bool {
	if control >= aim {
		return share >= aim
	}
	return 100-share <= aimMisses*(100-control)
}

// leastQuiet is how many percent of the windows must be quiet for the long run to tell something.
const leastQuiet = 25.0

func (j *judge) longRun() {
	good, quiet := j.values(longName, ringServer, kept(valueGood)), j.values(longName, ringServer, kept(valueQuiet))
	all := j.values(longName, ringServer, kept(valueWindows))
	if len(all) == 0 {
		return
	}
	var shares []float64
	for round, n := range all {
		if n > 0 && 100*quiet[round]/n >= leastQuiet {
			shares = append(shares, good[round])
		}
	}
	text := fmt.Sprintf("long: p99.6 under 1 ms in at least %g %% of the one-second windows in which the control is quiet", aimGoodWindows)
	if len(shares) == 0 {
		j.add(text, fmt.Sprintf("fewer than %g %% of the windows were quiet", leastQuiet), notKnown)
		return
	}
	j.add(text, percent(slices.Min(shares))+" in the worst round", verdict(slices.Min(shares) >= aimGoodWindows))
}

func (j *judge) cold() {
	value := func(name string) map[int]float64 { return j.values(coldName, ringServer, kept(name)) }
	during, alone := value(valueDuring), value(valueAlone)
	if r, ok := ratio(during, alone); ok {
		noisy, there := ratio(value(valueControl), value(valueControlA))
		text := fmt.Sprintf("cold: send p99.6 while a consumer drains at most %g × that without", aimColdTail)
		seen := fmt.Sprintf("%.3g ×; the control beside it %.3g ×", r, noisy)
		switch {
		case r <= aimColdTail:
			j.add(text, seen, held)
		case there && noisy > aimColdTail:
			j.add(text, seen, notKnown)
		default:
			j.add(text, seen, missed)
		}
	}
	if r, ok := ratio(value(valueDrainDisk), value(valueDisk)); ok {
		j.add(fmt.Sprintf("cold: drain at least %g × the disk's sequential rate", aimColdDrain), fmt.Sprintf("%.3g ×", r), verdict(r >= aimColdDrain))
	}
}

func (j *judge) sync() {
	for _, name := range named("sync-") {
		j.atLeast(name, throughput, rate, bareServer, aimBareCommits)
		j.oneAfterTheOther(name)
		limit := aimSyncJavaMore
		if name == "sync-1" {
			limit = aimSyncJavaOne
		}
		j.atLeast(name, throughput, rate, javaServer, limit)
	}
}

// oneAfterTheOther compares with a server that takes the control's time for the network and the bare program's for the disk, one after the other:
// what is left for a broker that has both to do.
func (j *judge) oneAfterTheOther(name string) {
	bare, together := j.values(name, bareServer, rate), map[int]float64{}
	for round, r := range j.values(name, stubServer, rate) {
		if b := bare[round]; b > 0 && r > 0 {
			together[round] = 1 / (1/r + 1/b)
		}
	}
	if r, ok := ratio(j.values(name, ringServer, rate), together); ok {
		j.add(fmt.Sprintf("%s: throughput at least %g × that of the control's and the best bare program's times one after the other", name, aimBareCommits),
			fmt.Sprintf("%.3g ×", r), verdict(r >= aimBareCommits))
	}
}

func (j *judge) endToEnd() {
	for _, name := range named("e2e-") {
		j.atMost(name, "end to end p50", millis("end to end", "p50"), javaServer, aimJavaEndToEnd)
		j.atMost(name, "end to end p50", millis("end to end", "p50"), natsServer, 1)
		j.below(name, "p50 after the ack", millis("after the ack", "p50"), aimAfterAck, " ms")
		j.atMost(name, "end to end p99.6", millis("end to end", "p99.6"), javaServer, aimJavaTail)
	}
}

func (j *judge) idle() {
	j.below("idle", "CPU", kept(valueCPU), aimIdleCPU, " % of a core")
	j.below("idle", "context switches per second", kept(valueSwitches), aimIdleSwitches, "")
}

func (j *judge) hot() {
	j.atLeast("hot-32", "messages per CPU second", perCPUSecond, javaServer, aimHotJava)
	j.atMost("hot-32", "CPU per message", cpu, stubServer, aimHotSendfile)
	j.atMost("hot-large", "CPU per message", cpu, kafkaServer, 1)
}

func (j *judge) queues() {
	few := j.values("queues-8", ringServer, rate)
	for _, q := range []struct {
		name  string
		limit float64
	}{{"queues-10000", aimManyQueues}, {"queues-100000", aimMostQueues}} {
		if r, ok := ratio(j.values(q.name, ringServer, rate), few); ok {
			seen := fmt.Sprintf("%.3g ×", r)
			if c, ok := ratio(j.values(q.name, stubServer, rate), j.values("queues-8", stubServer, rate)); ok {
				seen += fmt.Sprintf("; the control %.3g ×", c)
			}
			j.add(fmt.Sprintf("%s: throughput at least %g × that with 8 queues", q.name, q.limit), seen, verdict(r >= q.limit))
		}
	}
	j.below("queues-100000", "start, to the first acknowledgement,", kept(valueFirstAck), aimMostStart, " ms")
}

func (j *judge) batches() {
	for _, name := range named("batch-") {
		j.atLeast(name, throughput, rate, javaServer, aimBatchJava)
		j.atLeast(name, throughput, rate, kafkaServer, aimBatchKafka)
	}
}

func (j *judge) starts() {
	j.below("kill-filled", "first acknowledgement after kill -9", kept(valueFirstAck), aimKillFilled, " ms")
	j.below("kill-filled", "acknowledged messages lost", kept(valueLost), 0, "")
	j.below("kill-empty", "first acknowledgement after kill -9", kept(valueFirstAck), aimKillEmpty, " ms")
}

// memory takes the highest peak of all loads.
func (j *judge) memory() {
	peak := math.Inf(-1)
	for i := range j.results {
		r := &j.results[i]
		if v, ok := anonPeak(r); ok && r.Server == ringServer && !strings.HasPrefix(r.Scenario, "queues-") {
			peak = max(peak, v)
		}
	}
	if !math.IsInf(peak, -1) {
		j.add(fmt.Sprintf("anonymous memory under load at most %g MiB (queues-*: see their tables)", aimMemoryLoad), fmt.Sprintf("%.0f MiB at the highest", peak), verdict(peak <= aimMemoryLoad))
	}
	j.below("idle", "anonymous memory", kept(valueAnon), aimMemoryIdle, " MiB")
}
