package ioengine

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/uring"
)

// A broker that is out of descriptors for a moment still has its log: what cannot be written past the page cache goes through it.
func TestWritersWithoutADescriptor(t *testing.T) {
	for _, kind := range []EngineKind{EngineDirect, EngineUring} {
		t.Run(kind.String(), func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s, err := OS().OpenSegment(filepath.Join(t.TempDir(), "segment"), 1<<20, true)
			require.NoError(t, err)
			defer s.Close()
			w, err := NewLogWriter(kind, 4)
			if errors.Is(err, uring.ErrUnsupported) {
				t.Skip(err)
			}
			require.NoError(t, err)
			block := bytes.Repeat([]byte("a block "), TailBlock/8)
			a, err := uring.NewArena(TailBlock)
			require.NoError(t, err)
			defer a.Free()
			copy(a.Bytes, block)
			giveBack := takeAllDescriptors(t)
			defer giveBack()
			for n, durable := range []bool{true, false} {
				require.NoError(t, w.Write(s, int64(n)*TailBlock, a.Bytes, durable, uint64(n)))
				for {
					if done, ok := w.Next(-1); ok {
						require.Equal(t, Done{Ticket: uint64(n)}, done)
						break
					}
				}
			}
			giveBack()
			got := make([]byte, 2*TailBlock)
			_, err = s.ReadAt(got, 0)
			require.NoError(t, err)
			require.Equal(t, append(block, block...), got)
			require.NoError(t, w.Close())
		})
	}
}

func takeAllDescriptors(t *testing.T) (giveBack func()) {
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	limit := old
	limit.Cur = min(old.Cur, 500)
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	var taken []int
	for {
		fd, err := unix.Dup(int(os.Stderr.Fd()))
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	return func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		taken = nil
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) // as it was
	}
}
