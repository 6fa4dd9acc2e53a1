package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const patience = 30 * time.Second // how long a scenario waits for what must come

func (r *run) newProducer(name string, opts ...producer.Option) (rocketmq.Producer, error) {
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNameServer(primitive.NamesrvAddr{r.nameServer}),
		producer.WithGroupName(r.group(name)),
		producer.WithInstanceName(name + r.stamp),
		producer.WithRetry(0),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Start()
}

// createTopic makes the topic before the first client asks for its route, which it would ask again for only 30 s later.
func (r *run) createTopic(topic string, queues int) error {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{r.nameServer})))
	if err != nil {
		return err
	}
	defer a.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = a.CreateTopic(ctx, admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(r.broker),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues))
	if err != nil {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

func sent(res *primitive.SendResult, err error) error {
	if err != nil {
		return err
	}
	if res.Status != primitive.SendOK {
		return fmt.Errorf("send status %d", res.Status)
	}
	if res.OffsetMsgID == "" || res.MessageQueue == nil {
		return fmt.Errorf("incomplete send result %v", res)
	}
	return nil
}

func sendSync(r *run) error {
	p, err := r.newProducer("sync")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	for i := range 20 {
		m := primitive.NewMessage(r.topic("Sync"), []byte(fmt.Sprintf("sync %d", i))).WithTag("T").WithKeys([]string{"a", "b"})
		if err := sent(p.SendSync(context.Background(), m)); err != nil {
			return err
		}
	}
	return r.expect("sync", r.topic("Sync"), "*", 20, "sync ")
}

func sendAsync(r *run) error {
	p, err := r.newProducer("async")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	results := make(chan error, 20)
	for i := range 20 {
		m := primitive.NewMessage(r.topic("Async"), []byte(fmt.Sprintf("async %d", i)))
		err := p.SendAsync(context.Background(), func(_ context.Context, res *primitive.SendResult, err error) {
			results <- sent(res, err)
		}, m)
		if err != nil {
			return err
		}
	}
	for range 20 {
		select {
		case err := <-results:
			if err != nil {
				return err
			}
		case <-time.After(patience):
			return errors.New("an asynchronous send was not answered")
		}
	}
	return r.expect("async", r.topic("Async"), "*", 20, "async ")
}

func sendOneway(r *run) error {
	if err := r.createTopic(r.topic("Oneway"), 4); err != nil {
		return err
	}
	p, err := r.newProducer("oneway")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	for i := range 20 {
		m := primitive.NewMessage(r.topic("Oneway"), []byte(fmt.Sprintf("oneway %d", i)))
		if err := p.SendOneWay(context.Background(), m); err != nil {
			return err
		}
	}
	return r.expect("oneway", r.topic("Oneway"), "*", 20, "oneway ")
}

func sendBatch(r *run) error {
	p, err := r.newProducer("batch")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	var batch []*primitive.Message
	for i := range 10 {
		batch = append(batch, primitive.NewMessage(r.topic("Batch"), []byte(fmt.Sprintf("batch %d", i))))
	}
	if err := sent(p.SendSync(context.Background(), batch...)); err != nil {
		return err
	}
	return r.expect("batch", r.topic("Batch"), "*", 10, "batch ")
}

func largeBody(r *run) error {
	p, err := r.newProducer("large")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	body := strings.Repeat("large and compressible ", 60000) // 1.3 MB, deflated on the wire
	if err := sent(p.SendSync(context.Background(), primitive.NewMessage(r.topic("Large"), []byte(body)))); err != nil {
		return err
	}
	return r.expect("large", r.topic("Large"), "*", 1, body)
}

// inbox collects what push consumers were given.
type inbox struct {
	mu   sync.Mutex
	got  map[string]int // body, how often
	by   map[string]int // consumer, how many
	more chan struct{}
}

func newInbox() *inbox {
	return &inbox{got: map[string]int{}, by: map[string]int{}, more: make(chan struct{}, 1)}
}

func (b *inbox) put(who string, m *primitive.MessageExt) {
	b.mu.Lock()
	b.got[string(m.Body)]++
	b.by[who]++
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// waitFor waits until n different bodies are there.
func (b *inbox) waitFor(n int) error {
	deadline := time.After(patience)
	for {
		b.mu.Lock()
		have := len(b.got)
		b.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-b.more:
		case <-deadline:
			return fmt.Errorf("%d of %d messages came in %v", have, n, patience)
		}
	}
}

func (r *run) pushConsumer(name, instance string, opts ...consumer.Option) (rocketmq.PushConsumer, error) {
	return rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNameServer(primitive.NamesrvAddr{r.nameServer}),
		consumer.WithGroupName(r.group(name)),
		consumer.WithInstance(name + instance + r.stamp),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, opts...)...)
}

// expect consumes a topic with a new group and wants n different bodies with the prefix, each exactly once.
func (r *run) expect(name, topic, tags string, n int, prefix string) error {
	box := newInbox()
	c, err := r.pushConsumer(name+"_expect", "")
	if err != nil {
		return err
	}
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: tags}
	err = c.Subscribe(topic, selector, func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			box.put("one", m)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Shutdown()
	if err := box.waitFor(n); err != nil {
		return err
	}
	box.mu.Lock()
	defer box.mu.Unlock()
	for body, times := range box.got {
		if !strings.HasPrefix(body, prefix) || times != 1 {
			return fmt.Errorf("message %.40q came %d times", body, times)
		}
	}
	if len(box.got) != n {
		return fmt.Errorf("want %d messages, got %d", n, len(box.got))
	}
	return nil
}

