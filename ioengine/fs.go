package ioengine

import (
	"errors"
	"io"
	"io/fs"
)

var (
	// ErrCold answers ReadAtNoWait when the bytes are not in the page cache: the
	// caller hands the read to the cold reader.
	ErrCold = errors.New("bytes are not in the page cache: read them where waiting for the disk is allowed")
	// ErrDiskFull is wrapped by every error that means "no space left": writing
	// may resume by itself once space returns, unlike after any other error.
	ErrDiskFull = errors.New("disk full: free space or add capacity")
	// ErrNoWaitUnsupported answers ReadAtNoWait where kernel or file system
	// cannot tell; a file that answered it once will answer it always.
	ErrNoWaitUnsupported = errors.New("reading without waiting is not supported here (needs linux 4.14 and a file system with RWF_NOWAIT): read through the pool")
)

// FS is how every room reaches files. OS, Portable and faultfs.New supply it.
// Names are paths as the os package takes them. All methods are safe for
// concurrent use.
type FS interface {
	// Open opens one file; flag and perm are those of os.OpenFile.
	Open(name string, flag int, perm fs.FileMode) (File, error)
	// OpenSegment maps one CommitLog segment. With create the file must not exist
	// yet and gets size bytes allocated (ErrDiskFull when they are not there, and
	// then no file is left behind); without, it must exist and have exactly size
	// bytes.
	OpenSegment(name string, size int64, create bool) (Segment, error)
	ReadFile(name string) ([]byte, error)
	// ReadDir lists a folder, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// MkdirAll also syncs the parent of each folder that it created.
	MkdirAll(name string, perm fs.FileMode) error
	// Mkdir makes one folder, unless it is there. It is durable after SyncDir of its parent: for who makes many.
	Mkdir(name string, perm fs.FileMode) error
	Rename(oldName, newName string) error
	Remove(name string) error
	RemoveAll(name string) error
	// SyncDir makes creations, renames and removals in a folder durable.
	SyncDir(name string) error
	// Usage says how many bytes this process may still write on dir's file
	// system, and how many that would be on an empty one.
	Usage(dir string) (free, total int64, err error)
	// Lock takes name exclusively until the answer is closed or the process ends.
	Lock(name string) (io.Closer, error)
}

// Volume is a file system that is held open, so that an error of writing to it is told by the next Sync, whenever it came about.
type Volume interface {
	// Sync makes everything on the file system durable that was written before, names included, by whoever: one call where many files and
	// folders would each need one. After an error: see File.Sync.
	Sync() error
	Close() error
}

// File is one open file. Its methods are safe for concurrent use, Close apart.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// ReadAtNoWait reads what is in the page cache and never waits for the disk.
	// A short count with a nil error means that the rest is cold or past the end:
	// the next call from there tells by ErrCold or io.EOF. ErrCold may start
	// reading ahead. The errors are the bare sentinels; nothing is allocated.
	ReadAtNoWait(p []byte, off int64) (int, error)
	// Resident says whether all of [off, off+n) is in the page cache. False where
	// nobody can tell. Advice only: pages may leave right after.
	Resident(off int64, n int) bool
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate reserves blocks for [off, off+n) and grows the file to off+n where
	// it is shorter; bytes that are there stay. ErrDiskFull when the blocks are not
	// there. A file system without fallocate gets zeroes written past the old end,
	// so nobody may grow the file at the same time.
	Allocate(off, n int64) error
	// Sync makes the bytes and the size durable, not the name: see SyncDir.
	// After an error the bytes must count as lost: another Sync may answer nil
	// without having written them.
	Sync() error
	// Fd is the descriptor for sendfile and io_uring, valid until Close; -1 when
	// there is none.
	Fd() int
	Name() string
}

// WarmKind says how firmly Warm holds a segment's pages.
type WarmKind int32

const (
	WarmNone      WarmKind = iota // not warmed yet
	WarmTouched                   // each page was touched once
	WarmPopulated                 // MADV_POPULATE_WRITE: faulted in, may be taken back
	WarmLocked                    // faulted in and mlocked: stays
)

func (k WarmKind) String() string {
	switch k {
	case WarmTouched:
		return "touched"
	case WarmPopulated:
		return "populated"
	case WarmLocked:
		return "locked"
	}
	return "none"
}

// Segment is one mapped CommitLog segment, the only writable mapping in the
// program. Its size never changes: Truncate, and Allocate or WriteAt past the
// end, are refused while it is mapped, because a store past the end of a mapped
// file is a signal, not an error. Size is the segment's size.
//
// Window and View are valid until Unmap; whoever calls Unmap has made sure that
// nobody holds one. A range outside the segment is a bug of the caller and panics.
type Segment interface {
	File
	// Window is the writable view. Only the owner of the log's tail stores to it.
	Window(off, n int64) []byte
	// View is the read-only view of the same bytes: on linux a second mapping, so
	// that a stray store faults instead of damaging data.
	View(off, n int64) []byte
	// Zero writes real zeroes to [from, to), so that the extents count as written.
	// Dirty pages stay bounded: write-back starts behind each step.
	Zero(from, to int64) error
	// Warm makes the pages of [from, to) present, so that a store never waits for
	// the disk or a fault. Pages that the range only touches count. Nil also when
	// only a weaker form worked. It makes the pages dirty (the bytes stay), and a
	// sync or write-back of them costs that warmth again: warm a bounded stretch
	// ahead of the tail, not the whole segment.
	Warm(from, to int64) error
	// WarmKind is the form that the latest Warm got.
	WarmKind() WarmKind
	// Cool undoes Warm for the pages that lie wholly in [from, to) and drops them
	// from both mappings. They stay in the page cache; the bytes stay.
	Cool(from, to int64) error
	// WriteBack starts writing the dirty pages of [from, to). Nothing is durable
	// by it. The caller paces: a full device queue makes it wait.
	WriteBack(from, to int64) error
	// WaitWriteBack waits for what WriteBack started. Its error is worth that of
	// SyncRange: the kernel tells it once and the next sync answers nil.
	WaitWriteBack(from, to int64) error
	// SyncRange makes the bytes of [from, to) durable, whichever way they were
	// written. It may sync more than that. After an error: see File.Sync.
	SyncRange(from, to int64) error
	// Unmap drops both mappings; again is harmless. The File part works on.
	Unmap() error
}
