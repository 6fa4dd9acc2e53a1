package tune

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/ringmq/ringmq/ioengine"
)

// scratch is the folder that everything is measured in. It is locked while it is used, so what is found there is of a run that was killed.
type scratch struct {
	fsys ioengine.FS
	dir  string
	lock io.Closer
	made []string // folders that were not there before, the outermost first
}

const (
	scratchName = "ringmq-tune.tmp"
	lockName    = "lock"
)

func openScratch(fsys ioengine.FS, root, logDir string) (*scratch, error) {
	if root == "" {
		return nil, errors.New("no store folder to measure: set storePathRootDir or --store")
	}
	if logDir == "" {
		logDir = filepath.Join(root, "commitlog")
	}
	if err := notInUse(fsys, root); err != nil {
		return nil, err
	}
	s := &scratch{fsys: fsys, dir: ioengine.ScratchDir(root, logDir, scratchName)}
	s.made = append(missing(root), missing(filepath.Dir(s.dir))...)
	err := errors.Join(fsys.MkdirAll(root, 0o755), fsys.MkdirAll(s.dir, 0o755))
	if err == nil {
		if s.lock, err = fsys.Lock(filepath.Join(s.dir, lockName)); err != nil {
			return nil, fmt.Errorf("another ringmq tune measures in %s: %w", s.dir, err)
		}
		err = errors.Join(s.clean(), s.checkSpace())
	}
	if err != nil {
		return nil, errors.Join(err, s.close(false))
	}
	return s, nil
}

// notInUse tells by the store's lock that a broker runs on it. A lock that is not there is not made.
func notInUse(fsys ioengine.FS, root string) error {
	name := filepath.Join(root, lockName)
	if _, err := fsys.Stat(name); err != nil {
		return nil // no broker has run here
	}
	lock, err := fsys.Lock(name)
	if err != nil {
		return fmt.Errorf("a broker runs on the store in %s, and each would disturb the other: stop it, or measure another folder on that disk with --store: %w", root, err)
	}
	return lock.Close()
}

// missing are the folders that making dir will make.
func missing(dir string) (list []string) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	for there := ioengine.Existing(dir); dir != there && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		list = append(list, dir)
	}
	slices.Reverse(list)
	return list
}

func (s *scratch) clean() error {
	entries, err := s.fsys.ReadDir(s.dir)
	for _, e := range entries {
		if e.Name() != lockName {
			err = errors.Join(err, s.fsys.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return err
}

func (s *scratch) checkSpace() error {
	free, _, err := s.fsys.Usage(s.dir)
	if err == nil && free < space {
		err = fmt.Errorf("%w: measuring takes up to %d MiB in %s, which has %d MiB", ioengine.ErrDiskFull, space>>20, s.dir, free>>20)
	}
	return err
}

// close removes the folder, and where nothing was written the ones above it that were not there before.
func (s *scratch) close(written bool) error {
	var errs []error
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	errs = append(errs, s.fsys.RemoveAll(s.dir))
	for _, dir := range slices.Backward(s.made) {
		if written {
			break
		}
		if err := s.fsys.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break // somebody else has put something there
		}
	}
	return errors.Join(errs...)
}
