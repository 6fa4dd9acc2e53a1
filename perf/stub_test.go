package perf

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// The short way says what the long way says.
func TestPlainSendAnswersAsTheCodecDoes(t *testing.T) {
	newStub := func() *Stub { return &Stub{topics: map[string]*stubTopic{"T": {next: []int64{0, 0, 0, 7}}}} }
	plain, whole := newStub(), newStub()
	tpl := testTemplate(t, Config{Size: 64, Tag: "A"})
	o := outgoing{opaque: firstOpaque + 5, born: new([13]byte), lane: &lane{}}
	copy(o.born[:], "1700000000123")
	frame := tpl.append(nil, &o)[4:]
	var short, long stubConn
	require.True(t, plain.plainSend(&short, frame))
	require.NoError(t, long.command.Decode(frame))
	whole.request(&long)
	require.Equal(t, string(long.out), string(short.out))
	require.Equal(t, whole.topics["T"].next, plain.topics["T"].next)
	require.Equal(t, int64(8), plain.topics["T"].next[3])

	require.Zero(t, testing.AllocsPerRun(100, func() {
		short.out = short.out[:0]
		plain.plainSend(&short, frame)
	}))
	for name, other := range map[string][]byte{
		"binary header": testTemplate(t, Config{Size: 64, Serialize: remoting.SerializeRocketMQ}).append(nil, &o)[4:],
		"batch":         testTemplate(t, Config{Size: 64, Batch: 2}).append(nil, &o)[4:],
		"cut":           frame[:60], "nothing": nil,
	} {
		require.False(t, plain.plainSend(&short, other), name)
	}
	delete(plain.topics, "T")
	require.False(t, plain.plainSend(&stubConn{}, frame), "an unknown topic is answered by the codec")
}

func TestFilledStubGivesOutEveryRecord(t *testing.T) {
	fill := StubFill{File: filepath.Join(t.TempDir(), "records"), Topic: "full", Queues: 3, Count: 100, Size: 100}
	s, err := NewFilledStub("127.0.0.1:0", &fill)
	require.NoError(t, err)
	defer s.Close()
	c := Config{Brokers: []string{s.Addr()}, Topic: "full", Queues: 3, PullBatch: 7, Passes: 3, PullConns: 2, Windows: true}
	report, err := Drain(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
	require.Equal(t, int64(900), report.Verified.Received)
	require.Equal(t, int64(3*3*15), report.Latency("pull").Count)
	c.Topic = "empty"
	report, err = Drain(t.Context(), c)
	require.NoError(t, err)
	require.Zero(t, report.Verified.Received)
	fill.Size = 1
	_, err = NewFilledStub("127.0.0.1:0", &fill)
	require.ErrorContains(t, err, "1 bytes")
}

func TestAckTimes(t *testing.T) {
	a := new(ackTimes)
	require.Equal(t, int64(50), a.get(3, 50), "not acknowledged yet: seen no later")
	a.set(3, 40)
	require.Equal(t, int64(40), a.get(3, 50))
	require.Equal(t, int64(39), a.get(3, 39), "never after now")
	require.Equal(t, int64(50), a.get(3+ackSlots, 50), "the slot is another message's")
	a.set(3+ackSlots, 45)
	require.Equal(t, int64(50), a.get(3, 50), "overwritten")
	require.Equal(t, int64(45), a.get(3+ackSlots, 50))
}

func TestEndToEndCountsFromTheAck(t *testing.T) {
	b := newFakeBroker(t)
	b.delay = func(int) time.Duration { return 30 * time.Millisecond } // stored at once, acknowledged late
	c := b.config(40)
	c.Rate = 1000
	report, err := EndToEnd(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
	l := report.Latency("after the ack")
	require.Equal(t, int64(40), l.Count)
	require.Less(t, l.Percentiles["p50"], int64(time.Millisecond), "all were there before their acknowledgement")
	require.GreaterOrEqual(t, report.Latency("ack").Min, int64(29*time.Millisecond))
}

func TestWindows(t *testing.T) {
	s, err := NewStub("127.0.0.1:0")
	require.NoError(t, err)
	defer s.Close()
	report, err := Produce(t.Context(), Config{Brokers: []string{s.Addr()}, Rate: 2000, Duration: 2200 * time.Millisecond, Windows: true})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(report.Windows), 2)
	var total int64
	for i, w := range report.Windows {
		require.Equal(t, "ack", w.Kind)
		require.Greater(t, w.To, w.From)
		require.LessOrEqual(t, w.P50, w.P996)
		require.LessOrEqual(t, w.P996, w.Max)
		if i > 0 {
			require.Equal(t, report.Windows[i-1].To, w.From)
		}
		total += w.Count
	}
	require.Equal(t, report.Latency("ack").Count, total)
}
