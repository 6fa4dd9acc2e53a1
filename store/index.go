package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
)

// In the walk of one message: before this, indexer.go follows the log and calls Put; after this, queries by key look here. Does the work of IndexService.

// IndexTypeTag asks Query for messages with a tag instead of a key.
const IndexTypeTag = 'T'

// maxIndexSteps bounds the entries that one query looks at: a key that all messages share has one endless chain.
const maxIndexSteps = 1 << 21

// IndexOptions are the settings of an Index; those marked "default" may be left out.
type IndexOptions struct {
	FS        ioengine.FS
	Dir       string // the folder `index` of the store
	HashSlots int    // maxHashSlotNum, default 5,000,000
	Entries   int    // maxIndexNum, default 20,000,000
	Logger    *slog.Logger
	// DropAfter removes the files whose last message is younger, ms: after a crash of a Java broker its checkpoint's
	// IndexMsgTimestamp, because what it had not flushed may be wrong anywhere. 0 = keep all; ours are safe by order.
	DropAfter int64
	// Now names new files, in local time as the original does; default time.Now.
	Now func() time.Time
}

// Index answers which messages have a key. One goroutine puts, one flushes; queries come from any.
type Index struct {
	o IndexOptions
	// progress is the log offset of the last message that is in.
	progress atomic.Int64

	// writeMu is held to put and to flush, across I/O. It comes before mu.
	writeMu sync.Mutex
	closed  bool // belongs to writeMu
	// mu guards the list; queries hold it for reading until they are done, so that no file goes away under them.
	mu    sync.RWMutex
	files []*IndexFile // oldest first; the last is the one being written
}

// OpenIndex reads the headers of the files in o.Dir. A damaged file is removed and said aloud: the newest is built
// again from the log, of an older one the keys can't be asked for any more.
func OpenIndex(o IndexOptions) (*Index, error) {
	if o.HashSlots == 0 {
		o.HashSlots = 5_000_000
	}
	if o.Entries == 0 {
		o.Entries = 20_000_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	// The original computes the size in 32 bits.
	if o.HashSlots < 1 || o.Entries < 2 || indexHeaderSize+int64(o.HashSlots)*4+int64(o.Entries)*indexEntrySize > math.MaxInt32 {
		return nil, fmt.Errorf("index files with %d slots and %d entries: set maxHashSlotNum and maxIndexNum so that a file stays below 2 GiB",
			o.HashSlots, o.Entries)
	}
	x := &Index{o: o}
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	names, err := o.FS.ReadDir(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range names {
		if entry.IsDir() || !isIndexName(entry.Name()) {
			o.Logger.Warn("unknown file among the index files", "file", entry.Name())
			continue
		}
		if err := x.load(filepath.Join(o.Dir, entry.Name())); err != nil {
			return nil, err
		}
	}
	if n := len(x.files); n > 0 {
		x.progress.Store(x.files[n-1].header.endPhys)
	}
	return x, nil
}

// isIndexName: yyyyMMddHHmmssSSS.
func isIndexName(name string) bool {
	return len(name) == 17 && strings.Trim(name, "0123456789") == ""
}

// load adds a file, or removes it. Files come in the order of their names, which is the order of their messages.
func (x *Index) load(name string) error {
	f, err := loadIndexFile(x.o.FS, name, int64(x.o.HashSlots), int64(x.o.Entries))
	var damage *IndexDamage
	switch {
	case errors.As(err, &damage):
		x.o.Logger.Error("index file is removed: what is missing at the end is built again from the commit log", "err", err)
	case err != nil:
		return err
	case x.o.DropAfter > 0 && f.header.endTime > x.o.DropAfter:
		x.o.Logger.Warn("index file is removed and built again from the commit log: it was not flushed before the crash", "file", name)
	case len(x.files) > 0 && f.header.endPhys < x.files[len(x.files)-1].header.endPhys:
		x.o.Logger.Error("index file is removed: its messages are older than those of the file before", "file", name)
	default:
		x.files = append(x.files, f)
		return nil
	}
	return x.o.FS.Remove(name)
}

// Progress is the log offset of the last message known to be in. After a start, Put goes on with that very message:
// keys of it that are there are skipped.
func (x *Index) Progress() int64 { return x.progress.Load() }

// Put adds the keys of one message, in log order: its unique key, each word of keys, its tags. A message that is in
// already is skipped. After an error the same message may be put again. Empty fields are left out.
func (x *Index) Put(phys, storeTime int64, topic, uniqKey, keys, tags []byte) error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	if phys < x.progress.Load() {
		return nil
	}
	again := phys == x.progress.Load()
	return eachKey(topic, uniqKey, keys, tags, func(hash int32) error { return x.putKey(hash, phys, storeTime, again) })
}

// putHashes is Put for a message of whose keys the hash codes are known.
func (x *Index) putHashes(phys, storeTime int64, keys *keyHashes) error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	if phys < x.progress.Load() {
		return nil
	}
	again := phys == x.progress.Load()
	for _, hash := range keys.list[:keys.n] {
		if err := x.putKey(hash, phys, storeTime, again); err != nil {
			return err
		}
	}
	return nil
}

