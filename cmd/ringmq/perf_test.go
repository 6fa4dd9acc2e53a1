package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/perf"
)

// argumentsOfMain makes the test binary run main with them, one a line: the process whose exit status is looked at.
const argumentsOfMain = "RINGMQ_TEST_MAIN"

func TestMainItself(t *testing.T) {
	args := os.Getenv(argumentsOfMain)
	if args == "" {
		t.Skip("runs only as the process of another test")
	}
	os.Args = append([]string{"ringmq"}, strings.Split(args, "\n")...)
	main()
	os.Exit(0) // before the test framework says anything
}

// runMain runs the program as a process.
func runMain(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMainItself$")
	cmd.Env = append(os.Environ(), argumentsOfMain+"="+strings.Join(args, "\n"))
	text, err := cmd.CombinedOutput()
	if err != nil {
		require.IsType(t, new(exec.ExitError), err, string(text))
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestExitStatusOfPerf(t *testing.T) {
	s, err := perf.NewStub("127.0.0.1:0")
	require.NoError(t, err)
	defer s.Close()
	out, status := runMain(t, "perf", "produce", "-b", s.Addr(), "--count", "100", "-q")
	require.Equal(t, perf.ExitOK, status, out)
	require.Contains(t, out, "100 acknowledged")

	out, status = runMain(t, "perf", "produce")
	require.Equal(t, perf.ExitUsage, status, out)
	require.Contains(t, out, "--namesrv or --broker")

	// The stub acknowledges everything and stores nothing: it loses what it is sent.
	out, status = runMain(t, "perf", "drain", "-b", s.Addr(), "-t", "perf", "--idle", "200ms", "-q")
	require.Equal(t, perf.ExitUnverified, status, out)
	require.Contains(t, out, "verified    FAILED")

	// Nobody listens on port 1.
	out, status = runMain(t, "perf", "produce", "-b", "127.0.0.1:1", "-q")
	require.Equal(t, perf.ExitUsage, status, out)
}
