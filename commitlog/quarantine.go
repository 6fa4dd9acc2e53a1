package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ringmq/ringmq/message"
)

// Damaged spans of the log: how the next valid record behind one is found, and what takes the span's place. See recovery.go.

const (
	// minFiller is the smallest filler; two records never start closer to each other.
	minFiller = message.FixedSize + 1
	// maxFiller keeps a filler below any record size that Java would refuse.
	maxFiller = 1 << 20
)

// setAside moves the span between rep.End, where no valid record starts, and next, where one does, out of the way.
func (l *Log) setAside(rep *Report, next int64, dir string) error {
	for rep.End < next {
		s := l.find(rep.End)
		span := Span{rep.End, min(next, s.end())}
		if err := l.quarantine(s, span, dir); err != nil {
			return err
		}
		l.opt.Logger.Error("a part of the commit log is damaged; it was set aside, all messages behind it are kept",
			"from", span.From, "to", span.To, "bytes", span.To-span.From, "folder", dir)
		rep.Quarantined = append(rep.Quarantined, span)
		rep.End = span.To
	}
	return nil
}

// findValid looks for the next valid record behind bad, which lies in s, within the window; -1: there is none. Then torn is how many bytes
// of s from bad on there are up to the last one that is not zero.
func (l *Log) findValid(sc *scanner, s *segment, bad, window int64) (at, torn int64, err error) {
	limit := bad + window
	to := min(limit, s.end())
	written := within(sc.written, bad, to)
	if at, err = sc.searchSpans(s, min(bad+minFiller, to), written); at >= 0 || err != nil {
		return at, 0, err
	}
	if _, known := s.file.(dataFinder); known && len(written) > 0 && written[0].From == bad {
		l.keeper.zeroTo = written[0].To
	}
	if torn, err = sc.tornBytes(s, bad, to); err != nil {
		return -1, 0, err
	}
	for off := s.end(); off < limit; off = s.end() {
		if s = l.find(off); s == nil {
			return -1, torn, nil
		}
		if written, err = s.dataSpans(off, min(limit, s.end())); err != nil {
			return -1, 0, err
		}
		if at, err = sc.searchSpans(s, off, written); at >= 0 || err != nil {
			return at, 0, err
		}
	}
	return -1, torn, l.checkNothingBehind(sc, bad)
}

// checkNothingBehind refuses to go on where the log seems to end and yet a later segment begins with a record: opening would remove it.
func (l *Log) checkNothingBehind(sc *scanner, end int64) error {
	var r message.Record
	for _, s := range l.list() {
		if s.base <= end {
			continue
		}
		if _, err := sc.record(s, s.base, &r); err == nil {
			return fmt.Errorf("the commit log has no record for %d bytes behind %d, but segment %s holds some: "+
				"restore what is between, or move it and all behind it away", s.base-end, end, s.file.Name())
		} else if !isRecordError(err) {
			return err
		}
	}
	return nil
}

// dataFinder is what a segment may have besides: the next part of the file from off on that was ever written. The rest reads as zeroes.
type dataFinder interface {
	NextData(off int64) (from, to int64, err error)
}

// within is what of spans lies between two log offsets.
func within(spans []Span, from, to int64) (part []Span) {
	for _, span := range spans {
		if span = (Span{max(span.From, from), min(span.To, to)}); span.From < span.To {
			part = append(part, span)
		}
	}
	return part
}

// dataSpans are the parts of s between two log offsets that may hold other bytes than zeroes. A segment is allocated long before it is
// written, and reading what is not there costs as much as reading messages: a quarter of a second for the window behind the log's end. It
// is asked for before anything is read in the segment, because the system reads megabytes ahead, and what it has read counts as written.
func (s *segment) dataSpans(from, to int64) ([]Span, error) {
	f, ok := s.file.(dataFinder)
	if !ok {
		return []Span{{from, to}}, nil
	}
	var spans []Span
	for at := from; at < to; {
		data, hole, err := f.NextData(at - s.base)
		if err != nil {
			return nil, err
		}
		span := Span{s.base + data, min(s.base+hole, to)}
		if span.From < at || span.To <= at {
			return nil, fmt.Errorf("BUG: %s has data from %d to %d behind %d", s.file.Name(), data, hole, at-s.base)
		}
		if span.From < to {
			spans = append(spans, span)
		}
		at = span.To
	}
	return spans, nil
}

