package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// FS is one machine's file system between two crashes. It starts empty, with a
// root that relative and absolute names share.
type FS struct {
	mu   sync.Mutex
	root *inode
	// pending are the changes of names that are not durable, in the order made.
	pending []nameChange
	locks   map[*inode]bool
	// used is the sum of the sizes of all files that have a name or a handle;
	// Invariant: used <= capacity unless SetCapacity took room away.
	used, capacity int64

	ops    []Op
	count  int64
	hook   func(Op) error
	failAt map[int64]error
	gates  []*Gate
	// noWaitOff makes ReadAtNoWait answer ErrNoWaitUnsupported.
	noWaitOff bool
}

// New is an empty file system with room for 1 TiB.
func New() *FS {
	return &FS{root: newDir(0o755), capacity: 1 << 40, locks: map[*inode]bool{}, failAt: map[int64]error{}}
}

// SetCapacity sets the size of the device: what would go beyond it gets
// ErrDiskFull. Each file costs its size, holes included.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// SetNoWait(false) makes ReadAtNoWait answer ErrNoWaitUnsupported.
func (f *FS) SetNoWait(supported bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noWaitOff = !supported
}

func (f *FS) Open(name string, flag int, perm fs.FileMode) (ioengine.File, error) {
	kind := OpOpen
	if flag&os.O_CREATE != 0 {
		kind = OpCreate
	}
	if err := f.start(Op{Kind: kind, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	node, _, err := f.openLocked(name, flag, perm)
	if err != nil {
		return nil, fail(kind, name, err)
	}
	node.handles++
	return &file{fs: f, node: node, name: name, access: flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)}, nil
}

func (f *FS) openLocked(name string, flag int, perm fs.FileMode) (node *inode, created bool, err error) {
	dir, last, err := f.parentLocked(name)
	if err != nil {
		return nil, false, err
	}
	node = dir.entries[last]
	switch {
	case node == nil && flag&os.O_CREATE == 0:
		return nil, false, syscall.ENOENT
	case node == nil:
		node = &inode{mode: perm.Perm(), modTime: time.Now()}
		f.linkLocked(dir, last, node)
		return node, true, nil
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, false, syscall.EEXIST
	case node.dir:
		return nil, false, syscall.EISDIR
	case flag&os.O_TRUNC != 0:
		err = f.resizeLocked(node, 0)
	}
	return node, false, err
}

func (f *FS) OpenSegment(name string, size int64, create bool) (ioengine.Segment, error) {
	kind, flag := OpOpenSegment, os.O_RDWR
	if create {
		kind, flag = OpCreateSegment, os.O_RDWR|os.O_CREATE|os.O_EXCL
	}
	if err := f.start(Op{Kind: kind, Name: name, Len: size}); err != nil {
		return nil, err
	}
	if size <= 0 {
		return nil, fail(kind, name, fmt.Errorf("size %d: %w", size, syscall.EINVAL))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if create && size > f.capacity-f.used {
		return nil, fail(kind, name, syscall.ENOSPC)
	}
	node, _, err := f.openLocked(name, flag, 0o644)
	if err != nil {
		return nil, fail(kind, name, err)
	}
	if create {
		err = f.resizeLocked(node, size)
	} else if have := int64(len(node.cache)); have != size {
		err = fmt.Errorf("file has %d bytes where %d are configured: restore the segment size that the store was made with", have, size)
	}
	if err != nil {
		return nil, fail(kind, name, err)
	}
	node.handles++
	node.maps++
	s := &segment{file: file{fs: f, node: node, name: name, access: os.O_RDWR}, size: size}
	s.mem.Store(&node.cache)
	return s, nil
}

func (f *FS) ReadFile(name string) ([]byte, error) {
	if err := f.start(Op{Kind: OpReadFile, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	node, err := f.findLocked(name)
	if err == nil && node.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, fail(OpReadFile, name, err)
	}
	node.warmPages(0, int64(len(node.cache)))
	return append([]byte{}, node.cache...), nil
}

func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.start(Op{Kind: OpReadDir, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, err := f.findLocked(name)
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, fail(OpReadDir, name, err)
	}
	var list []fs.DirEntry
	for _, n := range sortedNames(dir.entries) {
		list = append(list, fs.FileInfoToDirEntry(dir.entries[n].info(n)))
	}
	return list, nil
}

func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if err := f.start(Op{Kind: OpStat, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	node, err := f.findLocked(name)
	if err != nil {
		return nil, fail(OpStat, name, err)
	}
	return node.info(filepath.Base(name)), nil
}

func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	path := parts(name)
	for depth := range path {
		f.mu.Lock()
		node, err := f.walkLocked(path[:depth+1])
		f.mu.Unlock()
		if err == nil && !node.dir {
			err = syscall.ENOTDIR
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fail(OpMkdir, name, err)
		}
		at := filepath.Join(path[:depth+1]...)
		if filepath.IsAbs(name) {
			at = string(filepath.Separator) + at
		}
		if err := f.Mkdir(at, perm); err != nil {
			return err
		}
		if err := f.SyncDir(filepath.Dir(at)); err != nil {
			return err
		}
	}
	return nil
}

func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	if err := f.start(Op{Kind: OpMkdir, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, last, err := f.parentLocked(name)
	if err == nil {
		if there := dir.entries[last]; there == nil {
			f.linkLocked(dir, last, newDir(perm.Perm()))
		} else if !there.dir {
			err = syscall.ENOTDIR
		}
	}
	if err != nil {
		return fail(OpMkdir, name, err)
	}
	return nil
}

func (f *FS) Rename(oldName, newName string) error {
	if err := f.start(Op{Kind: OpRename, Name: oldName, To: newName}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.renameLocked(oldName, newName); err != nil {
		return fail(OpRename+Kind(" to "+newName), oldName, err)
	}
	return nil
}

func (f *FS) renameLocked(oldName, newName string) error {
	from, fromName, err := f.parentLocked(oldName)
	if err != nil {
		return err
	}
	to, toName, err := f.parentLocked(newName)
	if err != nil {
		return err
	}
	node, old := from.entries[fromName], to.entries[toName]
	switch {
	case node == nil:
		return syscall.ENOENT
	case node == old:
		return nil
	case old != nil && old.dir:
		return syscall.EEXIST
	case old != nil && node.dir:
		return syscall.ENOTDIR
	}
	if old != nil {
		old.names--
		f.releaseLocked(old)
	}
	delete(from.entries, fromName)
	to.entries[toName] = node
	f.pending = append(f.pending, nameChange{from: from, fromName: fromName, to: to, toName: toName, node: node})
	return nil
}

func (f *FS) Remove(name string) error {
	if err := f.start(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, last, err := f.parentLocked(name)
	if err != nil {
		return fail(OpRemove, name, err)
	}
	node := dir.entries[last]
	switch {
	case node == nil:
		return fail(OpRemove, name, syscall.ENOENT)
	case len(node.entries) > 0:
		return fail(OpRemove, name, syscall.ENOTEMPTY)
	}
	f.unlinkLocked(dir, last)
	return nil
}

// RemoveAll is one operation, but a power loss may leave any part of it undone.
func (f *FS) RemoveAll(name string) error {
	if err := f.start(Op{Kind: OpRemoveAll, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, last, err := f.parentLocked(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && dir.entries[last] == nil {
		return nil
	}
	if err != nil {
		return fail(OpRemoveAll, name, err)
	}
	f.removeTreeLocked(dir, last)
	return nil
}

func (f *FS) removeTreeLocked(dir *inode, name string) {
	node := dir.entries[name]
	for _, n := range sortedNames(node.entries) {
		f.removeTreeLocked(node, n)
	}
	f.unlinkLocked(dir, name)
}

func (f *FS) SyncDir(name string) error {
	if err := f.start(Op{Kind: OpSyncDir, Name: name}); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, err := f.findLocked(name)
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return fail(OpSyncDir, name, err)
	}
	f.syncNamesLocked(dir)
	return nil
}

func (f *FS) Usage(dir string) (free, total int64, err error) {
	if err := f.start(Op{Kind: OpUsage, Name: dir}); err != nil {
		return 0, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.findLocked(dir); err != nil {
		return 0, 0, fail(OpUsage, dir, err)
	}
	return max(0, f.capacity-f.used), f.capacity, nil
}

func (f *FS) Lock(name string) (io.Closer, error) {
	if err := f.start(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	node, _, err := f.openLocked(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err == nil && f.locks[node] {
		err = errors.New("another process has it: stop that one or use another data folder")
	}
	if err != nil {
		return nil, fail(OpLock, name, err)
	}
	f.locks[node] = true
	return &lock{fs: f, node: node}, nil
}

type lock struct {
	fs   *FS
	node *inode
}

func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if !l.fs.locks[l.node] {
		return os.ErrClosed
	}
	delete(l.fs.locks, l.node)
	return nil
}
