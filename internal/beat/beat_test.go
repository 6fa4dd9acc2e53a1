package beat

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Whoever starts when, all work of one period is done at one moment.
func TestEveryKeepsOneBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var first, second []time.Time
		go Every(ctx, time.Second, func() { first = append(first, time.Now()) })
		<-time.After(600 * time.Millisecond)
		go Every(ctx, time.Second, func() { second = append(second, time.Now()) })
		<-time.After(5 * time.Second)
		cancel()
		synctest.Wait()
		require.GreaterOrEqual(t, len(second), 4)
		require.Equal(t, first[len(first)-4:], second[len(second)-4:])
		for i := 1; i < len(first); i++ {
			require.Equal(t, time.Second, first[i].Sub(first[i-1]))
		}
	})
}

func TestUntilNextIsNeverShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			wait := UntilNext(time.Second)
			require.GreaterOrEqual(t, wait, 250*time.Millisecond)
			require.Less(t, wait, 1250*time.Millisecond)
			<-time.After(37 * time.Millisecond)
		}
	})
}
