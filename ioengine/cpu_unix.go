//go:build linux || darwin || freebsd || dragonfly

package ioengine

import (
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU is the processor time that this process has used, in it and in the kernel for it. False: the system does not tell.
//
// What the kernel does in threads of its own, as write-back and the journal, is not in it; io_uring's workers are.
func ProcessCPU() (time.Duration, bool) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
