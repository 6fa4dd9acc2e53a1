package perf

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

func TestEndToEndVerifies(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"closed loop": func(c *Config) { c.Depth, c.Conns = 8, 3 },
		"open loop":   func(c *Config) { c.Rate, c.Conns, c.Workers = 5000, 4, 2 },
		"binary":      func(c *Config) { c.Serialize = remoting.SerializeRocketMQ },
		"topics":      func(c *Config) { c.Topics, c.Readers, c.PullConns, c.Keys = 3, 2, 3, "unique" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newFakeBroker(t)
			c := b.config(500)
			change(&c)
			report, err := EndToEnd(t.Context(), c)
			require.NoError(t, err)
			v := report.Verified
			require.True(t, v.OK, v.Problems)
			require.Equal(t, int64(500), v.Sent)
			require.Equal(t, int64(500), v.Acknowledged)
			require.Equal(t, int64(500), v.Received)
			require.NoError(t, report.Err())
			require.Equal(t, int64(500), report.Latency("end to end").Count)
			require.Equal(t, int64(500), report.Latency("ack").Count)
		})
	}
}

func TestRefusedSendsAreFailuresNotLosses(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n%10 == 3 {
			return refused
		}
		return stored
	}
	report, err := EndToEnd(t.Context(), b.config(50))
	require.NoError(t, err)
	require.True(t, report.Verified.OK, report.Verified.Problems)
	require.Equal(t, map[string]int64{"2": 5}, report.Errors)
	require.Equal(t, int64(45), report.Verified.Acknowledged)
	require.Equal(t, int64(5), report.Latency("ack").Failed)
	require.LessOrEqual(t, report.Latency("ack").Under10ms, 0.9, "what was refused was not in time")
	require.Equal(t, ExitFailed, ExitCode(report.Err()))
}

func TestAnswerThatNeverComes(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n == 5 {
			return unanswered
		}
		return stored
	}
	c := b.config(20)
	c.Timeout = 100 * time.Millisecond
	report, err := EndToEnd(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"no answer in time": 1}, report.Errors)
	require.Equal(t, int64(1), report.Verified.Unknown)
	require.Equal(t, int64(20), report.Verified.Received, "it was stored all the same")
	require.True(t, report.Verified.OK, report.Verified.Problems)
}

func TestGoesOnAfterALostConnection(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n == 7 {
			return hungUp
		}
		return stored
	}
	report, err := Produce(t.Context(), b.config(40))
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"connection lost": 1}, report.Errors)
	require.Equal(t, int64(39), report.Verified.Acknowledged)
	require.True(t, report.Verified.OK, report.Verified.Problems)
}

func TestHistogramShowsAPlantedDelay(t *testing.T) {
	b := newFakeBroker(t)
	b.delay = func(n int) time.Duration {
		if n%10 == 0 {
			return 80 * time.Millisecond
		}
		return 0
	}
	c := b.config(100)
	c.Rate, c.Conns = 1000, 2
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	l := report.Latency("ack")
	require.Equal(t, int64(100), l.Count)
	require.GreaterOrEqual(t, l.Percentiles["p99"], int64(79*time.Millisecond))
	slow := int64(0)
	for _, bar := range l.Histogram.Distribution() {
		if bar.From >= int64(79*time.Millisecond) {
			slow += bar.Count
		}
	}
	require.GreaterOrEqual(t, slow, int64(10))
}

// A server that stalls for 200 ms at 1000 messages/s delays 200 of them, not the one that it had in hand: what counts is when they
// were to be sent.
func TestStallIsChargedToEveryMessageThatWaited(t *testing.T) {
	b := newFakeBroker(t)
	b.delay = func(n int) time.Duration {
		if n == 100 {
			<-time.After(200 * time.Millisecond) // the connection reads nothing, and neither does the lock let others in
		}
		return 0
	}
	c := b.config(600)
	c.Rate = 1000
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	l := report.Latency("ack")
	late := int64(0)
	for _, bar := range l.Histogram.Distribution() {
		if bar.From >= int64(50*time.Millisecond) {
			late += bar.Count
		}
	}
	require.GreaterOrEqual(t, late, int64(140), "150 were due in the first 150 ms of the stall")
	require.GreaterOrEqual(t, l.Max, int64(195*time.Millisecond))
}

// What was due before the end of an open loop is sent and measured, even where the server has let it in only after the end.
func TestOpenLoopOwesWhatWasHeldUpAtTheEnd(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n == 150 {
			return hungUp
		}
		return stored
	}
	c := b.config(0)
	c.Rate, c.Duration = 1000, 200*time.Millisecond // the next connection is made 100 ms later
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	lost := report.Errors["connection lost"]
	require.Equal(t, map[string]int64{"connection lost": lost}, report.Errors)
	l := report.Latency("ack")
	require.Equal(t, 200-lost, l.Count)
	require.GreaterOrEqual(t, l.Max, int64(redialAfter))
}

