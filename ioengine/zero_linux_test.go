package ioengine

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// zeroTestFile is a file of ones in which zeroes can be written past the page cache.
func zeroTestFile(t *testing.T, size int) string {
	name := filepath.Join(t.TempDir(), "zero")
	require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte{1}, size), 0o600))
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Skip("no O_DIRECT here: ", err)
	}
	require.NoError(t, f.Close())
	return name
}

func TestZeroDirectWritesNothingElse(t *testing.T) {
	const size = 20 << 20
	for _, tt := range []struct {
		name     string
		from, to int64
	}{
		{"less than one write", 3 * TailBlock, 5 * TailBlock},
		{"one write", 0, directZeroes},
		{"as many as are in flight", directZeroes, directZeroes * (8 + 1)},
		{"more, and a part", TailBlock, size - TailBlock},
		{"nothing", TailBlock, TailBlock},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := zeroTestFile(t, size)
			require.NoError(t, zeroDirect(name, tt.from, tt.to))
			want := bytes.Repeat([]byte{1}, size)
			clear(want[tt.from:tt.to])
			got, err := os.ReadFile(name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "other bytes than the range's were written, or not all of it")
		})
	}
}
