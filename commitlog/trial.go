package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// Trial measures a log engine on a disk: it is a log like any other, with the keeper, the flusher and the segments of a broker's, in a
// folder of its own that is gone when the trial is closed. Messages are records of TrialMessage bytes.
//
// One goroutine appends, as a reactor does: whoever waits for the device is in a ring of Waiters and costs no goroutine.
type Trial struct {
	log   *Log
	opt   TrialOptions
	draft message.Draft
	// committer is what a reactor would have; nil where group commits are the flusher's.
	committer *Committer
	// flushed has a token after the flushed offset moved, trimmed after a segment was dropped; trim asks for a look at what can be.
	flushed, trimmed, trim chan struct{}
	// groups counts the moves of the flushed offset.
	groups atomic.Int64
	quit   chan struct{}
	trims  sync.WaitGroup
}

// TrialOptions say what is tried out.
type TrialOptions struct {
	FS ioengine.FS // the machine's when nil
	// Dir is the trial's folder, on the disk in question; its name ends in .tmp. What is there from a trial that was killed is removed at
	// the start, the folder itself at the end.
	Dir         string
	SegmentSize int64 // bytes, 64 MiB
	EngineOptions
	Logger *slog.Logger
}

const (
	// TrialMessage is the size of a trial's records, bytes.
	TrialMessage = 1024
	// TrialSegment is the default of TrialOptions.SegmentSize.
	TrialSegment = 64 << 20

	// trialKept is how many segments a trial's log may have between its first and its last byte, trialSegments how many its files come to
	// at most: the next one, the one that is being removed, and one that has begun.
	trialKept     = 6
	trialSegments = trialKept + 3
	// trialTurn is the time between two looks at what is due, when appends come at a rate.
	trialTurn = 500 * time.Microsecond
	// trialWarmUp commits come before the clock starts: the first ones also write what preparing the segment left.
	trialWarmUp = 4
)

// Space is the most disk space that the trial takes, bytes.
func (o *TrialOptions) Space() int64 {
	space := trialSegments * cmp.Or(o.SegmentSize, TrialSegment)
	if o.hasTailFile() {
		space += cmp.Or(o.TailSize, defaultTail)
	}
	return space
}

func (o *TrialOptions) hasTailFile() bool { return o.Engine != ioengine.EngineMmap }

// TrialFigures are what one measurement came to.
type TrialFigures struct {
	Messages int64
	Elapsed  time.Duration
	Groups   int64 // group commits, or flushes, that these messages took
	// P50 and P996 are of the time from the append to its being on the device (Commits), or from when it was due to its return (Appends).
	P50, P996 time.Duration
	CPU       time.Duration // of the whole process
	CPUKnown  bool
}

// PerSecond is messages a second.
func (f *TrialFigures) PerSecond() float64 { return float64(f.Messages) / f.Elapsed.Seconds() }

// GroupsPerSecond is group commits a second.
func (f *TrialFigures) GroupsPerSecond() float64 { return float64(f.Groups) / f.Elapsed.Seconds() }

// CPUPerMessage means nothing unless CPUKnown.
func (f *TrialFigures) CPUPerMessage() time.Duration {
	return f.CPU / time.Duration(max(f.Messages, 1))
}

// OpenTrial makes the log of a trial. The error wraps ioengine.ErrEngineRefused where the engine is not to be had here: no other takes its
// place, as it would for a broker. It wraps ioengine.ErrDiskFull where there is no room for Space.
func OpenTrial(o TrialOptions) (*Trial, error) {
	if o.FS == nil {
		o.FS = ioengine.OS()
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = TrialSegment
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if filepath.Ext(o.Dir) != ".tmp" {
		panic("BUG: a trial removes its folder, and " + o.Dir + " does not look like one for that")
	}
	if err := o.FS.RemoveAll(o.Dir); err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	t := &Trial{opt: o, flushed: make(chan struct{}, 1), trimmed: make(chan struct{}, 1), trim: make(chan struct{}, 1), quit: make(chan struct{})}
	if err := t.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("trial of the log engine %s: %w", o.Engine, err), o.FS.RemoveAll(o.Dir))
	}
	t.draft = message.Draft{Topic: []byte("trial")}
	t.draft.Body = make([]byte, TrialMessage-t.draft.Size())
	for i := range t.draft.Body {
		t.draft.Body[i] = byte('a' + i%26)
	}
	t.draft.BodyCRC = message.BodyCRC(t.draft.Body)
	t.trims.Go(t.trimAlways)
	return t, nil
}

