package doctor

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
)

// healthyTree is what a machine shows on which nothing is wrong. STORE stands for the store's folder.
var healthyTree = map[string]string{
	"proc/sys/kernel/osrelease":         "6.18.44",
	"proc/sys/kernel/io_uring_disabled": "0",
	"proc/sys/kernel/threads-max":       "192730",
	"proc/sys/kernel/pid_max":           "4194304",
	"proc/self/status":                  "Name:\tringmq\nCapEff:\t0000000000000000\nSeccomp:\t0\nCpus_allowed_list:\t0-3\n",
	"proc/self/limits": `Limit                     Soft Limit           Hard Limit           Units
Max processes             96365                96365                processes
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
`,
	"proc/self/cgroup":    "0::/system.slice/ringmq.service",
	"proc/self/mountinfo": "27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n28 27 8:1 / STORE rw,noatime shared:1 - ext4 /dev/sda1 rw\n29 27 0:22 / /sys rw - sysfs sysfs rw\n",
	"proc/meminfo":        "MemTotal:       16000000 kB\nMemAvailable:   12000000 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n",
	"proc/cpuinfo":        "processor\t: 0\nflags\t\t: fpu tsc\n",
	"proc/stat":           "cpu  1000 0 500 9000 10 0 0 0 0 0\ncpu0 1 2 3\n",
	"proc/net/tcp":        "  sl  local_address rem_address   st\n",
	"proc/77/comm":        "chronyd\n",

	"proc/sys/vm/max_map_count":             "1048576",
	"proc/sys/vm/swappiness":                "1",
	"proc/sys/vm/dirty_background_bytes":    "268435456",
	"proc/sys/vm/dirty_bytes":               "1073741824",
	"proc/sys/vm/dirty_background_ratio":    "0",
	"proc/sys/vm/dirty_ratio":               "0",
	"proc/sys/vm/dirty_expire_centisecs":    "3000",
	"proc/sys/vm/zone_reclaim_mode":         "0",
	"proc/sys/fs/file-max":                  "9223372036854775807",
	"proc/sys/net/core/somaxconn":           "4096",
	"proc/sys/net/ipv4/tcp_max_syn_backlog": "4096",
	"proc/sys/net/ipv4/ip_local_port_range": "32768\t60999",
	"proc/sys/net/ipv4/tcp_wmem":            "4096\t16384\t4194304",

	"sys/kernel/mm/transparent_hugepage/enabled":                      "always [madvise] never",
	"sys/kernel/mm/transparent_hugepage/defrag":                       "always defer defer+madvise [madvise] never",
	"sys/devices/system/cpu/online":                                   "0-3",
	"sys/devices/system/cpu/smt/active":                               "0",
	"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":            "performance",
	"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor":            "performance",
	"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
	"sys/devices/pci0/ata1/block/sda/queue/rotational":                "0",
	"sys/devices/pci0/ata1/block/sda/queue/scheduler":                 "none [mq-deadline] kyber bfq",
	"sys/devices/pci0/ata1/block/sda/queue/write_cache":               "write back",
	"sys/devices/pci0/ata1/block/sda/sda1/start":                      "2048",
	"sys/fs/cgroup/system.slice/memory.max":                           "max",
	"sys/fs/cgroup/system.slice/ringmq.service/memory.max":            "max",
	"sys/fs/cgroup/system.slice/ringmq.service/pids.max":              "max",
	"sys/fs/cgroup/system.slice/ringmq.service/cpu.max":               "max 100000",
	"sys/fs/cgroup/system.slice/ringmq.service/cpu.stat":              "usage_usec 1\nnr_periods 0\nnr_throttled 0\n",
}

// patient is a machine of the test's making.
type patient struct {
	*machine
	t     *testing.T
	tree  fstest.MapFS
	files *fakeFS
	busy  map[string]error // addresses that cannot be bound
}

// healthy makes a machine on which nothing is wrong.
func healthy(t *testing.T) *patient {
	store := realTempDir(t)
	p := &patient{t: t, tree: fstest.MapFS{}, files: &fakeFS{FS: ioengine.OS(), free: 80 << 30, total: 100 << 30, kind: ioengine.WarmLocked}, busy: map[string]error{}}
	p.machine = newMachine(context.Background(), Options{
		StoreDir: store, Advertised: "192.0.2.2", BindAddress: "0.0.0.0",
		Ports: []Port{
			{Property: "listenPort", Bind: "0.0.0.0", Number: 10911, Required: true},
			{Property: "haListenPort", Bind: "0.0.0.0", Number: 10912},
			{Property: "none", Number: -1},
		},
		IoUring: func() ([]Feature, error) { return []Feature{{"fsync", true, "5.1"}}, nil },
	})
	p.linux = true
	p.machine.tree, p.machine.files = p.tree, p.files
	p.writeDirect = func(string) error { return nil }
	p.interfaces = func() ([]Interface, error) {
		return []Interface{addresses("lo", "127.0.0.1", "::1"), addresses("eth0", "192.0.2.2", "fe80::1"), addresses("docker0", "172.17.0.1")}, nil
	}
	p.listen = func(addr string) error { return p.busy[addr] }
	p.command = func(string, ...string) (string, error) { return "yes", nil }
	for name, content := range healthyTree {
		p.set(name, content)
	}
	p.link("../../devices/pci0/ata1/block/sda/sda1", "sys/dev/block/8:1")
	return p
}