// searchSpans is search in each of the spans, from off on. A record's first bytes may be zeroes, and so lie before the span; its magic code
// has none.
func (sc *scanner) searchSpans(s *segment, off int64, spans []Span) (int64, error) {
	defer func() { sc.ahead = 0 }()
	for _, span := range spans {
		sc.ahead = span.To
		if at, err := sc.search(s, max(off, span.From-message.BlankSize), span.To); at >= 0 || err != nil {
			return at, err
		}
	}
	return -1, nil
}

// search looks for a valid record that starts in [off, to) of s.
func (sc *scanner) search(s *segment, off, to int64) (int64, error) {
	var r message.Record
	for off < to {
		b, err := sc.bytes(s, off, message.BlankSize)
		if err != nil {
			return -1, err
		}
		i := indexMagic(b)
		if i < 0 {
			off += int64(max(len(b)-message.BlankSize+1, 1))
			continue
		}
		at := off + int64(i)
		// What starts just behind the segment's start would leave no room for a filler.
		if d := at - s.base; at < to && (d == 0 || d >= minFiller) {
			if _, err := sc.record(s, at, &r); err == nil {
				return at, nil
			} else if !isRecordError(err) {
				return -1, err
			}
		}
		off = at + 1
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

// quarantine copies the span, which lies in s, to a file of its own and fills its place.
func (l *Log) quarantine(s *segment, span Span, dir string) error {
	name := quarantineName(dir, span)
	// A file of that name is from a start that died while it filled the place: it has the bytes as they were found.
	if _, err := l.opt.FS.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := l.copySpan(s, span, dir, name); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := l.fill(s, span); err != nil {
		return err
	}
	return s.file.SyncRange(span.From-s.base, span.To-s.base)
}

func quarantineName(dir string, span Span) string {
	return filepath.Join(dir, fmt.Sprintf("%020d-%d", span.From, span.To-span.From))
}

// copySpan writes the span to a file that is whole once it has its name.
func (l *Log) copySpan(s *segment, span Span, dir, name string) error {
	fsys := l.opt.FS
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := fsys.Open(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	buf := make([]byte, min(span.To-span.From, scanBuffer))
	for at := span.From; at < span.To && err == nil; at += int64(len(buf)) {
		buf = buf[:min(span.To-at, scanBuffer)]
		if _, err = s.file.ReadAt(buf, at-s.base); err == nil {
			_, err = f.WriteAt(buf, at-span.From)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(name+".tmp", name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// fill covers the span with records that nobody reads, or with a blank where it reaches to the end of the segment. It goes through calls
// and not through the mapping: a hole in the file on a full disk is an error then and not a signal.
func (l *Log) fill(s *segment, span Span) error {
	if span.To == s.end() {
		var blank [message.BlankSize]byte
		message.PutBlank(blank[:], int(span.To-span.From))
		_, err := s.file.WriteAt(blank[:], span.From-s.base)
		return err
	}
	buf := make([]byte, min(span.To-span.From, 2*maxFiller))
	for off := span.From; off < span.To; {
		size := span.To - off
		if size > 2*maxFiller {
			size = maxFiller
		}
		putFiller(buf[:size], off, l.lastStoreTime)
		if _, err := s.file.WriteAt(buf[:size], off-s.base); err != nil {
			return err
		}
		off += size
	}
	return nil
}

// putFiller makes dst, at least minFiller bytes, the record of the log offset off. It has a store time because Java does not believe a
// segment whose first record has none.
func putFiller(dst []byte, off, storeTime int64) {
	topic := message.SelfTestTopic
	d := message.Draft{SysFlag: message.SysTransactionRollback, Topic: []byte(topic[:min(len(topic), len(dst)-message.FixedSize)])}
	d.Body = make([]byte, len(dst)-message.FixedSize-len(d.Topic))
	d.BodyCRC = message.BodyCRC(d.Body)
	d.Encode(dst, 0, off, max(storeTime, 1))
}
