package perf

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// remotingWire speaks RocketMQ's remoting protocol.
type remotingWire struct {
	target
	conns map[string]*client.Conn // one to each broker, for everything that is no load
}

func (t *remotingWire) close() {
	for _, c := range t.conns {
		_ = c.Close()
	}
}

func (t *remotingWire) template(c *Config, q *queue, body []byte) (template, error) {
	return newRemotingTemplate(c, q.topic, q.id, body)
}

func (t *remotingWire) sending(*Config, int) sendWire { return new(remotingSend) }

func (t *remotingWire) pulling(c *Config) pullWire { return &remotingPull{config: c} }

func (t *remotingWire) subscribe(context.Context, *Config, *pullQueue) error { return nil }

// find looks the brokers up, creates the topics unless they are to be used as they are, and reads every queue's offsets.
func (t *remotingWire) find(ctx context.Context, c *Config) (*target, error) {
	t.conns = map[string]*client.Conn{}
	return &t.target, t.look(ctx, c)
}

func (t *remotingWire) look(ctx context.Context, c *Config) (err error) {
	var names *client.NameServers
	if len(c.Brokers) > 0 {
		t.brokers = c.Brokers
	} else {
		if names, err = client.NewNameServers(c.NameServers, client.Options{}); err != nil {
			return err
		}
		defer names.Close()
		if err = t.ask(ctx, names, c.Cluster); err != nil {
			return err
		}
	}
	for _, addr := range t.brokers {
		if t.conns[addr], err = client.Dial(ctx, addr, client.Options{}); err != nil {
			delete(t.conns, addr)
			return err
		}
	}
	for _, topic := range c.topicNames() {
		if err = t.prepare(ctx, c, names, topic); err != nil {
			return err
		}
	}
	if len(t.queues) == 0 {
		return errNoQueues
	}
	return t.readOffsets(ctx)
}

func (t *remotingWire) ask(ctx context.Context, names *client.NameServers, cluster string) error {
	info, err := names.Cluster(ctx)
	if err != nil {
		return err
	}
	if t.brokers = info.Masters(cluster); len(t.brokers) == 0 {
		return errors.New("the name server knows no master broker (yet): start one, or name it with --broker")
	}
	return nil
}

// prepare adds the queues of one topic.
func (t *remotingWire) prepare(ctx context.Context, c *Config, names *client.NameServers, topic string) error {
	if c.UseExisting && names != nil {
		return t.fromRoute(ctx, names, topic)
	}
	if !c.UseExisting {
		for _, addr := range t.brokers {
			if _, err := t.conns[addr].Call(ctx, createTopic(topic, c.Queues)); err != nil {
				return fmt.Errorf("create topic %s: %w", topic, err)
			}
		}
	}
	for id := range c.Queues {
		for _, addr := range t.brokers {
			t.queues = append(t.queues, &queue{addr: addr, topic: topic, id: id})
		}
	}
	return nil
}

func createTopic(topic string, queues int) client.Request {
	n := strconv.Itoa(queues)
	return client.Request{Code: remoting.ReqUpdateAndCreateTopic, Fields: map[string]string{
		"topic": topic, "defaultTopic": "TBW102", "readQueueNums": n, "writeQueueNums": n, "perm": "6",
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}}
}

func (t *remotingWire) fromRoute(ctx context.Context, names *client.NameServers, topic string) error {
	route, err := names.Route(ctx, topic)
	if err != nil {
		return fmt.Errorf("route of topic %s: %w", topic, err)
	}
	const writable = 2
	for _, q := range route.Queues {
		b := route.Broker(q.Broker)
		if b == nil || t.conns[b.Master()] == nil || q.Perm&writable == 0 {
			continue
		}
		for id := range q.Write {
			t.queues = append(t.queues, &queue{addr: b.Master(), topic: topic, id: id})
		}
	}
	return nil
}

// askers is how many offsets are asked for at once: a broker with 100,000 queues has 200,000 of them.
const askers = 16

func (t *remotingWire) readOffsets(ctx context.Context) error {
	var asking sync.WaitGroup
	errs := make([]error, askers)
	for i := range askers {
		asking.Go(func() {
			for at := i; at < len(t.queues) && errs[i] == nil; at += askers {
				errs[i] = t.readOffset(ctx, t.queues[at])
			}
		})
	}
	asking.Wait()
	return errors.Join(errs...)
}

func (t *remotingWire) readOffset(ctx context.Context, q *queue) (err error) {
	if q.base, err = t.offset(ctx, q, remoting.ReqGetMaxOffset); err != nil {
		return err
	}
	q.least, err = t.offset(ctx, q, remoting.ReqGetMinOffset)
	return err
}

