package config

import (
	"flag"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEnvName(t *testing.T) {
	for property, want := range map[string]string{
		"flushDiskType":              "RINGMQ_FLUSH_DISK_TYPE",
		"brokerIP1":                  "RINGMQ_BROKER_IP1",
		"tls.server.mode":            "RINGMQ_TLS_SERVER_MODE",
		"tls.server.keyPath":         "RINGMQ_TLS_SERVER_KEY_PATH",
		"enabledAppendPropCRC":       "RINGMQ_ENABLED_APPEND_PROP_CRC",
		"sendHeartbeatTimeoutMillis": "RINGMQ_SEND_HEARTBEAT_TIMEOUT_MILLIS",
	} {
		require.Equal(t, want, envName(property))
	}
}

// Names, variables and defaults of the tables are sound: no two keys share a name, and every default is accepted.
func TestTables(t *testing.T) {
	for process, keys := range map[string][]Key{"broker": BrokerKeys(), "name server": NameServerKeys()} {
		names, envs := map[string]bool{}, map[string]bool{}
		for _, k := range keys {
			require.False(t, names[k.Name], "%s: %s twice", process, k.Name)
			require.False(t, envs[k.Env], "%s: %s twice", process, k.Env)
			names[k.Name], envs[k.Env] = true, true
			require.NoError(t, k.Check(k.Default), process)
			if k.check != "" {
				require.Contains(t, valueChecks, k.check, k.Name)
			}
			require.NotEmpty(t, k.Usage())
		}
	}
}

func TestCheckValues(t *testing.T) {
	keys := map[string]Key{}
	for _, k := range BrokerKeys() {
		keys[k.Name] = k
	}
	cases := []struct {
		key    string
		accept []string
		refuse []string
	}{
		{"listenPort", []string{"0", "65535", " 10911 "}, []string{"", "-1", "65536", "0x1", "10911.0", "1e3", "9223372036854775808", "abc"}},
		{"mappedFileSizeCommitLog", []string{"1073741824"}, []string{"1G", "1024*1024", "2147483648"}},
		{"longPollingEnable", []string{"true", "FALSE", "True "}, []string{"", "1", "yes", "ture"}},
		{"flushDiskType", []string{"SYNC_FLUSH", "ASYNC_FLUSH"}, []string{"sync_flush", "", "SYNC"}},
		{"brokerName", []string{"", "broker-a"}, []string{"a b", "a\nb", string(make([]byte, 128))}},
		{"brokerClusterName", []string{"C"}, []string{""}},
		{"brokerIP1", []string{"", "10.0.0.1", "::1", "broker.example"}, []string{"a:1", "a b", "http://x"}},
		{"namesrvAddr", []string{"", "a:9876", "10.0.0.1:9876;[::1]:9876; "}, []string{"a", "a:b", ":9876", "a:99999", "a:1,b:1"}},
		{"metricsListen", []string{"", ":5557", "127.0.0.1:0"}, []string{"5557", "a:b"}},
		{"deleteWhen", []string{"04", "4;16"}, []string{"", ";", "24", "-1", "4,5", "noon"}},
		{"messageDelayLevel", []string{"1s", "1s 10m 2h 3d"}, []string{"", "1", "s", "1x", "-1s", "99999999999d"}},
		{"reactorCpus", []string{"", "0", "0-3,8"}, []string{"3-1", "a", "0-99999", "-1", "1-"}},
		{"storePathCommitLog", []string{"", "/data/log"}, []string{"/a,/b"}},
		{"tls.protocols", []string{"", "TLSv1.2", "TLSv1.2, TLSv1.3"}, []string{"SSLv3", "TLSv1"}},
	}
	for _, c := range cases {
		for _, v := range c.accept {
			require.NoError(t, keys[c.key].Check(v), "%s=%q", c.key, v)
		}
		for _, v := range c.refuse {
			var bad *ValueError
			require.ErrorAs(t, keys[c.key].Check(v), &bad, "%s=%q", c.key, v)
			require.Equal(t, c.key, bad.Key)
			require.NotEmpty(t, bad.Accepts)
		}
	}
}

func TestSecretsStayOutOfErrors(t *testing.T) {
	k := Key{Name: "x", Kind: "int", Secret: true, min: 1, max: 2}
	require.NotContains(t, k.Check("hunter2").Error(), "hunter2")
}

func TestParsedForms(t *testing.T) {
	hours, err := ParseHours("4; 16")
	require.NoError(t, err)
	require.Equal(t, []int{4, 16}, hours)
	levels, err := ParseDelayLevels("1s  5m 2h 1d")
	require.NoError(t, err)
	require.Equal(t, []time.Duration{time.Second, 5 * time.Minute, 2 * time.Hour, 24 * time.Hour}, levels)
	cpus, err := ParseCPUs("0-2, 8")
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 8}, cpus)
}

func TestFlags(t *testing.T) {
	given := Flags{}
	set := flag.NewFlagSet("broker", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, k := range BrokerKeys() {
		set.Var(given.Value(k), k.Name, k.Usage())
	}
	require.NoError(t, set.Parse([]string{"--listenPort=1234", "-slaveReadEnable", "--tls.server.mode", "disabled"}))
	require.Equal(t, Flags{"listenPort": "1234", "slaveReadEnable": "true", "tls.server.mode": "disabled"}, given)
	require.Equal(t, "1234", set.Lookup("listenPort").Value.String())
	require.Equal(t, "10911", set.Lookup("listenPort").DefValue)
	require.ErrorContains(t, set.Parse([]string{"--listenPort=x"}), "0..65535")
	set.PrintDefaults()
}
