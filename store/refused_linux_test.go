package store

import (
	"os"
	"syscall"
	"testing"

	"github.com/ringmq/ringmq/internal/seccomp"
)

// With RINGMQ_TEST_REFUSE_IO_URING, as make test-engines runs these tests for "refused", the kernel refuses io_uring as a container's profile does, and
// the log takes the next engine by itself.
func TestMain(m *testing.M) {
	if os.Getenv("RINGMQ_TEST_REFUSE_IO_URING") != "" {
		if err := seccomp.Refuse(syscall.EPERM, seccomp.IoUring...); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
