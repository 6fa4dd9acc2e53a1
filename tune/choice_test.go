package tune

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChoose(t *testing.T) {
	c := func(name string, scores ...float64) Candidate { return Candidate{Name: name, Scores: scores} }
	no := func(name string) Candidate { return Candidate{Name: name, Refused: "no"} }
	tests := []struct {
		rule         string
		candidates   []Candidate
		chosen, best string
		ahead        float64
		clear        bool
		why          string
	}{
		{"nothing there", nil, "", "", 0, false, ""},
		{"all refused", []Candidate{no("a"), no("b")}, "", "", 0, false, ""},
		{"only one is there", []Candidate{no("a"), c("b", 1)}, "b", "b", 0, false, "nothing else"},
		{"the first is the best", []Candidate{c("a", 10), c("b", 5), c("d", 8)}, "a", "a", 1.25, true, "a has 1.25 times the score of d, clear of the noise"},
		{"a clear winner", []Candidate{c("a", 9, 10, 11), c("b", 19, 20, 21)}, "b", "b", 2, true, "b has 2.00 times the score of a, clear of the noise"},
		{"a winner within the noise", []Candidate{c("a", 9, 10, 20), c("b", 19, 20, 21)}, "a", "b", 2, false, "within the noise: a stays"},
		{"touching ranges are noise", []Candidate{c("a", 9, 10, 11), c("b", 11, 12, 13)}, "a", "b", 1.2, false, "a stays"},
		{"a tie", []Candidate{c("a", 10), c("b", 10)}, "a", "a", 1, false, "a has 1.00 times the score of b, within the noise"},
		{"of two that beat the first, the one before", []Candidate{c("a", 9, 10), c("b", 20, 30), c("d", 29, 31)}, "b", "d", 1.2, false, "within the noise: b stays; those preferred to it are clearly beaten by another"},
		{"beaten by another than the best", []Candidate{c("a", 90, 100, 110), c("b", 105, 120, 125), c("d", 112, 118, 120)}, "b", "b", 1.2, false, "b has 1.20"},
		{"the best is not clearly better than the first, another one is", []Candidate{c("a", 1, 2, 10), c("b", 9, 30, 40), c("d", 11, 12, 13)}, "b", "b", 15, false, "b has 15.00 times the score of a, within the noise; those preferred to it are clearly beaten by another"},
		{"the first is refused", []Candidate{no("a"), c("b", 9, 12), c("d", 10, 11)}, "b", "b", 1, false, "b has 1.00 times the score of d, within the noise"},
		{"without a measurement", []Candidate{{Name: "a"}, c("b", 1)}, "b", "b", 0, false, "nothing else"},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			v, ok := Choose(tt.candidates)
			require.Equal(t, tt.chosen != "", ok)
			require.Equal(t, [2]string{tt.chosen, tt.best}, [2]string{v.Chosen, v.Best})
			require.InDelta(t, tt.ahead, v.Ahead, 0.001)
			require.Equal(t, tt.clear, v.Clear)
			require.Contains(t, v.Why, tt.why)
		})
	}
}

func TestSpread(t *testing.T) {
	require.Equal(t, Spread{Median: 2, Min: 1, Max: 9}, SpreadOf([]float64{9, 1, 2}))
	require.Equal(t, Spread{Median: 2.5, Min: 1, Max: 9}, SpreadOf([]float64{9, 1, 2, 3}))
	require.Equal(t, Spread{Median: 7, Min: 7, Max: 7}, SpreadOf([]float64{7}))
}
