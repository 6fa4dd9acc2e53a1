package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// kafkaWire speaks Kafka's protocol with one broker that leads all partitions. A queue is a partition. Each request is for one
// partition; a request of several messages is one record batch. A broker handles the requests of a connection one by one and holds
// back all of them while a fetch waits, so that every queue that is read wants a connection of its own: --pull-conns.
type kafkaWire struct {
	target
	conn        net.Conn // for everything that is no load
	correlation int32
}

const (
	kafkaTimeout    = 30 * time.Second
	kafkaLatest     = -1
	kafkaEarliest   = -2
	kafkaMaxWait    = 500 // ms that a fetch waits for messages, as Kafka's own consumers ask for
	kafkaExists     = 36  // TOPIC_ALREADY_EXISTS
	kafkaLeaderPoll = 20 * time.Millisecond
)

// kafkaErrors names the errors that a run is likely to meet.
var kafkaErrors = map[int16]string{
	1: "offset out of range", 3: "unknown topic or partition", 5: "leader not available", 6: "not leader", 7: "request timed out",
	10: "message too large", 17: "invalid topic", 36: "topic exists", 37: "invalid partitions", 56: "storage error", 87: "invalid record",
}

func kafkaError(code int16) error {
	if code == 0 {
		return nil
	}
	if name := kafkaErrors[code]; name != "" {
		return fmt.Errorf("kafka: error %d, %s", code, name)
	}
	return fmt.Errorf("kafka: error %d", code)
}

func (w *kafkaWire) find(ctx context.Context, c *Config) (*target, error) {
	if len(c.Brokers) != 1 {
		return nil, errors.New("kafka: name one broker with --broker")
	}
	if c.Tag != "" || c.Keys != "" {
		return nil, errors.New("kafka: tags and keys are not supported")
	}
	w.brokers = c.Brokers
	var d net.Dialer
	var err error
	if w.conn, err = d.DialContext(ctx, "tcp", c.Brokers[0]); err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	if !c.UseExisting {
		if err := w.create(ctx, c); err != nil {
			return nil, err
		}
	}
	for _, topic := range c.topicNames() {
		queues := make([]*queue, c.Queues)
		for id := range queues {
			queues[id] = &queue{addr: c.Brokers[0], topic: topic, id: id}
		}
		if err := w.await(ctx, topic, queues); err != nil {
			return nil, err
		}
		w.queues = append(w.queues, queues...)
	}
	return &w.target, nil
}

func (w *kafkaWire) close() {
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// call makes one request and reads its answer.
func (w *kafkaWire) call(ctx context.Context, key, version int16, body []byte) (*kafkaReader, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(kafkaTimeout)
	}
	if err := w.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	w.correlation++
	request := kafkaFinish(append(kafkaRequest(nil, key, version, w.correlation), body...), 0)
	if _, err := w.conn.Write(request); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	var length [4]byte
	if _, err := io.ReadFull(w.conn, length[:]); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size < 4 || size > maxFrame {
		return nil, fmt.Errorf("kafka: an answer of %d bytes", size)
	}
	answer := make([]byte, size)
	if _, err := io.ReadFull(w.conn, answer); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	r := &kafkaReader{b: answer}
	if got := r.int32(); got != w.correlation {
		return nil, fmt.Errorf("kafka: answer %d where %d was expected", got, w.correlation)
	}
	return r, nil
}

func (w *kafkaWire) create(ctx context.Context, c *Config) error {
	be := binary.BigEndian
	names := c.topicNames()
	b := be.AppendUint32(nil, uint32(len(names)))
	for _, name := range names {
		b = kafkaString(b, name)
		b = be.AppendUint32(b, uint32(c.Queues))
		b = be.AppendUint16(b, 1) // replicas
		b = be.AppendUint32(b, 0) // assignments
		if c.KeepBytes == 0 {
			b = be.AppendUint32(b, 0)
			continue
		}
		b = be.AppendUint32(b, 1)
		b = kafkaString(b, "retention.bytes")
		b = kafkaString(b, strconv.FormatInt(c.KeepBytes, 10))
	}
	b = be.AppendUint32(b, uint32(kafkaTimeout/time.Millisecond))
	b = append(b, 0) // not only validate
	r, err := w.call(ctx, kafkaCreateTopics, kafkaCreateTopicsVersion, b)
	if err != nil {
		return err
	}
	r.int32() // throttled for
	for range r.count() {
		name, code := r.string(), r.int16()
		remark := r.string()
		if code != 0 && code != kafkaExists {
			return fmt.Errorf("create topic %s: %w: %s", name, kafkaError(code), remark)
		}
	}
	return r.err
}

