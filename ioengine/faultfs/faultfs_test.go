package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/ioengine"
)

var allModes = []CrashMode{KeepAll, LoseAll, Random, Torn}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, f *FS, name string) ioengine.File {
	t.Helper()
	h, err := f.Open(name, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	return h
}

func write(t *testing.T, h ioengine.File, data []byte, off int64) {
	t.Helper()
	_, err := h.WriteAt(data, off)
	must(t, err)
}

func content(t *testing.T, f *FS, name string) []byte {
	t.Helper()
	b, err := f.ReadFile(name)
	must(t, err)
	return b
}

func exists(f *FS, name string) bool {
	_, err := f.Stat(name)
	return err == nil
}

// durable makes a file of n bytes with name and bytes on the device.
func durable(t *testing.T, f *FS, name string, data []byte) ioengine.File {
	t.Helper()
	h := create(t, f, name)
	write(t, h, data, 0)
	must(t, h.Sync())
	must(t, f.SyncDir("."))
	return h
}

func failOn(kind Kind, err error) func(Op) error {
	return func(op Op) error {
		if op.Kind == kind {
			return err
		}
		return nil
	}
}

func TestSyncedBytesSurviveEveryCrash(t *testing.T) {
	f := New()
	data := bytes.Repeat([]byte("x"), 10_000)
	durable(t, f, "f", data)
	for _, mode := range allModes {
		for seed := range int64(20) {
			if !bytes.Equal(content(t, f.Crash(seed, mode), "f"), data) {
				t.Fatal(mode, seed)
			}
		}
	}
}

func TestUnsyncedPages(t *testing.T) {
	const pages = 64
	f := New()
	h := durable(t, f, "f", bytes.Repeat([]byte("o"), pages*pageSize))
	write(t, h, bytes.Repeat([]byte("n"), pages*pageSize), 0)

	if got := content(t, f.Kill(), "f"); bytes.Count(got, []byte("n")) != len(got) {
		t.Fatal("the end of the process lost bytes")
	}
	if got := content(t, f.Crash(1, LoseAll), "f"); bytes.Count(got, []byte("o")) != len(got) {
		t.Fatal("LoseAll kept bytes")
	}
	for _, mode := range []CrashMode{Random, Torn} {
		got := content(t, f.Crash(1, mode), "f")
		var kept, lost, torn int
		for p := 0; p < len(got); p += pageSize {
			switch bytes.Count(got[p:p+pageSize], []byte("n")) {
			case 0:
				lost++
			case pageSize:
				kept++
			default:
				torn++
				for s := p; s < p+pageSize; s += sectorSize {
					if n := bytes.Count(got[s:s+sectorSize], []byte("n")); n != 0 && n != sectorSize {
						t.Fatal("a sector is torn")
					}
				}
			}
		}
		if kept == 0 || lost == 0 || (torn > 0) != (mode == Torn) {
			t.Fatalf("%v: kept %d, lost %d, torn %d", mode, kept, lost, torn)
		}
		if !bytes.Equal(got, content(t, f.Crash(1, mode), "f")) {
			t.Fatal("the same seed gave another outcome")
		}
		if bytes.Equal(got, content(t, f.Crash(2, mode), "f")) {
			t.Fatal("another seed gave the same outcome")
		}
	}
}

func TestSizeIsOldOrNewOrBetween(t *testing.T) {
	f := New()
	h := durable(t, f, "f", make([]byte, 100))
	write(t, h, bytes.Repeat([]byte("n"), 10*pageSize), 0)
	sizes := map[int]bool{}
	for seed := range int64(100) {
		sizes[len(content(t, f.Crash(seed, Random), "f"))] = true
	}
	if !sizes[100] || !sizes[10*pageSize] || len(sizes) < 4 {
		t.Fatal(sizes)
	}
	for size := range sizes {
		if size < 100 || size > 10*pageSize {
			t.Fatal(size)
		}
	}
}

func TestNamesNeedSyncDir(t *testing.T) {
	f := New()
	must(t, f.MkdirAll("/d", 0o755))
	h := create(t, f, "/d/new")
	write(t, h, []byte("x"), 0)
	must(t, h.Sync())
	if after := f.Crash(0, LoseAll); exists(after, "/d/new") || !exists(after, "/d") {
		t.Fatal("a synced file is no synced name, a made folder is")
	}
	if !exists(f.Kill(), "/d/new") {
		t.Fatal("the end of the process lost a name")
	}
	if _, there := f.OnDevice("/d/new"); there {
		t.Fatal("on the device without SyncDir")
	}
	must(t, f.SyncDir("/d"))
	if b, there := f.OnDevice("/d/new"); !there || string(b) != "x" {
		t.Fatal("not on the device")
	}
	must(t, f.Rename("/d/new", "/d/newer"))
	if after := f.Crash(0, LoseAll); !exists(after, "/d/new") || exists(after, "/d/newer") {
		t.Fatal("an unsynced rename was done")
	}
	for seed := range int64(50) {
		if after := f.Crash(seed, Random); exists(after, "/d/new") == exists(after, "/d/newer") {
			t.Fatal("a rename was half done")
		}
	}
	must(t, f.SyncDir("/d"))
	must(t, f.Remove("/d/newer"))
	if !exists(f.Crash(0, LoseAll), "/d/newer") {
		t.Fatal("an unsynced removal was done")
	}
	must(t, f.SyncDir("/d"))
	for _, mode := range allModes {
		if exists(f.Crash(0, mode), "/d/newer") {
			t.Fatal("a synced removal came back")
		}
	}
}

func TestRenameToAnotherFolderIsDurableByEither(t *testing.T) {
	for _, synced := range []string{"/a", "/b"} {
		f := New()
		must(t, f.MkdirAll("/a", 0o755))
		must(t, f.MkdirAll("/b", 0o755))
		create(t, f, "/a/f")
		must(t, f.Rename("/a/f", "/b/f"))
		must(t, f.SyncDir(synced))
		for seed := range int64(20) {
			after := f.Crash(seed, Random)
			if exists(after, "/a/f") || !exists(after, "/b/f") {
				t.Fatal("synced", synced, "seed", seed)
			}
		}
	}
}

func TestFailedSyncLeavesBytesCleanButNotDurable(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("old old old"))
	write(t, h, []byte("new"), 0)
	f.SetFault(failOn(OpSync, syscall.EIO))
	if err := h.Sync(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "f") {
		t.Fatal(err)
	}
	f.SetFault(nil)
	must(t, h.Sync()) // the lie
	if got := content(t, f, "f"); string(got) != "new old old" {
		t.Fatalf("the cache shows %q", got)
	}
	for seed := range int64(20) {
		for _, mode := range []CrashMode{LoseAll, Random, Torn} {
			if got := content(t, f.Crash(seed, mode), "f"); string(got) != "old old old" {
				t.Fatalf("%v: the device has %q", mode, got)
			}
		}
	}
	after := f.Kill() // the page cache outlives the process, and so does the lie
	h2, err := after.Open("f", os.O_RDWR, 0)
	must(t, err)
	must(t, h2.Sync())
	if got := content(t, after.Crash(0, LoseAll), "f"); string(got) != "old old old" {
		t.Fatalf("after a restart the device has %q", got)
	}
	write(t, h, []byte("new"), 0) // the same bytes, but dirty again
	must(t, h.Sync())
	if got := content(t, f.Crash(0, LoseAll), "f"); string(got) != "new old old" {
		t.Fatalf("written again, the device has %q", got)
	}
}

