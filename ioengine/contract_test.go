package ioengine_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// eachFS runs a test on every implementation, with an empty folder.
func eachFS(t *testing.T, test func(t *testing.T, fsys ioengine.FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, ioengine.OS(), t.TempDir()) })
	t.Run("portable", func(t *testing.T) { test(t, ioengine.Portable(), t.TempDir()) })
	t.Run("faultfs", func(t *testing.T) {
		fsys := faultfs.New()
		must(t, fsys.MkdirAll("/data", 0o755))
		test(t, fsys, "/data")
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr also wants operation and file to be named.
func wantErr(t *testing.T, err, target error, name string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
	if !strings.Contains(err.Error(), name) {
		t.Fatalf("error %q does not name %s", err, name)
	}
}

func open(t testing.TB, fsys ioengine.FS, name string, flag int) ioengine.File {
	t.Helper()
	f, err := fsys.Open(name, flag, 0o644)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func segment(t testing.TB, fsys ioengine.FS, name string, size int64, create bool) ioengine.Segment {
	t.Helper()
	s, err := fsys.OpenSegment(name, size, create)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*31 ^ byte(i>>8) ^ seed
	}
	return b
}

func TestFileReadsWhatWasWritten(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "f")
		_, err := fsys.Open(name, os.O_RDWR, 0)
		wantErr(t, err, fs.ErrNotExist, name)
		f := open(t, fsys, name, os.O_RDWR|os.O_CREATE)
		data := pattern(10_000, 1)
		if n, err := f.WriteAt(data, 5000); n != len(data) || err != nil {
			t.Fatal(n, err)
		}
		must(t, f.Sync())
		if size, err := f.Size(); size != 15_000 || err != nil {
			t.Fatal(size, err)
		}
		got := make([]byte, 20_000)
		if n, err := f.ReadAt(got, 0); n != 15_000 || err != io.EOF {
			t.Fatal(n, err)
		}
		if !bytes.Equal(got[5000:15_000], data) || !bytes.Equal(got[:5000], make([]byte, 5000)) {
			t.Fatal("other bytes than written")
		}
		if f.Name() != name {
			t.Fatal(f.Name())
		}
		all, err := fsys.ReadFile(name)
		if err != nil || !bytes.Equal(all, got[:15_000]) {
			t.Fatal(len(all), err)
		}
		must(t, f.Truncate(7000))
		if info, err := fsys.Stat(name); err != nil || info.Size() != 7000 || info.IsDir() || info.Name() != "f" {
			t.Fatal(info, err)
		}
		must(t, f.Close())
		_, err = f.ReadAt(got, 0)
		wantErr(t, err, os.ErrClosed, name)
		wantErr(t, f.Sync(), os.ErrClosed, name)
	})
}

func TestOpenFlags(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "f")
		f := open(t, fsys, name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		_, err := f.WriteAt([]byte("hello"), 0)
		must(t, err)
		_, err = fsys.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		wantErr(t, err, fs.ErrExist, name)
		if _, err := open(t, fsys, name, os.O_RDONLY).WriteAt([]byte("x"), 0); err == nil {
			t.Fatal("a read-only file was written")
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); err == nil {
			t.Fatal("a write-only file was read")
		}
		if size, _ := open(t, fsys, name, os.O_RDWR|os.O_TRUNC).Size(); size != 0 {
			t.Fatal("not truncated:", size)
		}
	})
}

func TestAllocateGrowsAndKeepsBytes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
		_, err := f.WriteAt([]byte("hello"), 3000)
		must(t, err)
		must(t, f.Allocate(0, 3_000_000))
		if size, _ := f.Size(); size != 3_000_000 {
			t.Fatal(size)
		}
		must(t, f.Allocate(0, 10)) // never shrinks
		got := make([]byte, 3_000_000)
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if string(got[3000:3005]) != "hello" || bytes.Count(got, []byte{0}) != len(got)-5 {
			t.Fatal("bytes changed")
		}
		if f.Allocate(0, 0) == nil || f.Allocate(-1, 5) == nil || f.Allocate(1<<62, 1<<62) == nil {
			t.Fatal("a senseless range was accepted")
		}
	})
}