// await waits until the broker leads every partition and tells their offsets: it answers a creation before it does.
func (w *kafkaWire) await(ctx context.Context, topic string, queues []*queue) error {
	deadline := time.Now().Add(kafkaTimeout)
	for {
		leaders, err := w.leaders(ctx, topic)
		if err == nil && leaders < len(queues) {
			err = fmt.Errorf("%d of %d partitions have a leader", leaders, len(queues))
		}
		if err == nil {
			err = w.offsets(ctx, topic, queues, kafkaLatest)
		}
		if err == nil {
			return w.offsets(ctx, topic, queues, kafkaEarliest)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(kafkaLeaderPoll):
		}
	}
}

func (w *kafkaWire) leaders(ctx context.Context, topic string) (n int, err error) {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = append(kafkaString(b, topic), 0)
	r, err := w.call(ctx, kafkaMetadata, kafkaMetadataVersion, b)
	if err != nil {
		return 0, err
	}
	r.int32() // throttled for
	for range r.count() {
		r.int32()
		r.string()
		r.int32()
		r.string()
	}
	r.string() // cluster
	r.int32()  // controller
	r.only()
	code := r.int16()
	r.string()
	r.int8()
	for range r.count() {
		partitionCode := r.int16()
		r.int32()
		if leader := r.int32(); leader >= 0 && partitionCode == 0 {
			n++
		}
		for range 2 {
			r.take(4 * r.count())
		}
	}
	return n, errors.Join(r.err, kafkaError(code))
}

// offsets asks for the first or the last offset of all queues of a topic.
func (w *kafkaWire) offsets(ctx context.Context, topic string, queues []*queue, which int64) error {
	be := binary.BigEndian
	b := be.AppendUint32(nil, ^uint32(0)) // we are no replica
	b = be.AppendUint32(b, 1)
	b = kafkaString(b, topic)
	b = be.AppendUint32(b, uint32(len(queues)))
	for _, q := range queues {
		b = be.AppendUint32(b, uint32(q.id))
		b = be.AppendUint64(b, uint64(which))
	}
	r, err := w.call(ctx, kafkaListOffsets, kafkaListOffsetsVersion, b)
	if err != nil {
		return err
	}
	r.only()
	r.string()
	for range r.count() {
		id, code := r.int32(), r.int16()
		r.int64()
		offset := r.int64()
		if code != 0 || id < 0 || int(id) >= len(queues) {
			return fmt.Errorf("offset of %s partition %d: %w", topic, id, kafkaError(code))
		}
		if which == kafkaLatest {
			queues[id].base = offset
		} else {
			queues[id].least = offset
		}
	}
	return r.err
}

// kafkaTemplate is a Produce request with one record batch for one partition.
type kafkaTemplate struct {
	request       []byte
	correlationAt int
	batchAt       int
	bodies        []int // behind batchAt
	bodySize      int
}

func (w *kafkaWire) template(c *Config, q *queue, body []byte) (template, error) {
	be := binary.BigEndian
	t := &kafkaTemplate{correlationAt: 8, bodySize: len(body)}
	batch, bodies := kafkaBatch(body, c.Batch)
	b := kafkaRequest(nil, kafkaProduce, kafkaProduceVersion, 0)
	b = be.AppendUint16(b, ^uint16(0)) // no transaction
	b = be.AppendUint16(b, ^uint16(0)) // acks: all replicas in sync
	b = be.AppendUint32(b, uint32(c.Timeout/time.Millisecond))
	b = be.AppendUint32(b, 1)
	b = kafkaString(b, q.topic)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, uint32(q.id))
	b = be.AppendUint32(b, uint32(len(batch)))
	t.batchAt, t.bodies = len(b), bodies
	t.request = kafkaFinish(append(b, batch...), 0)
	return t, nil
}

