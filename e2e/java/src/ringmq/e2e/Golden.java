package ringmq.e2e;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.netty.NettyRemotingClient;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.body.ClusterInfo;
import org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Writes the records and speaks the requests that e2e/golden keeps. Arguments: name server, full|short. */
public class Golden {
    static String namesrv;
    static final String TOPIC = "GoldenTopic";

    public static void main(String[] args) {
        try {
            run(args);
        } catch (Throwable t) {
            t.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }

    static void run(String[] args) throws Exception {
        namesrv = args[0];
        boolean full = args[1].equals("full");
        String suffix = full ? "" : "_short";
        DefaultMQAdminExt admin = new DefaultMQAdminExt(5000L);
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("golden-admin");
        admin.start();
        ClusterInfo info = null;
        for (int i = 0; i < 100; i++) {
            info = admin.examineBrokerClusterInfo();
            if (info.getBrokerAddrTable() != null && !info.getBrokerAddrTable().isEmpty()) {
                break;
            }
            Thread.sleep(100);
        }
        String broker = info.getBrokerAddrTable().values().iterator().next().selectBrokerAddr();
        String topic = TOPIC + suffix;
        admin.createAndUpdateTopicConfig(broker, new TopicConfig(topic, 2, 2));
        for (int i = 0; i < 100; i++) {
            try {
                admin.examineTopicRouteInfo(topic);
                break;
            } catch (Exception e) {
                Thread.sleep(100);
            }
        }
        produce(topic, full);
        if (full) {
            transaction(topic);
            SubscriptionGroupConfig group = new SubscriptionGroupConfig();
            group.setGroupName("golden-group");
            admin.createAndUpdateSubscriptionGroupConfig(broker, group);
        }
        if (full) {
            longTopic(broker);
        }
        consume(topic, "golden-consumer" + suffix, full);
        orderly(topic, "golden-orderly" + suffix);
        pull(topic, "golden-pull" + suffix);
        admin.shutdown();
        System.out.println("ok golden " + args[1]);
    }

    /** Only retry topics may have more than 127 bytes; the driver put this group into the broker's file. */
    static String longTopicName() {
        return "%RETRY%golden-long-" + "g".repeat(120);
    }

    static Message msg(String topic, String tags, String keys, String body) {
        return new Message(topic, tags, keys, body.getBytes(StandardCharsets.UTF_8));
    }

    static void produce(String topic, boolean full) throws Exception {
        DefaultMQProducer p = new DefaultMQProducer("golden-producer");
        p.setNamesrvAddr(namesrv);
        p.setInstanceName("golden-producer");
        p.start();
        List<MessageQueue> queues = p.fetchPublishMessageQueues(topic);
        Collections.sort(queues);
        MessageQueue q0 = queues.get(0);
        MessageQueue q1 = queues.get(1);
        SendResult first = p.send(msg(topic, null, null, "hello"), q0);
        p.send(msg(topic, "TagA", "k1", "tagged and keyed"), q0);
        p.send(msg(topic, "TagB", "k1 k2", "two keys"), q1);
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            batch.add(msg(topic, "TagBatch", "batch" + i, "batch record " + i));
        }
        p.send(batch, q0);
        byte[] big = new byte[6000];
        Random random = new Random(42);
        for (int i = 0; i < big.length; i++) {
            big[i] = (byte) ("abcdefghijklmnop".charAt(random.nextInt(16)));
        }
        p.send(new Message(topic, "TagZ", "compressed", big), q1);
        if (full) {
            p.send(msg(topic, "Aa", "collide", "tag with the hash of the next"), q0);
            p.send(msg(topic, "BB", "collide", "tag with the hash of the one before"), q0);
            Message uni = msg(topic, "Grüße", "ключ", "body \u4f60\u597d \ud83d\ude80");
            uni.putUserProperty("naïve", "prøperty \u4f60\u597d");
            uni.putUserProperty("plain", "1");
            p.send(uni, q1);
            Message nowait = msg(topic, "TagA", null, "does not wait for the store");
            nowait.setWaitStoreMsgOK(false);
            p.send(nowait, q0);
            Message delay = msg(topic, "TagDelay", "delayed", "delayed by one level");
            delay.setDelayTimeLevel(1);
            p.send(delay);
            p.sendOneway(msg(topic, "TagOneway", "oneway", "one way"), q1);
            CountDownLatch done = new CountDownLatch(1);
            p.send(msg(topic, "TagAsync", "async", "asynchronous"), q1, new SendCallback() {
                @Override public void onSuccess(SendResult r) {
                    done.countDown();
                }

                @Override public void onException(Throwable e) {
                    e.printStackTrace();
                }
            });
            done.await(5, TimeUnit.SECONDS);
        }
        p.send(msg(topic, "TagR", "again", "to be consumed later once"), q0);
        Thread.sleep(1500);
        p.viewMessage(topic, first.getOffsetMsgId());
        p.viewMessage(topic, first.getMsgId());
        p.queryMessage(topic, "k1", 10, 0, Long.MAX_VALUE);
        p.searchOffset(q0, System.currentTimeMillis() - 60000);
        p.maxOffset(q0);
        p.minOffset(q0);
        p.earliestMsgStoreTime(q0);
        try {
            p.send(msg("no|such-topic-golden" + "%", null, null, "x"), new MessageQueue("TBW-none", q0.getBrokerName(), 0));
        } catch (Exception e) {
            // the frame of the refusal is what is wanted
        }
        p.shutdown();
    }

