package remoting

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStandardJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":1,"b":[true,null,-1.5e3]}`:           `{"a":1,"b":[true,null,-1.5e3]}`,
		"\n{ \"a\" :\t1 , }\r\n":                   `{"a":1}`,
		`[1,2,]`:                                   `[1,2]`,
		`{0:"x",-1:{}}`:                            `{"0":"x","-1":{}}`,
		`{name:1}`:                                 `{"name":1}`,
		`{'a':'it\'s "x"'}`:                        `{"a":"it's \"x\""}`,
		`{"a":"\x41\v"}`:                           `{"a":"\u0041\u000b"}`,
		"{\"a\":\"\x01\"}":                         `{"a":"\u0001"}`,
		`{{"queueId":0,"topic":"T"}:1}`:            `{"{\"queueId\":0,\"topic\":\"T\"}":1}`,
		`{{queueId:0,'topic':'"'}:[1,],{"q":1}:2}`: `{"{\"queueId\":0,\"topic\":\"\\\"\"}":[1],"{\"q\":1}":2}`,
		`"x"`: `"x"`,
	} {
		got, err := StandardJSON(nil, []byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, string(got), text)
		require.True(t, json.Valid(got), text)
	}
}

func TestStandardJSONRefuses(t *testing.T) {
	for rule, text := range map[string]string{
		"nothing":                     ``,
		"end inside an object":        `{"a":1`,
		"end inside a list":           `[1,`,
		"end inside a string":         `{"a":"b`,
		"end inside an escape":        `{"a":"\`,
		"end inside a hex escape":     `{"a":"\x4`,
		"no colon":                    `{"a" 1}`,
		"no comma":                    `[1 2]`,
		"only a comma":                `[,]`,
		"the wrong bracket":           `{"a":1]`,
		"a second value":              `{} {}`,
		"a list as a key":             `{[1]:2}`,
		"a key inside a key":          `{{{"a":1}:2}:3}`,
		"deeper than the limit":       strings.Repeat("[", maxBodyDepth+2) + strings.Repeat("]", maxBodyDepth+2),
		"deeper than the limit, keys": strings.Repeat(`{"a":`, 100000),
	} {
		_, err := StandardJSON(nil, []byte(text))
		var bad *JSONError
		require.ErrorAs(t, err, &bad, rule)
	}
	_, err := StandardJSON(nil, make([]byte, maxBodySize+1))
	require.ErrorContains(t, err, "more than")
	var v struct{}
	require.ErrorIs(t, DecodeBody(nil, &v), ErrEmptyBody)
	require.Error(t, DecodeBody([]byte(`{"a":1.2.3}`), &v), "numbers are judged too")
}

func FuzzStandardJSON(f *testing.F) {
	f.Add([]byte(`{"offsetTable":{{"brokerName":"ba","queueId":0,"topic":"T"}:{"brokerOffset":1}},0:[1,],'x':"\x41"}`))
	f.Add([]byte(`{"consumerTable":{"c":{{"queueId":1}:1}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		out, err := StandardJSON(nil, text)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(out), 7*len(text)+2)
		again, err := StandardJSON(nil, out)
		require.NoError(t, err)
		require.Equal(t, string(out), string(again), "what is standard stays as it is")
		if json.Valid(text) {
			require.True(t, json.Valid(out))
		}
		for _, v := range []any{&ConsumerStatusBody{}, &HeartbeatData{}, &TopicRouteData{}, &SubscriptionGroupTable{}, &ConsumeStats{}} {
			if DecodeBody(text, v) == nil {
				require.NoError(t, DecodeBody(EncodeBody(v), v))
			}
		}
	})
}
