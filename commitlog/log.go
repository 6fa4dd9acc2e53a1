package commitlog

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// Options of a log. The zero value of a size or time means its default.
type Options struct {
	FS          ioengine.FS
	Dir         string        // storePathCommitLog
	SegmentSize int64         // mappedFileSizeCommitLog, bytes, 1 GiB
	WarmAhead   int64         // memory kept ready ahead of the tail, bytes, 64 MiB
	KeepBehind  int64         // memory kept mapped behind the tail, bytes, 64 MiB: tail readers copy from it
	FlushEvery  time.Duration // flushIntervalCommitLog: longest time between two flushes, 500 ms
	Window      time.Duration // asyncFlushWindowMillis: age of the oldest unflushed byte from which on Behind tells to wait, 1 s
	// MaxUnflushed is the most bytes that may be published and not yet on the device, 256 MiB: at it appends answer ErrNotReady. It
	// bounds what a power loss takes, and how far behind a hole recovery has to look for records.
	MaxUnflushed int64
	EngineOptions
	Logger *slog.Logger
	// OnFlushed is called by the flusher after each advance of the flushed offset and after a failure: whoever holds waiters
	// looks at them. It must not wait.
	OnFlushed func()
	// OnFail is called once, when the device fails (R2).
	OnFail func(error)
	// newWriter is ioengine.NewLogWriter; tests have one that ends operations in any order.
	newWriter func(kind ioengine.EngineKind, depth int) (ioengine.LogWriter, error)
	// cacheAlways has a cold cache whatever the engine that has a Tail: for tests, whose doubles are not written past the page cache.
	cacheAlways bool
}

// EngineOptions say how records reach the segments.
type EngineOptions struct {
	// Engine is one of the log engines (ioEngine). All but EngineMmap keep the end of the log in a Tail of TailSize bytes (128 MiB). Where the
	// system refuses what an engine needs, the next one takes its place: uring, direct, pwrite, mmap.
	Engine   ioengine.EngineKind
	TailSize int64
	// TailFile is where the Tail lies: it outlives the process. Without Sync that is what keeps acknowledged messages; with Sync a process that
	// is killed with several writes on their way leaves no hole between those that were done. Empty: nothing needs to outlive it, or there is no
	// Tail. It is looked into at Open whatever the engine, because an earlier run may have left something there.
	TailFile string
	// Sync: acknowledgements wait for the device (flushDiskType=SYNC_FLUSH).
	Sync bool
	// ColdCacheSize is the most memory for blocks of old segments that are read again, bytes (coldReadCacheBytes); 0: none, they are read through
	// the page cache. EngineMmap and EnginePwrite leave what they write in the page cache, and read from there whatever this is.
	ColdCacheSize int64
}

const (
	defaultSegmentSize  = 1 << 30
	defaultWarm         = 64 << 20
	defaultTail         = 128 << 20
	defaultMaxUnflushed = 256 << 20
	// maxRecord is the largest record or batch; no frame of either program holds a larger one.
	maxRecord = 64 << 20
	// writeBackStep is how much is written back at a time; write-back stays pacedSteps behind what was started.
	writeBackStep = 4 << 20
	pacedSteps    = 4
	pageSize      = 4096
)

func (o *Options) setDefaults() {
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegmentSize
	}
	if o.WarmAhead == 0 {
		o.WarmAhead = defaultWarm
	}
	if o.TailSize == 0 {
		o.TailSize = defaultTail
	}
	if o.Engine != ioengine.EngineMmap {
		o.WarmAhead = min(o.WarmAhead, o.TailSize/4)
	}
	// The largest batch must fit into what is kept ready, else its append would wait for ever.
	o.WarmAhead = max(o.WarmAhead, 2*warmStep)
	if o.KeepBehind == 0 {
		o.KeepBehind = defaultWarm
	}
	if o.MaxUnflushed == 0 {
		o.MaxUnflushed = defaultMaxUnflushed
	}
	if o.FlushEvery == 0 {
		o.FlushEvery = 500 * time.Millisecond
	}
	if o.Window == 0 {
		o.Window = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFlushed == nil {
		o.OnFlushed = func() {}
	}
	if o.newWriter == nil {
		o.newWriter = ioengine.NewLogWriter
	}
	if o.OnFail == nil {
		o.OnFail = func(error) {}
	}
}

