package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

const metadataDir = "/data/config"

// goldenConfig has the files that a Java 5.5.0 broker wrote.
const goldenConfig = "../e2e/golden/store-clean/config"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func tableConfig() *config.Broker {
	cfg := config.DefaultBroker()
	cfg.BrokerClusterName, cfg.BrokerName = "TestCluster", "broker-a"
	return cfg
}

// tableClock is a wall clock that moves when told.
type tableClock struct{ millis atomic.Int64 }

func newTableClock() *tableClock {
	c := &tableClock{}
	c.millis.Store(1_700_000_000_000)
	return c
}

func (c *tableClock) now() int64 { return c.millis.Add(1) }

func mustOpenMetadata(t testing.TB, fsys ioengine.FS) *ioengine.MetadataFile {
	t.Helper()
	f, err := ioengine.OpenMetadata(fsys, metadataDir, "topics.json", quiet())
	require.NoError(t, err)
	return f
}

func TestSaverTakesChangesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		f := mustOpenMetadata(t, fsys)
		var n, saves atomic.Int64
		s := newSaver(f, quiet(), 5*time.Second, func() []byte { saves.Add(1); return fmt.Appendf(nil, `{"n":%d}`, n.Load()) })
		go s.run()
		var last uint64
		for range 1000 {
			n.Add(1)
			last = s.markDirty()
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if saves.Load() != 0 {
			t.Fatal("saved before the interval was over, and nobody waits")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if saves.Load() != 1 {
			t.Fatalf("%d saves", saves.Load())
		}
		if err := s.waitSaved(last, time.Second); err != nil {
			t.Fatal(err)
		}
		n.Add(1)
		s.markDirty()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		loaded, err := mustOpenMetadata(t, fsys).Load(false, func(text []byte) error {
			require.Contains(t, string(text), `"n":1001,`)
			return nil
		})
		require.NoError(t, err)
		require.True(t, loaded)
		if saves.Load() != 2 {
			t.Fatalf("%d saves", saves.Load())
		}
	})
}

func TestSaverHurriesForWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSaver(mustOpenMetadata(t, faultfs.New()), quiet(), time.Hour, func() []byte { return []byte(`{"n":1}`) })
		go s.run()
		for range 3 {
			if err := s.waitSaved(s.markDirty(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSaverTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		var said bytes.Buffer
		log := slog.New(slog.NewTextHandler(&said, nil))
		f := mustOpenMetadata(t, fsys)
		s := newSaver(f, log, 0, func() []byte { return []byte(`{"n":1}`) })
		go s.run()
		var full atomic.Bool
		full.Store(true)
		fsys.SetFault(func(op faultfs.Op) error {
			if full.Load() && op.Kind == faultfs.OpWrite {
				return ioengine.ErrDiskFull
			}
			return nil
		})
		generation := s.markDirty()
		if err := s.waitSaved(generation, time.Second/2); !errors.Is(err, ioengine.ErrDiskFull) {
			t.Fatalf("error %v", err)
		}
		<-time.After(10 * saveRetry) // several attempts, all in vain
		full.Store(false)
		<-time.After(2 * saveRetry)
		synctest.Wait()
		if err := s.waitSaved(generation, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(said.String(), "trying again"); n != 1 {
			t.Errorf("the failure was said %d times", n)
		}
	})
}

func TestMarkDirtyAllocatesNothing(t *testing.T) {
	s := newSaver(mustOpenMetadata(t, faultfs.New()), quiet(), 0, func() []byte { return nil })
	if n := testing.AllocsPerRun(100, func() { s.markDirty() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
