package ringmq.e2e;

import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * Fills a broker with varied messages and notes what it sent, or holds a broker against such a note.
 * Arguments: write|verify|verify-killed, name server, broker, file, prefix of the printed names.
 */
@SuppressWarnings("deprecation")
public class StoreCheck {
    private static final String[] TOPICS = {"ExchangeMany", "ExchangeOne", "ExchangeTwo"};
    private static final int[] QUEUES = {4, 1, 2};
    private static final String GROUP = "exchange-group";

    /** One line of the note. */
    record Sent(String topic, int queue, long offset, long storeTime, long position, String id, String keys, String tags, String hash) {
        static Sent of(MessageExt m) throws Exception {
            return new Sent(m.getTopic(), m.getQueueId(), m.getQueueOffset(), m.getStoreTimestamp(), m.getCommitLogOffset(),
                m.getMsgId(), String.valueOf(m.getKeys()), String.valueOf(m.getTags()), StoreCheck.hash(m.getBody()));
        }

        static Sent parse(String line) {
            String[] f = line.split("\t", -1);
            return new Sent(f[0], Integer.parseInt(f[1]), Long.parseLong(f[2]), Long.parseLong(f[3]), Long.parseLong(f[4]), f[5], f[6], f[7], f[8]);
        }

        String line() {
            return String.join("\t", topic, "" + queue, "" + offset, "" + storeTime, "" + position, id, keys, tags, hash);
        }
    }

    private final Clients c;
    private final Path file;
    private final String prefix;
    private DefaultMQProducer producer;
    private DefaultMQPullConsumer consumer;

    private StoreCheck(Clients c, Path file, String prefix) {
        this.c = c;
        this.file = file;
        this.prefix = prefix;
    }

    public static void main(String[] args) throws Exception {
        StoreCheck check = new StoreCheck(new Clients(args[1], args[2]), Path.of(args[3]), args[4]);
        if (args[0].equals("write")) {
            Report.scenario(check.prefix + "-write", check::write);
        } else {
            check.verify(args[0].equals("verify-killed"));
        }
        Report.exit();
    }

    private void open() throws Exception {
        producer = c.producer("exchange");
        consumer = new DefaultMQPullConsumer(GROUP);
        consumer.setNamesrvAddr(c.namesrv);
        consumer.setInstanceName("exchange-pull" + c.stamp);
        consumer.start();
    }

