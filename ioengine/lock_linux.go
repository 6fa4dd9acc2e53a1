package ioengine

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockWhole takes an fcntl lock, because the Java broker does (FileChannel.lock) and flock does not see those. It is one of the open file
// description: unlike the process's it excludes a second opening in this process, and is not lost when somebody else here closes the
// same file. Where a file system has none of that kind (some FUSE), the process's and a flock do.
func lockWhole(f *os.File) error {
	err := fcntlLock(f, unix.F_OFD_SETLK)
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	if err := again(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return heldError(err)
	}
	return fcntlLock(f, unix.F_SETLK)
}

func fcntlLock(f *os.File, command int) error {
	return heldError(again(func() error {
		return unix.FcntlFlock(f.Fd(), command, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	}))
}

func heldError(err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errHeld
	}
	return err
}
