//go:build !linux && !darwin && !freebsd && !dragonfly && !windows

package ioengine

import (
	"errors"
	"os"
	"syscall"
)

func isDiskFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }

func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// What follows is missing rather than pretended: a broker does not start here.

func volumeUsage(string) (free, total int64, err error) { return 0, 0, errors.ErrUnsupported }
func lockWhole(*os.File) error                          { return errors.ErrUnsupported }
func mapFile(*os.File, int64, bool) ([]byte, error)     { return nil, errors.ErrUnsupported }
func unmapFile([]byte) error                            { return errors.ErrUnsupported }
func flushMapping([]byte) error                         { return errors.ErrUnsupported }
func dropMapping([]byte) error                          { return errors.ErrUnsupported }
