package ioengine_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
)

// sink keeps results alive so that the compiler measures what it was told to.
var sink []byte

func TestHotCallsDoNotAllocate(t *testing.T) {
	for name, fsys := range map[string]ioengine.FS{"os": ioengine.OS(), "portable": ioengine.Portable()} {
		dir := t.TempDir()
		s := segment(t, fsys, filepath.Join(dir, "s"), 1<<20, true)
		f := open(t, fsys, filepath.Join(dir, "f"), os.O_RDWR|os.O_CREATE)
		buf := make([]byte, 1024)
		for what, call := range map[string]func(){
			"Window":               func() { sink = s.Window(4096, 1024) },
			"View":                 func() { sink = s.View(4096, 1024) },
			"WriteAt":              func() { f.WriteAt(buf, 0) },
			"ReadAt":               func() { f.ReadAt(buf, 0) },
			"ReadAtNoWait":         func() { f.ReadAtNoWait(buf, 0) },
			"segment WriteAt":      func() { s.WriteAt(buf, 0) },
			"segment ReadAtNoWait": func() { s.ReadAtNoWait(buf, 0) },
			"segment Resident":     func() { s.Resident(0, 64<<10) },
			"WriteBack":            func() { s.WriteBack(0, 4096) },
		} {
			if n := testing.AllocsPerRun(100, call); n != 0 {
				t.Errorf("%s: %s allocates %v times", name, what, n)
			}
		}
	}
}

func BenchmarkAppendToWarmWindow1KiB(b *testing.B) {
	const size = 64 << 20
	s := segment(b, ioengine.OS(), filepath.Join(b.TempDir(), "s"), size, true)
	must(b, s.Zero(0, size))
	must(b, s.Warm(0, size))
	record := pattern(1024, 1)
	b.SetBytes(1024)
	at := int64(0)
	for b.Loop() {
		copy(s.Window(at, 1024), record)
		if at += 1024; at == size {
			at = 0
		}
	}
	b.ReportMetric(float64(s.WarmKind()), "warmkind")
}

// BenchmarkFirstStore is the price of the first store to a page, by how it was
// prepared. Each page is stored to once.
func BenchmarkFirstStore(b *testing.B) {
	const size = 256 << 20
	for _, way := range []string{"zeroed", "zeroed,warm", "cold"} {
		b.Run(way, func(b *testing.B) {
			s := segment(b, ioengine.OS(), filepath.Join(b.TempDir(), "s"), size, true)
			prepare := func() {
				if way == "cold" {
					return
				}
				must(b, s.Zero(0, size))
				must(b, s.Sync())
				if way == "zeroed,warm" {
					must(b, s.Warm(0, size))
				}
			}
			prepare()
			w := s.Window(0, size)
			at := 0
			for b.Loop() {
				w[at] = 1
				if at += 4096; at == size {
					b.StopTimer()
					at = 0
					must(b, s.Cool(0, size))
					prepare()
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkWriteAt1KiB(b *testing.B) {
	f := open(b, ioengine.OS(), filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	record := pattern(1024, 1)
	b.SetBytes(1024)
	at := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(record, at); err != nil {
			b.Fatal(err)
		}
		at = (at + 1024) % (64 << 20)
	}
}

func BenchmarkReadAtNoWait(b *testing.B) {
	f := open(b, ioengine.OS(), filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt(pattern(16<<20, 1), 0)
	must(b, err)
	for name, n := range map[string]int{"640B": 640, "16KiB": 16 << 10} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			at := int64(0)
			for b.Loop() {
				if got, err := f.ReadAtNoWait(buf, at); got != n || err != nil {
					b.Fatal(got, err)
				}
				at = (at + int64(n)) % (15 << 20)
			}
		})
	}
}

func BenchmarkResident64KiB(b *testing.B) {
	f := open(b, ioengine.OS(), filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt(pattern(16<<20, 1), 0)
	must(b, err)
	at := int64(0)
	for b.Loop() {
		if !f.Resident(at, 64<<10) {
			b.Fatal("not resident")
		}
		at = (at + 64<<10) % (15 << 20)
	}
}
