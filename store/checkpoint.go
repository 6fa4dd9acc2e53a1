package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/ioengine"
)

// checkpointSize is the file's size; Java maps it whole. The fields are its first 48 bytes.
const (
	checkpointSize  = 4096
	checkpointBytes = 48
)

// CheckpointFields are the fields of the file `checkpoint`, big-endian in this order. Does the work of StoreCheckpoint.
type CheckpointFields struct {
	// The store times, ms, up to which the log, the queues and the index are on disk.
	PhysicMsgTimestamp, LogicsMsgTimestamp, IndexMsgTimestamp int64
	MasterFlushedOffset                                       int64
	ConfirmPhyOffset                                          int64
	// LogicsPhysicalOffset is the log offset up to which every queue is on disk.
	LogicsPhysicalOffset int64
}

func (c *CheckpointFields) all() [6]*int64 {
	return [6]*int64{&c.PhysicMsgTimestamp, &c.LogicsMsgTimestamp, &c.IndexMsgTimestamp,
		&c.MasterFlushedOffset, &c.ConfirmPhyOffset, &c.LogicsPhysicalOffset}
}

func (c CheckpointFields) append(dst []byte) []byte {
	for _, field := range c.all() {
		dst = binary.BigEndian.AppendUint64(dst, uint64(*field))
	}
	return dst
}

// checkpointFrom reads the fields and refuses what can't be true.
func checkpointFrom(b []byte) (c CheckpointFields, err error) {
	// Year 3084 in ms, 8 EiB / 2: far beyond both clocks and disks.
	const maxTime, maxOffset = 1 << 45, 1 << 62
	if len(b) < checkpointBytes {
		return c, fmt.Errorf("%d bytes are too few for its fields", len(b))
	}
	for i, field := range c.all() {
		*field = int64(binary.BigEndian.Uint64(b[8*i:]))
		limit := int64(maxOffset)
		if i < 3 {
			limit = maxTime
		}
		if *field < 0 || *field > limit {
			return CheckpointFields{}, fmt.Errorf("field %d has the impossible value %d", i, *field)
		}
	}
	return c, nil
}

// Checkpoint is the open file `checkpoint`. Java maps it in place, so it is written in place: its fields share one
// sector. One caller at a time.
type Checkpoint struct {
	f   ioengine.File
	log *slog.Logger
}

