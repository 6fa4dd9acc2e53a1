package perf

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// fault is what a broker does to message 20 of 60, sent one at a time to two queues, and what each command must find in consequence:
// the verification's counters that are 1, and no other. A command that cannot see the fault has none.
type fault struct {
	fate                fakeFate
	produce, e2e, drain []string
}

var faults = map[string]fault{
	"a message is lost": {
		fate: swallowed, produce: []string{"answerRepeats", "answerOrder"}, e2e: []string{"answerRepeats", "answerOrder", "lost"}, drain: []string{"lost"},
	},
	"a message is stored twice": {
		fate: twice, produce: []string{"answerGaps"}, e2e: []string{"answerGaps", "duplicated"}, drain: []string{"duplicated"},
	},
	"a message is stored behind a later one": {fate: held, e2e: []string{"reordered"}, drain: []string{"reordered"}},
	// The sequence in a corrupt message cannot be trusted, so its place in the lane stays empty.
	"a byte of a body changes before it is stored": {fate: spoiled, e2e: []string{"corrupt", "lost"}, drain: []string{"corrupt", "lost"}},
	"a byte of a record rots":                      {fate: rotten, e2e: []string{"corrupt", "lost"}, drain: []string{"corrupt", "lost"}},
	"two messages are given one offset": {
		fate: repeated, produce: []string{"answerRepeats", "answerOrder", "answerGaps"}, e2e: []string{"answerRepeats", "answerOrder", "answerGaps"},
	},
	"an answer names another queue": {fate: skewed, produce: []string{"answerQueue"}, e2e: []string{"answerQueue"}},
	"an offset is passed over": {
		fate: skipped, produce: []string{"answerGaps"}, e2e: []string{"answerGaps", "offsetGaps"}, drain: []string{"offsetGaps"},
	},
	"a record stands in another queue": {fate: strayed, e2e: []string{"misplaced"}, drain: []string{"misplaced"}},
	"a pull is sent back":              {fate: stuck, e2e: []string{"offsetBack"}, drain: []string{"offsetBack"}},
}

// counters are those of a verification that tell a fault.
func counters(t *testing.T, out string) map[string]int64 {
	t.Helper()
	var report struct {
		Verified map[string]any `json:"verified"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report), out)
	found := map[string]int64{}
	for name, value := range report.Verified {
		n, isNumber := value.(float64)
		switch name {
		case "sent", "acknowledged", "unknown", "received", "foreign", "overtaken":
			continue
		}
		if isNumber && n != 0 {
			found[name] = int64(n)
		}
	}
	return found
}

// requireFound runs a command against a broker and compares exit status and counters.
func requireFound(t *testing.T, want []string, args ...string) {
	t.Helper()
	out, _, code := runCommand(append(args, "-q", "-o", "json")...)
	expected, status := map[string]int64{}, ExitOK
	for _, name := range want {
		expected[name] = 1
		status = ExitUnverified
	}
	require.Equal(t, expected, counters(t, out), args)
	require.Equal(t, status, code, args)
}

func faultyBroker(t *testing.T, fate fakeFate) *fakeBroker {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n == 20 {
			return fate
		}
		return stored
	}
	return b
}

func TestEveryFaultIsFoundAndFailsTheCommand(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			load := []string{"--count", "60", "--size", "64", "--queues", "2"}
			b := faultyBroker(t, f.fate)
			requireFound(t, f.produce, append([]string{"produce", "-b", b.addr}, load...)...)
			requireFound(t, f.drain, "drain", "-b", b.addr, "--queues", "2", "--idle", "300ms")
			stored := "60"
			if f.fate == swallowed {
				stored = "59" // consume does not know how many there should be: it is told
			}
			requireFound(t, f.drain, "consume", "-b", b.addr, "--queues", "2", "--from", "min", "--count", stored, "--idle", "300ms")
			b = faultyBroker(t, f.fate)
			requireFound(t, f.e2e, append([]string{"e2e", "-b", b.addr, "--idle", "300ms"}, load...)...)
		})
	}
}

// What is acknowledged and never given out is neither a hole nor a gap: the reader does not get that far.
func TestMessagesThatAreWithheldFailTheCommands(t *testing.T) {
	b := faultyBroker(t, withheld)
	requireFound(t, nil, "produce", "-b", b.addr, "--count", "60", "--size", "64", "--queues", "1")
	for _, args := range [][]string{{"drain"}, {"consume", "--from", "min", "--count", "60"}} {
		out, _, code := runCommand(append(args, "-b", b.addr, "--queues", "1", "--idle", "200ms", "-q", "-o", "json")...)
		require.Equal(t, map[string]int64{"notRead": 40}, counters(t, out), args)
		require.Equal(t, ExitUnverified, code)
	}
	b = faultyBroker(t, withheld)
	out, _, code := runCommand("e2e", "-b", b.addr, "--count", "60", "--size", "64", "--queues", "1", "--idle", "200ms", "-q", "-o", "json")
	require.Equal(t, map[string]int64{"notRead": 40, "lost": 40}, counters(t, out))
	require.Equal(t, ExitUnverified, code)
}

func TestFailedRequestsHaveAnExitStatusOfTheirOwn(t *testing.T) {
	b := faultyBroker(t, refused)
	_, _, code := runCommand("e2e", "-b", b.addr, "--count", "60", "--idle", "300ms", "-q")
	require.Equal(t, ExitFailed, code)
}
