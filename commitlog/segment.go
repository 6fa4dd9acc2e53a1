package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/ringmq/ringmq/ioengine"
)

// segment is one file of the log.
type segment struct {
	base int64
	size int64
	file ioengine.Segment
	// warm is how many bytes from the start are ready for appends. Written by the keeper, read by the tail's owner.
	warm atomic.Int64
	// zeroed and cooled belong to the keeper: bytes from the start that were zeroed; bytes from the start that were let go.
	zeroed, cooled int64
	// stored is where the log ended in this segment when it was opened, until its last block is in the Tail; also the keeper's.
	stored int64
	// hot is the first byte (relative) whose page is held in memory through the mapping; -1 once there is no mapping.
	// Readers copy from View only at or behind it, and only while they are counted in viewers.
	hot     atomic.Int64
	viewers atomic.Int32
	// refs counts those who may still read the file, the list of segments among them. It never rises again from 0, and then the
	// file is closed and removed.
	refs atomic.Int32
	// unused is closed when refs reaches 0.
	unused chan struct{}
}

func (s *segment) end() int64 { return s.base + s.size }

func (s *segment) acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func segmentName(dir string, base int64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d", base))
}

// newSegment wraps an open file.
func newSegment(base int64, f ioengine.Segment, size int64) *segment {
	s := &segment{base: base, size: size, file: f, unused: make(chan struct{})}
	s.refs.Store(1)
	return s
}

// list returns the segments, oldest first.
func (l *Log) list() []*segment {
	if p := l.segments.Load(); p != nil {
		return *p
	}
	return nil
}

// find returns the segment that holds off, or nil. Segments follow each other without gaps and have one size.
func (l *Log) find(off int64) *segment {
	segs := l.list()
	if len(segs) == 0 || off < segs[0].base {
		return nil
	}
	i := (off - segs[0].base) / l.opt.SegmentSize
	if i >= int64(len(segs)) {
		return nil
	}
	return segs[i]
}

func (l *Log) addSegment(s *segment) {
	l.listMu.Lock()
	defer l.listMu.Unlock()
	segs := append(slices.Clone(l.list()), s)
	l.segments.Store(&segs)
}

// openSegments opens every segment of dir. Java refuses to start on a wrong size; here the files decide, because they hold the
// messages: all must have one size, and that becomes the log's.
func (l *Log) openSegments() error {
	o := &l.opt
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	files, err := listSegments(o)
	if err != nil {
		return err
	}
	if files, err = l.dropUnfinished(files); err != nil {
		return err
	}
	if len(files) > 0 && files[0].size != o.SegmentSize {
		o.Logger.Warn("the segments of the store have another size than mappedFileSizeCommitLog: the store decides",
			"segments", files[0].size, "configured", o.SegmentSize)
		o.SegmentSize = files[0].size
	}
	if err := l.awaitWrites(files); err != nil {
		return err
	}
	if err := l.replayTail(files); err != nil {
		return err
	}
	if err := l.openMemory(); err != nil {
		return err
	}
	return l.openEach(files)
}

// lastWritten is how many segments a process may have been writing when it was killed: the tail's, and those on both sides of it.
const lastWritten = 4

// awaitWrites waits for the writes that a killed process left to the kernel. They would fall on what is appended from now on.
func (l *Log) awaitWrites(files []segmentFile) error {
	fsys, ok := l.opt.FS.(interface{ AwaitWrites(name string) error })
	if !ok {
		return nil
	}
	for _, f := range files[max(0, len(files)-lastWritten):] {
		if err := fsys.AwaitWrites(segmentName(l.opt.Dir, f.base)); err != nil {
			return err
		}
	}
	return nil
}

type segmentFile struct{ base, size int64 }

// maxOffset keeps arithmetic on offsets far from overflow: a log of 2 EiB.
const maxOffset = 1 << 61