func (t *kafkaTemplate) size() int { return len(t.request) }

func (t *kafkaTemplate) append(dst []byte, o *outgoing) []byte {
	at := len(dst)
	dst = append(dst, t.request...)
	b := dst[at:]
	binary.BigEndian.PutUint32(b[t.correlationAt:], o.opaque)
	batch := b[t.batchAt:]
	for _, body := range t.bodies {
		o.advance()
		o.stamp.put(batch[body : body+t.bodySize])
	}
	stampBatch(batch, o.stamp.time/1e6)
	return dst
}

// kafkaSend is a connection that produces.
type kafkaSend struct{}

func (w *kafkaWire) sending(*Config, int) sendWire { return kafkaSend{} }

func (kafkaSend) hello(dst []byte) []byte { return dst }

func (kafkaSend) next(b []byte, a *sendAnswer) (int, error) {
	size, err := sizedFrame(b)
	if size == 0 {
		return 0, err
	}
	r := kafkaReader{b: b[4:size]}
	*a = sendAnswer{opaque: uint32(r.int32())}
	r.only()
	r.string()
	r.only()
	a.queueID, a.code, a.offset = int64(r.int32()), int32(r.int16()), r.int64()
	r.int64() // append time
	r.int32() // throttled for
	switch {
	case r.err != nil:
		a.outcome = outcomeUnclear
	case a.code != 0:
		a.outcome, a.remark = outcomeRefused, []byte(kafkaErrors[int16(a.code)])
	default:
		a.outcome, a.placed = outcomeStored, a.offset >= 0
	}
	return size, nil
}

// kafkaPull is a connection that fetches.
type kafkaPull struct {
	config  *Config
	batches kafkaBatches
}

func (w *kafkaWire) pulling(c *Config) pullWire { return &kafkaPull{config: c} }

func (w *kafkaWire) subscribe(context.Context, *Config, *pullQueue) error { return nil }

func (w *kafkaPull) hello(dst []byte) []byte { return dst }

func (w *kafkaPull) ask(dst []byte, q *pullQueue, wait bool) []byte {
	be := binary.BigEndian
	at := len(dst)
	maxWait := 0
	if wait {
		maxWait = kafkaMaxWait
	}
	dst = kafkaRequest(dst, kafkaFetch, kafkaFetchVersion, q.opaque)
	dst = be.AppendUint32(dst, ^uint32(0)) // we are no replica
	dst = be.AppendUint32(dst, uint32(maxWait))
	dst = be.AppendUint32(dst, 1) // answer as soon as there is a byte
	dst = be.AppendUint32(dst, uint32(w.config.PullBytes))
	dst = append(dst, 0) // uncommitted, too
	dst = be.AppendUint32(dst, 1)
	dst = kafkaString(dst, q.queue.topic)
	dst = be.AppendUint32(dst, 1)
	dst = be.AppendUint32(dst, uint32(q.queue.id))
	dst = be.AppendUint64(dst, uint64(q.next))
	dst = be.AppendUint32(dst, uint32(w.config.PullBytes))
	return kafkaFinish(dst, at)
}

func (w *kafkaPull) next(b []byte, a *pullAnswer) (int, error) {
	size, err := sizedFrame(b)
	if size == 0 {
		return 0, err
	}
	r := kafkaReader{b: b[4:size]}
	*a = pullAnswer{opaque: r.int32(), next: -1}
	w.batches = kafkaBatches{}
	r.int32() // throttled for
	r.only()
	r.string()
	r.only()
	r.int32()
	a.code = int32(r.int16())
	r.int64() // end
	r.int64() // stable end
	for range r.count() {
		r.take(16) // aborted transactions
	}
	a.records = r.bytes()
	switch {
	case r.err != nil:
		a.outcome, a.remark = outcomeUnclear, []byte(r.err.Error())
	case a.code != 0:
		a.outcome, a.remark = outcomeRefused, []byte(kafkaErrors[int16(a.code)])
	case len(a.records) == 0:
		a.outcome = outcomeNothing
	default:
		a.outcome = outcomeFound
	}
	return size, nil
}

func (w *kafkaPull) record(records []byte, m *received) ([]byte, error) {
	return w.batches.next(records, m)
}
