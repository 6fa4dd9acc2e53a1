package doctor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// lookProcessors: what of the machine's processors this process may use.
func lookProcessors(m *machine) []Finding {
	const name = "processors"
	list, found := m.fields("/proc/self/status")["Cpus_allowed_list"]
	allowed := len(processors(list))
	if !found || allowed == 0 {
		return []Finding{unseen(name, "/proc/self/status")}
	}
	text := strconv.Itoa(allowed)
	if online, seen := m.text("/sys/devices/system/cpu/online"); seen {
		text = fmt.Sprintf("%d of %d", allowed, len(processors(online)))
		if allowed < len(processors(online)) {
			text += ", set " + list
		}
	}
	if allowed == 1 {
		return []Finding{warning(name, text, "network, log and flusher take turns on one processor: each waits for the others",
			"taskset -pc, cpuset.cpus or docker --cpuset-cpus: two at least, as 0-1")}
	}
	return []Finding{ok(name, text, "half of them serve the network, unless reactors says otherwise")}
}

// lookGovernor: a processor that sleeps deep or runs slow answers the first message late.
func lookGovernor(m *machine) []Finding {
	const name = "governor"
	files := m.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
	counts := make(map[string]int)
	for _, file := range files {
		if governor, found := m.text(file); found {
			counts[governor]++
		}
	}
	if len(counts) == 0 {
		return []Finding{ok(name, "none seen", "the frequency is not for this system to set (usual in a virtual machine)")}
	}
	if counts["performance"] == len(files) {
		return []Finding{ok(name, "performance", "full speed at once")}
	}
	var texts []string
	for governor, n := range counts {
		texts = append(texts, fmt.Sprintf("%s (%d)", governor, n))
	}
	slices.Sort(texts)
	return []Finding{warning(name, strings.Join(texts, ", "), "a processor that was idle starts slow: the first messages after a pause take longer",
		"cpupower frequency-set -g performance", "or: echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")}
}

// lookSiblings matters to whoever pins reactors: two threads of one core share it.
func lookSiblings(m *machine) []Finding {
	const name = "SMT"
	if active, _ := m.number("/sys/devices/system/cpu/smt/active"); active != 1 {
		return []Finding{ok(name, "off", "each processor is a core")}
	}
	var first []string
	online, _ := m.text("/sys/devices/system/cpu/online")
	for _, cpu := range processors(online) {
		siblings, found := m.text(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		if all := processors(siblings); found && len(all) > 0 && all[0] == cpu {
			first = append(first, strconv.Itoa(cpu))
		}
	}
	const most = 16 // enough to show the pattern
	if len(first) > most {
		first = append(first[:most], "...")
	}
	return []Finding{note(name, "on", "two processors share a core: two busy reactors on one core get little more than one",
		"reactorCpus="+strings.Join(first, ",")+"   # in broker.conf, some of these")}
}

// lookQuota: a control group that has used up its time stands still until the next period, 100 ms in most cases.
func lookQuota(m *machine) []Finding {
	const name = "processor quota"
	quota, limited := m.quota()
	if !limited {
		return []Finding{ok(name, "none", "the broker is never stopped for having used its share")}
	}
	var periods, throttled int64
	for _, stat := range m.control("cpu", "cpu.stat", "cpu.stat") {
		for line := range strings.Lines(stat) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, _ := strconv.ParseInt(value, 10, 64)
			switch key {
			case "nr_periods":
				periods = max(periods, n)
			case "nr_throttled":
				throttled = max(throttled, n)
			}
		}
	}
	text := fmt.Sprintf("%.2f processors, stopped in %d of %d periods", quota, throttled, periods)
	const cure = "kubernetes: no resources.limits.cpu, requests only   docker: without --cpus   systemd: CPUQuota="
	if throttled > 0 || quota < 1 {
		return []Finding{warning(name, text, "a broker that has used its share stands still for the rest of each 100 ms: that is the tail", cure)}
	}
	return []Finding{note(name, text, "not reached so far; under load a broker that has used its share stands still", cure)}
}

// quota is the smallest share of processor time that a control group allows, in processors.
func (m *machine) quota() (least float64, limited bool) {
	consider := func(quota, period string) {
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && q > 0 && p > 0 && (!limited || q/p < least) {
			least, limited = q/p, true
		}
	}
	quotas := m.control("cpu", "cpu.cfs_quota_us", "cpu.max")
	periods := m.control("cpu", "cpu.cfs_period_us", "cpu.max")
	for i, q := range quotas {
		if f := strings.Fields(q); len(f) == 2 {
			consider(f[0], f[1])
		} else if i < len(periods) {
			consider(q, periods[i])
		}
	}
	return least, limited
}

func (m *machine) virtualMachine() bool {
	return containsWord(m.fields("/proc/cpuinfo")["flags"], " ", "hypervisor")
}

// lookHypervisor also looks at the time that other machines on the host took from this one, since the start.
func lookHypervisor(m *machine) []Finding {
	const name = "hypervisor"
	if !m.virtualMachine() {
		return []Finding{ok(name, "none seen", "the processors are this system's own")}
	}
	what := "virtual machine"
	if vendor, found := m.text("/sys/class/dmi/id/sys_vendor"); found && vendor != "" {
		what += " (" + vendor + ")"
	}
	stolen := m.stolen()
	text := fmt.Sprintf("%s, %.1f %% stolen", what, 100*stolen)
	switch {
	case stolen > 0.01:
		return []Finding{warning(name, text, "other machines on this host take processor time: each time is a stall that no setting here mends",
			"a dedicated or larger instance; on one's own host: virsh vcpupin", "judge latencies beside `ringmq perf stub`, which stores nothing")}
	case stolen > 0.001:
		return []Finding{note(name, text, "the host is shared: tails are not only the broker's", "judge latencies beside `ringmq perf stub`, which stores nothing")}
	}
	return []Finding{ok(name, text, "the host gives this machine its time")}
}

// stolen is the share of all processor time since the start.
func (m *machine) stolen() float64 {
	stat, _ := m.text("/proc/stat")
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	const steal, guest = 8, 9 // guest time is in user time already
	if len(f) <= steal || f[0] != "cpu" {
		return 0
	}
	var all, taken float64
	for i, text := range f[1:min(len(f), guest)] {
		n, _ := strconv.ParseFloat(text, 64)
		all += n
		if i+1 == steal {
			taken = n
		}
	}
	if all == 0 {
		return 0
	}
	return taken / all
}
