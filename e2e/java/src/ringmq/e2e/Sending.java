package ringmq.e2e;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Producers. What was sent is consumed and compared. */
final class Sending {
    private final Clients c;

    Sending(Clients c) {
        this.c = c;
    }

    void register(Map<String, Report.Scenario> all) {
        all.put("send-sync", this::sync);
        all.put("send-async", this::async);
        all.put("send-oneway", this::oneway);
        all.put("send-batch", this::batch);
        all.put("send-selected-queue-offsets-contiguous", this::contiguous);
        all.put("send-creates-topic", this::createsTopic);
        all.put("send-properties-unicode", this::properties);
        all.put("send-body-compressed", this::compressed);
        all.put("send-body-3MiB", this::threeMegabytes);
        all.put("send-delay-level", this::delayLevel);
    }

    private void consumedOnce(String name, String topic, int n, String prefix) throws Exception {
        Clients.Inbox box = new Clients.Inbox();
        var consumer = c.collect(c.group(name), name + "-consumer", topic, "*", box);
        try {
            Set<String> texts = new HashSet<>();
            for (MessageExt m : box.exactly(n)) {
                texts.add(Clients.text(m));
            }
            for (int i = 0; i < n; i++) {
                Report.check(texts.contains(prefix + i), "missing: " + prefix + i);
            }
        } finally {
            consumer.shutdown();
        }
    }

    private void sync() throws Exception {
        String topic = c.createTopic("sync", 4);
        DefaultMQProducer p = c.producer("sync");
        for (int i = 0; i < 50; i++) {
            SendResult r = Clients.ok(p.send(Clients.message(topic, "T", "sync " + i)));
            Report.equal(topic, r.getMessageQueue().getTopic(), "topic of the result");
        }
        p.shutdown();
        consumedOnce("sync", topic, 50, "sync ");
    }

    private void async() throws Exception {
        String topic = c.createTopic("async", 4);
        DefaultMQProducer p = c.producer("async");
        CountDownLatch left = new CountDownLatch(50);
        AtomicReference<Throwable> wrong = new AtomicReference<>();
        for (int i = 0; i < 50; i++) {
            p.send(Clients.message(topic, "T", "async " + i), new SendCallback() {
                @Override public void onSuccess(SendResult r) {
                    try {
                        Clients.ok(r);
                    } catch (Throwable t) {
                        wrong.set(t);
                    }
                    left.countDown();
                }

                @Override public void onException(Throwable e) {
                    wrong.set(e);
                    left.countDown();
                }
            });
        }
        Report.check(left.await(Clients.PATIENCE, TimeUnit.MILLISECONDS), "an asynchronous send was not answered");
        p.shutdown();
        Report.check(wrong.get() == null, "asynchronous send: " + wrong.get());
        consumedOnce("async", topic, 50, "async ");
    }

    private void oneway() throws Exception {
        String topic = c.createTopic("oneway", 4);
        DefaultMQProducer p = c.producer("oneway");
        for (int i = 0; i < 50; i++) {
            p.sendOneway(Clients.message(topic, "T", "oneway " + i));
        }
        consumedOnce("oneway", topic, 50, "oneway ");
        p.shutdown();
    }

    private void batch() throws Exception {
        String topic = c.createTopic("batch", 1);
        DefaultMQProducer p = c.producer("batch");
        for (int round = 0; round < 5; round++) {
            List<Message> batch = new ArrayList<>();
            for (int i = 0; i < 10; i++) {
                Message m = Clients.message(topic, "T", "batch " + (round * 10 + i));
                m.setKeys("key" + i);
                batch.add(m);
            }
            SendResult r = p.send(batch);
            Report.equal("SEND_OK", r.getSendStatus(), "send status");
            Report.equal(10, r.getMsgId().split(",").length, "message ids of a batch");
            Report.equal(10, r.getOffsetMsgId().split(",").length, "offset message ids of a batch");
            Report.equal(round * 10, r.getQueueOffset(), "queue offset of a batch");
        }
        p.shutdown();
        consumedOnce("batch", topic, 50, "batch ");
    }

