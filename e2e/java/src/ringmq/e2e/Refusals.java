package ringmq.e2e;

import java.util.Map;
import java.util.Properties;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;

/** What a broker must refuse, and with which code. */
final class Refusals {
    private static final byte[] BODY = "x".getBytes();
    private final Clients c;

    Refusals(Clients c) {
        this.c = c;
    }

    void register(Map<String, Report.Scenario> all) {
        all.put("refuse-body-over-4MiB-code-13", this::tooLarge);
        all.put("refuse-unknown-topic-code-17", () -> want(17, c.rawSend(c.topic("unknown"), 0, "NoSuchDefault", BODY)));
        all.put("refuse-queue-out-of-range-code-29", () -> {
            String topic = c.createTopic("range", 2);
            want(29, c.rawSend(topic, 2, "TBW102", BODY));
            RemotingCommand any = want(0, c.rawSend(topic, -1, "TBW102", BODY));
            Report.check(Integer.parseInt(any.getExtFields().get("queueId")) < 2, "queue id " + any.getExtFields());
        });
        all.put("refuse-topic-with-illegal-character-code-29", () -> want(29, c.rawSend("bad topic!", 0, "TBW102", BODY)));
        all.put("refuse-topic-too-long-code-29", () -> want(29, c.rawSend("t".repeat(128), 0, "TBW102", BODY)));
        all.put("refuse-system-topic-code-16", () -> want(16, c.rawSend("SCHEDULE_TOPIC_XXXX", 0, "TBW102", BODY)));
        all.put("retry-topic-of-unknown-group-is-created", this::retryTopic);
        all.put("refuse-unknown-request-code-3", () ->
            want(3, c.raw.invokeSync(c.broker, RemotingCommand.createRequestCommand(29_999, null), 10_000)));
        all.put("refuse-route-of-unknown-topic-code-17", this::noRoute);
        all.put("refuse-write-to-read-only-topic", this::readOnly);
        all.put("alone-refuse-unknown-topic-with-autocreate-off-code-17", this::autoCreateOff);
    }

    private static RemotingCommand want(int code, RemotingCommand got) {
        Report.check(got.getCode() == code, "want code " + code + ", got " + got.getCode() + " " + got.getRemark());
        return got;
    }

    private void tooLarge() throws Exception {
        String topic = c.createTopic("toolarge", 1);
        DefaultMQProducer p = c.producer("toolarge");
        p.setMaxMessageSize(8 << 20);
        p.setCompressMsgBodyOverHowmuch(64 << 20);
        try {
            p.send(new Message(topic, new byte[(4 << 20) + 1]));
            throw new Report.Wrong("a body of 4 MiB and a byte was accepted");
        } catch (MQBrokerException e) {
            Report.equal(13, e.getResponseCode(), "response code");
        }
        Clients.ok(p.send(new Message(topic, new byte[4 << 20])));
        p.shutdown();
    }

    private void retryTopic() throws Exception {
        RemotingCommand got = c.rawSend("%RETRY%" + c.group("fresh"), 0, "TBW102", BODY);
        want(0, got); // groups are made on first use by default
    }

    private void noRoute() throws Exception {
        try {
            c.admin.examineTopicRouteInfo(c.topic("noroute"));
            throw new Report.Wrong("the route of an unknown topic was answered");
        } catch (MQClientException e) {
            Report.equal(17, e.getResponseCode(), "response code");
        }
    }

    private void readOnly() throws Exception {
        String topic = c.createTopic("readonly", 1);
        DefaultMQProducer p = c.producer("readonly");
        Clients.ok(p.send(Clients.message(topic, "T", "x")));
        var config = c.admin.examineTopicConfig(c.broker, topic);
        config.setPerm(4);
        c.admin.createAndUpdateTopicConfig(c.broker, config);
        Clients.eventually("the route does not show the permission", () ->
            c.admin.examineTopicRouteInfo(topic).getQueueDatas().get(0).getPerm() == 4);
        Clients.eventually("a producer still finds a queue to write to", () -> {
            try {
                p.send(Clients.message(topic, "T", "x"));
                return false;
            } catch (MQClientException e) {
                return true;
            }
        });
        p.shutdown();
    }

    private void autoCreateOff() throws Exception {
        set("false");
        try {
            want(17, c.rawSend(c.topic("autooff"), 0, "TBW102", BODY));
        } finally {
            set("true");
        }
        // The default topic lost its inherit bit for good in the original; a restart gives it back.
    }

    private void set(String value) throws Exception {
        Properties p = new Properties();
        p.put("autoCreateTopicEnable", value);
        c.admin.updateBrokerConfig(c.broker, p);
    }
}
