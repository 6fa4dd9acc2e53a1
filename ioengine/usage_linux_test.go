package ioengine

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Usage is what df says, and what Java goes by: blocks that only root may use are neither free nor used.
func TestUsageIsWhatDfSays(t *testing.T) {
	dir := t.TempDir()
	df, err := exec.Command("df", "-B1", "--output=used,avail", dir).Output()
	if err != nil {
		t.Skip("no df here: ", err)
	}
	fields := strings.Fields(string(df))
	require.Len(t, fields, 4)
	used, err := strconv.ParseInt(fields[2], 10, 64)
	require.NoError(t, err)
	avail, err := strconv.ParseInt(fields[3], 10, 64)
	require.NoError(t, err)
	free, total, err := OS().Usage(dir)
	require.NoError(t, err)
	// Others write meanwhile.
	require.InEpsilon(t, used+avail, total, 0.02)
	require.InDelta(t, avail, free, 0.02*float64(total))
}
