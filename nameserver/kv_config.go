package nameserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

// orderTopicNamespace holds the order configuration of topics: "broker:queues;..." by topic.
const orderTopicNamespace = "ORDER_TOPIC_CONFIG"

// Bounds of the key-value configuration.
const (
	maxKVItems = 65536
	maxKVBytes = 8 << 20  // names and values together: a whole namespace fits in one answer
	maxKVFile  = 64 << 20 // what is read at start: escapes make a file longer than what it holds
)

var errKVFull = fmt.Errorf("the key-value configuration holds its limit of %d items or %d bytes: delete some", maxKVItems, maxKVBytes)

// kvConfig is the key-value configuration, in memory and on disk (rule R3). Does the work of KVConfigManager.
//
//	kvConfig.json       the latest generation: {"configTable":{namespace:{key:value}},"ringmqCrc32c":"89abcdef"}
//	kvConfig.json.bak   the one before
//	kvConfig.json.next  the one being written; never read
//
// The last member is the CRC-32C of every byte before it. Java passes over it, and a file that Java wrote has none and counts when it
// parses. A change is answered when it is durable, and not in force before.
type kvConfig struct {
	fsys ioengine.FS
	path string
	log  *slog.Logger

	// writing is held over a change from copy to rename: one change at a time reaches the disk.
	writing sync.Mutex
	// damaged says that the file under path could not be read: it must not push the good generation out of .bak. Under writing.
	damaged bool

	mu    sync.RWMutex
	table map[string]map[string]string // namespaces are replaced as a whole, never changed
}

// loadKV reads the latest readable generation. With acceptEmpty it starts without one where neither can be read.
func loadKV(fsys ioengine.FS, path string, acceptEmpty bool, log *slog.Logger) (*kvConfig, error) {
	k := &kvConfig{fsys: fsys, path: path, log: log, table: make(map[string]map[string]string)}
	if err := fsys.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("folder of the key-value configuration: %w", err)
	}
	nowErr := k.read(path)
	if nowErr == nil {
		return k, nil
	}
	beforeErr := k.read(path + ".bak")
	k.damaged = !errors.Is(nowErr, fs.ErrNotExist)
	switch {
	case beforeErr == nil:
		log.Error("key-value configuration: went back to the previous generation, the last change may be missing", "file", path, "err", nowErr)
	case !k.damaged && errors.Is(beforeErr, fs.ErrNotExist):
	case acceptEmpty:
		log.Error("key-value configuration: starting with an empty one, as asked", "file", path, "err", nowErr)
	default:
		return nil, fmt.Errorf("key-value configuration %s: %w (previous generation: %w): restore it from a backup, or move both files away to start with an empty one",
			path, nowErr, beforeErr)
	}
	return k, nil
}

type kvFile struct {
	ConfigTable map[string]map[string]string `json:"configTable"`
}

func (k *kvConfig) read(path string) error {
	info, err := k.fsys.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxKVFile {
		return fmt.Errorf("%d bytes, more than %d", info.Size(), maxKVFile)
	}
	text, err := k.fsys.ReadFile(path)
	if err != nil {
		return err
	}
	if err := verifyKV(text); err != nil {
		return err
	}
	var file kvFile
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	if file.ConfigTable == nil {
		return errors.New("no configTable in it")
	}
	k.table = file.ConfigTable
	return nil
}

const kvChecksum = `"ringmqCrc32c":"`

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// verifyKV accepts a text without checksum: Java wrote it.
func verifyKV(text []byte) error {
	at := bytes.LastIndex(text, []byte(kvChecksum))
	if at < 0 {
		return nil
	}
	tail := bytes.TrimSpace(text[at+len(kvChecksum):])
	if len(tail) != 10 || string(tail[8:]) != `"}` {
		return errors.New("text behind the checksum")
	}
	want, err := strconv.ParseUint(string(tail[:8]), 16, 32)
	if err != nil {
		return errors.New("the checksum is no number")
	}
	if got := crc32.Checksum(text[:at], castagnoli); got != uint32(want) {
		return fmt.Errorf("checksum %08x, but the content has %08x: damaged, or changed by hand without taking out ringmqCrc32c", want, got)
	}
	return nil
}

func kvSize(table map[string]map[string]string) (items, size int) {
	for namespace, keys := range table {
		size += len(namespace)
		for key, value := range keys {
			items++
			size += len(key) + len(value)
		}
	}
	return items, size
}

func (k *kvConfig) get(namespace, key string) (value string, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	value, ok = k.table[namespace][key]
	return value, ok
}

// list is everything in a namespace, nil if there is none. The caller must not change it.
func (k *kvConfig) list(namespace string) map[string]string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.table[namespace]
}

func (k *kvConfig) put(namespace, key, value string) error {
	if old, ok := k.get(namespace, key); ok && old == value {
		return nil
	}
	return k.change(namespace, func(keys map[string]string) { keys[key] = value })
}

func (k *kvConfig) remove(namespace, key string) error {
	if _, ok := k.get(namespace, key); !ok {
		return nil
	}
	return k.change(namespace, func(keys map[string]string) { delete(keys, key) })
}

// change makes a new table, writes it, and puts it in force when it is durable.
func (k *kvConfig) change(namespace string, edit func(keys map[string]string)) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	next := make(map[string]map[string]string, len(k.table)+1)
	for name, keys := range k.table { // only change writes it, and we are the only change
		next[name] = keys
	}
	keys := make(map[string]string, len(next[namespace])+1)
	for key, value := range next[namespace] {
		keys[key] = value
	}
	edit(keys)
	next[namespace] = keys
	items, size := kvSize(next)
	if items > maxKVItems || size > maxKVBytes {
		return errKVFull
	}
	if err := k.save(next); err != nil {
		return fmt.Errorf("key-value configuration: %w", err)
	}
	k.mu.Lock()
	k.table = next
	k.mu.Unlock()
	return nil
}

// save makes table the latest generation. A crash at any moment leaves a readable one:
//
//	.next written and synced | path -> .bak | .next -> path | folder synced
func (k *kvConfig) save(table map[string]map[string]string) error {
	text := remoting.EncodeBody(kvFile{table})
	text = append(text[:len(text)-1], ',')
	text = fmt.Appendf(text, "%s%08x\"}", kvChecksum, crc32.Checksum(text, castagnoli))
	next := k.path + ".next"
	if err := ioengine.WriteFileAtomic(k.fsys, next, text); err != nil {
		return err
	}
	old := k.path + ".bak"
	if k.damaged {
		old = k.path + ".damaged"
	}
	if err := k.fsys.Rename(k.path, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	k.damaged = false
	if err := k.fsys.Rename(next, k.path); err != nil {
		return err
	}
	return k.fsys.SyncDir(filepath.Dir(k.path))
}
