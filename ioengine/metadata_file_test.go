package ioengine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

const metadataDir = "/data/config"

func mustOpenMetadata(t testing.TB, fsys ioengine.FS, log *slog.Logger) *ioengine.MetadataFile {
	t.Helper()
	f, err := ioengine.OpenMetadata(fsys, metadataDir, "topics.json", log)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// loadNumber reads {"n":...}.
func loadNumber(f *ioengine.MetadataFile, acceptEmpty bool) (n int, loaded bool, err error) {
	loaded, err = f.Load(acceptEmpty, func(text []byte) error {
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

func saveNumber(t testing.TB, f *ioengine.MetadataFile, n int) {
	t.Helper()
	if err := f.Save(fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
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
			write(t, f, name, changed(t, f, name))
		}, 1, false, "taking out the member ringmqCrc32c"},
		{"both damaged: no start", func(t *testing.T, f *faultfs.FS) { flip(t, f, name); flip(t, f, name+".bak") }, 0, true, ""},
		{"latest damaged, no previous: no start", func(t *testing.T, f *faultfs.FS) { flip(t, f, name); _ = f.Remove(name + ".bak") }, 0, true, ""},
		{"latest gone, previous damaged: no start", func(t *testing.T, f *faultfs.FS) { _ = f.Remove(name); flip(t, f, name+".bak") }, 0, true, ""},
	}
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			fsys := faultfs.New()
			f := mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler))
			saveNumber(t, f, 1)
			saveNumber(t, f, 2)
			c.damage(t, fsys)
			var said bytes.Buffer
			f = mustOpenMetadata(t, fsys, slog.New(slog.NewTextHandler(&said, nil)))
			n, loaded, err := loadNumber(f, false)
			if c.refuse {
				if !errors.Is(err, ioengine.ErrMetadataDamaged) || !strings.Contains(err.Error(), "acceptEmptyMetadata=true") {
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
	f := mustOpenMetadata(t, faultfs.New(), slog.New(slog.DiscardHandler))
	if _, loaded, err := loadNumber(f, false); loaded || err != nil {
		t.Fatalf("loaded %t, error %v", loaded, err)
	}
}

// A damaged latest generation must not push the good one out of .bak.
func TestMetadataSaveKeepsGoodGeneration(t *testing.T) {
	fsys := faultfs.New()
	f := mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler))
	saveNumber(t, f, 1)
	saveNumber(t, f, 2)
	if err := fsys.Flip(f.Name(), 4, 0); err != nil {
		t.Fatal(err)
	}
	f = mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler))
	if n, _, err := loadNumber(f, false); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	saveNumber(t, f, 3)
	if _, err := fsys.Stat(f.Name() + ".damaged"); err != nil {
		t.Fatal("the damaged generation was not kept:", err)
	}
	if err := fsys.Flip(f.Name(), 4, 0); err != nil {
		t.Fatal(err)
	}
	if n, _, err := loadNumber(mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler)), false); n != 1 || err != nil {
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
				f := mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler))
				saveNumber(t, f, 1)
				saveNumber(t, f, 2)
				fsys.FailAt(fsys.Count()+step, errors.New("power"))
				err := f.Save([]byte(`{"n":3}`))
				done = err == nil
				n, loaded, loadErr := loadNumber(mustOpenMetadata(t, fsys.Crash(seed, mode), slog.New(slog.DiscardHandler)), false)
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

// changed is the latest generation with a digit changed by hand.
func changed(t *testing.T, fsys ioengine.FS, name string) string {
	t.Helper()
	text, err := fsys.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(text), "2", "3", 1)
}

// Every byte before the checksum counts, and the text stays plain JSON.
func TestMetadataChecksum(t *testing.T) {
	for _, object := range []string{`{}`, `{"a":1}`, "{\"a\":1}\n"} {
		fsys := faultfs.New()
		f := mustOpenMetadata(t, fsys, slog.New(slog.DiscardHandler))
		if err := f.Save([]byte(object)); err != nil {
			t.Fatal(err)
		}
		text, err := fsys.ReadFile(f.Name())
		if err != nil || !json.Valid(text) || !bytes.HasSuffix(text, []byte(`"}`)) {
			t.Fatalf("%s became %s, error %v", object, text, err)
		}
		accept := func([]byte) error { return nil }
		if loaded, err := f.Load(false, accept); !loaded || err != nil {
			t.Fatalf("%s: loaded %t, error %v", text, loaded, err)
		}
		for i := range bytes.Index(text, []byte("ringmq")) - 1 {
			bad := bytes.Clone(text)
			bad[i] ^= 1
			if err := ioengine.WriteFileAtomic(fsys, f.Name(), bad); err != nil {
				t.Fatal(err)
			}
			if loaded, err := f.Load(false, accept); loaded || err == nil {
				t.Errorf("%q is accepted", bad)
			}
		}
	}
}
