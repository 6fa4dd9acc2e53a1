package ioengine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// javaLock is what the Java broker takes: the first byte, by fcntl, as the process.
func javaLock(t *testing.T, name string) (*os.File, error) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return f, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Len: 1})
}

func TestLockExcludesTheJavaBroker(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	java, err := javaLock(t, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OS().Lock(name); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("a Java broker has the store: %v", err)
	}
	java.Close()
	lock, err := OS().Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // that somebody closes the file must not let go of the lock
		java, err = javaLock(t, name)
		java.Close()
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatalf("the store is ours, and a Java broker gets it: %v", err)
		}
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	java, err = javaLock(t, name)
	java.Close()
	if err != nil {
		t.Fatalf("the lock stays after Close: %v", err)
	}
}
