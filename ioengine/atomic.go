package ioengine

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFileAtomic replaces name by data so that a crash at any moment leaves the
// old content or the new one, whole (rule R3): name.tmp is written and synced
// before it takes the name, and the folder is synced after. When it answers nil
// the new content is durable. A crash may leave name.tmp behind; cleaning it is
// the caller's concern. One caller at a time for each name.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := writeSynced(fsys, tmp, data); err != nil {
		// The cause is what counts; the next attempt truncates a leftover.
		_ = fsys.Remove(tmp)
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		_ = fsys.Remove(tmp)
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

func writeSynced(fsys FS, name string, data []byte) error {
	f, err := fsys.Open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