func TestOpenLoopCountsWhatItCouldNotSend(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n < 50 {
			return stored
		}
		_ = b.listener.Close()
		return hungUp
	}
	c := b.config(0)
	c.Rate, c.Duration, c.Timeout = 1000, 200*time.Millisecond, 200*time.Millisecond
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	unsent := report.Errors["not sent in time"]
	require.Positive(t, unsent)
	require.Equal(t, int64(150), unsent+report.Errors["connection lost"])
	require.Equal(t, int64(150), report.Latency("ack").Failed)
	require.Equal(t, ExitFailed, ExitCode(report.Err()))
}

func TestInterruptedRunIsVerifiedAndTimed(t *testing.T) {
	b := newFakeBroker(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.store = func(n int) fakeFate {
		if n == 200 {
			cancel()
		}
		return stored
	}
	c := b.config(0)
	c.Rate, c.Duration = 1000, time.Hour
	report, err := EndToEnd(ctx, c)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
	require.GreaterOrEqual(t, report.Verified.Received, int64(200))
	require.Less(t, report.Seconds, 60.0)
	require.Greater(t, report.MessagesPerSecond, 100.0)
}

func TestDrainAgainstTheLedger(t *testing.T) {
	b := newFakeBroker(t)
	c := b.config(200)
	c.Ledger = filepath.Join(t.TempDir(), "ledger")
	c.Depth = 4
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, report.Err())

	c.Count = 0
	report, err = Drain(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
	require.Equal(t, int64(200), report.Verified.Received)

	// The broker forgets the last three messages of a queue, as after a crash: only the ledger can tell.
	b.mu.Lock()
	q := b.queue("perf", 1)
	q.records = q.records[:len(q.records)-3]
	b.mu.Unlock()
	report, err = Drain(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, int64(3), report.Verified.Lost)
	require.Equal(t, ExitUnverified, ExitCode(report.Err()))
	c.Ledger = ""
	report, err = Drain(t.Context(), c)
	require.NoError(t, err)
	require.True(t, report.Verified.OK)
}

func TestDrainFindsAHoleWithoutALedger(t *testing.T) {
	b := newFakeBroker(t)
	b.store = func(n int) fakeFate {
		if n == 20 {
			return swallowed
		}
		return stored
	}
	c := b.config(60)
	_, err := Produce(t.Context(), c)
	require.NoError(t, err)
	c.Count = 0
	report, err := Drain(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, int64(1), report.Verified.Lost)
	c.From = "15" // both queues have 30; the hole of message 20 is at sequence 10 of its lane
	report, err = Drain(t.Context(), c)
	require.NoError(t, err)
	require.True(t, report.Verified.OK, report.Verified.Problems)
}

func TestConsumeReadsWhatComes(t *testing.T) {
	b := newFakeBroker(t)
	c := b.config(50)
	_, err := Produce(t.Context(), c)
	require.NoError(t, err)
	c.From = "min"
	report, err := Consume(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
	require.Equal(t, int64(50), report.Verified.Received)
	require.Zero(t, report.Latency("end to end").Count, "what was sent before the run began says nothing about latency")
}

func TestStubProduce(t *testing.T) {
	s, err := NewStub("127.0.0.1:0")
	require.NoError(t, err)
	defer s.Close()
	for name, c := range map[string]Config{
		"closed": {Brokers: []string{s.Addr()}, Depth: 16, Conns: 2, Count: 3000},
		"open":   {NameServers: []string{s.Addr()}, Rate: 20000, Conns: 2, Count: 2000},
		"batch":  {NameServers: []string{s.Addr()}, Batch: 8, Depth: 4, Count: 4000, Serialize: remoting.SerializeRocketMQ, Tag: "a", Keys: "k"},
	} {
		t.Run(name, func(t *testing.T) {
			c.Topic = "stub-" + name
			report, err := Produce(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, c.Count, report.Verified.Acknowledged)
		})
	}
	existing := Config{NameServers: []string{s.Addr()}, Topic: "stub-open", UseExisting: true, Count: 100}
	report, err := Produce(t.Context(), existing)
	require.NoError(t, err)
	require.NoError(t, report.Err(), report.Verified.Problems)
}

func TestNoSuchBroker(t *testing.T) {
	s, err := NewStub("127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = Produce(t.Context(), Config{Brokers: []string{s.Addr()}})
	require.ErrorContains(t, err, s.Addr())
	require.Equal(t, ExitUsage, ExitCode(err))
}
