package ringmq.e2e;

import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Messages by key and id, offsets by time. */
@SuppressWarnings("deprecation")
final class Querying {
    private final Clients c;

    Querying(Clients c) {
        this.c = c;
    }

    void register(Map<String, Report.Scenario> all) {
        all.put("query-by-key", this::byKey);
        all.put("query-by-unique-key", this::byUniqueKey);
        all.put("query-by-offset-id", this::byOffsetId);
        all.put("search-offset-by-time", this::byTime);
    }

    private void byKey() throws Exception {
        String topic = c.createTopic("bykey", 4);
        String other = c.createTopic("bykeyother", 1);
        DefaultMQProducer p = c.producer("bykey");
        for (int i = 0; i < 20; i++) {
            Message m = Clients.message(topic, "T", Integer.toString(i));
            m.setKeys(List.of("order" + i % 5, "single" + i));
            Clients.ok(p.send(m));
        }
        Message same = Clients.message(other, "T", "other");
        same.setKeys("order1");
        Clients.ok(p.send(same));
        Clients.eventually("four messages by key", () -> find(p, topic, "order1", 10).size() == 4);
        for (MessageExt m : find(p, topic, "order1", 10)) {
            Report.equal(1, Integer.parseInt(Clients.text(m)) % 5, "message by key " + Clients.text(m));
        }
        Report.equal(1, find(p, topic, "single7", 10).size(), "messages by the second key");
        Report.equal(2, find(p, topic, "order2", 2).size(), "messages within the limit");
        Report.equal(1, find(p, other, "order1", 10).size(), "messages by key in the other topic");
        try {
            find(p, topic, "nosuchkey", 10);
            throw new Report.Wrong("a message was found for a key that was never sent");
        } catch (MQClientException e) {
            // no message is an exception of this client
        }
        p.shutdown();
    }

    private static List<MessageExt> find(DefaultMQProducer p, String topic, String key, int max) throws Exception {
        QueryResult r = p.queryMessage(topic, key, max, System.currentTimeMillis() - 600_000, System.currentTimeMillis() + 600_000);
        return r.getMessageList();
    }

    private void byUniqueKey() throws Exception {
        String topic = c.createTopic("byunique", 1);
        DefaultMQProducer p = c.producer("byunique");
        SendResult r = Clients.ok(p.send(Clients.message(topic, "T", "unique")));
        Clients.eventually("no message by unique key", () -> Clients.text(p.viewMessage(topic, r.getMsgId())).equals("unique"));
        Report.equal(r.getQueueOffset(), p.viewMessage(topic, r.getMsgId()).getQueueOffset(), "queue offset");
        p.shutdown();
    }

    private void byOffsetId() throws Exception {
        String topic = c.createTopic("byoffset", 1);
        DefaultMQProducer p = c.producer("byoffset");
        SendResult r = Clients.ok(p.send(Clients.message(topic, "T", "by offset")));
        MessageExt m = p.viewMessage(topic, r.getOffsetMsgId());
        Report.equal("by offset", Clients.text(m), "body");
        Report.equal(topic, m.getTopic(), "topic");
        p.shutdown();
    }

    private void byTime() throws Exception {
        String topic = c.createTopic("bytime", 1);
        DefaultMQProducer p = c.producer("bytime");
        MessageQueue q = c.queues(p, topic).get(0);
        SendResult fifth = null;
        for (int i = 0; i < 10; i++) {
            SendResult r = Clients.ok(p.send(Clients.message(topic, "T", Integer.toString(i)), q));
            fifth = i == 5 ? r : fifth;
            Thread.sleep(20); // gives each a time of its own
        }
        Clients.eventually("ten messages are not readable", () -> p.maxOffset(q) == 10);
        SendResult last = Clients.ok(p.send(Clients.message(topic, "T", "10"), q));
        MessageExt m = p.viewMessage(topic, last.getOffsetMsgId());
        Clients.eventually("the time of the last message does not find it", () -> p.searchOffset(q, m.getStoreTimestamp()) == 10);
        Report.equal(0, p.searchOffset(q, 0), "offset for a time before all");
        Report.equal(11, p.searchOffset(q, System.currentTimeMillis() + 3_600_000), "offset for a time after all");
        Report.equal(5, p.searchOffset(q, p.viewMessage(topic, fifth.getOffsetMsgId()).getStoreTimestamp()), "offset for a time within");
        long earliest = p.earliestMsgStoreTime(q);
        Report.check(earliest > 0 && earliest <= m.getStoreTimestamp(), "earliest store time " + earliest);
        p.shutdown();
    }
}
