package ioengine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestColdProbe(t *testing.T) {
	dir := t.TempDir()
	p, err := NewColdProbe(filepath.Join(dir, "cold"), 2<<20)
	require.NoError(t, err)
	for _, way := range []ColdRead{ColdPread, ColdSendfile, ColdUring} {
		t.Run(way.String(), func(t *testing.T) {
			f, err := p.Run(t.Context(), way, 10*time.Millisecond)
			if errors.Is(err, ErrColdRefused) {
				t.Skip(err)
			}
			require.NoError(t, err)
			require.NotEmpty(t, f.Latencies)
			require.GreaterOrEqual(t, f.Elapsed, 10*time.Millisecond)
			for _, d := range f.Latencies {
				require.Positive(t, d)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.Run(ctx, ColdPread, time.Hour)
	require.ErrorIs(t, err, context.Canceled)
	_, err = NewColdProbe(filepath.Join(dir, "cold"), 2<<20)
	require.ErrorIs(t, err, os.ErrExist, "nobody's file is written over")
	require.NoError(t, p.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
