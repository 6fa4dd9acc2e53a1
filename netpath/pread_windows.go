package netpath

import "syscall"

// pread reads from the file handle fd at off. 0 without an error is the file's end.
func pread(fd int, p []byte, off int64) (int, error) {
	var n uint32
	at := syscall.Overlapped{Offset: uint32(off), OffsetHigh: uint32(off >> 32)}
	err := syscall.ReadFile(syscall.Handle(fd), p, &n, &at)
	if err == syscall.ERROR_HANDLE_EOF {
		err = nil
	}
	return int(n), err
}
