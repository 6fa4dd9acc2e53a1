package commitlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// Recovery is rule R4. It reads the log from an offset that the caller trusts (its checkpoint) and checks each record.
//
//	... | record | record | ######## | record | record | 0000000000 ...
//	                        bad span   valid again       nothing more
//
// At the first bad record it looks on. Valid records behind it mean that the span rotted, or that the machine lost that page and kept
// later ones: the span is copied to the quarantine folder, its place is filled with records that nobody reads, and the tail is kept.
// Nothing valid behind it means that an append was cut short: the log ends there, and what follows is zeroed before it is served.
// (The original stops at the first bad record: one flipped bit cost it 831 of 839 acknowledged messages.)
//
// A filler is a record of the rolled-back transaction type: neither this program nor Java's dispatches it, both step over it.

// Visitor sees each record in the order of the log. raw and r are valid until it returns.
type Visitor func(raw []byte, r *message.Record) error

// Span is a part of the log that was set aside.
type Span struct{ From, To int64 }

// Report tells what recovery found.
type Report struct {
	From, End   int64  // what was read, and where the log ends
	Records     int64  // valid records
	Quarantined []Span // rotten spans, kept as files in the quarantine folder
	TornBytes   int64  // bytes of a record that was cut short, zeroed
}

const (
	// cleanSearch is how far behind the end of a log that was closed in order is looked for more: what was closed in order ends there,
	// unless a page or two of it rotted into zeroes since.
	cleanSearch = 4 << 20
	// clockSkew is how far ahead of the clock a store time may be to be believed: a flipped bit must not date all messages to come.
	clockSkew = 24 * time.Hour
)

// searchWindow is how far behind a bad record a valid one is looked for: never more than MaxUnflushed was at risk when the power went.
func (l *Log) searchWindow() int64 { return max(l.opt.MaxUnflushed, defaultMaxUnflushed) }

// Open opens the log in o.Dir and recovers it: records from the log offset from on are checked and given to visit. from must be the
// start of a record or the end of the log; 0 or any offset before the first segment means the whole log. clean tells that the log was
// closed in order: then the first place without a record is its end. quarantine is a folder for rotten spans.
func Open(o Options, from int64, clean bool, quarantine string, visit Visitor) (*Log, *Report, error) {
	o.setDefaults()
	l := &Log{opt: o}
	l.keeper.kick, l.keeper.ready = make(chan struct{}, 1), make(chan struct{})
	l.flusher.kick, l.flusher.commit = make(chan struct{}, 1), make(chan struct{}, 1)
	if err := l.openSegments(); err != nil {
		return nil, nil, err
	}
	l.maxAppend = min(l.opt.SegmentSize, l.opt.WarmAhead, l.opt.MaxUnflushed, maxRecord) - message.BlankSize
	// On a disk that is busy with what the last run left, a sync takes tens of milliseconds: this one runs beside the reading.
	named := make(chan error, 1)
	go func() { named <- l.syncNames() }()
	rep, err := l.recover(from, clean, quarantine, visit)
	err = errors.Join(err, <-named)
	if err == nil {
		err = l.syncRecovered(rep, clean)
	}
	if err == nil {
		err = l.openTail(rep, clean)
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.closeFiles())
	}
	if l.memory == nil {
		l.startFlusher()
	} else if err := l.startPipeline(); err != nil {
		return nil, nil, errors.Join(err, l.closeFiles())
	}
	l.openCold()
	l.startKeeper()
	if l.flushed.Load() < rep.End {
		l.RequestFlush()
	}
	return l, rep, nil
}

// syncNames makes the names of the folder and of its segments durable: a process that was killed while it made them left them in memory.
func (l *Log) syncNames() error {
	return errors.Join(l.opt.FS.SyncDir(filepath.Dir(l.opt.Dir)), l.opt.FS.SyncDir(l.opt.Dir))
}

// flushesRecovered tells that what recovery read counts as appended at the start and not as flushed: the flusher syncs it at once, but an
// acknowledgement that does not speak of the device need not wait for that. In a log with memory or Sync all before the first append is flushed,
// and in one that was closed in order it is already.
func (l *Log) flushesRecovered(clean bool) bool { return l.memory == nil && !l.opt.Sync && !clean }

