package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// Options of a store. Zero values of sizes and times mean the defaults of RocketMQ's property of that name.
type Options struct {
	FS             ioengine.FS
	Root           string // storePathRootDir
	CommitLogDir   string // storePathCommitLog; Root/commitlog when empty
	SegmentSize    int64  // mappedFileSizeCommitLog
	QueueFileUnits int    // mappedFileSizeConsumeQueue / 20
	HashSlots      int    // maxHashSlotNum
	IndexEntries   int    // maxIndexNum
	IndexEnable    bool   // messageIndexEnable
	FlushEvery     time.Duration
	Window         time.Duration
	AppendCRC      bool // enabledAppendPropCRC
	// Engine says how records reach the log's files; its TailFile is set by Open.
	Engine    commitlog.EngineOptions
	StoreHost message.Host
	// DelayLevels are the delays of messageDelayLevel, level 1 first.
	DelayLevels []time.Duration
	Retention   Retention
	// CheckpointEvery bounds by time, CheckpointBytes by log bytes, what a start after a crash reads again.
	CheckpointEvery time.Duration
	CheckpointBytes int64
	Logger          *slog.Logger
	// Now is the wall clock.
	Now func() time.Time
	// BootID names this start of the machine; default what the kernel says.
	BootID string
	// OnFlushed, OnFail: see commitlog.Options. OnArrive is called when a queue with Waiters got entries; it must not wait.
	OnFlushed func()
	OnFail    func(error)
	OnArrive  func(q *ConsumeQueue)
}