func TestBytesAppendedAfterAFailedSyncAreWritten(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("old"))
	write(t, h, []byte("new"), 0)
	f.FailAt(f.Count()+1, syscall.EIO)
	if h.Sync() == nil {
		t.Fatal("no error")
	}
	write(t, h, bytes.Repeat([]byte("+"), 2*sectorSize), 3)
	must(t, h.Sync())
	if b, _ := f.OnDevice("f"); string(b) != "old"+strings.Repeat("+", 2*sectorSize) {
		t.Fatalf("the device has %q", b)
	}
}

func TestFailedSyncRangeAndWriteBackOfASegment(t *testing.T) {
	for _, kind := range []Kind{OpSyncRange, OpWriteBack, OpWaitWriteBack} {
		f := New()
		s, err := f.OpenSegment("s", 3*pageSize, true)
		must(t, err)
		must(t, f.SyncDir("."))
		must(t, s.Sync())
		copy(s.Window(100, 4), "lost")
		copy(s.Window(5000, 4), "kept")
		f.SetFault(failOn(kind, syscall.EIO))
		switch kind {
		case OpSyncRange:
			err = s.SyncRange(0, pageSize)
		case OpWriteBack:
			err = s.WriteBack(0, pageSize)
		case OpWaitWriteBack:
			err = s.WaitWriteBack(0, pageSize)
		}
		if !errors.Is(err, syscall.EIO) {
			t.Fatal(kind, err)
		}
		f.SetFault(nil)
		must(t, s.SyncRange(0, 3*pageSize))
		got, _ := f.OnDevice("s")
		if string(got[5000:5004]) != "kept" || string(got[100:104]) != "\x00\x00\x00\x00" {
			t.Fatalf("%s: %q %q", kind, got[5000:5004], got[100:104])
		}
		copy(s.Window(100, 4), "more")
		must(t, s.SyncRange(100, 104))
		if got, _ := f.OnDevice("s"); string(got[100:104]) != "more" {
			t.Fatalf("%s: stored again: %q", kind, got[100:104])
		}
	}
}

