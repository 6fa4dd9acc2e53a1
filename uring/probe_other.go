//go:build !linux

package uring

import (
	"runtime"
	"syscall"
)

// Probe answers that there is no io_uring.
func Probe() (Features, error) {
	return Features{}, &RefusedError{syscall.ENOSYS, runtime.GOOS + " has none", "run on linux 5.11 or later"}
}
