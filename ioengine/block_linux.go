package ioengine

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// BlockMemory is memory for blocks that are read past the page cache: off Go's heap, aligned, and used again and again.
type BlockMemory struct{ arena *uring.Arena }

// NewBlockMemory maps n bytes. Their pages come with their first use.
func NewBlockMemory(n int) (*BlockMemory, error) {
	a, err := uring.NewArena(n)
	if err != nil {
		return nil, err
	}
	return &BlockMemory{a}, nil
}

// Bytes is the memory, until Free.
func (m *BlockMemory) Bytes() []byte { return m.arena.Bytes }

// Free gives the memory back. Nobody may look at it any more, and no read be on its way into it.
func (m *BlockMemory) Free() error { return m.arena.Free() }

// ReadBlock fills b, which is BlockMemory, from off on, and waits for the disk. off and b are multiples of TailBlock. It goes past the page
// cache where the file can be read so; whatever hinders that, plain reading does the rest and tells what is wrong.
func ReadBlock(f File, b []byte, off int64) error {
	n := 0
	if f.Fd() >= 0 {
		n = readDirect(f.Name(), b, off)
	}
	if n == len(b) {
		return nil
	}
	_, err := f.ReadAt(b[n:], off+int64(n))
	return err
}

// readDirect reads what it can. Opening the file each time costs 5 us where reading a block takes 1,500, and there is no descriptor to keep.
func readDirect(name string, b []byte, off int64) int {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, _ := f.ReadAt(b, off)
	return n
}
