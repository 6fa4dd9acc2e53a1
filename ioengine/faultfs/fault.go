package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/ringmq/ringmq/ioengine"
)

// Kind names an operation in the log.
type Kind string

const (
	OpOpen          Kind = "open"           // Open without O_CREATE
	OpCreate        Kind = "create"         // Open with O_CREATE, whether or not the file was there
	OpOpenSegment   Kind = "open segment"   // Len is the size
	OpCreateSegment Kind = "create segment" // Len is the size
	OpReadFile      Kind = "read file"
	OpReadDir       Kind = "read folder"
	OpStat          Kind = "stat"
	OpMkdir         Kind = "create folder" // one for each folder created
	OpRename        Kind = "rename"        // To is the new name
	OpRemove        Kind = "remove"
	OpRemoveAll     Kind = "remove all"
	OpSyncDir       Kind = "sync folder"
	OpUsage         Kind = "usage"
	OpLock          Kind = "lock"
	OpRead          Kind = "read"
	OpReadNoWait    Kind = "read without waiting"
	OpWrite         Kind = "write"
	OpTruncate      Kind = "truncate" // Len is the new size
	OpAllocate      Kind = "allocate"
	OpSync          Kind = "sync"       // File.Sync
	OpSyncRange     Kind = "sync range" // Segment.SyncRange
	OpZero          Kind = "zero"
	OpWarm          Kind = "warm"
	OpCool          Kind = "cool"
	OpWriteBack     Kind = "write back"
	OpWaitWriteBack Kind = "wait for write-back"
	OpUnmap         Kind = "unmap"
	OpClose         Kind = "close"
)

// Op is one operation, as it began.
type Op struct {
	N    int64 // its number, counted from 1 since New, Crash or Kill
	Kind Kind
	Name string // as the caller gave it
	To   string // Rename's new name
	Off  int64
	Len  int64
	// Err is the injected error, nil while the operation waits at a Gate and for
	// an operation that was let through. What the file system itself found wrong
	// (no such file, disk full) is not here.
	Err error
}

func (op Op) String() string {
	s := fmt.Sprintf("%d %s %s", op.N, op.Kind, op.Name)
	if op.To != "" {
		s += " -> " + op.To
	}
	if op.Len != 0 || op.Off != 0 {
		s += fmt.Sprintf(" [%d,%d)", op.Off, op.Off+op.Len)
	}
	if op.Err != nil {
		s += ": " + op.Err.Error()
	}
	return s
}

// ShortWrite is an error for SetFault and FailAt: a write or Zero that gets it
// stores the first N bytes and then answers Err. Other operations just fail.
type ShortWrite struct {
	N   int64
	Err error
}

func (e *ShortWrite) Error() string {
	return fmt.Sprintf("short write of %d bytes: %v", e.N, e.Err)
}
func (e *ShortWrite) Unwrap() error { return e.Err }

// maxOps bounds the log; the older half goes when it is full.
const maxOps = 1 << 18

// Ops is a copy of the log, oldest first.
func (f *FS) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Op(nil), f.ops...)
}

// Count is the number of operations begun so far.
func (f *FS) Count() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// ResetOps empties the log. Numbers go on.
func (f *FS) ResetOps() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops = nil
}

// SetFault calls hook before each operation; an error from it is the operation's.
// Nil takes the hook away. The hook runs without locks, at once for concurrent
// operations, and may call every method of FS: Crash in it gives the state
// between two operations.
func (f *FS) SetFault(hook func(op Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// FailAt lets operation number n fail with err, and no other.
func (f *FS) FailAt(n int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt[n] = err
}

// Gate holds operations until the test lets them go.
type Gate struct {
	// Arrived gives each operation that comes to stand at the gate; receiving it
	// is how a test waits for one without sleeping.
	Arrived <-chan Held
	arrived chan Held
	open    chan struct{}
	once    sync.Once
	kinds   []Kind
}

// Held is one operation that stands at a gate. A sync that is held covers what
// the cache showed when it began, not what is written meanwhile.
type Held struct {
	Op   Op
	pass chan error
}

// Pass lets the operation go, once: with nil it is done, with an error it fails.
func (h Held) Pass(err error) { h.pass <- err }

// Gate holds all operations of these kinds from now on. Where several gates want
// an operation the oldest has it.
func (f *FS) Gate(kinds ...Kind) *Gate {
	arrived := make(chan Held)
	g := &Gate{Arrived: arrived, arrived: arrived, open: make(chan struct{}), kinds: kinds}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gates = append(f.gates, g)
	return g
}

// Open lets everything through, held or to come, for good.
func (g *Gate) Open() { g.once.Do(func() { close(g.open) }) }

func (g *Gate) isOpen() bool {
	select {
	case <-g.open:
		return true
	default:
		return false
	}
}

func (g *Gate) hold(op Op) error {
	h := Held{Op: op, pass: make(chan error, 1)}
	select {
	case g.arrived <- h:
	case <-g.open:
		return nil
	}
	select {
	case err := <-h.pass:
		return err
	case <-g.open:
		return nil
	}
}

// begin logs an operation and asks FailAt and the hook about it.
func (f *FS) begin(op Op) (Op, error) {
	f.mu.Lock()
	f.count++
	op.N = f.count
	if len(f.ops) >= maxOps {
		f.ops = append([]Op(nil), f.ops[maxOps/2:]...)
	}
	f.ops = append(f.ops, op)
	err, hook := f.failAt[op.N], f.hook
	f.mu.Unlock()
	if err == nil && hook != nil {
		err = hook(op)
	}
	return op, f.injected(op, err)
}

// gate lets an operation wait if a test holds its kind.
func (f *FS) gate(op Op) error {
	f.mu.Lock()
	var at *Gate
	for _, g := range f.gates {
		if slices.Contains(g.kinds, op.Kind) && !g.isOpen() {
			at = g
			break
		}
	}
	f.mu.Unlock()
	if at == nil {
		return nil
	}
	return f.injected(op, at.hold(op))
}

// start is begin and gate, for operations that have nothing to do in between.
func (f *FS) start(op Op) error {
	op, err := f.begin(op)
	if err == nil {
		err = f.gate(op)
	}
	return err
}

// injected notes err in the log and dresses it as the real thing would be.
func (f *FS) injected(op Op, err error) error {
	if err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.ops) - 1; i >= 0 && f.ops[i].N >= op.N; i-- {
		if f.ops[i].N == op.N {
			f.ops[i].Err = err
		}
	}
	return fail(op.Kind, op.Name, err)
}

// fail names operation and file, as the real file systems do.
func fail(op Kind, name string, err error) error {
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ioengine.ErrDiskFull) {
		err = fmt.Errorf("%w: %w", ioengine.ErrDiskFull, err)
	}
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}