func (t *Trial) open() error {
	o := &t.opt
	if err := ioengine.EngineWorks(o.Engine, o.Dir, o.SegmentSize); err != nil {
		return err
	}
	free, _, err := o.FS.Usage(o.Dir)
	if err != nil {
		return err
	}
	if need := o.Space(); free < need {
		return fmt.Errorf("%w: it needs %d MiB in %s, which has %d MiB", ioengine.ErrDiskFull, need>>20, o.Dir, free>>20)
	}
	log := Options{FS: o.FS, Dir: filepath.Join(o.Dir, "log"), SegmentSize: o.SegmentSize, MaxUnflushed: min(64<<20, 2*o.SegmentSize),
		EngineOptions: o.EngineOptions, Logger: o.Logger, OnFlushed: t.onFlushed}
	if o.hasTailFile() {
		log.TailFile = filepath.Join(o.Dir, "tail")
	}
	if err := o.FS.MkdirAll(log.Dir, 0o755); err != nil {
		return err
	}
	t.log, _, err = Open(log, 0, true, filepath.Join(o.Dir, "quarantine"), func([]byte, *message.Record) error { return nil })
	if err != nil {
		return err
	}
	if t.log.Engine() != o.Engine {
		return errors.Join(fmt.Errorf("%w: %s took its place", ioengine.ErrEngineRefused, t.log.Engine()), t.log.Close())
	}
	if t.committer, err = t.log.NewCommitter(); err != nil && !errors.Is(err, ErrNotHosted) {
		return errors.Join(err, t.log.Close())
	}
	return nil
}

// onFlushed is called by the log's flusher.
func (t *Trial) onFlushed() {
	t.groups.Add(1)
	offer(t.flushed)
	offer(t.trim)
}

func offer(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// EncodeAt implements Encoder.
func (t *Trial) EncodeAt(dst []byte, physicalOffset, storeTimestamp int64) {
	t.draft.Encode(dst, 0, physicalOffset, storeTimestamp)
}

// trimAlways removes what is flushed, so that a trial's space is bounded.
func (t *Trial) trimAlways() {
	for {
		select {
		case <-t.quit:
			return
		case <-t.trim:
		}
		for t.log.MinOffset()+t.log.SegmentSize() <= t.log.Flushed() {
			if err := t.log.DropOldest(); err != nil {
				t.opt.Logger.Warn("trial: an old segment is not removed", "err", err)
				break
			}
			offer(t.trimmed)
		}
	}
}

// append appends one message, waiting where the log says so. end is the log offset behind it.
func (t *Trial) append(ctx context.Context, now int64) (end int64, err error) {
	l := t.log
	for {
		if l.Published()-l.MinOffset() > (trialKept-1)*l.SegmentSize() {
			if err := t.await(ctx, t.trimmed); err != nil {
				return 0, err
			}
			continue
		}
		at, err := l.Append(TrialMessage, now, t)
		if err == nil {
			return at + TrialMessage, nil
		}
		if errors.Is(err, ErrNotReady) {
			err = l.WaitReady(ctx)
		}
		if err != nil {
			return 0, err
		}
	}
}

// await waits for a token, looking at the log in between: one that has failed gives none.
func (t *Trial) await(ctx context.Context, token chan struct{}) error {
	look := time.NewTimer(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-token:
			return t.log.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			if err := t.log.Err(); err != nil {
				return err
			}
			t.log.RequestFlush()
			offer(t.trim)
			look.Reset(100 * time.Millisecond)
		}
	}
}

// prepare waits until the memory ahead of the log's end is ready and what that left to be written is on the device.
func (t *Trial) prepare(ctx context.Context) error {
	for range trialWarmUp {
		end, err := t.append(ctx, time.Now().UnixMilli())
		if err == nil {
			err = t.log.WaitFlushed(ctx, end)
		}
		if err != nil {
			return err
		}
	}
	return t.log.waitKept(ctx)
}

