package ioengine

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What is on its way from the disk is not resident: whoever sends it would wait.
func TestResidentWaitsForArrival(t *testing.T) {
	s := linuxSegmentOf(t, 8<<20)
	_, err := s.WriteAt(bytes.Repeat([]byte{7}, 8<<20), 0)
	require.NoError(t, err)
	require.NoError(t, s.Unmap())
	seen := false
	for range 20 {
		evict(t, s)
		_, _, errno := unix.Syscall(unix.SYS_READAHEAD, uintptr(s.Fd()), 0, 4<<20)
		require.Zero(t, errno)
		counted, known := s.file.askCachestat(0, 4<<20)
		resident := s.Resident(0, 4<<20)
		if !known {
			t.Skip("this kernel has no cachestat")
		}
		if counted && !resident {
			seen = true
			break
		}
	}
	if !seen {
		t.Skip("the disk was faster each time")
	}
}

func TestLoadBringsARangeIntoMemory(t *testing.T) {
	s := linuxSegmentOf(t, 4<<20)
	_, err := s.WriteAt(bytes.Repeat([]byte{7}, 4<<20), 0)
	require.NoError(t, err)
	require.NoError(t, s.Unmap())
	for name, load := range map[string]func(File, int64, int) error{"unread": Load, "by reading": loadByReading} {
		t.Run(name, func(t *testing.T) {
			evict(t, s)
			require.NoError(t, load(s, 100, 3<<20))
			require.True(t, s.Resident(100, 3<<20))
			require.NoError(t, load(s, 4<<20-10, 100), "beyond the end there is nothing to load")
			require.NoError(t, load(s, 0, 0))
		})
	}
	t.Run("begun only", func(t *testing.T) {
		evict(t, s)
		ReadAhead(s, 1<<20, 64<<10)
		require.Eventually(t, func() bool { return s.Resident(1<<20, 64<<10) }, 10*time.Second, time.Millisecond)
	})
	require.NoError(t, s.Close())
	err = Load(s, 0, 1)
	require.ErrorIs(t, err, os.ErrClosed)
}