func TestSyncRangeCoversItsBytesOnly(t *testing.T) {
	f := New()
	s, err := f.OpenSegment("s", pageSize, true)
	must(t, err)
	must(t, f.SyncDir("."))
	copy(s.Window(0, 10), "0123456789")
	must(t, s.SyncRange(2, 5))
	if got, _ := f.OnDevice("s"); len(got) != pageSize || string(got[:6]) != "\x00\x00234\x00" {
		t.Fatalf("%q", got[:6])
	}
}

func TestFaultsReachEveryOperation(t *testing.T) {
	calls := map[Kind]func(f *FS, h ioengine.File, s ioengine.Segment) error{
		OpOpen: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := f.Open("f", os.O_RDWR, 0)
			return err
		},
		OpCreate: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := f.Open("n", os.O_CREATE, 0o644)
			return err
		},
		OpOpenSegment: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := f.OpenSegment("s", 8192, false)
			return err
		},
		OpCreateSegment: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := f.OpenSegment("n", 8192, true)
			return err
		},
		OpReadFile:  func(f *FS, h ioengine.File, s ioengine.Segment) error { _, err := f.ReadFile("f"); return err },
		OpReadDir:   func(f *FS, h ioengine.File, s ioengine.Segment) error { _, err := f.ReadDir("/"); return err },
		OpStat:      func(f *FS, h ioengine.File, s ioengine.Segment) error { _, err := f.Stat("f"); return err },
		OpMkdir:     func(f *FS, h ioengine.File, s ioengine.Segment) error { return f.MkdirAll("x/y", 0o755) },
		OpRename:    func(f *FS, h ioengine.File, s ioengine.Segment) error { return f.Rename("f", "n") },
		OpRemove:    func(f *FS, h ioengine.File, s ioengine.Segment) error { return f.Remove("f") },
		OpRemoveAll: func(f *FS, h ioengine.File, s ioengine.Segment) error { return f.RemoveAll("f") },
		OpSyncDir:   func(f *FS, h ioengine.File, s ioengine.Segment) error { return f.SyncDir("/") },
		OpUsage:     func(f *FS, h ioengine.File, s ioengine.Segment) error { _, _, err := f.Usage("/"); return err },
		OpLock:      func(f *FS, h ioengine.File, s ioengine.Segment) error { _, err := f.Lock("l"); return err },
		OpRead: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := h.ReadAt(make([]byte, 3), 0)
			return err
		},
		OpReadNoWait: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := h.ReadAtNoWait(make([]byte, 3), 0)
			return err
		},
		OpWrite: func(f *FS, h ioengine.File, s ioengine.Segment) error {
			_, err := h.WriteAt([]byte("abc"), 0)
			return err
		},
		OpTruncate:      func(f *FS, h ioengine.File, s ioengine.Segment) error { return h.Truncate(1) },
		OpAllocate:      func(f *FS, h ioengine.File, s ioengine.Segment) error { return h.Allocate(0, 100) },
		OpSync:          func(f *FS, h ioengine.File, s ioengine.Segment) error { return h.Sync() },
		OpSyncRange:     func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.SyncRange(0, 10) },
		OpZero:          func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.Zero(0, 10) },
		OpWarm:          func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.Warm(0, 10) },
		OpCool:          func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.Cool(0, 10) },
		OpWriteBack:     func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.WriteBack(0, 10) },
		OpWaitWriteBack: func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.WaitWriteBack(0, 10) },
		OpUnmap:         func(f *FS, h ioengine.File, s ioengine.Segment) error { return s.Unmap() },
		OpClose:         func(f *FS, h ioengine.File, s ioengine.Segment) error { return h.Close() },
	}
	for kind, call := range calls {
		f := New()
		h := durable(t, f, "f", []byte("data"))
		s, err := f.OpenSegment("s", 8192, true)
		must(t, err)
		f.ResetOps()
		before := f.Count()
		f.FailAt(before+1, syscall.EIO)
		if err := call(f, h, s); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: got %v", kind, err)
		}
		ops := f.Ops()
		if len(ops) == 0 || ops[0].Kind != kind || ops[0].N != before+1 || ops[0].Err == nil {
			t.Errorf("%s: log has %v", kind, ops)
		}
		if kind == OpUnmap || kind == OpClose {
			continue // these let go even when they fail
		}
		if err := call(f, h, s); err != nil {
			t.Errorf("%s: a second time: %v", kind, err)
		}
	}
}

