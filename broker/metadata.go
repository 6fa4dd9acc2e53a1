package broker

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
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

// metadataFile keeps one table as one JSON file (rule R3). Does the work of ConfigManager.
//
//	topics.json          the latest generation
//	topics.json.bak      the one before
//	topics.json.next     the one being written; never read
//	topics.json.damaged  a latest generation that could not be read, kept for whoever wants to look into it
//
// The content is the object that Java 5.5.0 reads and writes, with one member more at its end:
//
//	{"dataVersion":{...},...,"ringmqCrc32c":"89abcdef"}        CRC-32C of every byte before the member, in hex
//
// Java passes over members that it does not know. Files without the member come from Java and count when they parse. Number keys are
// quoted: Java reads them in both forms, but an unknown member with raw keys makes it refuse the whole file.
//
// One goroutine at a time.
type metadataFile struct {
	fsys ioengine.FS
	name string
	log  *slog.Logger
	// damaged says that the file under name could not be read: it must not push the good generation out of .bak.
	damaged bool
}

// maxMetadataBytes bounds what is read at start. It holds the largest tables that the limits of this room allow.
const maxMetadataBytes = 2 << 30

const checksumMember = `"ringmqCrc32c":"`

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errMetadataDamaged is neither generation of a metadata file being readable: the broker does not start.
var errMetadataDamaged = errors.New("no readable generation")

// openMetadata makes the folder; it reads nothing.
func openMetadata(fsys ioengine.FS, dir, name string, log *slog.Logger) (*metadataFile, error) {
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", name, err)
	}
	return &metadataFile{fsys: fsys, name: filepath.Join(dir, name), log: log}, nil
}

// load hands the latest readable generation to decode, which must leave everything as it was when it returns an error. It answers false when
// there is no file yet, or when acceptEmpty lets a broker start without a readable one.
func (f *metadataFile) load(acceptEmpty bool, decode func(text []byte) error) (loaded bool, err error) {
	now, nowErr := f.read(f.name, decode)
	if nowErr == nil && now {
		return true, nil
	}
	before, beforeErr := f.read(f.name+".bak", decode)
	f.damaged = nowErr != nil
	switch {
	case beforeErr == nil && before:
		f.log.Error("metadata: went back to the previous generation, changes made just before the last stop may be missing",
			"file", f.name, "err", f.why(nowErr))
		return true, nil
	case nowErr == nil && beforeErr == nil:
		return false, nil
	}
	err = fmt.Errorf("metadata %s: %w (%w; previous generation: %w): restore it from a backup, or set acceptEmptyMetadata=true to start with an empty one",
		f.name, errMetadataDamaged, f.why(nowErr), f.why(beforeErr))
	if !acceptEmpty {
		return false, err
	}
	f.log.Error("metadata: starting with an empty table, as acceptEmptyMetadata asks", "file", f.name, "err", err)
	return false, nil
}

func (f *metadataFile) why(err error) error {
	if err == nil {
		return fs.ErrNotExist
	}
	return err
}

// read answers false without an error when there is no such file.
func (f *metadataFile) read(name string, decode func([]byte) error) (bool, error) {
	info, err := f.fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.Size() > maxMetadataBytes {
		return false, fmt.Errorf("%d bytes, more than %d", info.Size(), maxMetadataBytes)
	}
	text, err := f.fsys.ReadFile(name)
	if err != nil {
		return false, err
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return false, errors.New("empty file")
	}
	if err := checkSum(text); err != nil {
		return false, err
	}
	return true, decode(text)
}

// checkSum accepts a text without checksum: Java wrote it.
func checkSum(text []byte) error {
	at := bytes.LastIndex(text, []byte(checksumMember))
	if at < 0 {
		return nil
	}
	tail := bytes.TrimSpace(text[at+len(checksumMember):])
	if len(tail) != 10 || tail[8] != '"' || tail[9] != '}' {
		return errors.New("text behind the checksum")
	}
	want, err := strconv.ParseUint(string(tail[:8]), 16, 32)
	if err != nil {
		return errors.New("the checksum is no number")
	}
	if got := crc32.Checksum(text[:at], castagnoli); got != uint32(want) {
		return fmt.Errorf("checksum %08x, the content has %08x: damaged, or changed by hand without taking out the member ringmqCrc32c", want, got)
	}
	return nil
}

// appendCheckSum turns an object into the form with the checksum.
func appendCheckSum(object []byte) []byte {
	text := bytes.TrimRight(object, " \t\r\n")
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' {
		panic("BUG: metadata is no JSON object")
	}
	text = text[:len(text)-1]
	if len(text) > 1 {
		text = append(text, ',')
	}
	sum := crc32.Checksum(text, castagnoli)
	return fmt.Appendf(text, "%s%08x\"}", checksumMember, sum)
}

// save replaces the file. When it answers nil the new content is durable; a crash at any moment leaves a readable generation:
//
//	.next written and synced | name -> .bak | .next -> name | folder synced
//
// Whichever of the two renames survives, name or .bak is whole, and the change was not promised to anybody yet.
func (f *metadataFile) save(object []byte) error {
	next := f.name + ".next"
	if err := ioengine.WriteFileAtomic(f.fsys, next, appendCheckSum(object)); err != nil {
		return fmt.Errorf("save %s: %w", f.name, err)
	}
	old := f.name + ".bak"
	if f.damaged {
		old = f.name + ".damaged"
	}
	if err := f.fsys.Rename(f.name, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save %s: %w", f.name, err)
	}
	f.damaged = false
	if err := f.fsys.Rename(next, f.name); err != nil {
		return fmt.Errorf("save %s: %w", f.name, err)
	}
	if err := f.fsys.SyncDir(filepath.Dir(f.name)); err != nil {
		return fmt.Errorf("save %s: %w", f.name, err)
	}
	return nil
}

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
	file     *metadataFile
	encode   func() []byte // the table as one JSON object
	interval time.Duration // 0: soon after a change; else at most once in so long

	dirty atomic.Uint64 // number of changes; anyone adds
	wake  chan struct{} // holds one token when there is something to do
	quit  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu    sync.Mutex
	saved uint64        // changes that are durable
	tried uint64        // changes that the latest attempt took
	err   error         // what became of it
	round chan struct{} // closed when the next attempt ends
}

func newSaver(file *metadataFile, interval time.Duration, encode func() []byte) *saver {
	return &saver{
		file: file, encode: encode, interval: interval,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), round: make(chan struct{}),
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

// waitSaved waits until that change and all before it are durable. Generation 0, no change, needs no waiting.
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
		case <-round:
		case <-timer.C:
			return fmt.Errorf("%s: %w", s.file.name, errNotSaved)
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
		rest := s.interval
		for {
			if !s.sleep(rest) {
				return
			}
			start := time.Now()
			if s.saveNow() == nil {
				rest = min(time.Since(start), saveRetry)
				break
			}
			rest = max(saveRetry, s.interval)
		}
		if !s.sleep(rest) {
			return
		}
	}
}

// sleep answers false when it is time to stop.
func (s *saver) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
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
	err := s.file.save(s.encode())
	switch {
	case err != nil && before == nil:
		s.file.log.Error("metadata: changes are in force but not durable; trying again each second", "file", s.file.name, "err", err)
	case err == nil && before != nil:
		s.file.log.Info("metadata: changes are durable again", "file", s.file.name)
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
