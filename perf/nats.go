package perf

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// natsWire speaks NATS with JetStream. A topic is a stream (its file), queue n of it the subject topic.n; queue offsets are the
// stream's sequence numbers, counted from 0, so that a topic of several queues has gaps in each. What is read comes through one pull
// consumer per queue that acknowledges nothing. Several messages in one request, tags and keys have no counterpart.
type natsWire struct {
	target
	id        string // of this run, in its inboxes and consumers
	config    *Config
	control   *natsControl
	passes    int
	lastInbox int
}

const (
	natsHello     = `CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"name":"perf","lang":"go","version":"1","protocol":1,"headers":true,"no_responders":true}` + "\r\n"
	natsAPI       = "$JS.API."
	natsMaxLine   = 64 << 10
	natsInboxMark = "0000000000"
)

func (w *natsWire) find(ctx context.Context, c *Config) (*target, error) {
	if len(c.Brokers) != 1 {
		return nil, errors.New("nats: name one server with --broker")
	}
	if c.Batch > 1 || c.Tag != "" || c.Keys != "" {
		return nil, errors.New("nats: has no batches in one request, no tags and no keys")
	}
	w.id, w.config, w.passes, w.brokers = rand.Text(), c, c.Passes, c.Brokers
	var err error
	if w.control, err = dialNATS(ctx, c.Brokers[0], w.id); err != nil {
		return nil, err
	}
	for _, topic := range c.topicNames() {
		if err := w.prepare(ctx, c, topic); err != nil {
			return nil, fmt.Errorf("nats: stream %s: %w", topic, err)
		}
	}
	return &w.target, nil
}

// natsStream is what we say and ask about a stream.
type natsStream struct {
	Name      string   `json:"name"`
	Subjects  []string `json:"subjects"`
	Retention string   `json:"retention"`
	Storage   string   `json:"storage"`
	Discard   string   `json:"discard"`
	Replicas  int      `json:"num_replicas"`
	MaxBytes  int64    `json:"max_bytes"`
	MaxMsgs   int64    `json:"max_msgs"`
	MaxCons   int      `json:"max_consumers"`
}

type natsState struct {
	State struct {
		First uint64 `json:"first_seq"`
		Last  uint64 `json:"last_seq"`
	} `json:"state"`
}

func (w *natsWire) prepare(ctx context.Context, c *Config, topic string) error {
	verb, request := "STREAM.INFO.", any(nil)
	if !c.UseExisting {
		keep := c.KeepBytes
		if keep == 0 {
			keep = -1
		}
		verb, request = "STREAM.CREATE.", natsStream{
			Name: topic, Subjects: []string{topic + ".*"}, Retention: "limits", Storage: "file", Discard: "old",
			Replicas: 1, MaxBytes: keep, MaxMsgs: -1, MaxCons: -1,
		}
	}
	var state natsState
	if err := w.control.call(ctx, verb+topic, request, &state); err != nil {
		return err
	}
	for id := range c.Queues {
		q := &queue{addr: c.Brokers[0], topic: topic, id: id, sparse: c.Queues > 1, base: int64(state.State.Last)}
		q.least = max(0, int64(state.State.First)-1)
		if q.sparse && q.base > 0 {
			var err error
			if q.base, err = w.last(ctx, q); err != nil {
				return err
			}
		}
		w.queues = append(w.queues, q)
	}
	return nil
}

// last is one more than the offset of a queue's last message.
func (w *natsWire) last(ctx context.Context, q *queue) (int64, error) {
	var found struct {
		Message struct {
			Sequence int64 `json:"seq"`
		} `json:"message"`
	}
	err := w.control.call(ctx, "STREAM.MSG.GET."+q.topic, map[string]string{"last_by_subj": q.subject()}, &found)
	var refused *natsError
	if errors.As(err, &refused) && refused.Code == 404 {
		return 0, nil
	}
	return found.Message.Sequence, err
}

func (q *queue) subject() string { return q.topic + "." + strconv.Itoa(q.id) }

func (w *natsWire) close() {
	if w.control != nil {
		_ = w.control.conn.Close()
	}
}

// consumer names the reader of a queue in one of its passes.
func (w *natsWire) consumer(q *queue, pass int) string {
	return fmt.Sprintf("%s-%d-%d", w.id, q.id, pass)
}

