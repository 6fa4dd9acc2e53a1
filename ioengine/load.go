package ioengine

import (
	"errors"
	"io"
)

// loadPiece is how much is read at a time where reading is the only way, bytes.
const loadPiece = 128 << 10

// loadByReading reads a range and forgets it. The file's end is no error.
func loadByReading(f File, off int64, n int) error {
	buf := make([]byte, min(n, loadPiece))
	for n > 0 {
		got, err := f.ReadAt(buf[:min(n, len(buf))], off)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		off, n = off+int64(got), n-got
	}
	return nil
}
