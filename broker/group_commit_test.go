package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// play plays clients that come again some time after each answer, and commits that take some time, and returns how many messages a commit had.
func (g *groupCommit) play(clients int, back, commit time.Duration) float64 {
	const step = int64(5 * time.Microsecond)
	var now, doneAt int64
	due, waiting, flying := make([]int64, clients), 0, 0
	for i := range due {
		due[i] = 1 + int64(i)*step // one after the other, not at once
	}
	commits, messages := 0, 0
	for now = 1; now < int64(time.Second); now += step {
		for i, at := range due {
			if at != 0 && at <= now {
				due[i] = 0
				waiting++
			}
		}
		if doneAt != 0 && now >= doneAt {
			g.answered(now)
			for i := range due {
				if flying > 0 && due[i] == 0 {
					due[i] = now + int64(back) + int64(i)*step
					flying--
				}
			}
			doneAt, flying = 0, 0
		}
		if g.wait(waiting+flying, now) <= 0 && waiting > 0 && doneAt == 0 {
			g.begin(now)
			commits, messages = commits+1, messages+waiting
			flying, waiting, doneAt = waiting, 0, now+int64(commit)
		}
	}
	return float64(messages) / float64(commits)
}

func TestCommitsWaitForCompany(t *testing.T) {
	const commit = 200 * time.Microsecond
	require.Equal(t, 1.0, new(groupCommit).play(1, 100*time.Microsecond, commit))
	require.Greater(t, new(groupCommit).play(8, 60*time.Microsecond, commit), 7.5)
	require.Greater(t, new(groupCommit).play(64, 20*time.Microsecond, 600*time.Microsecond), 40.0)
	// Those who come much later than a commit takes are not waited for.
	require.Less(t, new(groupCommit).play(8, 5*time.Millisecond, commit), 8.1)
}

// Nobody waits for what does not come: not alone, not behind a commit that takes unusually long, and not for clients that left.
func TestCommitWaitsAreBounded(t *testing.T) {
	var g groupCommit
	require.LessOrEqual(t, g.wait(1, 1), int64(0), "the first of all")
	g.play(8, 50*time.Microsecond, 200*time.Microsecond)
	now := g.last + 1
	g.began = 0
	require.Positive(t, g.wait(1, now))
	require.LessOrEqual(t, g.wait(1, now), maxGather)
	require.Zero(t, g.wait(8, now), "all are here")
	require.LessOrEqual(t, g.wait(1, now+maxGather), int64(0))
	g.begin(now)
	require.Positive(t, g.wait(8, now+1), "one is on its way")
	require.LessOrEqual(t, g.wait(8, now+1), maxHold)
	require.LessOrEqual(t, g.wait(1, now+maxHold), int64(0))
	for n := 0; g.company > 1; n++ {
		require.Less(t, n, 20, "seven of eight left")
		g.answered(now)
		g.wait(1, now)
		g.begin(now)
	}
}
