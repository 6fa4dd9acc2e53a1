package commitlog

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
)

// readCounter counts the bytes that are read from segments.
type readCounter struct {
	ioengine.FS
	read atomic.Int64
}

type countedSegment struct {
	ioengine.Segment
	dataFinder
	fs *readCounter
}

func (f *readCounter) OpenSegment(name string, size int64, create bool) (ioengine.Segment, error) {
	s, err := f.FS.OpenSegment(name, size, create)
	if err != nil {
		return nil, err
	}
	return &countedSegment{s, s.(dataFinder), f}, nil
}

func (s *countedSegment) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Segment.ReadAt(p, off)
	s.fs.read.Add(int64(n))
	return n, err
}

// What a segment has only allocated is not read when the end of the log is looked for; a record behind it is found all the same, wherever
// in a block it begins.
func TestRecoveryPassesOverWhatWasNeverWritten(t *testing.T) {
	const segment, end = 32 << 20, 20 << 20
	for _, at := range []int64{0, end, end + 100, end - 1, end - 2, end - 4, end - 7, end + 4090} {
		dir := t.TempDir()
		fsys := &readCounter{FS: ioengine.OS()}
		o := quiet(fsys, filepath.Join(dir, "log"), segment)
		// As a kill leaves it: written to, the next part zeroed, the rest allocated.
		s, err := fsys.OpenSegment(mustMake(t, segmentName(o.Dir, 0)), segment, true)
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(nil)
		w.body(3000)
		record := make([]byte, w.draft.Size())
		w.EncodeAt(record, 0, 1000)
		first := bytes.Clone(record)
		if _, err := s.WriteAt(first, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Zero(8192, 1<<20); err != nil {
			t.Fatal(err)
		}
		w.body(3000)
		w.EncodeAt(record, at, 1000)
		if at > 0 {
			if _, err := s.WriteAt(record, at); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		fsys.read.Store(0)
		l := openLog(t, o, 0, false)
		if at == 0 {
			if len(l.records) != 1 || l.Published() != int64(len(first)) || len(l.rep.Quarantined) > 0 || l.rep.TornBytes > 0 {
				t.Errorf("%+v", l.rep)
			}
		} else if len(l.records) != 2 || !bytes.Equal(l.records[1].raw, record) || len(l.rep.Quarantined) != 1 {
			t.Errorf("a record at %d behind what was never written: %d are found, %+v", at, len(l.records), l.rep)
		}
		if n := fsys.read.Load(); at == 0 && n > 6<<20 {
			t.Errorf("%d bytes were read of one with 1 MiB in use", n)
		}
		closeLog(t, l.Log)
	}
}

func mustMake(t *testing.T, name string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}