func (w *natsWire) subscribe(ctx context.Context, c *Config, q *pullQueue) error {
	for pass := range c.Passes {
		name := w.consumer(q.queue, pass)
		verb := "CONSUMER.CREATE." + q.queue.topic + "." + name
		config := map[string]any{
			"name": name, "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": q.next + 1,
			"replay_policy": "instant", "mem_storage": true, "inactive_threshold": int64(10 * time.Minute),
		}
		if q.queue.sparse {
			config["filter_subject"] = q.queue.subject()
			verb += "." + q.queue.subject()
		}
		err := w.control.call(ctx, verb, map[string]any{"stream_name": q.queue.topic, "config": config, "action": "create"}, &struct{}{})
		if err != nil {
			return fmt.Errorf("nats: consumer of %s: %w", q.queue.subject(), err)
		}
	}
	return nil
}

// natsTemplate is PUB with an inbox for the acknowledgement, whose subject ends with stream and request.
type natsTemplate struct {
	request  []byte
	streamAt int
	opaqueAt int
	bodyAt   int
	bodySize int
}

const natsStreamDigits = 5

func (w *natsWire) template(c *Config, q *queue, body []byte) (template, error) {
	t := &natsTemplate{bodySize: len(body)}
	b := fmt.Appendf(nil, "PUB %s _INBOX.%s.", q.subject(), w.id)
	t.streamAt = len(b)
	b = append(b, natsInboxMark[:natsStreamDigits]+"."...)
	t.opaqueAt = len(b)
	b = fmt.Appendf(b, "%s %d\r\n", natsInboxMark, len(body))
	t.bodyAt = len(b)
	b = append(b, body...)
	t.request = append(b, "\r\n"...)
	return t, nil
}

func (t *natsTemplate) size() int { return len(t.request) }

func (t *natsTemplate) append(dst []byte, o *outgoing) []byte {
	at := len(dst)
	dst = append(dst, t.request...)
	b := dst[at:]
	putDigits(b[t.streamAt:t.streamAt+natsStreamDigits], uint64(o.stamp.stream))
	putDigits(b[t.opaqueAt:t.opaqueAt+len(natsInboxMark)], uint64(o.opaque))
	o.advance()
	o.stamp.put(b[t.bodyAt : t.bodyAt+t.bodySize])
	return dst
}

// natsSend is a connection that publishes.
type natsSend struct{ greeting []byte }

func (w *natsWire) sending(_ *Config, stream int) sendWire {
	return &natsSend{greeting: fmt.Appendf(nil, "%sSUB _INBOX.%s.%05d.* 1\r\n", natsHello, w.id, stream)}
}

func (w *natsSend) hello(dst []byte) []byte { return append(dst, w.greeting...) }

var (
	natsPong     = []byte("PONG\r\n")
	natsSequence = []byte(`"seq":`)
	natsErrorKey = []byte(`"error":`)
	natsErrCode  = []byte(`"err_code":`)
)

// next reads one line, with the message that it announces: {"stream":"perf","seq":7} acknowledges.
func (w *natsSend) next(b []byte, a *sendAnswer) (int, error) {
	var m natsMessage
	size, err := m.read(b)
	if size == 0 {
		return 0, err
	}
	*a = sendAnswer{queueID: -1}
	switch m.kind {
	case natsPing:
		a.reply = natsPong
	case natsMsg:
		opaque, ok := lastNumber(m.subject)
		if !ok {
			break
		}
		a.opaque = uint32(opaque)
		sequence := numberBehind(m.payload, natsSequence)
		switch {
		case m.status != 0:
			a.outcome, a.code, a.remark = outcomeRefused, int32(m.status), m.header
		case bytes.Contains(m.payload, natsErrorKey):
			a.outcome, a.code, a.remark = outcomeRefused, int32(numberBehind(m.payload, natsErrCode)), m.payload
		case sequence < 1:
			a.outcome = outcomeUnclear
		default:
			a.outcome, a.placed, a.offset = outcomeStored, true, sequence-1
		}
	}
	return size, nil
}

// natsPull is a connection that reads. A message comes under its own subject, not that of the inbox; what tells whose it is is the
// subscription: number n+1 for queue n of the connection.
type natsPull struct {
	wire    *natsWire
	inbox   string
	tickets []int32 // by queue: the request in flight
	offset  int64   // of the message in hand
	text    []byte
}

func (w *natsWire) pulling(*Config) pullWire {
	w.lastInbox++
	return &natsPull{wire: w, inbox: fmt.Sprintf("_INBOX.%s.r%d.", w.id, w.lastInbox)}
}

func (w *natsPull) hello(dst []byte) []byte { return append(dst, natsHello...) }

