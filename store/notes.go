package store

import (
	"errors"
	"sync/atomic"

	"github.com/ringmq/ringmq/message"
)

// In the walk of one message: put.go leaves a note when it has encoded the record; dispatch.go and indexer.go take it.
//
// Notes save those who follow the log from reading it: whoever appends a record knows what its queue's entry and the index will say of it, and leaves
// that behind. To take a record apart again, its properties too, was a tenth of what a message costs, twice.
//
//	appender, under the tail's lock  ── note ──►  dispatch, under its lock  ── indexNote ──►  indexer, under its lock
//
// A note may be missing: there is no room, or the record needs a closer look (a delay, a transaction, a start's records). Then the log is
// read, as it is behind a start.

// note is what dispatch wants to know of a record.
type note struct {
	queue    *ConsumeQueue
	offset   int64 // in the queue
	tagsCode int64
	index    indexNote
}

// indexNote is what the indexer wants to know of a record.
type indexNote struct {
	at        int64 // physical offset
	storeTime int64 // ms
	size      int32
	keys      keyHashes
}

// place and end are the log offsets of the record and behind it.
func (n *note) place() int64      { return n.index.at }
func (n *note) end() int64        { return n.index.end() }
func (n *indexNote) place() int64 { return n.at }
func (n *indexNote) end() int64   { return n.at + int64(n.size) }

// keyHashes are the hash codes of a message's keys, in the order of Index.Put.
type keyHashes struct {
	n    int8
	list [3]int32
}

// add takes one more; false: there is no room.
func (k *keyHashes) add(h int32) bool {
	if int(k.n) == len(k.list) {
		return false
	}
	k.list[k.n] = h
	k.n++
	return true
}

// take is the hash codes of a message's keys; false: they are too many.
func (k *keyHashes) take(topic, uniqKey, keys, tags []byte) bool {
	return eachKey(topic, uniqKey, keys, tags, func(hash int32) error {
		if !k.add(hash) {
			return errTooManyKeys
		}
		return nil
	}) == nil
}

var errTooManyKeys = errors.New("a message has more keys than a note has room for")

// noteOf is the note of a message whose properties say hot, without its place; false: its record has to be read.
func (s *Store) noteOf(topic []byte, sysFlag int32, hot *message.Hot) (n note, ok bool) {
	if hot.Special || len(hot.Delay) > 0 || sysFlag&message.SysTransactionMask != 0 {
		return n, false
	}
	if s.index != nil && !n.index.keys.take(topic, hot.UniqKey, hot.Keys, hot.Tags) {
		return n, false
	}
	if len(hot.Tags) > 0 {
		n.tagsCode = message.TagsCode(hot.Tags)
	}
	return n, true
}

// Sizes of the lists: of what one turn appends, and of what comes between two looks of the indexer.
const (
	keptNotes      = 4 << 10
	keptIndexNotes = 32 << 10
)

// noteList is a ring of notes in the order of the log. One adds at a time, one takes at a time, each under a lock of its own.
type noteList[T any] struct {
	list []T
	_    [40]byte
	// head is what was taken, tail what was added.
	head atomic.Uint64
	_    [56]byte
	tail atomic.Uint64
	_    [56]byte
}

// make makes room for n notes, a power of two. Before, there is none.
func (l *noteList[T]) make(n int) { l.list = make([]T, n) }

// room is where the next note goes, or nil; added follows.
func (l *noteList[T]) room() *T {
	tail := l.tail.Load()
	if tail-l.head.Load() == uint64(len(l.list)) {
		return nil
	}
	return &l.list[tail&uint64(len(l.list)-1)]
}

func (l *noteList[T]) added() { l.tail.Store(l.tail.Load() + 1) }

// first is the oldest note, or nil. It stays what it is until taken.
func (l *noteList[T]) first() *T {
	head := l.head.Load()
	if head == l.tail.Load() {
		return nil
	}
	return &l.list[head&uint64(len(l.list)-1)]
}

// from is the first note of a record that lies at the log offset at or behind it, or nil; place is where a note's record lies.
func (l *noteList[T]) from(at int64, place func(*T) int64) *T {
	n := l.first()
	for ; n != nil && place(n) < at; n = l.first() {
		l.taken()
	}
	return n
}

func (l *noteList[T]) taken() { l.head.Store(l.head.Load() + 1) }
