package ioengine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// plainFS is Portable, and the part of OS that needs nothing special.
type plainFS struct{}

// Portable is the FS that uses only what every system has: no reading without
// waiting, no locked pages, no pacing of write-back. On linux ioEngine=portable
// selects it; elsewhere it is what OS answers.
func Portable() FS { return plainFS{} }

func (plainFS) Open(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := openPlain(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (plainFS) OpenSegment(name string, size int64, create bool) (Segment, error) {
	f, err := openSegmentFile(name, size, create, func(f *plainFile) error {
		return f.Allocate(0, size)
	})
	if err != nil {
		return nil, err
	}
	s := &portableSegment{plainFile: *f}
	if err := s.mapAll(size); err != nil {
		abandonSegment(f, create)
		return nil, err
	}
	return s, nil
}

func (plainFS) ReadFile(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	return data, fail("read", name, err)
}

func (plainFS) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(name)
	return entries, fail("read folder", name, err)
}

func (plainFS) Stat(name string) (fs.FileInfo, error) {
	info, err := os.Stat(name)
	return info, fail("stat", name, err)
}

// MkdirAll goes up to the first folder that exists and creates from there down,
// syncing each parent before it goes deeper: after a crash there is never a
// folder whose own name is lost.
func (p plainFS) MkdirAll(name string, perm fs.FileMode) error {
	info, err := os.Stat(name)
	if err == nil {
		if !info.IsDir() {
			return fail("create folder", name, syscall.ENOTDIR)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fail("create folder", name, err)
	}
	parent := filepath.Dir(name)
	if parent != name {
		if err := p.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := p.Mkdir(name, perm); err != nil {
		return err
	}
	return p.SyncDir(parent)
}

// Mkdir: somebody else may create it at the same time; then it must be a folder.
func (plainFS) Mkdir(name string, perm fs.FileMode) error {
	if err := os.Mkdir(name, perm); err != nil {
		if info, statErr := os.Stat(name); statErr != nil || !info.IsDir() {
			return fail("create folder", name, err)
		}
	}
	return nil
}

func (plainFS) Rename(oldName, newName string) error {
	return fail("rename to "+newName, oldName, os.Rename(oldName, newName))
}

func (plainFS) Remove(name string) error { return fail("remove", name, os.Remove(name)) }

func (plainFS) RemoveAll(name string) error { return fail("remove all", name, os.RemoveAll(name)) }

func (plainFS) SyncDir(name string) error { return fail("sync folder", name, syncFolder(name)) }

func (plainFS) Usage(dir string) (free, total int64, err error) {
	free, total, err = volumeUsage(dir)
	return free, total, fail("usage of", dir, err)
}

// Lock never removes the file: a removed lock file can be held by two.
func (plainFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fail("lock", name, err)
	}
	if err := lockWhole(f); err != nil {
		f.Close()
		if errors.Is(err, errHeld) {
			err = fmt.Errorf("another process has it: stop that one or use another data folder: %w", err)
		}
		return nil, fail("lock", name, err)
	}
	return f, nil
}

// errHeld is lockWhole's answer when somebody else holds the lock.
var errHeld = errors.New("lock is held")

// plainFile adds names and ErrDiskFull to an os.File, which already retries
// EINTR and completes short writes.
type plainFile struct {
	f    *os.File
	name string
}

func openPlain(name string, flag int, perm fs.FileMode) (*plainFile, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return &plainFile{f: f, name: name}, nil
}

func (f *plainFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, fail("read", f.name, err)
}

func (f *plainFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.f.WriteAt(p, off)
	return n, fail("write", f.name, err)
}

func (f *plainFile) ReadAtNoWait([]byte, int64) (int, error) { return 0, ErrNoWaitUnsupported }

func (f *plainFile) Resident(int64, int) bool { return false }

func (f *plainFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, fail("stat", f.name, err)
	}
	return info.Size(), nil
}

func (f *plainFile) Truncate(size int64) error {
	return fail("truncate", f.name, f.f.Truncate(size))
}

func (f *plainFile) Allocate(off, n int64) error {
	if err := checkAllocate(f.name, off, n); err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil || off+n <= size {
		return err
	}
	if err := writeZeroes(f, size, off+n); err != nil {
		// What was grown so far would keep a full disk full.
		return errors.Join(err, f.Truncate(size))
	}
	return nil
}

func (f *plainFile) Sync() error  { return fail("sync", f.name, f.f.Sync()) }
func (f *plainFile) Fd() int      { return -1 }
func (f *plainFile) Name() string { return f.name }
func (f *plainFile) Close() error { return fail("close", f.name, f.f.Close()) }

func checkAllocate(name string, off, n int64) error {
	if off < 0 || n <= 0 || off+n < off {
		return fail("allocate", name, fmt.Errorf("range %d+%d: %w", off, n, syscall.EINVAL))
	}
	return nil
}

// zeroes is the source of every zero written; nobody stores to it. Its size is the
// size of one write, and that decides how big the folios are that the page cache
// keeps. A store through a mapping makes its whole folio dirty, so with writes of
// 1 MiB each synced append of 1 KiB wrote 1 MiB to the device, with 16 KiB writes
// 16 KiB, with 4 KiB writes 4 KiB (linux 6.18, ext4). Zeroing 128 MiB took 30, 70
// and 170 ms. Appends by pwrite dirty single blocks whatever the folio.
var zeroes [16 << 10]byte

func writeZeroes(w io.WriterAt, from, to int64) error {
	for from < to {
		n := min(to-from, int64(len(zeroes)))
		if _, err := w.WriteAt(zeroes[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// openSegmentFile opens or creates the file beneath a segment and makes sure of
// its size. A creation that does not succeed leaves no file behind.
func openSegmentFile(name string, size int64, create bool, allocate func(*plainFile) error) (*plainFile, error) {
	if size <= 0 || size != int64(int(size)) {
		return nil, fail("open segment", name, fmt.Errorf("size %d: %w", size, syscall.EINVAL))
	}
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE | os.O_EXCL
	}
	f, err := openPlain(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	if create {
		err = allocate(f)
	} else {
		err = wantSize(f, size)
	}
	if err != nil {
		abandonSegment(f, create)
		return nil, err
	}
	return f, nil
}

func wantSize(f *plainFile, size int64) error {
	have, err := f.Size()
	if err == nil && have != size {
		err = fail("open segment", f.name, fmt.Errorf("file has %d bytes where %d are configured: restore the segment size that the store was made with", have, size))
	}
	return err
}

// abandonSegment cleans up after an opening that has already failed: its own
// errors would hide the cause.
func abandonSegment(f *plainFile, created bool) {
	f.f.Close()
	if created {
		os.Remove(f.name)
	}
}

// fail names operation and file once, whatever the os package put around the
// error, and makes ErrDiskFull visible. Nil stays nil.
func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	case errors.As(err, &call):
		err = call.Err
	}
	if isDiskFull(err) && !errors.Is(err, ErrDiskFull) {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
