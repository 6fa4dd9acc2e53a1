package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
)

func TestStoreFolder(t *testing.T) {
	missing := func(p *patient) {
		p.StoreDir = filepath.Join(p.StoreDir, "deep", "store")
		p.CommitLogDir = filepath.Join(p.StoreDir, "commitlog")
	}
	diagnose(t, lookStore, []outcome{
		{"there", nil, "store folder", OK, "writable", ""},
		{"not there yet", missing, "store folder", OK, "not there yet", ""},
		{"not writable", func(p *patient) { p.files.openErr = syscall.EACCES }, "store folder", Failure, "permission denied", "install -d"},
		{"cannot be reached", func(p *patient) { p.StoreDir += "\x00" }, "store folder", Failure, "invalid argument", "install -d"},
		{"no folder", func(p *patient) {
			p.StoreDir = filepath.Join(p.StoreDir, "store")
			require.NoError(p.t, os.WriteFile(p.StoreDir, nil, 0o644))
		}, "store folder", Failure, "is no folder", "mkdir -p"},
		{"nothing can be removed", func(p *patient) { p.files.removeErr = errProbe }, "store folder", Failure, "input/output error", ""},
		{"mapping works", nil, "store segments", OK, "locked", ""},
		{"mapping works, locking does not", func(p *patient) { p.files.kind = ioengine.WarmPopulated }, "store segments", Note, "populated", "memlock"},
		{"mapping does not work", func(p *patient) { p.files.segmentErr = syscall.ENODEV }, "store segments", Failure, "no such device", "storePathRootDir"},
		{"a sync does not work", func(p *patient) { p.files.syncErr = errProbe }, "store segments", Failure, "input/output error", ""},
		{"reserving works", nil, "store fallocate", OK, "works", ""},
		{"reserving writes zeroes", func(p *patient) { p.files.zeroes = true }, "store fallocate", Note, "does not reserve", "ext4"},
		{"memory is reserved by being there", func(p *patient) {
			p.files.zeroes = true
			p.mounted("tmpfs", "rw")
		}, "store fallocate", OK, "works", ""},
		{"reserving fails", func(p *patient) { p.files.allocateErr = syscall.ENOSPC }, "store fallocate", Failure, "no space left", "df -h"},
		{"direct writing works", nil, "store O_DIRECT", OK, "works", ""},
		{"direct writing does not", func(p *patient) { p.writeDirect = func(string) error { return syscall.EINVAL } }, "store O_DIRECT", Note, "invalid argument", "ext4"},
	})
}

