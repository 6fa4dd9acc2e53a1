package ioengine

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// directZeroes is how much zeroDirect writes at a time. One write follows the other: through a ring it took a tenth less time, but what is in a
// ring goes on after the process was killed, and zeroes would fall on what the next one stores.
const directZeroes = 1 << 20

// zeroSource are the zeroes of all writes, aligned as O_DIRECT wants them.
var zeroSource = sync.OnceValues(func() (*uring.Arena, error) { return uring.NewArena(directZeroes) })

// zeroDirect writes zeroes past the page cache; from and to are multiples of TailBlock.
func zeroDirect(name string, from, to int64) error {
	zeroes, err := zeroSource()
	if err != nil {
		return fail("zero", name, err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fail("open for direct writes", name, err)
	}
	for ; from < to && err == nil; from += directZeroes {
		_, err = f.WriteAt(zeroes.Bytes[:min(to-from, directZeroes)], from)
	}
	return fail("zero", name, errors.Join(err, f.Close()))
}
