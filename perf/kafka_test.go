package perf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// readBatches reads all records, as a puller does.
func readBatches(t *testing.T, b []byte) (offsets []int64, bodies []string) {
	var w kafkaBatches
	var m received
	for len(b) > 0 {
		var err error
		b, err = w.next(b, &m)
		require.NoError(t, err)
		if m.offset >= 0 {
			offsets, bodies = append(offsets, m.offset), append(bodies, string(m.body))
		}
	}
	return offsets, bodies
}

func TestKafkaBatchesAreReadAsTheyWereWritten(t *testing.T) {
	first, _ := kafkaBatch([]byte("one"), 3)
	second, bodies := kafkaBatch(filler(200), 70) // more than 64: a delta of two bytes
	binary.BigEndian.PutUint64(first, 10)
	binary.BigEndian.PutUint64(second, 13)
	copy(second[bodies[69]:], "the last")
	stampBatch(second, 1700000000123)
	both := append(bytes.Clone(first), second...)
	offsets, texts := readBatches(t, both)
	require.Len(t, offsets, 73)
	require.Equal(t, []int64{10, 11, 12, 13}, offsets[:4])
	require.Equal(t, int64(82), offsets[72])
	require.Equal(t, []string{"one", "one", "one"}, texts[:3])
	require.Equal(t, "the last", texts[72][:8])
	for cut := range len(second) {
		offsets, _ = readBatches(t, both[:len(first)+cut])
		require.Len(t, offsets, 3, "a batch that is cut off at %d is passed over", cut)
	}
}

func TestKafkaBatchesThatAreNotOurs(t *testing.T) {
	batch, _ := kafkaBatch([]byte("one"), 1)
	control := bytes.Clone(batch)
	control[batchAttributesAt+1] = batchControl
	offsets, _ := readBatches(t, append(control, batch...))
	require.Equal(t, []int64{0}, offsets, "a control batch has no messages")
	for name, spoil := range map[string]func(b []byte){
		"old format":  func(b []byte) { b[batchMagicAt] = 1 },
		"compressed":  func(b []byte) { b[batchAttributesAt+1] = 1 },
		"too short":   func(b []byte) { binary.BigEndian.PutUint32(b[batchLengthAt:], 3) },
		"body beyond": func(b []byte) { b[batchHeadSize+5] = 0x7e },
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(batch)
			spoil(b)
			var w kafkaBatches
			var m received
			var err error
			for len(b) > 0 && err == nil {
				b, err = w.next(b, &m)
			}
			require.Error(t, err)
		})
	}
}

// fakeKafka stores records in memory.
type fakeKafka struct {
	t    *testing.T
	addr string
	mu   sync.Mutex
	// partitions by topic and number: record batches, one behind the other, with their base offsets.
	partitions map[string]*fakePartition
	refuse     int16 // error that produce answers
	shy        int   // how often metadata still say that nobody leads
}

type fakePartition struct {
	batches [][]byte
	end     int64
}

func newFakeKafka(t *testing.T) *fakeKafka {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	s := &fakeKafka{t: t, addr: listener.Addr().String(), partitions: map[string]*fakePartition{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *fakeKafka) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		r := &kafkaReader{b: frame}
		key, version, correlation := r.int16(), r.int16(), r.int32()
		r.string()
		answer := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(correlation))
		answer = append(answer, s.answer(key, version, r)...)
		if _, err := conn.Write(kafkaFinish(answer, 0)); err != nil {
			return
		}
	}
}

func (s *fakeKafka) partition(topic []byte, id int32) *fakePartition {
	name := fmt.Sprintf("%s/%d", topic, id)
	if s.partitions[name] == nil {
		s.partitions[name] = &fakePartition{}
	}
	return s.partitions[name]
}