// eachKey gives the hash codes of a message's keys to visit: of its unique key, each word of keys, its tags.
func eachKey(topic, uniqKey, keys, tags []byte, visit func(hash int32) error) error {
	head := message.HashCodeMore(message.HashCode(topic), hashMark)
	if len(uniqKey) > 0 {
		if err := visit(message.HashCodeMore(head, uniqKey)); err != nil {
			return err
		}
	}
	for len(keys) > 0 {
		var key []byte
		if key, keys, _ = bytes.Cut(keys, keySeparator); len(key) == 0 {
			continue
		}
		if err := visit(message.HashCodeMore(head, key)); err != nil {
			return err
		}
	}
	if len(tags) > 0 {
		return visit(message.HashCodeMore(message.HashCodeMore(head, tagMark), tags))
	}
	return nil
}

var (
	hashMark     = []byte("#")
	tagMark      = []byte("T#")
	keySeparator = []byte(" ")
)

// indexHash is what the files hold of Java's hash code: its absolute value, 0 where that overflows.
func indexHash(h int32) int32 {
	if h == math.MinInt32 {
		return 0
	}
	return max(h, -h)
}

func (x *Index) putKey(hashCode int32, phys, storeTime int64, again bool) error {
	hash := indexHash(hashCode)
	if again {
		there, err := x.has(hash, phys)
		if there || err != nil {
			return err
		}
	}
	f, err := x.active()
	if err != nil {
		return err
	}
	if err := f.put(hash, phys, storeTime); err != nil {
		return err
	}
	x.progress.Store(phys)
	return nil
}

// has tells whether the message is there under this hash. A message's entries may lie in two files.
func (x *Index) has(hash int32, phys int64) (bool, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for i := len(x.files) - 1; i >= 0 && i >= len(x.files)-2; i-- {
		q := indexQuery{hash: hash, begin: 0, end: math.MaxInt64, maxNum: 1, steps: maxIndexSteps}
		if err := x.files[i].query(&q); err != nil {
			return false, err
		}
		// The newest entry of the hash decides: entries are in log order.
		if len(q.found) > 0 {
			return q.found[0] == phys, nil
		}
	}
	return false, nil
}

