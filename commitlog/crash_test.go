package commitlog

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/message"
)

// A crash is tried before each operation of a scripted run and after each of its steps, in every way that the double can express. What
// must hold afterwards is in survives.

// moment is the machine at one point of a run, with what had been promised by then.
type moment struct {
	what string
	fs   *faultfs.FS // as a kill leaves it; its CrashStates are what a power loss leaves
	// Every record before flushed is acknowledged; the log begins at min or before. Whatever is found is one of keep, all records of the
	// run.
	flushed, min int64
	keep         []stored
}

// witness collects the moments of a run.
type witness struct {
	mu      sync.Mutex
	fs      *faultfs.FS
	log     *Log
	moments []moment
}

func (w *witness) see(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := moment{what: fmt.Sprintf("%d: %s", len(w.moments), what)}
	if w.log != nil {
		m.flushed, m.min = w.log.Flushed(), w.log.MinOffset()
	}
	m.fs = w.fs.Kill()
	w.moments = append(w.moments, m)
}

func (w *witness) set(log *Log) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = log
}

const crashSegment = 16 << 10

// runScript plays a script: a number appends a record with that body, 'f' flushes, 'd' drops the oldest segment, 'r' closes the log and
// opens it again.
func runScript(t *testing.T, fsys *faultfs.FS, script ...any) []moment {
	see := &witness{fs: fsys}
	synctest.Test(t, func(t *testing.T) {
		fsys.SetFault(func(op faultfs.Op) error {
			see.see(op.String())
			return nil
		})
		l := openLog(t, quiet(fsys, "log", crashSegment), 0, false)
		w := newWriter(l.Log)
		w.keep = []stored{}
		for i, step := range script {
			// Keeper and flusher are at rest now: a moment is never taken while bytes change.
			synctest.Wait()
			see.set(w.log)
			see.see(fmt.Sprintf("before step %d (%v)", i, step))
			switch step := step.(type) {
			case int:
				w.body(step)
				if err := w.try(1000); err != nil {
					t.Fatal(err)
				}
			case rune:
				l = scriptStep(t, l, step)
				w.log = l.Log
			}
		}
		synctest.Wait()
		see.set(w.log)
		see.see("at the end")
		for i := range see.moments {
			see.moments[i].keep = w.keep
		}
		fsys.SetFault(nil)
		closeLog(t, l.Log)
	})
	return see.moments
}

func scriptStep(t *testing.T, l *found, step rune) *found {
	t.Helper()
	switch step {
	case 'f':
		if err := l.Flush(time.Minute); err != nil {
			t.Fatal(err)
		}
	case 'd':
		if err := l.DropOldest(); err != nil {
			t.Fatal(err)
		}
	case 'r':
		closeLog(t, l.Log)
		l = openLog(t, quiet(l.opt.FS.(*faultfs.FS), "log", crashSegment), 0, true)
	}
	return l
}

// survives opens what a crash left and holds it against what was promised. It returns the machine as it is after that start.
func survives(t *testing.T, state *faultfs.FS, m *moment) (l *found, ok bool) {
	t.Helper()
	l, err := tryOpen(quiet(state, "log", crashSegment), 0, false)
	if err != nil {
		t.Errorf("it does not open: %v", err)
		return nil, false
	}
	was := map[int64][]byte{}
	for _, s := range m.keep {
		was[s.off] = s.raw
	}
	have := map[int64]bool{}
	for _, s := range l.records {
		if !bytes.Equal(was[s.off], s.raw) {
			t.Errorf("the record at %d, %d bytes, was never written like this", s.off, len(s.raw))
		}
		have[s.off] = true
	}
	if l.MinOffset() > m.min {
		t.Errorf("the log begins at %d, nothing was dropped behind %d", l.MinOffset(), m.min)
	}
	for _, s := range m.keep {
		if s.end() <= m.flushed && s.off >= l.MinOffset() && !have[s.off] {
			t.Errorf("the record at %d was acknowledged and is lost; the log ends at %d", s.off, l.Published())
		}
	}
	checkTail(t, state, l)
	return l, !t.Failed()
}

// checkTail checks that what is served can be read, record by record, and that nothing but zeroes lies behind.
func checkTail(t *testing.T, state *faultfs.FS, l *found) {
	t.Helper()
	var r message.Record
	n := 0
	for _, s := range walk(t, l.Log) {
		if err := message.Decode(s.raw, &r); err != nil || r.VerifyCRC(s.raw) != nil || r.PhysicalOffset != s.off {
			t.Errorf("the record at %d is served and torn: %v", s.off, err)
		}
		if r.SysFlag&message.SysTransactionMask != message.SysTransactionRollback {
			n++
		}
	}
	if n != len(l.records) {
		t.Errorf("%d records are served, recovery saw %d", n, len(l.records))
	}
	end := l.Published()
	tail, err := state.ReadFile(segmentName("log", end/crashSegment*crashSegment))
	if err != nil || len(tail) != crashSegment {
		t.Errorf("the tail's segment has %d bytes: %v", len(tail), err)
		return
	}
	if i := lastNonZero(tail[end%crashSegment:]); i >= 0 {
		t.Errorf("behind the log's end at %d there is something %d bytes on", end, i)
	}
}

