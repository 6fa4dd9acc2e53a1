//go:build linux

package uring

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A shared ring wakes the thread that submitted, out of its wait for other descriptors, and any thread may take what is done.
func TestSharedRing(t *testing.T) {
	r := newRing(t, Options{Entries: 8, Shared: true, RawSubmit: true})
	require.False(t, r.Deferred())
	name := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	data := []byte("some bytes")
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(set)
	require.NoError(t, unix.EpollCtl(set, unix.EPOLL_CTL_ADD, r.FD(), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}))
	for i := range 100 {
		require.False(t, r.Posted())
		e := r.Next()
		e.Write(int(f.Fd()), data, int64(i*len(data)))
		e.DSync()
		e.SetData(uint64(i))
		require.NoError(t, r.Submit())
		// By the descriptor, or by a wait that was interrupted: the completion is there then.
		for begun := time.Now(); !r.Posted(); {
			require.Less(t, time.Since(begun), patience, "nobody was woken")
			events := make([]unix.EpollEvent, 1)
			_, err := unix.EpollWait(set, events, int(patience.Milliseconds()))
			require.True(t, err == nil || err == unix.EINTR, err)
		}
		if i%2 == 0 {
			c, ok := r.Completed()
			require.True(t, ok)
			require.EqualValues(t, i, c.Data)
			require.EqualValues(t, len(data), c.Result)
			continue
		}
		taken := make(chan Completion)
		go func() {
			runtime.LockOSThread() // another thread than this test's
			defer runtime.UnlockOSThread()
			c, _ := r.Completed()
			taken <- c
		}()
		require.EqualValues(t, i, (<-taken).Data)
	}
}
