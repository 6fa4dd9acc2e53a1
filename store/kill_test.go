package store

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// A broker's process is killed at any moment, again and again: what it acknowledged is there, each queue in order, and the next start is
// quick. The process is this test, started once more; see TestHelperStore.

const (
	killRounds = 10
	killQueues = 5
	// mostStart is the promise of rule R6.
	mostStart = 2 * time.Second
)

func killOptions(root string) Options {
	return Options{FS: ioengine.OS(), Root: root, SegmentSize: 4 << 20, QueueFileUnits: 5000, HashSlots: 10_000, IndexEntries: 20_000, IndexEnable: true,
		AppendCRC: true, FlushEvery: 200 * time.Millisecond, CheckpointEvery: 300 * time.Millisecond}
}

func TestKillAsyncFlush(t *testing.T) { killLoop(t, "ASYNC_FLUSH") }
func TestKillSyncFlush(t *testing.T)  { killLoop(t, "SYNC_FLUSH") }

func killLoop(t *testing.T, mode string) {
	t.Parallel()
	root := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 9))
	// acked is the end of each queue as acknowledged: its messages come in order.
	var acked [killQueues]int64
	var slowest time.Duration
	for round := range killRounds {
		n := runAndKill(t, root, mode, dice, &acked)
		began := time.Now()
		s, err := Open(killOptions(root))
		took := time.Since(began)
		require.NoError(t, err)
		slowest = max(slowest, took)
		rep := s.Recovery()
		t.Logf("round %d: %d acknowledged, then killed; the next start took %v and read %d records; cut off: %d bytes",
			round, n, took.Round(100*time.Microsecond), rep.Records, rep.TornBytes)
		require.Less(t, took, mostStart)
		require.Empty(t, rep.Quarantined)
		checkKilled(t, s, &acked)
		require.NoError(t, s.Close())
		// The other test's child has the lock, too, from its fork to its exec.
		syscall.ForkLock.RLock()
		//lint:ignore SA2001 waiting for the fork is all
		syscall.ForkLock.RUnlock()
	}
	total := int64(0)
	for _, n := range acked {
		total += n
	}
	t.Logf("%s: %d rounds, %d messages acknowledged, 0 lost, slowest start %v", mode, killRounds, total, slowest)
}

// runAndKill starts a store in a process of its own and kills it after some of its acknowledgements.
func runAndKill(t *testing.T, root, mode string, dice *rand.Rand, acked *[killQueues]int64) (n int) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestHelperStore$", "-test.count=1")
	child.Env = append(os.Environ(), "STORE_TEST_ROOT="+root, "STORE_TEST_FLUSH="+mode)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	most := 1 + dice.IntN(4000)
	if mode == "SYNC_FLUSH" {
		most = 1 + dice.IntN(600)
	}
	time.AfterFunc(time.Duration(dice.IntN(500))*time.Millisecond+200*time.Millisecond, func() { _ = child.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var queue, offset int64
		if _, err := fmt.Sscanf(lines.Text(), "ack %d %d.", &queue, &offset); err != nil || !strings.HasSuffix(lines.Text(), ".") {
			continue // the last line may be cut
		}
		require.Equal(t, acked[queue], offset, "queue %d goes on elsewhere", queue)
		acked[queue] = offset + 1
		if n++; n == most {
			_ = child.Process.Kill() // what stands in the pipe by now was acknowledged, too
		}
	}
	return n
}

// checkKilled reads all queues: nothing acknowledged is missing, nothing is there twice. What was stored and not acknowledged may stay.
func checkKilled(t *testing.T, s *Store, acked *[killQueues]int64) {
	t.Helper()
	for id := range acked {
		q := s.Queue([]byte("T"), int32(id))
		if q == nil {
			require.Zero(t, acked[id])
			continue
		}
		require.GreaterOrEqual(t, q.Max(), acked[id], "queue %d", id)
		require.Zero(t, q.Min())
		var entries [64]Entry
		before := int64(-1)
		for at := int64(0); at < q.Max(); {
			n, err := q.ReadWait(at, entries[:])
			require.NoError(t, err)
			for _, e := range entries[:n] {
				require.Greater(t, e.PhysicalOffset, before, "queue %d at %d", id, at)
				before = e.PhysicalOffset
				var r message.Record
				_, err := s.ReadMessage(e.PhysicalOffset, &r)
				require.NoError(t, err, "queue %d at %d", id, at)
				require.Equal(t, at, r.QueueOffset)
				require.Equal(t, fmt.Sprintf("%d %d", id, at), string(r.Body[:strings.IndexByte(string(r.Body), '.')]))
				at++
			}
		}
		acked[id] = q.Max()
	}
}

// TestHelperStore is the process to be killed.
func TestHelperStore(t *testing.T) {
	root := os.Getenv("STORE_TEST_ROOT")
	if root == "" {
		t.Skip("it is a part of the kill tests")
	}
	s, err := Open(killOptions(root))
	if err != nil {
		t.Fatal(err)
	}
	syncFlush := os.Getenv("STORE_TEST_FLUSH") == "SYNC_FLUSH"
	dice := rand.New(rand.NewPCG(uint64(os.Getpid()), 2))
	// Checkpoints all the time: a kill meets one on its way now and then.
	go beat.Every(t.Context(), 20*time.Millisecond, func() {
		if err := s.Checkpoint(); err != nil {
			t.Error(err)
		}
	})
	var p Put
	pad := strings.Repeat("x", 3000)
	for {
		id := int32(dice.IntN(killQueues))
		q, err := s.EnsureQueue("T", id)
		if err != nil {
			t.Fatal(err)
		}
		p.Draft = message.Draft{Topic: []byte("T"), Body: fmt.Appendf(nil, "%d %d.%s", id, q.Next, pad[:dice.IntN(len(pad))]),
			Properties: message.AppendProperty(nil, message.PropertyKeys, fmt.Appendf(nil, "%d-%d", id, q.Next))}
		for err = s.Append(&p, q, time.Now().UnixMilli()); errors.Is(err, commitlog.ErrNotReady); err = s.Append(&p, q, time.Now().UnixMilli()) {
			if err := s.Log().WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Dispatch()
		if syncFlush {
			if err := s.Log().WaitFlushed(t.Context(), p.End); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := fmt.Printf("ack %d %d.\n", id, p.QueueOffset); err != nil {
			return // the parent is gone
		}
	}
}
