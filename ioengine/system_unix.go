//go:build linux || darwin || freebsd || dragonfly

package ioengine

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// syncFolder accepts a file system that cannot sync a folder (EINVAL: some FUSE
// and network ones): there is nothing stronger to ask it for.
func syncFolder(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// volumeUsage leaves out the blocks that only root may use, like df and like Java's UtilAll.getDiskPartitionSpaceUsedPercent: counted as used they would
// bring retention forward by what is reserved, on one machine from 50 to 82 %.
func volumeUsage(dir string) (free, total int64, err error) {
	var st unix.Statfs_t
	for {
		if err = unix.Statfs(dir, &st); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, 0, err
	}
	block := int64(st.Bsize)
	free = int64(st.Bavail) * block
	return free, int64(st.Blocks-st.Bfree)*block + free, nil
}

func mapFile(f *os.File, size int64, writable bool) ([]byte, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return unix.Mmap(int(f.Fd()), 0, int(size), prot, unix.MAP_SHARED)
}

func unmapFile(b []byte) error { return unix.Munmap(b) }

// flushMapping hands the stores to b, which starts on a page, to the file.
func flushMapping(b []byte) error { return unix.Msync(b, unix.MS_SYNC) }

// dropMapping gives up the pages of b, which starts on a page; the file keeps them.
func dropMapping(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }
