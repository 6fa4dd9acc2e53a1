//go:build !linux

package ioengine

// OS is the best FS that this system has.
func OS() FS { return Portable() }