// realTempDir has no link in its path.
func realTempDir(t *testing.T) string {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

func addresses(name string, all ...string) Interface {
	i := Interface{Name: name}
	for _, a := range all {
		i.Addrs = append(i.Addrs, netip.MustParseAddr(a))
	}
	return i
}

// set writes a file of the fake tree.
func (p *patient) set(name, content string) {
	p.tree[name] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(content, "STORE", p.StoreDir))}
}

// replace changes a part of a file of the fake tree.
func (p *patient) replace(name, old, now string) {
	require.Contains(p.t, string(p.tree[name].Data), old)
	p.set(name, strings.Replace(string(p.tree[name].Data), old, now, 1))
}

// remove takes away a file, or a folder with all that is in it.
func (p *patient) remove(name string) {
	before := len(p.tree)
	maps.DeleteFunc(p.tree, func(file string, _ *fstest.MapFile) bool { return file == name || strings.HasPrefix(file, name+"/") })
	require.Less(p.t, len(p.tree), before, "%s was not there", name)
}

func (p *patient) link(target, name string) {
	p.tree[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink}
}

// mounted puts the store onto another file system.
func (p *patient) mounted(kind, options string) {
	p.set("proc/self/mountinfo", "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n28 27 8:1 / STORE rw,relatime - "+kind+" /dev/sda1 "+options+"\n")
}

// fakeFS is the real thing, apart from what a test sets.
type fakeFS struct {
	ioengine.FS
	free, total int64
	kind        ioengine.WarmKind
	zeroes      bool // Allocate leaves zeroes in the page cache

	usageErr, openErr, removeErr, segmentErr, syncErr, allocateErr error
}

var errProbe = errors.New("input/output error")

func (f *fakeFS) Usage(string) (free, total int64, err error) { return f.free, f.total, f.usageErr }

func (f *fakeFS) Open(name string, flag int, perm fs.FileMode) (ioengine.File, error) {
	if f.openErr != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: f.openErr}
	}
	file, err := f.FS.Open(name, flag, perm)
	return &fakeFile{file, f}, err
}

func (f *fakeFS) Remove(name string) error { return errors.Join(f.FS.Remove(name), f.removeErr) }

func (f *fakeFS) OpenSegment(name string, size int64, create bool) (ioengine.Segment, error) {
	if f.segmentErr != nil {
		return nil, &fs.PathError{Op: "map", Path: name, Err: f.segmentErr}
	}
	s, err := f.FS.OpenSegment(name, size, create)
	return &fakeSegment{s, f}, err
}

type fakeFile struct {
	ioengine.File
	fs *fakeFS
}

func (f *fakeFile) Allocate(off, n int64) error {
	return errors.Join(f.fs.allocateErr, f.File.Allocate(off, n))
}

func (f *fakeFile) Resident(int64, int) bool { return f.fs.zeroes }

type fakeSegment struct {
	ioengine.Segment
	fs *fakeFS
}

func (s *fakeSegment) WarmKind() ioengine.WarmKind { return s.fs.kind }

// SyncRange spares the disk that the tests run on.
func (s *fakeSegment) SyncRange(int64, int64) error { return s.fs.syncErr }

// outcome is one case of a check: what is done to a healthy machine, and the finding that comes of it.
type outcome struct {
	rule  string
	do    func(p *patient)
	name  string // of the finding
	state State
	found string // a part of Found
	cure  string // a part of Cure
}

// diagnose runs the cases of a check on machines of their own.
func diagnose(t *testing.T, look func(*machine) []Finding, cases []outcome) {
	for _, c := range cases {
		t.Run(c.rule, func(t *testing.T) {
			p := healthy(t)
			if c.do != nil {
				c.do(p)
			}
			findings := look(p.machine)
			require.NotEmpty(t, findings)
			var names []string
			for _, f := range findings {
				requireWellFormed(t, p, f)
				if names = append(names, f.Name); f.Name == c.name && f.State == c.state {
					require.Contains(t, f.Found, c.found)
					require.Contains(t, f.Cure, c.cure)
					return
				}
			}
			t.Fatalf("no finding %q with state %s among %q: %+v", c.name, c.state, names, findings)
		})
	}
}

// requireWellFormed holds for every finding in whatever state: what is not ok has a cure, and every line can be read.
func requireWellFormed(t *testing.T, p *patient, f Finding) {
	t.Helper()
	require.NotEmpty(t, f.Name)
	require.NotEmpty(t, f.Found, f.Name)
	require.NotEmpty(t, f.Meaning, f.Name)
	require.LessOrEqual(t, len(f.Name), widthName, f.Name)
	require.Equal(t, f.Found, printable(f.Found), f.Name)
	require.Equal(t, f.State.exitStatus(), f.ExitStatus, f.Name)
	if f.State == OK {
		require.Empty(t, f.Cure, f.Name)
		return
	}
	require.NotEmpty(t, f.Cure, f.Name)
	cure := f.Cure
	if p != nil {
		cure = strings.ReplaceAll(cure, p.StoreDir, "/data/store")
	}
	for line := range strings.SplitSeq(cure, "\n") {
		require.NotEmpty(t, strings.TrimSpace(line), f.Name)
		require.LessOrEqual(t, len("  ")+widthName+len("  ")+len(line), 120, "%s: %s", f.Name, line)
	}
}
