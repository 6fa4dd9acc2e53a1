package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

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

// searchWindow is how far behind a bad record a valid one is looked for: nothing is ever appended further ahead of a hole than the
// memory kept ready.
const searchWindow = defaultWarm + 2*warmStep

// Open opens the log in o.Dir and recovers it: records from the log offset from on are checked and given to visit. from must be the
// start of a record or the end of the log; 0 or any offset before the first segment means the whole log. clean tells that the log was
// closed in order: then the first place without a record is its end. quarantine is a folder for rotten spans.
func Open(o Options, from int64, clean bool, quarantine string, visit Visitor) (*Log, *Report, error) {
	o.setDefaults()
	l := &Log{opt: o, moved: make(chan struct{})}
	l.keeper.kick, l.keeper.ready = make(chan struct{}, 1), make(chan struct{})
	l.flusher.kick, l.flusher.commit = make(chan struct{}, 1), make(chan struct{}, 1)
	if err := l.openSegments(); err != nil {
		return nil, nil, err
	}
	rep, err := l.recover(from, clean, quarantine, visit)
	if err == nil {
		err = l.openTail(rep.End)
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.closeFiles())
	}
	l.startKeeper()
	l.startFlusher()
	return l, rep, nil
}

// openTail drops the segments behind end, takes the one that holds it as the tail and makes its first memory ready.
func (l *Log) openTail(end int64) error {
	segs := l.list()
	keep := len(segs)
	for keep > 0 && segs[keep-1].base > end {
		keep--
	}
	for _, s := range segs[keep:] {
		l.opt.Logger.Info("removing a segment that was made ahead and never used", "file", s.file.Name())
		if err := errors.Join(s.file.Unmap(), s.file.Close(), l.opt.FS.Remove(s.file.Name())); err != nil {
			return err
		}
	}
	segs = segs[:keep:keep]
	for _, s := range segs[:max(keep-1, 0)] {
		if err := s.file.Unmap(); err != nil {
			return err
		}
	}
	l.segments.Store(&segs)
	if keep > 0 {
		l.minOffset.Store(segs[0].base)
	}
	l.published.Store(end)
	l.flushed.Store(end)
	l.flusher.started, l.flusher.waited = end, end
	l.writeBackAt.Store(end + writeBackStep)
	if keep == 0 || segs[keep-1].end() <= end {
		s, err := l.createSegment(end)
		if errors.Is(err, ioengine.ErrDiskFull) && keep > 0 {
			// The full segment stays the tail: appends answer ErrDiskFull until the keeper gets the next one.
			l.tail = segs[keep-1]
			l.tail.warm.Store(l.tail.size)
			l.setDiskFull(err)
			return nil
		}
		if err != nil {
			return err
		}
		l.tail = s
		return l.warm(s, min(warmStep, s.size))
	}
	s := segs[keep-1]
	at := (end - s.base) &^ (pageSize - 1)
	s.warm.Store(at)
	s.cooled = at
	s.hot.Store(at)
	s.zeroed = min((end-s.base+pageSize-1)&^(pageSize-1), s.size)
	l.tail = s
	return l.warm(s, min(at+warmStep, s.size))
}

// scanner reads the log forward through a buffer.
type scanner struct {
	l    *Log
	buf  []byte
	at   int64 // log offset of buf[0]
	fill int
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
	n, err := s.file.ReadAt(sc.buf[:min(int64(len(sc.buf)), s.end()-off)], off-s.base)
	if err != nil && !(errors.Is(err, io.EOF) && n >= want) {
		return nil, fmt.Errorf("read the commit log at %d: %w", off, err)
	}
	sc.fill = n
	return sc.buf[:n], nil
}

// record decodes and checks the record at off. What it returns besides nil is one of message's errors or an I/O error.
func (sc *scanner) record(s *segment, off int64, r *message.Record) ([]byte, error) {
	b, err := sc.bytes(s, off, message.BlankSize)
	if err != nil {
		return nil, err
	}
	if len(b) < message.BlankSize {
		return nil, message.ErrBlank
	}
	size, magic := message.PeekSize(b)
	if (magic == message.MagicV1 || magic == message.MagicV2) && size >= message.FixedSize && int64(size) <= s.end()-off {
		if b, err = sc.bytes(s, off, int(size)); err != nil {
			return nil, err
		}
	}
	if err := message.Decode(b, r); err != nil {
		return nil, err
	}
	if r.PhysicalOffset != off {
		return nil, &message.InvalidError{Reason: "it is not where its physical offset says"}
	}
	return b[:r.Size], r.VerifyCRC(b)
}

