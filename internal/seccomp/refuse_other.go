//go:build !linux

package seccomp

import (
	"errors"
	"syscall"
)

// IoUring is empty: there is none.
var IoUring []uintptr

// Refuse answers that there is no such thing here.
func Refuse(syscall.Errno, ...uintptr) error { return errors.ErrUnsupported }
