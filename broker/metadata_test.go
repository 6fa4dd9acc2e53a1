package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

func mustOpenMetadata(t testing.TB, fsys ioengine.FS, log *slog.Logger) *metadataFile {
	t.Helper()
	f, err := openMetadata(fsys, metadataDir, "topics.json", log)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// loadNumber reads {"n":...}.
func loadNumber(f *metadataFile, acceptEmpty bool) (n int, loaded bool, err error) {
	loaded, err = f.load(acceptEmpty, func(text []byte) error {
		var v struct{ N *int }
		if err := json.Unmarshal(text, &v); err != nil {
			return err
		}
		if v.N == nil {
			return errors.New("no n")
		}
		n = *v.N
		return nil
	})
	return n, loaded, err
}

func saveNumber(t testing.TB, f *metadataFile, n int) {
	t.Helper()
	if err := f.save(fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
		t.Fatal(err)
	}
}

func TestMetadataGenerations(t *testing.T) {
	name := filepath.Join(metadataDir, "topics.json")
	write := func(t *testing.T, fsys ioengine.FS, name, text string) {
		t.Helper()
		if err := ioengine.WriteFileAtomic(fsys, name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(t *testing.T, fsys *faultfs.FS, name string) {
		t.Helper()
		if err := fsys.Flip(name, 4, 0); err != nil {
			t.Fatal(err)
		}
	}
	cases := []struct {
		rule   string
		damage func(t *testing.T, fsys *faultfs.FS) // after 1 and then 2 were saved
		n      int
		refuse bool
		said   string
	}{
		{"undamaged: the latest", func(*testing.T, *faultfs.FS) {}, 2, false, ""},
		{"bit flip in the latest: the previous, said aloud", func(t *testing.T, f *faultfs.FS) { flip(t, f, name) }, 1, false, "previous generation"},
		{"empty latest: the previous", func(t *testing.T, f *faultfs.FS) { write(t, f, name, "") }, 1, false, "empty file"},
		{"zeroes: the previous", func(t *testing.T, f *faultfs.FS) { write(t, f, name, "\x00\x00\x00\x00") }, 1, false, "previous generation"},
		{"cut latest: the previous", func(t *testing.T, f *faultfs.FS) { write(t, f, name, `{"n":2,"ringmqCrc32c":"0`) }, 1, false, "previous generation"},
		{"latest gone: the previous", func(t *testing.T, f *faultfs.FS) { _ = f.Remove(name) }, 1, false, "previous generation"},
		{"Java's file without a checksum counts", func(t *testing.T, f *faultfs.FS) { write(t, f, name, "{\n\t\"n\":7\n}") }, 7, false, ""},
		{"Java's file cut off: the previous", func(t *testing.T, f *faultfs.FS) { write(t, f, name, "{\n\t\"n\":7\n") }, 1, false, "previous generation"},
		{"changed by hand: the previous, and what to do", func(t *testing.T, f *faultfs.FS) {
			write(t, f, name, strings.Replace(string(appendCheckSum([]byte(`{"n":2}`))), "2", "3", 1))
		}, 1, false, "taking out the member ringmqCrc32c"},
		{"both damaged: no start", func(t *testing.T, f *faultfs.FS) { flip(t, f, name); flip(t, f, name+".bak") }, 0, true, ""},
		{"latest damaged, no previous: no start", func(t *testing.T, f *faultfs.FS) { flip(t, f, name); _ = f.Remove(name + ".bak") }, 0, true, ""},
		{"latest gone, previous damaged: no start", func(t *testing.T, f *faultfs.FS) { _ = f.Remove(name); flip(t, f, name+".bak") }, 0, true, ""},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			fsys := faultfs.New()
			f := mustOpenMetadata(t, fsys, quiet())
			saveNumber(t, f, 1)
			saveNumber(t, f, 2)
			c.damage(t, fsys)
			var said bytes.Buffer
			f = mustOpenMetadata(t, fsys, slog.New(slog.NewTextHandler(&said, nil)))
			n, loaded, err := loadNumber(f, false)
			if c.refuse {
				if !errors.Is(err, errMetadataDamaged) || !strings.Contains(err.Error(), "acceptEmptyMetadata=true") {
					t.Fatalf("error %v", err)
				}
				if _, loaded, err := loadNumber(f, true); loaded || err != nil {
					t.Fatalf("acceptEmptyMetadata: loaded %t, error %v", loaded, err)
				}
				return
			}
			if err != nil || !loaded || n != c.n {
				t.Fatalf("n %d, loaded %t, error %v", n, loaded, err)
			}
			if c.said == "" && said.Len() > 0 || !strings.Contains(said.String(), c.said) {
				t.Fatalf("said %q", said.String())
			}
		})
	}
}

func TestMetadataFresh(t *testing.T) {
	f := mustOpenMetadata(t, faultfs.New(), quiet())
	if _, loaded, err := loadNumber(f, false); loaded || err != nil {
		t.Fatalf("loaded %t, error %v", loaded, err)
	}
}

// A damaged latest generation must not push the good one out of .bak.
func TestMetadataSaveKeepsGoodGeneration(t *testing.T) {
	fsys := faultfs.New()
	f := mustOpenMetadata(t, fsys, quiet())
	saveNumber(t, f, 1)
	saveNumber(t, f, 2)
	if err := fsys.Flip(f.name, 4, 0); err != nil {
		t.Fatal(err)
	}
	f = mustOpenMetadata(t, fsys, quiet())
	if n, _, err := loadNumber(f, false); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	saveNumber(t, f, 3)
	if _, err := fsys.Stat(f.name + ".damaged"); err != nil {
		t.Fatal("the damaged generation was not kept:", err)
	}
	if err := fsys.Flip(f.name, 4, 0); err != nil {
		t.Fatal(err)
	}
	if n, _, err := loadNumber(mustOpenMetadata(t, fsys, quiet()), false); n != 1 || err != nil {
		t.Fatalf("n %d, error %v: generation 1 is lost", n, err)
	}
}

// Power is lost at every step of a save, with every choice of what survives: the old content or the new one is there; the new one when the
// save had answered.
func TestMetadataCrash(t *testing.T) {
	for step := int64(1); ; step++ {
		done := false
		for seed := int64(0); seed < 8; seed++ {
			for _, mode := range []faultfs.CrashMode{faultfs.LoseAll, faultfs.Random, faultfs.Torn, faultfs.KeepAll} {
				fsys := faultfs.New()
				f := mustOpenMetadata(t, fsys, quiet())
				saveNumber(t, f, 1)
				saveNumber(t, f, 2)
				fsys.FailAt(fsys.Count()+step, errors.New("power"))
				err := f.save([]byte(`{"n":3}`))
				done = err == nil
				n, loaded, loadErr := loadNumber(mustOpenMetadata(t, fsys.Crash(seed, mode), quiet()), false)
				if loadErr != nil || !loaded || n != 3 && (err == nil || n != 2) {
					t.Fatalf("step %d, seed %d, %s: save %v, then n %d, loaded %t, error %v", step, seed, mode, err, n, loaded, loadErr)
				}
			}
		}
		if done {
			if step < 5 {
				t.Fatalf("only %d steps were tried", step)
			}
			return
		}
	}
}

func TestChecksumForm(t *testing.T) {
	for _, object := range []string{`{}`, `{"a":1}`, "{\"a\":1}\n"} {
		text := appendCheckSum([]byte(object))
		if !json.Valid(text) || !bytes.HasSuffix(text, []byte(`"}`)) {
			t.Errorf("%s became %s", object, text)
		}
		if err := checkSum(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for i := range bytes.Index(text, []byte("ringmq")) - 1 {
			bad := bytes.Clone(text)
			bad[i] ^= 1
			if checkSum(bad) == nil {
				t.Errorf("%q is accepted", bad)
			}
		}
	}
}

func TestSaverTakesChangesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		f := mustOpenMetadata(t, fsys, quiet())
		var n, saves atomic.Int64
		s := newSaver(f, 5*time.Second, func() []byte { saves.Add(1); return fmt.Appendf(nil, `{"n":%d}`, n.Load()) })
		go s.run()
		var last uint64
		for range 1000 {
			n.Add(1)
			last = s.markDirty()
		}
		if err := s.waitSaved(last, time.Second); !errors.Is(err, errNotSaved) {
			t.Fatalf("saved after a second, error %v", err)
		}
		if err := s.waitSaved(last, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if saves.Load() != 1 {
			t.Fatalf("%d saves", saves.Load())
		}
		n.Add(1)
		s.markDirty()
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		if got, _, err := loadNumber(mustOpenMetadata(t, fsys, quiet()), false); got != 1001 || err != nil {
			t.Fatalf("n %d, error %v", got, err)
		}
		if saves.Load() != 2 {
			t.Fatalf("%d saves", saves.Load())
		}
	})
}

func TestSaverTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New()
		var said bytes.Buffer
		f := mustOpenMetadata(t, fsys, slog.New(slog.NewTextHandler(&said, nil)))
		s := newSaver(f, 0, func() []byte { return []byte(`{"n":1}`) })
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
	s := newSaver(mustOpenMetadata(t, faultfs.New(), quiet()), 0, func() []byte { return nil })
	if n := testing.AllocsPerRun(100, func() { s.markDirty() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
