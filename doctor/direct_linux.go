package doctor

import (
	"errors"
	"os"
	"syscall"
)

// writeDirect writes one block of a probe file in dir past the page cache.
func writeDirect(dir string) error {
	probe := probeFile(dir)
	f, err := os.OpenFile(probe, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_DIRECT, 0o600)
	if err != nil {
		// Some file systems make the file before they refuse the flag.
		os.Remove(probe)
		return err
	}
	// O_DIRECT wants memory on a block's boundary: the runtime gives large slices whole pages.
	const large, block = 1 << 20, 4096
	_, err = f.WriteAt(make([]byte, large)[:block], 0)
	return errors.Join(err, f.Close(), os.Remove(probe))
}
