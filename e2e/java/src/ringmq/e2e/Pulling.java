package ringmq.e2e;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Pull consumers, plain and lite. */
@SuppressWarnings("deprecation")
final class Pulling {
    private final Clients c;

    Pulling(Clients c) {
        this.c = c;
    }

    void register(Map<String, Report.Scenario> all) {
        all.put("lite-pull-subscribe", this::liteSubscribe);
        all.put("lite-pull-assign-seek-commit", this::liteAssign);
        all.put("pull-statuses-and-next-offsets", this::statuses);
        all.put("pull-held-until-arrival", this::held);
        all.put("pull-count-limits", this::limits);
    }

    private MessageQueue fill(DefaultMQProducer p, String topic, int n) throws Exception {
        MessageQueue q = c.queues(p, topic).get(0);
        for (int i = 0; i < n; i++) {
            Clients.ok(p.send(Clients.message(topic, i % 2 == 0 ? "even" : "odd", Integer.toString(i)), q));
        }
        return q;
    }

    private void liteSubscribe() throws Exception {
        String topic = c.createTopic("litesub", 2);
        DefaultMQProducer p = c.producer("litesub");
        fill(p, topic, 20);
        p.shutdown();
        DefaultLitePullConsumer consumer = c.lite("litesub");
        consumer.subscribe(topic, "even");
        consumer.start();
        List<MessageExt> got = poll(consumer, 10);
        Report.equal(10, got.size(), "messages with the tag");
        consumer.shutdown();
    }

    private static List<MessageExt> poll(DefaultLitePullConsumer consumer, int n) {
        List<MessageExt> got = new ArrayList<>();
        long end = System.currentTimeMillis() + Clients.PATIENCE;
        while (got.size() < n && System.currentTimeMillis() < end) {
            got.addAll(consumer.poll(500));
        }
        return got;
    }

    private void liteAssign() throws Exception {
        String topic = c.createTopic("liteassign", 1);
        DefaultMQProducer p = c.producer("liteassign");
        MessageQueue q = fill(p, topic, 10);
        DefaultLitePullConsumer consumer = c.lite("liteassign");
        consumer.start();
        Report.equal(1, consumer.fetchMessageQueues(topic).size(), "queues");
        consumer.assign(List.of(q));
        // First what comes by itself: the client may deliver the answer to a pull that is on its way while it seeks.
        Report.equal("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", texts(poll(consumer, 10)), "a new group's messages");
        consumer.seek(q, 7);
        List<MessageExt> got = poll(consumer, 3);
        Report.equal("[7, 8, 9]", texts(got), "after seek to 7");
        consumer.commit(Map.of(q, 10L), true);
        Clients.eventually("the committed offset is " + consumer.committed(q), () -> consumer.committed(q) == 10);
        consumer.seekToBegin(q);
        Report.equal("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", texts(poll(consumer, 10)), "after seek to the beginning");
        consumer.seekToEnd(q);
        Report.equal(0, consumer.poll(700).size(), "messages after seek to the end");
        Clients.ok(p.send(Clients.message(topic, "even", "last"), q));
        Report.equal("[last]", texts(poll(consumer, 1)), "after the end");
        consumer.shutdown();
        p.shutdown();
        DefaultLitePullConsumer again = c.lite("liteassign");
        again.setInstanceName("liteassign-again" + c.stamp);
        again.start();
        again.assign(List.of(q));
        Report.check(again.committed(q) >= 10, "committed offset of a new consumer of the group: " + again.committed(q));
        again.shutdown();
    }

    private static String texts(List<MessageExt> got) {
        List<String> texts = new ArrayList<>();
        got.forEach(m -> texts.add(Clients.text(m)));
        return texts.toString();
    }

