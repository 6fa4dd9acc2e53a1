package doctor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemory(t *testing.T) {
	total := func(kib string) func(*patient) {
		return func(p *patient) { p.replace("proc/meminfo", "16000000 kB", kib+" kB") }
	}
	diagnose(t, lookMemory, []outcome{
		{"of the machine", nil, "memory", OK, "of the machine", ""},
		{"little", total("1000000"), "memory", Warning, "976.6 MiB", "memory"},
		{"too little", total("262144"), "memory", Failure, "256 MiB", ""},
		{"a control group allows less", func(p *patient) { p.set("sys/fs/cgroup/system.slice/memory.max", "536870912") }, "memory", Warning, "512 MiB by the control group", "MemoryMax="},
		{"a control group allows too little", func(p *patient) { p.set("sys/fs/cgroup/system.slice/ringmq.service/memory.max", "134217728") }, "memory", Failure, "128 MiB by", "--memory"},
		{"control groups of the first version", func(p *patient) {
			p.set("proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n")
			p.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728") // a container sees its own group as the root
		}, "memory", Failure, "128 MiB by", ""},
		{"their number for no limit", func(p *patient) {
			p.set("proc/self/cgroup", "4:memory:/docker/abc\n")
			p.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
		}, "memory", OK, "of the machine", ""},
		{"not shown", func(p *patient) { p.remove("proc/meminfo") }, "memory", Note, "not seen", ""},
	})
}

func TestSwap(t *testing.T) {
	swap := func(total, free, swappiness string) func(*patient) {
		return func(p *patient) {
			p.set("proc/meminfo", "SwapTotal: "+total+" kB\nSwapFree: "+free+" kB\n")
			p.set("proc/sys/vm/swappiness", swappiness)
		}
	}
	diagnose(t, lookSwap, []outcome{
		{"none", nil, "swap", OK, "none", ""},
		{"some, hardly used, and not readily", swap("2097152", "2097052", "1"), "swap", OK, "100 KiB of 2 GiB", ""},
		{"readily", swap("2097152", "2097152", "60"), "swap", Note, "swappiness 60", "vm.swappiness=1"},
		{"in use", swap("2097152", "1048576", "1"), "swap", Warning, "1 GiB of 2 GiB used", "swapoff"},
		{"not shown", func(p *patient) { p.remove("proc/meminfo") }, "swap", Note, "not seen", ""},
	})
}

func TestDirtyLimits(t *testing.T) {
	bytes := func(background, limit string) func(*patient) {
		return func(p *patient) {
			p.set("proc/sys/vm/dirty_background_bytes", background)
			p.set("proc/sys/vm/dirty_bytes", limit)
		}
	}
	ratio := func(background, limit string) func(*patient) {
		return func(p *patient) {
			bytes("0", "0")(p)
			p.set("proc/sys/vm/dirty_background_ratio", background)
			p.set("proc/sys/vm/dirty_ratio", limit)
		}
	}
	diagnose(t, lookDirty, []outcome{
		{"in bytes", nil, "dirty limits", OK, "write from 256 MiB, wait from 1 GiB", ""},
		{"a share of what is available", ratio("5", "10"), "dirty limits", OK, "write from 585 MiB, wait from 1.1 GiB", ""},
		{"the kernel's default on a large machine", func(p *patient) {
			ratio("10", "20")(p)
			p.replace("proc/meminfo", "12000000 kB", "60000000 kB")
		}, "dirty limits", Note, "write from 5.7 GiB", "vm.dirty_background_bytes=268435456"},
		{"very low", bytes("16777216", "67108864"), "dirty limits", Warning, "wait from 64 MiB", "vm.dirty_bytes"},
		{"upside down", bytes("1073741824", "1073741824"), "dirty limits", Warning, "", "vm.dirty_bytes"},
		{"not shown", func(p *patient) { p.remove("proc/sys/vm") }, "dirty limits", Note, "not seen", ""},
	})
	expire := func(n string) func(*patient) {
		return func(p *patient) { p.set("proc/sys/vm/dirty_expire_centisecs", n) }
	}
	diagnose(t, lookDirtyExpiry, []outcome{
		{"the default", nil, "dirty expiry", OK, "30 s", ""},
		{"late", expire("12000"), "dirty expiry", Note, "120 s", "dirty_expire_centisecs=3000"},
		{"at once", expire("10"), "dirty expiry", Note, "100 ms", "dirty_expire_centisecs=3000"},
		{"not shown", func(p *patient) { p.remove("proc/sys/vm") }, "dirty expiry", Note, "not seen", ""},
	})
}

func TestHugePagesAndZones(t *testing.T) {
	pages := func(enabled, defrag string) func(*patient) {
		return func(p *patient) {
			p.set("sys/kernel/mm/transparent_hugepage/enabled", enabled)
			p.set("sys/kernel/mm/transparent_hugepage/defrag", defrag)
		}
	}
	diagnose(t, lookHugePages, []outcome{
		{"on demand", nil, "huge pages", OK, "enabled madvise", ""},
		{"always", pages("[always] madvise never", "always [madvise] never"), "huge pages", Note, "enabled always", "echo madvise"},
		{"always, and waiting for them", pages("[always] madvise never", "[always] madvise never"), "huge pages", Warning, "defrag always", "echo madvise"},
		{"not in the kernel", func(p *patient) { p.remove("sys/kernel/mm") }, "huge pages", OK, "not in this kernel", ""},
	})
	diagnose(t, lookZoneReclaim, []outcome{
		{"off", nil, "zone reclaim", OK, "off", ""},
		{"on", func(p *patient) { p.set("proc/sys/vm/zone_reclaim_mode", "1") }, "zone reclaim", Warning, "1", "vm.zone_reclaim_mode=0"},
		{"not in the kernel", func(p *patient) { p.remove("proc/sys/vm/zone_reclaim_mode") }, "zone reclaim", OK, "not in this kernel", ""},
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 192 << 20: "192 MiB", 1 << 40: "1 TiB"} {
		require.Equal(t, want, size(n))
	}
}