func (l *Log) recover(from int64, clean bool, quarantine string, visit Visitor) (*Report, error) {
	segs := l.list()
	if len(segs) == 0 {
		return &Report{From: max(from, 0) / l.opt.SegmentSize * l.opt.SegmentSize, End: max(from, 0) / l.opt.SegmentSize * l.opt.SegmentSize}, nil
	}
	if from = max(from, segs[0].base); from > segs[len(segs)-1].end() {
		l.opt.Logger.Error("the checkpoint is ahead of the commit log, segments are missing: reading the last one that is there", "checkpoint", from)
		from = segs[len(segs)-1].base
	}
	sc := &scanner{l: l}
	rep := &Report{From: from, End: from}
	var r message.Record
	for {
		s := l.find(rep.End)
		if s == nil {
			return rep, nil
		}
		raw, err := sc.record(s, rep.End, &r)
		switch {
		case err == nil:
			rep.Records++
			l.lastStoreTime = max(l.lastStoreTime, r.StoreTimestamp)
			if err := visit(raw, &r); err != nil {
				return nil, err
			}
			rep.End += int64(r.Size)
			continue
		case errors.Is(err, message.ErrBlank):
			rep.End = s.end()
			continue
		case clean && errors.Is(err, message.ErrZero):
			return rep, nil
		case !isRecordError(err):
			return nil, err
		}
		more, err := l.passBadSpan(sc, s, rep, quarantine)
		if err != nil || !more {
			return rep, err
		}
	}
}

func isRecordError(err error) bool {
	var invalid *message.InvalidError
	return errors.As(err, &invalid) || errors.Is(err, message.ErrZero) || errors.Is(err, message.ErrShort) || errors.Is(err, message.ErrBlank)
}

// passBadSpan decides between rot and a torn tail at rep.End, where no valid record starts.
func (l *Log) passBadSpan(sc *scanner, s *segment, rep *Report, quarantine string) (more bool, err error) {
	bad := rep.End
	next, err := l.findValid(sc, s, bad)
	if err != nil {
		return false, err
	}
	if next < 0 {
		rep.TornBytes, err = l.zeroTail(sc, s, bad)
		return false, err
	}
	span := Span{bad, next}
	if err := l.quarantine(s, span, quarantine); err != nil {
		return false, err
	}
	l.opt.Logger.Error("a part of the commit log is damaged; it was set aside, all messages behind it are kept",
		"from", span.From, "to", span.To, "bytes", span.To-span.From, "folder", quarantine)
	rep.Quarantined = append(rep.Quarantined, span)
	rep.End = next
	sc.fill = 0
	return true, nil
}

// findValid looks for the next valid record behind bad: in the search window of its segment, then at the start of the next segment.
// -1: there is none.
func (l *Log) findValid(sc *scanner, s *segment, bad int64) (int64, error) {
	var r message.Record
	for off := bad + 1; off < min(bad+searchWindow, s.end()-message.FixedSize); {
		b, err := sc.bytes(s, off, scanBuffer)
		if err != nil {
			return -1, err
		}
		i := indexMagic(b)
		if i < 0 {
			off += int64(max(len(b)-message.BlankSize+1, 1))
			continue
		}
		at := off + int64(i)
		if _, err := sc.record(s, at, &r); err == nil {
			return at, nil
		} else if !isRecordError(err) {
			return -1, err
		}
		off = at + 1
	}
	next := l.find(s.end())
	if next == nil {
		return -1, nil
	}
	if _, err := sc.record(next, next.base, &r); err == nil {
		return next.base, nil
	} else if !isRecordError(err) {
		return -1, err
	}
	return -1, nil
}

// indexMagic finds the first place in b where a record may start: its magic code stands four bytes in.
func indexMagic(b []byte) int {
	for i := 4; i+4 <= len(b); i++ {
		skip := bytes.IndexByte(b[i:], byte(message.MagicV1>>24))
		if skip < 0 || i+skip+4 > len(b) {
			return -1
		}
		i += skip
		if _, magic := message.PeekSize(b[i-4:]); magic == message.MagicV1 || magic == message.MagicV2 {
			return i - 4
		}
	}
	return -1
}