func (s *fakeKafka) answer(key, version int16, r *kafkaReader) []byte {
	be := binary.BigEndian
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	switch key {
	case kafkaCreateTopics:
		require.Equal(s.t, int16(kafkaCreateTopicsVersion), version)
		r.only()
		b = be.AppendUint32(be.AppendUint32(nil, 0), 1)
		b = kafkaString(b, string(r.string()))
		b = be.AppendUint16(b, kafkaExists)
		b = be.AppendUint16(b, ^uint16(0))
	case kafkaMetadata:
		r.only()
		topic := string(r.string())
		b = be.AppendUint32(be.AppendUint32(nil, 0), 1) // one broker
		b = be.AppendUint32(b, 1)
		b = be.AppendUint32(kafkaString(b, "127.0.0.1"), 1)
		b = be.AppendUint16(b, ^uint16(0)) // rack
		b = kafkaString(b, "cluster")
		b = be.AppendUint32(b, 1)
		b = be.AppendUint32(b, 1) // one topic
		b = be.AppendUint16(b, 0)
		b = append(kafkaString(b, topic), 0)
		leader := uint32(1)
		if s.shy > 0 {
			s.shy--
			leader = ^uint32(0)
		}
		b = be.AppendUint32(b, 2)
		for id := range uint32(2) {
			b = be.AppendUint32(be.AppendUint32(be.AppendUint16(b, 0), id), leader)
			for range 2 {
				b = be.AppendUint32(be.AppendUint32(b, 1), 1)
			}
		}
	case kafkaListOffsets:
		r.int32()
		r.only()
		topic := r.string()
		n := r.count()
		b = be.AppendUint32(kafkaString(be.AppendUint32(nil, 1), string(topic)), uint32(n))
		for range n {
			id, which := r.int32(), r.int64()
			offset := uint64(0)
			if which == kafkaLatest {
				offset = uint64(s.partition(topic, id).end)
			}
			b = be.AppendUint64(be.AppendUint64(be.AppendUint16(be.AppendUint32(b, uint32(id)), 0), 0), offset)
		}
	case kafkaProduce:
		b = s.produce(r)
	case kafkaFetch:
		b = s.fetch(r)
	}
	require.NoError(s.t, r.err)
	return b
}

func (s *fakeKafka) produce(r *kafkaReader) []byte {
	be := binary.BigEndian
	r.string()
	r.int16()
	r.int32()
	r.only()
	topic := r.string()
	r.only()
	id := r.int32()
	batch := bytes.Clone(r.bytes())
	sum := be.Uint32(batch[batchCRCAt:])
	stampBatch(batch, int64(be.Uint64(batch[batchTimesAt:])))
	require.Equal(s.t, be.Uint32(batch[batchCRCAt:]), sum, "the checksum that we sent")
	p := s.partition(topic, id)
	base := p.end
	if s.refuse == 0 {
		be.PutUint64(batch, uint64(base))
		p.end += int64(be.Uint32(batch[batchCountAt:]))
		p.batches = append(p.batches, batch)
	}
	b := be.AppendUint32(kafkaString(be.AppendUint32(nil, 1), string(topic)), 1)
	b = be.AppendUint16(be.AppendUint32(b, uint32(id)), uint16(s.refuse))
	return be.AppendUint32(be.AppendUint64(be.AppendUint64(b, uint64(base)), 0), 0)
}

// fetch answers at once, and gives whole batches, the first of which may begin before what was asked for.
func (s *fakeKafka) fetch(r *kafkaReader) []byte {
	be := binary.BigEndian
	r.take(4 + 4 + 4 + 4 + 1)
	r.only()
	topic := r.string()
	r.only()
	id, from, most := r.int32(), r.int64(), int(r.int32())
	p := s.partition(topic, id)
	var records []byte
	for _, batch := range p.batches {
		last := int64(be.Uint64(batch)) + int64(be.Uint32(batch[batchLastAt:]))
		if last >= from && (len(records) == 0 || len(records)+len(batch) <= most) {
			records = append(records, batch...)
		} else if last >= from {
			records = append(records, batch[:len(batch)/2]...) // Kafka cuts where the limit is
			break
		}
	}
	b := be.AppendUint32(kafkaString(be.AppendUint32(be.AppendUint32(nil, 0), 1), string(topic)), 1)
	b = be.AppendUint16(be.AppendUint32(b, uint32(id)), 0)
	b = be.AppendUint64(be.AppendUint64(b, uint64(p.end)), uint64(p.end))
	b = be.AppendUint32(b, 0)
	return append(be.AppendUint32(b, uint32(len(records))), records...)
}

