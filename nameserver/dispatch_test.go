package nameserver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/remoting"
)

// unsupportedCodes are the requests that a name server does not answer: those of brokers and controllers, and what clients and the
// name server itself receive. A code is here or in endpoints.
var unsupportedCodes = []int32{
	10, 11, 12, 13, 14, 15, 17, 18, 21, 22, 23, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 45, 46, 47, 60, 61,
	200, 201, 202, 203, 204, 207, 208, 209, 210, 211, 212, 213, 214, 215, 220, 221, 222, 223, 225,
	300, 301, 302, 303, 305, 306, 307, 308, 309, 310, 314, 315, 316, 317, 320, 321, 323, 324, 325, 326, 328, 329, 343, 345, 351, 352, 353, 354,
	355, 361, 370, 400, 401, 402, 513, 902, 903, 905, 906, 907, 908,
	1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018, 2001, 2002, 2003, 2004,
	3001, 3002, 3003, 3004, 3005, 3006, 3007, 3008, 3009, 3010, 5001,
	200050, 200051, 200052, 200053, 200054, 200055, 200056, 200070, 200071, 200072, 200073, 200074, 200075, 200076, 200077, 200078, 200079, 200151,
}

func TestEveryRequestCodeIsDecided(t *testing.T) {
	var decided []int32
	for code, e := range endpoints {
		decided = append(decided, code)
		require.NotNil(t, e.handle, remoting.RequestName(code))
		require.NotEmpty(t, e.resource, remoting.RequestName(code))
		require.NotEmpty(t, e.actions, remoting.RequestName(code))
	}
	require.ElementsMatch(t, remoting.RequestCodes(), append(decided, unsupportedCodes...))
	require.Len(t, endpoints, 23)
}

func TestUnsupportedCodes(t *testing.T) {
	tb := newTestTables(t, nil)
	for _, code := range append(unsupportedCodes, -1, 0, 9, 99999) {
		a := tb.ask(code, nil, nil)
		require.Equal(t, remoting.RespRequestCodeNotSupported, a.code)
		require.Regexp(t, ` request type -?\d+ not supported`, a.remark)
	}
}

// No request, whatever it lacks, is answered with success by accident or stops the server.
func TestRequestsWithoutFieldsAreErrors(t *testing.T) {
	tb := newTestTables(t, nil)
	mayBeEmpty := map[int32]bool{106: true, 206: true, 304: true, 311: true, 312: true, 313: true, 318: true, 319: true}
	for code := range endpoints {
		a := tb.ask(code, nil, nil)
		if !mayBeEmpty[code] {
			require.Equal(t, remoting.RespSystemError, a.code, remoting.RequestName(code))
			require.Contains(t, a.remark, "is null", remoting.RequestName(code))
		}
	}
}

func TestAnswersThatFitInNoFrame(t *testing.T) {
	cmd := remoting.Command{Opaque: 3}
	a := reply{body: make([]byte, maxBody+1)}
	frame := a.appendTo(nil, &cmd)
	require.Less(t, len(frame), 1024)
	var answer remoting.Command
	require.NoError(t, answer.Decode(frame[4:]))
	require.Equal(t, remoting.RespSystemError, answer.Code)
	require.Contains(t, string(answer.Remark), "16 MiB")
}

// Whatever a stranger sends: an answer or a header error, and tables that hold together.
func FuzzRequests(f *testing.F) {
	for code := range endpoints {
		w := remoting.Request(nil, remoting.SerializeJSON, code, 1, 0)
		for k, v := range master("ba").fields() {
			w.Text(k, v)
		}
		for _, k := range []string{"topic", "cluster", "namespace", "key", "value"} {
			w.Text(k, "T")
		}
		f.Add(w.Finish(master("ba", "T").body().Encode())[4:])
	}
	tb := newTestTables(&testing.T{}, nil)
	f.Fuzz(func(t *testing.T, frame []byte) {
		var cmd remoting.Command
		if cmd.Decode(frame) != nil {
			return
		}
		if cmd.Code == remoting.ReqUpdateNamesrvConfig {
			return // held by the tests of config
		}
		a := tb.handleRequest(&request{&cmd, testPeer})
		var answer remoting.Command
		if err := answer.Decode(a.appendTo(nil, &cmd)[4:]); err != nil {
			t.Fatal(err)
		}
		rows := 0
		for _, row := range tb.routes.topics {
			rows += len(row.queues)
		}
		if rows != tb.routes.rows || len(tb.routes.live) < len(tb.routes.byPeer) {
			t.Fatalf("%d rows, counted as %d", rows, tb.routes.rows)
		}
	})
}
