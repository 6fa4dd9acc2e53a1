package nameserver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/remoting"
)

// startServer serves on a free port of loopback.
func startServer(t *testing.T, change func(c *config.NameServer)) *Server {
	t.Helper()
	c := config.DefaultNameServer()
	c.BindAddress, c.ListenPort, c.KvConfigPath = "127.0.0.1", 0, filepath.Join(t.TempDir(), "kvConfig.json")
	if change != nil {
		change(c)
	}
	s, err := New(Options{Config: config.NewLiveNameServer(c), Logger: quiet})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
	})
	return s
}

func connect(t *testing.T, s *Server, o client.Options) *client.Conn {
	t.Helper()
	o.Timeout = 20 * time.Second
	c, err := client.Dial(t.Context(), s.Addr().String(), o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func invoke(t *testing.T, c *client.Conn, code int32, fields map[string]string, body []byte) *client.Response {
	t.Helper()
	r, err := c.Invoke(t.Context(), client.Request{Code: code, Fields: fields, Body: body})
	require.NoError(t, err)
	return r
}

func askRoute(t *testing.T, c *client.Conn, topic string) *client.Response {
	t.Helper()
	return invoke(t, c, remoting.ReqGetRouteinfoByTopic, map[string]string{"topic": topic}, nil)
}

func TestBrokerAndClientOverTheWire(t *testing.T) {
	s := startServer(t, nil)
	for _, serialize := range []byte{remoting.SerializeJSON, remoting.SerializeRocketMQ} {
		o := client.Options{Serialize: serialize}
		broker, asker := connect(t, s, o), connect(t, s, o)
		b := master(fmt.Sprintf("b%d", serialize), "T")
		require.Zero(t, invoke(t, broker, remoting.ReqRegisterBroker, b.fields(), b.body().EncodeDeflated()).Code)
		var data remoting.TopicRouteData
		require.NoError(t, json.Unmarshal(askRoute(t, asker, "T").Body, &data))
		require.Equal(t, b.addr, data.BrokerDatas[0].BrokerAddrs[0])
		r := invoke(t, asker, remoting.ReqWipeWritePermOfBroker, map[string]string{"brokerName": b.name}, nil)
		require.Equal(t, "2", r.Fields["wipeTopicCount"])
		require.Equal(t, remoting.RespRequestCodeNotSupported, invoke(t, asker, 200050, nil, nil).Code)
		require.Equal(t, " request type 10 not supported", invoke(t, asker, remoting.ReqSendMessage, nil, nil).Remark)
		require.Zero(t, invoke(t, broker, remoting.ReqUnregisterBroker, b.fields(), nil).Code)
		require.Equal(t, remoting.RespTopicNotExist, askRoute(t, asker, "T").Code)
	}
}

// The end of a broker's connection is the end of the broker, without any wait for a lease.
func TestBrokerThatDies(t *testing.T) {
	s := startServer(t, nil)
	asker := connect(t, s, client.Options{})
	b := master("ba", "T")
	for range 20 {
		broker := connect(t, s, client.Options{})
		require.Zero(t, invoke(t, broker, remoting.ReqRegisterBroker, b.fields(), b.body().Encode()).Code)
		require.Zero(t, askRoute(t, asker, "T").Code)
		// Again, oneway, and closed at once: this one may be handled when its connection is gone already.
		require.NoError(t, broker.Oneway(client.Request{Code: remoting.ReqRegisterBroker, Fields: b.fields(), Body: b.body().Encode()}))
		broker.Close()
	}
	require.Eventually(t, func() bool {
		return s.held.Load() == 0 && askRoute(t, asker, "T").Code == remoting.RespTopicNotExist
	}, 10*time.Second, time.Millisecond)
}

func TestManyBrokersAndClientsAtOnce(t *testing.T) {
	s := startServer(t, func(c *config.NameServer) { c.Reactors = 2 })
	const brokers, rounds = 8, 25
	var all sync.WaitGroup
	for i := range brokers {
		all.Go(func() {
			c, err := client.Dial(t.Context(), s.Addr().String(), client.Options{Timeout: 20 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			b := master(fmt.Sprintf("b%d", i), "T")
			for n := range rounds {
				b.counter = int64(n)
				for _, r := range []client.Request{
					{Code: remoting.ReqRegisterBroker, Fields: b.fields(), Body: b.body().Encode()},
					{Code: remoting.ReqBrokerHeartbeat, Fields: b.fields()},
					{Code: remoting.ReqGetRouteinfoByTopic, Fields: map[string]string{"topic": "T"}},
					{Code: remoting.ReqGetBrokerClusterInfo},
					{Code: remoting.ReqWipeWritePermOfBroker, Fields: b.fields()},
					{Code: remoting.ReqUnregisterBroker, Fields: b.fields()},
				} {
					if _, err := c.Call(t.Context(), r); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, connect(t, s, client.Options{}), "T").Code)
}

func TestTLSByFirstByte(t *testing.T) {
	s := startServer(t, nil)
	secure := connect(t, s, client.Options{TLS: &tls.Config{InsecureSkipVerify: true}})
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, secure, "T").Code)
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, connect(t, s, client.Options{}), "T").Code)
}

// A header that cannot be read ends its connection, and no other.
func TestBrokenHeaderEndsTheConnection(t *testing.T) {
	s := startServer(t, nil)
	other := connect(t, s, client.Options{})
	for _, header := range []string{`{"code":`, `[]`, `{"code":"x"}`} {
		raw, err := net.Dial("tcp", s.Addr().String())
		require.NoError(t, err)
		frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(header)))
		frame = binary.BigEndian.AppendUint32(frame, uint32(len(header)))
		_, err = raw.Write(append(frame, header...))
		require.NoError(t, err)
		require.NoError(t, raw.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = raw.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, header)
		raw.Close()
	}
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, other, "T").Code)
}

