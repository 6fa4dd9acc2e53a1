package config

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "broker.conf")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// noTLSFile keeps the machine's own /etc/rocketmq/tls.properties out of a test.
var noTLSFile = []string{"RINGMQ_TLS_CONFIG_FILE="}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "listenPort=1\nfileReservedTime=1\nregionId=file\n")
	live, err := LoadBroker(Source{
		File:    file,
		Environ: append(noTLSFile, "RINGMQ_LISTEN_PORT=2", "RINGMQ_FILE_RESERVED_TIME=2", "PATH=/bin"),
		Flags:   Flags{"listenPort": "3"},
	})
	require.NoError(t, err)
	b := live.Load()
	require.Equal(t, 3, b.ListenPort, "flag before environment")
	require.Equal(t, 2, b.FileReservedTime, "environment before file")
	require.Equal(t, "file", b.RegionID, "file before default")
	require.Equal(t, "DefaultCluster", b.BrokerClusterName)
}

func TestNamesrvAddrFromRocketMQsVariable(t *testing.T) {
	environ := append(noTLSFile, "NAMESRV_ADDR=theirs:9876")
	live, err := LoadBroker(Source{Environ: environ})
	require.NoError(t, err)
	require.Equal(t, "theirs:9876", live.Load().NamesrvAddr)
	live, err = LoadBroker(Source{Environ: environ, File: writeFile(t, "namesrvAddr=file:9876")})
	require.NoError(t, err)
	require.Equal(t, "file:9876", live.Load().NamesrvAddr)
	live, err = LoadBroker(Source{Environ: append(environ, "RINGMQ_NAMESRV_ADDR=ours:9876")})
	require.NoError(t, err)
	require.Equal(t, "ours:9876", live.Load().NamesrvAddr)
}

func TestBadValuesStopTheStart(t *testing.T) {
	file := writeFile(t, "# comment\nlistenPort = ten\n\nflushDiskType=FAST\n")
	_, err := LoadBroker(Source{File: file, Environ: append(noTLSFile, "RINGMQ_BROKER_ROLE=BOSS"), Flags: Flags{"fileReservedTime": "-1"}})
	for _, want := range []string{
		file + `:2: listenPort="ten" is not accepted: give a whole number 0..65535`,
		file + `:4: flushDiskType="FAST" is not accepted: give one of ASYNC_FLUSH, SYNC_FLUSH`,
		`environment variable RINGMQ_BROKER_ROLE: brokerRole="BOSS"`,
		`flag --fileReservedTime: fileReservedTime="-1" is not accepted: give a whole number 1..876000 (hours)`,
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = LoadBroker(Source{File: writeFile(t, "a=1\nb=\\u1"), Environ: noTLSFile})
	require.ErrorContains(t, err, "broker.conf: line 2")
}

func TestBadValueOfAWeakSourceStopsTheStartToo(t *testing.T) {
	_, err := LoadBroker(Source{File: writeFile(t, "listenPort=ten"), Environ: noTLSFile, Flags: Flags{"listenPort": "1"}})
	require.ErrorContains(t, err, "broker.conf:1")
}

func TestMissingFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "none.conf")
	_, err := LoadBroker(Source{File: file, Environ: noTLSFile})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = LoadBroker(Source{File: file, FileMayMiss: true, Environ: noTLSFile})
	require.NoError(t, err)
}

