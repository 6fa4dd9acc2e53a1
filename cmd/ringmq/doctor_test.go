package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/doctor"
)

func TestExitStatusOfDoctor(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "broker.conf")
	require.NoError(t, os.WriteFile(bad, []byte("listenPort=many\n"), 0o600))
	for text, args := range map[string][]string{
		"want table or json": {"-o", "xml"}, "unknown flag": {"--nonsense"}, "unknown command": {"nonsense"}, "listenPort": {"-c", bad}, "no such file": {"-c", bad + ".missing"},
	} {
		out, status := runMain(t, append([]string{"doctor"}, args...)...)
		require.Equal(t, doctor.ExitNoRun, status, out)
		require.Contains(t, out, text)
	}
	out, status := runMain(t, "doctor", "--help")
	require.Zero(t, status)
	require.Contains(t, out, "Exit status: 0")
	out, status = runMain(t, "doctor", "--store", "/given", "-p")
	require.Zero(t, status)
	require.Contains(t, out, "storePathRootDir=/given\n")
}

// The report is of the broker that the configuration describes.
func TestDoctorLooksAtTheConfiguredBroker(t *testing.T) {
	store := t.TempDir()
	conf := filepath.Join(t.TempDir(), "broker.conf")
	require.NoError(t, os.WriteFile(conf, []byte("brokerIP1=0.0.0.0\nlistenPort=23456\nmappedFileSizeCommitLog=65536\nmetricsListen=\n"), 0o600))
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainItself$")
	cmd.Env = append(os.Environ(), argumentsOfMain+"="+strings.Join([]string{"doctor", "-c", conf, "--store", store, "-o", "json"}, "\n"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := cmd.Run()
	var r doctor.Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &r), "%v: %s", runErr, errs.String())
	require.Equal(t, r.ExitStatus, cmd.ProcessState.ExitCode())
	require.GreaterOrEqual(t, r.ExitStatus, doctor.ExitWarning, "nobody can connect to 0.0.0.0")
	require.Equal(t, store, r.StoreDir)
	found := make(map[string]doctor.Finding)
	for _, f := range r.Findings {
		found[f.Name] = f
	}
	require.Equal(t, doctor.Warning, found["advertised address"].State)
	require.Contains(t, found, "port 23456")
	require.Contains(t, found, "port 23454")
	require.Contains(t, found, "port 23457")
	require.Contains(t, found, "port 9876")
	require.NotContains(t, found, "port 5557")
	require.Contains(t, found["store space"].Meaning+found["store space"].Found, "64 KiB")
}
