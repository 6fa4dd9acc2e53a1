package doctor

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProcessors(t *testing.T) {
	diagnose(t, lookProcessors, []outcome{
		{"all", nil, "processors", OK, "4 of 4", ""},
		{"a set of them", func(p *patient) { p.replace("proc/self/status", "0-3", "0,2") }, "processors", OK, "2 of 4, set 0,2", ""},
		{"one", func(p *patient) { p.replace("proc/self/status", "0-3", "1") }, "processors", Warning, "1 of 4", "taskset"},
		{"not shown", func(p *patient) { p.remove("proc/self/status") }, "processors", Note, "not seen", ""},
	})
	diagnose(t, lookGovernor, []outcome{
		{"full speed", nil, "governor", OK, "performance", ""},
		{"saving", func(p *patient) { p.set("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave") }, "governor", Warning, "performance (1), powersave (1)", "cpupower"},
		{"a virtual machine", func(p *patient) { p.remove("sys/devices/system/cpu") }, "governor", OK, "none seen", ""},
	})
	diagnose(t, lookSiblings, []outcome{
		{"off", nil, "SMT", OK, "off", ""},
		{"one processor of each core is proposed", func(p *patient) {
			p.set("sys/devices/system/cpu/smt/active", "1")
			for cpu, siblings := range map[string]string{"0": "0,2", "1": "1,3", "2": "0,2", "3": "1,3"} {
				p.set("sys/devices/system/cpu/cpu"+cpu+"/topology/thread_siblings_list", siblings)
			}
		}, "SMT", Note, "on", "reactorCpus=0,1 "},
		{"a long list is cut", func(p *patient) {
			p.set("sys/devices/system/cpu/smt/active", "1")
			p.set("sys/devices/system/cpu/online", "0-99")
			for cpu := 0; cpu < 99; cpu += 2 {
				pair := string(rune('0'+cpu/10)) + string(rune('0'+cpu%10))
				if cpu < 10 {
					pair = pair[1:]
				}
				p.set("sys/devices/system/cpu/cpu"+pair+"/topology/thread_siblings_list", pair)
			}
		}, "SMT", Note, "on", ",30,..."},
	})
}

func TestQuota(t *testing.T) {
	const group = "sys/fs/cgroup/system.slice/ringmq.service/"
	throttled := "nr_periods 900\nnr_throttled 12\nthrottled_usec 5\n"
	diagnose(t, lookQuota, []outcome{
		{"none", nil, "processor quota", OK, "none", ""},
		{"not reached", func(p *patient) { p.set(group+"cpu.max", "200000 100000") }, "processor quota", Note, "2.00 processors, stopped in 0 of 0", "resources.limits.cpu"},
		{"reached", func(p *patient) { p.set(group+"cpu.max", "200000 100000"); p.set(group+"cpu.stat", throttled) }, "processor quota", Warning, "stopped in 12 of 900", "--cpus"},
		{"less than one processor", func(p *patient) { p.set("sys/fs/cgroup/system.slice/cpu.max", "50000 100000") }, "processor quota", Warning, "0.50 processors", ""},
		{"first version", func(p *patient) {
			p.set("proc/self/cgroup", "1:cpu,cpuacct:/docker/abc\n")
			p.set("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000")
			p.set("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
			p.set("sys/fs/cgroup/cpu/cpu.stat", throttled)
		}, "processor quota", Warning, "1.50 processors, stopped in 12 of 900", ""},
		{"first version, none", func(p *patient) {
			p.set("proc/self/cgroup", "1:cpu,cpuacct:/docker/abc\n")
			p.set("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
			p.set("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
		}, "processor quota", OK, "none", ""},
	})
}

func TestHypervisor(t *testing.T) {
	virtual := func(steal string) func(*patient) {
		return func(p *patient) {
			p.set("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor tsc\n")
			p.set("sys/class/dmi/id/sys_vendor", "QEMU\n")
			p.set("proc/stat", "cpu  1000 0 500 8500 0 0 0 "+steal+" 900 0\n")
		}
	}
	diagnose(t, lookHypervisor, []outcome{
		{"none", nil, "hypervisor", OK, "none seen", ""},
		{"undisturbed", virtual("0"), "hypervisor", OK, "virtual machine (QEMU), 0.0 % stolen", ""},
		{"a little stolen", virtual("50"), "hypervisor", Note, "0.5 %", "perf stub"},
		{"much stolen", virtual("500"), "hypervisor", Warning, "4.8 %", "virsh"},
	})
	p := healthy(t)
	for _, stat := range []string{"", "cpu", "cpu 1 2 3", "cpu 0 0 0 0 0 0 0 0", "intr 1 2 3 4 5 6 7 8 9"} {
		p.set("proc/stat", stat)
		require.Zero(t, p.stolen(), stat)
	}
}

func TestClockSource(t *testing.T) {
	const folder = "sys/devices/system/clocksource/clocksource0/"
	source := func(current, available string) func(*patient) {
		return func(p *patient) {
			p.set(folder+"current_clocksource", current)
			p.set(folder+"available_clocksource", available)
		}
	}
	diagnose(t, lookClockSource, []outcome{
		{"tsc", nil, "clock source", OK, "tsc", ""},
		{"kvm-clock", source("kvm-clock", "kvm-clock"), "clock source", OK, "kvm-clock", ""},
		{"slow, with a better one at hand", source("hpet", "tsc hpet acpi_pm"), "clock source", Warning, "hpet", "echo tsc >"},
		{"slow, without", source("acpi_pm", "acpi_pm"), "clock source", Warning, "acpi_pm", "clocksource=tsc"},
		{"unknown", source("xen", "xen tsc"), "clock source", Note, "xen", "echo tsc >"},
		{"not shown", func(p *patient) { p.remove("sys/devices/system/clocksource") }, "clock source", Note, "not seen", ""},
	})
}

func TestClockSync(t *testing.T) {
	answers := func(text string, err error) func(*patient) {
		return func(p *patient) {
			p.command = func(name string, args ...string) (string, error) {
				require.Equal(p.t, "timedatectl", name)
				return text, err
			}
		}
	}
	absent := answers("", errors.New("executable file not found"))
	diagnose(t, lookClockSync, []outcome{
		{"synchronised", nil, "clock", OK, "synchronised", ""},
		{"not synchronised", answers("no", nil), "clock", Warning, "not synchronised", "set-ntp"},
		{"without systemd a keeper is as much as can be seen", absent, "clock", OK, "kept by chronyd", ""},
		{"timesyncd's own mark", func(p *patient) {
			absent(p)
			p.remove("proc/77")
			p.set("run/systemd/timesync/synchronized", "")
		}, "clock", OK, "synchronised", ""},
		{"nobody", func(p *patient) { absent(p); p.remove("proc/77") }, "clock", Note, "no keeper seen", "chrony"},
	})
}

func TestProcessorLists(t *testing.T) {
	require.Equal(t, []int{0, 1, 2, 3, 8}, processors("0-3,8\n"))
	require.Empty(t, processors(""))
	require.Empty(t, processors("3-1,x,-,-5"))
	require.Len(t, processors("0-999999999"), 1<<14)
	require.Equal(t, []int{10911, 5, 6}, portList("10911,5-6"))
	require.Empty(t, portList("99999,-1"))
	require.Len(t, portList("0-65535,0-65535"), 1<<16+1)
}
