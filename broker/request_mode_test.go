package broker

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

func TestRequestModes(t *testing.T) {
	b := openTestBroker(t, brokerOptions{})
	c := b.client()
	c.createTopic("T")
	c.createGroup("g", nil)
	mode := func(topic, group, mode string) []byte {
		return remoting.EncodeBody(remoting.SetRequestModeBody{Topic: topic, ConsumerGroup: group, Mode: mode})
	}
	for rule, tc := range map[string]struct {
		body []byte
		code int32
	}{
		"an unknown topic":           {mode("none", "g", "PULL"), remoting.RespTopicNotExist},
		"an unknown group":           {mode("T", "none", "PULL"), remoting.RespSubscriptionGroupNotExist},
		"a retry topic":              {mode("%RETRY%g", "g", "PULL"), remoting.RespNoPermission},
		"POP, which nobody answers":  {mode("T", "g", "POP"), remoting.RespSystemError},
		"a mode that nobody knows":   {mode("T", "g", "PUSH"), remoting.RespInvalidParameter},
		"a body that is cut":         {[]byte(`{"topic":`), remoting.RespSystemError},
		"a request without any body": {nil, remoting.RespSystemError},
	} {
		require.Equal(t, tc.code, c.ask(remoting.ReqSetMessageRequestMode, nil, tc.body).Code, rule)
	}
	all := func(c *testClient) map[string]map[string]remoting.SetRequestModeBody {
		return decoded[remoting.RequestModeTable](t, c.ask(remoting.ReqGetAllMessageRequestMode, nil, nil)).MessageRequestModeMap
	}
	require.Empty(t, all(c))
	c.must(remoting.ReqSetMessageRequestMode, nil, mode("T", "g", "PULL"))
	want := map[string]map[string]remoting.SetRequestModeBody{"T": {"g": {Topic: "T", ConsumerGroup: "g", Mode: "PULL"}}}
	require.Equal(t, want, all(c))
	b.shutdown()

	b = newTestBroker(t, brokerOptions{Dir: b.dir})
	c = b.client()
	require.Equal(t, want, all(c), "after a restart")
	c.must(remoting.ReqDeleteTopicInBroker, fields{"topic": "T"}, nil)
	require.Empty(t, all(c))
}

func TestRequestModesAreBounded(t *testing.T) {
	b := newTestBroker(t, brokerOptions{})
	b.modes.pairs = maxRequestModes
	_, err := b.modes.set(remoting.SetRequestModeBody{Topic: "T", ConsumerGroup: "g"})
	require.ErrorContains(t, err, "no more can have one")
	b.modes.pairs = 0
}