func TestRequestsThatCannotBeMetStopTheStart(t *testing.T) {
	for text, want := range map[string]string{
		"authenticationEnabled=true":                "access control",
		"storeType=defaultRocksDB":                  "RocksDB",
		"readOnlyCommitLogStorePaths=/old":          "storePathCommitLog",
		"useTLS=true":                               "tls.enable",
		"brokerRole=SLAVE\nbrokerId=1":              "replication",
		"brokerRole=SYNC_MASTER\ninSyncReplicas=2":  "replication",
		"maxMessageSize=33554432":                   "frameMaxLength",
		"storePathCommitLog=/a,/b":                  "one path",
		"tls.config.file=/nowhere/tls.properties\n": "tls.config.file",
	} {
		_, err := LoadBroker(Source{File: writeFile(t, text), Environ: []string{}})
		require.ErrorContains(t, err, want, text)
	}
	for variable, want := range map[string]string{
		"RINGMQ_AUTHENTICATION_ENABLED=true":           "environment variable RINGMQ_AUTHENTICATION_ENABLED: authenticationEnabled=true asks for what ringmq cannot do: access control",
		"RINGMQ_STORE_TYPE=defaultRocksDB":             "RocksDB",
		"RINGMQ_READ_ONLY_COMMIT_LOG_STORE_PATHS=/old": "storePathCommitLog",
		"RINGMQ_ENABLE_DLEGER_COMMIT_LOG=true":         "DLedger",
		"RINGMQ_USE_TLS=true":                          "tls.enable",
		"RINGMQ_ENABLE_CONTROLLER_MODE=TRUE":           "controller",
	} {
		_, err := LoadBroker(Source{Environ: append(noTLSFile[:1:1], variable)})
		require.ErrorContains(t, err, want, variable)
		_, err = LoadNameServer(Source{Environ: append(noTLSFile[:1:1], variable)})
		require.ErrorContains(t, err, want, variable)
	}
	for _, variable := range []string{"RINGMQ_AUTHENTICATION_ENABLED=false", "RINGMQ_STORE_TYPE=default", "RINGMQ_MESSAGE_STORE_PLUG_IN="} {
		_, err := LoadBroker(Source{Environ: append(noTLSFile[:1:1], variable)})
		require.NoError(t, err, variable)
	}
	for _, text := range []string{"authenticationEnabled=false", "storeType=default", "useTLS=false", "inSyncReplicas=2", "messageStorePlugIn="} {
		_, err := LoadBroker(Source{File: writeFile(t, text), Environ: noTLSFile})
		require.NoError(t, err, text)
	}
	_, err := LoadNameServer(Source{File: writeFile(t, "clusterTest=true"), Environ: noTLSFile})
	require.ErrorContains(t, err, "clusterTest")
}

func TestStrangeNamesAreLogged(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	file := writeFile(t, "sendMessageThreadPoolNums=4\nkvConfigPath=/x\nlistenProt=1\nsendMessageThreadPoolNums=5\n")
	_, err := LoadBroker(Source{File: file, Log: log, Environ: append(noTLSFile, "RINGMQ_TYPO=1", "RINGMQ_KV_CONFIG_PATH=/x", "RINGMQ_TIMER_WARM_ENABLE=true")})
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 5, out.String())
	for _, want := range []string{"INFO sendMessageThreadPoolNums :1 pools", "INFO kvConfigPath :2 process", "WARN listenProt :3 unknown", "WARN RINGMQ_TYPO unknown", "INFO RINGMQ_TIMER_WARM_ENABLE reason"} {
		require.True(t, anyLineHas(lines, strings.Fields(want)), "%s in\n%s", want, out.String())
	}
}

func anyLineHas(lines, words []string) bool {
	for _, line := range lines {
		has := true
		for _, w := range words {
			has = has && strings.Contains(line, w)
		}
		if has {
			return true
		}
	}
	return false
}

