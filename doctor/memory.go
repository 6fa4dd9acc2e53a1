package doctor

import (
	"fmt"
	"strconv"
)

// anonymous is the broker's own memory under load, beside what it locks.
const anonymous = 150 << 20

func lookMemory(m *machine) []Finding {
	const name = "memory"
	total, found := m.memory("MemTotal")
	if !found {
		return []Finding{unseen(name, "/proc/meminfo")}
	}
	have, by := total, "of the machine"
	cure := "more memory"
	if limit, limited := m.controlLimit("memory", "memory.limit_in_bytes", "memory.max"); limited && limit < total {
		have, by = limit, "by the control group"
		cure = "systemd: MemoryMax=4G   docker: --memory 4g   kubernetes: resources.limits.memory: 4Gi"
	}
	want := m.LockedBytes + anonymous
	switch {
	case have < want:
		return []Finding{failure(name, size(have)+" "+by, "the broker locks "+size(m.LockedBytes)+" and uses "+size(anonymous)+" more: the kernel kills it", cure)}
	case have < 4*want:
		return []Finding{warning(name, size(have)+" "+by, "little is left for the page cache: consumers that are behind read from the disk", cure)}
	}
	return []Finding{ok(name, size(have)+" "+by, "room for "+size(want)+" of the broker's and for the page cache")}
}

// lookSwap: the log's tail is locked, the program's own memory is not.
func lookSwap(m *machine) []Finding {
	const name = "swap"
	total, found := m.memory("SwapTotal")
	if !found {
		return []Finding{unseen(name, "/proc/meminfo")}
	}
	if total == 0 {
		return []Finding{ok(name, "none", "the broker's memory stays where it is")}
	}
	free, _ := m.memory("SwapFree")
	swappiness, _ := m.number("/proc/sys/vm/swappiness")
	text := fmt.Sprintf("%s of %s used, swappiness %d", size(total-free), size(total), swappiness)
	switch {
	case total-free > 256<<20:
		return []Finding{warning(name, text, "memory runs short: a message may wait until pages come back from the disk", sysctl("vm.swappiness", int64(1)), "swapoff -a && swapon -a   # when there is room again")}
	case swappiness > 10:
		return []Finding{note(name, text, "the kernel swaps idle memory of the broker in favour of the page cache", sysctl("vm.swappiness", int64(1)))}
	}
	return []Finding{ok(name, text, "used only when memory runs out")}
}

// dirtyLimit is one of the two limits: the bytes where they are set, else the share of the memory that may become dirty.
func (m *machine) dirtyLimit(key string) (int64, bool) {
	if n, found := m.number("/proc/sys/vm/" + key + "_bytes"); found && n > 0 {
		return n, true
	}
	ratio, found := m.number("/proc/sys/vm/" + key + "_ratio")
	available, known := m.memory("MemAvailable")
	return available / 100 * ratio, found && known
}

// lookDirty: the broker paces its own write-back. The limits count what all programs leave dirty together: above the first the kernel
// writes, above the second whoever writes waits, and a store through a mapping is a write.
func lookDirty(m *machine) []Finding {
	const name = "dirty limits"
	const low, high = int64(256 << 20), int64(1 << 30)
	background, found1 := m.dirtyLimit("dirty_background")
	limit, found2 := m.dirtyLimit("dirty")
	if !found1 || !found2 {
		return []Finding{unseen(name, "/proc/sys/vm/dirty_*")}
	}
	text := fmt.Sprintf("write from %s, wait from %s", size(roundDown(background)), size(roundDown(limit)))
	cures := []string{sysctl("vm.dirty_background_bytes", low), sysctl("vm.dirty_bytes", 4*low)}
	switch {
	case limit < low:
		return []Finding{warning(name, text, "appends wait for the disk as soon as so little is dirty, whichever program left it", cures...)}
	case background >= limit:
		return []Finding{warning(name, text, "the first limit is not below the second: writers wait before the kernel has begun to write", cures...)}
	case background > high:
		return []Finding{note(name, text, "the broker paces its own writes; another program may leave so much dirty that syncs wait for seconds behind it", cures...)}
	}
	return []Finding{ok(name, text, "other programs' writes cannot pile up before the log's")}
}

// roundDown keeps figures that come of a ratio short.
func roundDown(n int64) int64 {
	if n > 1<<30 {
		return n &^ (64<<20 - 1)
	}
	return n &^ (1<<20 - 1)
}

func lookDirtyExpiry(m *machine) []Finding {
	const name = "dirty expiry"
	n, found := m.number("/proc/sys/vm/dirty_expire_centisecs")
	switch {
	case !found:
		return []Finding{unseen(name, "/proc/sys/vm/dirty_expire_centisecs")}
	case n > 6000:
		return []Finding{note(name, fmt.Sprintf("%d s", n/100), "queue files and indexes, which recovery can rebuild, are written late: a restart after a crash takes longer", sysctl("vm.dirty_expire_centisecs", int64(3000)))}
	case n < 100:
		return []Finding{note(name, fmt.Sprintf("%d ms", n*10), "the kernel writes queue files again and again while they grow", sysctl("vm.dirty_expire_centisecs", int64(3000)))}
	}
	return []Finding{ok(name, fmt.Sprintf("%d s", n/100), "what the broker does not sync itself is written in time")}
}

func lookHugePages(m *machine) []Finding {
	const name, folder = "huge pages", "/sys/kernel/mm/transparent_hugepage/"
	enabled, found := m.chosen(folder + "enabled")
	if !found {
		return []Finding{ok(name, "not in this kernel", "nothing to look after")}
	}
	defrag, _ := m.chosen(folder + "defrag")
	text := "enabled " + enabled + ", defrag " + defrag
	cures := []string{"echo madvise > " + folder + "enabled", "echo madvise > " + folder + "defrag"}
	switch {
	case enabled == "always" && defrag == "always":
		return []Finding{warning(name, text, "a page fault may wait while the kernel moves memory to make a huge page", cures...)}
	case enabled == "always":
		return []Finding{note(name, text, "the broker's memory grows in steps of 2 MiB, and is merged behind its back", cures...)}
	}
	return []Finding{ok(name, text, "only memory that asks for it")}
}

func lookZoneReclaim(m *machine) []Finding {
	const name = "zone reclaim"
	n, found := m.number("/proc/sys/vm/zone_reclaim_mode")
	if found && n != 0 {
		return []Finding{warning(name, strconv.FormatInt(n, 10), "the page cache is thrown away on one memory node while others have room: warm reads become cold", sysctl("vm.zone_reclaim_mode", int64(0)))}
	}
	if !found {
		return []Finding{ok(name, "not in this kernel", "one memory node")}
	}
	return []Finding{ok(name, "off", "the page cache may use all memory nodes")}
}
