package ringmq.e2e;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.heartbeat.MessageModel;

/** Push consumers. */
final class Pushing {
    private final Clients c;

    Pushing(Clients c) {
        this.c = c;
    }

    void register(Map<String, Report.Scenario> all) {
        all.put("push-tags", this::tags);
        all.put("push-clustering-two-consumers-rebalance", this::clustering);
        all.put("push-broadcasting", this::broadcasting);
        all.put("push-orderly-two-consumers", this::orderly);
        all.put("push-orderly-suspend-keeps-order", this::orderlySuspend);
        all.put("push-consume-later-retry-dlq", this::retryDlq);
        all.put("push-orderly-max-retries-dlq", this::orderlyDlq);
        all.put("push-offsets-survive-consumer-restart", this::restart);
        all.put("push-latency-long-poll-wakes", this::wakes);
        all.put("push-from-timestamp", this::fromTimestamp);
    }

    private void tags() throws Exception {
        String topic = c.createTopic("tags", 2);
        DefaultMQProducer p = c.producer("tags");
        // Aa and BB have the same hash: the broker lets both through, the client sorts them out.
        String[] tags = {"a", "b", "c", "Aa", "BB", null};
        for (int i = 0; i < 60; i++) {
            Clients.ok(p.send(Clients.message(topic, tags[i % tags.length], String.valueOf(tags[i % tags.length]))));
        }
        p.shutdown();
        Clients.Inbox box = new Clients.Inbox();
        Clients.Inbox collision = new Clients.Inbox();
        DefaultMQPushConsumer two = c.collect(c.group("tags"), "tags-1", topic, "a || b", box);
        DefaultMQPushConsumer one = c.collect(c.group("tags2"), "tags-2", topic, "Aa", collision);
        for (MessageExt m : box.exactly(20)) {
            Report.check("a".equals(m.getTags()) || "b".equals(m.getTags()), "unwanted tag " + m.getTags());
        }
        for (MessageExt m : collision.exactly(10)) {
            Report.equal("Aa", m.getTags(), "tag");
        }
        two.shutdown();
        one.shutdown();
    }

    private void clustering() throws Exception {
        String topic = c.createTopic("cluster", 4);
        String group = c.group("cluster");
        Clients.Inbox a = new Clients.Inbox();
        Clients.Inbox b = new Clients.Inbox();
        DefaultMQProducer p = c.producer("cluster");
        DefaultMQPushConsumer first = c.collect(group, "cluster-a", topic, "*", a);
        sendEach(p, topic, 20, "alone ");
        a.atLeast(20);
        DefaultMQPushConsumer second = c.collect(group, "cluster-b", topic, "*", b);
        Clients.eventually("the queues were not shared two and two", () ->
            assigned(first, topic) == 2 && assigned(second, topic) == 2);
        sendEach(p, topic, 40, "shared ");
        Clients.eventually("messages missing", () -> distinct(a, b) == 60);
        Report.check(b.size() >= 10, "the second consumer got only " + b.size());
        first.shutdown();
        Clients.eventually("the queues of the consumer that left were not taken over", () -> assigned(second, topic) == 4);
        sendEach(p, topic, 20, "left ");
        Clients.eventually("messages missing after a consumer left", () -> distinct(a, b) == 80);
        second.shutdown();
        p.shutdown();
    }

