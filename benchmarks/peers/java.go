//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// javaVersion is the one that benchmarks/java/pom.xml names.
const javaVersion = "5.5.0"

// defaultHeap is the 8 GiB of the distribution's bin/runbroker.sh where the machine has three times as much (page cache is what a
// broker reads and writes through), else a third of what it has.
func defaultHeap(memory int64) string {
	return fmt.Sprintf("%dg", min(8, max(1, (memory+1<<29)>>30/3)))
}

// preTouch makes Java write to its whole heap before it starts.
const preTouch = "-XX:+AlwaysPreTouch"

// javaOptions are those of bin/runbroker.sh, but for -XX:-UseBiasedLocking, which newer Javas do not know.
func javaOptions(heap string) []string {
	return []string{
		"-server", "-Xms" + heap, "-Xmx" + heap, "-Xmn" + half(heap), "-XX:+UseG1GC", "-XX:G1HeapRegionSize=16m", "-XX:G1ReservePercent=25",
		"-XX:InitiatingHeapOccupancyPercent=30", "-XX:SoftRefLRUPolicyMSPerMB=0", "-XX:-OmitStackTraceInFastThrow",
		preTouch, "-XX:MaxDirectMemorySize=15g", "-XX:-UseLargePages",
	}
}

// half of a size such as 4g or 512m.
func half(size string) string {
	n, err := strconv.Atoi(strings.TrimRight(size, "gGmM"))
	if err != nil || n < 1 {
		return size
	}
	if strings.HasSuffix(strings.ToLower(size), "g") {
		return strconv.Itoa(n*512) + "m"
	}
	return strconv.Itoa(n/2) + "m"
}

// javaCommands are the name server (which has nothing to do here) and the broker.
func (o *options) javaCommands(dir, conf string, options []string) (names, broker *exec.Cmd) {
	java := func(options []string, class, conf string) *exec.Cmd {
		args := append(options, "-Duser.home="+dir, "-cp", filepath.Join(o.java, "*"), class, "-c", conf)
		cmd := exec.Command("java", args...)
		cmd.Env = append(os.Environ(), "ROCKETMQ_HOME="+dir)
		return cmd
	}
	gc := "-Xlog:gc*=info,safepoint=info:file=" + filepath.Join(dir, "gc.log") + ":utctime,level,tags:filecount=5,filesize=30M"
	names = java([]string{"-server", "-Xms256m", "-Xmx256m"}, "org.apache.rocketmq.namesrv.NamesrvStartup", filepath.Join(dir, "namesrv.conf"))
	return names, java(append(options, gc), "org.apache.rocketmq.broker.BrokerStartup", conf)
}

// fetchJava gets Apache RocketMQ from Maven Central, unless the folder has it.
func (o *options) fetchJava(ctx context.Context) error {
	return o.fetchJars(ctx, "Apache RocketMQ "+javaVersion, o.java, "rocketmq-broker-"+javaVersion+".jar", "benchmarks/java/pom.xml")
}

// fetchJars gets what a pom names into a folder, unless it has the jar that everything is about.
func (o *options) fetchJars(ctx context.Context, what, dir, jar, pom string) error {
	if _, err := os.Stat(filepath.Join(dir, jar)); err == nil {
		return nil
	}
	_, _ = fmt.Fprintln(o.out, "fetching", what, "with Maven")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DoutputDirectory="+dir)
	cmd.Stdout, cmd.Stderr = o.out, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mvn: %w (or give a folder that has the jars, or leave it out of --peers)", err)
	}
	return nil
}

var heapUsed = regexp.MustCompile(`heap\s+total \d+K, used (\d+)K`)

// liveHeap, in bytes, is what is left on the heap after a full collection: what of -Xms is in use. 0 where jcmd is missing.
func liveHeap(ctx context.Context, s *server) int64 {
	if s == nil {
		return 0
	}
	pid := strconv.Itoa(s.pid())
	if exec.CommandContext(ctx, "jcmd", pid, "GC.run").Run() != nil {
		return 0
	}
	text, err := exec.CommandContext(ctx, "jcmd", pid, "GC.heap_info").Output()
	if err != nil {
		return 0
	}
	return parseHeap(string(text))
}

func parseHeap(text string) int64 {
	found := heapUsed.FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	kib, _ := strconv.ParseInt(found[1], 10, 64)
	return kib << 10
}
