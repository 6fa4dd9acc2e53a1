package perf

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/remoting"
)

// queue is one queue of one broker.
type queue struct {
	addr  string
	topic string
	id    int
	base  int64 // its max offset before the run
	least int64 // its min offset before the run
}

// target is where the load goes: the brokers and the queues, and a connection to each broker for everything that is no load.
type target struct {
	brokers []string
	conns   map[string]*client.Conn
	queues  []*queue // by topic, then queue id, then broker: neighbours are on different brokers
}

func (t *target) close() {
	for _, c := range t.conns {
		_ = c.Close()
	}
}

// find looks the brokers up, creates the topics unless they are to be used as they are, and reads every queue's offsets.
func find(ctx context.Context, c *Config) (t *target, err error) {
	t = &target{conns: map[string]*client.Conn{}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	var names *client.NameServers
	if len(c.Brokers) > 0 {
		t.brokers = c.Brokers
	} else {
		if names, err = client.NewNameServers(c.NameServers, client.Options{}); err != nil {
			return t, err
		}
		defer names.Close()
		if err = t.ask(ctx, names, c.Cluster); err != nil {
			return t, err
		}
	}
	for _, addr := range t.brokers {
		if t.conns[addr], err = client.Dial(ctx, addr, client.Options{}); err != nil {
			delete(t.conns, addr)
			return t, err
		}
	}
	for _, topic := range c.topicNames() {
		if err = t.prepare(ctx, c, names, topic); err != nil {
			return t, err
		}
	}
	if len(t.queues) == 0 {
		return t, errNoQueues
	}
	return t, t.readOffsets(ctx)
}

func (t *target) ask(ctx context.Context, names *client.NameServers, cluster string) error {
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
func (t *target) prepare(ctx context.Context, c *Config, names *client.NameServers, topic string) error {
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

func (t *target) fromRoute(ctx context.Context, names *client.NameServers, topic string) error {
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

func (t *target) readOffsets(ctx context.Context) error {
	for _, q := range t.queues {
		var err error
		if q.base, err = t.offset(ctx, q, remoting.ReqGetMaxOffset); err != nil {
			return err
		}
		if q.least, err = t.offset(ctx, q, remoting.ReqGetMinOffset); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) offset(ctx context.Context, q *queue, code int32) (int64, error) {
	response, err := t.conns[q.addr].Call(ctx, client.Request{
		Code: code, Fields: map[string]string{"topic": q.topic, "queueId": strconv.Itoa(q.id)},
	})
	if err != nil {
		return 0, err
	}
	return response.Int("offset")
}