func pushTags(r *run) error {
	p, err := r.newProducer("tags")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	for i := range 30 {
		tag := string(rune('a' + i%3)) // a, b, c
		m := primitive.NewMessage(r.topic("Tags"), []byte(fmt.Sprintf("tag %s %d", tag, i))).WithTag(tag)
		if tag == "c" {
			m = primitive.NewMessage(r.topic("Tags"), []byte("unwanted")).WithTag(tag)
		}
		if err := sent(p.SendSync(context.Background(), m)); err != nil {
			return err
		}
	}
	return r.expect("tags", r.topic("Tags"), "a || b", 20, "tag ")
}

func pushClustering(r *run) error {
	topic := r.topic("Cluster")
	if err := r.createTopic(topic, 4); err != nil {
		return err
	}
	box := newInbox()
	for _, who := range []string{"one", "two"} {
		c, err := r.pushConsumer("cluster", who)
		if err != nil {
			return err
		}
		err = c.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, m := range ms {
				box.put(who, m)
			}
			return consumer.ConsumeSuccess, nil
		})
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		defer c.Shutdown()
	}
	p, err := r.newProducer("cluster_p", producer.WithQueueSelector(producer.NewRoundRobinQueueSelector()))
	if err != nil {
		return err
	}
	defer p.Shutdown()
	deadline := time.Now().Add(patience)
	total := 0
	for { // until the second consumer has joined and both get some
		for range 8 {
			total++
			if err := sent(p.SendSync(context.Background(), primitive.NewMessage(topic, []byte(fmt.Sprintf("cluster %d", total))))); err != nil {
				return err
			}
		}
		if err := box.waitFor(total); err != nil {
			return err
		}
		box.mu.Lock()
		both := box.by["one"] > 0 && box.by["two"] > 0
		box.mu.Unlock()
		if both {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("only one of two consumers gets messages: %v", box.by)
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

func pushOrderly(r *run) error {
	topic := r.topic("Orderly")
	p, err := r.newProducer("orderly", producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return err
	}
	defer p.Shutdown()
	for i := range 40 {
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("orderly %d", i))).WithShardingKey(fmt.Sprint(i % 4))
		if err := sent(p.SendSync(context.Background(), m)); err != nil {
			return err
		}
	}
	box := newInbox()
	var mu sync.Mutex
	last := map[int]int64{}
	var wrong error
	c, err := r.pushConsumer("orderly", "", consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	err = c.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			mu.Lock()
			before, ok := last[m.Queue.QueueId]
			if ok && m.QueueOffset != before+1 {
				wrong = fmt.Errorf("queue %d: offset %d after %d", m.Queue.QueueId, m.QueueOffset, before)
			}
			last[m.Queue.QueueId] = m.QueueOffset
			mu.Unlock()
			box.put("one", m)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Shutdown()
	if err := box.waitFor(40); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return wrong
}

func pushRetry(r *run) error {
	topic, retry := r.topic("Retry"), "%RETRY%"+r.group("retry")
	if err := r.createTopic(topic, 1); err != nil {
		return err
	}
	if err := r.createTopic(retry, 1); err != nil {
		return err
	}
	p, err := r.newProducer("retry_p")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	if err := sent(p.SendSync(context.Background(), primitive.NewMessage(topic, []byte("again")))); err != nil {
		return err
	}
	again := make(chan error, 8)
	c, err := r.pushConsumer("retry", "")
	if err != nil {
		return err
	}
	err = c.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			if m.ReconsumeTimes == 0 {
				return consumer.ConsumeRetryLater, nil
			}
			if m.ReconsumeTimes != 1 || string(m.Body) != "again" {
				again <- fmt.Errorf("redelivered %q with reconsumeTimes %d", m.Body, m.ReconsumeTimes)
			}
			again <- nil
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Shutdown()
	select {
	case err := <-again:
		return err
	case <-time.After(patience):
		return errors.New("the message was not redelivered")
	}
}

func pull(r *run) error {
	topic := r.topic("Pull")
	if err := r.createTopic(topic, 1); err != nil {
		return err
	}
	p, err := r.newProducer("pull_p")
	if err != nil {
		return err
	}
	defer p.Shutdown()
	var queue *primitive.MessageQueue
	for i := range 10 {
		res, err := p.SendSync(context.Background(), primitive.NewMessage(topic, []byte(fmt.Sprintf("pull %d", i))))
		if err := sent(res, err); err != nil {
			return err
		}
		queue = res.MessageQueue
	}
	c, err := rocketmq.NewPullConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{r.nameServer}),
		consumer.WithGroupName(r.group("pull")),
		consumer.WithInstance("pull"+r.stamp),
	)
	if err != nil {
		return err
	}
	if err := c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Shutdown()
	next := int64(3)
	var got []string
	for len(got) < 7 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		res, err := c.PullFrom(ctx, queue, next, 4)
		cancel()
		if err != nil {
			return fmt.Errorf("pull at %d: %w", next, err)
		}
		if res.Status != primitive.PullFound {
			return fmt.Errorf("pull at %d: status %d after %d messages", next, res.Status, len(got))
		}
		for _, m := range res.GetMessageExts() {
			got = append(got, string(m.Body))
		}
		next = res.NextBeginOffset
	}
	if got[0] != "pull 3" || got[6] != "pull 9" || len(got) != 7 || next != 10 {
		return fmt.Errorf("pulled %v, next %d", got, next)
	}
	return nil
}
