package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Update that callers tell apart.
var (
	// ErrUnknownKey is a name that is not a property of this process.
	ErrUnknownKey = errors.New("unknown or without effect here")
	// ErrNeedsRestart is a property that cannot change while the process runs.
	ErrNeedsRestart = errors.New("takes effect only at a restart: change it in the configuration file")
	// ErrBlackListed is a property that configBlackList protects.
	ErrBlackListed = errors.New("is in configBlackList")
	// ErrNotPersisted is a change that is in force, but will be forgotten at the next start.
	ErrNotPersisted = errors.New("changed, but not written to the configuration file")
)

// Live is the configuration of a running process: an immutable snapshot that changes swap as a whole.
type Live[T any] struct {
	snapshot atomic.Pointer[T]

	settle  func(*T) error
	process string
	keys    map[string]Key
	origins map[string]origin
	file    string // absolute; empty: changes are not persisted
	log     *slog.Logger

	mu      sync.Mutex   // one change at a time, file included
	counter atomic.Int64 // changes since the start
	changed atomic.Int64 // milliseconds since 1970 of the start or the last change
}

func newLive[T any](snapshot *T, settle func(*T) error, l *loader, file string) *Live[T] {
	live := &Live[T]{settle: settle, process: l.process, keys: l.keys, origins: l.origins, log: l.log}
	if file != "" {
		live.file = absolute(file)
	}
	live.snapshot.Store(snapshot)
	live.changed.Store(time.Now().UnixMilli())
	return live
}

// NewLiveBroker wraps values made by a program, a test for instance. Its changes are not persisted.
func NewLiveBroker(b *Broker) *Live[Broker] {
	return newLive(b, (*Broker).settle, newLoader(b, "broker", nil), "")
}

// NewLiveNameServer wraps values made by a program, a test for instance. Its changes are not persisted.
func NewLiveNameServer(n *NameServer) *Live[NameServer] {
	return newLive(n, (*NameServer).settle, newLoader(n, "name server", nil), "")
}

// Load returns the snapshot in force. It is shared and must not be written to.
func (l *Live[T]) Load() *T { return l.snapshot.Load() }

// Version is what a get-config response carries as data version: how many changes there were since the start, and
// the time of the last one (or of the start) in milliseconds.
func (l *Live[T]) Version() (counter, timestampMillis int64) {
	return l.counter.Load(), l.changed.Load()
}

// Text prints all values in force as sorted key=value lines, the way RocketMQ's tools read them. Passwords are left out.
func (l *Live[T]) Text() string { return Text(l.Load()) }

// Text prints the values of a *Broker or *NameServer as sorted key=value lines. Passwords are left out.
func Text(snapshot any) string {
	var lines []string
	for _, k := range keysOf(snapshot) {
		if !k.Secret {
			lines = append(lines, formatProperty(k.Name, k.text(snapshot)))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// SetDefault gives a property another default before the process begins: nothing is logged or written to the file, and a value that a
// source gave stays.
func (l *Live[T]) SetDefault(key, value string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.keys[key]
	if !ok {
		return fmt.Errorf("%s: %w", shown(Key{}, key), ErrUnknownKey)
	}
	next := *l.Load()
	if l.origins[key] != fromDefault || k.text(&next) != k.Default {
		return nil
	}
	if err := k.set(&next, value); err != nil {
		return err
	}
	if err := l.settle(&next); err != nil {
		return err
	}
	l.snapshot.Store(&next)
	return nil
}

// Set changes one value. See Update.
func (l *Live[T]) Set(key, value string) error {
	return l.Update([]Property{{Key: key, Value: value}})
}

// Update changes several values, all or none, and writes them to the file the process was started from, if any. Only
// hot keys can change; a value equal to the one in force is always accepted.
//
// Error: ErrNotPersisted if the values are in force but could not be written: a full disk must not keep an operator
// from lowering the retention that fills it. With any other error nothing has changed.
func (l *Live[T]) Update(props []Property) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := *l.Load()
	var changed []Property
	for _, p := range props {
		did, err := l.applyLocked(&next, p)
		if err != nil {
			return err
		}
		if did {
			changed = append(changed, p)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	if err := l.settle(&next); err != nil {
		return err
	}
	l.snapshot.Store(&next)
	l.counter.Add(1)
	l.changed.Store(time.Now().UnixMilli())
	return l.persistLocked(changed)
}

// applyLocked sets one value in next, and says whether that changed anything.
func (l *Live[T]) applyLocked(next *T, p Property) (changed bool, err error) {
	black := l.keys["configBlackList"].text(l.Load())
	if slices.Contains(strings.Split(black, ";"), p.Key) {
		return false, fmt.Errorf("%s: %w", p.Key, ErrBlackListed)
	}
	k, ok := l.keys[p.Key]
	if !ok {
		return false, fmt.Errorf("%s: %w", shown(Key{}, p.Key), ErrUnknownKey)
	}
	before := k.text(next)
	if err := k.set(next, p.Value); err != nil {
		return false, err
	}
	if k.text(next) == before {
		return false, nil
	}
	if !k.Hot {
		return false, fmt.Errorf("%s: %w", p.Key, ErrNeedsRestart)
	}
	return true, nil
}

func (l *Live[T]) persistLocked(changed []Property) error {
	for _, p := range changed {
		l.log.Info("configuration changed", "process", l.process, "name", p.Key, "value", shown(l.keys[p.Key], p.Value))
		if from := l.origins[p.Key]; from > fromFile {
			l.log.Warn("configuration change lasts until the next start: a stronger source sets this name",
				"process", l.process, "name", p.Key, "source", originNames[from])
		}
	}
	if l.file == "" {
		l.log.Warn("configuration change lasts until the next start: there is no configuration file", "process", l.process)
		return nil
	}
	if err := rewrite(l.file, changed); err != nil {
		return fmt.Errorf("%w: %w", ErrNotPersisted, err)
	}
	return nil
}

// rewrite puts the values into a properties file and leaves its other lines as they are. The new text is on the
// device before it takes the place of the old one.
func rewrite(file string, changed []Property) error {
	mode := fs.FileMode(0o644)
	text, err := readBounded(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
	}
	for _, p := range changed {
		if text, err = replaceProperty(text, p.Key, strings.TrimSpace(p.Value)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return replaceFile(file, text, mode)
}

func replaceFile(file string, text []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails, as it should, once the rename is done
	_, err = tmp.Write(text)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}