func TestAutomaticValues(t *testing.T) {
	b := DefaultBroker()
	require.NotEmpty(t, b.BrokerName)
	require.NotEmpty(t, b.BrokerIP1)
	require.Equal(t, b.BrokerIP1, b.BrokerIP2)
	require.Equal(t, 10909, b.FastListenPort)
	require.Equal(t, 10912, b.HaListenPort)
	require.Equal(t, filepath.Join("ringmq-data", "store", "commitlog"), b.StorePathCommitLog)

	live, err := LoadBroker(Source{Environ: noTLSFile, Flags: Flags{
		"listenPort": "20911", "brokerIP1": "10.1.2.3", "storePathRootDir": "/s", "mappedFileSizeConsumeQueue": "1001", "brokerId": "7", "fastListenPort": "-1",
	}})
	require.NoError(t, err)
	b = live.Load()
	require.Equal(t, -1, b.FastListenPort)
	require.Equal(t, 20912, b.HaListenPort)
	require.Equal(t, "10.1.2.3", b.BrokerIP2)
	require.Equal(t, filepath.Join("/s", "commitlog"), b.StorePathCommitLog)
	require.EqualValues(t, 1020, b.MappedFileSizeConsumeQueue, "rounded up to whole entries")
	require.Zero(t, b.BrokerID, "a master's id is 0")

	again := *b
	require.NoError(t, again.settle())
	require.Equal(t, *b, again, "settling twice changes nothing")
}

func TestTLSFileIsWeakerThanTheOthers(t *testing.T) {
	tls := writeFile(t, "tls.server.certPath=/from/tls\ntls.server.keyPath=/from/tls\ntls.server.need.client.auth=require\nlistenPort=1\n")
	live, err := LoadNameServer(Source{
		File:    writeFile(t, "tls.server.keyPath=/from/file\ntls.config.file="+tls),
		Environ: []string{"RINGMQ_TLS_SERVER_NEED_CLIENT_AUTH=none"},
	})
	require.NoError(t, err)
	n := live.Load()
	require.Equal(t, "/from/tls", n.TLSServerCertPath)
	require.Equal(t, "/from/file", n.TLSServerKeyPath)
	require.Equal(t, "none", n.TLSServerNeedClientAuth)
	require.Equal(t, 9876, n.ListenPort, "other keys do not belong there")
}

// What -p prints is a configuration file of the same meaning.
func TestPrintLoadRoundTrip(t *testing.T) {
	live, err := LoadBroker(Source{Environ: noTLSFile, Flags: Flags{
		"storePathRootDir": `C:\data` + "\t#é", "listenPort": "1234", "traceOn": "false", "brokerIP1": "10.0.0.1", "tls.server.keyPassword": "hunter2",
	}})
	require.NoError(t, err)
	printed := live.Text()
	require.NotContains(t, printed, "hunter2")
	require.Contains(t, printed, "\nlistenPort=1234\n")
	require.Contains(t, printed, "\ntraceOn=false\n")
	require.Contains(t, printed, "\nmessageDelayLevel=1s 5s 10s")

	again, err := LoadBroker(Source{File: writeFile(t, printed)})
	require.NoError(t, err)
	want := *live.Load()
	want.TLSServerKeyPassword = ""
	require.Equal(t, want, *again.Load())
	require.Equal(t, printed, again.Text())
}

func TestTextIsSorted(t *testing.T) {
	lines := strings.Split(Text(DefaultNameServer()), "\n")
	require.IsIncreasing(t, lines[:len(lines)-1])
}

func TestChooseAddress(t *testing.T) {
	ip := func(s string, bridged bool) candidate { return candidate{ip: parseIP(t, s), bridged: bridged} }
	cases := []struct {
		name  string
		found []candidate
		want  string
	}{
		{"nothing found", nil, "127.0.0.1"},
		{"link-local is no address", []candidate{ip("fe80::1", false), ip("169.254.1.1", false)}, "127.0.0.1"},
		{"the first of equals", []candidate{ip("10.0.0.1", false), ip("10.0.0.2", false)}, "10.0.0.1"},
		{"IPv4 before IPv6", []candidate{ip("2001:db8::1", false), ip("192.168.1.2", false)}, "192.168.1.2"},
		{"a real interface before a bridge", []candidate{ip("172.17.0.1", true), ip("2001:db8::1", false)}, "2001:db8::1"},
		{"a bridge before nothing", []candidate{ip("172.17.0.1", true)}, "172.17.0.1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, chooseAddress(c.found)) })
	}
	require.True(t, isBridge("docker0"))
	require.False(t, isBridge("eth0"))
}