func (o *Options) setDefaults() {
	if o.CommitLogDir == "" {
		o.CommitLogDir = filepath.Join(o.Root, "commitlog")
	}
	if o.QueueFileUnits == 0 {
		o.QueueFileUnits = 300_000
	}
	if o.HashSlots == 0 {
		o.HashSlots = 5_000_000
	}
	if o.IndexEntries == 0 {
		o.IndexEntries = 20_000_000
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = 10 * time.Second
	}
	if o.CheckpointBytes == 0 {
		o.CheckpointBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BootID == "" {
		o.BootID = bootID()
	}
	if o.OnArrive == nil {
		o.OnArrive = func(*ConsumeQueue) {}
	}
	o.Retention.setDefaults()
}

// Store is the commit log with everything that is derived from it. Its methods may be called from any goroutine, but a Put or Get
// belongs to one caller.
type Store struct {
	opt        Options
	log        *commitlog.Log
	queues     *QueueTable
	index      *Index // nil when the index is switched off
	checkpoint *Checkpoint
	run        *RunFiles
	dispatch   dispatch
	retention  retentionState
	recovery   *commitlog.Report

	// indexer is the goroutine that puts keys into the index; IndexedOffset tells how far it has come.
	indexer indexer
	// ctx ends when Close calls stop; wg are the store's goroutines.
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	// damaged are queues that were found damaged before the store was opened: see rebuild.go.
	damagedMu sync.Mutex
	damaged   []damagedQueue
	opened    bool
	// checkpointMu: one checkpoint at a time; it guards last.
	checkpointMu sync.Mutex
	last         lastCheckpoint
}

// Log is the commit log.
func (s *Store) Log() *commitlog.Log { return s.log }

// Recovery is what the start found in the log.
func (s *Store) Recovery() *commitlog.Report { return s.recovery }

// Queue is the queue of a topic, or nil. It takes no memory.
func (s *Store) Queue(topic []byte, queueID int32) *ConsumeQueue { return s.queues.Get(topic, queueID) }

// EnsureQueue is the queue of a topic, made if it is not there. Its directory appears with its first entry.
func (s *Store) EnsureQueue(topic string, queueID int32) (*ConsumeQueue, error) {
	return s.queues.GetOrCreate(topic, queueID)
}

// Queues gives every queue to visit.
func (s *Store) Queues(visit func(*ConsumeQueue)) { s.queues.All(visit) }

// DeleteTopic forgets the queues of a topic; the log keeps the messages until retention takes them. A start may find the topic again until
// the next Checkpoint, which the caller makes: it may wait for the device, this doesn't.
func (s *Store) DeleteTopic(topic string) error { return s.queues.Delete(topic) }

// goLabelled starts a goroutine of the store that ends when ctx does.
func (s *Store) goLabelled(ctx context.Context, name string, run func(ctx context.Context)) {
	s.wg.Go(func() {
		pprof.Do(ctx, pprof.Labels("room", "store", "thread", name), run)
	})
}

// writeBackEvery is how often the queues that are due are written.
const writeBackEvery = time.Second

// maintain writes queue entries out every second and makes checkpoints, so that a kill -9 has little to read again.
func (s *Store) maintain(ctx context.Context) {
	beat.Every(ctx, writeBackEvery, func() {
		if s.log.Err() != nil && !errors.Is(s.log.Err(), commitlog.ErrDiskFull) {
			return
		}
		if err := s.queues.WriteBackDue(); err != nil {
			s.opt.Logger.Error("queue entries stay in memory", "err", err)
			return
		}
		if due, withIndex := s.checkpointDue(); due {
			if err := s.makeCheckpoint(withIndex); err != nil {
				s.opt.Logger.Error("no checkpoint: a start after a crash will take longer", "err", err)
			}
		}
	})
}

// lastCheckpoint is what the latest checkpoint covers. Belongs to Store.checkpointMu.
type lastCheckpoint struct {
	at, indexAt     int64     // log offsets dispatched when it was begun, and when the latest one with the index was
	begun, indexRun time.Time // and when that was
	indexTime       int64     // its IndexMsgTimestamp
}

const (
	// indexShare: the index is flushed once in so many checkpoints, if not by time. Keys are scattered over all of its slots, 20 MB, so a flush
	// writes them all; and a start does not wait for the index.
	indexShare = 4
	// snapshotShare: a snapshot of 100,000 queues may have tens of MiB and is not written before so many times its size have come.
	snapshotShare = 8
)

// checkpointDue tells whether it is time for a checkpoint, and for one with the index.
func (s *Store) checkpointDue() (due, withIndex bool) {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	last, now, at := &s.last, s.opt.Now(), s.Dispatched()
	step := max(s.opt.CheckpointBytes, snapshotShare*s.queues.SnapshotBytes())
	late := func(since time.Time) bool { return now.Sub(since).Abs() >= s.opt.CheckpointEvery }
	withIndex = at > last.indexAt && (at-last.indexAt >= indexShare*step || late(last.indexRun))
	return withIndex || at > last.at && (at-last.at >= step || late(last.begun)), withIndex
}

// flushLimit bounds the wait for the log in a checkpoint.
const flushLimit = 30 * time.Second

// Checkpoint makes everything up to some log offset durable, log first, and notes the offset: a start reads the log from there.
func (s *Store) Checkpoint() error { return s.makeCheckpoint(true) }

func (s *Store) makeCheckpoint(withIndex bool) error {
	s.checkpointMu.Lock()
	defer s.checkpointMu.Unlock()
	// The clock before the offset: what lies behind it was stored later, and a Java broker that goes by the times reads it again.
	begun := s.opt.Now()
	now := begun.UnixMilli()
	at := s.Dispatched()
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := s.log.WaitFlushed(ctx, at); err != nil {
		return err
	}
	c := CheckpointFields{PhysicMsgTimestamp: now, LogicsMsgTimestamp: now, IndexMsgTimestamp: now, MasterFlushedOffset: 0,
		ConfirmPhyOffset: at, LogicsPhysicalOffset: s.queues.InFiles(at)}
	if inFiles := c.LogicsPhysicalOffset; inFiles < at {
		// What lies behind is in the snapshot, which a Java broker does not know: it is to read the log from there again.
		oldest, err := s.StoreTime(Entry{PhysicalOffset: inFiles})
		if err != nil {
			return err
		}
		c.LogicsMsgTimestamp = min(now, oldest)
	}
	if s.index != nil {
		if withIndex {
			if err := s.index.Flush(); err != nil {
				return err
			}
			s.last.indexTime = s.indexer.storeTime.Load()
		}
		c.IndexMsgTimestamp = s.last.indexTime
	}
	// The snapshot first: it names the checkpoint that follows as well as the one before, so a kill between the two leaves it valid.
	if err := s.queues.SaveSnapshot(at, c); err != nil {
		return err
	}
	if err := s.checkpoint.Save(c); err != nil {
		return err
	}
	s.last.at, s.last.begun = at, begun
	if withIndex {
		s.last.indexAt, s.last.indexRun = at, begun
	}
	return nil
}

// Close stops the followers, makes a checkpoint and closes the files. Nothing may be appended any more.
func (s *Store) Close() error {
	s.stop()
	s.wg.Wait()
	s.DispatchWait()
	var errs []error
	if s.index != nil {
		s.indexer.follow(s, s.Dispatched())
	}
	clean := s.log.Err() == nil || errors.Is(s.log.Err(), commitlog.ErrDiskFull)
	if clean {
		// Here all entries go into their files: whoever takes the store over after a stop in order reads no snapshot of ours.
		errs = append(errs, s.queues.WriteBack(), s.Checkpoint())
	}
	errs = append(errs, s.log.Close(), s.queues.Close())
	if s.index != nil {
		errs = append(errs, s.index.Close())
	}
	err := errors.Join(errs...)
	return errors.Join(err, s.checkpoint.Close(), s.run.Close(clean && err == nil))
}

// dueTime is when a message of a delay level stored at storeTime is due, ms.
func (s *Store) dueTime(level []byte, storeTime int64) (int64, bool) {
	n, err := strconv.Atoi(string(level))
	if err != nil || n < 1 || len(s.opt.DelayLevels) == 0 {
		return 0, false
	}
	return storeTime + s.opt.DelayLevels[min(n, len(s.opt.DelayLevels))-1].Milliseconds(), true
}

// ReadMessage reads and checks the record at a log offset, waiting for the disk if need be.
func (s *Store) ReadMessage(off int64, r *message.Record) ([]byte, error) {
	raw, err := s.log.ReadRecord(off)
	if err != nil {
		return nil, err
	}
	return raw, message.Decode(raw, r)
}

// StoreTime is the store time of the record that e points to, ms.
func (s *Store) StoreTime(e Entry) (int64, error) {
	// The store time stands at 56, or at 68 behind an IPv6 address; sysFlag at 36 tells.
	var head [76]byte
	if err := s.log.ReadWait(head[:], e.PhysicalOffset); err != nil {
		return 0, fmt.Errorf("store time at the log offset %d: %w", e.PhysicalOffset, err)
	}
	return message.StoreTimestampOf(head[:]), nil
}
