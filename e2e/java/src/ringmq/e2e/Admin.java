package ringmq.e2e;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * Runs mqadmin commands, all in this JVM. Each must print what it is asked for and no sign of an error.
 * Arguments: name server, broker address, and "golden" when only the traffic is wanted.
 */
public class Admin {
    static final Pattern TROUBLE = Pattern.compile(
        "Exception|\\tat |\\bCODE: \\d|not exist|command failed|\\bFailed\\b|get consumer runtime info for .* failed");
    static final String TOPIC = "AdminTopic";
    static final String GROUP = "admin-consumer";

    static String namesrv;
    static String last;

    public static void main(String[] args) throws Exception {
        namesrv = args[0];
        String broker = args[1];
        String only = args.length > 2 ? args[2] : "";
        String[] names = clusterAndBroker();
        String cluster = names[0];
        String brokerName = names[1];

        mqadmin("clusterList", cluster + "\\s+" + brokerName + "\\s+0\\s+" + Pattern.quote(broker), "clusterList");
        mqadmin("clusterList-more", brokerName, "clusterList", "-m");
        mqadmin("updateTopic-cluster", "create topic to " + Pattern.quote(broker) + " success[\\s\\S]*" + TOPIC,
            "updateTopic", "-c", cluster, "-t", TOPIC, "-r", "4", "-w", "4");
        mqadmin("updateTopic-broker", "create topic to .* success", "updateTopic", "-b", broker, "-t", "AdminGone", "-r", "2", "-w", "2");
        mqadmin("topicList", "(?m)^AdminTopic$", "topicList");
        mqadmin("topicList-cluster", cluster + "\\s+" + TOPIC, "topicList", "-c");
        mqadmin("topicRoute", "\"brokerName\":\\s*\"" + brokerName + "\"", "topicRoute", "-t", TOPIC);
        mqadmin("topicClusterList", cluster, "topicClusterList", "-t", TOPIC);
        mqadmin("updateTopicPerm", "update topic perm from 6 to 4 in [\\s\\S]*success", "updateTopicPerm", "-b", broker, "-t", "AdminGone", "-p", "4");
        mqadmin("updateSubGroup", "create subscription group to .* success[\\s\\S]*" + GROUP,
            "updateSubGroup", "-b", broker, "-g", GROUP, "-r", "3", "-d", "true");
        mqadmin("updateSubGroup-cluster", "create subscription group to .* success",
            "updateSubGroup", "-c", cluster, "-g", "admin-gone");
        mqadmin("getConsumerConfig", GROUP, "getConsumerConfig", "-g", GROUP);

        DefaultMQProducer producer = new DefaultMQProducer("admin-producer");
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName("admin-producer");
        producer.start();
        Message m = new Message(TOPIC, "TagA", "adminkey", "admin body".getBytes(StandardCharsets.UTF_8));
        SendResult sent = producer.send(m);
        int queue = sent.getMessageQueue().getQueueId();
        CountDownLatch got = new CountDownLatch(1);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(GROUP);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("admin-consumer");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.subscribe(TOPIC, "TagA || TagB");
        consumer.registerMessageListener((MessageListenerConcurrently) (msgs, ctx) -> {
            got.countDown();
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Report.scenario("mqadmin-data-consumed", () -> Report.check(got.await(20, TimeUnit.SECONDS), "the message was not consumed in 20 s"));
        for (int i = 0; i < 30 && !run("consumerProgress", "-g", GROUP, "-n", namesrv).contains(TOPIC); i++) {
            Thread.sleep(500); // the consumer commits after ten seconds for the first time
        }

        mqadmin("topicStatus", brokerName + "\\s+" + queue + "\\s+0\\s+1\\s", "topicStatus", "-t", TOPIC);
        mqadmin("brokerStatus", "brokerVersionDesc[\\s\\S]*putTps", "brokerStatus", "-b", broker);
        mqadmin("brokerStatus-cluster", "bootTimestamp", "brokerStatus", "-c", cluster);
        mqadmin("statsAll", TOPIC + "\\s+" + GROUP, "statsAll", "-t", TOPIC);
        mqadmin("consumerProgress", "(?m)^AdminTopic\\s+" + brokerName + "\\s+" + queue + "\\s+1\\s+1\\s[\\s\\S]*Consume Diff Total: 0",
            "consumerProgress", "-g", GROUP);
        mqadmin("consumerProgress-all", GROUP + "\\s+1\\s", "consumerProgress");
        mqadmin("consumerProgress-clients", "AdminTopic\\s+" + brokerName + ".*\\d+\\.\\d+\\.\\d+\\.\\d+", "consumerProgress", "-g", GROUP, "-s", "true");
        mqadmin("queryMsgById", "Keys:\\s+\\[adminkey\\][\\s\\S]*CONSUMED", "queryMsgById", "-t", TOPIC, "-i", sent.getOffsetMsgId());
        mqadmin("queryMsgByKey", sent.getMsgId() + "\\s+" + queue + "\\s+0", "queryMsgByKey", "-t", TOPIC, "-k", "adminkey");
        mqadmin("queryMsgByUniqueKey", "Keys:\\s+\\[adminkey\\]", "queryMsgByUniqueKey", "-t", TOPIC, "-i", sent.getMsgId());
        mqadmin("queryMsgByOffset", sent.getOffsetMsgId() + "[\\s\\S]*adminkey",
            "queryMsgByOffset", "-t", TOPIC, "-b", brokerName, "-i", Integer.toString(queue), "-o", "0");
        mqadmin("getBrokerConfig", "(?=[\\s\\S]*brokerName\\s+=\\s+" + brokerName + ")(?=[\\s\\S]*flushDiskType\\s+=\\s+A?SYNC_FLUSH)", "getBrokerConfig", "-b", broker);
        mqadmin("consumerConnection", "admin-consumer[\\s\\S]*JAVA[\\s\\S]*AdminTopic\\s+TagA \\|\\| TagB[\\s\\S]*MessageModel: CLUSTERING",
            "consumerConnection", "-g", GROUP);
        mqadmin("producerConnection", "admin-producer.*JAVA", "producerConnection", "-g", "admin-producer", "-t", TOPIC);
        mqadmin("producer", "admin-producer", "producer", "-b", broker);
        mqadmin("consumerStatus", "admin-consumer", "consumerStatus", "-g", GROUP);
        mqadmin("brokerConsumeStats", TOPIC + "\\s+" + GROUP, "brokerConsumeStats", "-b", broker);
        mqadmin("sendMessage", brokerName + ".*SEND_OK", "sendMessage", "-t", TOPIC, "-p", "from mqadmin", "-k", "sentkey", "-c", "TagB");
        mqadmin("printMsg", "BODY: admin body", "printMsg", "-t", TOPIC, "-d", "true");
        mqadmin("consumeMessage", "MSGID: " + sent.getMsgId(), "consumeMessage", "-t", TOPIC, "-b", brokerName, "-i", Integer.toString(queue), "-o", "0", "-c", "1");
        mqadmin("allocateMQ", "127.0.0.1|10.0.0.1", "allocateMQ", "-t", TOPIC, "-i", "10.0.0.1,10.0.0.2");
        mqadmin("queryCq", "physicOffset=\\d+", "queryCq", "-t", TOPIC, "-q", Integer.toString(queue), "-i", "0", "-c", "1", "-b", broker);
        mqadmin("resetOffsetByTime", brokerName + "\\s+" + queue + "\\s+0", "resetOffsetByTime", "-g", GROUP, "-t", TOPIC, "-s", "0");
        mqadmin("updateSubGroup-clone", "success", "updateSubGroup", "-b", broker, "-g", "admin-clone");
        mqadmin("cloneGroupOffset", "", "cloneGroupOffset", "-s", GROUP, "-d", "admin-clone", "-t", TOPIC, "-o", "false");
        mqadmin("skipAccumulatedMessage", brokerName, "skipAccumulatedMessage", "-g", GROUP, "-t", TOPIC);
        mqadmin("updateBrokerConfig", "update broker config success", "updateBrokerConfig", "-b", broker, "-k", "fileReservedTime", "-v", "71");
        mqadmin("getBrokerConfig-updated", "fileReservedTime\\s+=\\s+71", "getBrokerConfig", "-b", broker);
        mqadmin("getNamesrvConfig", "listenPort\\s+=\\s+\\d+", "getNamesrvConfig");
        mqadmin("updateKvConfig", "create or update kv config to namespace success", "updateKvConfig", "-s", "E2E", "-k", "key", "-v", "value");
        mqadmin("deleteKvConfig", "delete kv config from namespace success", "deleteKvConfig", "-s", "E2E", "-k", "key");
        mqadmin("updateOrderConf", "orderConf=\\[" + brokerName + ":4\\]", "updateOrderConf", "-t", TOPIC, "-v", brokerName + ":4", "-m", "put");
        mqadmin("updateOrderConf-delete", "success", "updateOrderConf", "-t", TOPIC, "-m", "delete");
        mqadmin("wipeWritePerm", "wipe write perm of broker\\[" + brokerName + "\\] in name server\\[.*\\] OK, [1-9]", "wipeWritePerm", "-b", brokerName);
        mqadmin("topicRoute-wiped", "\"perm\":\\s*4", "topicRoute", "-t", TOPIC);
        mqadmin("addWritePerm", "add write perm of broker\\[" + brokerName + "\\] in name server\\[.*\\] OK, [1-9]", "addWritePerm", "-b", brokerName);
        mqadmin("topicRoute-restored", "\"perm\":\\s*6", "topicRoute", "-t", TOPIC);
        Path folder = Files.createTempDirectory("ringmq-admin");
        more(broker, cluster, brokerName, folder, sent, queue, consumer);
        new AdminCalls(namesrv, broker, brokerName, consumer, sent).run();
        mqadmin("cleanExpiredCQ", "success", "cleanExpiredCQ", "-b", broker);
        mqadmin("cleanUnusedTopic", "success", "cleanUnusedTopic", "-b", broker);
        mqadmin("deleteExpiredCommitLog", "success", "deleteExpiredCommitLog", "-b", broker);
        mqadmin("deleteSubGroup", "delete subscription group \\[admin-gone\\] from broker .* success", "deleteSubGroup", "-b", broker, "-g", "admin-gone");
        mqadmin("deleteTopic", "delete topic \\[AdminGone\\] from cluster \\[" + cluster + "\\] success[\\s\\S]*from NameServer success",
            "deleteTopic", "-c", cluster, "-t", "AdminGone");
        absent("topicList-deleted", "(?m)^AdminGone$", "topicList");
        mqadmin("updateTopic-attributes", "create topic to .* success", "updateTopic", "-b", broker, "-t", "AdminFifo", "-a", "+message.type=FIFO");
        mqadmin("topicRoute-order", "queueDatas", "topicRoute", "-t", "AdminFifo");
        consumer.shutdown();
        producer.shutdown();
        if (only.equals("golden")) {
            System.exit(0);
        }
        Report.exit();
    }

    /** Commands that the others do not lead to. */
    static void more(String broker, String cluster, String brokerName, Path folder, SendResult sent, int queue, DefaultMQPushConsumer consumer)
        throws Exception {
        Path topics = Files.writeString(folder.resolve("topics.json"), "[{\"topicName\":\"AdminListA\",\"readQueueNums\":2,\"writeQueueNums\":2,\"perm\":6},"
            + "{\"topicName\":\"AdminListB\",\"readQueueNums\":3,\"writeQueueNums\":3,\"perm\":6}]");
        Path groups = Files.writeString(folder.resolve("groups.json"), "[{\"groupName\":\"admin-list-a\"},{\"groupName\":\"admin-list-b\",\"retryMaxTimes\":3}]");
        mqadmin("updateTopicList", "submit batch of topic config to .* success", "updateTopicList", "-b", broker, "-f", topics.toString());
        mqadmin("topicRoute-list", "\"readQueueNums\":\\s*3", "topicRoute", "-t", "AdminListB");
        mqadmin("updateSubGroupList", "submit batch of .* success", "updateSubGroupList", "-c", cluster, "-f", groups.toString());
        mqadmin("getConsumerConfig-list", "retryMaxTimes\\s+= *3", "getConsumerConfig", "-g", "admin-list-b");
        mqadmin("updateTopic-order", "set topic\\[AdminOrder\\] isOrder=true|set cluster orderConf[\\s\\S]*isOrder=true",
            "updateTopic", "-c", cluster, "-t", "AdminOrder", "-r", "2", "-w", "2", "-o", "true");
        mqadmin("setConsumeMode", "set consume mode to .* success", "setConsumeMode", "-b", broker, "-t", TOPIC, "-g", "admin-clone", "-m", "PULL");
        mqadmin("statsAll-all", TOPIC + "\\s+" + GROUP, "statsAll");
        mqadmin("statsAll-active", "#Topic", "statsAll", "-a");
        mqadmin("checkMsgSendRT", "Avg RT: \\d+\\.\\d+", "checkMsgSendRT", "-t", TOPIC, "-a", "5", "-s", "64");
        mqadmin("sendMsgStatus", "SEND_OK", "sendMsgStatus", "-b", brokerName, "-c", "3");
        Report.scenario("mqadmin-clusterRT", () -> {
            String out = endless("clusterRT", "-a", "3", "-i", "1", "-c", cluster);
            Report.check(Pattern.compile(cluster + "\\s+" + brokerName + "\\s+\\d+\\.\\d+\\s+3\\s+0").matcher(out).find(), "it prints: " + out.trim());
        });
        mqadmin("printMsgByQueue", "BODY: admin body", "printMsgByQueue", "-t", TOPIC, "-a", brokerName, "-i", Integer.toString(queue), "-p", "true", "-d", "true");
        mqadmin("queryMsgById-direct", "consumeResult=CR_SUCCESS",
            "queryMsgById", "-t", TOPIC, "-i", sent.getOffsetMsgId(), "-g", GROUP, "-d", consumer.buildMQClientId());
        Report.scenario("mqadmin-consumerStatus-jstack", () -> {
            String out = command("consumerStatus", "-g", GROUP, "-i", consumer.buildMQClientId(), "-s");
            Report.check(out.contains("#Consumer Subscription#") && out.contains("#Consumer jstack#"), "it prints: " + out.trim());
        });
        mqadmin("consumerStatus-broker", GROUP, "consumerStatus", "-g", GROUP, "-b", broker);
        mqadmin("resetOffsetByTime-offset", "reset consumer offset to 0",
            "resetOffsetByTime", "-g", GROUP, "-t", TOPIC, "-s", "-1", "-b", broker, "-q", Integer.toString(queue), "-o", "0");
        mqadmin("haStatus", "#MasterCommitLogMaxOffset\\s+[1-9]", "haStatus", "-b", broker);
        mqadmin("exportMetadata", "export .* success", "exportMetadata", "-c", cluster, "-f", folder.toString());
        Report.scenario("mqadmin-exportMetadata-content", () -> {
            String text = Files.readString(folder.resolve("metadata.json"));
            Report.check(text.contains(TOPIC) && text.contains("admin-list-a"), "topics or groups are missing: " + text);
            Report.check(!text.contains("TBW102"), "system topics are exported: " + text);
        });
        mqadmin("exportMetadata-topic", "export .* success", "exportMetadata", "-b", broker, "-t", "-f", folder.toString());
        mqadmin("exportConfigs", "export .* success", "exportConfigs", "-c", cluster, "-f", folder.toString());
        mqadmin("exportMetrics", "export .* success", "exportMetrics", "-c", cluster, "-f", folder.toString());
        Report.scenario("mqadmin-exportMetrics-content", () -> {
            String text = Files.readString(folder.resolve("metrics.json"));
            Report.check(text.contains("\"normalInTps\"") || text.contains("runtimeQuota"), "no figures: " + text);
        });
        mqadmin("updateNamesrvConfig", "update name server config success", "updateNamesrvConfig", "-k", "orderMessageEnable", "-v", "true");
        Report.scenario("mqadmin-getBrokerEpoch", () -> {
            String out = command("getBrokerEpoch", "-b", brokerName);
            Report.check(out.contains("this request only for controllerMode"), "it prints: " + out);
        });
        Report.scenario("mqadmin-updateBrokerConfig-refused", () -> {
            String out = command("updateBrokerConfig", "-b", broker, "-k", "configBlackList", "-v", "x");
            Report.check(out.contains("Can not update config in black list"), "it prints: " + out);
        });
    }

    static String[] clusterAndBroker() throws Exception {
        for (int i = 0; i < 100; i++) {
            String out = run("clusterList", "-n", namesrv);
            for (String line : out.split("\n")) {
                String[] w = line.trim().split("\\s+");
                if (w.length > 4 && !w[0].startsWith("#") && w[2].equals("0")) {
                    return w;
                }
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("no broker is registered with " + namesrv);
    }

    static void mqadmin(String name, String want, String... args) {
        Report.scenario("mqadmin-" + name, () -> {
            String out = command(args);
            if (TROUBLE.matcher(out).find()) {
                throw new Report.Wrong("printed trouble: " + out.trim());
            }
            if (!Pattern.compile(want).matcher(out).find()) {
                throw new Report.Wrong("no match for " + want + " in: " + out.trim());
            }
        });
    }

    static void absent(String name, String unwanted, String... args) {
        Report.scenario("mqadmin-" + name, () -> {
            String out = command(args);
            Report.check(!TROUBLE.matcher(out).find() && !out.trim().isEmpty(), "printed trouble or nothing: " + out.trim());
            Report.check(!Pattern.compile(unwanted).matcher(out).find(), "still there: " + unwanted);
        });
    }

    static String command(String... args) {
        List<String> all = new ArrayList<>(List.of(args));
        all.add("-n");
        all.add(namesrv);
        return run(all.toArray(new String[0]));
    }

    /** A command that runs until it is interrupted: it is, after three seconds, and again until it has ended. */
    static String endless(String... args) throws InterruptedException {
        Thread caller = Thread.currentThread();
        Thread stopper = new Thread(() -> {
            try {
                for (Thread.sleep(3000); ; Thread.sleep(300)) {
                    caller.interrupt();
                }
            } catch (InterruptedException e) {
                return; // the command has ended
            }
        });
        stopper.start();
        try {
            return command(args);
        } finally {
            stopper.interrupt();
            while (stopper.isAlive()) {
                try {
                    stopper.join();
                } catch (InterruptedException e) {
                    continue; // its last one, which came late
                }
            }
            Thread.interrupted();
        }
    }

    static String run(String... args) {
        PrintStream out = System.out;
        PrintStream err = System.err;
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintStream both = new PrintStream(bytes, true, StandardCharsets.UTF_8);
        System.setOut(both);
        System.setErr(both);
        try {
            MQAdminStartup.main0(args, null);
        } finally {
            System.setOut(out);
            System.setErr(err);
        }
        String text = bytes.toString(StandardCharsets.UTF_8);
        System.err.println("$ mqadmin " + String.join(" ", args) + "\n" + text);
        return text;
    }
}
