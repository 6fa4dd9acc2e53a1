package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/tune"
)

func TestExitStatusOfTune(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "broker.conf")
	require.NoError(t, os.WriteFile(bad, []byte("listenPort=many\n"), 0o600))
	for text, args := range map[string][]string{
		"want table or json": {"-o", "xml"}, "unknown flag": {"--nonsense"}, "unknown command": {"nonsense"}, "listenPort": {"-c", bad},
		"want 1s to 1h": {"--duration", "10ms"}, "invalid argument": {"--duration", "long"}, "create folder": {"--store", filepath.Join(bad, "store")},
	} {
		out, status := runMain(t, append([]string{"tune"}, args...)...)
		require.Equal(t, tune.ExitNoRun, status, out)
		require.Contains(t, out, text)
	}
	out, status := runMain(t, "tune", "--help")
	require.Zero(t, status)
	require.Contains(t, out, "Exit status: 0")
	out, status = runMain(t, "tune", "--store", "/given", "-p")
	require.Zero(t, status)
	require.Contains(t, out, "storePathRootDir=/given\n")
}

// The log's disk is the configured one, or with --store the one of that folder.
func TestTuneMeasuresTheConfiguredDisk(t *testing.T) {
	b := config.DefaultBroker()
	b.StorePathRootDir, b.StorePathCommitLog = "/root", "/log"
	require.Equal(t, tune.Options{StoreDir: "/root", LogDir: "/log"}, tuneOptions(b, ""))
	require.Equal(t, tune.Options{StoreDir: "/root"}, tuneOptions(b, "/root"))
}

// Ctrl-C in the middle of it leaves nothing behind.
func TestInterruptedTune(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted there")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainItself$")
	cmd.Env = append(os.Environ(), argumentsOfMain+"="+strings.Join([]string{"tune", "--store", filepath.Join(dir, "new", "store")}, "\n"))
	var out bytes.Buffer
	cmd.Stdout = &out
	errs, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(errs)
	for !strings.Contains(lines.Text(), "round 1 of") {
		require.True(t, lines.Scan(), "it ends before it begins")
	}
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	require.Error(t, cmd.Wait())
	require.Equal(t, tune.ExitNoRun, cmd.ProcessState.ExitCode(), last)
	require.Contains(t, last, "nothing was written")
	require.Empty(t, out.String())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
