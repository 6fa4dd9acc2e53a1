package broker

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

// logText is what a broker logs, readable while it runs.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// autoBroker starts a broker with ioEngine=auto; the caller ends it.
func autoBroker(t *testing.T, o brokerOptions, flush string) (*testBroker, *logText) {
	t.Helper()
	said := new(logText)
	o.Logger = slog.New(slog.NewTextHandler(said, nil))
	o.Change = func(c *config.Broker) {
		c.IoEngine, c.FlushDiskType, c.LogTailBytes = "auto", flush, 32<<20
	}
	return openTestBroker(t, o), said
}

// runtimeEngine is what mqadmin brokerStatus shows.
func (b *testBroker) runtimeEngine() string {
	return decoded[remoting.KVTable](b.t, b.client().ask(remoting.ReqGetBrokerRuntimeInfo, nil, nil)).Table["ioEngine"]
}

func TestAutoTakesWhatWasMeasured(t *testing.T) {
	for kind := ioengine.EngineMmap; kind <= ioengine.EngineUring; kind++ {
		for _, flush := range []string{config.AsyncFlush, config.SyncFlush} {
			t.Run(kind.String()+"/"+flush, func(t *testing.T) {
				dir := t.TempDir()
				if err := ioengine.EngineWorks(kind, dir, 1<<20); err != nil {
					t.Skip(err)
				}
				other := &ioengine.Chosen{Name: "mmap"}
				if kind == ioengine.EngineMmap {
					other.Name = "pwrite"
				}
				tuned := &ioengine.Tuned{Source: ioengine.FromTune, MeasuredAt: time.Unix(1_800_000_000, 0), Place: ioengine.PlaceOf(dir), AsyncEngine: other, SyncEngine: other}
				chosen := &ioengine.Chosen{Name: kind.String(), Why: "the fastest by far"}
				if flush == config.SyncFlush {
					tuned.SyncEngine = chosen
				} else {
					tuned.AsyncEngine = chosen
				}
				require.NoError(t, tuned.Save(ioengine.OS(), dir))
				b, said := autoBroker(t, brokerOptions{Dir: dir}, flush)
				defer b.shutdown()
				require.Equal(t, kind, b.store.Log().Engine())
				require.Equal(t, 1, strings.Count(said.String(), "took a log engine"), said)
				require.Contains(t, said.String(), "the fastest by far")
				require.NotContains(t, said.String(), "measured elsewhere")
				require.Equal(t, kind.String(), b.runtimeEngine())
				require.Equal(t, 1.0, scrape(t, b.Collector())["ringmq_io_engine_info engine="+kind.String()+" reactor="+b.reactorName()])
				c := b.client()
				c.createTopic("T")
				c.send("T", 0, "hello")
				_, got := c.pull("g", "T", 0, 0)
				require.Len(t, got, 1)
				require.Equal(t, "hello", string(got[0].Body))
			})
		}
	}
}

func TestAutoWithoutMeasurements(t *testing.T) {
	for _, flush := range []string{config.AsyncFlush, config.SyncFlush} {
		t.Run(flush, func(t *testing.T) {
			b, said := autoBroker(t, brokerOptions{}, flush)
			defer b.shutdown()
			require.Contains(t, said.String(), "the usual choice")
			if ioengine.EngineWorks(ioengine.EngineUring, b.dir, 1<<20) == nil {
				require.Equal(t, ioengine.EngineUring, b.store.Log().Engine())
			}
			require.NoFileExists(t, filepath.Join(b.dir, ioengine.TunedName))
		})
	}
	t.Run("files that are not the machine's", func(t *testing.T) {
		b, _ := autoBroker(t, brokerOptions{FS: faultfs.New(), Dir: "/store"}, config.SyncFlush)
		defer b.shutdown()
		require.Equal(t, ioengine.EnginePwrite, b.store.Log().Engine(), "the others open files themselves")
	})
}

// A file that cannot be read, or is of another machine, is told of and stops nothing.
func TestAutoWithAFileThatIsNoGood(t *testing.T) {
	for name, text := range map[string]string{
		"damaged": `{"version":1,`, "newer": `{"version":2,"source":"tune"}`, "unknown engine": `{"version":1,"source":"tune","asyncEngine":{"name":"magic"},"syncEngine":{"name":"magic"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, ioengine.TunedName)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			b, said := autoBroker(t, brokerOptions{Dir: dir}, config.AsyncFlush)
			require.Contains(t, said.String(), "the usual choice")
			require.Contains(t, said.String(), "is not used")
			b.shutdown()
			kept, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, text, string(kept), "nobody writes over what may be somebody's")
		})
	}
	t.Run("of another machine", func(t *testing.T) {
		dir := t.TempDir()
		tuned := &ioengine.Tuned{Source: ioengine.FromTune, Place: ioengine.Place{Kernel: "linux 3.0", Device: "/dev/old"}, AsyncEngine: &ioengine.Chosen{Name: "mmap"}}
		require.NoError(t, tuned.Save(ioengine.OS(), dir))
		b, said := autoBroker(t, brokerOptions{Dir: dir}, config.AsyncFlush)
		defer b.shutdown()
		require.Contains(t, said.String(), "measured elsewhere")
		require.Contains(t, said.String(), "/dev/old")
	})
}

func TestNamesOfPortableMeans(t *testing.T) {
	b := metricsBroker(t)
	require.Equal(t, 1.0, scrape(t, b.Collector())["ringmq_io_engine_info engine=portable reactor=portable"])
}
