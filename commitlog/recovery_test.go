package commitlog

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

// Rule R4: a torn tail is cut, rot in the middle costs one message and no more.

// writtenLog is a log of records with bodies of these sizes, closed in order, and where they lie.
func writtenLog(t testing.TB, segment int64, bodies ...int) (*faultfs.FS, []stored) {
	t.Helper()
	fsys := faultfs.New()
	l := openLog(t, quiet(fsys, "log", segment), 0, false)
	w := newWriter(l.Log)
	w.keep = []stored{}
	for _, n := range bodies {
		w.append(t, n)
	}
	closeLog(t, l.Log)
	return fsys, w.keep
}

func mangle(t testing.TB, fsys *faultfs.FS, segment, off int64, data []byte) {
	t.Helper()
	if err := fsys.Mangle(segmentName("log", off/segment*segment), off%segment, data); err != nil {
		t.Fatal(err)
	}
}

// opensTheSame opens once more, as after a loss of power: nothing is left to mend.
func opensTheSame(t testing.TB, fsys *faultfs.FS, segment int64, first *found) {
	t.Helper()
	end, records := first.Published(), first.records
	closeLog(t, first.Log)
	again := openLog(t, quiet(fsys.Crash(0, faultfs.LoseAll), "log", segment), 0, false)
	defer closeLog(t, again.Log)
	if again.Published() != end || len(again.rep.Quarantined) > 0 || again.rep.TornBytes > 0 {
		t.Fatalf("a second start finds %+v, the log ended at %d", again.rep, end)
	}
	sameRecords(t, again.records, records)
}

// The last record is cut after each of its bytes, and after each a piece behind is there without what is before it.
func TestR4TornTail(t *testing.T) {
	const segment = 16 << 10
	image, kept := writtenLog(t, segment, 100, 5000, 60)
	last := kept[2]
	try := func(left []byte) {
		t.Helper()
		if bytes.Equal(left, last.raw) {
			return // what is gone was zero
		}
		fsys := image.Kill()
		mangle(t, fsys, segment, last.off, left)
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		sameRecords(t, l.records, kept[:2])
		if l.Published() != last.off || l.rep.TornBytes != int64(lastNonZero(left)+1) || len(l.rep.Quarantined) > 0 {
			t.Fatalf("%d bytes are left: %+v", lastNonZero(left)+1, l.rep)
		}
		dev, _ := fsys.OnDevice(segmentName("log", 0))
		if i := lastNonZero(dev[last.off:]); i >= 0 {
			t.Fatalf("byte %d behind the end is not zero on the device", i)
		}
		opensTheSame(t, fsys, segment, l)
	}
	for cut := 1; cut < len(last.raw); cut += sampleEvery {
		head, tail := bytes.Clone(last.raw), bytes.Clone(last.raw)
		clear(head[cut:])
		try(head)
		clear(tail[:cut])
		try(tail)
	}
}

// flipEach visits the bits of b, one after the other or a sample of them. It leaves out the name of the checksum at the end: without
// it a record counts as one without checksum, and the rest of it is whole.
func flipEach(b []byte, every int, try func(at int, bit uint)) {
	for i := 0; i < len(b)*8; i += every*sampleEvery + sampleEvery/2 {
		if from := len(b) - message.CRCPropertySize; i/8 < from || i/8 >= from+len(message.PropertyCRC32)+1 {
			try(i/8, uint(i%8))
		}
	}
}

// Every bit of a record in the middle, turned over: that message is lost at most, and its bytes are set aside.
func TestR4BitFlipInTheMiddle(t *testing.T) {
	const segment = 8 << 10
	image, kept := writtenLog(t, segment, 10, 3000, 40, 3000, 6000, 10)
	for _, n := range []int{0, 2, 3, 4} {
		bad := kept[n]
		every := 1 + len(bad.raw)/25
		flipEach(bad.raw, every, func(at int, bit uint) {
			for _, clean := range []bool{false, true} {
				fsys := image.Kill()
				if err := fsys.Flip(segmentName("log", bad.off/segment*segment), bad.off%segment+int64(at), bit); err != nil {
					t.Fatal(err)
				}
				l := openLog(t, quiet(fsys, "log", segment), 0, clean)
				sameRecords(t, l.records, append(append([]stored{}, kept[:n]...), kept[n+1:]...))
				if q := l.rep.Quarantined; len(q) != 1 || q[0] != (Span{bad.off, bad.end()}) && q[0].To%segment != 0 || l.rep.TornBytes != 0 {
					t.Fatalf("record %d, byte %d, bit %d: %+v", n, at, bit, l.rep)
				}
				aside, err := fsys.ReadFile(quarantineName("quarantine", l.rep.Quarantined[0]))
				damaged := bytes.Clone(bad.raw)
				damaged[at] ^= 1 << bit
				if err != nil || !bytes.HasPrefix(aside, damaged) {
					t.Fatalf("record %d, byte %d, bit %d: the damaged bytes were not kept: %v", n, at, bit, err)
				}
				opensTheSame(t, fsys, segment, l)
			}
		})
	}
}

