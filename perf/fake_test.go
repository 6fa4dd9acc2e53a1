package perf

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// fakeBroker stores messages in memory and lets a test spoil what it does.
type fakeBroker struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	queues map[string]*fakeQueue
	conns  []net.Conn
	// listener is closed by a test in which nobody may come again.
	listener net.Listener
	// store, when set, says what becomes of message n (from 0): the default is to store and acknowledge it.
	store func(n int) fakeFate
	sends int
	// delay, when set, is how long the answer to send n waits.
	delay func(n int) time.Duration
}

type fakeFate int

const (
	stored     fakeFate = iota
	swallowed           // acknowledged with the next offset, not stored
	twice               // stored twice
	held                // changes places with the next message, although that one is sent after its answer
	spoiled             // stored with another byte in its body
	refused             // code 2
	unanswered          // stored, never answered
	hungUp              // the connection is closed
	repeated            // answered with the offset of the message before
	skewed              // answered with another queue's id
	skipped             // stored one offset further on, and answered so
	rotten              // stored with a wrong checksum
	strayed             // stored in the record of another queue
	withheld            // stored, but neither it nor what follows is ever given out
	stuck               // stored; pulls of it say to go on where they began
)

type fakeQueue struct {
	records [][]byte
	hidden  int // records from here on are not given out; 0: all are
	loop    int // a pull that gets this record is told to go on where it began; 0: none is
	held    func()
	arrived chan struct{} // closed and replaced when a message comes
}

func newFakeBroker(t *testing.T) *fakeBroker {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &fakeBroker{t: t, addr: listener.Addr().String(), queues: map[string]*fakeQueue{}, listener: listener}
	t.Cleanup(func() {
		_ = listener.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range b.conns {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, c)
			b.mu.Unlock()
			go b.serve(c)
		}
	}()
	return b
}

func (b *fakeBroker) queue(topic string, id int64) *fakeQueue {
	key := fmt.Sprint(topic, "/", id)
	q := b.queues[key]
	if q == nil {
		q = &fakeQueue{arrived: make(chan struct{})}
		b.queues[key] = q
	}
	return q
}

func (b *fakeBroker) serve(conn net.Conn) {
	defer conn.Close()
	var writing sync.Mutex
	reply := func(frame []byte) {
		if frame == nil {
			return
		}
		writing.Lock()
		defer writing.Unlock()
		_, _ = conn.Write(frame)
	}
	for {
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		c := new(remoting.Command)
		if c.Decode(frame) != nil {
			return
		}
		switch c.Code {
		case remoting.ReqPullMessage:
			go func() { reply(b.pull(c)) }()
		case remoting.ReqSendMessageV2:
			answer, wait, hangUp := b.send(c)
			if hangUp {
				return
			}
			if wait > 0 {
				time.AfterFunc(wait, func() { reply(answer) })
				continue
			}
			reply(answer)
		default:
			reply(b.other(c))
		}
	}
}

func (b *fakeBroker) other(c *remoting.Command) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := remoting.Respond(nil, c, remoting.RespSuccess, "")
	if c.Code == remoting.ReqGetMaxOffset {
		id, _ := c.Int("queueId", 0)
		w.Int("offset", int64(len(b.queue(c.String("topic"), id).records)))
	} else {
		w.Int("offset", 0)
	}
	return w.Finish(nil)
}

func (b *fakeBroker) send(c *remoting.Command) (answer []byte, wait time.Duration, hangUp bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var h remoting.SendHeader
	require.NoError(b.t, h.Decode(c))
	q := b.queue(string(h.Topic), int64(h.QueueID))
	n, fate := b.sends, stored
	b.sends++
	if b.store != nil {
		fate = b.store(n)
	}
	if b.delay != nil {
		wait = b.delay(n)
	}
	offset := len(q.records)
	if q.held != nil {
		offset++
	}
	body := append([]byte(nil), c.Body...)
	put := func() { q.put(&h, body) }
	switch fate {
	case refused:
		w := remoting.Respond(nil, c, remoting.RespSystemBusy, "[TIMEOUT_CLEAN_QUEUE]broker busy")
		return w.Finish(nil), wait, false
	case hungUp:
		return nil, 0, true
	case swallowed:
	case repeated:
		put()
		offset--
	case twice:
		put()
		put()
	case held:
		q.held = put
	case skipped:
		q.records = append(q.records, nil)
		offset++
		put()
	case rotten:
		put()
		record := q.records[len(q.records)-1]
		record[len(record)/2] ^= 1
	case strayed:
		h.QueueID ^= 1
		put()
		h.QueueID ^= 1
	case withheld:
		put()
		q.hidden = len(q.records) - 1
	case stuck:
		put()
		q.loop = len(q.records) - 1
	case spoiled:
		body[len(body)-1] ^= 1
		put()
	default:
		put()
	}
	if fate != held && q.held != nil {
		q.held()
		q.held = nil
	}
	close(q.arrived)
	q.arrived = make(chan struct{})
	if fate == unanswered {
		return nil, 0, false
	}
	w := remoting.Respond(nil, c, remoting.RespSuccess, "")
	w.Text("msgId", "00")
	queueID := int64(h.QueueID)
	if fate == skewed {
		queueID ^= 1
	}
	w.Int("queueId", queueID)
	w.Int("queueOffset", int64(offset))
	return w.Finish(nil), wait, false
}

func (q *fakeQueue) put(h *remoting.SendHeader, body []byte) {
	host := message.HostOf(netip.MustParseAddrPort("127.0.0.1:1"))
	d := message.Draft{
		Topic: h.Topic, Body: body, BodyCRC: message.BodyCRC(body), Properties: h.Properties, QueueID: h.QueueID,
		BornTimestamp: h.BornTimestamp, BornHost: host, StoreHost: host,
	}
	record := make([]byte, d.Size())
	d.Encode(record, int64(len(q.records)), 0, 1)
	q.records = append(q.records, record)
}

func (b *fakeBroker) pull(c *remoting.Command) []byte {
	var h remoting.PullHeader
	require.NoError(b.t, h.Decode(c))
	deadline := time.After(time.Duration(h.SuspendMillis) * time.Millisecond)
	for {
		b.mu.Lock()
		q := b.queue(string(h.Topic), int64(h.QueueID))
		var body []byte
		next := h.QueueOffset
		end := int64(len(q.records))
		if q.hidden > 0 {
			end = int64(q.hidden)
		}
		for next < end && next < h.QueueOffset+int64(h.MaxMsgNums) {
			body = append(body, q.records[next]...)
			next++
		}
		if loop := int64(q.loop); loop > 0 && h.QueueOffset <= loop && loop < next {
			next = h.QueueOffset
		}
		arrived := q.arrived
		b.mu.Unlock()
		code := remoting.RespPullNotFound
		if len(body) > 0 {
			code = remoting.RespSuccess
		} else if h.SysFlag&remoting.PullSuspend != 0 {
			select {
			case <-arrived:
				continue
			case <-deadline:
			case <-b.t.Context().Done():
				return nil
			}
		}
		w := remoting.Respond(nil, c, code, "")
		w.Int("nextBeginOffset", next)
		return w.Finish(body)
	}
}

// config is a small load on the broker: count messages.
func (b *fakeBroker) config(count int64) Config {
	return Config{Brokers: []string{b.addr}, Count: count, Size: 64, Queues: 2, Idle: 300 * time.Millisecond, Timeout: 2 * time.Second}
}
