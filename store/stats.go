package store

import (
	"errors"
	"slices"

	"github.com/ringmq/ringmq/message"
)

// What tools ask of a store.

// maxEarliestSkip bounds how many records EarliestStoreTime looks at: blanks and places without a record are passed over.
const maxEarliestSkip = 16

// EarliestStoreTime is the store time of the log's first record, ms; -1 for an empty log. It may wait for the disk.
func (s *Store) EarliestStoreTime() (int64, error) {
	var buf []byte
	at := s.log.MinOffset()
	for range maxEarliestSkip {
		if at >= s.log.Published() {
			return -1, nil
		}
		raw, next, err := s.log.ReadNext(at, buf)
		if err != nil {
			return -1, err
		}
		if len(raw) >= message.FixedSize {
			return message.StoreTimestampOf(raw), nil
		}
		at, buf = next, raw[:0]
	}
	return -1, errNoEarliest
}

var errNoEarliest = errors.New("the first places of the log hold no record")

// Topics lists the topics that have queues, by name.
func (s *Store) Topics() []string {
	var names []string
	s.queues.All(func(q *ConsumeQueue) {
		if n := len(names); n == 0 || names[n-1] != q.Topic {
			names = append(names, q.Topic)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// CleanExpired drops at once what queues and index say of records that are not in the log any more.
func (s *Store) CleanExpired() { s.trimDerived() }
