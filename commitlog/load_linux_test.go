package commitlog

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
)

// What was loaded is read without waiting, over the end of a segment, too; what is no part of the log is refused.
func TestLoad(t *testing.T) {
	const segment = 256 << 10
	dir := filepath.Join(t.TempDir(), "commitlog")
	o := quiet(ioengine.OS(), dir, segment)
	l := openLog(t, o, 0, true)
	w := newWriter(l.Log)
	for l.Published() < 3*segment {
		w.append(t, 1024)
	}
	end := l.Published()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, o, end, true)
	defer l.Close()
	evictSegments(t, l.Log)

	from, to := int64(segment-100<<10), int64(2*segment+100)
	var b [4096]byte
	if err := l.Load(from, to); err != nil {
		t.Fatal(err)
	}
	if !l.Resident(from, to) {
		t.Error("what was loaded is not there")
	}
	for at := from; at+int64(len(b)) <= 2*segment; at += int64(len(b)) {
		if at < segment && at+int64(len(b)) > segment {
			continue // a read lies in one segment
		}
		if err := l.ReadNoWait(b[:], at); err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	for _, r := range [][2]int64{{-1, 10}, {end - 10, end + 1}, {1 << 40, 1<<40 + 1}} {
		if err := l.Load(r[0], r[1]); !errors.Is(err, ErrGone) {
			t.Errorf("load %v: %v", r, err)
		}
		if l.Resident(r[0], r[1]) {
			t.Errorf("%v is there", r)
		}
	}
}

// evictSegments throws the segments before the tail out of memory, or skips where they stay whatever one says.
func evictSegments(t *testing.T, l *Log) {
	for range 100 {
		gone := true
		for _, s := range l.list()[:3] {
			s.unmap(l)
			if err := ioengine.Forget(s.file.Name()); err != nil {
				t.Fatal(err)
			}
			for at := int64(0); at < s.size; at += 4096 {
				gone = gone && !s.file.Resident(at, 1)
			}
		}
		if gone {
			return
		}
	}
	t.Skip("the segments stay in the page cache: a tmpfs?")
}