func TestFolders(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		deep := filepath.Join(dir, "a", "b", "c")
		must(t, fsys.MkdirAll(deep, 0o755))
		must(t, fsys.MkdirAll(deep, 0o755))
		for _, n := range []string{"2", "10", "1"} {
			must(t, open(t, fsys, filepath.Join(deep, n), os.O_RDWR|os.O_CREATE).Close())
		}
		must(t, fsys.SyncDir(deep))
		if got := names(t, fsys, deep); got != "1 10 2" {
			t.Fatal(got)
		}
		if err := fsys.MkdirAll(filepath.Join(deep, "1", "x"), 0o755); err == nil {
			t.Fatal("a folder inside of a file")
		}
		if fsys.Remove(deep) == nil {
			t.Fatal("removed a folder that has files")
		}
		must(t, fsys.Rename(filepath.Join(deep, "10"), filepath.Join(deep, "1")))
		must(t, fsys.Remove(filepath.Join(deep, "2")))
		if got := names(t, fsys, deep); got != "1" {
			t.Fatal(got)
		}
		missing := filepath.Join(deep, "2")
		wantErr(t, fsys.Remove(missing), fs.ErrNotExist, missing)
		wantErr(t, fsys.Rename(missing, deep+"x"), fs.ErrNotExist, missing)
		wantErr(t, fsys.SyncDir(missing), fs.ErrNotExist, missing)
		_, err := fsys.ReadFile(missing)
		wantErr(t, err, fs.ErrNotExist, missing)
		_, err = fsys.ReadDir(missing)
		wantErr(t, err, fs.ErrNotExist, missing)
		must(t, fsys.RemoveAll(filepath.Join(dir, "a")))
		must(t, fsys.RemoveAll(filepath.Join(dir, "a")))
		if got := names(t, fsys, dir); got != "" {
			t.Fatal(got)
		}
	})
}

func names(t *testing.T, fsys ioengine.FS, dir string) string {
	t.Helper()
	list, err := fsys.ReadDir(dir)
	must(t, err)
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestUsage(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		free, total, err := fsys.Usage(dir)
		if err != nil || free <= 0 || total < free {
			t.Fatal(free, total, err)
		}
		_, _, err = fsys.Usage(filepath.Join(dir, "missing"))
		wantErr(t, err, fs.ErrNotExist, "missing")
	})
}

func TestLockHasOneHolder(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "lock")
		first, err := fsys.Lock(name)
		must(t, err)
		_, err = fsys.Lock(name)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "another process") {
			t.Fatal(err)
		}
		must(t, first.Close())
		again, err := fsys.Lock(name)
		must(t, err)
		must(t, again.Close())
	})
}

const segmentSize = 3<<20 + 512 // not a whole number of pages, on purpose

func TestSegmentWindowViewAndFileAreOne(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "00000000000000000000")
		s := segment(t, fsys, name, segmentSize, true)
		if size, err := s.Size(); size != segmentSize || err != nil {
			t.Fatal(size, err)
		}
		data := pattern(9000, 2)
		copy(s.Window(4000, 9000), data)
		if !bytes.Equal(s.View(4000, 9000), data) {
			t.Fatal("the view shows other bytes than the window")
		}
		got := make([]byte, 9000)
		if _, err := s.ReadAt(got, 4000); err != nil || !bytes.Equal(got, data) {
			t.Fatal("the file shows other bytes than the window", err)
		}
		if _, err := s.WriteAt([]byte("tail"), segmentSize-4); err != nil {
			t.Fatal(err)
		}
		if string(s.View(segmentSize-4, 4)) != "tail" {
			t.Fatal("the view does not show what was written")
		}
		must(t, s.SyncRange(4000, 13_000))
		must(t, s.Sync())
		must(t, s.Unmap())
		must(t, s.Unmap())
		if _, err := s.ReadAt(got, 4000); err != nil || !bytes.Equal(got, data) {
			t.Fatal("unmapped, the file shows other bytes", err)
		}
		must(t, s.Close())

		s = segment(t, fsys, name, segmentSize, false)
		if !bytes.Equal(s.View(4000, 9000), data) || string(s.Window(segmentSize-4, 4)) != "tail" {
			t.Fatal("opened again, the bytes are others")
		}
	})
}

func TestOpenSegmentChecksTheFile(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		name := filepath.Join(dir, "s")
		_, err := fsys.OpenSegment(name, 8192, false)
		wantErr(t, err, fs.ErrNotExist, name)
		must(t, segment(t, fsys, name, 8192, true).Close())
		_, err = fsys.OpenSegment(name, 8192, true)
		wantErr(t, err, fs.ErrExist, name)
		for _, size := range []int64{4096, 16384, 0, -1} {
			if _, err := fsys.OpenSegment(name, size, false); err == nil || !strings.Contains(err.Error(), name) {
				t.Fatalf("size %d: %v", size, err)
			}
		}
		if _, err := fsys.OpenSegment(filepath.Join(dir, "x"), 0, true); err == nil {
			t.Fatal("a segment of no bytes")
		}
		if got := names(t, fsys, dir); got != "s" {
			t.Fatal("left behind:", got)
		}
	})
}

