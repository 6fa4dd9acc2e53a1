package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where struct seccomp_data has the number of the call and the architecture that it is made for.
const (
	offsetNumber = 0
	offsetArch   = 4
)

const maxErrno = 4095

// IoUring are the numbers of io_uring's system calls.
var IoUring = []uintptr{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// Fallocate is fallocate's number.
const Fallocate = uintptr(unix.SYS_FALLOCATE)

// Refuse makes the kernel answer errno to the system calls with these numbers, from now on, on all threads of this process and in its
// children. Needs no root.
func Refuse(errno unix.Errno, numbers ...uintptr) error {
	program, err := filter(errno, numbers)
	if err != nil {
		return err
	}
	// Both calls on one thread: no_new_privs, without which only root may filter, belongs to the thread, and goes to the others with the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	switch {
	case failed != 0:
		return fmt.Errorf("install a seccomp filter: %w", failed)
	case thread != 0:
		return fmt.Errorf("install a seccomp filter: thread %d has another one already", thread)
	}
	return nil
}

// RefuseIfAsked refuses io_uring as a container's profile does, unless asked is empty: what make test-engines says with RINGMQ_TEST_REFUSE_IO_URING to
// rooms whose tests it runs for "refused". Their log takes the next engine by itself.
func RefuseIfAsked(asked string) {
	if asked == "" {
		return
	}
	if err := Refuse(unix.EPERM, IoUring...); err != nil {
		panic(err)
	}
}

// filter is the program: the refused numbers jump to the last instruction, everything else is allowed.
func filter(errno unix.Errno, numbers []uintptr) ([]unix.SockFilter, error) {
	arch, err := auditArch()
	if err != nil {
		return nil, err
	}
	// A jump has eight bits.
	if len(numbers) == 0 || len(numbers) > 200 || errno == 0 || errno > maxErrno {
		return nil, fmt.Errorf("refuse %d system calls with errno %d: %w", len(numbers), errno, unix.EINVAL)
	}
	n := uint8(len(numbers))
	program := []unix.SockFilter{
		load(offsetArch),
		jumpIfEqual(arch, 0, n+1), // another architecture's numbers mean other calls
		load(offsetNumber),
	}
	for i, number := range numbers {
		program = append(program, jumpIfEqual(uint32(number), n-uint8(i), 0))
	}
	return append(program, answer(unix.SECCOMP_RET_ALLOW), answer(unix.SECCOMP_RET_ERRNO|uint32(errno))), nil
}

func auditArch() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("seccomp filter for %s: %w", runtime.GOARCH, errors.ErrUnsupported)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jumpIfEqual(value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: value}
}

func answer(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}