// syncRecovered makes durable what recovery read, unless the flusher does. A process that was killed left it in the page cache, perhaps in
// a segment that nothing is appended to any more.
func (l *Log) syncRecovered(rep *Report, clean bool) error {
	if l.flushesRecovered(clean) {
		return nil
	}
	for at := rep.From; at < rep.End; {
		s := l.find(at)
		to := min(rep.End, s.end())
		if err := s.file.SyncRange(at-s.base, to-s.base); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// openTail takes the segment that holds the end as the tail and makes its first memory ready. Those behind are the keeper's to remove.
func (l *Log) openTail(rep *Report, clean bool) error {
	end := rep.End
	l.leaveBehind(end)
	segs := l.list()
	l.minOffset.Store(end)
	if len(segs) > 0 {
		l.minOffset.Store(segs[0].base)
	}
	l.published.Store(end)
	l.flushed.Store(end)
	l.written.Store(end)
	if l.flushesRecovered(clean) && rep.From < end {
		l.flushed.Store(rep.From)
		l.lastNow = time.Now().UnixMilli()
		l.oldestUnflushed.Store(l.lastNow)
	}
	if l.memory != nil {
		l.memory.Begin(end)
	}
	l.flusher.started, l.flusher.waited = end, end
	l.writeBackAt.Store(end + writeBackStep)
	var err error
	if n := len(segs); n > 0 {
		l.tail = segs[n-1]
		for _, s := range segs[:n-1] {
			s.unmap(l)
		}
	}
	if l.tail != nil && end < l.tail.end() {
		err = l.continueTail(end)
	} else {
		err = l.beginTail(end)
	}
	if errors.Is(err, ioengine.ErrDiskFull) && l.tail != nil {
		// What is there can be read. Appends answer ErrDiskFull until the keeper gets what is missing.
		l.diskFull.Store(true)
		l.logDiskFull(err)
		return nil
	}
	return err
}

// leaveBehind takes the segments behind end out of the log, for the keeper. Recovery has looked into them: they hold nothing.
func (l *Log) leaveBehind(end int64) {
	segs := l.list()
	keep := len(segs)
	for keep > 0 && segs[keep-1].base > end {
		keep--
	}
	l.keeper.unused = segs[keep:]
	segs = segs[:keep:keep]
	l.segments.Store(&segs)
}

// dropUnused removes the segments that were left behind, before the keeper makes one of that name: a removal waits for the disk.
func (l *Log) dropUnused() error {
	unused := l.keeper.unused
	l.keeper.unused = nil
	// The last one first, each durably: of a power loss in between no hole may be left, which the next start would refuse.
	for _, s := range slices.Backward(unused) {
		l.opt.Logger.Info("removing a segment that was made ahead and never used", "file", s.file.Name())
		if err := errors.Join(s.file.Unmap(), s.file.Close(), l.opt.FS.Remove(s.file.Name()), l.opt.FS.SyncDir(l.opt.Dir)); err != nil {
			return err
		}
	}
	return nil
}

// firstWarm is how much memory is made ready before the first append may come; the keeper goes on from there.
const firstWarm = 1 << 20

// continueTail makes the memory behind end ready, which lies inside the last segment.
func (l *Log) continueTail(end int64) error {
	s := l.tail
	at := (end - s.base) &^ (pageSize - 1)
	s.warm.Store(at)
	s.cooled = at
	s.hot.Store(at)
	if l.memory != nil {
		// Until warm has brought the bytes before end there: on a full disk that may take a while.
		s.hot.Store(-1)
		s.stored = end - s.base
	}
	s.zeroed = min((max(end, l.keeper.zeroTo)-s.base+pageSize-1)&^(pageSize-1), s.size)
	return l.warm(s, min(at+firstWarm, s.size))
}

// beginTail makes the segment that starts at end, where the last one is full or there is none. When the disk is full the full segment
// stays the tail.
func (l *Log) beginTail(end int64) error {
	if full := l.tail; full != nil {
		full.warm.Store(full.size)
		full.unmap(l)
	}
	s, err := l.createSegment(end)
	if err != nil {
		return err
	}
	l.addSegment(s)
	l.tail = s
	return l.warm(s, min(firstWarm, s.size))
}

// scanner reads the log forward through a buffer.
type scanner struct {
	l    *Log
	buf  []byte
	at   int64 // log offset of buf[0]
	fill int
	// ahead is the log offset to which at most is read at once; 0: the segment's end.
	ahead int64
	// dataEnd is the log offset behind the last byte read that was not zero.
	dataEnd int64
	// written are the parts of the segment seg that were ever written, asked for before anything was read there: see dataSpans.
	seg     *segment
	written []Span
}

const scanBuffer = 1 << 20

// bytes returns the bytes at off, at least want where the segment has them; they are valid until the next call.
func (sc *scanner) bytes(s *segment, off int64, want int) ([]byte, error) {
	want = int(min(int64(want), s.end()-off))
	if off >= sc.at && off+int64(want) <= sc.at+int64(sc.fill) {
		return sc.buf[off-sc.at : sc.fill], nil
	}
	if n := max(want, scanBuffer); len(sc.buf) < n {
		sc.buf = make([]byte, n)
	}
	sc.at, sc.fill = off, 0
	most := s.end() - off
	if sc.ahead > 0 {
		most = min(most, max(sc.ahead-off, int64(want)))
	}
	n, err := s.file.ReadAt(sc.buf[:min(int64(len(sc.buf)), most)], off-s.base)
	if err != nil && !(errors.Is(err, io.EOF) && n >= want) {
		return nil, fmt.Errorf("read the commit log at %d: %w", off, err)
	}
	sc.fill = n
	if i := lastNonZero(sc.buf[:n]); i >= 0 {
		sc.dataEnd = max(sc.dataEnd, off+int64(i)+1)
	}
	return sc.buf[:n], nil
}

// record decodes and checks the record at off. What it returns besides nil is one of message's errors or an I/O error. Only a record
// that says it belongs here is read as a whole, so that what a broken size claims takes no memory.
func (sc *scanner) record(s *segment, off int64, r *message.Record) ([]byte, error) {
	b, err := sc.bytes(s, off, message.PeekBytes)
	if err != nil {
		return nil, err
	}
	if len(b) < message.BlankSize {
		return nil, message.ErrBlank
	}
	size, magic := message.PeekSize(b)
	if (magic == message.MagicV1 || magic == message.MagicV2) && len(b) >= message.PeekBytes {
		if message.PhysicalOffsetOf(b) != off {
			return nil, errMisplaced
		}
		if size >= message.FixedSize && int64(size) <= min(s.end()-off, maxRecord) {
			if b, err = sc.bytes(s, off, int(size)); err != nil {
				return nil, err
			}
		}
	}
	if err := message.Decode(b, r); err != nil {
		return nil, err
	}
	b = b[:r.Size]
	// A cut that took the checksum's own name away leaves a record that seems to carry none.
	if lastNonZero(b[len(b)-3:]) < 0 {
		return nil, errCut
	}
	return b, r.VerifyCRC(b)
}

// errCut: a record ends with its topic, the length of its properties and those, never with three zeroes.
var errCut = &message.InvalidError{Reason: "its end is missing"}

var errMisplaced = &message.InvalidError{Reason: "it is not where its physical offset says"}

func (l *Log) recover(from int64, clean bool, quarantine string, visit Visitor) (*Report, error) {
	segs := l.list()
	if len(segs) == 0 {
		if from = min(max(from, 0), maxOffset) / l.opt.SegmentSize * l.opt.SegmentSize; from > 0 {
			l.opt.Logger.Error("the commit log is gone: an empty one begins at the checkpoint", "checkpoint", from, "dir", l.opt.Dir)
		}
		return &Report{From: from, End: from}, nil
	}
	sc := &scanner{l: l}
	from, err := l.believe(max(from, segs[0].base))
	if err != nil {
		return nil, err
	}
	rep := &Report{From: from, End: from}
	newest := time.Now().Add(clockSkew).UnixMilli()
	var r message.Record
	for {
		s := l.find(rep.End)
		if s == nil {
			return rep, nil
		}
		if s != sc.seg {
			if sc.written, err = s.dataSpans(rep.End, s.end()); err != nil {
				return nil, err
			}
			sc.seg = s
		}
		raw, err := sc.record(s, rep.End, &r)
		switch {
		case err == nil:
			rep.Records++
			if r.StoreTimestamp <= newest {
				l.lastStoreTime = max(l.lastStoreTime, r.StoreTimestamp)
			}
			if err := visit(raw, &r); err != nil {
				return nil, err
			}
			rep.End += int64(r.Size)
			continue
		case errors.Is(err, message.ErrBlank):
			rep.End = s.end()
			continue
		case !isRecordError(err):
			return nil, err
		}
		window := l.searchWindow()
		if clean && errors.Is(err, message.ErrZero) {
			window = cleanSearch
		}
		next, torn, err := l.findValid(sc, s, rep.End, window)
		switch {
		case err != nil:
			return nil, err
		case next >= 0:
			err = l.setAside(rep, next, quarantine)
			sc.fill = 0
		default:
			err = l.cutTail(s, rep, torn, clean, quarantine)
		}
		if err != nil || next < 0 {
			return rep, err
		}
	}
}

// believe checks that a record may end at from. A checkpoint is ahead of the log when files of the log were lost or taken from an older
// copy; then the segment that it points into is read from its start.
func (l *Log) believe(from int64) (int64, error) {
	segs := l.list()
	last := segs[len(segs)-1]
	if from > last.end() {
		l.opt.Logger.Error("the checkpoint is ahead of the commit log, segments are missing: reading the last one that is there", "checkpoint", from)
		return last.base, nil
	}
	s := last
	if from < last.end() {
		s = l.find(from)
	}
	if from == s.base {
		return from, nil
	}
	// See errCut.
	tail := make([]byte, min(3, from-s.base))
	if _, err := s.file.ReadAt(tail, from-s.base-int64(len(tail))); err != nil {
		return 0, err
	}
	if lastNonZero(tail) >= 0 || from == s.end() {
		return from, nil
	}
	l.opt.Logger.Error("no record ends at the checkpoint: reading its segment from the start", "checkpoint", from)
	return s.base, nil
}

func isRecordError(err error) bool {
	var invalid *message.InvalidError
	return errors.As(err, &invalid) || errors.Is(err, message.ErrZero) || errors.Is(err, message.ErrShort) || errors.Is(err, message.ErrBlank)
}

// cutTail zeroes what a cut-short append left behind the end of the log, so that it can never be taken for a record, and syncs. A log
// that was closed in order ends with a whole record: there it is rot, and set aside before.
func (l *Log) cutTail(s *segment, rep *Report, torn int64, clean bool, quarantine string) error {
	if torn == 0 {
		return nil
	}
	end := rep.End
	span := Span{end, end + torn}
	if clean {
		if err := l.copySpan(s, span, quarantine, quarantineName(quarantine, span)); err != nil {
			return err
		}
		rep.Quarantined = append(rep.Quarantined, span)
		l.opt.Logger.Error("the end of the commit log is damaged; it was set aside", "from", span.From, "to", span.To, "folder", quarantine)
	} else {
		rep.TornBytes = torn
		l.opt.Logger.Warn("the last append was cut short; its bytes are zeroed", "offset", end, "bytes", torn)
	}
	if err := s.file.Zero(end-s.base, end-s.base+torn); err != nil {
		return err
	}
	return s.file.SyncRange(end-s.base, end-s.base+torn)
}

// tornBytes is how many bytes there are from end on, up to the last one before to that is not zero. All before to was read, by a search.
func (sc *scanner) tornBytes(s *segment, end, to int64) (torn int64, err error) {
	if sc.dataEnd <= to {
		return max(sc.dataEnd-end, 0), nil
	}
	// What was read along behind to has some, too.
	for off := end; off < to; {
		b, err := sc.bytes(s, off, message.BlankSize)
		if err != nil {
			return 0, err
		}
		b = b[:min(int64(len(b)), to-off)]
		if i := lastNonZero(b); i >= 0 {
			torn = off + int64(i) + 1 - end
		}
		off += int64(len(b))
	}
	return torn, nil
}

// Close flushes, stops the goroutines and closes the files. Nothing may be read any more; appends are refused. After a failure nothing is
// flushed.
func (l *Log) Close() error {
	// Under mu: whoever holds the tail is done then, and the next one sees that the log is closed.
	l.mu.Lock()
	again := l.closed.Swap(true)
	l.mu.Unlock()
	if again {
		return nil
	}
	l.flusher.quit()
	l.keeper.quit()
	<-l.flusher.done
	<-l.keeper.done
	l.cold.close()
	if l.pipeline == nil {
		l.flush()
	}
	l.announce()
	l.announceFlushed()
	l.mu.Lock()
	next := l.next
	l.next = nil
	l.mu.Unlock()
	err := l.Failed()
	if err == nil {
		err = errors.Join(l.removeUnused(next), l.dropUnused())
	}
	if err := errors.Join(err, l.closeFiles()); err != nil {
		return err
	}
	return l.removeTail()
}

// removeTail removes the tail file when the segments have all of the log.
func (l *Log) removeTail() error {
	if l.memory == nil || l.opt.TailFile == "" || l.written.Load() < l.Published() {
		return nil
	}
	return os.Remove(l.opt.TailFile)
}

// removeUnused removes the segment made ahead: it holds nothing, and Java's broker would have to step over it.
func (l *Log) removeUnused(next *segment) error {
	making := l.keeper.making
	if next != nil {
		l.listMu.Lock()
		segs := l.list()
		segs = segs[: len(segs)-1 : len(segs)-1]
		l.segments.Store(&segs)
		l.listMu.Unlock()
	} else if next = making; next == nil {
		return nil
	}
	return errors.Join(next.file.Unmap(), next.file.Close(), l.opt.FS.Remove(next.file.Name()), l.opt.FS.SyncDir(l.opt.Dir))
}

// AlignToSegment is the start of the segment that holds off, of the first one where off lies before it; off itself where there is none.
func AlignToSegment(o *Options, off int64) int64 {
	o.setDefaults()
	files, err := listSegments(o)
	if err != nil || len(files) == 0 {
		return off
	}
	for _, f := range slices.Backward(files) {
		if f.base <= off {
			return f.base
		}
	}
	return files[0].base
}
