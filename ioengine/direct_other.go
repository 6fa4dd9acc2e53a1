//go:build !linux

package ioengine

import "fmt"

// EngineWorks refuses every engine but mmap.
func EngineWorks(kind EngineKind, _ string, _ int64) error {
	if kind == EngineMmap {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrEngineRefused, errNoTail)
}

func newRingWriter(int, bool) (SharedWriter, error) { return nil, errNoTail }

func newDirectWriter() LogWriter { return newPlainWriter() }