// quarantine copies the span to a file of its own and fills its place.
func (l *Log) quarantine(s *segment, span Span, dir string) error {
	if err := l.opt.FS.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw := make([]byte, span.To-span.From)
	if _, err := s.file.ReadAt(raw, span.From-s.base); err != nil {
		return err
	}
	name := filepath.Join(dir, fmt.Sprintf("%020d-%d", span.From, len(raw)))
	if err := ioengine.WriteFileAtomic(l.opt.FS, name, raw); err != nil {
		return err
	}
	fill := s.file.Window(span.From-s.base, int64(len(raw)))
	if span.To == s.end() {
		message.PutBlank(fill, len(fill))
	} else if err := putFillers(fill, span.From); err != nil {
		return err
	}
	return s.file.SyncRange(span.From-s.base, span.To-s.base)
}

// maxFiller keeps a filler below any record size that Java would refuse.
const maxFiller = 1 << 20

// putFillers covers dst, the log's bytes at off, with records that nobody reads.
func putFillers(dst []byte, off int64) error {
	for len(dst) > 0 {
		size := len(dst)
		if size > 2*maxFiller {
			size = maxFiller
		}
		d := message.Draft{Topic: []byte(message.SelfTestTopic), SysFlag: message.SysTransactionRollback}
		if over := message.FixedSize + len(d.Topic) - size; over > 0 {
			if over >= len(d.Topic) {
				return fmt.Errorf("BUG: a span of %d bytes at %d holds no record", size, off)
			}
			d.Topic = d.Topic[over:]
		}
		d.Body = make([]byte, size-message.FixedSize-len(d.Topic))
		d.BodyCRC = message.BodyCRC(d.Body)
		d.Encode(dst[:size], 0, off, 0)
		dst, off = dst[size:], off+int64(size)
	}
	return nil
}

// zeroTail zeroes what a cut-short append left behind the end of the log, so that it can never be taken for a record, and syncs. It
// returns how many bytes there were up to the last one that was not zero.
func (l *Log) zeroTail(sc *scanner, s *segment, end int64) (torn int64, err error) {
	to := min(end+searchWindow, s.end())
	for off := end; off < to; {
		b, err := sc.bytes(s, off, scanBuffer)
		if err != nil {
			return 0, err
		}
		b = b[:min(int64(len(b)), to-off)]
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != 0 {
				torn = off + int64(i) + 1 - end
				break
			}
		}
		off += int64(len(b))
	}
	if torn == 0 {
		return 0, nil
	}
	l.opt.Logger.Warn("the last append was cut short; its bytes are zeroed", "offset", end, "bytes", torn)
	clear(s.file.Window(end-s.base, torn))
	return torn, s.file.SyncRange(end-s.base, end-s.base+torn)
}

// Close flushes, stops the goroutines and closes the files. Nothing may be appended or read any more. After a failure nothing is
// flushed.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.flusher.quit()
	l.keeper.quit()
	<-l.flusher.done
	<-l.keeper.done
	l.flush()
	l.announce()
	l.announceFlushed()
	var err error
	if f := l.failed.Load(); f != nil {
		err = f
	}
	// The segment made ahead holds nothing; Java's broker would have to step over it.
	if next := l.next.Load(); next != nil {
		l.listMu.Lock()
		segs := l.list()
		segs = segs[: len(segs)-1 : len(segs)-1]
		l.segments.Store(&segs)
		l.listMu.Unlock()
		err = errors.Join(err, next.file.Unmap(), next.file.Close(), l.opt.FS.Remove(next.file.Name()), l.opt.FS.SyncDir(l.opt.Dir))
	}
	return errors.Join(err, l.closeFiles())
}

// AlignToSegment is the start of the segment that holds off, by the size of the segments that are there.
func AlignToSegment(o *Options, off int64) int64 {
	size := o.SegmentSize
	if size == 0 {
		size = defaultSegmentSize
	}
	if entries, err := o.FS.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		if info, err := o.FS.Stat(filepath.Join(o.Dir, entries[0].Name())); err == nil && info.Size() > 0 {
			size = info.Size()
		}
	}
	return off / size * size
}