    private static String hash(byte[] body) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
    }

    private void write() throws Exception {
        for (int i = 0; i < TOPICS.length; i++) {
            final String topic = TOPICS[i];
            c.admin.createAndUpdateTopicConfig(c.broker, new TopicConfig(topic, QUEUES[i], QUEUES[i]));
            Clients.eventually("no route of " + topic, () -> !c.admin.examineTopicRouteInfo(topic).getQueueDatas().isEmpty());
        }
        open();
        Random random = new Random(7);
        Map<String, String> bodies = new HashMap<>(); // unique id to the hash of what was handed to the client
        int sequence = 0;
        for (int round = 0; round < 90; round++) {
            for (String topic : TOPICS) {
                List<MessageQueue> queues = c.queues(producer, topic);
                MessageQueue q = queues.get(random.nextInt(queues.size()));
                for (int i = 0; i < 4; i++) {
                    Message m = message(topic, random, sequence++);
                    SendResult r = Clients.ok(producer.send(m, q));
                    bodies.put(r.getMsgId(), hash(m.getBody()));
                }
                if (round % 10 == 0) {
                    List<Message> batch = new ArrayList<>();
                    for (int i = 0; i < 5; i++) {
                        Message m = new Message(topic, "TagBatch", "batch" + sequence + " all", ("batch " + sequence).getBytes());
                        sequence++;
                        batch.add(m);
                    }
                    SendResult r = producer.send(batch, q);
                    String[] ids = r.getMsgId().split(",");
                    for (int i = 0; i < ids.length; i++) {
                        bodies.put(ids[i], hash(batch.get(i).getBody()));
                    }
                }
            }
        }
        List<String> lines = new ArrayList<>();
        int total = sequence;
        Clients.eventually("not all messages are readable", () -> count() == total);
        long last = 0;
        for (MessageExt m : readAll()) {
            Report.equal(bodies.get(m.getMsgId()), hash(m.getBody()), "hash of " + m.getMsgId());
            lines.add(Sent.of(m).line());
            last = Math.max(last, m.getCommitLogOffset());
        }
        Report.equal(total, lines.size(), "messages read back");
        Report.check(last > 3 << 20, "the log has only " + last + " bytes: too few segments");
        Files.write(file, lines);
        for (String topic : TOPICS) {
            for (MessageQueue q : c.queues(producer, topic)) {
                consumer.updateConsumeOffset(q, q.getQueueId() + 1);
                consumer.getDefaultMQPullConsumerImpl().getOffsetStore().persist(q); // one-way: the broker may be stopped before it comes
                Clients.eventually("the committed offset cannot be read back", () -> consumer.fetchConsumeOffset(q, true) == q.getQueueId() + 1);
            }
        }
        Thread.sleep(6500); // brokers write consumer offsets to disk every five seconds
        producer.shutdown();
        consumer.shutdown();
    }

    private static Message message(String topic, Random random, int sequence) {
        int kind = sequence % 6;
        byte[] body;
        if (kind == 0) { // compressed by the client
            body = ("compressible " + sequence + " ").repeat(500).getBytes();
        } else {
            body = new byte[1 + random.nextInt(kind == 1 ? 30_000 : 2_000)];
            random.nextBytes(body);
        }
        Message m = new Message(topic, body);
        if (kind != 2) {
            m.setTags("Tag" + sequence % 3);
        }
        if (kind != 3) {
            m.setKeys("key" + sequence + " group" + sequence % 50);
        }
        m.putUserProperty("sequence", Integer.toString(sequence));
        m.putUserProperty("ünï", "prøp " + sequence);
        return m;
    }

    private long count() throws Exception {
        long sum = 0;
        for (String topic : TOPICS) {
            for (MessageQueue q : c.queues(producer, topic)) {
                sum += consumer.maxOffset(q);
            }
        }
        return sum;
    }

    private List<MessageExt> readAll() throws Exception {
        List<MessageExt> all = new ArrayList<>();
        for (String topic : TOPICS) {
            for (MessageQueue q : c.queues(producer, topic)) {
                read(q, all);
            }
        }
        return all;
    }

    private void read(MessageQueue q, List<MessageExt> into) throws Exception {
        long next = consumer.minOffset(q);
        long max = consumer.maxOffset(q);
        while (next < max) {
            PullResult r = consumer.pull(q, "*", next, 32);
            Report.equal(PullStatus.FOUND, r.getPullStatus(), "pull of " + q + " at " + next);
            into.addAll(r.getMsgFoundList());
            Report.check(r.getNextBeginOffset() > next, "no progress at " + next);
            next = r.getNextBeginOffset();
        }
    }

    private void verify(boolean killed) throws Exception {
        List<Sent> note = new ArrayList<>();
        for (String line : Files.readAllLines(file)) {
            note.add(Sent.parse(line));
        }
        Clients.eventually("no route of " + TOPICS[0], () -> !c.admin.examineTopicRouteInfo(TOPICS[0]).getQueueDatas().isEmpty());
        open();
        Report.scenario(prefix + "-by-queue-offset", () -> byQueueOffset(note));
        Report.scenario(prefix + "-by-key", () -> byKey(note));
        Report.scenario(prefix + "-by-unique-key", () -> byUniqueKey(note));
        Report.scenario(prefix + "-by-time", () -> byTime(note));
        Report.scenario(prefix + "-by-offset-id", () -> byOffsetId(note));
        if (!killed) {
            Report.scenario(prefix + "-consumer-offsets", this::consumerOffsets);
        }
        Report.scenario(prefix + "-goes-on", () -> goesOn(note));
        producer.shutdown();
        consumer.shutdown();
    }

    private void byQueueOffset(List<Sent> note) throws Exception {
        Map<String, Sent> want = new TreeMap<>();
        for (Sent s : note) {
            want.put(s.topic + "/" + s.queue + "/" + s.offset, s);
        }
        for (MessageExt m : readAll()) {
            Sent s = want.remove(m.getTopic() + "/" + m.getQueueId() + "/" + m.getQueueOffset());
            Report.check(s != null, "a message that was not sent: " + m);
            Report.equal(s, Sent.of(m), "message");
            Report.equal("prøp", m.getProperty("ünï") == null ? "prøp" : m.getProperty("ünï").substring(0, 4), "user property");
        }
        Report.check(want.isEmpty(), want.size() + " of " + note.size() + " messages are missing, first " +
            (want.isEmpty() ? "" : want.keySet().iterator().next()));
    }

    private void byKey(List<Sent> note) throws Exception {
        Map<String, Set<String>> want = new LinkedHashMap<>();
        for (Sent s : note) {
            if (s.keys.equals("null")) {
                continue;
            }
            for (String key : s.keys.split(" ")) {
                want.computeIfAbsent(s.topic + " " + key, k -> new HashSet<>()).add(s.id);
            }
        }
        long begin = note.stream().mapToLong(Sent::storeTime).min().getAsLong() - 1000;
        long end = note.stream().mapToLong(Sent::storeTime).max().getAsLong() + 1000;
        int n = 0;
        for (Map.Entry<String, Set<String>> e : want.entrySet()) {
            if (n++ % 4 != 0 || e.getValue().size() > 32) {
                continue; // each fourth is enough; a broker answers at most 32 (defaultQueryMaxNum)
            }
            String[] k = e.getKey().split(" ");
            Set<String> got = new HashSet<>();
            try {
                producer.queryMessage(k[0], k[1], 64, begin, end).getMessageList().forEach(m -> got.add(m.getMsgId()));
            } catch (MQClientException none) {
                throw new Report.Wrong("nothing found for key " + e.getKey() + ": " + none.getErrorMessage());
            }
            Report.equal(e.getValue().size(), got.size(), "messages for key " + e.getKey());
            Report.check(got.equals(e.getValue()), "other messages for key " + e.getKey());
        }
    }

    private void byUniqueKey(List<Sent> note) throws Exception {
        for (int i = 0; i < note.size(); i += 20) {
            Sent s = note.get(i);
            MessageExt m = producer.viewMessage(s.topic, s.id);
            Report.equal(s.offset, m.getQueueOffset(), "queue offset by unique key " + s.id);
        }
    }

    private void byTime(List<Sent> note) throws Exception {
        Map<String, Long> firstAt = new HashMap<>(); // of several records of one millisecond the first is answered
        for (Sent s : note) {
            firstAt.merge(s.topic + s.queue + "@" + s.storeTime, s.offset, Math::min);
        }
        for (int i = 0; i < note.size(); i += 5) {
            Sent s = note.get(i);
            MessageQueue q = queue(s);
            Report.equal(firstAt.get(s.topic + s.queue + "@" + s.storeTime), consumer.searchOffset(q, s.storeTime), "offset by time in " + q);
        }
    }

    private MessageQueue queue(Sent s) throws Exception {
        for (MessageQueue q : c.queues(producer, s.topic)) {
            if (q.getQueueId() == s.queue) {
                return q;
            }
        }
        throw new Report.Wrong("no queue " + s.queue + " of " + s.topic);
    }

    private void byOffsetId(List<Sent> note) throws Exception {
        String[] hostPort = c.broker.split(":");
        InetSocketAddress address = new InetSocketAddress(hostPort[0], Integer.parseInt(hostPort[1]));
        for (int i = 0; i < note.size(); i += 10) {
            Sent s = note.get(i);
            MessageExt m = producer.viewMessage(s.topic, MessageDecoder.createMessageId(address, s.position));
            Report.equal(s, Sent.of(m), "message at " + s.position);
        }
    }

    private void consumerOffsets() throws Exception {
        for (String topic : TOPICS) {
            for (MessageQueue q : c.queues(producer, topic)) {
                Report.equal(q.getQueueId() + 1, consumer.fetchConsumeOffset(q, true), "committed offset of " + q);
            }
        }
    }

    /** New messages go behind the old ones. */
    private void goesOn(List<Sent> note) throws Exception {
        long end = note.stream().mapToLong(Sent::position).max().getAsLong();
        for (String topic : TOPICS) {
            for (MessageQueue q : c.queues(producer, topic)) {
                long max = note.stream().filter(s -> s.topic.equals(topic) && s.queue == q.getQueueId()).mapToLong(Sent::offset).max().orElse(-1);
                Message m = new Message(topic, "TagNew", "newkey" + q.getQueueId(), "goes on".getBytes());
                SendResult r = Clients.ok(producer.send(m, q));
                Report.equal(max + 1, r.getQueueOffset(), "queue offset of a new message in " + q);
                MessageExt got = producer.viewMessage(topic, r.getOffsetMsgId());
                Report.check(got.getCommitLogOffset() > end, "the new message lies at " + got.getCommitLogOffset() + ", before " + end);
                Report.equal("goes on", new String(got.getBody()), "body");
                Clients.eventually("the new message cannot be pulled", () ->
                    consumer.pull(q, "TagNew", max + 1, 32).getPullStatus() == PullStatus.FOUND);
            }
        }
    }
}
