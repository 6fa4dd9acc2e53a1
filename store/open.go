package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// Opening a store (R4, R5, R6). What has to be read again depends on how the last run ended and on who ran it:
//
//	our snapshot is valid      queues are as of its log offset D; the log is read from D on. No queue file is opened.
//	no snapshot, clean stop    the queue files tell the last message that they hold; the log is read behind it.
//	no snapshot, crash         the log is read from the start of the newest segment that the checkpoint covers.
//	no snapshot, no checkpoint the whole log is read.
//
// A checkpoint comes every 10 s or 64 MiB of log, so a start after a crash reads that much and not what is stored.

// Open opens the store in o.Root, made if it is not there.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{opt: o}
	s.dispatch.notes.make(keptNotes)
	s.dispatch.indexNotes.make(keptIndexNotes)
	s.SetRetention(o.Retention)
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx, s.stop = ctx, cancel
	err := s.openDerived()
	if err == nil {
		err = s.openLog()
	}
	if err != nil {
		cancel()
		return nil, errors.Join(err, s.closeDerived())
	}
	s.rebuildFound()
	// What it says is logged.
	_, _ = s.lookAtDisk()
	s.goLabelled(ctx, "checkpoint", s.maintain)
	s.goLabelled(ctx, "retention", s.runRetention)
	if s.index != nil {
		s.goLabelled(ctx, "index", func(ctx context.Context) { s.indexer.run(ctx, s) })
	}
	return s, nil
}

// tailName is the file in the store's root that keeps the end of the log where the engine does not store into the segments at once.
const tailName = "ringmq-tail"

func (s *Store) openDerived() error {
	o := &s.opt
	if err := o.FS.MkdirAll(o.Root, 0o755); err != nil {
		return err
	}
	// A process that was killed while it made the folder left a name that is not durable yet. One that made a snapshot had come further.
	_, err := o.FS.Stat(filepath.Join(o.Root, snapshotName))
	if fresh := err != nil; fresh {
		if err := o.FS.SyncDir(filepath.Dir(o.Root)); err != nil {
			return err
		}
	}
	if s.run, err = openRunFiles(o.FS, o.Root, o.Logger, o.BootID); err != nil {
		return err
	}
	if s.checkpoint, err = OpenCheckpoint(o.FS, o.Root, o.Logger); err != nil {
		return err
	}
	s.queues, err = NewQueueTable(QueueTableOptions{
		FS: o.FS, Root: o.Root, FileUnits: o.QueueFileUnits, Logger: o.Logger, LogEnd: s.logEnd, OnDamage: s.queueDamaged,
	})
	if err != nil || !o.IndexEnable {
		return err
	}
	s.index, err = OpenIndex(IndexOptions{
		FS: o.FS, Dir: filepath.Join(o.Root, "index"), HashSlots: o.HashSlots, Entries: o.IndexEntries, Logger: o.Logger,
		DropAfter: s.indexDropAfter(),
	})
	return err
}

// indexDropAfter is IndexOptions.DropAfter: where a Java broker may have crashed, its checkpoint tells which index files were flushed.
func (s *Store) indexDropAfter() int64 {
	if s.run.Last != EndedUnknown {
		return 0
	}
	fields, _ := s.checkpoint.Load()
	return max(fields.IndexMsgTimestamp, 1)
}

// logEnd bounds what a queue entry may point to; before the log is open nothing is known.
func (s *Store) logEnd() int64 {
	if s.log == nil {
		return 1<<63 - 1
	}
	return s.log.Published()
}

func (s *Store) closeDerived() error {
	var errs []error
	if s.index != nil {
		errs = append(errs, s.index.Close())
	}
	if s.queues != nil {
		errs = append(errs, s.queues.Close())
	}
	if s.checkpoint != nil {
		errs = append(errs, s.checkpoint.Close())
	}
	if s.run != nil {
		errs = append(errs, s.run.Close(false))
	}
	return errors.Join(errs...)
}

// startOffset loads the queues and tells from where the log has to be read.
func (s *Store) startOffset() (from int64, fromSnapshot bool, err error) {
	o := &s.opt
	fields, known := s.checkpoint.Load()
	if known {
		at, err := s.queues.LoadSnapshot(fields)
		if err == nil {
			return at, true, nil
		}
		o.Logger.Info("queues are read from their files", "reason", err)
	}
	end, err := s.queues.LoadScan(context.Background())
	if err != nil {
		return 0, false, err
	}
	switch {
	case s.run.Clean():
		return end, false, nil
	case known:
		return fields.LogicsPhysicalOffset, false, nil
	}
	return 0, false, nil
}