// ask wants PullBatch messages, which come one by one.
func (w *natsPull) ask(dst []byte, q *pullQueue, _ bool) []byte {
	q.left = w.wire.config.PullBatch
	if limit := q.limit.Load(); limit != noLimit && !q.queue.sparse {
		q.left = int(min(int64(q.left), limit-q.next))
	}
	index := int(q.opaque & pullIndexMask)
	for len(w.tickets) <= index {
		dst = fmt.Appendf(dst, "SUB %s%d.* %d\r\n", w.inbox, len(w.tickets), len(w.tickets)+1)
		w.tickets = append(w.tickets, 0)
	}
	w.tickets[index] = q.opaque
	w.text = strconv.AppendInt(append(w.text[:0], `{"expires":15000000000,"batch":`...), int64(q.left), 10)
	w.text = append(w.text, '}')
	dst = append(append(dst, "PUB "+natsAPI+"CONSUMER.MSG.NEXT."...), q.queue.topic...)
	dst = append(append(dst, '.'), w.wire.consumer(q.queue, w.wire.passes-1-q.passes)...)
	dst = append(append(dst, ' '), w.inbox...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = strconv.AppendInt(append(dst, '.'), int64(q.opaque), 10)
	dst = strconv.AppendInt(append(dst, ' '), int64(len(w.text)), 10)
	dst = append(dst, "\r\n"...)
	return append(append(dst, w.text...), "\r\n"...)
}

func (w *natsPull) next(b []byte, a *pullAnswer) (int, error) {
	var m natsMessage
	size, err := m.read(b)
	if size == 0 {
		return 0, err
	}
	*a = pullAnswer{next: -1}
	switch m.kind {
	case natsPing:
		a.reply = natsPong
	case natsMsg:
		switch m.status {
		case 0:
			if m.sid < 1 || m.sid > len(w.tickets) {
				break
			}
			a.opaque = w.tickets[m.sid-1]
			w.offset = streamSequence(m.reply) - 1
			a.outcome, a.records, a.next, a.more = outcomeFound, m.payload, w.offset+1, true
			if w.offset < 0 {
				a.outcome, a.remark, a.more = outcomeUnclear, m.reply, false
			}
		case 404, 408:
			a.outcome = outcomeNothing
		default:
			a.outcome, a.code, a.remark = outcomeRefused, int32(m.status), m.header
		}
		if m.status != 0 {
			ticket, _ := lastNumber(m.subject)
			a.opaque = int32(ticket)
		}
	}
	return size, nil
}

func (w *natsPull) record(records []byte, m *received) ([]byte, error) {
	*m = received{offset: w.offset, queueID: -1, body: records}
	return nil, nil
}

// natsControl is a connection for requests to JetStream, one at a time.
type natsControl struct {
	conn   net.Conn
	reader *bufio.Reader
	inbox  string
	number int
}

const natsTimeout = 30 * time.Second

func dialNATS(ctx context.Context, addr, id string) (*natsControl, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	c := &natsControl{conn: conn, reader: bufio.NewReaderSize(conn, natsMaxLine), inbox: "_INBOX." + id + ".control."}
	_, err = fmt.Fprintf(conn, "%sSUB %s* 1\r\n", natsHello, c.inbox)
	return c, err
}

// natsError is what JetStream says when it does not do what it was asked for.
type natsError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *natsError) Error() string {
	return fmt.Sprintf("%s (%d/%d)", e.Description, e.Code, e.ErrCode)
}

// call sends a request and reads lines until its answer comes.
func (c *natsControl) call(ctx context.Context, subject string, request, answer any) error {
	payload := []byte{}
	var err error
	if request != nil {
		if payload, err = json.Marshal(request); err != nil {
			return err
		}
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(natsTimeout)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	c.number++
	inbox := c.inbox + strconv.Itoa(c.number)
	if _, err := fmt.Fprintf(c.conn, "PUB %s%s %s %d\r\n%s\r\n", natsAPI, subject, inbox, len(payload), payload); err != nil {
		return err
	}
	for {
		m, err := c.readMessage()
		if err != nil {
			return err
		}
		if m.kind != natsMsg || string(m.subject) != inbox {
			continue
		}
		if m.status != 0 {
			return &natsError{Code: m.status, Description: "is JetStream enabled? " + string(bytes.TrimSpace(m.header))}
		}
		var failed struct {
			Error *natsError `json:"error"`
		}
		if err := json.Unmarshal(m.payload, &failed); err != nil {
			return fmt.Errorf("answer to %s: %w", subject, err)
		}
		if failed.Error != nil {
			return failed.Error
		}
		return json.Unmarshal(m.payload, answer)
	}
}

func (c *natsControl) readMessage() (*natsMessage, error) {
	line, err := c.reader.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	m := new(natsMessage)
	behind, err := m.head(line)
	if err != nil {
		return nil, err
	}
	rest := make([]byte, behind)
	if _, err := io.ReadFull(c.reader, rest); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	if m.kind == natsPing {
		_, err = c.conn.Write(natsPong)
	}
	m.body(rest)
	return m, err
}