func TestFailedWriteChangesNothingAndShortWriteAPart(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("--------"))
	f.FailAt(f.Count()+1, syscall.EIO)
	if n, err := h.WriteAt([]byte("abcd"), 0); n != 0 || !errors.Is(err, syscall.EIO) {
		t.Fatal(n, err)
	}
	f.FailAt(f.Count()+1, &ShortWrite{N: 2, Err: syscall.ENOSPC})
	if n, err := h.WriteAt([]byte("abcd"), 2); n != 2 || !errors.Is(err, ioengine.ErrDiskFull) {
		t.Fatal(n, err)
	}
	if got := content(t, f, "f"); string(got) != "--ab----" {
		t.Fatalf("%q", got)
	}
}

func TestCapacity(t *testing.T) {
	f := New()
	f.SetCapacity(10_000)
	h := create(t, f, "f")
	write(t, h, make([]byte, 6000), 0)
	if free, total, err := f.Usage("/"); free != 4000 || total != 10_000 || err != nil {
		t.Fatal(free, total, err)
	}
	if n, err := h.WriteAt(make([]byte, 6000), 5000); n != 5000 || !errors.Is(err, ioengine.ErrDiskFull) {
		t.Fatal(n, err)
	}
	must(t, h.Truncate(6000))
	write(t, h, make([]byte, 6000), 0) // over what is there it costs nothing
	for what, err := range map[string]error{
		"allocate": h.Allocate(0, 10_001),
		"segment":  second(f.OpenSegment("s", 4001, true)),
	} {
		if !errors.Is(err, ioengine.ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if exists(f, "s") {
		t.Fatal("a segment that has no room is left behind")
	}
	must(t, second(f.OpenSegment("s", 4000, true)))
	must(t, f.Remove("f"))
	if free, _, _ := f.Usage("/"); free != 0 {
		t.Fatal("an open file gave its space back", free)
	}
	if free, _, _ := f.Kill().Usage("/"); free != 6000 {
		t.Fatal("after the end of the process", free)
	}
	must(t, h.Close())
	if free, _, _ := f.Usage("/"); free != 6000 {
		t.Fatal("a removed file kept its space", free)
	}
	create(t, f, "a")
	g := create(t, f, "b")
	write(t, g, make([]byte, 100), 0)
	must(t, g.Close())
	must(t, f.Rename("a", "b"))
	if free, _, _ := f.Usage("/"); free != 6000 {
		t.Fatal("a replaced file kept its space", free)
	}
}

func second[T any](_ T, err error) error { return err }

func TestGateHoldsASync(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("old"))
	gate := f.Gate(OpSync)
	write(t, h, []byte("one"), 0)
	result := make(chan error)
	go func() { result <- h.Sync() }()
	held := <-gate.Arrived
	if held.Op.Kind != OpSync || held.Op.Name != "f" {
		t.Fatal(held.Op)
	}
	write(t, h, []byte("two"), 0) // too late for this sync
	if b, _ := f.OnDevice("f"); string(b) != "old" {
		t.Fatalf("a held sync wrote %q", b)
	}
	held.Pass(nil)
	must(t, <-result)
	if b, _ := f.OnDevice("f"); string(b) != "one" {
		t.Fatalf("the sync wrote %q", b)
	}
	go func() { result <- h.Sync() }()
	(<-gate.Arrived).Pass(syscall.EIO)
	if err := <-result; !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if b, _ := f.OnDevice("f"); string(b) != "one" {
		t.Fatalf("the failed sync wrote %q", b)
	}
	go func() { result <- h.Sync() }()
	<-gate.Arrived
	gate.Open()
	must(t, <-result)
	must(t, h.Sync())
	later := f.Gate(OpSync)
	go func() { result <- h.Sync() }()
	(<-later.Arrived).Pass(nil)
	must(t, <-result)
}

// Two commits in flight that finish in the wrong order: the device ends with what
// the newer one wrote.
func TestOverlappingSyncsFinishInAnyOrder(t *testing.T) {
	f := New()
	s, err := f.OpenSegment("s", pageSize, true)
	must(t, err)
	must(t, f.SyncDir("."))
	gate := f.Gate(OpSyncRange)
	results := make(chan error)
	start := func(to int64) Held {
		go func() { results <- s.SyncRange(0, to) }()
		return <-gate.Arrived
	}
	copy(s.Window(0, 8), "11111111")
	first := start(8)
	copy(s.Window(0, 4), "2222")
	newer := start(4)
	newer.Pass(nil)
	must(t, <-results)
	if b, _ := f.OnDevice("s"); string(b[:8]) != "2222\x00\x00\x00\x00" {
		t.Fatalf("%q", b[:8])
	}
	first.Pass(nil)
	must(t, <-results)
	if b, _ := f.OnDevice("s"); string(b[:8]) != "22221111" {
		t.Fatalf("%q", b[:8])
	}
}

// The tail owner stores behind the range that is being synced: no data race.
func TestSyncRangeBesideStores(t *testing.T) {
	f := New()
	s, err := f.OpenSegment("s", 64*pageSize, true)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := int64(0); i < 1000; i++ {
			copy(s.Window(1000+i*100, 100), "record")
		}
	}()
	for range 100 {
		must(t, s.SyncRange(0, 1000))
		must(t, s.WriteBack(0, 1000))
	}
	<-done
}

