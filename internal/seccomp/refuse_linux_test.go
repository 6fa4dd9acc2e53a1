package seccomp

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const childVariable = "RINGMQ_TEST_SECCOMP_CHILD"

// The filter stays for the life of the process: the test proper runs in a child.
func TestRefuse(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestRefuse$", "-test.v")
		child.Env = append(os.Environ(), childVariable+"=1")
		out, err := child.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	// A thread that is older than the filter, and its answers.
	ask, answers := make(chan bool), make(chan error)
	go func() {
		runtime.LockOSThread()
		for range ask {
			answers <- unix.Sysinfo(&unix.Sysinfo_t{})
		}
	}()
	ask <- true
	require.NoError(t, <-answers, "before the filter")

	err := Refuse(unix.EPERM, unix.SYS_GETPRIORITY, unix.SYS_SYSINFO)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	require.NoError(t, err)
	ask <- true
	require.ErrorIs(t, <-answers, unix.EPERM, "an older thread")
	close(ask)
	_, err = unix.Getpriority(unix.PRIO_PROCESS, 0)
	require.ErrorIs(t, err, unix.EPERM, "the first number")
	var u unix.Utsname
	require.NoError(t, unix.Uname(&u), "a call that is not refused")

	require.NoError(t, Refuse(unix.ENOSYS, unix.SYS_UNAME), "a second filter")
	require.ErrorIs(t, unix.Uname(&u), unix.ENOSYS)
	require.ErrorIs(t, unix.Sysinfo(&unix.Sysinfo_t{}), unix.EPERM, "the first filter holds on")
}

func TestRefuseNothingOrTooMuch(t *testing.T) {
	if _, err := auditArch(); err != nil {
		t.Skip(err)
	}
	require.ErrorIs(t, Refuse(unix.EPERM), unix.EINVAL)
	require.ErrorIs(t, Refuse(unix.EPERM, make([]uintptr, 201)...), unix.EINVAL)
	require.ErrorIs(t, Refuse(0, unix.SYS_UNAME), unix.EINVAL)
	require.ErrorIs(t, Refuse(maxErrno+1, unix.SYS_UNAME), unix.EINVAL)
}
