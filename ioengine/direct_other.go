//go:build !linux

package ioengine

func newRingWriter(int) (LogWriter, error) { return nil, errNoTail }

func newDirectWriter() LogWriter { return newPlainWriter() }
