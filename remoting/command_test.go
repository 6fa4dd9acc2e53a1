package remoting

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func frameOf(t testing.TB, b []byte) []byte {
	t.Helper()
	require.GreaterOrEqual(t, len(b), 8)
	require.Equal(t, len(b)-4, int(uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3])), "length field")
	return b[4:]
}

func jsonFrame(header string, body []byte) []byte {
	n := len(header)
	f := append([]byte{SerializeJSON, byte(n >> 16), byte(n >> 8), byte(n)}, header...)
	return append(f, body...)
}

func TestRoundTripBothSerializations(t *testing.T) {
	for _, ser := range []byte{SerializeJSON, SerializeRocketMQ} {
		w := Request(nil, ser, ReqSendMessageV2, -7, FlagOneway)
		w.Text("a", "group")
		w.Bytes("i", []byte("KEYS\x01k\"1\\\x02UNIQ_KEY\x01ü€😀\x02"))
		w.Int("g", 1700000000000)
		w.Bool("m", true)
		var c Command
		require.NoError(t, c.Decode(frameOf(t, w.Finish([]byte("body")))))
		require.Equal(t, ReqSendMessageV2, c.Code)
		require.Equal(t, int32(-7), c.Opaque)
		require.True(t, c.IsOneway())
		require.False(t, c.IsResponse())
		require.Equal(t, int32(Version), c.Version)
		require.Equal(t, LanguageGo, c.Language)
		require.Equal(t, "body", string(c.Body))
		require.Equal(t, "KEYS\x01k\"1\\\x02UNIQ_KEY\x01ü€😀\x02", c.String("i"))
		require.Equal(t, "1700000000000", c.String("g"))
		require.True(t, c.Bool("m", false))
		n, err := c.Int("g", 0)
		require.NoError(t, err)
		require.Equal(t, int64(1700000000000), n)

		r := Respond(nil, &c, RespSystemError, "no \"such\" thing")
		var back Command
		require.NoError(t, back.Decode(frameOf(t, r.Finish(nil))))
		require.True(t, back.IsResponse())
		require.Equal(t, ser, back.Serialize)
		require.Equal(t, int32(-7), back.Opaque)
		require.Equal(t, `no "such" thing`, string(back.Remark))
		require.Empty(t, back.Fields)
	}
}

func TestJSONHeaderIsRealJSON(t *testing.T) {
	w := Request(nil, SerializeJSON, 10, 3, 0)
	w.Bytes("p", []byte("a\x01b\x02\xff\x80z"))
	b := frameOf(t, w.Finish(nil))
	var m map[string]any
	require.NoError(t, json.Unmarshal(b[4:], &m))
	require.Equal(t, "a\x01b\x02\uFFFD\uFFFDz", m["extFields"].(map[string]any)["p"])
}

