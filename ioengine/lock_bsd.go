//go:build darwin || freebsd || dragonfly

package ioengine

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockWhole: on these systems flock excludes fcntl locks, such as the Java broker's, too.
func lockWhole(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errHeld
		default:
			return err
		}
	}
}