// Oneway requests are never answered, not even with an error.
func TestOnewayIsNotAnswered(t *testing.T) {
	s := startServer(t, nil)
	c := connect(t, s, client.Options{Handler: func(_ *client.Conn, r *remoting.Command) { t.Errorf("got %d", r.Code) }})
	for _, code := range []int32{remoting.ReqRegisterBroker, remoting.ReqGetRouteinfoByTopic, remoting.ReqSendMessage} {
		require.NoError(t, c.Oneway(client.Request{Code: code}))
	}
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, c, "T").Code, "the only answer")
}

func TestFullLaneAnswersBusy(t *testing.T) {
	s := startServer(t, nil)
	s.held.Store(laneBytes)
	c := connect(t, s, client.Options{})
	r := invoke(t, c, remoting.ReqGetBrokerClusterInfo, nil, nil)
	require.Equal(t, remoting.RespSystemBusy, r.Code)
	require.Equal(t, remoting.RespTopicNotExist, askRoute(t, c, "T").Code, "look-ups go on")
	s.held.Store(0)
	require.Zero(t, invoke(t, c, remoting.ReqGetBrokerClusterInfo, nil, nil).Code)
}

// NOTIFY_MIN_BROKER_ID_CHANGE goes to the ports of the brokers.
func TestNoticeIsSent(t *testing.T) {
	s := startServer(t, func(c *config.NameServer) { c.NotifyMinBrokerIDChanged = true })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	b := slave("ba", 1, "T")
	b.addr = l.Addr().String()
	c := connect(t, s, client.Options{})
	require.Zero(t, invoke(t, c, remoting.ReqRegisterBroker, b.fields(), b.body().Encode()).Code)
	m := master("ba", "T")
	m.more["enableActingMaster"] = "true"
	require.Zero(t, invoke(t, c, remoting.ReqRegisterBroker, m.fields(), m.body().Encode()).Code)
	conn, err := l.Accept()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	var length [4]byte
	_, err = io.ReadFull(conn, length[:])
	require.NoError(t, err)
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err = io.ReadFull(conn, frame)
	require.NoError(t, err)
	var cmd remoting.Command
	require.NoError(t, cmd.Decode(frame))
	require.Equal(t, remoting.ReqNotifyMinBrokerIDChange, cmd.Code)
	require.True(t, cmd.IsOneway())
	require.Equal(t, []string{"0", "ba:0", "ha-ba:0", "ba"},
		[]string{cmd.String("minBrokerId"), cmd.String("minBrokerAddr"), cmd.String("haBrokerAddr"), cmd.String("brokerName")})
}

func TestBadConfigurationStopsTheStart(t *testing.T) {
	for want, change := range map[string]func(c *config.NameServer){
		"no certificate":          func(c *config.NameServer) { c.TLSServerMode, c.TLSTestModeEnable = "enforcing", false },
		"tls.server.keyPath":      func(c *config.NameServer) { c.TLSServerCertPath = "/nowhere" },
		"key-value configuration": func(c *config.NameServer) { c.KvConfigPath = "/dev/null/x" },
	} {
		c := config.DefaultNameServer()
		c.BindAddress, c.ListenPort, c.KvConfigPath = "127.0.0.1", 0, filepath.Join(t.TempDir(), "kv.json")
		change(c)
		_, err := New(Options{Config: config.NewLiveNameServer(c), Logger: quiet})
		require.ErrorContains(t, err, want)
	}
}