    private void contiguous() throws Exception {
        String topic = c.createTopic("contiguous", 3);
        DefaultMQProducer p = c.producer("contiguous");
        List<MessageQueue> queues = c.queues(p, topic);
        Report.equal(3, queues.size(), "queues to send to");
        for (MessageQueue q : queues) {
            for (int i = 0; i < 10; i++) {
                SendResult r = Clients.ok(p.send(Clients.message(topic, "T", "x"), q));
                Report.equal(i, r.getQueueOffset(), "queue offset in " + q);
                Report.equal(q, r.getMessageQueue(), "queue");
            }
            Clients.eventually("the max offset of " + q + " is not 10", () -> p.maxOffset(q) == 10); // follows the append
            Report.equal(0, p.minOffset(q), "min offset of " + q);
        }
        p.shutdown();
    }

    private void createsTopic() throws Exception {
        DefaultMQProducer p = c.producer("creates");
        String topic = c.topic("creates");
        Clients.ok(p.send(Clients.message(topic, "T", "creates 0")));
        Clients.eventually("the topic has no route with four queues", () -> {
            var data = c.admin.examineTopicRouteInfo(topic).getQueueDatas();
            return data.size() == 1 && data.get(0).getWriteQueueNums() == 4 && data.get(0).getPerm() == 6;
        });
        p.shutdown();
        consumedOnce("creates", topic, 1, "creates ");
    }

    private void properties() throws Exception {
        String topic = c.createTopic("properties", 1);
        DefaultMQProducer p = c.producer("properties");
        Message m = Clients.message(topic, "Grüße", "\u4f60\u597d \ud83d\ude80");
        m.setKeys(Arrays.asList("k1", "ключ"));
        m.putUserProperty("naïve", "prøperty \u4f60");
        m.setFlag(7);
        SendResult sent = Clients.ok(p.send(m));
        p.shutdown();
        Clients.Inbox box = new Clients.Inbox();
        var consumer = c.collect(c.group("properties"), "properties-consumer", topic, "Grüße", box);
        MessageExt got = box.exactly(1).get(0);
        consumer.shutdown();
        Report.equal("\u4f60\u597d \ud83d\ude80", Clients.text(got), "body");
        Report.equal("Grüße", got.getTags(), "tags");
        Report.equal("k1 ключ", got.getKeys(), "keys");
        Report.equal("prøperty \u4f60", got.getUserProperty("naïve"), "user property");
        Report.equal(7, got.getFlag(), "flag");
        Report.equal(sent.getMsgId(), got.getMsgId(), "message id");
        Report.equal(sent.getQueueOffset(), got.getQueueOffset(), "queue offset");
        Report.equal(sent.getOffsetMsgId(), ((org.apache.rocketmq.common.message.MessageClientExt) got).getOffsetMsgId(), "offset message id");
        Report.check(Math.abs(got.getStoreTimestamp() - System.currentTimeMillis()) < 60_000, "store timestamp " + got.getStoreTimestamp());
        Report.check(got.getBornHostString() != null && got.getStoreHost() != null, "hosts");
    }

    private void compressed() throws Exception {
        body("compressed", "abcdefgh".repeat(1000).getBytes());
    }

    private void threeMegabytes() throws Exception {
        byte[] body = new byte[3 << 20];
        new Random(3).nextBytes(body);
        body("large", body);
    }

    private void body(String name, byte[] body) throws Exception {
        String topic = c.createTopic(name, 1);
        DefaultMQProducer p = c.producer(name);
        Clients.ok(p.send(new Message(topic, body)));
        p.shutdown();
        Clients.Inbox box = new Clients.Inbox();
        var consumer = c.collect(c.group(name), name + "-consumer", topic, "*", box);
        Report.check(Arrays.equals(body, box.exactly(1).get(0).getBody()), "the body came back changed");
        consumer.shutdown();
    }

    private void delayLevel() throws Exception {
        String topic = c.createTopic("delay", 1);
        Clients.Inbox box = new Clients.Inbox();
        var consumer = c.collect(c.group("delay"), "delay-consumer", topic, "*", box);
        DefaultMQProducer p = c.producer("delay");
        Message m = Clients.message(topic, "T", "delayed");
        m.setDelayTimeLevel(2);
        long begin = System.currentTimeMillis();
        Clients.ok(p.send(m));
        MessageExt got = box.exactly(1).get(0);
        long took = got.getStoreTimestamp() - begin;
        p.shutdown();
        consumer.shutdown();
        Report.check(took >= 900 && took < 10_000, "delivered after " + took + " ms instead of one second");
        Report.equal(topic, got.getTopic(), "topic");
    }
}