func TestDecodeTolerates(t *testing.T) {
	cases := []struct{ name, header, key, want string }{
		{"unknown members", `{"code":1,"x":{"y":[1,{"z":null}]},"extFields":{"k":"v"}}`, "k", "v"},
		{"numbers and bools as values", `{"extFields":{"k":12.5,"b":true}}`, "k", "12.5"},
		{"null fields are absent", `{"extFields":{"k":null}}`, "k", ""},
		{"null extFields", `{"extFields":null,"remark":null}`, "k", ""},
		{"blanks", " {\n \"extFields\" : { \"k\" : \"v\" } } ", "k", "v"},
		{"escapes", `{"extFields":{"k":"A\u0001\ud83d\ude00\/\n"}}`, "k", "A\x01😀/\n"},
		{"last wins", `{"extFields":{"k":"1","k":"2"}}`, "k", "2"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var c Command
			require.NoError(t, c.Decode(jsonFrame(tc.header, nil)))
			require.Equal(t, tc.want, c.String(tc.key))
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	many := `{"extFields":{` + strings.Repeat(`"k":"v",`, 300) + `"k":"v"}}`
	for _, header := range []string{"", "x", "{", `{"code"`, `{"code":}`, `{"code":"x"}`, `{"code":99999999999}`, `{"a":"`, `{"a":"\u12`,
		`{"a":"\q"}`, `[1]`, `{"x":` + deep + `}`, many} {
		var c Command
		require.Error(t, c.Decode(jsonFrame(header, nil)), "%.40s", header)
	}
	for _, frame := range [][]byte{nil, {0}, {0, 0, 0, 9}, {7, 0, 0, 0}, {1, 0, 0, 2, 0, 0},
		append([]byte{1, 0, 0, 21}, bytes.Repeat([]byte{0xff}, 21)...)} {
		var c Command
		require.Error(t, c.Decode(frame))
	}
}

func TestBinaryGivesPopCodesTheirBitsBack(t *testing.T) {
	for _, code := range []int32{ReqPopMessage, ReqBatchAckMessage, ReqSendMessageV2, ReqPullMessage} {
		w := Request(nil, SerializeRocketMQ, code, 1, 0)
		var c Command
		require.NoError(t, c.Decode(frameOf(t, w.Finish(nil))))
		require.Equal(t, code, c.Code, RequestName(code))
	}
}

func TestParseInt(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "-1": -1, "+5": 5, "9223372036854775807": 1<<63 - 1, "-9223372036854775808": -1 << 63} {
		n, ok := ParseInt([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want, n)
	}
	for _, text := range []string{"", "-", "1.5", "9223372036854775808", "-9223372036854775809", "12a", " 1", "99999999999999999999"} {
		_, ok := ParseInt([]byte(text))
		require.False(t, ok, text)
	}
}

func sendFrame(ser byte, bodySize int) []byte {
	w := Request(nil, ser, ReqSendMessageV2, 42, 0)
	for _, f := range [][2]string{{"a", "PG"}, {"b", "TopicTest"}, {"c", "TBW102"}, {"d", "4"}, {"e", "2"}, {"f", "0"}, {"g", "1700000000000"},
		{"h", "0"}, {"i", "UNIQ_KEY\x017F0000010A2B18B4AAC2000000010000\x02WAIT\x01true\x02TAGS\x01TagA\x02"}, {"j", "0"}, {"k", "false"},
		{"m", "false"}, {"n", "broker-a"}} {
		w.Text(f[0], f[1])
	}
	return w.Finish(make([]byte, bodySize))[4:]
}

func TestHotPathTakesNoMemory(t *testing.T) {
	for _, ser := range []byte{SerializeJSON, SerializeRocketMQ} {
		frame := sendFrame(ser, 128)
		var c Command
		var h SendHeader
		out := make([]byte, 0, 4096)
		work := func() {
			if c.Decode(frame) != nil || h.Decode(&c) != nil {
				panic("decode")
			}
			w := Respond(out[:0], &c, RespSuccess, "")
			w.Int("queueOffset", 12345)
			w.Int("queueId", int64(h.QueueID))
			out = w.Finish(nil)
		}
		work()
		require.Zero(t, testing.AllocsPerRun(100, work))
		require.Equal(t, "TopicTest", string(h.Topic))
		require.Equal(t, int32(2), h.QueueID)
	}
}

func TestSendHeaderNamesWhatIsMissing(t *testing.T) {
	w := Request(nil, SerializeJSON, ReqSendMessageV2, 1, 0)
	w.Text("a", "g")
	var c Command
	require.NoError(t, c.Decode(w.Finish(nil)[4:]))
	var h SendHeader
	err := h.Decode(&c)
	require.True(t, IsFieldError(err))
	require.ErrorContains(t, err, "<topic> is null")
	w = Request(nil, SerializeJSON, ReqSendMessageV2, 1, 0)
	w.Text("e", "four")
	require.NoError(t, c.Decode(w.Finish(nil)[4:]))
	require.ErrorContains(t, h.Decode(&c), `<e> is not valid: "four"`)
}

// What SendResponse writes by itself is what Writer writes.
func TestSendResponse(t *testing.T) {
	rest := EncodeFields(func(w *Writer) {
		w.Text("MSG_REGION", "Default\"Region")
		w.Bool("TRACE_ON", true)
	})
	for _, serialize := range []byte{SerializeJSON, SerializeRocketMQ} {
		for _, key := range []string{"", "7F0000010A2B18B4AAC2000000010000", "ü\x01\"\xff"} {
			for _, n := range []int64{0, -1, 9, 12345678901} {
				request := Command{Serialize: serialize, Opaque: int32(n)}
				w := Respond([]byte("before"), &request, RespSuccess, "")
				w.Bytes("msgId", []byte("7F00000100002A9F,7F00000100002AA0"))
				w.Int("queueId", int64(int32(n)))
				w.Int("queueOffset", n)
				if key != "" {
					w.Text("transactionId", key)
				}
				w.Text("MSG_REGION", "Default\"Region")
				w.Bool("TRACE_ON", true)
				want := w.Finish(nil)
				r := SendResponse{MsgID: []byte("7F00000100002A9F,7F00000100002AA0"), QueueID: int32(n), QueueOffset: n, TransactionID: []byte(key), Rest: &rest}
				require.Equal(t, string(want), string(r.Append([]byte("before"), serialize, int32(n))))
				w = RespondTo([]byte("before"), serialize, RespSuccess, int32(n), "")
				r.WriteTo(&w)
				require.Equal(t, string(want), string(w.Finish(nil)))
			}
		}
	}
}

func BenchmarkDecodeSend(b *testing.B) {
	for name, ser := range map[string]byte{"json": SerializeJSON, "rocketmq": SerializeRocketMQ} {
		b.Run(name, func(b *testing.B) {
			frame := sendFrame(ser, 1024)
			var c Command
			var h SendHeader
			b.ReportAllocs()
			for b.Loop() {
				_ = c.Decode(frame)
				_ = h.Decode(&c)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sendFrame(SerializeJSON, 10))
	f.Add(sendFrame(SerializeRocketMQ, 10))
	f.Add(jsonFrame(`{"code":1,"extFields":{"a":"\u0001\ud83d"}}`, []byte("x")))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var c Command
		if c.Decode(frame) != nil || len(c.Fields) == maxFields { // the remark is written as one field more
			return
		}
		// What can be read can be written and read again with the same meaning (keys that need escapes are never written by us).
		for _, ser := range []byte{SerializeJSON, SerializeRocketMQ} {
			w := Request(nil, ser, c.Code&0x7FFF, c.Opaque, c.Flag)
			w.Bytes("remark", c.Remark)
			for i := range c.Fields {
				w.Bytes("k", c.Fields[i].Value)
			}
			var back Command
			require.NoError(t, back.Decode(w.Finish(c.Body)[4:]))
			code := c.Code & 0x7FFF
			if ser == SerializeRocketMQ {
				code = widenCode(uint16(code)) // what POP's codes are cut to by 16 bits means them
			}
			require.Equal(t, code, back.Code)
			require.Equal(t, c.Opaque, back.Opaque)
			require.Equal(t, c.Flag, back.Flag)
			require.Equal(t, string(c.Body), string(back.Body))
			require.Len(t, back.Fields, len(c.Fields)+1)
			same(t, ser, c.Remark, back.Fields[0].Value)
			for i := range c.Fields {
				same(t, ser, c.Fields[i].Value, back.Fields[i+1].Value)
			}
		}
	})
}

// same compares a text with what came back; where it is no UTF-8, JSON has the replacement character for each byte that fits nowhere.
func same(t *testing.T, ser byte, want, got []byte) {
	t.Helper()
	if ser == SerializeJSON {
		want = []byte(string([]rune(string(want))))
	}
	require.Equal(t, string(want), string(got))
}
