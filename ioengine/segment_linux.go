package ioengine

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	// zeroStep is how many zeroes are written between two starts of write-back. At
	// most three steps of a segment are dirty or on their way at any time, so
	// preparing one never pushes the log's own pages against the dirty limit.
	zeroStep = 8 << 20
	// warmStep bounds the time for which one mlock or madvise keeps the address
	// space's lock: the tail owner's page faults wait for it.
	warmStep = 16 << 20
)

func (linuxFS) OpenSegment(name string, size int64, create bool) (Segment, error) {
	f, err := openSegmentFile(name, size, create, func(f *plainFile) error {
		return newLinuxFile(f).Allocate(0, size)
	})
	if err != nil {
		return nil, err
	}
	s := &linuxSegment{portableSegment: portableSegment{plainFile: *f}, file: newLinuxFile(f)}
	if err := s.mapAll(size); err != nil {
		abandonSegment(f, create)
		return nil, err
	}
	return s, nil
}

// linuxSegment is a portableSegment whose file part is a linuxFile.
type linuxSegment struct {
	portableSegment
	file *linuxFile
}

func (s *linuxSegment) Fd() int { return s.file.Fd() }

func (s *linuxSegment) ReadAtNoWait(p []byte, off int64) (int, error) {
	return s.file.ReadAtNoWait(p, off)
}

// Resident asks about the file and not, where the kernel has no cachestat, about the view: a segment may be unmapped while it is asked.
//
// cachestat counts pages that are still on their way from the disk, and sendfile would wait for them, up to 12 ms for a read-ahead of 8 MiB. So
// a byte is read here and there, without waiting.
func (s *linuxSegment) Resident(off int64, n int) bool {
	if !s.file.Resident(off, n) {
		return false
	}
	var one [1]byte
	for last, at := off+int64(n)-1, off-1; at < last; {
		at = min(last, at+arrivesTogether)
		if _, err := s.file.ReadAtNoWait(one[:], at); err == ErrCold {
			return false
		}
	}
	return true
}

// arrivesTogether is what is read from the disk by one operation, or nearly so.
const arrivesTogether = 256 << 10

func (s *linuxSegment) Allocate(off, n int64) error {
	if err := s.checkGrow("allocate", off, n); err != nil {
		return err
	}
	return s.file.Allocate(off, n)
}

// Zero goes through the page cache: the pages that it leaves there are the ones
// that Warm maps.
func (s *linuxSegment) Zero(from, to int64) error {
	if err := s.checkRange("zero", from, to); err != nil {
		return err
	}
	for pos := from; pos < to; pos += zeroStep {
		end := min(pos+zeroStep, to)
		if err := writeZeroes(s, pos, end); err != nil {
			return err
		}
		if err := s.WriteBack(pos, end); err != nil {
			return err
		}
		if behind := pos - 2*zeroStep; behind >= from {
			if err := s.WaitWriteBack(behind, behind+zeroStep); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *linuxSegment) Warm(from, to int64) error {
	if err := s.checkMapped("warm", from, to); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	weakest := WarmLocked
	for pos := from - from%pageSize; pos < to; pos += warmStep {
		kind, err := warmPages(s.rw[pos:min(pos+warmStep, to)])
		if err != nil {
			return fail("warm", s.name, err)
		}
		weakest = min(weakest, kind)
	}
	s.warm.Store(int32(weakest))
	return nil
}

// warmPages does the best that this process may do: populating needs linux 5.14,
// locking CAP_IPC_LOCK or room in RLIMIT_MEMLOCK.
//
// Locking alone is not enough. mlock maps the pages of a shared file read-only, to
// keep them clean, and the first store to each page then waits in page_mkwrite: the
// median was 2 to 8 us, 99.6 % below 6 to 74 us, the worst 3 ms. After populating
// for writing (or touching) the median is 35 ns and 99.6 % are below 0.3 us, and
// locking after that keeps it so (linux 6.18, ext4, zeroed and synced file).
func warmPages(b []byte) (WarmKind, error) {
	kind := WarmPopulated
	switch err := again(func() error { return unix.Madvise(b, unix.MADV_POPULATE_WRITE) }); err {
	case nil:
	case unix.EINVAL, unix.ENOSYS, unix.EPERM:
		touch(b)
		kind = WarmTouched
	default:
		// A page that cannot be had: touching it would be a signal.
		return WarmNone, err
	}
	if again(func() error { return unix.Mlock(b) }) == nil {
		kind = WarmLocked
	}
	return kind, nil
}

func (s *linuxSegment) Cool(from, to int64) error {
	if err := s.checkMapped("cool", from, to); err != nil {
		return err
	}
	from, to = s.wholePages(from, to)
	if from >= to {
		return nil
	}
	if err := unix.Munlock(s.rw[from:to]); err != nil {
		return fail("cool", s.name, err)
	}
	return s.portableSegment.Cool(from, to)
}

func (s *linuxSegment) WriteBack(from, to int64) error {
	if err := s.checkRange("write back", from, to); err != nil {
		return err
	}
	return s.syncFileRange("write back", from, to, unix.SYNC_FILE_RANGE_WRITE)
}

func (s *linuxSegment) WaitWriteBack(from, to int64) error {
	if err := s.checkRange("wait for write-back of", from, to); err != nil {
		return err
	}
	return s.syncFileRange("wait for write-back of", from, to, unix.SYNC_FILE_RANGE_WAIT_BEFORE)
}

func (s *linuxSegment) syncFileRange(op string, from, to int64, flags int) error {
	if from == to {
		return nil // a length of zero would mean "to the end of the file"
	}
	err := again(func() error { return unix.SyncFileRange(s.file.Fd(), from, to-from, flags) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil // pacing is lost, nothing else: the kernel writes in its own time
	}
	return s.file.failed(op, err)
}

// SyncRange is fdatasync of the whole file: it alone also writes the block map
// and empties the device's cache, and it sees stores through the mapping.
func (s *linuxSegment) SyncRange(from, to int64) error {
	if err := s.checkRange("sync", from, to); err != nil {
		return err
	}
	return s.file.Sync()
}

func (s *linuxSegment) Close() error { return errors.Join(s.Unmap(), s.file.Close()) }

func (s *linuxSegment) Sync() error { return s.file.Sync() }
