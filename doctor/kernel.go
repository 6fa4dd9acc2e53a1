package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// release is a kernel's version: 6.18 as {6, 18}.
type release struct{ major, minor int }

func (r release) before(o release) bool {
	return r.major < o.major || r.major == o.major && r.minor < o.minor
}

func (r release) String() string { return fmt.Sprintf("%d.%d", r.major, r.minor) }

// parseRelease reads "6.18.44-something".
func parseRelease(s string) (release, bool) {
	majorText, rest, _ := strings.Cut(s, ".")
	minorText := rest
	if end := strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' }); end >= 0 {
		minorText = rest[:end]
	}
	major, err1 := strconv.Atoi(majorText)
	minor, err2 := strconv.Atoi(minorText)
	return release{major, minor}, err1 == nil && err2 == nil
}

// brought is what ringmq uses of each kernel, with the state of a kernel that lacks it.
var brought = []struct {
	since release
	state State
	what  string
}{
	{release{3, 9}, Failure, "SO_REUSEPORT"},
	{release{4, 14}, Warning, "RWF_NOWAIT"},
	{release{5, 1}, Warning, "io_uring"},
	{release{5, 14}, Warning, "MADV_POPULATE_WRITE"},
	{release{5, 19}, Note, "ring-provided buffers"},
	{release{6, 0}, Note, "multishot recv, SINGLE_ISSUER"},
	{release{6, 1}, Note, "DEFER_TASKRUN"},
	{release{6, 5}, Note, "cachestat"},
}

func lookKernel(m *machine) []Finding {
	const name = "kernel"
	text, _ := m.text("/proc/sys/kernel/osrelease")
	have, known := parseRelease(text)
	if !known {
		return []Finding{unseen(name, "/proc/sys/kernel/osrelease")}
	}
	state, lacks := OK, []string(nil)
	for _, b := range brought {
		if have.before(b.since) {
			if lacks = append(lacks, fmt.Sprintf("%s (%s)", b.what, b.since)); state == OK {
				state = b.state // the oldest that is missing is the gravest
			}
		}
	}
	if state == OK {
		return []Finding{ok(name, text, "everything ringmq uses, cachestat (6.5) included")}
	}
	meaning := "lacks " + strings.Join(lacks, ", ") + ": older means are used in their place; a distribution may have brought some of it back"
	if state == Failure {
		meaning = "too old: reactors share a port by SO_REUSEPORT (3.9)"
	}
	return []Finding{newFinding(state, name, text, meaning, []string{"install a kernel from 6.5 on (6.1 has all of io_uring that matters)"})}
}

const (
	cureIoUringSysctl  = "sysctl -w kernel.io_uring_disabled=0"
	cureIoUringDocker  = "docker run --security-opt seccomp=ringmq-seccomp.json ...   # docs/doctor.md makes that profile"
	cureIoUringPods    = "kubernetes: securityContext.seccompProfile.localhostProfile: ringmq-seccomp.json"
	nextEngine         = "; the broker takes the next engine by itself"
	seccompFilterMode  = "2"
	ioUringDisabledFor = "/proc/sys/kernel/io_uring_disabled"
)

// lookIoUring tells whether a ring can be had and, where not, who forbids it: the sysctl, a container's filter, or a kernel without it.
func lookIoUring(m *machine) []Finding {
	const name = "io_uring"
	disabled, _ := m.number(ioUringDisabledFor)
	filtered := m.fields("/proc/self/status")["Seccomp"] == seccompFilterMode
	if m.IoUring == nil {
		return []Finding{ioUringUntried(m, disabled, filtered)}
	}
	features, err := m.IoUring()
	switch {
	case err == nil:
		return []Finding{ioUringFeatures(features)}
	case disabled == 2:
		return []Finding{warning(name, "refused: io_uring_disabled=2", "forbidden for every process"+nextEngine, cureIoUringSysctl)}
	case disabled == 1:
		return []Finding{warning(name, "refused: io_uring_disabled=1", "only for CAP_SYS_ADMIN and the group of kernel.io_uring_group"+nextEngine,
			"sysctl -w kernel.io_uring_group=$(id -g ringmq)   # the broker's group", cureIoUringSysctl)}
	case errors.Is(err, errors.ErrUnsupported):
		return []Finding{warning(name, "refused: not in this kernel", "kernel before 5.1, built without CONFIG_IO_URING, or a sandbox such as gVisor"+nextEngine,
			"install a kernel from 6.1 on with CONFIG_IO_URING=y", "in a sandbox: run the broker with the plain container runtime (runc)")}
	case errors.Is(err, os.ErrPermission) && filtered:
		return []Finding{warning(name, "refused: seccomp filter", "the container's filter forbids it, as Docker's default profile does"+nextEngine,
			cureIoUringDocker, cureIoUringPods)}
	case errors.Is(err, os.ErrPermission):
		return []Finding{warning(name, "refused: not permitted", "a security module (SELinux, AppArmor, Landlock) forbids it"+nextEngine,
			"ausearch -m avc -ts recent | grep -i uring   # then allow io_uring in that policy")}
	}
	return []Finding{warning(name, "refused", err.Error()+nextEngine,
		"dmesg | tail   # and raise RLIMIT_MEMLOCK: before linux 5.12 rings count as locked memory")}
}

// ioUringUntried judges by the settings alone.
func ioUringUntried(m *machine, disabled int64, filtered bool) Finding {
	const name = "io_uring"
	switch {
	case disabled == 2:
		return warning(name, "io_uring_disabled=2", "forbidden for every process"+nextEngine, cureIoUringSysctl)
	case disabled == 1 && !m.capable(capSysAdmin):
		return warning(name, "io_uring_disabled=1", "only for CAP_SYS_ADMIN and the group of kernel.io_uring_group"+nextEngine,
			"sysctl -w kernel.io_uring_group=$(id -g ringmq)   # the broker's group", cureIoUringSysctl)
	case filtered:
		return note(name, "seccomp filter", "not tried; many containers' filters forbid io_uring"+nextEngine, cureIoUringDocker, cureIoUringPods)
	}
	return ok(name, "not forbidden", "not tried: no setting and no filter forbids it")
}

func ioUringFeatures(features []Feature) Finding {
	const name = "io_uring"
	var lacks []string
	for _, f := range features {
		if !f.Present {
			lack := f.Name
			if f.Since != "" {
				lack += " (" + f.Since + ")"
			}
			lacks = append(lacks, lack)
		}
	}
	found := fmt.Sprintf("allowed, %d of %d features", len(features)-len(lacks), len(features))
	if len(lacks) > 0 {
		return note(name, found, "lacks "+strings.Join(lacks, ", ")+": the ring does without",
			"install a kernel from 6.1 on, or let the filter pass io_uring_register too")
	}
	return ok(name, found, "the ring can be used with everything ringmq asks for")
}
