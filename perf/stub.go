package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync"

	"github.com/ringmq/ringmq/remoting"
)

// Stub is the control of a measurement: it answers what a producer asks, with offsets that count up, and stores nothing. What is
// measured against it is the generator, the network stack and the noise of the machine. It serves all connections from one locked
// thread, by the generator's poller.
type Stub struct {
	listener net.Listener
	poller   *poller
	topics   map[string]*stubTopic
	header   remoting.SendHeader
	ended    chan struct{}

	// fresh are accepted connections that the thread has not taken over yet.
	mu    sync.Mutex
	fresh []net.Conn
	stop  bool
}

type stubTopic struct{ next []int64 } // next queue offset by queue

type stubConn struct {
	in      inbox
	out     []byte
	sent    int
	command remoting.Command
}

const (
	stubMaxQueues = 1024
	stubMaxTopics = 100000
	stubMaxOut    = 8 << 20
)

// NewStub listens on addr and serves until Close.
func NewStub(addr string) (*Stub, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	p, err := newPoller()
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	s := &Stub{listener: listener, poller: p, topics: map[string]*stubTopic{}, ended: make(chan struct{})}
	go s.accept()
	go s.serve()
	return s, nil
}

// Addr is where the stub listens.
func (s *Stub) Addr() string { return s.listener.Addr().String() }

// Close ends the stub and its connections.
func (s *Stub) Close() error {
	s.mu.Lock()
	s.stop = true
	s.mu.Unlock()
	err := s.listener.Close()
	s.poller.wake()
	<-s.ended
	return err
}

// RunStub serves until ctx ends.
func RunStub(ctx context.Context, addr string, started func(addr string)) error {
	s, err := NewStub(addr)
	if err != nil {
		return err
	}
	started(s.Addr())
	<-ctx.Done()
	return s.Close()
}

func (s *Stub) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.fresh = append(s.fresh, conn)
		s.mu.Unlock()
		s.poller.wake()
	}
}

func (s *Stub) serve() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.ended)
	defer s.poller.close()
	for {
		ready, err := s.poller.wait(0, noLimit)
		if err != nil || !s.takeFresh() {
			return
		}
		for _, sock := range ready {
			c := sock.owner.(*stubConn)
			if err := s.readable(c, sock); err != nil {
				sock.close()
			}
		}
	}
}

// takeFresh adds the accepted connections; it is false when the stub is to end.
func (s *Stub) takeFresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.fresh {
		_, _ = s.poller.add(conn, new(stubConn)) // one that cannot be added has been closed
	}
	s.fresh = s.fresh[:0]
	return !s.stop
}

func (s *Stub) readable(c *stubConn, sock *socket) error {
	for {
		whole, err := c.in.fill(sock)
		for err == nil {
			var frame []byte
			if frame, err = c.in.next(); frame == nil {
				break
			}
			if err = c.command.Decode(frame); err == nil {
				s.request(c)
			}
		}
		if err != nil && !errors.Is(err, errAgain) {
			return err
		}
		if flushErr := c.flush(sock); flushErr != nil {
			return flushErr
		}
		if err != nil || !whole {
			return nil
		}
	}
}

func (c *stubConn) flush(sock *socket) error {
	if c.sent == len(c.out) {
		return nil
	}
	n, err := sock.write(c.out[c.sent:])
	c.sent += n
	if c.sent == len(c.out) {
		c.out, c.sent = c.out[:0], 0
	}
	if len(c.out)-c.sent > stubMaxOut {
		return errors.New("client does not read its answers")
	}
	if errors.Is(err, errAgain) {
		return nil
	}
	return err
}

