//go:build linux

package uring

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"unsafe"

	raw "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// probeOps is struct io_uring_probe with room for all operations.
type probeOps struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [256]struct {
		op, _ uint8
		flags uint16
		_     uint32
	}
}

const opSupported = 1 << 0

// Probe tries io_uring out. Its error is a *RefusedError where the kernel or a container refuses it altogether.
func Probe() (Features, error) {
	// A ring belongs to the thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := New(Options{Entries: 8})
	if err != nil {
		return Features{}, err
	}
	defer r.Close()
	f := Features{SingleIssuer: r.deferred, DeferTaskrun: r.deferred}
	var p probeOps
	if err := r.register("probe io_uring", raw.IORING_REGISTER_PROBE, unsafe.Pointer(&p), len(p.ops)); err != nil {
		return f, err
	}
	has := func(op uint8) bool { return op <= p.lastOp && p.ops[op].flags&opSupported != 0 }
	f.ReadWrite, f.Fsync, f.SyncFileRange = has(raw.IORING_OP_READ) && has(raw.IORING_OP_WRITE), has(raw.IORING_OP_FSYNC), has(raw.IORING_OP_SYNC_FILE_RANGE)
	f.SendZC = has(raw.IORING_OP_SEND_ZC)
	f.MultishotAccept = has(raw.IORING_OP_SOCKET) // both came with 5.19
	f.MultishotRecv = has(raw.IORING_OP_SEND_ZC)  // both came with 6.0
	f.RegisteredBuffers = r.tryBuffers() == nil
	f.RegisteredFiles = r.RegisterFiles(1) == nil
	if b, err := r.NewBufferRing(1, 2, 4096); err == nil {
		f.BufferRing = true
		b.Free()
	}
	return f, nil
}

func (r *Ring) tryBuffers() error {
	a, err := NewArena(4096)
	if err != nil {
		return err
	}
	if err := r.RegisterBuffers(a.Bytes); err != nil {
		return errors.Join(err, a.Free())
	}
	return errors.Join(r.UnregisterBuffers(), a.Free())
}

// isRefusal tells the answers of a filter, or of a kernel without the call, from those to the call itself.
func isRefusal(errno unix.Errno) bool {
	return errno == unix.EPERM || errno == unix.EACCES || errno == unix.ENOSYS
}

// refused says why one of io_uring's system calls failed.
func refused(errno unix.Errno) error {
	// The file exists since linux 6.6, in kernels that were built with io_uring.
	disabled, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	return explain(errno, err == nil, string(bytes.TrimSpace(disabled)))
}

// explain tells a container's filter, a switch and an old kernel apart. sysctl says that kernel.io_uring_disabled exists, disabled is what
// it says.
func explain(errno unix.Errno, sysctl bool, disabled string) *RefusedError {
	const filter, allow = "a system call filter (seccomp), as containers have them", "allow io_uring_setup, io_uring_enter and io_uring_register in its profile"
	e := &RefusedError{Cause: errno, Why: "the kernel does not say why", Cure: "set ioEngine=mmap"}
	switch {
	case errno == unix.ENOSYS && sysctl:
		// Podman's profile answers as if the call did not exist.
		e.Why, e.Cure = filter+", hides it: the kernel has it", allow
	case errno == unix.ENOSYS:
		e.Why, e.Cure = "the kernel has none", "run linux 5.11 or later, built with CONFIG_IO_URING"
	case errno == unix.EPERM && disabled != "" && disabled != "0":
		e.Why, e.Cure = "kernel.io_uring_disabled is "+disabled, "sysctl -w kernel.io_uring_disabled=0"
	case errno == unix.EPERM || errno == unix.EACCES:
		e.Why, e.Cure = filter, allow
	case errno == unix.ENOMEM:
		e.Why, e.Cure = "no locked memory left for its queues", "raise ulimit -l"
	case errno == unix.EMFILE || errno == unix.ENFILE:
		e.Why, e.Cure = "no file descriptor left", "raise ulimit -n"
	}
	return e
}