    private static long assigned(DefaultMQPushConsumer consumer, String topic) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(q -> q.getTopic().equals(topic)).count();
    }

    private static int distinct(Clients.Inbox... boxes) {
        Set<String> texts = new HashSet<>();
        for (Clients.Inbox box : boxes) {
            texts.addAll(box.texts());
        }
        return texts.size();
    }

    private void sendEach(DefaultMQProducer p, String topic, int n, String prefix) throws Exception {
        List<MessageQueue> queues = c.queues(p, topic);
        for (int i = 0; i < n; i++) {
            Clients.ok(p.send(Clients.message(topic, "T", prefix + i), queues.get(i % queues.size())));
        }
    }

    private void broadcasting() throws Exception {
        String topic = c.createTopic("broadcast", 4);
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        List<Clients.Inbox> boxes = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Clients.Inbox box = new Clients.Inbox();
            DefaultMQPushConsumer consumer = c.push(c.group("broadcast"), "broadcast-" + i);
            consumer.setMessageModel(MessageModel.BROADCASTING);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
                box.addAll(msgs);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            consumers.add(consumer);
            boxes.add(box);
        }
        DefaultMQProducer p = c.producer("broadcast");
        sendEach(p, topic, 20, "broadcast ");
        p.shutdown();
        for (Clients.Inbox box : boxes) {
            box.exactly(20);
            Report.equal(20, distinct(box), "different messages");
        }
        consumers.forEach(DefaultMQPushConsumer::shutdown);
    }

    /** Records who works on which queue, and refuses two at a time and offsets out of order. */
    private static final class Order {
        final Map<Integer, Integer> busy = new ConcurrentHashMap<>();
        final Map<Integer, Long> next = new ConcurrentHashMap<>();
        final AtomicReference<String> wrong = new AtomicReference<>();
        final AtomicInteger count = new AtomicInteger();

        void work(MessageExt m, int who) {
            Integer other = busy.putIfAbsent(m.getQueueId(), who);
            if (other != null) {
                wrong.set("queue " + m.getQueueId() + " worked on by " + other + " and " + who);
            }
            Long before = next.get(m.getQueueId());
            if (before != null && m.getQueueOffset() > before + 1) {
                wrong.set("queue " + m.getQueueId() + ": offset " + m.getQueueOffset() + " after " + before);
            }
            if (before == null || m.getQueueOffset() > before) {
                next.put(m.getQueueId(), m.getQueueOffset());
                count.incrementAndGet();
            }
            try {
                Thread.sleep(2);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            busy.remove(m.getQueueId());
        }
    }

    private void orderly() throws Exception {
        String topic = c.createTopic("orderly", 4);
        Order order = new Order();
        DefaultMQProducer p = c.producer("orderly");
        sendEach(p, topic, 100, "");
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        AtomicInteger byLast = new AtomicInteger();
        for (int i = 0; i < 2; i++) {
            final int who = i;
            DefaultMQPushConsumer consumer = c.push(c.group("orderly"), "orderly-" + i);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener((MessageListenerOrderly) (msgs, ctx) -> {
                for (MessageExt m : msgs) {
                    order.work(m, who);
                    if (who == 1) {
                        byLast.incrementAndGet();
                    }
                }
                return ConsumeOrderlyStatus.SUCCESS;
            });
            consumer.start();
            consumers.add(consumer);
        }
        Clients.eventually("100 orderly messages missing", () -> order.count.get() == 100);
        Clients.eventually("the queues were not shared two and two", () ->
            assigned(consumers.get(0), topic) == 2 && assigned(consumers.get(1), topic) == 2);
        sendEach(p, topic, 100, "");
        Clients.eventually("200 orderly messages missing", () -> order.count.get() == 200);
        Report.check(byLast.get() > 0, "the second consumer was never given a lock");
        consumers.forEach(DefaultMQPushConsumer::shutdown);
        p.shutdown();
        Report.check(order.wrong.get() == null, order.wrong.get());
    }

    private void orderlySuspend() throws Exception {
        String topic = c.createTopic("suspend", 1);
        DefaultMQProducer p = c.producer("suspend");
        sendEach(p, topic, 5, "");
        p.shutdown();
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        AtomicInteger refused = new AtomicInteger();
        DefaultMQPushConsumer consumer = c.push(c.group("suspend"), "suspend");
        consumer.setSuspendCurrentQueueTimeMillis(200);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (msgs, ctx) -> {
            if (Clients.text(msgs.get(0)).equals("2") && refused.incrementAndGet() <= 2) {
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            }
            msgs.forEach(m -> seen.add(Clients.text(m)));
            return ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        Clients.eventually("messages missing", () -> seen.size() == 5);
        consumer.shutdown();
        Report.equal(List.of("0", "1", "2", "3", "4"), seen, "order");
    }

    private void retryDlq() throws Exception {
        String topic = c.createTopic("retry", 1);
        String group = c.group("retry");
        List<MessageExt> seen = Collections.synchronizedList(new ArrayList<>());
        DefaultMQPushConsumer consumer = c.push(group, "retry");
        consumer.setMaxReconsumeTimes(2);
        consumer.subscribe(topic, "TagR");
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            seen.addAll(msgs);
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        consumer.start();
        DefaultMQProducer p = c.producer("retry");
        org.apache.rocketmq.common.message.Message m = Clients.message(topic, "TagR", "again and again");
        m.setKeys("retrykey");
        String id = Clients.ok(p.send(m)).getMsgId();
        p.shutdown();
        String dlq = "%DLQ%" + group;
        Clients.eventually("no message in the dead letter queue", () -> c.admin.examineTopicStats(dlq).getOffsetTable()
            .values().stream().mapToLong(o -> o.getMaxOffset()).sum() == 1);
        consumer.shutdown();
        List<Integer> times = new ArrayList<>();
        for (MessageExt s : seen) {
            times.add(s.getReconsumeTimes());
            Report.equal("again and again", Clients.text(s), "body");
            Report.equal(topic, s.getTopic(), "topic shown to the listener");
            Report.equal(id, s.getMsgId(), "message id");
        }
        Report.equal(List.of(0, 1, 2), times, "reconsume times");
        // A dead letter queue is readable only after an administrator allows it in older versions; 5.5 makes it with 6.
        Clients.Inbox box = new Clients.Inbox();
        DefaultMQPushConsumer dead = c.collect(c.group("dead"), "dead", dlq, "*", box);
        MessageExt last = box.exactly(1).get(0);
        dead.shutdown();
        Report.equal("again and again", Clients.text(last), "body in the dead letter queue");
        Report.equal("retrykey", last.getKeys(), "keys in the dead letter queue");
        Report.equal(topic, last.getProperty("RETRY_TOPIC"), "RETRY_TOPIC");
        Report.check(last.getProperty("ORIGIN_MESSAGE_ID") != null, "no ORIGIN_MESSAGE_ID");
    }

    private void orderlyDlq() throws Exception {
        String topic = c.createTopic("orderlydlq", 1);
        String group = c.group("orderlydlq");
        DefaultMQProducer p = c.producer("orderlydlq");
        sendEach(p, topic, 2, "");
        p.shutdown();
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        DefaultMQPushConsumer consumer = c.push(group, "orderlydlq");
        consumer.setMaxReconsumeTimes(1);
        consumer.setSuspendCurrentQueueTimeMillis(100);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (msgs, ctx) -> {
            String t = Clients.text(msgs.get(0));
            seen.add(t);
            return t.equals("0") ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        Clients.eventually("no message in the dead letter queue", () -> c.admin.examineTopicStats("%DLQ%" + group)
            .getOffsetTable().values().stream().mapToLong(o -> o.getMaxOffset()).sum() == 1);
        Clients.eventually("the message behind the dead one was not consumed", () -> seen.contains("1"));
        consumer.shutdown();
    }

    private void restart() throws Exception {
        String topic = c.createTopic("restart", 2);
        String group = c.group("restart");
        DefaultMQProducer p = c.producer("restart");
        sendEach(p, topic, 10, "before ");
        Clients.Inbox first = new Clients.Inbox();
        DefaultMQPushConsumer consumer = c.collect(group, "restart-1", topic, "*", first);
        first.exactly(10);
        consumer.shutdown(); // commits
        Clients.eventually("the offsets did not reach the broker", () ->
            c.admin.examineConsumeStats(group, topic).computeTotalDiff() == 0);
        sendEach(p, topic, 6, "after ");
        p.shutdown();
        Clients.Inbox second = new Clients.Inbox();
        DefaultMQPushConsumer again = c.collect(group, "restart-2", topic, "*", second);
        for (MessageExt m : second.exactly(6)) {
            Report.check(Clients.text(m).startsWith("after "), "consumed twice: " + Clients.text(m));
        }
        again.shutdown();
    }

    private void wakes() throws Exception {
        String topic = c.createTopic("wakes", 1);
        Clients.Inbox box = new Clients.Inbox();
        DefaultMQPushConsumer consumer = c.collect(c.group("wakes"), "wakes", topic, "T", box);
        DefaultMQProducer p = c.producer("wakes");
        sendEach(p, topic, 1, "first ");
        box.exactly(1);
        Map<Integer, Long> took = new HashMap<>();
        for (int i = 0; i < 10; i++) {
            Thread.sleep(150); // lets the next pull be held by the broker
            long begin = System.nanoTime();
            Clients.ok(p.send(Clients.message(topic, "T", "wake " + i)));
            box.atLeast(i + 2);
            took.put(i, (System.nanoTime() - begin) / 1_000_000);
        }
        consumer.shutdown();
        p.shutdown();
        List<Long> sorted = new ArrayList<>(took.values());
        Collections.sort(sorted);
        Report.check(sorted.get(5) < 1000, "the median time from send to consumption is " + sorted.get(5) + " ms: held pulls are not woken");
    }

    private void fromTimestamp() throws Exception {
        String topic = c.createTopic("fromtime", 1);
        DefaultMQProducer p = c.producer("fromtime");
        sendEach(p, topic, 5, "old ");
        Thread.sleep(2100); // the client gives the time in whole seconds
        String since = org.apache.rocketmq.common.UtilAll.timeMillisToHumanString3(System.currentTimeMillis());
        Thread.sleep(1100);
        sendEach(p, topic, 5, "new ");
        p.shutdown();
        DefaultMQPushConsumer consumer = c.push(c.group("fromtime"), "fromtime");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
        consumer.setConsumeTimestamp(since);
        Clients.Inbox box = new Clients.Inbox();
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            box.addAll(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        // A new group on a young topic starts at 0 whatever it asks for (the broker answers offset 0), or at the time.
        Clients.eventually("neither the 5 new messages nor all 10 came", () -> {
            List<String> texts = box.texts();
            long old = texts.stream().filter(t -> t.startsWith("old ")).count();
            return texts.size() - old == 5 && (old == 0 || old == 5);
        });
        consumer.shutdown();
    }
}
