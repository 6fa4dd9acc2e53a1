package doctor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKernel(t *testing.T) {
	release := func(s string) func(*patient) {
		return func(p *patient) { p.set("proc/sys/kernel/osrelease", s+"\n") }
	}
	diagnose(t, lookKernel, []outcome{
		{"all is there", nil, "kernel", OK, "6.18.44", ""},
		{"6.5 is the last that brought something", release("6.5-rc1"), "kernel", OK, "6.5-rc1", ""},
		{"without cachestat a note", release("6.4.12-arch"), "kernel", Note, "6.4.12", "6.5"},
		{"without populating a warning", release("5.10.0-28-amd64"), "kernel", Warning, "5.10.0", ""},
		{"without SO_REUSEPORT a failure", release("3.8.13"), "kernel", Failure, "3.8", ""},
		{"no number", release("unknown"), "kernel", Note, "not seen", "/proc"},
		{"no /proc", func(p *patient) { p.remove("proc") }, "kernel", Note, "not seen", ""},
	})
	p := healthy(t)
	p.set("proc/sys/kernel/osrelease", "6.0.9")
	f := lookKernel(p.machine)[0]
	require.Contains(t, f.Meaning, "DEFER_TASKRUN (6.1), cachestat (6.5)")
	require.NotContains(t, f.Meaning, "multishot", "6.0 has it")
}

func TestIoUring(t *testing.T) {
	refused := func(err error) func(*patient) {
		return func(p *patient) {
			p.IoUring = func() ([]Feature, error) { return nil, fmt.Errorf("io_uring_setup: %w", err) }
		}
	}
	both := func(all ...func(*patient)) func(*patient) {
		return func(p *patient) {
			for _, do := range all {
				do(p)
			}
		}
	}
	sysctl := func(value string) func(*patient) {
		return func(p *patient) { p.set("proc/sys/kernel/io_uring_disabled", value) }
	}
	filter := func(p *patient) { p.replace("proc/self/status", "Seccomp:\t0", "Seccomp:\t2") }
	untried := func(p *patient) { p.IoUring = nil }
	admin := func(p *patient) { p.replace("proc/self/status", "0000000000000000", "0000000000200000") }
	diagnose(t, lookIoUring, []outcome{
		{"allowed", nil, "io_uring", OK, "1 of 1 features", ""},
		{"allowed in a container whose filter lets it pass", filter, "io_uring", OK, "allowed", ""},
		{"a feature is missing", func(p *patient) {
			p.IoUring = func() ([]Feature, error) {
				return []Feature{{"fsync", true, "5.1"}, {"zero-copy send", false, "6.0"}}, nil
			}
		}, "io_uring", Note, "1 of 2 features", "6.1"},
		{"the sysctl forbids it to all", both(sysctl("2"), refused(syscall.EPERM)), "io_uring", Warning, "io_uring_disabled=2", "sysctl -w kernel.io_uring_disabled=0"},
		{"the sysctl forbids it to most", both(sysctl("1"), refused(syscall.EPERM)), "io_uring", Warning, "io_uring_disabled=1", "io_uring_group"},
		{"the sysctl is told even where a filter is, too", both(sysctl("2"), filter, refused(syscall.EPERM)), "io_uring", Warning, "io_uring_disabled=2", "sysctl"},
		{"a container's filter", both(filter, refused(syscall.EPERM)), "io_uring", Warning, "seccomp", "--security-opt seccomp="},
		{"a security module", refused(os.ErrPermission), "io_uring", Warning, "not permitted", "ausearch"},
		{"a kernel without it", refused(syscall.ENOSYS), "io_uring", Warning, "not in this kernel", "CONFIG_IO_URING"},
		{"something else", refused(errors.New("cannot allocate memory")), "io_uring", Warning, "refused", "RLIMIT_MEMLOCK"},
		{"not tried, nothing forbids it", untried, "io_uring", OK, "not forbidden", ""},
		{"not tried, forbidden to all", both(untried, sysctl("2")), "io_uring", Warning, "=2", "sysctl"},
		{"not tried, forbidden to most", both(untried, sysctl("1")), "io_uring", Warning, "=1", "sysctl"},
		{"not tried, forbidden to most but not to root", both(untried, sysctl("1"), admin), "io_uring", OK, "not forbidden", ""},
		{"not tried, a filter", both(untried, filter), "io_uring", Note, "seccomp", "--security-opt"},
		{"a kernel without the sysctl", func(p *patient) { p.remove("proc/sys/kernel/io_uring_disabled") }, "io_uring", OK, "allowed", ""},
	})
}

