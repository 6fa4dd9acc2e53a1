package ringmq.e2e;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** Runs the scenarios of the Java clients. Arguments: name server, broker, prefix of the printed names, optionally names. */
public class Suite {
    /** Most scenarios wait for timers of the clients, so several run at a time. */
    private static final int AT_A_TIME = 6;

    public static void main(String[] args) throws Exception {
        Clients c = new Clients(args[0], args[1]);
        String prefix = args[2];
        List<String> only = Arrays.asList(args).subList(3, args.length);
        Map<String, Report.Scenario> all = new LinkedHashMap<>();
        new Sending(c).register(all);
        new Pushing(c).register(all);
        new Pulling(c).register(all);
        new Querying(c).register(all);
        new Refusals(c).register(all);
        for (String name : only) {
            if (!all.containsKey(name)) {
                throw new IllegalArgumentException("no scenario is named " + name);
            }
        }
        ExecutorService pool = Executors.newFixedThreadPool(AT_A_TIME);
        List<Map.Entry<String, Report.Scenario>> alone = new ArrayList<>();
        for (Map.Entry<String, Report.Scenario> e : all.entrySet()) {
            boolean changesBroker = e.getKey().startsWith("alone-"); // and so runs last, and only when named
            if (only.isEmpty() ? changesBroker : !only.contains(e.getKey())) {
                continue;
            }
            if (changesBroker) {
                alone.add(e);
                continue;
            }
            pool.submit(() -> Report.scenario(prefix + e.getKey(), e.getValue()));
        }
        pool.shutdown();
        if (!pool.awaitTermination(4, TimeUnit.MINUTES)) {
            Report.failed(prefix + "time", new Report.Wrong("scenarios did not end in four minutes"));
        }
        for (Map.Entry<String, Report.Scenario> e : alone) {
            Report.scenario(prefix + e.getKey(), e.getValue());
        }
        Report.exit();
    }
}