func TestEndToEndOverKafka(t *testing.T) {
	for name, batch := range map[string]int{"single messages": 1, "batches": 8} {
		t.Run(name, func(t *testing.T) {
			s := newFakeKafka(t)
			s.shy = 2
			c := Config{
				Protocol: "kafka", Brokers: []string{s.addr}, Count: 320, Size: 64, Queues: 2, Conns: 2, Depth: 4, Batch: batch,
				PullConns: 2, PullBytes: 2000, Idle: time.Second,
			}
			report, err := EndToEnd(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, int64(320), report.Verified.Received)
			c.Passes, c.Count = 3, 0
			report, err = Drain(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, int64(960), report.Verified.Received)
			require.Positive(t, report.RecordMBPerSecond)
			c.Passes, c.From = 1, "3" // in the middle of a batch
			report, err = Drain(t.Context(), c)
			require.NoError(t, err)
			require.NoError(t, report.Err(), report.Verified.Problems)
			require.Equal(t, int64(314), report.Verified.Received)
		})
	}
}

func TestKafkaRefusals(t *testing.T) {
	s := newFakeKafka(t)
	require.NoError(t, Ping(t.Context(), Config{Protocol: "kafka", Brokers: []string{s.addr}}))
	s.refuse = 10
	c := Config{Protocol: "kafka", Brokers: []string{s.addr}, Count: 4, Queues: 2}
	report, err := Produce(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"10": 4}, report.Errors)
	require.ErrorContains(t, Ping(t.Context(), c), "message too large")
	c.Tag = "a"
	_, err = Produce(t.Context(), c)
	require.ErrorContains(t, err, "tags")
}

func TestForeignEncodeAndAnswerTakeNoMemory(t *testing.T) {
	answers := map[string]func(opaque uint32, offset int64) []byte{
		"kafka": func(opaque uint32, offset int64) []byte {
			be := binary.BigEndian
			b := be.AppendUint32(make([]byte, 4), opaque)
			b = be.AppendUint32(kafkaString(be.AppendUint32(b, 1), "T"), 1)
			b = be.AppendUint64(be.AppendUint16(be.AppendUint32(b, 0), 0), uint64(offset))
			return kafkaFinish(be.AppendUint32(be.AppendUint64(b, 0), 0), 0)
		},
		"nats": func(opaque uint32, offset int64) []byte {
			return fmt.Appendf(nil, "MSG _INBOX.x.00000.%010d 1 30\r\n{\"stream\":\"T\", \"seq\":%08d}\r\n", opaque, offset+1)
		},
	}
	for protocol, answer := range answers {
		t.Run(protocol, func(t *testing.T) {
			st := testStream(t, Config{Size: 128})
			w, err := newWire(&Config{Protocol: protocol})
			require.NoError(t, err)
			q := st.lanes[0].queue
			if st.lanes[0].template, err = w.template(st.sender.config, q, filler(128)); err != nil {
				t.Fatal(err)
			}
			st.wire = w.sending(st.sender.config, 0)
			const most = 300
			frames := make([][]byte, most)
			for i := range frames {
				frames[i] = answer(firstOpaque+uint32(i), int64(i))
			}
			n := 0
			work := func() {
				st.encode(1, 1)
				if size, err := st.wire.next(frames[n], &st.answered); size == 0 || err != nil {
					panic("answer")
				}
				n++
				st.answer(&st.answered, 2)
				st.out, st.sent = st.out[:0], 0
				st.dirty, st.sender.dirty = false, st.sender.dirty[:0]
			}
			for range 10 {
				work()
			}
			require.Zero(t, testing.AllocsPerRun(200, work))
			require.Equal(t, int64(n), st.sender.total)
			require.Zero(t, st.sender.repeats+st.sender.unsorted+st.sender.askew)
		})
	}
}