// The probes leave nothing behind, whatever came of them.
func TestProbesAreRemoved(t *testing.T) {
	for name, do := range map[string]func(*fakeFS){
		"all works": func(*fakeFS) {}, "sync fails": func(f *fakeFS) { f.syncErr = errProbe }, "allocate fails": func(f *fakeFS) { f.allocateErr = errProbe },
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			p.writeDirect = writeDirect
			do(p.files)
			lookStore(p.machine)
			entries, err := os.ReadDir(p.StoreDir)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
	t.Run("a folder that is not there yet is not made", func(t *testing.T) {
		p := healthy(t)
		dir := filepath.Join(p.StoreDir, "later")
		above := p.StoreDir
		p.StoreDir, p.CommitLogDir = dir, filepath.Join(dir, "commitlog")
		lookStore(p.machine)
		entries, err := os.ReadDir(above)
		require.NoError(t, err)
		require.Empty(t, entries)
	})
}

// A probe file of the same name that somebody else has stays as it is.
func TestProbeTakesNoFileThatIsThere(t *testing.T) {
	p := healthy(t)
	p.writeDirect = writeDirect
	require.NoError(t, os.WriteFile(probeFile(p.StoreDir), []byte("precious"), 0o644))
	findings := lookStore(p.machine)
	require.Equal(t, Failure, findings[0].State)
	text, err := os.ReadFile(probeFile(p.StoreDir))
	require.NoError(t, err)
	require.Equal(t, "precious", string(text))
}

func TestFileSystem(t *testing.T) {
	on := func(kind, options string) func(*patient) {
		return func(p *patient) { p.mounted(kind, options) }
	}
	var cases []outcome
	for kind, known := range kinds {
		cases = append(cases, outcome{kind, on(kind, "rw"), "store file system", known.state, kind + " on /dev/sda1", ""})
	}
	cases = append(cases,
		outcome{"memory loses everything", on("tmpfs", "rw"), "store file system", Failure, "tmpfs", "storePathRootDir"},
		outcome{"copy on write is switched off per folder", on("btrfs", "rw"), "store file system", Warning, "btrfs", "chattr +C"},
		outcome{"a container's layer wants a volume", on("overlay", "rw"), "store file system", Warning, "overlay", "docker run -v ringmq-store:"},
		outcome{"zfs has settings", on("zfs", "rw"), "store file system", Warning, "zfs", "zfs set"},
		outcome{"nfs without locks", on("nfs4", "rw,nolock"), "store file system", Failure, "nolock", "remount,lock"},
		outcome{"a user's file system", on("fuse.sshfs", "rw"), "store file system", Warning, "fuse.sshfs", ""},
		outcome{"an unknown one", on("newfs", "rw"), "store file system", Note, "newfs", ""},
		outcome{"not shown", func(p *patient) { p.remove("proc/self/mountinfo") }, "store file system", Note, "not seen", ""},
		outcome{"the deepest mount counts", nil, "store file system", OK, "ext4 on /dev/sda1", ""},
		outcome{"the log has a file system of its own", func(p *patient) {
			p.CommitLogDir = realTempDir(p.t)
			p.set("proc/self/mountinfo", "27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n28 27 0:9 / "+p.CommitLogDir+" rw,relatime - tmpfs none rw\n")
		}, "log file system", Failure, "tmpfs on none", ""},
	)
	diagnose(t, lookStore, cases)
}

func TestMountOptions(t *testing.T) {
	on := func(options string) func(*patient) {
		return func(p *patient) { p.mounted("ext4", options) }
	}
	diagnose(t, lookStore, []outcome{
		{"as it should be", nil, "store mount", OK, "rw,noatime", ""},
		{"lazytime", on("rw,lazytime"), "store mount", OK, "lazytime", ""},
		{"data=ordered", on("rw,data=ordered"), "store mount", OK, "data=ordered", ""},
		{"read-only", on("ro"), "store mount", Failure, "ro", "remount,rw"},
		{"nobarrier", on("rw,nobarrier"), "store mount", Failure, "barriers off", "barrier=1"},
		{"barrier=0", on("rw,barrier=0"), "store mount", Failure, "barriers off", "barrier=1"},
		{"barrier=1", on("rw,barrier=1"), "store mount", OK, "rw", ""},
		{"barrier=0 before a disk without a cache", func(p *patient) {
			on("rw,barrier=0")(p)
			p.set("sys/devices/pci0/ata1/block/sda/queue/write_cache", "write through")
		}, "store mount", Warning, "barriers off", "barrier=1"},
		{"data=journal", on("rw,data=journal"), "store mount", Warning, "data=journal", "tune2fs"},
		{"data=writeback", on("rw,data=writeback"), "store mount", Note, "data=writeback", "data=ordered"},
		{"sync", on("rw,sync"), "store mount", Warning, "sync", "async"},
		{"discard", on("rw,discard"), "store mount", Note, "discard", "fstrim"},
		{"strictatime", on("rw,strictatime"), "store mount", Note, "strictatime", "noatime"},
	})
}

func TestDevice(t *testing.T) {
	const queue = "sys/devices/pci0/ata1/block/sda/queue/"
	set := func(file, content string) func(*patient) {
		return func(p *patient) { p.set(queue+file, content) }
	}
	diagnose(t, lookStore, []outcome{
		{"a partition's disk", nil, "store device", OK, "sda, solid state", ""},
		{"rotating", set("rotational", "1"), "store device", Warning, "sda, rotating", "ssd"},
		{"a virtual machine's disk says nothing", func(p *patient) {
			set("rotational", "1")(p)
			p.set("proc/cpuinfo", "flags\t: fpu hypervisor tsc\n")
		}, "store device", OK, "virtual", ""},
		{"a file as a disk", func(p *patient) {
			p.set("proc/self/mountinfo", "27 1 7:0 / / rw,relatime - xfs /dev/loop0 rw\n")
			p.link("../../devices/virtual/block/loop0", "sys/dev/block/7:0")
			p.set("sys/devices/virtual/block/loop0/queue/rotational", "1")
		}, "store device", Note, "loop0, a file as a disk", "losetup -l /dev/loop0"},
		{"not shown", func(p *patient) { p.remove("sys/dev") }, "store device", Note, "not seen", "lsblk"},
		{"no device beneath", func(p *patient) {
			p.set("proc/self/mountinfo", "27 1 0:27 / / rw,relatime - overlay overlay rw\n")
		}, "store device", Note, "not seen", ""},
		{"found by name where the file system has a number of its own", func(p *patient) {
			p.set("proc/self/mountinfo", "27 1 0:33 / / rw,noatime - btrfs /dev/sda1 rw\n")
			p.link("../../devices/pci0/ata1/block/sda/sda1", "sys/class/block/sda1")
		}, "store device", OK, "sda, solid state", ""},
		{"mq-deadline", nil, "store scheduler", OK, "mq-deadline", ""},
		{"none", set("scheduler", "[none]"), "store scheduler", OK, "none", ""},
		{"bfq", set("scheduler", "none [bfq]"), "store scheduler", Warning, "bfq", "echo mq-deadline > /sys/block/sda/queue/scheduler"},
		{"none on a rotating disk", func(p *patient) {
			set("scheduler", "[none] mq-deadline")(p)
			set("rotational", "1")(p)
		}, "store scheduler", Note, "none", "mq-deadline"},
		{"a volatile cache", nil, "store write cache", OK, "write back", ""},
		{"no volatile cache", set("write_cache", "write through"), "store write cache", OK, "write through", ""},
	})
}

func TestMemoryHasNoDevice(t *testing.T) {
	p := healthy(t)
	p.mounted("tmpfs", "rw")
	for _, f := range lookStore(p.machine) {
		require.NotContains(t, []string{"store device", "store scheduler", "store write cache"}, f.Name)
	}
}

func TestSpace(t *testing.T) {
	space := func(free, total int64) func(*patient) {
		return func(p *patient) { p.files.free, p.files.total = free, total }
	}
	diagnose(t, lookStore, []outcome{
		{"enough", nil, "store space", OK, "80 GiB", ""},
		{"for one segment", space(3<<29, 2<<30), "store space", Warning, "1.5 GiB", "df -h"},
		{"for none", space(1<<29, 1<<30), "store space", Failure, "512 MiB", "mappedFileSizeCommitLog"},
		{"unknown", func(p *patient) { p.files.usageErr = errProbe }, "store space", Note, "input/output", "df"},
		{"below every ratio", space(26<<30, 100<<30), "store used", OK, "74 %", ""},
		{"expired segments go", space(25<<30, 100<<30), "store used", Warning, "75 %", "fileReservedTime"},
		{"unexpired segments go", space(15<<30, 100<<30), "store used", Warning, "85 %", ""},
		{"sends are refused", space(10<<30, 100<<30), "store used", Failure, "90 %", "df -h"},
		{"the configuration's ratios count", func(p *patient) { space(50<<30, 100<<30)(p); p.WarningLevelRatio = 40 }, "store used", Failure, "50 %", ""},
		{"unknown ratio", func(p *patient) { p.files.usageErr = errProbe }, "store used", Note, "not seen", "df"},
	})
}

func TestSegmentSize(t *testing.T) {
	segment := func(name string, size int64) func(*patient) {
		return func(p *patient) {
			require.NoError(p.t, os.MkdirAll(p.CommitLogDir, 0o755))
			file := filepath.Join(p.CommitLogDir, name)
			require.NoError(p.t, os.WriteFile(file, nil, 0o644))
			require.NoError(p.t, os.Truncate(file, size))
		}
	}
	diagnose(t, lookStore, []outcome{
		{"another size", segment("00000000000000000000", 64<<20), "segment size", Failure, "67108864", "mappedFileSizeCommitLog=67108864"},
	})
	for name, do := range map[string]func(*patient){
		"no store": func(*patient) {}, "same size": segment("00000000001073741824", 1<<30), "other files": segment("abort", 5),
	} {
		p := healthy(t)
		do(p)
		require.Empty(t, lookSegmentSize(p.machine), name)
	}
}

func TestParseMount(t *testing.T) {
	one, valid := parseMount(`36 35 98:0 /mnt1 /mnt/my\040disk rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue`)
	require.True(t, valid)
	require.Equal(t, "/mnt/my disk", one.point)
	require.Equal(t, "ext3", one.kind)
	require.Equal(t, "98:0", one.device)
	require.Equal(t, "continue", one.options["errors"])
	require.True(t, one.has("noatime"))
	for _, line := range []string{"", " - ", "1 2 3 - ext4 /dev/sda", "1 2 3:4 / / rw - ext4", strings.Repeat("x ", 100)} {
		_, valid := parseMount(line)
		require.False(t, valid, line)
	}
	require.Equal(t, `a\b\04`, unescapeMount(`a\b\04`))
	require.Equal(t, `\999`, unescapeMount(`\999`), "no octal number")
}

func TestWithin(t *testing.T) {
	require.True(t, within("/a/b", "/"))
	require.True(t, within("/a/b", "/a"))
	require.True(t, within("/a", "/a"))
	require.False(t, within("/ab", "/a"))
}

func TestErrorText(t *testing.T) {
	_, err := os.Open(filepath.Join(t.TempDir(), "missing"))
	require.Equal(t, "open: no such file or directory", errorText(err))
	require.Equal(t, "plain", errorText(errors.New("plain")))
}
