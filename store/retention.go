package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/message"
)

// Retention is when old messages go. Does the work of CleanCommitLogService, CleanConsumeQueueService.
type Retention struct {
	Reserved        time.Duration // fileReservedTime, 72 h; age of a segment's last message
	DeleteWhen      []int         // deleteWhen, hours of the day, 4
	Every           time.Duration // cleanResourceInterval, 10 s
	MaxUsed         float64       // diskMaxUsedSpaceRatio, 0.75: above it segments go by age at any hour
	CleanForcibly   float64       // diskSpaceCleanForciblyRatio, 0.85: above it they go whatever their age
	WarningLevel    float64       // diskSpaceWarningLevelRatio, 0.90: above it no more messages are taken
	MaxPerRun       int           // 10
	BetweenSegments time.Duration // deleteCommitLogFilesInterval, 100 ms
}

func (r *Retention) setDefaults() {
	if r.Reserved == 0 {
		r.Reserved = 72 * time.Hour
	}
	if len(r.DeleteWhen) == 0 {
		r.DeleteWhen = []int{4}
	}
	if r.Every == 0 {
		r.Every = 10 * time.Second
	}
	if r.MaxUsed == 0 {
		r.MaxUsed = 0.75
	}
	if r.CleanForcibly == 0 {
		r.CleanForcibly = 0.85
	}
	if r.WarningLevel == 0 {
		r.WarningLevel = 0.90
	}
	if r.MaxPerRun == 0 {
		r.MaxPerRun = 10
	}
	if r.BetweenSegments == 0 {
		r.BetweenSegments = 100 * time.Millisecond
	}
}

type retentionState struct {
	// rules are what is in force; SetRetention swaps them.
	rules atomic.Pointer[Retention]
	// trimMu: one trims the derived files at a time.
	trimMu sync.Mutex
	// full is set while the disk is used above WarningLevel.
	full atomic.Bool
	// now asks for one run that ignores the hour (DELETE_EXPIRED_COMMITLOG).
	now atomic.Bool
	// age of the store on the monotonic clock, against jumps of the wall clock: see expired.
	started     time.Time
	startedWall time.Time
}

// ErrDiskUsed refuses messages while the disk is used above diskSpaceWarningLevelRatio.
var ErrDiskUsed = errors.New("the disk is used above diskSpaceWarningLevelRatio: no more messages are taken until space returns")

// SetRetention changes the rules. How often they are looked at stays as it was at the start.
func (s *Store) SetRetention(r Retention) {
	r.setDefaults()
	s.retention.rules.Store(&r)
}

// Writable tells why no message is taken, or nil.
func (s *Store) Writable() error {
	if err := s.log.Err(); err != nil {
		return err
	}
	if s.retention.full.Load() {
		return ErrDiskUsed
	}
	if s.queues.Backlog() > maxBacklog {
		return ErrQueuesBehind
	}
	return nil
}

// maxBacklog is four times what makes the dispatcher write queue entries itself: more can only wait because writing them fails.
const maxBacklog = 4 * defaultUnwritten

// ErrQueuesBehind refuses messages while the consume queues can't be written: their entries would fill the memory. It is a
// commitlog.ErrNotReady: the client may try again.
var ErrQueuesBehind = fmt.Errorf("consume queue files are not written fast enough or not at all, see the log: %w", commitlog.ErrNotReady)

// DeleteExpired asks for one run of retention at once, whatever the hour.
func (s *Store) DeleteExpired() { s.retention.now.Store(true) }

func (s *Store) runRetention(ctx context.Context) {
	s.retention.started = time.Now()
	s.retention.startedWall = s.opt.Now()
	beat.Every(ctx, s.opt.Retention.Every, func() { s.retain(ctx) })
}

// retain drops what has to go now.
func (s *Store) retain(ctx context.Context) {
	used, err := s.lookAtDisk()
	if err != nil {
		return
	}
	ret := s.retention.rules.Load()
	asked := s.retention.now.Swap(false)
	byAge := asked || used > ret.MaxUsed || slices.Contains(ret.DeleteWhen, s.wallNow().Hour())
	dropped := 0
	for _, seg := range s.log.Segments() {
		if dropped == ret.MaxPerRun || ctx.Err() != nil {
			break
		}
		// Messages that are not expired go only as long as the disk is too full.
		force := used > ret.CleanForcibly
		if !force && !(byAge && s.expired(seg)) {
			break
		}
		if err := s.log.DropOldest(); err != nil {
			s.opt.Logger.Error("a segment was not deleted", "file", seg.Name, "err", err)
			break
		}
		s.opt.Logger.Info("segment deleted", "file", seg.Name, "diskUsed", used, "forced", force)
		dropped++
		select {
		case <-ctx.Done():
		case <-time.After(ret.BetweenSegments):
		}
		if used, err = s.lookAtDisk(); err != nil {
			break
		}
	}
	if dropped > 0 {
		s.trimDerived()
	}
}

// lookAtDisk measures the used share of the disk, and takes no messages above the warning level.
func (s *Store) lookAtDisk() (used float64, err error) {
	used, err = s.DiskUsed()
	if err != nil {
		s.opt.Logger.Error("disk usage is unknown, nothing is deleted", "err", err)
		return 0, err
	}
	limit := s.retention.rules.Load().WarningLevel
	if full := used > limit; full != s.retention.full.Swap(full) {
		s.opt.Logger.Error("disk usage crossed diskSpaceWarningLevelRatio", "used", used, "limit", limit, "takesMessages", !full)
	}
	return used, nil
}

// wallNow is the wall clock, held to what the monotonic clock allows: a clock that jumps forward by a year must not delete a store (R7).
func (s *Store) wallNow() time.Time {
	now := s.opt.Now()
	steady := s.retention.startedWall.Add(time.Since(s.retention.started))
	if now.Sub(steady) > time.Minute {
		return steady
	}
	return now
}

// expired tells whether a segment's last message is older than fileReservedTime. It is not younger than the first message behind it; the
// time of the file's last change alone would be that of its preparation, where the file system sees no stores through a mapping.
func (s *Store) expired(seg commitlog.Segment) bool {
	info, err := s.opt.FS.Stat(seg.Name)
	if err != nil {
		return false
	}
	now, last := s.wallNow(), info.ModTime()
	if raw, err := s.log.ReadRecord(seg.End); err == nil {
		if next := time.UnixMilli(message.StoreTimestampOf(raw)); next.After(last) && !next.After(now) {
			last = next
		}
	}
	return now.Sub(last) > s.retention.rules.Load().Reserved
}

// trimDerived drops queue and index files that point before the log.
func (s *Store) trimDerived() {
	s.retention.trimMu.Lock()
	defer s.retention.trimMu.Unlock()
	minPhys := s.log.MinOffset()
	s.queues.All(func(q *ConsumeQueue) { q.TrimBefore(minPhys) })
	if s.index != nil {
		if err := s.index.TrimBefore(minPhys); err != nil {
			s.opt.Logger.Error("old index files stay", "err", err)
		}
	}
}

// DiskUsed is the used share of the commit log's file system, 0 to 1.
func (s *Store) DiskUsed() (float64, error) {
	free, total, err := s.opt.FS.Usage(s.opt.CommitLogDir)
	if err != nil || total <= 0 {
		return 0, err
	}
	return 1 - float64(free)/float64(total), nil
}
