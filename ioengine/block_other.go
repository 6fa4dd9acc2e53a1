//go:build !linux

package ioengine

// BlockMemory is memory for blocks that are read from files and used again and again.
type BlockMemory struct{ bytes []byte }

// NewBlockMemory makes n bytes.
func NewBlockMemory(n int) (*BlockMemory, error) { return &BlockMemory{make([]byte, n)}, nil }

// Bytes is the memory, until Free.
func (m *BlockMemory) Bytes() []byte { return m.bytes }

// Free gives the memory back.
func (m *BlockMemory) Free() error {
	m.bytes = nil
	return nil
}

// ReadBlock fills b from off on, and waits for the disk.
func ReadBlock(f File, b []byte, off int64) error {
	_, err := f.ReadAt(b, off)
	return err
}