// active answers the file to put into, rolled when it is full. The caller holds writeMu.
func (x *Index) active() (*IndexFile, error) {
	if x.closed {
		return nil, errors.New("index is closed")
	}
	var last *IndexFile
	x.mu.RLock()
	if n := len(x.files); n > 0 {
		last = x.files[n-1]
	}
	x.mu.RUnlock()
	if last != nil && !last.full() {
		return last, last.openForWrite()
	}
	var before indexHeader
	newest := ""
	if last != nil {
		if err := last.flush(); err != nil {
			return nil, err
		}
		before, newest = last.header, filepath.Base(last.name)
	}
	f, err := createIndexFile(x.o.FS, filepath.Join(x.o.Dir, nextIndexName(x.o.Now(), newest)), int64(x.o.HashSlots), int64(x.o.Entries), before)
	if err != nil {
		return nil, err
	}
	if err := x.o.FS.SyncDir(x.o.Dir); err != nil {
		return nil, errors.Join(err, f.close(), x.o.FS.Remove(f.name))
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.files = append(x.files, f)
	if last != nil {
		// It is flushed; queries open it again.
		_ = last.close()
	}
	return f, nil
}

// nextIndexName is the time, or right behind the newest name where the clock went back.
func nextIndexName(now time.Time, newest string) string {
	name := indexName(now)
	if name > newest {
		return name
	}
	if t, err := time.ParseInLocation("20060102150405.000", newest[:14]+"."+newest[14:], time.UTC); err == nil {
		return indexName(t.Add(time.Millisecond))
	}
	// Digits that are no time, made by nobody's clock.
	return newest[:16] + string(newest[16]+1)
}

func indexName(t time.Time) string {
	return strings.Replace(t.Format("20060102150405.000"), ".", "", 1)
}

// Query answers the log offsets of at most maxNum messages with the key, newest first, stored in [begin, end] (ms),
// and how far the index has come. Different keys may share a hash: the caller compares the real ones. indexType is
// IndexTypeTag or 0. May wait for the disk.
func (x *Index) Query(topic, key []byte, maxNum int, begin, end int64, indexType byte) (phys []int64, lastTime, lastPhys int64, err error) {
	h := message.HashCodeMore(message.HashCode(topic), hashMark)
	if indexType == IndexTypeTag {
		h = message.HashCodeMore(h, tagMark)
	}
	q := indexQuery{hash: indexHash(message.HashCodeMore(h, key)), begin: begin, end: end, maxNum: maxNum, steps: maxIndexSteps}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for i := len(x.files) - 1; i >= 0; i-- {
		f := x.files[i]
		f.mu.Lock()
		header := f.header
		f.mu.Unlock()
		if i == len(x.files)-1 {
			lastTime, lastPhys = header.endTime, header.endPhys
		}
		var damage *IndexDamage
		if err := f.query(&q); errors.As(err, &damage) {
			x.o.Logger.Error("messages may be missing from the answer to a query by key", "err", err)
		} else if err != nil {
			return nil, lastTime, lastPhys, err
		}
		if header.beginTime < begin || len(q.found) >= maxNum {
			break
		}
	}
	return q.found, lastTime, lastPhys, nil
}

// Flush makes durable what was put. Memory goes back after some calls that found nothing new.
func (x *Index) Flush() error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.mu.RLock()
	defer x.mu.RUnlock()
	if n := len(x.files); n > 0 {
		return x.files[n-1].flush()
	}
	return nil
}

// TrimBefore deletes the files of which all messages lie before minPhys, the last one never.
func (x *Index) TrimBefore(minPhys int64) error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.files) > 1 && x.files[0].header.endPhys < minPhys {
		if err := errors.Join(x.files[0].close(), x.o.FS.Remove(x.files[0].name)); err != nil {
			return err
		}
		x.files = x.files[1:]
	}
	return nil
}

// TruncateBeyond drops the entries of messages at phys and behind: the log was cut there. Before the first Put.
func (x *Index) TruncateBeyond(phys int64) error {
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	for n := len(x.files); n > 0 && x.files[n-1].header.endPhys >= phys; n = len(x.files) {
		f := x.files[n-1]
		if f.empty() || f.header.beginPhys >= phys {
			if err := errors.Join(f.close(), x.o.FS.Remove(f.name)); err != nil {
				return err
			}
			x.files = x.files[:n-1]
			continue
		}
		if err := f.cut(phys); err != nil {
			return err
		}
		if err := f.flush(); err != nil {
			return err
		}
	}
	x.progress.Store(0)
	if n := len(x.files); n > 0 {
		x.progress.Store(x.files[n-1].header.endPhys)
	}
	return nil
}

// Close flushes and closes. Put answers an error from then on.
func (x *Index) Close() error {
	err := x.Flush()
	x.writeMu.Lock()
	defer x.writeMu.Unlock()
	x.closed = true
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, f := range x.files {
		err = errors.Join(err, f.close())
	}
	return err
}
