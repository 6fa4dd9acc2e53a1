package nameserver

import (
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

const kvPath = "ns/kvConfig.json"

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func openKV(t *testing.T, fsys ioengine.FS) *kvConfig {
	t.Helper()
	k, err := loadKV(fsys, kvPath, false, quiet)
	require.NoError(t, err)
	return k
}

func value(k *kvConfig, key string) string {
	v, _ := k.get("n", key)
	return v
}

func TestKVRequests(t *testing.T) {
	tb := newTestTables(t, nil)
	item := map[string]string{"namespace": "n", "key": "k", "value": "v"}
	a := tb.ask(remoting.ReqGetKVConfig, item, nil)
	require.Equal(t, reply{code: remoting.RespQueryNotFound, remark: "No config item, Namespace: n Key: k"}, a)
	require.Equal(t, remoting.RespQueryNotFound, tb.ask(remoting.ReqGetKvlistByNamespace, item, nil).code)
	require.Equal(t, reply{}, tb.ask(remoting.ReqPutKVConfig, item, nil))
	require.Equal(t, "v", tb.ask(remoting.ReqGetKVConfig, item, nil).field("value"))
	require.Equal(t, `{"table":{"k":"v"}}`, string(tb.ask(remoting.ReqGetKvlistByNamespace, item, nil).body))
	require.Equal(t, reply{}, tb.ask(remoting.ReqDeleteKVConfig, item, nil))
	require.Equal(t, remoting.RespQueryNotFound, tb.ask(remoting.ReqGetKVConfig, item, nil).code)
}

func TestKVIsKept(t *testing.T) {
	fsys := faultfs.New()
	k := openKV(t, fsys)
	require.NoError(t, k.put("n", "a", "1"))
	require.NoError(t, k.put("n", "b", "\"\n<é>"))
	require.NoError(t, k.remove("n", "a"))
	again := openKV(t, fsys.Crash(1, faultfs.LoseAll))
	require.Equal(t, map[string]string{"b": "\"\n<é>"}, again.list("n"))
}

func TestKVOfJava(t *testing.T) {
	fsys := faultfs.New()
	require.NoError(t, fsys.MkdirAll("ns", 0o755))
	require.NoError(t, ioengine.WriteFileAtomic(fsys, kvPath, []byte(`{"configTable":{"n":{"a":"1"}}}`)))
	require.Equal(t, "1", value(openKV(t, fsys), "a"))
}

// Whatever call fails, and whatever a crash then leaves, the change is there or the state before it; what was answered is there.
func TestKVSurvivesEveryFault(t *testing.T) {
	for n := int64(1); ; n++ {
		fsys := faultfs.New()
		k := openKV(t, fsys)
		require.NoError(t, k.put("n", "a", "1"))
		require.NoError(t, k.put("n", "a", "2"))
		fsys.ResetOps()
		fsys.FailAt(n, errors.New("EIO"))
		err := k.put("n", "a", "3")
		if err != nil {
			require.Equal(t, "2", value(k, "a"), "what is not durable is not in force")
		}
		for seed := range int64(20) {
			got := value(openKV(t, fsys.Crash(seed, faultfs.Torn)), "a")
			if err == nil {
				require.Equal(t, "3", got)
			} else {
				require.Contains(t, []string{"2", "3"}, got)
			}
		}
		if err == nil {
			return
		}
	}
}

func TestDamagedKV(t *testing.T) {
	fsys := faultfs.New()
	k := openKV(t, fsys)
	require.NoError(t, k.put("n", "a", "1"))
	require.NoError(t, k.put("n", "a", "2"))
	text, err := fsys.ReadFile(kvPath)
	require.NoError(t, err)
	require.NoError(t, fsys.Flip(kvPath, int64(strings.Index(string(text), `"2"`)+1), 0))
	k = openKV(t, fsys)
	require.Equal(t, "1", value(k, "a"), "the previous generation")
	require.NoError(t, k.put("n", "a", "4"))
	require.Equal(t, "4", value(openKV(t, fsys), "a"))
	back, err := fsys.ReadFile(kvPath + ".bak")
	require.NoError(t, err)
	require.Contains(t, string(back), `"1"`, "the damaged file did not push the good one out")
	require.NoError(t, fsys.Flip(kvPath, 20, 0))
	require.NoError(t, fsys.Flip(kvPath+".bak", 20, 0))
	_, err = loadKV(fsys, kvPath, false, quiet)
	require.ErrorContains(t, err, "restore it from a backup")
	k, err = loadKV(fsys, kvPath, true, quiet)
	require.NoError(t, err)
	require.Empty(t, k.table)
}

func TestKVIsBounded(t *testing.T) {
	k := openKV(t, faultfs.New())
	big := strings.Repeat("x", maxKVBytes/2)
	require.NoError(t, k.put("n", "a", big))
	require.ErrorIs(t, k.put("n", "b", big), errKVFull)
	require.NoError(t, k.put("n", "a", "small"))
	require.NoError(t, k.put("n", "b", big))
	for i := range maxKVItems - 2 {
		k.table["n"][strconv.Itoa(i)] = ""
	}
	require.ErrorIs(t, k.put("n", "c", ""), errKVFull)
}
