package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/ringmq/ringmq/ioengine"
)

// Options say what broker the machine is examined for. Zero values mean the broker's defaults, and the real machine.
type Options struct {
	StoreDir     string // storePathRootDir
	CommitLogDir string // storePathCommitLog; empty: StoreDir/commitlog
	SegmentSize  int64  // mappedFileSizeCommitLog, bytes
	// LockedBytes is the memory that the broker locks: the log's segments ahead of and behind the tail. Bytes, 192 MiB.
	LockedBytes    int64
	MaxConnections int // maxConnections
	Backlog        int // serverSocketBacklog
	// The three disk ratios, percent: diskMaxUsedSpaceRatio, diskSpaceCleanForciblyRatio, diskSpaceWarningLevelRatio.
	MaxUsedRatio, CleanForciblyRatio, WarningLevelRatio int

	BindAddress string // bindAddress
	// Advertised is brokerIP1, or what the broker takes without it; AdvertisedFound says that it was not set.
	Advertised      string
	AdvertisedFound bool
	Ports           []Port

	// IoUring asks the kernel for a ring. Nil: only the settings that would forbid one are looked at.
	IoUring func() ([]Feature, error)
}

// Port is one that a broker or name server on this machine listens on.
type Port struct {
	Property string // listenPort
	Bind     string // local address
	Number   int
	// Required says that the broker does not start without it.
	Required bool
}

// Feature is one ability of io_uring that ringmq uses.
type Feature struct {
	Name    string
	Present bool
	Since   string // the kernel that brought it: "6.1"
}

// Interface is one network interface that is up.
type Interface struct {
	Name  string
	Addrs []netip.Addr
}

// machine is what the checks look at. Tests replace its functions.
type machine struct {
	Options
	ctx   context.Context
	linux bool        // tree is linux's
	tree  fs.FS       // the system's root, for what lies in /proc, /sys and /run
	files ioengine.FS // for the store

	writeDirect func(dir string) error      // writes one block past the page cache
	interfaces  func() ([]Interface, error) // those that are up
	listen      func(addr string) error     // binds and lets go again
	command     func(name string, args ...string) (string, error)
}

func newMachine(ctx context.Context, o Options) *machine {
	m := &machine{
		Options: o, ctx: ctx, linux: runtime.GOOS == "linux", tree: os.DirFS("/"), files: ioengine.OS(),
		writeDirect: writeDirect, interfaces: interfacesUp, listen: listenOnce,
	}
	m.command = m.runCommand
	defaultTo(&m.SegmentSize, 1<<30)
	defaultTo(&m.LockedBytes, 192<<20)
	defaultTo(&m.MaxConnections, 100_000)
	defaultTo(&m.Backlog, 1024)
	defaultTo(&m.MaxUsedRatio, 75)
	defaultTo(&m.CleanForciblyRatio, 85)
	defaultTo(&m.WarningLevelRatio, 90)
	defaultTo(&m.CommitLogDir, filepath.Join(o.StoreDir, "commitlog"))
	return m
}

