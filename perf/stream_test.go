package perf

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

func testTemplate(t testing.TB, c Config) *remotingTemplate {
	require.NoError(t, func() error { c.Brokers = []string{"x"}; return c.settle() }())
	tpl, err := newRemotingTemplate(&c, "T", 3, filler(c.Size))
	require.NoError(t, err)
	return tpl
}

func TestTemplateIsPatchedIntoWholeRequests(t *testing.T) {
	born, uniq := [13]byte([]byte("1700000000123")), [32]byte(bytes.Repeat([]byte("7"), 32))
	s := stamp{generator: 9, stream: 8, queue: 3, sequence: 7, settled: 5, time: 1234567890123456789}
	for name, c := range map[string]Config{
		"json": {Size: 100, Tag: "A", Keys: "unique"}, "binary": {Size: 100, Serialize: remoting.SerializeRocketMQ, Tag: "A", Keys: "unique"},
	} {
		t.Run(name, func(t *testing.T) {
			tpl := testTemplate(t, c)
			frame := tpl.item.append(tpl.appendHead(nil, firstOpaque+77, &born, &uniq), &s, &uniq)
			require.Len(t, frame, tpl.size())
			var cmd remoting.Command
			require.NoError(t, cmd.Decode(frame[4:]))
			require.Equal(t, int32(firstOpaque+77), cmd.Opaque)
			require.Equal(t, remoting.ReqSendMessageV2, cmd.Code)
			var h remoting.SendHeader
			require.NoError(t, h.Decode(&cmd))
			require.Equal(t, "T", string(h.Topic))
			require.Equal(t, int32(3), h.QueueID)
			require.Equal(t, int64(1700000000123), h.BornTimestamp)
			for property, want := range map[string]string{"UNIQ_KEY": string(uniq[:]), "KEYS": string(uniq[:]), "TAGS": "A"} {
				value, _ := message.Property(h.Properties, property)
				require.Equal(t, want, string(value), property)
			}
			var back stamp
			require.Equal(t, bodyIntact, back.read(cmd.Body))
			require.Equal(t, s, back)
		})
	}
}

func TestTemplateOfABatch(t *testing.T) {
	tpl := testTemplate(t, Config{Size: 64, Batch: 3, Keys: "unique"})
	born, uniq := [13]byte([]byte("1700000000123")), [32]byte(bytes.Repeat([]byte("7"), 32))
	frame := tpl.appendHead(nil, firstOpaque, &born, &uniq)
	for i := range 3 {
		uniq[31] = '0' + byte(i)
		frame = tpl.item.append(frame, &stamp{sequence: uint64(i)}, &uniq)
	}
	var cmd remoting.Command
	require.NoError(t, cmd.Decode(frame[4:]))
	require.Equal(t, remoting.ReqSendBatchMessage, cmd.Code)
	require.True(t, cmd.Bool("m", false))
	require.Equal(t, int64(3), batchCount(true, cmd.Body))
	at := bytes.Index(cmd.Body, []byte("UNIQ_KEY\x0177777777777777777777777777777771"))
	require.Positive(t, at, "the second message has its own key")
}

func TestNamesThatLookLikePlaceholdersAreRefused(t *testing.T) {
	c := Config{Size: 64, Tag: uniqMark, Brokers: []string{"x"}}
	require.NoError(t, c.settle())
	_, err := newRemotingTemplate(&c, "T", 0, filler(64))
	require.ErrorContains(t, err, uniqMark)
}

func TestBodyTellsCorruptFromForeign(t *testing.T) {
	body := filler(80)
	s := stamp{generator: 1, stream: 2, queue: 3, sequence: 4, settled: 2, time: 5}
	s.put(body)
	var back stamp
	require.Equal(t, bodyIntact, back.read(body))
	require.Equal(t, s, back)
	for at := range body {
		broken := bytes.Clone(body)
		broken[at] ^= 0x10
		want := bodyCorrupt
		if at < 4 {
			want = bodyForeign
		}
		require.Equal(t, want, back.read(broken), at)
	}
	require.Equal(t, bodyCorrupt, back.read(body[:79]))
	require.Equal(t, bodyForeign, back.read(body[:47]))
}