// waitKept waits until the keeper has nothing to do.
func (l *Log) waitKept(ctx context.Context) error {
	for {
		l.listMu.Lock()
		ready := l.keeper.ready
		l.listMu.Unlock()
		if l.kickAt.Load() > l.published.Load() {
			return nil
		}
		if err := l.Err(); err != nil {
			return err
		}
		l.kickKeeper()
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// measurement is a clock, a histogram, and the readings at the start.
type measurement struct {
	t         *Trial
	histogram *hdrhistogram.Histogram
	began     time.Time
	cpu       time.Duration
	cpuKnown  bool
	groups    int64
	messages  int64
}

func (t *Trial) begin() *measurement {
	m := &measurement{t: t, histogram: hdrhistogram.New(1, int64(time.Minute), 3)}
	m.groups = t.groups.Load()
	m.cpu, m.cpuKnown = ioengine.ProcessCPU()
	m.began = time.Now()
	return m
}

func (m *measurement) now() time.Duration { return time.Since(m.began) }

func (m *measurement) record(d time.Duration) {
	m.messages++
	_ = m.histogram.RecordValue(int64(min(max(d, 1), time.Minute))) // within its range
}

func (m *measurement) end() *TrialFigures {
	f := &TrialFigures{Messages: m.messages, Elapsed: m.now(), Groups: m.t.groups.Load() - m.groups, CPUKnown: m.cpuKnown}
	if cpu, ok := ioengine.ProcessCPU(); ok {
		f.CPU = cpu - m.cpu
	}
	f.P50, f.P996 = time.Duration(m.histogram.ValueAtQuantile(50)), time.Duration(m.histogram.ValueAtQuantile(99.6))
	return f
}

// Commits keeps inFlight messages on their way to the device for d, or until the first has arrived: each that does is followed by another.
func (t *Trial) Commits(ctx context.Context, inFlight int, d time.Duration) (*TrialFigures, error) {
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	if t.committer != nil {
		// As a reactor: what is done is posted by the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	waiters := NewWaiters[time.Duration](inFlight)
	m := t.begin()
	for now := time.Duration(0); now < d || m.messages == 0; now = m.now() {
		for !waiters.Full() {
			end, err := t.append(ctx, m.began.Add(now).UnixMilli())
			if err != nil {
				return nil, err
			}
			waiters.Add(end, math.MaxInt64, now)
		}
		if err := t.commit(ctx); err != nil {
			return nil, err
		}
		reached, now := t.log.Flushed(), m.now()
		for {
			from, _, ok := waiters.Next(reached, 0)
			if !ok {
				break
			}
			m.record(now - from)
		}
	}
	return m.end(), nil
}

// commit asks for a group commit, and returns after one was done.
func (t *Trial) commit(ctx context.Context) error {
	if t.committer == nil {
		t.log.RequestFlush()
		return t.await(ctx, t.flushed)
	}
	t.committer.Commit()
	for {
		select {
		case <-t.flushed:
			return t.log.Err()
		default:
		}
		if err := cmp.Or(ctx.Err(), t.log.Err()); err != nil {
			return err
		}
		if err := t.committer.Await(100 * time.Millisecond); err != nil {
			return err
		}
		t.committer.Look()
	}
}

// Appends appends messages for d, bytesPerSecond of them or, with 0, as fast as the log takes them, and then flushes the rest. That belongs
// to the processor time, and to the time elapsed where there is no rate.
//
// A message is late from the moment it was due, but for the lateness of the timer that wakes the appender: after each sleep what is due by
// then is due then. What an append that waits does to those behind it counts.
func (t *Trial) Appends(ctx context.Context, bytesPerSecond int64, d time.Duration) (*TrialFigures, error) {
	if err := t.prepare(ctx); err != nil {
		return nil, err
	}
	var interval time.Duration
	if bytesPerSecond > 0 {
		interval = max(time.Duration(float64(time.Second)*TrialMessage/float64(bytesPerSecond)), 1)
	}
	m := t.begin()
	woke := time.Duration(0)
	var end int64
	for now := time.Duration(0); now < d || m.messages == 0; {
		due := time.Duration(m.messages) * interval
		if due > now {
			time.Sleep(trialTurn)
			now = m.now()
			woke = now
			continue
		}
		from := max(due, woke)
		if interval == 0 {
			from = now
		}
		var err error
		if end, err = t.append(ctx, m.began.Add(now).UnixMilli()); err != nil {
			return nil, err
		}
		now = m.now()
		m.record(now - from)
	}
	appended := m.now()
	if err := t.log.WaitFlushed(ctx, end); err != nil {
		return nil, err
	}
	f := m.end()
	if interval > 0 {
		f.Elapsed = appended
	}
	return f, nil
}

// Close ends the trial and removes its files.
func (t *Trial) Close() error {
	close(t.quit)
	t.trims.Wait()
	return errors.Join(t.log.Close(), t.opt.FS.RemoveAll(t.opt.Dir))
}
