package broker

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The compact windows of queues tell what the windows of other counters tell.
func TestQueueWindowsTellTheSame(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	s := newTestStats(1)
	topic := &Topic{Name: "T"}
	var plain [20]statsItem
	now := time.Duration(0)
	for range 20_000 {
		now += time.Duration(dice.Int64N(int64(4 * time.Second)))
		if dice.IntN(500) == 0 {
			now += time.Duration(dice.Int64N(int64(2 * time.Hour)))
		}
		s.stored(topic, 1, 1) // a topic without sends is dropped
		quiet := now%(3*time.Hour) > time.Hour
		for id := range plain {
			if quiet || dice.IntN(id+1) > 0 {
				continue
			}
			sends, millis := dice.Int64N(5)+1, dice.Int64N(3)
			s.lane(0).putsTook(topic, int32(id), sends, millis)
			plain[id].addSum(sends*millis, sends)
		}
		clock := s.clock
		s.tick(now, time.Time{})
		due := clock.due(now)
		for id := range plain {
			if plain[id].times.Load() == 0 {
				continue
			}
			plain[id].sample(now, due)
			got, ok := s.view(statTopicPutLatency, fmt.Sprintf("%d@T", id))
			require.True(t, ok)
			want := plain[id].data()
			require.Equal(t, want.StatsMinute.Sum, got.StatsMinute.Sum)
			require.Equal(t, want.StatsHour.Sum, got.StatsHour.Sum)
			require.Equal(t, want.StatsDay.Sum, got.StatsDay.Sum)
			require.InDelta(t, want.StatsHour.Avgpt, got.StatsHour.Avgpt, 1e-9)
			require.InDelta(t, want.StatsDay.Avgpt, got.StatsDay.Avgpt, 1e-9)
		}
	}
}

func TestQueueWindowsPerSecond(t *testing.T) {
	s := newTestStats(1)
	topic := &Topic{Name: "T"}
	for n := range 10 {
		s.lane(0).putsTook(topic, 9, 10, 2)
		s.tick(time.Duration(n)*minuteWindow.period, time.Time{})
	}
	data, ok := s.view(statTopicPutLatency, "9@T")
	require.True(t, ok)
	require.EqualValues(t, 6*20, data.StatsMinute.Sum)
	require.InDelta(t, 2, data.StatsMinute.Tps, 1e-9)
	require.InDelta(t, 2, data.StatsMinute.Avgpt, 1e-9)
	for _, key := range []string{"8@T", "09@T", "+9@T", "9@U", "9", "@T", "70000@T", "-1@T", "99999999999@T", ""} {
		_, ok := s.view(statTopicPutLatency, key)
		require.False(t, ok, key)
	}
}

// Who still holds the counters of a topic that was dropped adds in vain and takes no room.
func TestDroppedQueueCountersTakeNoRoom(t *testing.T) {
	s := newTestStats(1)
	ts := s.ofTopic(&Topic{Name: "T"})
	s.queueItem(&ts.latency, 1000).add(1, 1)
	s.queueItem(&ts.latency, 3).add(1, 1)
	require.EqualValues(t, 2, s.queueBlocks.Load())
	s.topicDeleted("T")
	require.Zero(t, s.queueBlocks.Load())
	s.queueItem(&ts.latency, 3).add(1, 1)
	require.Zero(t, s.queueBlocks.Load())
}