// testStream is a stream over a socket that nobody reads.
func testStream(t testing.TB, c Config) *stream {
	c.Brokers = []string{"x"}
	require.NoError(t, c.settle())
	tpl, err := newRemotingTemplate(&c, "T", 0, filler(c.Size))
	require.NoError(t, err)
	m := newMeter("ack", "send lag")
	s := &sender{config: &c, clock: newClock(), generator: 5, recorder: m.recorder(), budget: -1, errors: map[int32]int64{}, until: noLimit}
	s.poller, err = newPoller()
	require.NoError(t, err)
	t.Cleanup(s.poller.close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	st := newStream(s, 0, "x", []lane{{sendQueue: &sendQueue{queue: &queue{topic: "T"}, template: tpl}, floor: -1}}, new(remotingSend))
	st.sock, err = s.poller.add(conn, st)
	require.NoError(t, err)
	s.streams = []*stream{st}
	return st
}

// answerTo appends the answer to the request in frame.
func answerTo(dst, frame []byte, cmd *remoting.Command, offset int64) []byte {
	if err := cmd.Decode(frame); err != nil {
		panic(err)
	}
	w := remoting.Respond(dst, cmd, remoting.RespSuccess, "")
	w.Bytes("msgId", stubMessageID)
	w.Int("queueId", 0)
	w.Int("queueOffset", offset)
	return w.Finish(nil)
}

func TestEncodeAndAnswerTakeNoMemory(t *testing.T) {
	for name, c := range map[string]Config{
		"json": {Size: 128}, "binary": {Size: 128, Serialize: remoting.SerializeRocketMQ}, "batch": {Size: 64, Batch: 4},
	} {
		t.Run(name, func(t *testing.T) {
			st := testStream(t, c)
			var request remoting.Command
			out := make([]byte, 0, 4096)
			now := int64(0)
			work := func() {
				now += 1000
				st.sender.stampBorn(now)
				st.encode(now, now)
				out = answerTo(out[:0], st.out[4:], &request, st.lanes[0].floor+1)
				if size, err := st.wire.next(out, &st.answered); size != len(out) || err != nil {
					panic("answer")
				}
				st.answer(&st.answered, now+500)
				st.out, st.sent = st.out[:0], 0
				st.dirty, st.sender.dirty = false, st.sender.dirty[:0]
			}
			for range 10 {
				work()
			}
			require.Zero(t, testing.AllocsPerRun(1000, work))
			require.Positive(t, st.sender.total)
			require.Zero(t, st.inFlight)
			require.Equal(t, st.lanes[0].next, st.lanes[0].settled)
			require.Zero(t, st.sender.repeats+st.sender.unsorted+st.sender.askew)
		})
	}
}

func TestRecordCheckTakesNoMemory(t *testing.T) {
	b := newFakeBroker(t)
	q := b.queue("T", 0)
	body := filler(128)
	for i := range 32 {
		(&stamp{generator: 1, sequence: uint64(i)}).put(body)
		q.put(&remoting.SendHeader{Topic: []byte("T")}, body)
	}
	answer := bytes.Join(q.records, nil)
	p := &puller{config: &Config{}, clock: newClock(), recorder: newMeter("x").recorder()}
	wire := &remotingPull{config: p.config}
	pq := &pullQueue{queueCheck: newQueueCheck(&queue{topic: "T"}, 0)}
	pq.limit.Store(noLimit)
	p.records(wire, pq, answer, 1)
	require.Equal(t, findings{Received: 32}, pq.found)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		pq.expect, pq.last = 0, nil
		*pq.lanes[laneKey{generator: 1}] = laneCheck{seen: bitset{pages: pq.lanes[laneKey{generator: 1}].seen.pages}}
		clear(pq.lanes[laneKey{generator: 1}].seen.pages[0][:])
		p.records(wire, pq, answer, 1)
	}))
	require.Zero(t, pq.found.Duplicated+pq.found.OffsetBack)
}

func TestLateAndStrangeAnswersAreDropped(t *testing.T) {
	st := testStream(t, Config{Size: 64})
	var request remoting.Command
	st.encode(0, 0)
	var answer sendAnswer
	size, err := st.wire.next(answerTo(nil, st.out[4:], &request, 0), &answer)
	require.NoError(t, err)
	require.Positive(t, size)
	st.expire(int64(st.sender.config.Timeout) + 1)
	require.Zero(t, st.inFlight)
	st.answer(&answer, 1)
	require.Zero(t, st.sender.total, "its time-out had come first")
	require.Equal(t, int64(1), st.sender.unknowns)
	answer.opaque = 5
	st.answer(&answer, 1)
	answer.outcome = outcomeNone
	st.answer(&answer, 1)
	require.Zero(t, st.sender.total)
}

func TestUnreadableAnswerIsAnError(t *testing.T) {
	st := testStream(t, Config{Size: 64})
	st.encode(0, 0)
	var request remoting.Command
	require.NoError(t, request.Decode(st.out[4:]))
	w := remoting.Respond(nil, &request, remoting.RespSuccess, "")
	w.Text("queueOffset", "many")
	_, err := st.wire.next(w.Finish(nil), &st.answered)
	require.NoError(t, err)
	st.answer(&st.answered, 1)
	require.Equal(t, map[int32]int64{codeUnreadable: 1}, st.sender.errors)
	require.Zero(t, st.sender.total)
}

func BenchmarkEncodeAndAnswer(b *testing.B) {
	for name, c := range map[string]Config{"json": {Size: 1024}, "rocketmq": {Size: 1024, Serialize: remoting.SerializeRocketMQ}} {
		b.Run(name, func(b *testing.B) {
			st := testStream(b, c)
			st.encode(0, 0)
			var request remoting.Command
			out := answerTo(nil, st.out[4:], &request, 0)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := st.wire.next(out, &st.answered); err != nil {
					b.Fatal("answer")
				}
				st.answered.opaque = firstOpaque + (st.head-1)%opaqueCount
				st.answer(&st.answered, 1)
				st.out, st.sent = st.out[:0], 0
				st.encode(0, 0)
				st.dirty, st.sender.dirty = false, st.sender.dirty[:0]
			}
		})
	}
}
