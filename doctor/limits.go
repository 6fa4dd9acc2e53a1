package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/ioengine"
)

// unlimited stands for a limit that there is not.
const unlimited = int64(1<<63 - 1)

// limit reads one line of /proc/self/limits: soft and hard.
func (m *machine) limit(name string) (soft, hard int64, found bool) {
	text, _ := m.text("/proc/self/limits")
	for line := range strings.Lines(text) {
		rest, mine := strings.CutPrefix(line, name+"  ")
		f := strings.Fields(rest)
		if !mine || len(f) < 2 {
			continue
		}
		soft, err1 := parseLimit(f[0])
		hard, err2 := parseLimit(f[1])
		return soft, hard, err1 == nil && err2 == nil
	}
	return 0, 0, false
}

func parseLimit(s string) (int64, error) {
	if s == "unlimited" || s == "max" {
		return unlimited, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return int64(min(n, uint64(unlimited))), err
}

// lookMemlock compares with the memory around the log's tail: pages that are not locked may be taken back, and then a send waits for the disk.
func lookMemlock(m *machine) []Finding {
	const name = "memlock"
	soft, hard, found := m.limit("Max locked memory")
	switch {
	case m.capable(capIPCLock):
		return []Finding{ok(name, "CAP_IPC_LOCK: unlimited", "the log's tail stays in memory")}
	case !found:
		return []Finding{unseen(name, "/proc/self/limits")}
	case soft == unlimited:
		return []Finding{ok(name, "unlimited", "the log's tail stays in memory")}
	case soft >= m.LockedBytes:
		return []Finding{ok(name, size(soft), "room for the "+size(m.LockedBytes)+" that the broker locks")}
	}
	shell := "ulimit -l unlimited   # as root; for a user: memlock in /etc/security/limits.d/ringmq.conf"
	if hard >= m.LockedBytes {
		shell = "ulimit -l unlimited || ulimit -l " + strconv.FormatInt(m.LockedBytes>>10, 10)
	}
	return []Finding{warning(name, size(soft), "the broker locks "+size(m.LockedBytes)+" around the log's tail; without that the kernel may take pages back, and a send waits for them",
		shell, "systemd: LimitMEMLOCK=infinity   docker: --ulimit memlock=-1   or CAP_IPC_LOCK")}
}

// filesBesides are descriptors other than connections: segments, queue files, reactors.
const filesBesides = 8192

func lookFiles(m *machine) []Finding {
	const name = "nofile"
	_, hard, found := m.limit("Max open files")
	if !found {
		return []Finding{unseen(name, "/proc/self/limits")}
	}
	want := int64(m.MaxConnections) + filesBesides
	cure := fmt.Sprintf("systemd: LimitNOFILE=%d   docker: --ulimit nofile=%[1]d   shell: ulimit -Hn %[1]d", max(want, 1<<17))
	about := fmt.Sprintf("maxConnections=%d and %d for segments and queue files", m.MaxConnections, filesBesides)
	// The Go runtime raises the soft limit to the hard one.
	switch {
	case hard < 1024:
		return []Finding{failure(name, strconv.FormatInt(hard, 10), "too few for the store's own files, let alone connections: want "+about, cure)}
	case hard < want:
		return []Finding{warning(name, strconv.FormatInt(hard, 10), "fewer than "+about+": new connections are refused when they run out",
			cure, "or in broker.conf: maxConnections="+strconv.FormatInt(max(100, hard-min(filesBesides, hard/2)), 10))}
	}
	findings := []Finding{ok(name, number(hard), "enough for "+about)}
	if all, seen := m.number("/proc/sys/fs/file-max"); seen && all < want {
		findings = append(findings, warning("file-max", number(all), "the whole machine may open fewer files than this broker: want "+about, sysctl("fs.file-max", 4*want)))
	}
	return findings
}

func number(n int64) string {
	if n == unlimited {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

// mapsBesides are the mappings of the program itself.
const mapsBesides = 1024

// lookMaps: each segment in use has two mappings, a writable and a read-only one.
func lookMaps(m *machine) []Finding {
	const name = "max_map_count"
	have, found := m.number("/proc/sys/vm/max_map_count")
	if !found {
		return []Finding{unseen(name, "/proc/sys/vm/max_map_count")}
	}
	want := int64(mapsBesides)
	about := "two for each segment in use"
	if _, total, err := m.files.Usage(ioengine.Existing(m.CommitLogDir)); err == nil {
		segments := total / m.SegmentSize
		want += 2 * segments
		about = fmt.Sprintf("two for each of the %d segments the disk can hold", segments)
	}
	switch {
	case have < mapsBesides:
		return []Finding{failure(name, number(have), "the program itself may need more", sysctl("vm.max_map_count", max(want, 262144)))}
	case have < want:
		return []Finding{warning(name, number(have), "fewer than "+about+": old segments cannot be mapped when they are all read at once", sysctl("vm.max_map_count", max(want, 262144)))}
	}
	return []Finding{ok(name, number(have), "enough: "+about)}
}

// lookThreads: the smallest of the limits on threads counts.
func lookThreads(m *machine) []Finding {
	const name, few, tooFew = "threads", 256, 64
	least, what := unlimited, "no limit"
	limitBy := func(n int64, found bool, by string) {
		if found && n < least {
			least, what = n, number(n)+" by "+by
		}
	}
	soft, _, found := m.limit("Max processes")
	limitBy(soft, found, "RLIMIT_NPROC")
	group, limited := m.controlLimit("pids", "pids.max", "pids.max")
	limitBy(group, limited, "the control group")
	for _, key := range []string{"threads-max", "pid_max"} {
		n, seen := m.number("/proc/sys/kernel/" + key)
		limitBy(n, seen, "kernel."+key)
	}
	cures := []string{"systemd: TasksMax=4096 and LimitNPROC=4096   docker: --pids-limit 4096", "shell: ulimit -u 4096"}
	switch {
	case least < tooFew:
		return []Finding{failure(name, what, "the program ends when it cannot start a thread: it wants some tens, more while the disk is slow", cures...)}
	case least < few:
		return []Finding{warning(name, what, "little room: each call that waits for a slow disk holds a thread", cures...)}
	}
	return []Finding{ok(name, what, "enough for reactors, the flusher and calls that wait")}
}