func (t *remotingWire) offset(ctx context.Context, q *queue, code int32) (int64, error) {
	response, err := t.conns[q.addr].Call(ctx, client.Request{
		Code: code, Fields: map[string]string{"topic": q.topic, "queueId": strconv.Itoa(q.id)},
	})
	if err != nil {
		return 0, err
	}
	return response.Int("offset")
}

// remotingSend is a connection that sends.
type remotingSend struct{ command remoting.Command }

func (w *remotingSend) hello(dst []byte) []byte { return dst }

// next reads one frame. A request of the server (it has none for producers) is nobody's answer.
func (w *remotingSend) next(b []byte, a *sendAnswer) (int, error) {
	size, err := sizedFrame(b)
	if size == 0 {
		return 0, err
	}
	c := &w.command
	if err := c.Decode(b[4:size]); err != nil {
		return 0, err
	}
	*a = sendAnswer{opaque: uint32(c.Opaque), code: c.Code, remark: c.Remark, outcome: outcomeRefused}
	switch {
	case !c.IsResponse():
		a.outcome = outcomeNone
		return size, nil
	case c.Code == remoting.RespSuccess:
		a.outcome = outcomeStored
	case c.Code == remoting.RespFlushDiskTimeout || c.Code == remoting.RespSlaveNotAvailable || c.Code == remoting.RespFlushSlaveTimeout:
		a.outcome = outcomeWeak
	default:
		return size, nil
	}
	var queueErr, offsetErr error
	a.queueID, queueErr = c.Int("queueId", -1)
	a.offset, offsetErr = c.Int("queueOffset", -1)
	a.placed = queueErr == nil && offsetErr == nil && a.offset >= 0
	return size, nil
}

// remotingPull is a connection that pulls.
type remotingPull struct {
	config  *Config
	command remoting.Command
	entry   message.Record
}

func (w *remotingPull) hello(dst []byte) []byte { return dst }

func (w *remotingPull) ask(dst []byte, q *pullQueue, wait bool) []byte {
	sysFlag, suspend := int64(remoting.PullSubscription|remoting.PullSuspend), int64(suspendMillis)
	if !wait {
		sysFlag, suspend = remoting.PullSubscription, 0
	}
	r := remoting.Request(dst, w.config.Serialize, remoting.ReqPullMessage, q.opaque, 0)
	r.Text("consumerGroup", Group)
	r.Text("topic", q.queue.topic)
	r.Int("queueId", int64(q.queue.id))
	r.Int("queueOffset", q.next)
	r.Int("maxMsgNums", int64(w.config.PullBatch))
	r.Int("sysFlag", sysFlag)
	r.Int("commitOffset", 0)
	r.Int("suspendTimeoutMillis", suspend)
	r.Text("subscription", w.config.subscription())
	r.Int("subVersion", 1)
	r.Text("expressionType", "TAG")
	return r.Finish(nil)
}

// next reads one frame. Requests of the broker are passed over: those it sends to consumers want no answer.
func (w *remotingPull) next(b []byte, a *pullAnswer) (int, error) {
	size, err := sizedFrame(b)
	if size == 0 {
		return 0, err
	}
	c := &w.command
	if err := c.Decode(b[4:size]); err != nil {
		return 0, err
	}
	*a = pullAnswer{opaque: c.Opaque, code: c.Code, remark: c.Remark, records: c.Body}
	if a.next, err = c.Int("nextBeginOffset", -1); err != nil {
		a.outcome, a.remark = outcomeUnclear, []byte(err.Error())
		return size, nil
	}
	switch {
	case !c.IsResponse():
		a.outcome = outcomeNone
	case c.Code == remoting.RespSuccess:
		a.outcome = outcomeFound
	case c.Code == remoting.RespPullNotFound:
		a.outcome = outcomeNothing
	case c.Code == remoting.RespPullRetryImmediately:
		a.outcome = outcomeAgain
	case c.Code == remoting.RespPullOffsetMoved:
		a.outcome = outcomeMoved
	default:
		a.outcome = outcomeRefused
	}
	return size, nil
}

func (w *remotingPull) record(records []byte, m *received) ([]byte, error) {
	r := &w.entry
	if err := message.Decode(records, r); err != nil {
		return nil, err
	}
	*m = received{offset: r.QueueOffset, queueID: int64(r.QueueID), topic: r.Topic, body: r.Body, broken: r.VerifyCRC(records[:r.Size])}
	return records[r.Size:], nil
}
