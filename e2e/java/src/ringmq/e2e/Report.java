package ringmq.e2e;

import java.io.PrintStream;

/** Prints one line for each scenario and remembers failures for the exit status. */
final class Report {
    /** The real standard output, also while a scenario captures what a tool prints. */
    static final PrintStream OUT = System.out;
    private static int failed;
    private static int passed;

    interface Scenario {
        void run() throws Throwable;
    }

    private Report() {
    }

    static boolean scenario(String name, Scenario s) {
        long begin = System.currentTimeMillis();
        try {
            s.run();
            passed(name, System.currentTimeMillis() - begin);
            return true;
        } catch (Throwable t) {
            failed(name, t);
            return false;
        }
    }

    static synchronized void passed(String name, long millis) {
        passed++;
        OUT.println("ok " + name + " (" + millis + " ms)");
        OUT.flush();
    }

    static synchronized void failed(String name, Throwable t) {
        failed++;
        String text = String.valueOf(t.getMessage()).replace('\n', ' ').replace('\r', ' ');
        if (text.length() > 600) {
            text = text.substring(0, 600) + "...";
        }
        OUT.println("FAIL " + name + " " + (t instanceof Wrong ? text : t.getClass().getSimpleName() + ": " + text));
        OUT.flush();
        System.err.println("--- " + name);
        t.printStackTrace();
    }

    static void check(boolean condition, String reason) {
        if (!condition) {
            throw new Wrong(reason);
        }
    }

    static void equal(Object want, Object got, String what) {
        if (!String.valueOf(want).equals(String.valueOf(got))) {
            throw new Wrong(what + ": want " + want + ", got " + got);
        }
    }

    /** Ends the program: client threads of a failed scenario must not hold it. */
    static void exit() {
        OUT.flush();
        System.exit(failed == 0 && passed > 0 ? 0 : 1);
    }

    static final class Wrong extends RuntimeException {
        Wrong(String reason) {
            super(reason);
        }
    }
}
