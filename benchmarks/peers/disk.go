//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// minFree is how much room there must be before a load begins.
const minFree = 8 << 30

// space tells how full the file system is, in bytes.
func space(ctx context.Context, dir string) (used, free int64, err error) {
	fields := strings.Fields(lastLine(ctx, "df", "-B1", "--output=used,avail", dir))
	if len(fields) != 2 {
		return 0, 0, errors.New("df does not tell how much room there is")
	}
	used, usedErr := strconv.ParseInt(fields[0], 10, 64)
	free, freeErr := strconv.ParseInt(fields[1], 10, 64)
	return used, free, errors.Join(usedErr, freeErr)
}

func checkFree(ctx context.Context, dir string) error {
	_, free, err := space(ctx, dir)
	if err != nil {
		return err
	}
	if free < minFree {
		return fmt.Errorf("only %d MiB are free in %s, and a load may take several GB: make room", free>>20, dir)
	}
	return nil
}

// storedBytes is what the files of a folder take on the disk.
func storedBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				n += stat.Blocks * 512
			}
		}
		return nil
	})
	return n
}

// dropCaches makes every clean page leave the page cache. Needs root.
func dropCaches(ctx context.Context, dir string) error {
	if err := syncFiles(ctx, dir); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0o200); err != nil {
		return fmt.Errorf("a cold cache needs root: %w", err)
	}
	return nil
}

// sequentialReaders and readChunk are what the disk's sequential rate is measured with: O_DIRECT, chunk after chunk.
const (
	sequentialReaders = 4
	readChunk         = 1 << 20
	sequentialMost    = 4 << 30
)

// sequentialRate reads the large files of a folder in the order of their names past the page cache, up to a limit (what is allocated
// ahead costs no reading), and gives MB/s (10^6): what the disk alone can do.
func sequentialRate(ctx context.Context, dir string, limit int64) (float64, error) {
	limit = min(limit, sequentialMost)
	files, err := largeFiles(dir)
	if err != nil {
		return 0, err
	}
	began, total := time.Now(), int64(0)
	for _, name := range files {
		n, err := readDirect(ctx, name, limit-total)
		if err != nil {
			return 0, err
		}
		if total += n; total >= limit {
			break
		}
	}
	if total == 0 {
		return 0, errors.New("no file is large enough to measure the disk by")
	}
	return float64(total) / 1e6 / time.Since(began).Seconds(), nil
}

func largeFiles(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if stat, ok := info.Sys().(*syscall.Stat_t); err == nil && ok && stat.Blocks*512 >= 8<<20 {
			names = append(names, name)
		}
		return err
	})
	slices.Sort(names)
	return names, err
}

// readDirect reads a file from its beginning up to a limit, several chunks at a time.
func readDirect(ctx context.Context, name string, limit int64) (int64, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var next, total atomic.Int64
	var reading sync.WaitGroup
	errs := make([]error, sequentialReaders)
	for i := range sequentialReaders {
		reading.Go(func() {
			buffer := directBuffer(readChunk)
			for ctx.Err() == nil {
				at := next.Add(readChunk) - readChunk
				if at >= limit {
					return
				}
				n, err := file.ReadAt(buffer, at)
				total.Add(int64(n))
				if err != nil {
					if !errors.Is(err, io.EOF) {
						errs[i] = err
					}
					return
				}
			}
		})
	}
	reading.Wait()
	return total.Load(), errors.Join(errs...)
}

// directBuffer is memory for O_DIRECT. Go gives whole pages to what is larger than 32 KiB, so that it is aligned.
func directBuffer(size int) []byte { return make([]byte, max(size, 64<<10))[:size] }
