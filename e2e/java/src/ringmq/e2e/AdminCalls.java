package ringmq.e2e;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.auth.config.AuthConfig;
import org.apache.rocketmq.broker.out.BrokerOuterAPI;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.netty.NettyClientConfig;
import org.apache.rocketmq.remoting.protocol.body.ConsumeMessageDirectlyResult;
import org.apache.rocketmq.remoting.protocol.body.ConsumeStatsList;
import org.apache.rocketmq.remoting.protocol.body.QueueTimeSpan;
import org.apache.rocketmq.remoting.protocol.heartbeat.SubscriptionData;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** Requests that the command line tool has no command for: the dashboard sends them, and a slave that copies its master's tables. */
final class AdminCalls {
    private final String namesrv;
    private final String broker;
    private final String brokerName;
    private final DefaultMQPushConsumer consumer;
    private final SendResult sent;

    AdminCalls(String namesrv, String broker, String brokerName, DefaultMQPushConsumer consumer, SendResult sent) {
        this.namesrv = namesrv;
        this.broker = broker;
        this.brokerName = brokerName;
        this.consumer = consumer;
        this.sent = sent;
    }

    void run() throws Exception {
        DefaultMQAdminExt admin = new DefaultMQAdminExt("admin-calls", 10_000);
        admin.setNamesrvAddr(namesrv);
        admin.setInstanceName("admin-calls");
        admin.start();
        try {
            who(admin);
            offsets(admin);
            // Only ours have this property.
            tables(!admin.getBrokerConfig(broker).containsKey("ioEngine"));
        } finally {
            admin.shutdown();
        }
        Report.scenario("mqadmin-calls-broker-shares-queues", this::brokerSharesQueues);
    }

    private void who(DefaultMQAdminExt admin) {
        Report.scenario("mqadmin-calls-who-consumes", () -> Report.check(
            admin.queryTopicConsumeByWho(Admin.TOPIC).getGroupList().contains(Admin.GROUP), "the group is missing"));
        Report.scenario("mqadmin-calls-topics-of-group", () -> Report.check(
            admin.queryTopicsByConsumer(Admin.GROUP).getTopicList().contains(Admin.TOPIC), "the topic is missing"));
        Report.scenario("mqadmin-calls-subscription", () -> {
            SubscriptionData s = admin.querySubscription(Admin.GROUP, Admin.TOPIC);
            Report.equal("TagA || TagB", s.getSubString(), "subscription");
        });
        Report.scenario("mqadmin-calls-consume-directly", () -> {
            ConsumeMessageDirectlyResult r = admin.consumeMessageDirectly(Admin.GROUP, consumer.buildMQClientId(), Admin.TOPIC, sent.getOffsetMsgId());
            Report.equal("CR_SUCCESS", r.getConsumeResult(), "result");
        });
        Report.scenario("mqadmin-calls-system-topics", () -> {
            Set<String> user = admin.getUserTopicConfig(broker, false, 5000).getTopicConfigTable().keySet();
            Report.check(user.contains(Admin.TOPIC) && !user.contains("TBW102") && !user.contains(brokerName), "user topics: " + user);
        });
        Report.scenario("mqadmin-calls-forbidden", () -> {
            Report.equal(false, admin.updateAndGetGroupReadForbidden(broker, "admin-clone", Admin.TOPIC, false).getReadable(), "readable");
            Report.equal(false, admin.updateAndGetGroupReadForbidden(broker, "admin-clone", Admin.TOPIC, null).getReadable(), "readable, asked");
            Report.equal(true, admin.updateAndGetGroupReadForbidden(broker, "admin-clone", Admin.TOPIC, true).getReadable(), "readable again");
        });
    }

