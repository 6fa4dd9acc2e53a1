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
	"slices"
	"strconv"
	"strings"
	"syscall"
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

// diskProbe is what one commit costs on this disk, with nothing else on it: the control of the SYNC_FLUSH loads.
type diskProbe struct {
	Scenario string  `json:"scenario"`
	Round    int     `json:"round"`
	P50      float64 `json:"p50Millis"`
	P99      float64 `json:"p99Millis"`
}

const probes = 200

// probeDisk overwrites 4 KiB of a file and waits until the device has it, again and again. O_DSYNC makes each write a write and an
// fdatasync.
func probeDisk(dir string) (diskProbe, error) {
	name := filepath.Join(dir, "probe")
	if err := os.WriteFile(name, make([]byte, probes*4096), 0o644); err != nil {
		return diskProbe{}, err
	}
	defer os.Remove(name)
	file, err := os.OpenFile(name, os.O_RDWR|syscall.O_DSYNC, 0)
	if err != nil {
		return diskProbe{}, err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return diskProbe{}, err
	}
	block := bytes.Repeat([]byte{1}, 4096)
	var took []float64
	for i := range int64(probes) {
		began := time.Now()
		if _, err := file.WriteAt(block, i*4096); err != nil {
			return diskProbe{}, err
		}
		took = append(took, time.Since(began).Seconds()*1e3)
	}
	slices.Sort(took)
	return diskProbe{P50: took[probes/2], P99: took[probes*99/100]}, nil
}

// syncFiles writes the dirty pages of the file system back.
func syncFiles(ctx context.Context, dir string) error {
	if text, err := exec.CommandContext(ctx, "sync", "-f", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("sync -f: %w: %s", err, text)
	}
	return nil
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