// A bit of the last record: nothing valid follows, so it looks like a torn tail. After an orderly stop it can be none, and is set aside.
func TestR4BitFlipInTheLastRecord(t *testing.T) {
	const segment = 8 << 10
	image, kept := writtenLog(t, segment, 10, 300, 40)
	last := kept[2]
	flipEach(last.raw, 5, func(at int, bit uint) {
		for _, clean := range []bool{false, true} {
			fsys := image.Kill()
			if err := fsys.Flip(segmentName("log", 0), last.off+int64(at), bit); err != nil {
				t.Fatal(err)
			}
			l := openLog(t, quiet(fsys, "log", segment), 0, clean)
			sameRecords(t, l.records, kept[:2])
			if aside := quarantined(t, fsys); clean != (len(aside) == 1) || clean != (len(l.rep.Quarantined) == 1) || clean == (l.rep.TornBytes > 0) {
				t.Fatalf("clean %t, byte %d, bit %d: %+v, %v", clean, at, bit, l.rep, aside)
			}
			opensTheSame(t, fsys, segment, l)
		}
	})
}

// The blank at the end of a segment holds no message: its damage costs none.
func TestR4BitFlipInTheBlank(t *testing.T) {
	const segment = 8 << 10
	image, kept := writtenLog(t, segment, 3000, 3000, 3000, 10)
	for bit := range int64(8 * message.BlankSize) {
		fsys := image.Kill()
		if err := fsys.Flip(segmentName("log", 0), kept[1].end()+bit/8, uint(bit%8)); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, quiet(fsys, "log", segment), 0, false)
		sameRecords(t, l.records, kept)
		opensTheSame(t, fsys, segment, l)
	}
}

// Zeroes and noise over spans of any place and length, across segments too: what the span touches is lost and nothing else.
func TestR4DamagedSpans(t *testing.T) {
	const segment = 16 << 10
	dice := rand.New(rand.NewPCG(4, 4))
	bodies := make([]int, 60)
	for i := range bodies {
		bodies[i] = 1 + dice.IntN(3000)
	}
	image, kept := writtenLog(t, segment, bodies...)
	end := kept[len(kept)-2].off // the last two stay
	for range 400 / sampleEvery {
		fsys := image.Kill()
		from := dice.Int64N(end - 1)
		for _, s := range kept {
			// Where noise takes the checksum away together with its name, what else it hits of the properties can't be told.
			if from >= s.end()-40 && from < s.end() {
				from = s.end()
			}
		}
		to := min(from+1+dice.Int64N(2*segment), end)
		noise := make([]byte, to-from)
		if dice.IntN(2) == 0 {
			for i := range noise {
				noise[i] = byte(dice.Uint32())
			}
		}
		for at := from; at < to; {
			n := min(to-at, segment-at%segment)
			mangle(t, fsys, segment, at, noise[at-from:][:n])
			at += n
		}
		var want []stored
		for _, s := range kept {
			if !touched(s, from, noise) {
				want = append(want, s)
			}
		}
		l := openLog(t, quiet(fsys, "log", segment), 0, dice.IntN(2) == 0)
		if len(l.records) != len(want) {
			t.Logf("damaged from %d to %d: %+v", from, to, l.rep)
		}
		sameRecords(t, l.records, want)
		opensTheSame(t, fsys, segment, l)
	}
}

// touched tells whether noise, put over the log at from, changes s.
func touched(s stored, from int64, noise []byte) bool {
	for i, b := range s.raw {
		if at := s.off + int64(i) - from; at >= 0 && at < int64(len(noise)) && noise[at] != b {
			return true
		}
	}
	return false
}

// Whole segments of zeroes: found behind them within the window, the log is kept. Beyond the window the log is not opened at all, for it
// would seem to end there, and what lies behind would be removed.
func TestR4SegmentsOfZeroes(t *testing.T) {
	const segment = 3 << 20
	image, kept := writtenLog(t, segment, 2_900_000, 2_900_000, 2_900_000, 100)
	mangle(t, image, segment, 0, make([]byte, segment))
	mangle(t, image, segment, segment, make([]byte, segment))
	fsys := image.Kill()
	l := openLog(t, quiet(fsys, "log", segment), 0, false)
	sameRecords(t, l.records, kept[2:])
	closeLog(t, l.Log)
	before := image.Count()
	// After an orderly stop less is searched.
	if _, err := tryOpen(quiet(image, "log", segment), 0, true); err == nil || !strings.Contains(err.Error(), "restore what is between") {
		t.Fatal(err)
	}
	for _, op := range image.Ops() {
		if op.N > before && (op.Kind == faultfs.OpWrite || op.Kind == faultfs.OpZero || op.Kind == faultfs.OpRemove) {
			t.Errorf("it is refused, and yet changed: %v", op)
		}
	}
}

// A store time that rot made is not handed to every message to come.
func TestR4StoreTimeFromTheFuture(t *testing.T) {
	fsys := faultfs.New()
	l := openLog(t, quiet(fsys, "log", 8192), 0, false)
	w := newWriter(l.Log)
	w.draft.AppendCRC = false
	if err := w.try(time.Now().Add(1000 * 24 * time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l.Log)
	l = openLog(t, quiet(fsys, "log", 8192), 0, false)
	defer closeLog(t, l.Log)
	w.log = l.Log
	now := time.Now().UnixMilli()
	if err := w.try(now); err != nil || message.StoreTimestampOf(w.raw) != now {
		t.Errorf("store time %d, %v", message.StoreTimestampOf(w.raw), err)
	}
}
