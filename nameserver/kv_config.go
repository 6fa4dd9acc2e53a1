package nameserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

// orderTopicNamespace holds the order configuration of topics: "broker:queues;..." by topic.
const orderTopicNamespace = "ORDER_TOPIC_CONFIG"

// Bounds of the key-value configuration.
const (
	maxKVItems = 65536
	maxKVBytes = 8 << 20 // names and values together: a whole namespace fits in one answer
)

var errKVFull = fmt.Errorf("the key-value configuration holds its limit of %d items or %d bytes: delete some", maxKVItems, maxKVBytes)

// kvConfig is the key-value configuration, in memory and on disk: {"configTable":{namespace:{key:value}}}. A change is answered when it is
// durable, and not in force before. Does the work of KVConfigManager.
type kvConfig struct {
	// writing is held over a change from copy to rename: one change at a time reaches the disk.
	writing sync.Mutex
	file    *ioengine.MetadataFile

	mu    sync.RWMutex
	table map[string]map[string]string // namespaces are replaced as a whole, never changed
}

type kvFile struct {
	ConfigTable map[string]map[string]string `json:"configTable"`
}

// loadKV reads the latest readable generation. With acceptEmpty it starts without one where neither can be read.
func loadKV(fsys ioengine.FS, path string, acceptEmpty bool, log *slog.Logger) (*kvConfig, error) {
	file, err := ioengine.OpenMetadata(fsys, filepath.Dir(path), filepath.Base(path), log)
	if err != nil {
		return nil, fmt.Errorf("key-value configuration: %w", err)
	}
	k := &kvConfig{file: file, table: make(map[string]map[string]string)}
	_, err = file.Load(acceptEmpty, func(text []byte) error {
		var content kvFile
		if err := json.Unmarshal(text, &content); err != nil {
			return err
		}
		if content.ConfigTable == nil {
			return errors.New("no configTable in it")
		}
		k.table = content.ConfigTable
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("key-value configuration: %w", err)
	}
	return k, nil
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
	if err := k.file.Save(remoting.EncodeBody(kvFile{next})); err != nil {
		return fmt.Errorf("key-value configuration: %w", err)
	}
	k.mu.Lock()
	k.table = next
	k.mu.Unlock()
	return nil
}
