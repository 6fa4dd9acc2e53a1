//go:build linux

package uring

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ringmq/ringmq/internal/seccomp"
)

const refuseVariable = "RINGMQ_TEST_REFUSE_IO_URING"

// A filter stays for the life of the process: each case runs in a child.
func TestRefused(t *testing.T) {
	if how := os.Getenv(refuseVariable); how != "" {
		refusedChild(t, how)
		return
	}
	// Docker's profile answers EPERM, Podman's and an old kernel ENOSYS. A profile that knows io_uring_setup only is a mistake, and is met.
	for _, calls := range []string{"425,426,427", "426", "427"} {
		for _, errno := range []string{"EPERM", "ENOSYS"} {
			t.Run(errno+" to "+calls, func(t *testing.T) {
				child := exec.Command(os.Args[0], "-test.run=^TestRefused$", "-test.v")
				child.Env = append(os.Environ(), refuseVariable+"="+errno+":"+calls)
				out, err := child.CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Contains(t, string(out), "TestRefused")
				if strings.Contains(string(out), "SKIP: ") {
					t.Skip(string(out))
				}
			})
		}
	}
}

func refusedChild(t *testing.T, how string) {
	var before *RefusedError
	if _, err := Probe(); errors.As(err, &before) {
		t.Skip("refused without us: ", err)
	}
	name, list, _ := strings.Cut(how, ":")
	errno := map[string]unix.Errno{"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS}[name]
	var calls []uintptr
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		calls = append(calls, uintptr(n))
	}
	err := seccomp.Refuse(errno, calls...)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, disabled := New(Options{Disabled: true})
	_, plain := New(Options{})
	_, probed := Probe()
	for _, err := range []error{disabled, plain, probed} {
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorIs(t, err, errno)
		var refused *RefusedError
		require.ErrorAs(t, err, &refused)
		_, noSysctl := os.Stat("/proc/sys/kernel/io_uring_disabled")
		if errno == unix.EPERM || noSysctl == nil {
			require.Contains(t, refused.Why, "seccomp")
			require.Contains(t, refused.Cure, "io_uring_setup")
		} else {
			require.Contains(t, refused.Why, "the kernel has none")
		}
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, name := range open {
		link, _ := os.Readlink(name)
		require.NotContains(t, link, "io_uring", "a ring that was refused leaves no descriptor behind")
	}
	require.NotEmpty(t, open)
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		name     string
		errno    unix.Errno
		sysctl   bool
		disabled string
		why      string
	}{
		{"Docker", unix.EPERM, true, "0", "seccomp"},
		{"Docker on a kernel before 6.6", unix.EPERM, false, "", "seccomp"},
		{"Podman", unix.ENOSYS, true, "0", "seccomp"},
		{"an old kernel", unix.ENOSYS, false, "", "the kernel has none"},
		{"switched off", unix.EPERM, true, "2", "kernel.io_uring_disabled is 2"},
		{"switched off but for a group", unix.EPERM, true, "1", "kernel.io_uring_disabled is 1"},
		{"SELinux", unix.EACCES, true, "0", "seccomp"},
		{"memory", unix.ENOMEM, true, "0", "locked memory"},
		{"descriptors", unix.EMFILE, true, "0", "descriptor"},
		{"what nobody thought of", unix.EINVAL, true, "0", "does not say"},
	} {
		e := explain(c.errno, c.sysctl, c.disabled)
		require.Contains(t, e.Why, c.why, c.name)
		require.NotEmpty(t, e.Cure, c.name)
		require.ErrorIs(t, e, ErrUnsupported, c.name)
		require.ErrorIs(t, e, c.errno, c.name)
	}
}

func TestProbe(t *testing.T) {
	f, err := Probe()
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.True(t, f.ReadWrite && f.Fsync && f.SyncFileRange && f.RegisteredFiles, "linux 5.11 has them: %+v", f)
	require.Len(t, f.List(), 11)
	for _, line := range f.List() {
		t.Logf("%-22s %-5s %v", line.Name, line.Since, line.Has)
	}
}
