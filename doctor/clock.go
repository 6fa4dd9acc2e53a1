package doctor

import (
	"fmt"
	"slices"
)

// slowSources need a system call, or worse a device, for each look at the clock.
var slowSources = []string{"hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit"}

// fastSources are read without entering the kernel.
var fastSources = []string{"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource", "timebase", "tod"}

func lookClockSource(m *machine) []Finding {
	const name, folder = "clock source", "/sys/devices/system/clocksource/clocksource0/"
	current, found := m.text(folder + "current_clocksource")
	if !found || current == "" {
		return []Finding{unseen(name, folder+"current_clocksource")}
	}
	if slices.Contains(fastSources, current) {
		return []Finding{ok(name, current, "read without a system call")}
	}
	cure := "kernel parameter clocksource=tsc tsc=reliable   # if `dmesg | grep -i tsc` shows no fault"
	if available, _ := m.text(folder + "available_clocksource"); containsWord(available, " ", "tsc") {
		cure = "echo tsc > " + folder + "current_clocksource"
	}
	if slices.Contains(slowSources, current) {
		return []Finding{warning(name, current, "each look at the clock costs about a microsecond: several a message", cure)}
	}
	return []Finding{note(name, current, "may need a system call for each look at the clock", cure)}
}

// timeKeepers are programs that keep the clock.
var timeKeepers = []string{"chronyd", "ntpd", "systemd-timesyn", "openntpd", "ptp4l", "phc2sys"} // as /proc shows them: 15 characters

// lookClockSync asks systemd, which asks the kernel. Without it, a program that keeps the clock is as much as can be seen.
func lookClockSync(m *machine) []Finding {
	const name = "clock"
	const matters = "store times, delays, retention and queries by time are taken from it"
	cures := []string{"timedatectl set-ntp true   # or: apt-get install chrony && systemctl enable --now chrony", "chronyc tracking   # shows whether it has"}
	answer, err := m.command("timedatectl", "show", "--property=NTPSynchronized", "--value")
	switch {
	case err == nil && answer == "yes":
		return []Finding{ok(name, "synchronised", matters)}
	case err == nil && answer == "no":
		return []Finding{warning(name, "not synchronised", matters+": clients and other brokers disagree with it", cures...)}
	}
	if _, found := m.text("/run/systemd/timesync/synchronized"); found {
		return []Finding{ok(name, "synchronised", matters)}
	}
	if keeper := m.process(timeKeepers); keeper != "" {
		return []Finding{ok(name, fmt.Sprintf("kept by %s", keeper), matters)}
	}
	return []Finding{note(name, "no keeper seen", matters+"; in a container the host keeps the clock", cures...)}
}

// process is the first of these names that runs.
func (m *machine) process(names []string) string {
	for _, file := range m.glob("/proc/[0-9]*/comm") {
		if comm, found := m.text(file); found && slices.Contains(names, comm) {
			return comm
		}
	}
	return ""
}
