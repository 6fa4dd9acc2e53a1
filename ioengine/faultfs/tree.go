package faultfs

import (
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// inode is one file or folder, whatever its names. All fields belong to FS.mu,
// but for the bytes of cache that a window covers: those are the tail owner's.
type inode struct {
	dir     bool
	mode    fs.FileMode
	modTime time.Time

	// A folder's names. entries is what programs see, durable what a power loss
	// leaves; pending (in FS) leads from durable to entries.
	entries, durable map[string]*inode

	// A file's bytes. cache is what programs see, dev what the device has.
	cache, dev []byte
	// lost marks the bytes that a failed sync left clean but not on the device, as
	// long as they equal snap. Both are nil before the first failed sync, and as
	// long as cache was at the latest failed one after.
	lost []bool
	snap []byte
	// cold holds the numbers of pages that are not in the page cache.
	cold map[int64]bool

	// names and handles keep the bytes of a file; when both are zero the space is
	// free. While maps > 0 the size is fixed.
	names, handles, maps int

	syncs syncOrder
}

// nameChange is one change of names that is not durable yet. from is nil for a
// creation, to for a removal.
type nameChange struct {
	from, to         *inode // folders
	fromName, toName string
	node             *inode
}

func (c nameChange) apply() {
	if c.from != nil && c.from.durable[c.fromName] == c.node {
		delete(c.from.durable, c.fromName)
	}
	if c.to != nil {
		c.to.durable[c.toName] = c.node
	}
}

func newDir(perm fs.FileMode) *inode {
	return &inode{dir: true, mode: perm | fs.ModeDir, modTime: time.Now(),
		entries: map[string]*inode{}, durable: map[string]*inode{}}
}

// parts cuts a name into its folders and the last part. "." and "/" are both the
// root and have none.
func parts(name string) []string {
	clean := strings.Trim(filepath.ToSlash(filepath.Clean(name)), "/")
	if clean == "" || clean == "." {
		return nil
	}
	return strings.Split(clean, "/")
}

func (f *FS) walkLocked(path []string) (*inode, error) {
	at := f.root
	for _, part := range path {
		if !at.dir {
			return nil, syscall.ENOTDIR
		}
		next := at.entries[part]
		if next == nil {
			return nil, syscall.ENOENT
		}
		at = next
	}
	return at, nil
}

func (f *FS) findLocked(name string) (*inode, error) { return f.walkLocked(parts(name)) }

// parentLocked finds the folder that a name is in, and the name's last part.
func (f *FS) parentLocked(name string) (*inode, string, error) {
	path := parts(name)
	if len(path) == 0 {
		return nil, "", syscall.EINVAL
	}
	dir, err := f.walkLocked(path[:len(path)-1])
	if err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", syscall.ENOTDIR
	}
	return dir, path[len(path)-1], nil
}

// linkLocked gives node a name that is free.
func (f *FS) linkLocked(dir *inode, name string, node *inode) {
	dir.entries[name] = node
	dir.modTime = time.Now()
	node.names++
	f.pending = append(f.pending, nameChange{to: dir, toName: name, node: node})
}

func (f *FS) unlinkLocked(dir *inode, name string) {
	node := dir.entries[name]
	delete(dir.entries, name)
	dir.modTime = time.Now()
	node.names--
	f.pending = append(f.pending, nameChange{from: dir, fromName: name, node: node})
	f.releaseLocked(node)
}

// releaseLocked frees the space of a file that nobody can reach any more.
func (f *FS) releaseLocked(node *inode) {
	if !node.dir && node.names == 0 && node.handles == 0 {
		f.used -= int64(len(node.cache))
	}
}

// syncNamesLocked makes the pending changes of one folder durable, in order. An
// earlier change of the same node in another folder is overtaken: the file would
// have two names otherwise.
func (f *FS) syncNamesLocked(dir *inode) {
	done := map[*inode]bool{}
	var left []nameChange
	for _, c := range slices.Backward(f.pending) {
		switch {
		case c.from == dir || c.to == dir:
			done[c.node] = true
		case done[c.node]:
		default:
			left = append(left, c)
		}
	}
	for _, c := range f.pending {
		if c.from == dir || c.to == dir {
			c.apply()
		}
	}
	slices.Reverse(left)
	f.pending = left
}

// resizeLocked keeps the account of space.
func (f *FS) resizeLocked(node *inode, size int64) error {
	grow := size - int64(len(node.cache))
	if grow == 0 {
		return nil
	}
	if node.maps > 0 {
		return syscall.EBUSY
	}
	if grow > f.capacity-f.used {
		return syscall.ENOSPC
	}
	f.used += grow
	node.redirty(min(size, int64(len(node.cache))), int64(len(node.lost)))
	if grow < 0 {
		node.cache = node.cache[:size:size]
		return nil
	}
	node.cache = append(node.cache, make([]byte, grow)...)
	return nil
}

func sortedNames(entries map[string]*inode) []string {
	return slices.Sorted(maps.Keys(entries))
}

// info is a copy, so that it may outlive the lock.
type info struct {
	name    string
	size    int64
	mode    fs.FileMode
	modTime time.Time
}

func (n *inode) info(name string) info {
	return info{name: name, size: int64(len(n.cache)), mode: n.mode, modTime: n.modTime}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.modTime }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }

var _ ioengine.FS = (*FS)(nil)
