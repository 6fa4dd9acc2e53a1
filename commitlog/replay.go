package commitlog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ringmq/ringmq/ioengine"
)

// replayTail writes to the segments what a process that was killed had stored in its tail file and not written yet. Whatever the engine is
// now: the one before decides.
//
// Somebody else may have appended to the store since, a Java broker for instance. So a byte is only ever written over a zero or over
// itself; anything else ends the start, because one of the two would be lost.
func (l *Log) replayTail(files []segmentFile) error {
	name := l.opt.TailFile
	if name == "" {
		return nil
	}
	rest, err := ioengine.ReadTail(name)
	if err != nil {
		return err
	}
	if rest != nil {
		switch err := l.replay(files, rest); {
		case err == nil:
			l.opt.Logger.Info("wrote what the last run had left in its tail file", "from", rest.From, "bytes", len(rest.Data))
		case rest.Sync:
			l.opt.Logger.Warn("what the last run had left in its tail file is dropped: none of it was acknowledged", "from", rest.From, "bytes", len(rest.Data), "err", err)
		default:
			return fmt.Errorf("tail file %s has acknowledged messages that are not in the commit log: %w", name, err)
		}
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (l *Log) replay(files []segmentFile, rest *ioengine.TailRest) error {
	for at, data := rest.From, rest.Data; len(data) > 0; {
		i := slices.IndexFunc(files, func(f segmentFile) bool { return at >= f.base && at < f.base+f.size })
		if i < 0 {
			return fmt.Errorf("the segment for the log offset %d is missing: restore it, or move the tail file away to start without them", at)
		}
		n := min(int64(len(data)), files[i].base+files[i].size-at)
		f, err := l.opt.FS.Open(segmentName(l.opt.Dir, files[i].base), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(overwrite(f, at-files[i].base, data[:n]), f.Close()); err != nil {
			return err
		}
		at, data = at+n, data[n:]
	}
	return nil
}

// overwrite makes p what the segment's file holds at off, unless something else is there.
func overwrite(f ioengine.File, off int64, p []byte) error {
	// Recovery comes next, and asks what was ever written.
	ioengine.NoReadAhead(f)
	have := make([]byte, len(p))
	if _, err := f.ReadAt(have, off); err != nil {
		return err
	}
	for i, b := range have {
		if b != 0 && b != p[i] {
			return fmt.Errorf("%s has other bytes at %d by now (%s where %s was stored): something else wrote to the store since; move the tail file away to keep what is there",
				f.Name(), off+int64(i), hex.EncodeToString(have[i:min(i+8, len(have))]), hex.EncodeToString(p[i:min(i+8, len(p))]))
		}
	}
	if _, err := f.WriteAt(p, off); err != nil {
		return err
	}
	return f.Sync()
}
