package config

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func parseIP(t *testing.T, s string) net.IP {
	t.Helper()
	ip := net.ParseIP(s)
	require.NotNil(t, ip)
	return ip
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

func TestSetIsInForceAndPersisted(t *testing.T) {
	file := writeFile(t, "# ours\nfileReservedTime = 48\nlistenPort=1234\n")
	live, err := LoadBroker(Source{File: file, Environ: noTLSFile})
	require.NoError(t, err)
	before := live.Load()
	require.NoError(t, live.Set("fileReservedTime", " 24 "))
	require.NoError(t, live.Set("brokerPermission", "4"))
	require.Equal(t, 24, live.Load().FileReservedTime)
	require.Equal(t, 48, before.FileReservedTime, "a snapshot taken earlier does not change")
	require.Equal(t, "# ours\nfileReservedTime=24\nlistenPort=1234\nbrokerPermission=4\n", readText(t, file))
	counter, _ := live.Version()
	require.EqualValues(t, 2, counter)

	if runtime.GOOS != "windows" {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm(), "the file keeps its permissions")
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*.tmp"))
	require.NoError(t, err)
	require.Empty(t, left)

	again, err := LoadBroker(Source{File: file, Environ: noTLSFile})
	require.NoError(t, err)
	require.Equal(t, *live.Load(), *again.Load())
}

func TestUpdateRefusals(t *testing.T) {
	file := writeFile(t, "fileReservedTime=48\n")
	live, err := LoadBroker(Source{File: file, Environ: noTLSFile})
	require.NoError(t, err)
	before := live.Load()
	for key, want := range map[string]error{
		"listenPort": ErrNeedsRestart, "nonsense": ErrUnknownKey, "sendMessageThreadPoolNums": ErrUnknownKey, "configBlackList": ErrBlackListed, "brokerConfigPath": ErrBlackListed,
	} {
		require.ErrorIs(t, live.Set(key, "1"), want, key)
	}
	var bad *ValueError
	require.ErrorAs(t, live.Set("fileReservedTime", "long"), &bad)
	require.ErrorContains(t, live.Set("maxMessageSize", "16777216"), "frameMaxLength")
	require.ErrorIs(t, live.Update([]Property{{Key: "fileReservedTime", Value: "1"}, {Key: "listenPort", Value: "1"}}), ErrNeedsRestart)
	require.Same(t, before, live.Load(), "all or none")
	require.Equal(t, "fileReservedTime=48\n", readText(t, file))
}

func TestUpdateToTheSameValueIsAccepted(t *testing.T) {
	file := writeFile(t, "listenPort=1234\n")
	live, err := LoadBroker(Source{File: file, Environ: noTLSFile})
	require.NoError(t, err)
	require.NoError(t, live.Set("listenPort", "1234"))
	counter, _ := live.Version()
	require.Zero(t, counter)
}

func TestBlackListOfTheOperator(t *testing.T) {
	live, err := LoadBroker(Source{File: writeFile(t, "configBlackList=configBlackList;fileReservedTime"), Environ: noTLSFile})
	require.NoError(t, err)
	require.ErrorIs(t, live.Set("fileReservedTime", "1"), ErrBlackListed)
}

func TestChangeThatCannotBeWrittenIsInForce(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "broker.conf")
	live, err := LoadBroker(Source{File: file, FileMayMiss: true, Environ: noTLSFile})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub"), nil, 0o600)) // a file where the directory should be
	require.ErrorIs(t, live.Set("fileReservedTime", "1"), ErrNotPersisted)
	require.Equal(t, 1, live.Load().FileReservedTime)
}

func TestChangesWithoutAFile(t *testing.T) {
	live := NewLiveBroker(DefaultBroker())
	require.NoError(t, live.Set("fileReservedTime", "1"))
	require.Equal(t, 1, live.Load().FileReservedTime)
}

func TestNameServerKeepsChangesInItsConfigStorePath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "namesrv", "namesrv.properties")
	src := Source{Environ: append(noTLSFile, "RINGMQ_CONFIG_STORE_PATH="+file)}
	live, err := LoadNameServer(src)
	require.NoError(t, err)
	require.NoError(t, live.Set("orderMessageEnable", "true"))
	require.Equal(t, "orderMessageEnable=true\n", readText(t, file))
	again, err := LoadNameServer(src)
	require.NoError(t, err)
	require.True(t, again.Load().OrderMessageEnable)
	require.ErrorIs(t, live.Set("kvConfigPath", "/x"), ErrBlackListed)
}

func TestRewriteFollowsALink(t *testing.T) {
	file := writeFile(t, "fileReservedTime=1\n")
	link := filepath.Join(t.TempDir(), "link.conf")
	if err := os.Symlink(file, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	live, err := LoadBroker(Source{File: link, Environ: noTLSFile})
	require.NoError(t, err)
	require.NoError(t, live.Set("fileReservedTime", "2"))
	require.Equal(t, "fileReservedTime=2\n", readText(t, file))
}

// Readers see whole snapshots while changes go on: both values of one Update, or neither.
func TestConcurrentChanges(t *testing.T) {
	live := NewLiveBroker(DefaultBroker())
	require.NoError(t, live.Update(pair(1)))
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if b := live.Load(); b.MaxTransferCountOnMessageInMemory != b.MaxTransferCountOnMessageInDisk {
					t.Errorf("torn snapshot: %d and %d", b.MaxTransferCountOnMessageInMemory, b.MaxTransferCountOnMessageInDisk)
					return
				}
			}
		})
	}
	for i := 1; i <= 200; i++ {
		require.NoError(t, live.Update(pair(i)))
	}
	close(stop)
	readers.Wait()
	counter, _ := live.Version()
	require.EqualValues(t, 200, counter, "the first of the 200 changed nothing")
}

func pair(n int) []Property {
	v := strconv.Itoa(n)
	return []Property{{Key: "maxTransferCountOnMessageInMemory", Value: v}, {Key: "maxTransferCountOnMessageInDisk", Value: v}}
}

func TestLoadAllocatesNothing(t *testing.T) {
	live := NewLiveBroker(DefaultBroker())
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if live.Load().ListenPort < 0 {
			panic("unreachable")
		}
	}))
	require.True(t, strings.Contains(live.Text(), "brokerRole=ASYNC_MASTER\n"))
}

func TestSetDefaultGivesWayAndLeavesNoTrace(t *testing.T) {
	file := writeFile(t, "brokerName=named\n")
	live, err := LoadBroker(Source{File: file})
	require.NoError(t, err)
	require.NoError(t, live.SetDefault("namesrvAddr", "127.0.0.1:9876"))
	require.NoError(t, live.SetDefault("brokerName", "other"))
	require.Equal(t, "127.0.0.1:9876", live.Load().NamesrvAddr)
	require.Equal(t, "named", live.Load().BrokerName)
	require.ErrorIs(t, live.SetDefault("nonsense", "1"), ErrUnknownKey)
	counter, _ := live.Version()
	require.Zero(t, counter)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "brokerName=named\n", string(text))
}
