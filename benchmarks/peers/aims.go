//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What the project aims at, before any tuning.
const (
	aimCPU        = 0.2  // of Java's CPU per message, at most
	aimThroughput = 4    // times Java's, at least, with 64 in flight
	aimMemory     = 0.1  // of Java's resident memory, less than
	aimUnder1ms   = 99   // percent of the messages of open-10k, at least
	quietControl  = 99.5 // percent that the control must have for a round to tell something about the server
)

// aims says what was aimed at, and whether it held.
func (b *bench) aims(t *strings.Builder) {
	if !b.has(javaServer) || !b.has(ringServer) {
		return
	}
	a := &aimTable{Builder: t}
	for _, sc := range scenarios() {
		if strings.HasPrefix(sc.name, "closed") {
			r, ok := ratio(b.values(&sc, ringServer, rate), b.values(&sc, javaServer, rate))
			a.ratio(fmt.Sprintf("%s: throughput at least %d × Java's", sc.name, aimThroughput), r, ok, r >= aimThroughput)
		}
	}
	for _, sc := range scenarios() {
		if !sc.sync {
			java := b.values(&sc, javaServer, cpu)
			r, ok := ratio(b.values(&sc, ringServer, cpu), java)
			floor := ""
			if !sc.endToEnd() {
				floor = "; the control: " + ratioText(b.values(&sc, stubServer, cpu), java)
			}
			if ok {
				a.line(sc.name+": server CPU per message at most a fifth of Java's", fmt.Sprintf("%.3g ×%s", r, floor), verdict(r <= aimCPU))
			}
		}
	}
	for _, sc := range scenarios() {
		if sc.name == "open-10k" {
			b.tailAim(&sc, a)
		}
	}
	for _, when := range []string{idle, afterLoads} {
		for _, kind := range []struct {
			name string
			of   func(m *memory) int64
		}{{"resident memory", resident}, {"anonymous part of it", anonymous}} {
			r, ok := ratio(b.sizes(ringServer, when, kind.of), b.sizes(javaServer, when, kind.of))
			a.ratio(when+": "+kind.name+" under a tenth of Java's", r, ok, r < aimMemory)
		}
	}
	if a.lines > 0 {
		t.WriteString("\n")
	}
}

// aimTable writes the lines of the table.
type aimTable struct {
	*strings.Builder
	lines int
}

func (a *aimTable) line(aim, seen, verdict string) {
	if a.lines == 0 {
		a.WriteString("## What was aimed at\n\n| aim | seen | |\n|---|---|---|\n")
	}
	a.lines++
	fmt.Fprintf(a, "| %s | %s | %s |\n", aim, seen, verdict)
}

// ratio writes an aim about a ratio, if there is one.
func (a *aimTable) ratio(aim string, r float64, ok, held bool) {
	if ok {
		a.line(aim, fmt.Sprintf("%.3g ×", r), verdict(held))
	}
}

func verdict(held bool) string {
	if held {
		return "held"
	}
	return "missed"
}

// tailAim looks only at the rounds in which the control shows that the machine was quiet.
func (b *bench) tailAim(sc *scenario, a *aimTable) {
	control, ring := b.values(sc, stubServer, under1ms("ack")), b.values(sc, ringServer, under1ms("ack"))
	if len(ring) == 0 || len(control) == 0 {
		return
	}
	aim := fmt.Sprintf("%s: at least %d %% under 1 ms in the rounds in which the control has %v %%", sc.name, aimUnder1ms, quietControl)
	quiet := map[int]float64{}
	for round, share := range control {
		if v, ok := ring[round]; ok && share >= quietControl {
			quiet[round] = v
		}
	}
	if len(quiet) == 0 {
		best := slices.Max(slices.Collect(maps.Values(control)))
		a.line(aim, fmt.Sprintf("the control had %s at best: the machine is too noisy to tell", percent(best)), "not known")
		return
	}
	good := 0
	for _, v := range quiet {
		if v >= aimUnder1ms {
			good++
		}
	}
	lowest := slices.Min(slices.Collect(maps.Values(quiet)))
	a.line(aim, fmt.Sprintf("%d of %d such rounds, lowest %s", good, len(quiet), percent(lowest)), verdict(good == len(quiet)))
}