    private void offsets(DefaultMQAdminExt admin) {
        Report.scenario("mqadmin-calls-time-span", () -> {
            List<QueueTimeSpan> spans = admin.queryConsumeTimeSpan(Admin.TOPIC, Admin.GROUP);
            Report.equal(4, spans.size(), "queues");
            long born = System.currentTimeMillis();
            Report.check(spans.stream().anyMatch(s -> s.getMinTimeStamp() > born - 600_000 && s.getMinTimeStamp() <= s.getMaxTimeStamp()),
                "no queue has times: " + spans);
        });
        Report.scenario("mqadmin-calls-status-of-clients", () -> {
            Map<String, Map<MessageQueue, Long>> all = admin.getConsumeStatus(Admin.TOPIC, Admin.GROUP, "");
            Map<MessageQueue, Long> mine = all.get(consumer.buildMQClientId());
            Report.check(mine != null && mine.size() == 4, "offsets in the client: " + all);
        });
        Report.scenario("mqadmin-calls-clone", () -> {
            admin.cloneGroupOffset(Admin.GROUP, "admin-copy", Admin.TOPIC, false);
            var copy = admin.examineConsumeStats(broker, "admin-copy", Admin.TOPIC, 5000).getOffsetTable();
            var from = admin.examineConsumeStats(broker, Admin.GROUP, Admin.TOPIC, 5000).getOffsetTable();
            Report.check(from.values().stream().anyMatch(o -> o.getConsumerOffset() > 0), "the group has consumed nothing: " + from);
            from.forEach((q, o) -> Report.equal(o.getConsumerOffset(), copy.get(q).getConsumerOffset(), "offset of " + q));
        });
        Report.scenario("mqadmin-calls-progress-of-all", () -> {
            ConsumeStatsList all = admin.fetchConsumeStatsInBroker(broker, false, 5000);
            Report.equal(broker, all.getBrokerAddr(), "address");
            Report.check(all.getConsumeStatsList().stream().anyMatch(m -> m.containsKey(Admin.GROUP) && !m.get(Admin.GROUP).isEmpty()),
                "the group is missing: " + all.getConsumeStatsList());
        });
    }

    /** What a slave copies. */
    private void tables(boolean original) {
        BrokerOuterAPI slave = new BrokerOuterAPI(new NettyClientConfig(), new AuthConfig());
        slave.start();
        try {
            Report.scenario("mqadmin-calls-slave-topics", () -> {
                var t = slave.getAllTopicConfig(broker);
                Report.equal(4, t.getTopicConfigTable().get(Admin.TOPIC).getReadQueueNums(), "queues");
                Report.check(t.getDataVersion().getCounter().get() > 0, "data version " + t.getDataVersion());
            });
            Report.scenario("mqadmin-calls-slave-groups", () -> Report.equal(3,
                slave.getAllSubscriptionGroupConfig(broker).getSubscriptionGroupTable().get("admin-list-b").getRetryMaxTimes(), "retryMaxTimes"));
            if (!original) { // see README.md: the original's slave cannot read its master's table
                Report.scenario("mqadmin-calls-slave-offsets", () -> Report.check(
                    slave.getAllConsumerOffset(broker).getOffsetTable().get(Admin.TOPIC + "@" + Admin.GROUP).size() == 4, "offsets are missing"));
            }
            Report.scenario("mqadmin-calls-slave-delay", () -> Report.check(
                slave.getAllDelayOffset(broker).contains("\"offsetTable\""), "no table: " + slave.getAllDelayOffset(broker)));
            Report.scenario("mqadmin-calls-slave-modes", () -> Report.equal("PULL",
                slave.getAllMessageRequestMode(broker).getMessageRequestModeMap().get(Admin.TOPIC).get("admin-clone").getMode(), "mode"));
        } finally {
            slave.shutdown();
        }
    }

    /** Two members that leave the sharing of queues to the broker get every message between them. */
    private void brokerSharesQueues() throws Exception {
        Set<String> first = ConcurrentHashMap.newKeySet();
        Set<String> second = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer a = shared("admin-shared-a", first);
        DefaultMQPushConsumer b = shared("admin-shared-b", second);
        DefaultMQProducer producer = new DefaultMQProducer("admin-shared-producer");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("admin-shared-producer");
        producer.start();
        try {
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(90);
            for (int i = 0; first.isEmpty() || second.isEmpty(); i++) {
                Report.check(System.nanoTime() < end, "one of two members gets nothing: " + first.size() + " and " + second.size());
                producer.send(new Message("AdminShared", Integer.toString(i).getBytes()));
                Thread.sleep(50);
            }
        } finally {
            a.shutdown();
            b.shutdown();
            producer.shutdown();
        }
    }

    private DefaultMQPushConsumer shared(String instance, Set<String> got) throws Exception {
        DefaultMQPushConsumer c = new DefaultMQPushConsumer("admin-shared");
        c.setNamesrvAddr(namesrv);
        c.setInstanceName(instance);
        c.setClientRebalance(false);
        c.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        c.subscribe("AdminShared", "*");
        c.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            msgs.forEach(m -> got.add(new String(m.getBody())));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        c.start();
        return c;
    }
}