// request answers one command into c.out.
func (s *Stub) request(c *stubConn) {
	if c.command.IsResponse() || c.command.IsOneway() {
		return
	}
	switch c.command.Code {
	case remoting.ReqSendMessage, remoting.ReqSendMessageV2, remoting.ReqSendBatchMessage:
		s.send(c)
	case remoting.ReqUpdateAndCreateTopic:
		c.answer(s.create(&c.command))
	case remoting.ReqGetMaxOffset:
		offset := int64(0)
		if t := s.topics[c.command.String("topic")]; t != nil {
			if id, err := c.command.Int("queueId", -1); err == nil && id >= 0 && id < int64(len(t.next)) {
				offset = t.next[id]
			}
		}
		w := remoting.Respond(c.out, &c.command, remoting.RespSuccess, "")
		w.Int("offset", offset)
		c.out = w.Finish(nil)
	case remoting.ReqGetMinOffset:
		w := remoting.Respond(c.out, &c.command, remoting.RespSuccess, "")
		w.Int("offset", 0)
		c.out = w.Finish(nil)
	case remoting.ReqHeartBeat:
		c.answer(remoting.RespSuccess, "", nil)
	case remoting.ReqGetRouteinfoByTopic:
		c.answer(s.route(c.command.String("topic")))
	case remoting.ReqGetBrokerClusterInfo:
		c.answer(remoting.RespSuccess, "", fmt.Appendf(nil,
			`{"brokerAddrTable":{"stub":{"brokerAddrs":{"0":"%s"},"brokerName":"stub","cluster":"stub"}},"clusterAddrTable":{"stub":["stub"]}}`, s.Addr()))
	default:
		c.answer(remoting.RespRequestCodeNotSupported, "the stub stores nothing and knows no request "+strconv.Itoa(int(c.command.Code)), nil)
	}
}

func (c *stubConn) answer(code int32, remark string, body []byte) {
	w := remoting.Respond(c.out, &c.command, code, remark)
	c.out = w.Finish(body)
}

func (s *Stub) create(c *remoting.Command) (code int32, remark string, body []byte) {
	queues, err := c.Int("writeQueueNums", 0)
	if err != nil || queues < 1 || queues > stubMaxQueues || len(s.topics) >= stubMaxTopics {
		return remoting.RespInvalidParameter, fmt.Sprintf("the stub has at most %d topics of 1 to %d queues", stubMaxTopics, stubMaxQueues), nil
	}
	t := s.topics[c.String("topic")]
	if t == nil {
		t = new(stubTopic)
		s.topics[c.String("topic")] = t
	}
	for int64(len(t.next)) < queues {
		t.next = append(t.next, 0)
	}
	return remoting.RespSuccess, "", nil
}

func (s *Stub) route(topic string) (code int32, remark string, body []byte) {
	t := s.topics[topic]
	if t == nil {
		return remoting.RespTopicNotExist, "No topic route info in name server for the topic: " + topic, nil
	}
	return remoting.RespSuccess, "", fmt.Appendf(nil,
		`{"brokerDatas":[{"brokerAddrs":{"0":"%s"},"brokerName":"stub","cluster":"stub"}],"filterServerTable":{},"queueDatas":[{"brokerName":"stub","perm":6,"readQueueNums":%d,"topicSysFlag":0,"writeQueueNums":%d}]}`,
		s.Addr(), len(t.next), len(t.next))
}

// stubMessageID is what every answer says: an offset message id has 32 hex digits.
var stubMessageID = []byte("7F00000100002A9F0000000000000000")

func (s *Stub) send(c *stubConn) {
	h := &s.header
	if err := h.Decode(&c.command); err != nil {
		c.answer(remoting.RespInvalidParameter, err.Error(), nil)
		return
	}
	t := s.topics[string(h.Topic)]
	if t == nil || h.QueueID < 0 || int(h.QueueID) >= len(t.next) {
		c.answer(remoting.RespTopicNotExist, "no such topic or queue: create it first", nil)
		return
	}
	offset := t.next[h.QueueID]
	t.next[h.QueueID] += batchCount(h.Batch, c.command.Body)
	w := remoting.Respond(c.out, &c.command, remoting.RespSuccess, "")
	w.Bytes("msgId", stubMessageID)
	w.Int("queueId", int64(h.QueueID))
	w.Int("queueOffset", offset)
	c.out = w.Finish(nil)
}

// batchCount is the number of messages in a body: 1 unless it is a batch.
func batchCount(batch bool, body []byte) int64 {
	if !batch {
		return 1
	}
	n := int64(0)
	for len(body) >= 4 {
		size := int64(body[0])<<24 | int64(body[1])<<16 | int64(body[2])<<8 | int64(body[3])
		if size < 4 || size > int64(len(body)) {
			break
		}
		body = body[size:]
		n++
	}
	return n
}