// listSegments lists the segments in the log's folder in order of offset, and ends removals that were interrupted.
func listSegments(o *Options) ([]segmentFile, error) {
	entries, err := o.FS.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	var files []segmentFile
	for _, e := range entries {
		name := filepath.Join(o.Dir, e.Name())
		if strings.HasSuffix(e.Name(), ioengine.RemovingSuffix) {
			if err := o.FS.Remove(name); err != nil {
				return nil, err
			}
			continue
		}
		base, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil || name != segmentName(o.Dir, base) || base < 0 || base > maxOffset || e.IsDir() {
			o.Logger.Warn("foreign file in the commit log folder is left alone", "file", e.Name())
			continue
		}
		info, err := o.FS.Stat(name)
		if err != nil {
			return nil, err
		}
		files = append(files, segmentFile{base, info.Size()})
	}
	return files, nil
}

// dropUnfinished removes a last file whose creation did not get to its end. It is shorter than the others and was never written to:
// a segment gets its place in the log after its size is durable. Any other odd size is for openEach to refuse.
func (l *Log) dropUnfinished(files []segmentFile) ([]segmentFile, error) {
	n := len(files)
	if n == 0 {
		return files, nil
	}
	last, full := files[n-1], l.opt.SegmentSize
	if n > 1 {
		full = files[0].size
	}
	if last.size >= full {
		return files, nil
	}
	name := segmentName(l.opt.Dir, last.base)
	if zero, err := allZero(l.opt.FS, name, last.size); err != nil || !zero {
		return files, err
	}
	l.opt.Logger.Warn("removing a segment whose creation was cut short", "file", name, "size", last.size)
	if err := l.opt.FS.Remove(name); err != nil {
		return nil, err
	}
	return files[:n-1], l.opt.FS.SyncDir(l.opt.Dir)
}

func allZero(fsys ioengine.FS, name string, size int64) (bool, error) {
	f, err := fsys.Open(name, os.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	buf := make([]byte, min(size, scanBuffer))
	zero := true
	for off := int64(0); off < size && zero && err == nil; off += int64(len(buf)) {
		buf = buf[:min(size-off, scanBuffer)]
		_, err = f.ReadAt(buf, off)
		zero = lastNonZero(buf) < 0
	}
	return zero, errors.Join(err, f.Close())
}

// lastNonZero is the place of the last byte in b that is not zero, or -1.
func lastNonZero(b []byte) int {
	for len(b) >= 8 && binary.NativeEndian.Uint64(b[len(b)-8:]) == 0 {
		b = b[:len(b)-8]
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return i
		}
	}
	return -1
}

func (l *Log) openEach(files []segmentFile) error {
	for i, file := range files {
		base := file.base
		name := segmentName(l.opt.Dir, base)
		if file.size != l.opt.SegmentSize {
			return errors.Join(fmt.Errorf("segment %s has %d bytes, the first one %d: restore it, or move it and all behind it away",
				name, file.size, l.opt.SegmentSize), l.closeFiles())
		}
		if i > 0 && base != files[i-1].base+l.opt.SegmentSize {
			return errors.Join(fmt.Errorf("segment %020d is missing before %s: restore it, or move all before it away",
				files[i-1].base+l.opt.SegmentSize, name), l.closeFiles())
		}
		f, err := l.openSegmentFile(name, base, false)
		if err != nil {
			return errors.Join(err, l.closeFiles())
		}
		s := newSegment(base, f, l.opt.SegmentSize)
		// Old segments are read through the file. Only recovery and the keeper map the tail for good.
		s.hot.Store(-1)
		l.addSegment(s)
	}
	return nil
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range append(slices.Clone(l.list()), l.keeper.unused...) {
		s.unmap(l)
		errs = append(errs, s.file.Close())
	}
	l.segments.Store(nil)
	l.keeper.unused = nil
	if l.memory != nil {
		errs = append(errs, l.memory.Close())
	}
	return errors.Join(errs...)
}
