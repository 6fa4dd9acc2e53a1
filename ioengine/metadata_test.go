package ioengine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

func TestWriteFileAtomicReplaces(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "topics.json")
		for _, text := range []string{"a first generation that is long", "second", ""} {
			must(t, ioengine.WriteFileAtomic(fsys, name, []byte(text)))
			if got, err := fsys.ReadFile(name); err != nil || string(got) != text {
				t.Fatalf("%q %v", got, err)
			}
		}
		if got := names(t, fsys, dir); got != "topics.json" {
			t.Fatal(got)
		}
	})
}

// A power loss before each single operation, in several ways: the old content or
// the new one is there, whole; and the new one once the call has answered.
func TestWriteFileAtomicSurvivesEveryCrash(t *testing.T) {
	old, young := bytes.Repeat([]byte("old "), 5000), bytes.Repeat([]byte("new "), 7000)
	fsys := faultfs.New()
	must(t, fsys.MkdirAll("/data", 0o755))
	must(t, ioengine.WriteFileAtomic(fsys, "/data/f", old))
	check := func(when string, after *faultfs.FS, done bool) {
		t.Helper()
		got, err := after.ReadFile("/data/f")
		if err != nil || !bytes.Equal(got, young) && (done || !bytes.Equal(got, old)) {
			t.Errorf("%s: %d bytes, %v", when, len(got), err)
		}
	}
	states := 0
	everyCrash := func(when string, done bool) {
		for _, mode := range []faultfs.CrashMode{faultfs.KeepAll, faultfs.LoseAll, faultfs.Random, faultfs.Torn} {
			for seed := range int64(20) {
				states++
				check(fmt.Sprintf("%s, %v, seed %d", when, mode, seed), fsys.Crash(seed, mode), done)
			}
		}
	}
	fsys.SetFault(func(op faultfs.Op) error {
		everyCrash("before "+op.String(), false)
		return nil
	})
	must(t, ioengine.WriteFileAtomic(fsys, "/data/f", young))
	fsys.SetFault(nil)
	everyCrash("after", true)
	if states < 6*80 {
		t.Fatal("crashed only", states, "times")
	}
}

// Whichever operation fails, the caller is told and the old content stays.
func TestWriteFileAtomicReportsEveryFault(t *testing.T) {
	for _, kind := range []faultfs.Kind{faultfs.OpCreate, faultfs.OpWrite, faultfs.OpSync, faultfs.OpClose, faultfs.OpRename, faultfs.OpSyncDir} {
		fsys := faultfs.New()
		must(t, ioengine.WriteFileAtomic(fsys, "f", []byte("old")))
		fsys.SetFault(func(op faultfs.Op) error {
			if op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		if err := ioengine.WriteFileAtomic(fsys, "f", []byte("new")); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", kind, err)
		}
		want := "old"
		if kind == faultfs.OpSyncDir {
			want = "new"
		}
		if got, err := fsys.Kill().ReadFile("f"); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", kind, got, err)
		}
		if _, err := fsys.Kill().Stat("f.tmp"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: tmp is left: %v", kind, err)
		}
	}
}

func TestRemoveInSteps(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "s")
		must(t, segment(t, fsys, name, 10_000, true).Close())
		var sizes []int64
		must(t, ioengine.RemoveInSteps(fsys, name, 3000, func() {
			info, err := fsys.Stat(name + ioengine.RemovingSuffix)
			must(t, err)
			sizes = append(sizes, info.Size())
		}))
		if fmt.Sprint(sizes) != "[7000 4000 1000]" || names(t, fsys, dir) != "" {
			t.Fatal(sizes, names(t, fsys, dir))
		}
		missing := filepath.Join(dir, "missing")
		wantErr(t, ioengine.RemoveInSteps(fsys, missing, 0, nil), fs.ErrNotExist, missing)
		must(t, segment(t, fsys, name, 10_000, true).Close())
		must(t, ioengine.RemoveInSteps(fsys, name, 0, nil))
	})
}

// After a power loss at any moment the name has the whole file or is gone.
func TestRemoveInStepsNeverLeavesAPartUnderTheName(t *testing.T) {
	fsys := faultfs.New()
	s := segment(t, fsys, "s", 50_000, true)
	must(t, s.Sync())
	must(t, s.Close())
	must(t, fsys.SyncDir("."))
	whole, gone := 0, 0
	fsys.SetFault(func(op faultfs.Op) error {
		for seed := range int64(40) {
			switch info, err := fsys.Crash(seed, faultfs.Torn).Stat("s"); {
			case errors.Is(err, fs.ErrNotExist):
				gone++
			case err == nil && info.Size() == 50_000:
				whole++
			default:
				t.Errorf("before %v, seed %d: %v %v", op, seed, info, err)
			}
		}
		return nil
	})
	must(t, ioengine.RemoveInSteps(fsys, "s", 8192, nil))
	if whole == 0 || gone == 0 {
		t.Fatal("never both:", whole, gone)
	}
}
