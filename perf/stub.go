package perf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/remoting"
)

// Stub is the control of a measurement: it answers what a producer asks, with offsets that count up, and stores nothing. What is
// measured against it is the generator, the network stack and the noise of the machine. It is a plain epoll loop: one locked thread
// serves all connections, with one read and one write per connection and turn. Of the generator's own send requests it reads no more
// than it needs for an answer (stub_send.go). Filled, it answers pulls, too, by sendfile from a file of ready records (stub_pull.go):
// the least that giving out messages can cost.
type Stub struct {
	listener net.Listener
	poller   *poller
	topics   map[string]*stubTopic
	header   remoting.SendHeader
	pull     remoting.PullHeader
	ended    chan struct{}

	// fresh are accepted connections that the thread has not taken over yet.
	mu    sync.Mutex
	fresh []net.Conn
	stop  bool
	news  atomic.Bool // fresh or stop has changed
}

type stubTopic struct {
	next []int64      // next queue offset by queue
	full *stubRecords // what its queues hold; nil: nothing
}

type stubConn struct {
	in      inbox
	out     []byte
	sent    int
	ranges  []stubRange // of the file, between bytes of out
	command remoting.Command
	// lastTopic and last spare the look-up where one request is for the same topic as the one before.
	lastTopic []byte
	last      *stubTopic
}

const (
	stubMaxQueues = 65536
	stubMaxTopics = 100000
	stubMaxOut    = 8 << 20
)

// NewStub listens on addr and serves until Close.
func NewStub(addr string) (*Stub, error) { return NewFilledStub(addr, nil) }

// NewFilledStub has something to give out, too, unless fill is nil.
func NewFilledStub(addr string, fill *StubFill) (*Stub, error) {
	s := &Stub{topics: map[string]*stubTopic{}, ended: make(chan struct{})}
	if fill != nil {
		if err := s.fill(*fill); err != nil {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	p, err := newPoller()
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	s.listener, s.poller = listener, p
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
	s.news.Store(true)
	s.mu.Unlock()
	err := s.listener.Close()
	s.poller.wake()
	<-s.ended
	return err
}

// RunStub serves until ctx ends.
func RunStub(ctx context.Context, addr string, fill *StubFill, started func(addr string)) error {
	// A loop that takes no memory needs nobody to collect it.
	debug.SetGCPercent(-1)
	s, err := NewFilledStub(addr, fill)
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
		s.news.Store(true)
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
	if !s.news.Swap(false) {
		return true
	}
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
			var size int
			if size, err = sizedFrame(c.in.rest()); size == 0 {
				break
			}
			frame := c.in.rest()[4:size]
			c.in.take(size)
			if s.plainSend(c, frame) {
				continue
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

// flush writes what there is: out, with ranges of the file between its bytes.
func (c *stubConn) flush(sock *socket) error {
	for c.sent < len(c.out) || len(c.ranges) > 0 {
		whole, err := c.flushSome(sock)
		if len(c.out)-c.sent > stubMaxOut || len(c.ranges) > stubMaxQueues {
			return errors.New("client does not read its answers")
		}
		if err != nil && !errors.Is(err, errAgain) {
			return err
		}
		if err != nil || !whole {
			return nil
		}
	}
	c.out, c.sent = c.out[:0], 0
	return nil
}

// flushSome makes one write; whole tells that the socket took all of it.
func (c *stubConn) flushSome(sock *socket) (whole bool, err error) {
	var n int
	if len(c.ranges) == 0 {
		left := len(c.out) - c.sent
		n, err = sock.write(c.out[c.sent:])
		c.sent += n
		return n == left, err
	}
	next := &c.ranges[0]
	if left := next.behind - c.sent; left > 0 {
		n, err = sock.writeMore(c.out[c.sent:next.behind])
		c.sent += n
		return n == left, err
	}
	n, err = sock.sendFile(next.file, next.offset, next.size)
	next.offset += int64(n)
	next.size -= n
	if next.size > 0 {
		return false, err
	}
	c.ranges = c.ranges[:copy(c.ranges, c.ranges[1:])]
	return true, err
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
	case remoting.ReqPullMessage:
		s.answerPull(c)
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
