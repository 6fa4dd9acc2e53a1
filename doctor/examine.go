package doctor

import (
	"context"
	"errors"
	"runtime"
)

// check is one look at the machine, with one finding or several.
type check struct {
	// everywhere says that it needs nothing of linux.
	everywhere bool
	look       func(*machine) []Finding
}

// checks in the order of the report.
var checks = []check{
	{false, lookKernel},
	{false, lookIoUring},
	{false, lookMemlock},
	{false, lookFiles},
	{false, lookMaps},
	{false, lookThreads},
	{true, lookStore},
	{false, lookMemory},
	{false, lookSwap},
	{false, lookDirty},
	{false, lookDirtyExpiry},
	{false, lookHugePages},
	{false, lookZoneReclaim},
	{false, lookProcessors},
	{false, lookGovernor},
	{false, lookSiblings},
	{false, lookQuota},
	{false, lookHypervisor},
	{false, lookClockSource},
	{false, lookClockSync},
	{false, lookSockets},
	{true, lookAdvertised},
	{true, lookPorts},
}

// Examine looks at the machine. An error means that it could not be looked at, ExitNoRun.
func Examine(ctx context.Context, o Options) (*Report, error) {
	if o.StoreDir == "" {
		return nil, errors.New("no store folder to look at: set storePathRootDir or --store")
	}
	return newMachine(ctx, o).examine()
}

func (m *machine) examine() (*Report, error) {
	r := &Report{System: m.system(), StoreDir: m.StoreDir, Counts: make(map[State]int)}
	if !m.linux {
		r.add(note("system", runtime.GOOS, "the portable engine: plain calls, no io_uring, no locked memory, no pinned reactors; "+
			"limits, devices, memory and processors are not looked at here", "run brokers that matter on linux 6.1 or newer"))
	}
	for _, c := range checks {
		if err := m.ctx.Err(); err != nil {
			return nil, err
		}
		if m.linux || c.everywhere {
			r.add(c.look(m)...)
		}
	}
	return r, nil
}

func (m *machine) system() string {
	if !m.linux {
		return runtime.GOOS + "/" + runtime.GOARCH
	}
	release, _ := m.text("/proc/sys/kernel/osrelease")
	return "linux " + release + ", " + runtime.GOARCH
}