    private void statuses() throws Exception {
        String topic = c.createTopic("statuses", 2);
        DefaultMQProducer p = c.producer("statuses");
        MessageQueue q = fill(p, topic, 10);
        MessageQueue empty = c.queues(p, topic).get(1);
        p.shutdown();
        DefaultMQPullConsumer consumer = c.pull("statuses");
        Clients.eventually("ten messages are not readable", () -> consumer.pull(q, "*", 9, 1).getPullStatus() == PullStatus.FOUND);
        want(consumer.pull(q, "*", 4, 32), PullStatus.FOUND, 10, 6);
        want(consumer.pull(q, "*", 0, 3), PullStatus.FOUND, 3, 3);
        want(consumer.pull(q, "odd", 0, 32), PullStatus.FOUND, 10, 5);
        want(consumer.pull(q, "neither", 0, 32), PullStatus.NO_MATCHED_MSG, 10, 0);
        want(consumer.pull(q, "*", 10, 32), PullStatus.NO_NEW_MSG, 10, 0);
        want(consumer.pull(q, "*", 11, 32), PullStatus.OFFSET_ILLEGAL, 10, 0);
        want(consumer.pull(empty, "*", 0, 32), PullStatus.NO_NEW_MSG, 0, 0);
        want(consumer.pull(empty, "*", 5, 32), PullStatus.OFFSET_ILLEGAL, 0, 0);
        PullResult r = consumer.pull(q, "*", 0, 32);
        Report.equal(0, r.getMinOffset(), "min offset");
        Report.equal(10, r.getMaxOffset(), "max offset");
        consumer.updateConsumeOffset(q, 6);
        consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(q);
        Clients.eventually("the committed offset cannot be read back", () -> consumer.fetchConsumeOffset(q, true) == 6);
        consumer.shutdown();
    }

    private static void want(PullResult r, PullStatus status, long next, int count) {
        Report.equal(status, r.getPullStatus(), "status of " + r);
        Report.equal(next, r.getNextBeginOffset(), "next offset of " + r);
        Report.equal(count, r.getMsgFoundList() == null ? 0 : r.getMsgFoundList().size(), "messages of " + r);
    }

    private void held() throws Exception {
        String topic = c.createTopic("held", 1);
        DefaultMQProducer p = c.producer("held");
        MessageQueue q = fill(p, topic, 1);
        DefaultMQPullConsumer consumer = c.pull("held");
        CompletableFuture<PullResult> answer = CompletableFuture.supplyAsync(() -> {
            try {
                return consumer.pullBlockIfNotFound(q, "odd", 1, 32);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        });
        Thread.sleep(1000);
        Report.check(!answer.isDone(), "the pull was not held: " + (answer.isDone() ? answer.handle((r, e) -> e == null ? r : e).get() : ""));
        Clients.ok(p.send(Clients.message(topic, "odd", "woken"), q));
        PullResult r = answer.get(15, TimeUnit.SECONDS);
        want(r, PullStatus.FOUND, 2, 1);
        consumer.shutdown();
        p.shutdown();
    }

    private void limits() throws Exception {
        String topic = c.createTopic("limits", 1);
        DefaultMQProducer p = c.producer("limits");
        MessageQueue q = fill(p, topic, 80);
        p.shutdown();
        DefaultMQPullConsumer consumer = c.pull("limits");
        Clients.eventually("80 messages are not readable", () -> consumer.pull(q, "*", 79, 1).getPullStatus() == PullStatus.FOUND);
        int n = consumer.pull(q, "*", 0, 200).getMsgFoundList().size();
        Report.check(n >= 1 && n <= 80, "messages of one pull: " + n);
        long next = 0;
        int sum = 0;
        while (next < 80) {
            PullResult r = consumer.pull(q, "*", next, 32);
            Report.equal(PullStatus.FOUND, r.getPullStatus(), "status");
            Report.check(r.getMsgFoundList().size() <= 32, "more than asked for: " + r.getMsgFoundList().size());
            for (MessageExt m : r.getMsgFoundList()) {
                Report.equal(sum++, m.getQueueOffset(), "queue offset");
            }
            next = r.getNextBeginOffset();
        }
        Report.equal(80, sum, "messages");
        consumer.shutdown();
    }
}
