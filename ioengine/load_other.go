//go:build !linux

package ioengine

// Load brings [off, off+n) of f into memory and waits until it is there.
func Load(f File, off int64, n int) error { return loadByReading(f, off, n) }

// ReadAhead does nothing: there is no call for it on every system.
func ReadAhead(File, int64, int) {}

// NoReadAhead does nothing.
func NoReadAhead(File) {}