func defaultTo[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// text is a file's content without the space around it. It is false where there is no such file or it cannot be read.
func (m *machine) text(name string) (string, bool) {
	b, err := fs.ReadFile(m.tree, strings.TrimPrefix(name, "/"))
	return strings.TrimSpace(string(b)), err == nil
}

// glob lists the names of a pattern.
func (m *machine) glob(pattern string) []string {
	names, _ := fs.Glob(m.tree, strings.TrimPrefix(pattern, "/")) // the only error is a bad pattern
	return names
}

// number reads a file that holds one.
func (m *machine) number(name string) (int64, bool) {
	s, found := m.text(name)
	if !found {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// fields reads a file of lines "name: value" or "name value".
func (m *machine) fields(name string) map[string]string {
	s, _ := m.text(name)
	fields := make(map[string]string)
	for line := range strings.Lines(s) {
		key, value, colon := strings.Cut(line, ":")
		if !colon {
			key, value, _ = strings.Cut(line, " ")
		}
		key = strings.TrimSpace(key)
		if _, twice := fields[key]; !twice { // of /proc/cpuinfo the first processor
			fields[key] = strings.TrimSpace(value)
		}
	}
	return fields
}

// memory is an entry of /proc/meminfo in bytes.
func (m *machine) memory(key string) (int64, bool) {
	kib, err := strconv.ParseInt(strings.TrimSuffix(m.fields("/proc/meminfo")[key], " kB"), 10, 64)
	return kib << 10, err == nil
}

// chosen is the word in brackets of a file such as "always [madvise] never".
func (m *machine) chosen(name string) (string, bool) {
	s, found := m.text(name)
	return bracketed(s), found
}

func bracketed(s string) string {
	_, rest, brackets := strings.Cut(s, "[")
	if !brackets {
		return s
	}
	word, _, _ := strings.Cut(rest, "]")
	return word
}

// Capabilities, by their bits in CapEff.
const (
	capIPCLock  = 14
	capSysAdmin = 21
)

func (m *machine) capable(bit uint) bool {
	effective, err := strconv.ParseUint(m.fields("/proc/self/status")["CapEff"], 16, 64)
	return err == nil && effective>>bit&1 != 0
}

// control returns the values of one control group file, from this process's group up to the root: a limit holds for all
// below it. v1 is the controller and file of the first version, v2 the file of the second.
func (m *machine) control(controller, v1, v2 string) (values []string) {
	groups, _ := m.text("/proc/self/cgroup")
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			values = append(values, m.controlUp("/sys/fs/cgroup", parts[2], v2)...)
			values = append(values, m.controlUp("/sys/fs/cgroup/unified", parts[2], v2)...)
		case containsWord(parts[1], ",", controller):
			values = append(values, m.controlUp("/sys/fs/cgroup/"+controller, parts[2], v1)...)
		}
	}
	return values
}

func (m *machine) controlUp(base, group, file string) (values []string) {
	for {
		if s, found := m.text(base + group + "/" + file); found {
			values = append(values, s)
		}
		up := group[:max(0, strings.LastIndexByte(group, '/'))]
		if up == group || len(values) > 64 {
			return values
		}
		group = up
	}
}

// controlLimit is the smallest number among the values of a control group file. Without a limit it is false.
func (m *machine) controlLimit(controller, v1, v2 string) (limit int64, limited bool) {
	const noLimitV1 = 1 << 62 // version 1 writes a number near 2^63 for "none"
	for _, value := range m.control(controller, v1, v2) {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 && n < noLimitV1 && (!limited || n < limit) {
			limit, limited = n, true
		}
	}
	return limit, limited
}

func containsWord(list, sep, word string) bool {
	for w := range strings.SplitSeq(list, sep) {
		if w == word {
			return true
		}
	}
	return false
}

// processors parses a list such as "0-3,8". A kernel has no more than some thousands.
func processors(list string) (cpus []int) {
	const most = 1 << 14
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			continue
		}
		for ; from <= to && len(cpus) < most; from++ {
			cpus = append(cpus, from)
		}
	}
	return cpus
}

func (m *machine) runCommand(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output()
	return strings.TrimSpace(string(out)), err
}

func interfacesUp() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var up []Interface
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		one := Interface{Name: i.Name}
		for _, a := range addrs {
			if n, isNet := a.(*net.IPNet); isNet {
				if ip, valid := netip.AddrFromSlice(n.IP); valid {
					one.Addrs = append(one.Addrs, ip.Unmap())
				}
			}
		}
		up = append(up, one)
	}
	return up, nil
}

func listenOnce(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// size writes bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	s := strconv.FormatFloat(value, 'f', 1, 64)
	return strings.TrimSuffix(s, ".0") + " " + units[unit]
}

// sysctl is the cure that sets a kernel parameter.
func sysctl[T int64 | string](key string, value T) string {
	return fmt.Sprintf("sysctl -w %s=%v", key, value)
}
