package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecoverMakesNoStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	out, status := runMain(t, "recover", "--store", dir)
	require.NotZero(t, status)
	require.Contains(t, out, "no store to recover")
	require.NoDirExists(t, dir)
}

// What a killed broker had only in ringmq-tail is in the segments afterwards, and the store looks as after a stop in order.
func TestRecoverAfterKill(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere there is no ringmq-tail")
	}
	data := t.TempDir()
	store := filepath.Join(data, "store")
	// Nothing reaches the segments by itself.
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainItself$")
	cmd.Env = append(os.Environ(), argumentsOfMain+"="+strings.Join([]string{"standalone", "--data", data, "--namesrvPort", "0", "--listenPort=0", "--bindAddress=127.0.0.1",
		"--brokerIP1=127.0.0.1", "--metricsListen=127.0.0.1:0", "--ioEngine=direct", "--logTailBytes=33554432", "--mappedFileSizeCommitLog=1048576",
		"--flushIntervalCommitLog=60000", "--diskMaxUsedSpaceRatio=100", "--diskSpaceWarningLevelRatio=100", "--diskSpaceCleanForciblyRatio=100"}, "\n"))
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	said, address := bufio.NewScanner(pipe), ""
	for address == "" && said.Scan() {
		if _, after, found := strings.Cut(said.Text(), "clients reach the broker at "); found {
			address = strings.Fields(after)[0]
		}
	}
	require.NotEmpty(t, address)
	out, status := runMain(t, "perf", "produce", "-q", "-b", strings.TrimRight(address, ",;"), "--count", "50", "--size", "64", "--conns", "1")
	require.Zero(t, status, out)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.FileExists(t, filepath.Join(store, "abort"))
	require.FileExists(t, filepath.Join(store, "ringmq-tail"))
	out, status = runMain(t, "recover", "--store", store, "--mappedFileSizeCommitLog=1048576")
	require.Zero(t, status, out)
	require.Contains(t, out, "closed in order")
	require.NoFileExists(t, filepath.Join(store, "abort"))
	require.NoFileExists(t, filepath.Join(store, "ringmq-tail"))
	segment, err := os.ReadFile(filepath.Join(store, "commitlog", "00000000000000000000"))
	require.NoError(t, err)
	require.Equal(t, 50, strings.Count(string(segment), "UNIQ_KEY"))
}