// goesOn appends to a log that was recovered, and lets the power go: what recovery gave out must be on the device by then.
func goesOn(t *testing.T, state *faultfs.FS, l *found) {
	t.Helper()
	w := newWriter(l.Log)
	w.keep = append([]stored{}, l.records...)
	w.append(t, 300)
	w.append(t, 4000)
	if err := l.Flush(time.Minute); err != nil {
		t.Fatal(err)
	}
	end := l.Published()
	lost := state.Crash(0, faultfs.LoseAll)
	closeLog(t, l.Log)
	again := openLog(t, quiet(lost, "log", crashSegment), 0, false)
	sameRecords(t, again.records, w.keep)
	if again.Published() != end || len(again.rep.Quarantined) > 0 || again.rep.TornBytes > 0 {
		t.Errorf("a second start finds %+v; the log ended at %d", again.rep, end)
	}
	closeLog(t, again.Log)
}

// crashesInRecovery lets the power go before each operation of a recovery.
func crashesInRecovery(t *testing.T, state *faultfs.FS, m *moment) {
	t.Helper()
	see := &witness{fs: state}
	state.SetFault(func(op faultfs.Op) error {
		see.see(op.String())
		return nil
	})
	l := openLog(t, quiet(state, "log", crashSegment), 0, false)
	state.SetFault(nil)
	closeLog(t, l.Log)
	for i := range see.moments {
		in := &see.moments[i]
		for seed, mode := range []faultfs.CrashMode{faultfs.KeepAll, faultfs.LoseAll, faultfs.Random, faultfs.Torn} {
			if l, ok := survives(t, in.fs.Crash(int64(seed), mode), m); !ok {
				t.Fatalf("crash in the recovery, %s, %v", in.what, mode)
			} else {
				closeLog(t, l.Log)
			}
		}
	}
}

// checkMoments crashes every moment in up to most ways.
func checkMoments(t *testing.T, moments []moment, most int) {
	states, nested := 0, 0
	try := func(m *moment, name string, state *faultfs.FS) {
		states++
		before := state.Kill()
		l, ok := survives(t, state, m)
		if !ok {
			t.Fatalf("%s, %s", m.what, name)
		}
		mended := len(l.rep.Quarantined) > 0 || l.rep.TornBytes > 0
		goesOn(t, state, l)
		if mended && nested < crashDepth/4 || states%(101*sampleEvery) == 0 {
			nested++
			crashesInRecovery(t, before, m)
		}
		if t.Failed() {
			t.Fatalf("%s, %s", m.what, name)
		}
	}
	for i := range moments {
		m := &moments[i]
		try(m, "kill", m.fs.Kill())
		for name, state := range m.fs.CrashStates(most) {
			try(m, name, state)
		}
		for seed := range int64(4) {
			try(m, fmt.Sprintf("torn by seed %d", seed), m.fs.Crash(seed, faultfs.Torn))
		}
	}
	t.Logf("%d moments, %d states, %d with a crash at each operation of the recovery", len(moments), states, nested)
}

// Appends, group commits, rolls and drops; a crash anywhere.
func TestCrashAnywhere(t *testing.T) {
	for _, c := range []struct {
		name   string
		script []any
	}{
		{"appends and group commits", []any{100, 5000, 'f', 3000, 'f', 200, 300, 3900, 'f', 1}},
		{"roll", []any{6000, 6000, 'f', 6000, 1000, 'f', 14000, 'f', 100}},
		{"several segments unflushed", []any{100, 'f', 9000, 9000, 9000, 9000, 'f', 10}},
		{"drop", []any{15000, 15000, 15000, 'f', 'd', 100, 'f', 'd', 200}},
		{"restart", []any{5000, 'r', 5000, 'f', 5000, 'r', 9000, 'f'}},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkMoments(t, runScript(t, faultfs.New(), c.script...), crashDepth)
		})
	}
}

// A process that died leaves bytes in the page cache. The next one promises what lies before its records, too: it must have synced them.
func TestRecoveredBytesAreDurable(t *testing.T) {
	fsys := faultfs.New()
	l := openLog(t, quiet(fsys, "log", crashSegment), 0, false)
	if l.memory != nil {
		t.Skip("what a killed process leaves is in its tail file, which is no file of the double: see replay_test.go")
	}
	w := newWriter(l.Log)
	w.keep = []stored{}
	for l.Published() < 2*crashSegment {
		w.append(t, 3000)
	}
	killed := fsys.Kill()
	closeLog(t, l.Log)
	again := openLog(t, quiet(killed, "log", crashSegment), 0, false)
	sameRecords(t, again.records, w.keep)
	goesOn(t, killed, again)
}

// quarantined lists what recovery set aside.
func quarantined(t *testing.T, fsys *faultfs.FS) (names []string) {
	t.Helper()
	entries, err := fsys.ReadDir("quarantine")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		names = append(names, filepath.Join("quarantine", e.Name()))
	}
	return names
}
