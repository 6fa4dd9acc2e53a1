package ringmq.e2e;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Official clients with names that are new in every run, so that a broker can be used again. */
final class Clients {
    static final long PATIENCE = 30_000;
    final String namesrv;
    final String broker;
    final String stamp = Long.toHexString(System.nanoTime() & 0xffffff);
    final DefaultMQAdminExt admin = new DefaultMQAdminExt(10_000L);
    final NettyRemotingClient raw;

    Clients(String namesrv, String broker) throws Exception {
        this.namesrv = namesrv;
        this.broker = broker;
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("admin" + stamp);
        admin.start();
        raw = new NettyRemotingClient(new NettyClientConfig());
        raw.start();
        eventually("no broker is registered with the name server", () -> {
            var table = admin.examineBrokerClusterInfo().getBrokerAddrTable();
            return table != null && !table.isEmpty();
        });
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void eventually(String otherwise, Condition c) throws Exception {
        eventually(otherwise, PATIENCE, c);
    }

    static void eventually(String otherwise, long millis, Condition c) throws Exception {
        long end = System.currentTimeMillis() + millis;
        Exception last = null;
        while (System.currentTimeMillis() < end) {
            try {
                last = null;
                if (c.holds()) {
                    return;
                }
            } catch (Exception e) {
                last = e;
            }
            Thread.sleep(100);
        }
        throw new Report.Wrong(otherwise + " (waited " + millis + " ms" + (last == null ? "" : ", last: " + last) + ")");
    }

    String topic(String name) {
        return "E2E_" + name + "_" + stamp;
    }

    String group(String name) {
        return "e2e_" + name + "_" + stamp;
    }

    String createTopic(String name, int queues) throws Exception {
        String topic = topic(name);
        admin.createAndUpdateTopicConfig(broker, new TopicConfig(topic, queues, queues));
        eventually("no route of the created topic " + topic, () -> !admin.examineTopicRouteInfo(topic).getQueueDatas().isEmpty());
        return topic;
    }

    DefaultMQProducer producer(String name) throws Exception {
        DefaultMQProducer p = new DefaultMQProducer(group(name));
        p.setNamesrvAddr(namesrv);
        p.setInstanceName(name + stamp);
        p.setPollNameServerInterval(1000);
        p.setSendMsgTimeout(10_000);
        p.setRetryTimesWhenSendFailed(0);
        p.setRetryTimesWhenSendAsyncFailed(0);
        p.start();
        return p;
    }

    /** A push consumer that is not started yet. */
    DefaultMQPushConsumer push(String group, String instance) {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(instance + stamp);
        c.setPollNameServerInterval(1000);
        c.setHeartbeatBrokerInterval(1000);
        c.setPersistConsumerOffsetInterval(1000);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        return c;
    }

    /** Starts a push consumer that puts all messages into the list and accepts them. */
    DefaultMQPushConsumer collect(String group, String instance, String topic, String tags, Inbox box) throws Exception {
        DefaultMQPushConsumer c = push(group, instance);
        c.subscribe(topic, tags);
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            box.addAll(msgs);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        return c;
    }

    DefaultLitePullConsumer lite(String name) throws Exception {
        DefaultLitePullConsumer c = new DefaultLitePullConsumer(group(name));
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(name + stamp);
        c.setPollNameServerInterval(1000);
        c.setAutoCommit(false);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        return c;
    }

    @SuppressWarnings("deprecation")
    DefaultMQPullConsumer pull(String name) throws Exception {
        DefaultMQPullConsumer c = new DefaultMQPullConsumer(group(name));
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(name + stamp);
        c.start();
        return c;
    }

    List<MessageQueue> queues(DefaultMQProducer p, String topic) throws Exception {
        List<MessageQueue> queues = new ArrayList<>(p.fetchPublishMessageQueues(topic));
        Collections.sort(queues);
        return queues;
    }

    static Message message(String topic, String tags, String body) {
        return new Message(topic, tags, body.getBytes(StandardCharsets.UTF_8));
    }

    static String text(Message m) {
        return new String(m.getBody(), StandardCharsets.UTF_8);
    }

    static SendResult ok(SendResult r) {
        Report.equal(SendStatus.SEND_OK, r.getSendStatus(), "send status");
        Report.check(r.getOffsetMsgId() != null && r.getOffsetMsgId().length() == 32, "offset message id " + r.getOffsetMsgId());
        Report.check(r.getQueueOffset() >= 0, "queue offset " + r.getQueueOffset());
        return r;
    }

    /** A send command made by hand, for what the clients refuse by themselves. */
    RemotingCommand rawSend(String topic, int queueId, String defaultTopic, byte[] body, String... more) throws Exception {
        RemotingCommand c = RemotingCommand.createRequestCommand(310, null);
        c.addExtField("a", group("raw"));
        c.addExtField("b", topic);
        c.addExtField("c", defaultTopic);
        c.addExtField("d", "4");
        c.addExtField("e", Integer.toString(queueId));
        c.addExtField("f", "0");
        c.addExtField("g", Long.toString(System.currentTimeMillis()));
        c.addExtField("h", "0");
        c.addExtField("i", "KEYS\u0001raw\u0002");
        c.addExtField("j", "0");
        c.addExtField("k", "false");
        c.addExtField("m", "false");
        for (int i = 0; i + 1 < more.length; i += 2) {
            c.addExtField(more[i], more[i + 1]);
        }
        c.setBody(body);
        return raw.invokeSync(broker, c, 10_000);
    }

    /** What consumers were given. */
    static final class Inbox {
        private final BlockingQueue<MessageExt> all = new LinkedBlockingQueue<>();

        void addAll(List<MessageExt> msgs) {
            all.addAll(msgs);
        }

        int size() {
            return all.size();
        }

        List<MessageExt> list() {
            return new ArrayList<>(all);
        }

        List<String> texts() {
            List<String> out = new ArrayList<>();
            for (MessageExt m : all) {
                out.add(text(m));
            }
            Collections.sort(out);
            return out;
        }

        /** Waits for n messages, then a moment for one too many. */
        List<MessageExt> exactly(int n) throws Exception {
            atLeast(n);
            TimeUnit.MILLISECONDS.sleep(300);
            Report.equal(n, all.size(), "number of messages");
            return list();
        }

        void atLeast(int n) throws Exception {
            long end = System.currentTimeMillis() + PATIENCE;
            while (all.size() < n) {
                if (System.currentTimeMillis() > end) {
                    throw new Report.Wrong(all.size() + " of " + n + " messages came in " + PATIENCE + " ms");
                }
                Thread.sleep(20);
            }
        }
    }
}
