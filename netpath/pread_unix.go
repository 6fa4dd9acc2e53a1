//go:build unix

package netpath

import "syscall"

// pread reads from fd at off without moving its position. 0 without an error is the file's end.
func pread(fd int, p []byte, off int64) (int, error) {
	for {
		n, err := syscall.Pread(fd, p, off)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
