package ringmq.e2e;

import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;

/** An original broker under the tested name server. Arguments: name server, broker, pid of the broker (it is killed). */
public class NameServer {
    public static void main(String[] args) throws Exception {
        Clients c = new Clients(args[0], args[1]);
        long pid = Long.parseLong(args[2]);
        String[] topic = new String[1];
        Report.scenario("nameserver-java-broker-registers", () -> {
            var info = c.admin.examineBrokerClusterInfo();
            Report.equal(1, info.getBrokerAddrTable().size(), "brokers");
            Report.equal(c.broker, info.getBrokerAddrTable().values().iterator().next().selectBrokerAddr(), "broker address");
        });
        Report.scenario("nameserver-java-broker-topic-created-and-routed", () -> {
            topic[0] = c.createTopic("nameserver", 3);
            var route = c.admin.examineTopicRouteInfo(topic[0]);
            Report.equal(3, route.getQueueDatas().get(0).getReadQueueNums(), "read queues");
            Report.equal(1, route.getBrokerDatas().size(), "brokers of the route");
            Report.check(c.admin.fetchAllTopicList().getTopicList().contains(topic[0]), "the topic list lacks it");
        });
        DefaultMQProducer p = c.producer("nameserver");
        Report.scenario("nameserver-java-broker-send-and-consume", () -> {
            Clients.Inbox box = new Clients.Inbox();
            var consumer = c.collect(c.group("nameserver"), "nameserver-consumer", topic[0], "*", box);
            for (int i = 0; i < 30; i++) {
                Clients.ok(p.send(Clients.message(topic[0], "T", "ns " + i)));
            }
            box.exactly(30);
            consumer.shutdown();
        });
        Report.scenario("nameserver-java-broker-topic-updated", () -> {
            var config = c.admin.examineTopicConfig(c.broker, topic[0]);
            config.setReadQueueNums(5);
            config.setWriteQueueNums(5);
            c.admin.createAndUpdateTopicConfig(c.broker, config);
            Clients.eventually("the route has not five queues", () ->
                c.admin.examineTopicRouteInfo(topic[0]).getQueueDatas().get(0).getReadQueueNums() == 5);
        });
        Report.scenario("nameserver-java-broker-topic-deleted", () -> {
            String gone = c.createTopic("nameservergone", 1);
            c.admin.deleteTopic(gone, c.admin.examineBrokerClusterInfo().getClusterAddrTable().keySet().iterator().next());
            Clients.eventually("the deleted topic still has a route", () -> noRoute(c, gone));
        });
        p.shutdown();
        Report.scenario("nameserver-java-broker-killed-route-disappears", () -> {
            ProcessHandle broker = ProcessHandle.of(pid).orElseThrow();
            broker.destroyForcibly();
            broker.onExit().get(10, TimeUnit.SECONDS);
            Clients.eventually("the route of the killed broker stays", 15_000, () -> noRoute(c, topic[0]));
            Report.check(c.admin.examineBrokerClusterInfo().getBrokerAddrTable().isEmpty(), "the killed broker is still listed");
        });
        Report.exit();
    }

    private static boolean noRoute(Clients c, String topic) throws Exception {
        try {
            return c.admin.examineTopicRouteInfo(topic).getBrokerDatas().isEmpty();
        } catch (MQClientException e) {
            Report.equal(17, e.getResponseCode(), "response code");
            return true;
        }
    }
}
