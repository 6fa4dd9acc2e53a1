package ioengine

import (
	"errors"
	"os"
	"path/filepath"
)

// RemoveStep is a step for RemoveInSteps that no send has been seen to notice.
const RemoveStep = 64 << 20

// RemovingSuffix ends the name of a file while RemoveInSteps works on it. It ends
// in .tmp so that the sweep that cleans those at start finishes the work.
const RemovingSuffix = ".removing.tmp"

// RemoveInSteps deletes a big file without stalling the file system's journal:
// freeing the extents of 1 GiB in one transaction makes every fsync that comes
// meanwhile wait. It truncates by step, calls pause between two steps, and
// unlinks what is left.
//
// The file loses its name first, durably: a crash halfway must not leave a
// segment of the wrong size under a name that recovery trusts. Nobody may have the
// file mapped or be sending from it. pause may be nil.
func RemoveInSteps(fsys FS, name string, step int64, pause func()) error {
	doomed := name + RemovingSuffix
	if err := fsys.Rename(name, doomed); err != nil {
		return err
	}
	dir := filepath.Dir(name)
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	if err := shrink(fsys, doomed, step, pause); err != nil {
		return err
	}
	if err := fsys.Remove(doomed); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func shrink(fsys FS, name string, step int64, pause func()) error {
	if step <= 0 {
		step = RemoveStep
	}
	f, err := fsys.Open(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	size, err := f.Size()
	for err == nil && size > step {
		size -= step
		if err = f.Truncate(size); err == nil && pause != nil {
			pause()
		}
	}
	return errors.Join(err, f.Close())
}