    static void transaction(String topic) throws Exception {
        TransactionMQProducer p = new TransactionMQProducer("golden-tx");
        p.setNamesrvAddr(namesrv);
        p.setInstanceName("golden-tx");
        p.setTransactionListener(new TransactionListener() {
            @Override public LocalTransactionState executeLocalTransaction(Message m, Object arg) {
                return (LocalTransactionState) arg;
            }

            @Override public LocalTransactionState checkLocalTransaction(MessageExt m) {
                return LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        p.start();
        p.sendMessageInTransaction(msg(topic, "TagTx", "committed", "transaction committed"), LocalTransactionState.COMMIT_MESSAGE);
        p.sendMessageInTransaction(msg(topic, "TagTx", "rolledback", "transaction rolled back"), LocalTransactionState.ROLLBACK_MESSAGE);
        Thread.sleep(1000);
        p.shutdown();
    }

    /** Clients refuse names of more than 127 bytes, so this command is made by hand. */
    static void longTopic(String broker) throws Exception {
        NettyRemotingClient raw = new NettyRemotingClient(new NettyClientConfig());
        raw.start();
        RemotingCommand c = RemotingCommand.createRequestCommand(310, null);
        c.addExtField("a", "golden-producer");
        c.addExtField("b", longTopicName());
        c.addExtField("c", "TBW102");
        c.addExtField("d", "4");
        c.addExtField("e", "0");
        c.addExtField("f", "0");
        c.addExtField("g", Long.toString(System.currentTimeMillis()));
        c.addExtField("h", "0");
        c.addExtField("i", "KEYS\u0001long\u0002TAGS\u0001TagLong\u0002");
        c.addExtField("j", "0");
        c.addExtField("k", "false");
        c.addExtField("m", "false");
        c.setBody("a record with a topic of more than 127 bytes".getBytes(StandardCharsets.UTF_8));
        RemotingCommand r = raw.invokeSync(broker, c, 5000);
        System.out.println("long topic: " + r.getCode() + " " + r.getRemark());
        raw.shutdown();
    }

    static void consume(String topic, String group, boolean full) throws Exception {
        CountDownLatch again = new CountDownLatch(1);
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(group);
        c.setPollNameServerInterval(1000);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.setMaxReconsumeTimes(1);
        c.subscribe(topic, "TagA || TagB || TagR || TagZ");
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            for (MessageExt m : msgs) {
                if ("TagR".equals(m.getTags())) {
                    if (m.getReconsumeTimes() > 0) {
                        again.countDown();
                    }
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        System.out.println("redelivered: " + again.await(30, TimeUnit.SECONDS));
        Thread.sleep(2000);
        c.shutdown();
    }

    static void orderly(String topic, String group) throws Exception {
        CountDownLatch some = new CountDownLatch(2);
        DefaultMQPushConsumer c = new DefaultMQPushConsumer(group);
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(group);
        c.setPollNameServerInterval(1000);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe(topic, "*");
        c.registerMessageListener((MessageListenerOrderly) (msgs, ctx) -> {
            some.countDown();
            return ConsumeOrderlyStatus.SUCCESS;
        });
        c.start();
        System.out.println("orderly: " + some.await(30, TimeUnit.SECONDS));
        c.shutdown();
    }

    static void pull(String topic, String group) throws Exception {
        DefaultLitePullConsumer c = new DefaultLitePullConsumer(group);
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(group);
        c.setPollNameServerInterval(1000);
        c.setAutoCommit(false);
        c.start();
        Set<MessageQueue> queues = new java.util.HashSet<>(c.fetchMessageQueues(topic));
        c.assign(queues);
        for (MessageQueue q : queues) {
            c.seekToBegin(q);
        }
        System.out.println("pulled: " + c.poll(5000).size());
        c.commitSync();
        for (MessageQueue q : queues) {
            c.committed(q);
            c.offsetForTimestamp(q, System.currentTimeMillis() - 3600000);
        }
        c.shutdown();
    }
}
