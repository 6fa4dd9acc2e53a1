//go:build linux

package commitlog

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/internal/seccomp"
	"github.com/ringmq/ringmq/ioengine"
)

// tailOptions are those of an ASYNC_FLUSH log whose end is in a tail file.
func tailOptions(dir string, kind ioengine.EngineKind) Options {
	o := quiet(ioengine.OS(), filepath.Join(dir, "commitlog"), 1<<20)
	o.EngineOptions = EngineOptions{Engine: kind, TailSize: 4 << 20, TailFile: filepath.Join(dir, "ringmq-tail")}
	return o
}

// A process that is killed leaves what it acknowledged in its tail file, and the next one writes it to the segments: whatever engine that one
// has, and however much of it had been written already.
func TestKilledProcessLosesNothingOfItsTail(t *testing.T) {
	for _, kind := range []ioengine.EngineKind{ioengine.EnginePwrite, ioengine.EngineDirect, ioengine.EngineUring} {
		for _, next := range []ioengine.EngineKind{kind, ioengine.EngineMmap} {
			t.Run(kind.String()+" then "+next.String(), func(t *testing.T) {
				dir := t.TempDir()
				if err := ioengine.EngineWorks(kind, dir, 1<<20); errors.Is(err, ioengine.ErrEngineRefused) {
					t.Skip(err)
				}
				child := exec.Command(os.Args[0], "-test.run", "^TestAppendUntilKilled$")
				child.Env = append(os.Environ(), "RINGMQ_TEST_KILLED="+dir, "RINGMQ_TEST_KILLED_ENGINE="+strconv.Itoa(int(kind)))
				out, err := child.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("%v: %s", err, out)
				}
				l := openLog(t, tailOptions(dir, next), 0, false)
				defer closeLog(t, l.Log)
				acknowledged, err := strconv.Atoi(string(mustRead(t, filepath.Join(dir, "acknowledged"))))
				if err != nil {
					t.Fatal(err)
				}
				if len(l.records) < acknowledged || len(l.rep.Quarantined) > 0 {
					t.Fatalf("%d records of %d, %+v", len(l.records), acknowledged, l.rep)
				}
				w := newWriter(l.Log)
				w.append(t, 100)
				if _, err := os.Stat(filepath.Join(dir, "ringmq-tail")); (err == nil) != (next != ioengine.EngineMmap) {
					t.Fatalf("the tail file: %v", err)
				}
			})
		}
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAppendUntilKilled is the process that TestKilledProcessLosesNothingOfItsTail kills.
func TestAppendUntilKilled(t *testing.T) {
	dir := os.Getenv("RINGMQ_TEST_KILLED")
	if dir == "" {
		t.Skip("runs in a process of its own")
	}
	kind, _ := strconv.Atoi(os.Getenv("RINGMQ_TEST_KILLED_ENGINE"))
	l := openLog(t, tailOptions(dir, ioengine.EngineKind(kind)), 0, false)
	if l.Engine() != ioengine.EngineKind(kind) {
		t.Fatal("another engine: ", l.Engine())
	}
	w := newWriter(l.Log)
	// More than is written at a time, so that a part is in the segments and a part is not.
	const count = 700
	for range count {
		w.append(t, 2000)
	}
	if err := os.WriteFile(filepath.Join(dir, "acknowledged"), []byte(strconv.Itoa(count)), 0o644); err != nil {
		t.Fatal(err)
	}
	if l.Published() == l.written.Load() {
		t.Fatal("everything is written: there is nothing to lose")
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	select {}
}

// offsetOfSync is where a tail file says that only what is in the segments was acknowledged.
const offsetOfSync = 8 + 8 + 64 + 8 + 64 + 8

// A tail file never overwrites what something else stored after the kill, and one of another start of the machine is not believed.
func TestTailFileOfAnotherTime(t *testing.T) {
	dir := t.TempDir()
	o := tailOptions(dir, ioengine.EnginePwrite)
	l := openLog(t, o, 0, false)
	w := newWriter(l.Log)
	w.append(t, 100)
	tail := mustRead(t, o.TailFile) // as a kill at this moment would leave it
	closeLog(t, l.Log)
	// The record was written at Close; let somebody else have written another one.
	segment := filepath.Join(o.Dir, "00000000000000000000")
	stored := mustRead(t, segment)
	copyOf := append([]byte(nil), stored...)
	copyOf[60] ^= 0xFF
	for _, c := range []struct {
		name    string
		segment []byte
		change  func(tail []byte)
		fails   bool
	}{
		{"the same bytes are there", stored, func([]byte) {}, false},
		{"nothing is there", make([]byte, len(stored)), func([]byte) {}, false},
		{"other bytes are there", copyOf, func([]byte) {}, true},
		{"other bytes are there, and nothing of the tail was acknowledged", copyOf, func(b []byte) { b[offsetOfSync] = 1 }, false},
		{"another start of the machine", copyOf, func(b []byte) { b[16] ^= 1 }, false},
		{"no header", copyOf, func(b []byte) { clear(b[:8]) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := append([]byte(nil), tail...)
			c.change(b)
			if err := errors.Join(os.WriteFile(segment, c.segment, 0o644), os.WriteFile(o.TailFile, b, 0o644)); err != nil {
				t.Fatal(err)
			}
			again, err := tryOpen(o, 0, false)
			if (err != nil) != c.fails {
				t.Fatal(err)
			}
			if err == nil {
				closeLog(t, again.Log)
			}
			if c.fails && string(mustRead(t, segment)) != string(c.segment) {
				t.Fatal("the segment was changed")
			}
		})
	}
}

// A broker whose disk is full starts: it has to read, and to delete what is old.
func TestNoSpaceForTheTailFile(t *testing.T) {
	dir := os.Getenv("RINGMQ_TEST_FULL")
	if dir == "" {
		dir = t.TempDir()
		l := openLog(t, tailOptions(dir, ioengine.EngineMmap), 0, false)
		newWriter(l.Log).append(t, 100)
		closeLog(t, l.Log)
		child := exec.Command(os.Args[0], "-test.run", "^TestNoSpaceForTheTailFile$", "-test.v")
		child.Env = append(os.Environ(), "RINGMQ_TEST_FULL="+dir)
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := seccomp.Refuse(syscall.ENOSPC, seccomp.Fallocate); err != nil {
		t.Skip(err)
	}
	for _, sync := range []bool{true, false} {
		o := tailOptions(dir, ioengine.EngineDirect)
		o.Sync = sync
		l := openLog(t, o, 0, false)
		if l.Engine() != ioengine.EngineMmap || len(l.records) != 1 {
			t.Errorf("sync %v: the engine is %s, and %d records are there", sync, l.Engine(), len(l.records))
		}
		closeLog(t, l.Log)
	}
}

// Where the kernel refuses io_uring the next engine takes its place, and the same promises hold.
func TestRefusedEngineFallsBack(t *testing.T) {
	dir := os.Getenv("RINGMQ_TEST_REFUSED")
	if dir == "" {
		for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS} {
			child := exec.Command(os.Args[0], "-test.run", "^TestRefusedEngineFallsBack$", "-test.v")
			child.Env = append(os.Environ(), "RINGMQ_TEST_REFUSED="+t.TempDir(), "RINGMQ_TEST_REFUSED_BY="+strconv.Itoa(int(errno)))
			if out, err := child.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		return
	}
	errno, _ := strconv.Atoi(os.Getenv("RINGMQ_TEST_REFUSED_BY"))
	if err := seccomp.Refuse(syscall.Errno(errno), seccomp.IoUring...); err != nil {
		t.Skip(err)
	}
	o := tailOptions(dir, ioengine.EngineUring)
	o.Sync = true
	l := openLog(t, o, 0, false)
	if kind := l.Engine(); kind != ioengine.EngineDirect && kind != ioengine.EnginePwrite {
		t.Fatalf("the engine is %s", kind)
	}
	w := newWriter(l.Log)
	w.keep = []stored{}
	w.append(t, 100)
	if err := l.WaitFlushed(t.Context(), l.Published()); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l.Log)
	again := openLog(t, o, 0, false)
	defer closeLog(t, again.Log)
	sameRecords(t, again.records, w.keep)
}
