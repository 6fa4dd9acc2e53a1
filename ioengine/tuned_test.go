package ioengine

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func someTuned() *Tuned {
	return &Tuned{
		Source: FromTune, MeasuredAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Place: Place{Kernel: "linux 6.18.1", FileSystem: "ext4", Device: "/dev/vda"},
		AsyncEngine: &Chosen{"mmap", "it is"}, SyncEngine: &Chosen{"uring", "it is 2.00 times"}, ColdRead: &Chosen{"pread", ""}, Reactor: &Chosen{"epoll", ""},
	}
}

func TestTunedRoundTrip(t *testing.T) {
	dir := t.TempDir()
	_, err := LoadTuned(OS(), dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	want := someTuned()
	require.NoError(t, want.Save(OS(), dir))
	got, err := LoadTuned(OS(), dir)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, "uring", got.Engine(true).Name)
	require.Equal(t, "mmap", got.Engine(false).Name)

	want = &Tuned{Source: FromTune, SyncEngine: &Chosen{Name: "direct"}}
	require.NoError(t, want.Save(OS(), dir), "over the old one")
	got, err = LoadTuned(OS(), dir)
	require.NoError(t, err)
	require.Nil(t, got.Engine(false))
	require.Equal(t, "direct", got.Engine(true).Name)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestTunedDamage(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, someTuned().Save(OS(), dir))
	name := filepath.Join(dir, TunedName)
	good, err := os.ReadFile(name)
	require.NoError(t, err)
	for text, change := range map[string][2]string{
		"version 2":         {`"version": 1`, `"version": 2`},
		"source \"rumour\"": {`"tune"`, `"rumour"`},
		"log engine \"fast": {`"uring"`, `"fast"`},
		"log engine \"\"":   {`"name": "mmap"`, `"name": ""`},
		"cannot unmarshal":  {`"version": 1`, `"version": "one"`},
		"invalid character": {`{`, `{{`},
		"unexpected end":    {string(good[20:]), ""},
		"more than":         {`"it is"`, `"` + strings.Repeat("x", maxTunedBytes) + `"`},
	} {
		t.Run(text, func(t *testing.T) {
			require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(good), change[0], change[1], 1)), 0o644))
			_, err := LoadTuned(OS(), dir)
			require.ErrorContains(t, err, text)
			require.NotErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestPlace(t *testing.T) {
	dir := t.TempDir()
	p := PlaceOf(dir)
	require.NotEmpty(t, p.Kernel)
	require.Equal(t, p, PlaceOf(filepath.Join(dir, "not", "made", "yet")))
	require.True(t, SameDisk(dir, filepath.Join(dir, "x")))
	require.Equal(t, filepath.Join(dir, "a.tmp"), ScratchDir(dir, filepath.Join(dir, "commitlog"), "a.tmp"))
	if _, err := os.Stat("/proc/self/mountinfo"); err == nil {
		require.NotEmpty(t, p.FileSystem)
		require.NotEmpty(t, p.Device)
		require.Equal(t, "proc", PlaceOf("/proc/self").FileSystem)
		require.Equal(t, "/proc/a.tmp", ScratchDir(dir, "/proc", "a.tmp"), "the log has a disk of its own")
	}
}

func TestProcessCPU(t *testing.T) {
	first, ok := ProcessCPU()
	if !ok {
		t.Skip("the system does not tell")
	}
	for n := 0; ; n++ {
		if now, _ := ProcessCPU(); now > first {
			break
		}
		require.Less(t, n, 100_000_000, "it never moves")
	}
}