func TestSegmentRefusesWhatWouldChangeItsSize(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		s := segment(t, fsys, filepath.Join(dir, "s"), 8192, true)
		if s.Truncate(4096) == nil || s.Allocate(4096, 8192) == nil {
			t.Fatal("the size of a mapped segment was changed")
		}
		must(t, s.Allocate(0, 8192))
		if _, err := s.WriteAt(make([]byte, 10), 8190); err == nil {
			t.Fatal("wrote past the end of a mapped segment")
		}
		for _, r := range [][2]int64{{-1, 5}, {5, 4}, {0, 8193}} {
			for what, err := range map[string]error{
				"zero": s.Zero(r[0], r[1]), "warm": s.Warm(r[0], r[1]), "cool": s.Cool(r[0], r[1]),
				"write back": s.WriteBack(r[0], r[1]), "wait": s.WaitWriteBack(r[0], r[1]), "sync": s.SyncRange(r[0], r[1]),
			} {
				if err == nil {
					t.Errorf("%s accepts %v", what, r)
				}
			}
		}
		must(t, s.Unmap())
		if s.Warm(0, 10) == nil || s.Cool(0, 10) == nil {
			t.Fatal("pages of an unmapped segment")
		}
		must(t, s.Truncate(4096))
	})
}

func TestWindowOutsideOfTheSegmentPanics(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		s := segment(t, fsys, filepath.Join(dir, "s"), 8192, true)
		if len(s.Window(8192, 0)) != 0 || cap(s.Window(100, 50)) != 50 {
			t.Fatal("a window reaches further than asked")
		}
		for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 8193}, {8193, 0}, {8000, 1 << 62}} {
			if !panics(func() { s.Window(r[0], r[1]) }) || !panics(func() { s.View(r[0], r[1]) }) {
				t.Errorf("range %v was given", r)
			}
		}
		must(t, s.Unmap())
		if !panics(func() { s.Window(0, 1) }) || !panics(func() { s.View(0, 1) }) {
			t.Error("a range of an unmapped segment was given")
		}
	})
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestSegmentKeepsItsBytesThroughWarmCoolAndWriteBack(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		const size = 40<<20 + 100
		s := segment(t, fsys, filepath.Join(dir, "s"), size, true)
		copy(s.Window(0, size), bytes.Repeat([]byte{7}, size))
		must(t, s.Zero(1000, size-1000))
		w := s.Window(0, size)
		if w[999] != 7 || w[size-1000] != 7 || bytes.Count(w, []byte{0}) != size-2000 {
			t.Fatal("zeroed other bytes than asked")
		}
		data := pattern(100_000, 3)
		copy(s.Window(5_000_001, 100_000), data)
		must(t, s.Warm(0, size))
		if s.WarmKind() == ioengine.WarmNone {
			t.Fatal("nothing is warm")
		}
		must(t, s.Warm(3, 3))
		must(t, s.WriteBack(0, size))
		must(t, s.WaitWriteBack(0, size))
		must(t, s.WriteBack(10, 10))
		must(t, s.Cool(0, size))
		must(t, s.Cool(1, 2))
		if !bytes.Equal(s.View(5_000_001, 100_000), data) || !bytes.Equal(s.Window(5_000_001, 100_000), data) {
			t.Fatal("cooling lost bytes")
		}
		copy(s.Window(5_000_001, 4), "cold")
		must(t, s.SyncRange(0, size))
		got := make([]byte, 4)
		if _, err := s.ReadAt(got, 5_000_001); err != nil || string(got) != "cold" {
			t.Fatal(string(got), err)
		}
	})
}

func TestReadAtNoWaitGivesWarmBytes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys ioengine.FS, dir string) {
		f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
		data := pattern(20_000, 4)
		_, err := f.WriteAt(data, 0)
		must(t, err)
		got := make([]byte, 5000)
		n, err := f.ReadAtNoWait(got, 10_000)
		if err == ioengine.ErrNoWaitUnsupported {
			t.Skip("not supported here, and said so")
		}
		if n != 5000 || err != nil || !bytes.Equal(got, data[10_000:15_000]) {
			t.Fatal(n, err)
		}
		if n, err := f.ReadAtNoWait(got, 19_000); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := f.ReadAtNoWait(got, 20_000); n != 0 || err != io.EOF {
			t.Fatal(n, err)
		}
		if n, err := f.ReadAtNoWait(nil, 0); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := f.ReadAtNoWait(got, -1); err == nil {
			t.Fatal("read before the start")
		}
		if !f.Resident(0, 20_000) || f.Resident(0, 100_000) || f.Resident(-5, 10) {
			t.Fatal("residence is wrong")
		}
	})
}
