package ioengine

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"
)

// TunedName is the file in the store's root folder with what ringmq tune measured to be the best there. ioEngine=auto reads it.
const TunedName = "ringmq-tune.json"

const (
	tunedVersion = 1
	// maxTunedBytes bounds what is read at a start.
	maxTunedBytes = 64 << 10
)

// FromTune is where a Tuned comes from.
const FromTune = "tune"

// Tuned is the content of that file.
type Tuned struct {
	Version    int       `json:"version"`
	Source     string    `json:"source"` // FromTune
	MeasuredAt time.Time `json:"measuredAt"`
	Place
	// AsyncEngine and SyncEngine are log engines, for the two values of flushDiskType. Nil: not measured.
	AsyncEngine *Chosen `json:"asyncEngine,omitempty"`
	SyncEngine  *Chosen `json:"syncEngine,omitempty"`
	// ColdRead is for the record: a broker has one. Reactor is what network threads wait with.
	ColdRead *Chosen `json:"coldRead,omitempty"`
	Reactor  *Chosen `json:"reactor,omitempty"`
}

// Chosen is a winner and the reason, for people.
type Chosen struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Engine is the log engine that was chosen, or nil.
func (t *Tuned) Engine(sync bool) *Chosen {
	if sync {
		return t.SyncEngine
	}
	return t.AsyncEngine
}

// LoadTuned reads the file in dir. The error wraps fs.ErrNotExist where there is none.
func LoadTuned(fsys FS, dir string) (*Tuned, error) {
	name := filepath.Join(dir, TunedName)
	info, err := fsys.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxTunedBytes {
		return nil, fmt.Errorf("%s: %d bytes, more than %d: not written by ringmq tune", name, info.Size(), maxTunedBytes)
	}
	text, err := fsys.ReadFile(name)
	if err != nil {
		return nil, err
	}
	t := new(Tuned)
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w: run ringmq tune again, or remove it", name, err)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("%s: %w: run ringmq tune again, or remove it", name, err)
	}
	return t, nil
}

func (t *Tuned) check() error {
	if t.Version != tunedVersion {
		return fmt.Errorf("version %d, this program knows %d", t.Version, tunedVersion)
	}
	if t.Source != FromTune {
		return fmt.Errorf("source %q, not %s", t.Source, FromTune)
	}
	for _, c := range []*Chosen{t.AsyncEngine, t.SyncEngine} {
		if c == nil {
			continue
		}
		if _, err := ParseEngine(c.Name); err != nil {
			return err
		}
	}
	return nil
}

// Save replaces the file in dir; a crash leaves the old one or the new one.
func (t *Tuned) Save(fsys FS, dir string) error {
	t.Version = tunedVersion
	if err := t.check(); err != nil {
		panic("BUG: " + err.Error())
	}
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return WriteFileAtomic(fsys, filepath.Join(dir, TunedName), append(text, '\n'))
}

// ScratchDir is where a measurement of the log's disk keeps its files: in the store's root, or next to the segments where these have a disk
// of their own. The folder carries the given name.
func ScratchDir(root, logDir, name string) string {
	if SameDisk(root, logDir) {
		return filepath.Join(root, name)
	}
	return filepath.Join(logDir, name)
}
