package ioengine

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
)

// MetadataFile keeps one table as one JSON file (rule R3). Does the work of ConfigManager.
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
type MetadataFile struct {
	fsys FS
	name string
	log  *slog.Logger
	// damaged says that the file under name could not be read: it must not push the good generation out of .bak.
	damaged bool
}

// maxMetadataBytes bounds what is read at start. It holds the largest tables that the limits of the rooms allow.
const maxMetadataBytes = 2 << 30

const checksumMember = `"ringmqCrc32c":"`

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrMetadataDamaged is neither generation of a metadata file being readable: the process does not start.
var ErrMetadataDamaged = errors.New("no readable generation")

// OpenMetadata makes the folder; it reads nothing.
func OpenMetadata(fsys FS, dir, name string, log *slog.Logger) (*MetadataFile, error) {
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", name, err)
	}
	return &MetadataFile{fsys: fsys, name: filepath.Join(dir, name), log: log}, nil
}

// Name is the path of the latest generation.
func (f *MetadataFile) Name() string { return f.name }

// Load hands the latest readable generation to decode, which must leave everything as it was when it returns an error. It answers false when
// there is no file yet, or when acceptEmpty lets a broker start without a readable one.
func (f *MetadataFile) Load(acceptEmpty bool, decode func(text []byte) error) (loaded bool, err error) {
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
		f.name, ErrMetadataDamaged, f.why(nowErr), f.why(beforeErr))
	if !acceptEmpty {
		return false, err
	}
	f.log.Error("metadata: starting with an empty table, as acceptEmptyMetadata asks", "file", f.name, "err", err)
	return false, nil
}

func (f *MetadataFile) why(err error) error {
	if err == nil {
		return fs.ErrNotExist
	}
	return err
}

// read answers false without an error when there is no such file.
func (f *MetadataFile) read(name string, decode func([]byte) error) (bool, error) {
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

// Save replaces the file. When it answers nil the new content is durable; a crash at any moment leaves a readable generation:
//
//	.next written and synced | name -> .bak | .next -> name | folder synced
//
// Whichever of the two renames survives, name or .bak is whole, and the change was not promised to anybody yet.
func (f *MetadataFile) Save(object []byte) error {
	next := f.name + ".next"
	if err := WriteFileAtomic(f.fsys, next, appendCheckSum(object)); err != nil {
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
