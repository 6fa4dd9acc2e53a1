//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machineUse is what the machine did during one load. Shares are of all its cores.
type machineUse struct {
	Seconds   float64 `json:"seconds"`
	Server    float64 `json:"server"`
	Generator float64 `json:"generator"`
	Others    float64 `json:"others"` // processes that have no part in this, and the kernel's own work
	Stolen    float64 `json:"stolen"` // by the hypervisor
}

// machineState counts CPU seconds since boot.
type machineState struct {
	at                   time.Time
	busy, stolen, server float64
}

const ticksPerSecond = 100 // USER_HZ

// readMachine reads /proc/stat and the server's CPU time. What cannot be read counts as 0.
func readMachine(pid int) machineState {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	m := machineState{at: time.Now(), server: processSeconds(pid)}
	m.busy, m.stolen = parseCPU(line)
	return m
}

// parseCPU reads "cpu user nice system idle iowait irq softirq steal guest guest_nice".
func parseCPU(line string) (busy, stolen float64) {
	for i, field := range strings.Fields(line) {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			continue
		}
		switch i {
		case 1, 2, 3, 6, 7:
			busy += float64(ticks) / ticksPerSecond
		case 8:
			stolen = float64(ticks) / ticksPerSecond
		}
	}
	return busy, stolen
}

func processSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	ticks := int64(0)
	for _, at := range []int{11, 12} {
		if at < len(fields) {
			n, _ := strconv.ParseInt(fields[at], 10, 64)
			ticks += n
		}
	}
	return float64(ticks) / ticksPerSecond
}

func (m machineState) since(before machineState, generator float64) machineUse {
	u := machineUse{Seconds: m.at.Sub(before.at).Seconds()}
	all := u.Seconds * float64(runtime.NumCPU())
	if all <= 0 {
		return u
	}
	u.Server, u.Generator, u.Stolen = (m.server-before.server)/all, generator/all, (m.stolen-before.stolen)/all
	u.Others = max(0, (m.busy-before.busy)/all-u.Server-u.Generator)
	return u
}

// syncFiles writes the dirty pages of the file system back.
func syncFiles(ctx context.Context, dir string) error {
	if text, err := exec.CommandContext(ctx, "sync", "-f", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("sync -f: %w: %s", err, text)
	}
	return nil
}

// processUse is what a process has used since its start, all its threads together.
type processUse struct {
	at       time.Time
	cpu      time.Duration // on a core, by the scheduler's own count
	switches int64
	threads  int
}

// readProcess reads /proc/PID/task. Threads that end between two readings take theirs with them.
func readProcess(pid int) processUse {
	u := processUse{at: time.Now()}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue
		}
		u.threads++
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			nanos, _ := strconv.ParseInt(fields[0], 10, 64)
			u.cpu += time.Duration(nanos)
		}
		status, _ := os.ReadFile(filepath.Join(task, "status"))
		for line := range strings.Lines(string(status)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				u.switches += n
			}
		}
	}
	return u
}

// syscallsOf counts the system calls of a process for some seconds; 0 where the kernel or perf does not let us.
func syscallsOf(ctx context.Context, pid, seconds int) float64 {
	text, err := exec.CommandContext(ctx, "perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", strconv.Itoa(pid),
		"--", "sleep", strconv.Itoa(seconds)).CombinedOutput()
	if err != nil {
		return 0
	}
	return parsePerfStat(string(text))
}

// parsePerfStat reads "1234,,raw_syscalls:sys_enter,..."; a count that could not be taken has no number there.
func parsePerfStat(text string) float64 {
	for line := range strings.Lines(text) {
		if fields := strings.Split(line, ","); len(fields) > 2 && fields[2] == "raw_syscalls:sys_enter" {
			n, _ := strconv.ParseFloat(fields[0], 64)
			return n
		}
	}
	return 0
}

// readStatus reads the sizes in /proc/PID/status, in bytes.
func readStatus(pid int) map[string]int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	sizes := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "kB" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			sizes[strings.TrimSuffix(fields[0], ":")] = n << 10
		}
	}
	return sizes
}

// output is the first line that a program says.
func output(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// lastLine is the last line that a program says.
func lastLine(ctx context.Context, name string, args ...string) string {
	text, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// disk names the file system, the device and what the kernel knows about it.
func disk(ctx context.Context, dir string) string {
	fields := strings.Fields(output(ctx, "findmnt", "-n", "-o", "FSTYPE,SOURCE", "-T", dir))
	if len(fields) != 2 {
		return "unknown"
	}
	text := fields[0] + " on " + filepath.Base(fields[1])
	for _, setting := range []string{"scheduler", "write_cache"} {
		found, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(fields[1]), "queue", setting))
		if err == nil {
			text += ", " + strings.ReplaceAll(setting, "_", " ") + " " + strings.TrimSpace(string(found))
		}
	}
	return text
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// memoryTotal is the machine's memory in bytes, 0 when unknown.
func memoryTotal() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		return kib << 10
	}
	return 0
}