func (s *Store) openLog() error {
	from, snapshot, err := s.startOffset()
	if err != nil {
		return err
	}
	o := &s.opt
	lo := commitlog.Options{FS: o.FS, Dir: o.CommitLogDir, SegmentSize: o.SegmentSize, FlushEvery: o.FlushEvery, Window: o.Window,
		EngineOptions: o.Engine, Logger: o.Logger, OnFlushed: o.OnFlushed, OnFail: o.OnFail}
	if o.FS == ioengine.OS() {
		lo.TailFile = filepath.Join(o.Root, tailName)
	}
	if !snapshot && !s.run.Clean() {
		// A Java broker's checkpoint tells a covered offset, not where a record starts: segments do start with one.
		from = commitlog.AlignToSegment(&lo, from)
	}
	if !s.run.Clean() {
		// From there on the log decides. An entry there may be of a record that the machine lost, or that recovery is about to set aside.
		if err := s.queues.CutFrom(from); err != nil {
			return err
		}
	}
	visit := func(_ []byte, r *message.Record) error {
		s.redispatch(r)
		return nil
	}
	log, rep, err := commitlog.Open(lo, from, s.run.Clean(), filepath.Join(o.Root, "quarantine"), visit)
	if err != nil {
		return fmt.Errorf("open the commit log: %w", err)
	}
	s.log, s.recovery = log, rep
	s.dispatch.at.Store(rep.End)
	s.beginCheckpoints(rep)
	if s.mayPointBeyond(rep) {
		if err := s.queues.TruncateBeyond(rep.End); err != nil {
			return errors.Join(err, log.Close())
		}
	}
	s.queues.All(func(q *ConsumeQueue) {
		q.Next = max(q.Next, q.Max())
		if q.Min() == 0 || s.log.MinOffset() > 0 {
			q.TrimBefore(s.log.MinOffset())
		}
	})
	if s.index != nil {
		if err := s.index.TruncateBeyond(rep.End); err != nil {
			return errors.Join(err, log.Close())
		}
		s.indexer.at.Store(min(s.index.Progress(), rep.End))
		if n := len(s.index.files); n > 0 {
			s.indexer.storeTime.Store(s.index.files[n-1].header.endTime)
		}
	}
	o.Logger.Info("commit log is open", "from", rep.From, "end", rep.End, "recordsRead", rep.Records, "quarantined", len(rep.Quarantined),
		"tornBytes", rep.TornBytes, "cleanStop", s.run.Clean())
	return nil
}

// beginCheckpoints counts the time to the next checkpoint from now, and the bytes from what recovery read.
func (s *Store) beginCheckpoints(rep *commitlog.Report) {
	now := s.opt.Now()
	fields, _ := s.checkpoint.Load()
	from := min(rep.From, rep.End)
	s.last = lastCheckpoint{at: from, indexAt: from, begun: now, indexRun: now, indexTime: fields.IndexMsgTimestamp}
}

// mayPointBeyond tells whether a queue may hold entries of records that are not in the log. A machine that lost power may have kept entries
// and lost their records; a process that was killed can't have: the log's bytes were in the page cache before the entries were.
func (s *Store) mayPointBeyond(rep *commitlog.Report) bool {
	if s.run.Last == EndedCrash || s.run.Last == EndedUnknown || rep.TornBytes > 0 || len(rep.Quarantined) > 0 {
		return true
	}
	beyond := false
	s.queues.All(func(q *ConsumeQueue) { beyond = beyond || q.lastPhys.Load() >= rep.End })
	return beyond
}

// redispatch puts a record that recovery read into its queue, unless the queue has it.
func (s *Store) redispatch(r *message.Record) {
	s.dispatchRecord(r)
	if t := r.SysFlag & message.SysTransactionMask; t == message.SysTransactionPrepared || t == message.SysTransactionRollback {
		return
	}
	if q := s.queues.Get(r.Topic, r.QueueID); q != nil {
		q.Next = max(q.Next, r.QueueOffset+1)
	}
}
