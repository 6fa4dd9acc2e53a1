package tune

import (
	"fmt"
	"slices"
)

// Candidate is one of several ways to do a thing, and what it scored in each round of measurements: a higher score is better. Scores of
// candidates are compared with each other only, so their unit does not matter.
type Candidate struct {
	Name    string
	Scores  []float64
	Refused string // why it cannot be had here; empty: it can
}

// Spread is the middle and the ends of some figures.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf is the spread of at least one figure.
func SpreadOf(figures []float64) Spread {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return Spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// Verdict is which candidate is taken, and why.
type Verdict struct {
	Chosen string `json:"chosen"`
	Best   string `json:"best"` // by the median; another one than Chosen only within the noise
	// Ahead is the median of Best over that of another one: Chosen; or where that is Best, the first; or where that is Best, too, the
	// next best. 1.25 is a quarter ahead. 0: there is only one.
	Ahead float64 `json:"ahead"`
	Clear bool    `json:"clear"` // the worst round of Best was better than the best one of the other
	Why   string  `json:"why"`
}

// Choose takes the first candidate that no other one clearly beats: one is clearly better when its worst round was better than the
// other's best. The candidates come with the one first that is preferred. False: none can be had.
func Choose(preferredFirst []Candidate) (Verdict, bool) {
	var names []string
	var spreads []Spread
	for _, c := range preferredFirst {
		if c.Refused == "" && len(c.Scores) > 0 {
			names, spreads = append(names, c.Name), append(spreads, SpreadOf(c.Scores))
		}
	}
	if len(names) == 0 {
		return Verdict{}, false
	}
	best := 0
	for i, s := range spreads {
		if s.Median > spreads[best].Median {
			best = i
		}
	}
	chosen := slices.IndexFunc(spreads, func(s Spread) bool {
		return !slices.ContainsFunc(spreads, func(other Spread) bool { return other.Min > s.Max })
	})
	v := Verdict{Chosen: names[chosen], Best: names[best]}
	if len(names) == 1 {
		v.Why = "nothing else can be had here"
		return v, true
	}
	other := chosen
	if chosen == best {
		other = rival(spreads, best)
	}
	v.Ahead, v.Clear = spreads[best].Median/spreads[other].Median, spreads[best].Min > spreads[other].Max
	v.Why = v.reason(names[other])
	if chosen > 0 && !v.Clear {
		v.Why += "; those preferred to it are clearly beaten by another"
	}
	return v, true
}

// rival is whom the best one, if it is chosen, is compared with.
func rival(spreads []Spread, best int) int {
	if best != 0 {
		return 0
	}
	next := 1
	for i := range spreads[1:] {
		if spreads[i+1].Median > spreads[next].Median {
			next = i + 1
		}
	}
	return next
}

func (v *Verdict) reason(other string) string {
	noise := "within the noise"
	if v.Clear {
		noise = "clear of the noise"
	}
	ahead := fmt.Sprintf("%s has %.2f times the score of %s, %s", v.Best, v.Ahead, other, noise)
	if v.Chosen != v.Best {
		return ahead + ": " + v.Chosen + " stays"
	}
	return ahead
}
