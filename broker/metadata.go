package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

// decodeMetadata reads our own files, which are plain JSON of any length, and Java's, whose number keys are raw.
func decodeMetadata(text []byte, v any) error {
	if json.Valid(text) {
		return json.Unmarshal(text, v)
	}
	return remoting.DecodeBody(text, v)
}

// saveRetry is how long a saver waits after a failed attempt, and the longest that it rests after a successful one.
const saveRetry = time.Second

// errNotSaved is a change that is in force but not durable yet.
var errNotSaved = errors.New("not on disk yet: the disk is slow or full, see the log")

// saver writes one table when it has changed, many changes at once: a save takes what has come since the last began. Between two saves it
// rests as long as the last took, so that a large table that changes all the time costs half a core at most.
//
// Invariant: saved <= tried <= dirty.
type saver struct {
	file     *ioengine.MetadataFile
	log      *slog.Logger
	encode   func() []byte // the table as one JSON object
	interval time.Duration // 0: soon after a change; else at most once in so long, unless somebody waits for it

	dirty atomic.Uint64 // number of changes; anyone adds
	wake  chan struct{} // holds one token when there is something to do
	hurry chan struct{} // holds one token when somebody waits for a save
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu    sync.Mutex
	saved uint64        // changes that are durable
	tried uint64        // changes that the latest attempt took
	err   error         // what became of it
	round chan struct{} // closed when the next attempt ends
}

func newSaver(file *ioengine.MetadataFile, log *slog.Logger, interval time.Duration, encode func() []byte) *saver {
	return &saver{
		file: file, log: log, encode: encode, interval: interval,
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), round: make(chan struct{}),
	}
}

// markDirty is told after each change. The answer is for waitSaved. It neither waits nor allocates.
func (s *saver) markDirty() (generation uint64) {
	generation = s.dirty.Add(1)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return generation
}

// waitSaved waits until that change and all before it are durable, and has them saved without waiting for the interval. Generation 0, no
// change, needs no waiting.
func (s *saver) waitSaved(generation uint64, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		saved, tried, err, round := s.saved, s.tried, s.err, s.round
		s.mu.Unlock()
		if saved >= generation {
			return nil
		}
		if tried >= generation && err != nil {
			return err
		}
		select {
		case s.hurry <- struct{}{}:
		default:
		}
		select {
		case <-round:
		case <-timer.C:
			return fmt.Errorf("%s: %w", s.file.Name(), errNotSaved)
		}
	}
}

// run saves until stop. It is the only caller of file.save while it runs.
func (s *saver) run() {
	defer close(s.done)
	for {
		select {
		case <-s.wake:
		case <-s.quit:
			return
		}
		rest, hurry := s.interval, s.hurry
		for {
			if !s.sleep(rest, hurry) {
				return
			}
			start := time.Now()
			if s.saveNow() == nil {
				rest = min(time.Since(start), saveRetry)
				break
			}
			rest, hurry = max(saveRetry, s.interval), nil
		}
		if !s.sleep(rest, nil) {
			return
		}
	}
}

// sleep ends early when hurry, which may be nil, has a token. It answers false when it is time to stop.
func (s *saver) sleep(d time.Duration, hurry <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-hurry:
		return true
	case <-s.quit:
		return false
	}
}

// stop ends run and saves what is left. Only after start; again is harmless.
func (s *saver) stop() error {
	s.once.Do(func() { close(s.quit) })
	<-s.done
	return s.saveNow()
}

func (s *saver) saveNow() error {
	generation := s.dirty.Load()
	s.mu.Lock()
	clean, before := s.saved == generation, s.err
	s.mu.Unlock()
	if clean {
		return nil
	}
	err := s.file.Save(s.encode())
	switch {
	case err != nil && before == nil:
		s.log.Error("metadata: changes are in force but not durable; trying again each second", "file", s.file.Name(), "err", err)
	case err == nil && before != nil:
		s.log.Info("metadata: changes are durable again", "file", s.file.Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried, s.err = generation, err
	if err == nil {
		s.saved = generation
	}
	close(s.round)
	s.round = make(chan struct{})
	return err
}
