package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/ioengine"
)

// errNotFound: a queue's file is not there.
var errNotFound = errors.New("consume queue file does not exist")

func isNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// fileKey names one file of a queue by the queue offset of its first unit.
type fileKey struct {
	q    *ConsumeQueue
	base int64
}

// queueFile is one open file. The cache holds one reference, each user one more; the last one closes.
type queueFile struct {
	key  fileKey
	f    ioengine.File
	refs atomic.Int32
	// prepared: size and filler were checked for writing. Belongs to the holder of table.writeMu.
	prepared bool
	// Neighbours in the order of use; both belong to the cache's mu.
	older, newer *queueFile
}

func (f *queueFile) release() {
	if f.refs.Add(-1) == 0 {
		// Whatever was written is synced through another descriptor or not at all; closing tells nothing.
		_ = f.f.Close()
	}
}

// queueFiles holds the descriptors of all queues: at most limit, the least recently used goes first. One in use is
// closed when its user is done.
type queueFiles struct {
	table *QueueTable
	limit int

	mu   sync.Mutex
	open map[fileKey]*queueFile
	// newest and oldest end the list of what is open.
	newest, oldest *queueFile
	closed         bool
}

// lookup answers the open file with a reference taken, or nil.
func (c *queueFiles) lookup(key fileKey) *queueFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.open[key]
	if f == nil {
		return nil
	}
	if f != c.newest {
		c.unlinkLocked(f)
		c.linkLocked(f)
	}
	f.refs.Add(1)
	return f
}

// acquire answers the file for reading. Opening one may wait for the disk, so without wait only an open one is answered.
func (c *queueFiles) acquire(q *ConsumeQueue, base int64, wait bool) (*queueFile, error) {
	key := fileKey{q, base}
	if f := c.lookup(key); f != nil {
		return f, nil
	}
	if !wait {
		return nil, ioengine.ErrCold
	}
	f, err := c.table.fs.Open(q.fileName(base), os.O_RDWR, 0)
	if err != nil {
		if isNotFound(err) {
			return nil, errNotFound
		}
		return nil, err
	}
	return c.add(key, f), nil
}

// acquireForWrite creates the file where it is missing, with its folder, and gives it its full size and its filler.
// The caller holds table.writeMu.
func (c *queueFiles) acquireForWrite(q *ConsumeQueue, base int64) (*queueFile, error) {
	f := c.lookup(fileKey{q, base})
	if f == nil {
		file, err := c.openOrMake(q, base)
		if err != nil {
			return nil, err
		}
		f = c.add(fileKey{q, base}, file)
	}
	if !f.prepared {
		if err := c.table.prepare(f); err != nil {
			f.release()
			return nil, err
		}
		f.prepared = true
		// Also where the file was there: a process that was killed may have made it, and its name is not durable.
		c.table.markNamed(q)
	}
	return f, nil
}

// openOrMake leaves the names of a new file and of its folders to the next Sync: with a sync each, the files of 100,000 queues took two
// minutes.
func (c *queueFiles) openOrMake(q *ConsumeQueue, base int64) (ioengine.File, error) {
	const flag = os.O_RDWR | os.O_CREATE
	name := q.fileName(base)
	f, err := c.table.fs.Open(name, flag, 0o644)
	if !isNotFound(err) {
		return f, err
	}
	if err := c.table.makeFolders(q); err != nil {
		return nil, err
	}
	return c.table.fs.Open(name, flag, 0o644)
}

func (t *QueueTable) makeFolders(q *ConsumeQueue) error {
	err := t.fs.Mkdir(q.dir(), 0o755)
	if !isNotFound(err) {
		return err
	}
	if err := t.fs.MkdirAll(t.dir, 0o755); err != nil {
		return err
	}
	if err := t.fs.Mkdir(filepath.Join(t.dir, q.Topic), 0o755); err != nil {
		return err
	}
	return t.fs.Mkdir(q.dir(), 0o755)
}

// add puts a newly opened file into the cache; when another was quicker, that one is answered.
func (c *queueFiles) add(key fileKey, file ioengine.File) *queueFile {
	f := &queueFile{key: key, f: file}
	f.refs.Store(2)
	c.mu.Lock()
	if there := c.open[key]; there != nil {
		there.refs.Add(1)
		c.mu.Unlock()
		_ = file.Close()
		return there
	}
	var evicted *queueFile
	if c.closed {
		f.refs.Store(1)
	} else {
		c.open[key] = f
		c.linkLocked(f)
		if len(c.open) > c.limit {
			evicted = c.oldest
			c.dropLocked(evicted)
		}
	}
	c.mu.Unlock()
	if evicted != nil {
		evicted.release()
	}
	return f
}

func (c *queueFiles) linkLocked(f *queueFile) {
	f.older, f.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = f
	} else {
		c.oldest = f
	}
	c.newest = f
}

func (c *queueFiles) unlinkLocked(f *queueFile) {
	if f.older != nil {
		f.older.newer = f.newer
	} else {
		c.oldest = f.newer
	}
	if f.newer != nil {
		f.newer.older = f.older
	} else {
		c.newest = f.older
	}
	f.older, f.newer = nil, nil
}

func (c *queueFiles) dropLocked(f *queueFile) {
	c.unlinkLocked(f)
	delete(c.open, f.key)
}

// forget closes the files that match, once their users are done.
func (c *queueFiles) forget(match func(key fileKey) bool) {
	var dropped []*queueFile
	c.mu.Lock()
	for key, f := range c.open {
		if match(key) {
			c.dropLocked(f)
			dropped = append(dropped, f)
		}
	}
	c.mu.Unlock()
	for _, f := range dropped {
		f.release()
	}
}

func (c *queueFiles) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.forget(func(fileKey) bool { return true })
}

// prepare gives a file its full size, sparse, and fills the units before the queue's first entry. It finds both done
// in a file that was prepared before; a crash in between is mended by the next writer.
func (t *QueueTable) prepare(f *queueFile) error {
	size, err := f.f.Size()
	if err != nil {
		return err
	}
	full := t.fileUnits * UnitSize
	if size > full {
		return wrongSize(f.f.Name(), size, full)
	}
	if size < full {
		if err := f.f.Truncate(full); err != nil {
			return err
		}
		t.markDirty(f.key)
	}
	// The queue's first entry may have moved on since; filler is wanted where nothing was ever written.
	first := f.key.q.min.Load()
	if first <= f.key.base {
		return nil
	}
	var unit [UnitSize]byte
	if _, err := f.f.ReadAt(unit[:], 0); err != nil {
		return err
	}
	if unit != [UnitSize]byte{} {
		return nil
	}
	t.markDirty(f.key)
	return fill(f.f, min(first-f.key.base, t.fileUnits))
}

func wrongSize(name string, size, want int64) error {
	return fmt.Errorf("consume queue file %s has %d bytes, not %d: set mappedFileSizeConsumeQueue to what the store was written with", name, size, want)
}

// fill writes filler into the first units of a file, the very first unit last: a file whose first unit is set is done.
func fill(f ioengine.File, units int64) error {
	const step = 4096
	var unit [UnitSize]byte
	Entry{Size: fillerSize}.put(unit[:])
	block := bytes.Repeat(unit[:], int(min(units, step)))
	for to := units; to > 0; to -= step {
		from := max(to-step, 0)
		if _, err := f.WriteAt(block[:(to-from)*UnitSize], from*UnitSize); err != nil {
			return err
		}
	}
	return nil
}
