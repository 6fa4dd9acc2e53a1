package store

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
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

// Writable tells why no message is taken, or nil.
func (s *Store) Writable() error {
	if err := s.log.Err(); err != nil {
		return err
	}
	if s.retention.full.Load() {
		return ErrDiskUsed
	}
	return nil
}

// DeleteExpired asks for one run of retention at once, whatever the hour.
func (s *Store) DeleteExpired() { s.retention.now.Store(true) }

func (s *Store) runRetention(ctx context.Context) {
	s.retention.started = time.Now()
	s.retention.startedWall = s.opt.Now()
	every(ctx, s.opt.Retention.Every, func() { s.retain(ctx) })
}

// retain drops what has to go now.
func (s *Store) retain(ctx context.Context) {
	used, err := s.DiskUsed()
	if err != nil {
		s.opt.Logger.Error("disk usage is unknown, nothing is deleted", "err", err)
		return
	}
	ret := &s.opt.Retention
	if full := used > ret.WarningLevel; full != s.retention.full.Swap(full) {
		s.opt.Logger.Error("disk usage crossed diskSpaceWarningLevelRatio", "used", used, "limit", ret.WarningLevel, "takesMessages", !full)
	}
	asked := s.retention.now.Swap(false)
	byAge := asked || used > ret.MaxUsed || slices.Contains(ret.DeleteWhen, s.wallNow().Hour())
	force := used > ret.CleanForcibly
	dropped := 0
	for _, seg := range s.log.Segments() {
		if dropped == ret.MaxPerRun || ctx.Err() != nil {
			break
		}
		if !force && !(byAge && s.expired(seg.Name)) {
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
	}
	if dropped > 0 {
		s.trimDerived()
	}
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

// expired tells whether a segment's last change is older than fileReservedTime.
func (s *Store) expired(name string) bool {
	info, err := s.opt.FS.Stat(name)
	return err == nil && s.wallNow().Sub(info.ModTime()) > s.opt.Retention.Reserved
}

// trimDerived drops queue and index files that point before the log.
func (s *Store) trimDerived() {
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
