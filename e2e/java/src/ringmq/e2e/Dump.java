package ringmq.e2e;

import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import com.alibaba.fastjson2.JSON;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;

/** Prints what the official decoder reads in the commit log of a store, one JSON object a record. Argument: the store. */
public class Dump {
    private static final int BLANK = -875286124;

    public static void main(String[] args) throws Exception {
        List<Path> segments = new ArrayList<>();
        try (var files = Files.list(Path.of(args[0], "commitlog"))) {
            files.sorted().forEach(segments::add);
        }
        for (Path segment : segments) {
            ByteBuffer b = ByteBuffer.wrap(Files.readAllBytes(segment));
            while (b.remaining() >= 8) {
                int at = b.position();
                int size = b.getInt(at);
                int magic = b.getInt(at + 4);
                if (size <= 0 || size > b.remaining()) {
                    break;
                }
                if (magic == BLANK) {
                    print(segment, at, size, magic, null);
                    break;
                }
                ByteBuffer one = b.slice(at, size);
                print(segment, at, size, magic, MessageDecoder.decode(one, true, false, false));
                b.position(at + size);
            }
        }
        System.exit(0);
    }

    private static void print(Path segment, int at, int size, int magic, MessageExt m) {
        Map<String, Object> out = new LinkedHashMap<>();
        out.put("segment", segment.getFileName().toString());
        out.put("at", at);
        out.put("size", size);
        out.put("magic", magic);
        if (m != null) {
            out.put("bodyCRC", m.getBodyCRC());
            out.put("queueId", m.getQueueId());
            out.put("flag", m.getFlag());
            out.put("queueOffset", m.getQueueOffset());
            out.put("physicalOffset", m.getCommitLogOffset());
            out.put("sysFlag", m.getSysFlag());
            out.put("bornTimestamp", m.getBornTimestamp());
            out.put("bornHost", m.getBornHost().toString());
            out.put("storeTimestamp", m.getStoreTimestamp());
            out.put("storeHost", m.getStoreHost().toString());
            out.put("reconsumeTimes", m.getReconsumeTimes());
            out.put("preparedTransactionOffset", m.getPreparedTransactionOffset());
            out.put("offsetMsgId", m.getMsgId());
            out.put("topic", m.getTopic());
            out.put("properties", m.getProperties() == null ? new TreeMap<>() : new TreeMap<>(m.getProperties()));
            out.put("body", HexFormat.of().formatHex(m.getBody() == null ? new byte[0] : m.getBody()));
        }
        Report.OUT.println(JSON.toJSONString(out));
    }
}