func TestMemlock(t *testing.T) {
	limit := func(soft, hard string) func(*patient) {
		return func(p *patient) {
			p.replace("proc/self/limits", "Max locked memory         unlimited            unlimited", "Max locked memory         "+soft+"   "+hard)
		}
	}
	diagnose(t, lookMemlock, []outcome{
		{"unlimited", nil, "memlock", OK, "unlimited", ""},
		{"enough", limit("201326592", "201326592"), "memlock", OK, "192 MiB", ""},
		{"too little", limit("8388608", "8388608"), "memlock", Warning, "8 MiB", "LimitMEMLOCK=infinity"},
		{"the shell may raise it", limit("8388608", "unlimited"), "memlock", Warning, "8 MiB", "ulimit -l 196608"},
		{"too little, but allowed to lock all", func(p *patient) {
			limit("8388608", "8388608")(p)
			p.replace("proc/self/status", "0000000000000000", "0000000000004000")
		}, "memlock", OK, "CAP_IPC_LOCK", ""},
		{"the broker locks more", func(p *patient) { limit("201326592", "201326592")(p); p.LockedBytes = 1 << 30 }, "memlock", Warning, "192 MiB", ""},
		{"not shown", func(p *patient) { p.remove("proc/self/limits") }, "memlock", Note, "not seen", ""},
	})
}

func TestFiles(t *testing.T) {
	limit := func(n string) func(*patient) {
		return func(p *patient) {
			p.replace("proc/self/limits", "1048576              1048576", "256              "+n)
		}
	}
	diagnose(t, lookFiles, []outcome{
		{"the hard limit counts, because the runtime raises the soft one", limit("1048576"), "nofile", OK, "1048576", ""},
		{"unlimited", limit("unlimited"), "nofile", OK, "unlimited", ""},
		{"fewer than connections", limit("20000"), "nofile", Warning, "20000", "maxConnections=11808"},
		{"fewer connections need fewer", func(p *patient) { limit("20000")(p); p.MaxConnections = 5000 }, "nofile", OK, "20000", ""},
		{"hardly any", limit("512"), "nofile", Failure, "512", "LimitNOFILE="},
		{"the machine has fewer", func(p *patient) { p.set("proc/sys/fs/file-max", "65536") }, "file-max", Warning, "65536", "fs.file-max"},
		{"not shown", func(p *patient) { p.remove("proc/self/limits") }, "nofile", Note, "not seen", ""},
	})
}

func TestMaps(t *testing.T) {
	count := func(n string) func(*patient) {
		return func(p *patient) { p.set("proc/sys/vm/max_map_count", n) }
	}
	diagnose(t, lookMaps, []outcome{
		{"enough for all segments", count("65530"), "max_map_count", OK, "65530", ""},
		{"small segments are many", func(p *patient) { count("65530")(p); p.SegmentSize = 1 << 20 }, "max_map_count", Warning, "65530", "vm.max_map_count=262144"},
		{"a disk of unknown size", func(p *patient) { count("65530")(p); p.files.usageErr = errProbe }, "max_map_count", OK, "65530", ""},
		{"fewer than the program needs", count("512"), "max_map_count", Failure, "512", "vm.max_map_count"},
		{"not shown", func(p *patient) { p.remove("proc/sys/vm/max_map_count") }, "max_map_count", Note, "not seen", ""},
	})
}

func TestThreads(t *testing.T) {
	diagnose(t, lookThreads, []outcome{
		{"the smallest limit is told", nil, "threads", OK, "96365 by RLIMIT_NPROC", ""},
		{"a control group's is smaller", func(p *patient) { p.set("sys/fs/cgroup/system.slice/pids.max", "1000") }, "threads", OK, "1000 by the control group", ""},
		{"few", func(p *patient) { p.set("sys/fs/cgroup/system.slice/ringmq.service/pids.max", "100") }, "threads", Warning, "100 by", "TasksMax"},
		{"too few", func(p *patient) { p.set("sys/fs/cgroup/system.slice/ringmq.service/pids.max", "32") }, "threads", Failure, "32 by", "--pids-limit"},
		{"the kernel's own", func(p *patient) { p.set("proc/sys/kernel/threads-max", "200") }, "threads", Warning, "kernel.threads-max", ""},
		{"no limit is seen", func(p *patient) { p.remove("proc"); p.remove("sys") }, "threads", OK, "no limit", ""},
	})
}

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]release{"6.18.44-fc": {6, 18}, "5.14.0-503.el9.x86_64": {5, 14}, "7.0": {7, 0}, "6.5-rc3": {6, 5}} {
		have, known := parseRelease(text)
		require.True(t, known, text)
		require.Equal(t, want, have)
	}
	for _, text := range []string{"", "six", "6", "6.", ".5"} {
		_, known := parseRelease(text)
		require.False(t, known, text)
	}
}
