package store

import (
	"os"
	"testing"

	"github.com/ringmq/ringmq/internal/seccomp"
)

func TestMain(m *testing.M) {
	seccomp.RefuseIfAsked(os.Getenv("RINGMQ_TEST_REFUSE_IO_URING"))
	os.Exit(m.Run())
}