func TestCrashInsideOfTheHook(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("old"))
	write(t, h, []byte("new"), 0)
	var before []byte
	f.SetFault(func(op Op) error {
		if op.Kind == OpSync {
			before, _ = f.Crash(0, LoseAll).OnDevice("f")
		}
		return nil
	})
	must(t, h.Sync())
	if string(before) != "old" {
		t.Fatalf("before the sync the device had %q", before)
	}
}

func TestOpsAreRecordedInOrder(t *testing.T) {
	f := New()
	must(t, f.MkdirAll("/d", 0o755))
	must(t, ioengine.WriteFileAtomic(f, "/d/f", []byte("text")))
	var got []string
	for _, op := range f.Ops() {
		got = append(got, op.String())
	}
	want := []string{"1 create folder /d", "2 sync folder /", "3 create /d/f.tmp", "4 write /d/f.tmp [0,4)", "5 sync /d/f.tmp",
		"6 close /d/f.tmp", "7 rename /d/f.tmp -> /d/f", "8 sync folder /d"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
}

func TestRot(t *testing.T) {
	f := New()
	h := durable(t, f, "f", []byte("abcd"))
	must(t, f.Flip("f", 1, 0))
	must(t, f.Mangle("f", 2, []byte("XYZ")))
	for _, got := range [][]byte{content(t, f, "f"), content(t, f.Crash(0, LoseAll), "f")} {
		if string(got) != "acXY" {
			t.Fatalf("%q", got)
		}
	}
	if f.Flip("f", 4, 0) == nil || !errors.Is(f.Flip("g", 0, 0), fs.ErrNotExist) {
		t.Fatal("damaged what is not there")
	}
	must(t, h.Close())
}

func TestEvictMakesCold(t *testing.T) {
	f := New()
	h := durable(t, f, "f", bytes.Repeat([]byte("x"), 3*pageSize))
	must(t, f.Evict("f"))
	p := make([]byte, 2*pageSize)
	if _, err := h.ReadAtNoWait(p, 0); err != ioengine.ErrCold || h.Resident(0, 1) {
		t.Fatal(err)
	}
	if _, err := h.ReadAt(p[:10], 0); err != nil {
		t.Fatal(err)
	}
	if n, err := h.ReadAtNoWait(p, 5); n != pageSize-5 || err != nil || h.Resident(0, pageSize+1) || !h.Resident(0, pageSize) {
		t.Fatal(n, err)
	}
	f.SetNoWait(false)
	if _, err := h.ReadAtNoWait(p, 0); err != ioengine.ErrNoWaitUnsupported {
		t.Fatal(err)
	}
	after := f.Crash(0, LoseAll)
	after.SetNoWait(true)
	g, err := after.Open("f", os.O_RDONLY, 0)
	must(t, err)
	if _, err := g.ReadAtNoWait(p, 0); err != ioengine.ErrCold {
		t.Fatal("the page cache survived a power loss", err)
	}
}

func TestLocksEndWithTheProcess(t *testing.T) {
	f := New()
	must(t, second(f.Lock("lock")))
	if _, err := f.Lock("lock"); err == nil {
		t.Fatal("two holders")
	}
	must(t, second(f.Kill().Lock("lock")))
}

func TestMappedFileKeepsItsSizeForEverybody(t *testing.T) {
	f := New()
	s, err := f.OpenSegment("s", pageSize, true)
	must(t, err)
	h, err := f.Open("s", os.O_RDWR, 0)
	must(t, err)
	if err := h.Truncate(0); !errors.Is(err, syscall.EBUSY) {
		t.Fatal("on a real machine the next store would be a signal:", err)
	}
	must(t, s.Unmap())
	must(t, h.Truncate(0))
}

func ExampleFS_Crash() {
	f := New()
	h, _ := f.Open("log", os.O_RDWR|os.O_CREATE, 0o644)
	f.SyncDir(".")
	h.WriteAt([]byte("synced"), 0)
	h.Sync()
	h.WriteAt([]byte(" and not"), 6)
	for _, mode := range []CrashMode{KeepAll, LoseAll} {
		b, _ := f.Crash(1, mode).ReadFile("log")
		fmt.Printf("%v: %s\n", mode, b)
	}
	// Output:
	// KeepAll: synced and not
	// LoseAll: synced
}