// Log is one commit log. Its methods may be called from any goroutine.
type Log struct {
	opt Options
	// maxAppend is the most bytes one Append takes: they must fit into a segment, and into the memory that the keeper holds ready, or
	// they would be waited for without end.
	maxAppend int64

	// mu is the ownership of the tail: of tail, next, the two times, and of the bytes between published and limit. Never held over a
	// system call. failed is set under it.
	mu   sync.Mutex
	tail *segment
	// next is the segment behind the tail's once its first memory is ready. The keeper sets it, the tail's owner takes it.
	next *segment
	// lastStoreTime is the newest store time given, lastNow the newest clock reading of an appender; they differ after the clock was
	// set back.
	lastStoreTime, lastNow int64
	// refused is the size of the append that was refused last: what WaitReady looks for.
	refused int64

	// published, flushed, minOffset: see the package comment. published is written by the tail's owner, flushed by the flusher,
	// minOffset by DropBefore.
	published atomic.Int64
	flushed   atomic.Int64
	minOffset atomic.Int64

	// memory is the log's end for engines that have it there, nil else. written is the offset before which every byte is in the segments, by
	// the pipeline; with memory, flushed <= written <= published. roomWanted is what the keeper waits for written to reach; 0: nothing.
	memory     *ioengine.Tail
	written    atomic.Int64
	roomWanted atomic.Int64

	// oldestUnflushed is a time not later than when the byte at flushed was appended, ms of the appenders' clock; 0 when everything
	// is flushed. Set by the first append after that, moved on by the flusher.
	oldestUnflushed atomic.Int64

	// segments are all of them in order of offset, the tail and next included. Replaced as a whole, under listMu.
	segments atomic.Pointer[[]*segment]
	listMu   sync.Mutex

	failed   atomic.Pointer[FailedError]
	closed   atomic.Bool
	diskFull atomic.Bool

	keeper keeper
	// moved is closed when flushed has moved; nil: nobody waits (WaitFlushed). Under listMu.
	moved   chan struct{}
	flusher flusher
	// pipeline does the flusher's work where there is memory.
	pipeline *pipeline
	dropper  dropper
	// cold are blocks of segments in memory; nil: there is no such cache. Set by Open.
	cold *coldCache
	// kickAt and writeBackAt are log offsets from which on an append wakes the keeper and the flusher.
	kickAt, writeBackAt atomic.Int64
}

// Published is the end of the log: every byte before it is whole.
func (l *Log) Published() int64 { return l.published.Load() }

// Flushed is the offset before which every byte is on the device.
func (l *Log) Flushed() int64 { return l.flushed.Load() }

// MinOffset is the first offset that is still there.
func (l *Log) MinOffset() int64 { return l.minOffset.Load() }

// SegmentSize is the size of every segment in bytes.
func (l *Log) SegmentSize() int64 { return l.opt.SegmentSize }

// Err is why the log takes no messages: a *FailedError, ErrClosed, ErrDiskFull, or nil.
func (l *Log) Err() error {
	if err := l.refusal(); err != nil {
		return err
	}
	if l.diskFull.Load() {
		return ErrDiskFull
	}
	return nil
}

// Failed is the failure of the log's device, or nil.
func (l *Log) Failed() error {
	if f := l.failed.Load(); f != nil {
		return f
	}
	return nil
}

// UnflushedAge is how long ago the oldest byte that is not on the device was appended, at most; 0 when there is none.
func (l *Log) UnflushedAge(nowMillis int64) time.Duration {
	oldest := l.oldestUnflushed.Load()
	if oldest == 0 || nowMillis < oldest {
		return 0
	}
	return time.Duration(nowMillis-oldest) * time.Millisecond
}

// Behind tells that the device does not keep up with asynchronous flushing (R1): the oldest unflushed byte is older than the
// window, and an acknowledgement must wait for the flush of its own record until that is over.
func (l *Log) Behind(nowMillis int64) bool { return l.UnflushedAge(nowMillis) > l.opt.Window }