// OpenCheckpoint opens the checkpoint of the store in root, or makes an empty one.
func OpenCheckpoint(fsys ioengine.FS, root string, logger *slog.Logger) (*Checkpoint, error) {
	f, err := fsys.Open(filepath.Join(root, "checkpoint"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{f: f, log: logger}
	// Where it has content, whoever saved that had made its name durable before.
	if size, err := f.Size(); err != nil || size == 0 {
		if err = errors.Join(err, fsys.SyncDir(root)); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	return c, nil
}

// Load answers false when there is no checkpoint or its content can't be true, which is logged: the log is then read
// from where the queue files say.
func (c *Checkpoint) Load() (CheckpointFields, bool) {
	var b [checkpointBytes]byte
	n, err := c.f.ReadAt(b[:], 0)
	if n == 0 && err == io.EOF {
		return CheckpointFields{}, false
	}
	var fields CheckpointFields
	if err == nil || err == io.EOF {
		fields, err = checkpointFrom(b[:n])
	}
	if err != nil {
		c.log.Error("checkpoint is damaged and not used: more of the log is read at this start", "file", c.f.Name(), "err", err)
		return CheckpointFields{}, false
	}
	return fields, fields != CheckpointFields{}
}

// Save writes the fields and makes them durable.
func (c *Checkpoint) Save(fields CheckpointFields) error {
	if size, err := c.f.Size(); err != nil {
		return err
	} else if size != checkpointSize {
		if err := c.f.Truncate(checkpointSize); err != nil {
			return err
		}
	}
	if _, err := c.f.WriteAt(fields.append(nil), 0); err != nil {
		return err
	}
	return c.f.Sync()
}

// Close closes the file.
func (c *Checkpoint) Close() error { return c.f.Close() }

// RunEnd says how the run before this one ended.
type RunEnd int

const (
	EndedClean   RunEnd = iota // stopped in order, or there was none
	EndedKilled                // the process died, the machine went on: what was written is there
	EndedCrash                 // the machine started anew since: what was not synced may be lost
	EndedUnknown               // not stopped in order, and nobody can tell how: the Java broker's, or a damaged file
)

func (e RunEnd) String() string {
	return [...]string{"clean", "process killed", "machine crash", "unknown"}[e]
}

// RunFiles are the files `lock` and `abort`: one broker at a time, and how the last one ended. `abort` is there while a
// broker runs; ours holds its process id and the kernel's boot id, Java's at most the process id.
type RunFiles struct {
	// Last is how the run before ended.
	Last RunEnd

	fs   ioengine.FS
	root string
	lock io.Closer
	// marked tells how leaving this run's mark went, where that goes on beside the start.
	marked chan error
}

// OpenRunFiles locks the store in root and leaves the mark of a run behind. It is the first to touch a store.
func OpenRunFiles(fsys ioengine.FS, root string, logger *slog.Logger) (*RunFiles, error) {
	return openRunFiles(fsys, root, logger, bootID())
}

func openRunFiles(fsys ioengine.FS, root string, logger *slog.Logger, boot string) (*RunFiles, error) {
	lock, err := fsys.Lock(filepath.Join(root, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	r := &RunFiles{fs: fsys, root: root, lock: lock, marked: make(chan error, 1)}
	mark := func() error {
		return ioengine.WriteFileAtomic(fsys, r.abort(), []byte(strconv.Itoa(os.Getpid())+"\n"+boot+"\n"))
	}
	switch r.Last, err = lastRun(fsys, r.abort(), boot); {
	case err != nil:
	case r.Last == EndedKilled:
		// The mark that is there says what this one will, but for the process: the start does not wait for the disk.
		go func() { r.marked <- mark() }()
	default:
		err = mark()
		r.marked <- nil
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	if r.Last != EndedClean {
		logger.Warn("the last run was not stopped in order", "how", r.Last.String())
	}
	return r, nil
}

func (r *RunFiles) abort() string { return filepath.Join(r.root, "abort") }

// lastRun judges by the mark of the run before.
func lastRun(fsys ioengine.FS, abort, boot string) (RunEnd, error) {
	info, err := fsys.Stat(abort)
	if err != nil {
		if isNotFound(err) {
			return EndedClean, nil
		}
		return EndedUnknown, err
	}
	if info.Size() > 256 {
		return EndedUnknown, nil
	}
	mark, err := fsys.ReadFile(abort)
	if err != nil {
		return EndedUnknown, err
	}
	lines := strings.Split(string(mark), "\n")
	switch {
	case len(lines) != 3 || lines[1] == "" || boot == "":
		return EndedUnknown, nil
	case lines[1] == boot:
		return EndedKilled, nil
	}
	return EndedCrash, nil
}

// Clean tells whether the run before was stopped in order.
func (r *RunFiles) Clean() bool { return r.Last == EndedClean }

// Close ends the run: clean takes the mark away. Afterwards another broker may have the store.
func (r *RunFiles) Close(clean bool) error {
	if err := <-r.marked; err != nil {
		return errors.Join(err, r.lock.Close())
	}
	if clean {
		if err := r.fs.Remove(r.abort()); err != nil {
			_ = r.lock.Close()
			return err
		}
		if err := r.fs.SyncDir(r.root); err != nil {
			_ = r.lock.Close()
			return err
		}
	}
	return r.lock.Close()
}

// bootID names this start of the kernel; "" where it can't be told. It is no file of the store, so the file room and
// its double have no part in it.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
