package commitlog

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/ringmq/ringmq/ioengine/faultfs"
)

// fuzzSegment is the segment size of FuzzRecover: small, so that a few records cross segments.
const fuzzSegment = 8 << 10

// bytesAsLog makes a log of arbitrary bytes: segments of fuzzSegment, the last one filled up with zeroes.
func bytesAsLog(t testing.TB, data []byte) *faultfs.FS {
	t.Helper()
	fsys := faultfs.New()
	if err := fsys.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for base := int64(0); base == 0 || len(data) > 0; base += fuzzSegment {
		f, err := fsys.OpenSegment(segmentName("log", base), fuzzSegment, true)
		if err != nil {
			t.Fatal(err)
		}
		n := min(len(data), fuzzSegment)
		if _, err := f.WriteAt(data[:n], 0); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return fsys
}

// FuzzRecover recovers a log of arbitrary bytes: no panic, no memory by what a length claims; whatever is served can be read, decoded and
// is found by the next start again, which has nothing left to mend; and appends go on.
func FuzzRecover(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, from uint16, clean bool) {
		if len(data) > 8*fuzzSegment {
			return
		}
		fsys := bytesAsLog(t, data)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, err := tryOpen(quiet(fsys, "log", fuzzSegment), int64(from), clean)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("recovery of %d bytes took %d bytes of memory", len(data), grown)
		}
		if err != nil {
			// The one refusal there is: it would have to remove messages.
			if !strings.Contains(err.Error(), "restore what is between") {
				t.Fatal(err)
			}
			return
		}
		if l.Published() < l.MinOffset() || l.Published() > (int64(len(data))/fuzzSegment+1)*fuzzSegment {
			t.Errorf("the log ends at %d of %d bytes", l.Published(), len(data))
		}
		w := newWriter(l.Log)
		w.append(t, 100)
		last := stored{l.Published() - int64(len(w.raw)), bytes.Clone(w.raw)}
		closeLog(t, l.Log)
		again := openLog(t, quiet(fsys.Crash(0, faultfs.LoseAll), "log", fuzzSegment), l.rep.From, false)
		if len(again.rep.Quarantined) > 0 || again.rep.TornBytes > 0 {
			t.Errorf("a second start finds %+v, the first one %+v", again.rep, l.rep)
		}
		sameRecords(t, again.records, append(l.records, last))
		walk(t, again.Log)
		closeLog(t, again.Log)
	})
}
