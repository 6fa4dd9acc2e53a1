package doctor

import (
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/ioengine"
)

// mount is one line of /proc/self/mountinfo.
type mount struct {
	device  string // MAJ:MIN
	point   string
	kind    string // ext4
	source  string // /dev/vda
	options map[string]string
}

func (m mount) has(option string) bool {
	_, found := m.options[option]
	return found
}

// mountOf finds the mount that dir lies on: of those above it the deepest, of several at one place the latest.
func (m *machine) mountOf(dir string) (best mount, found bool) {
	dir = ioengine.Existing(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	text, _ := m.text("/proc/self/mountinfo")
	for line := range strings.Lines(text) {
		one, valid := parseMount(line)
		if valid && within(dir, one.point) && len(one.point) >= len(best.point) {
			best, found = one, true
		}
	}
	return best, found
}

func within(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
}

// parseMount reads "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard".
func parseMount(line string) (mount, bool) {
	place, what, separated := strings.Cut(line, " - ")
	p, w := strings.Fields(place), strings.Fields(what)
	if !separated || len(p) < 6 || len(w) < 2 {
		return mount{}, false
	}
	one := mount{device: p[2], point: unescapeMount(p[4]), kind: w[0], source: unescapeMount(w[1]), options: make(map[string]string)}
	all := p[5]
	if len(w) > 2 {
		all += "," + w[2]
	}
	for option := range strings.SplitSeq(all, ",") {
		key, value, _ := strings.Cut(option, "=")
		one.options[key] = value
	}
	return one, true
}

// unescapeMount undoes \040 and the like.
func unescapeMount(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// kinds are the file systems whose behaviour is known. Others get a note.
var kinds = map[string]struct {
	state   State
	meaning string
}{
	"ext4":     {OK, "reserves space at once, syncs data alone, O_DIRECT, reads without waiting"},
	"xfs":      {OK, "reserves space at once, syncs data alone, O_DIRECT, reads without waiting"},
	"f2fs":     {Note, "made for flash; works, but a log-structured file system rewrites a log once more"},
	"ext3":     {Warning, "cannot reserve space: each segment is written twice; a sync writes what others left dirty, too"},
	"ext2":     {Warning, "no journal: after a crash the whole disk is checked before the broker can start"},
	"btrfs":    {Warning, "copies on each write: a preallocated segment loses its place, and a sync costs several writes"},
	"bcachefs": {Warning, "copies on each write: a preallocated segment loses its place, and a sync costs several writes"},
	"zfs":      {Warning, "copies on each write and caches twice; reserving and O_DIRECT do little or nothing"},
	"overlay":  {Warning, "a container's own layer: its messages go when the container is removed, and each open file costs more"},
	"aufs":     {Warning, "a container's own layer: its messages go when the container is removed"},
	"nfs":      {Warning, "network: a sync takes a round trip, a lost server stops the broker in the middle of a store"},
	"nfs4":     {Warning, "network: a sync takes a round trip, a lost server stops the broker in the middle of a store"},
	"cifs":     {Warning, "network: a sync takes a round trip, a lost server stops the broker in the middle of a store"},
	"smb3":     {Warning, "network: a sync takes a round trip, a lost server stops the broker in the middle of a store"},
	"ceph":     {Warning, "network: a sync takes a round trip, a lost server stops the broker in the middle of a store"},
	"9p":       {Warning, "a folder of the host: slow syncs, and a writable mapping works only with cache=mmap or stronger"},
	"virtiofs": {Warning, "a folder of the host: each sync goes through a daemon there"},
	"vboxsf":   {Warning, "a folder of the host: a writable mapping does not work"},
	"vfat":     {Warning, "no journal and no reserving; no segment above 4 GiB"},
	"exfat":    {Warning, "no journal and no reserving: a crash can take the whole folder"},
	"ntfs3":    {Warning, "not made for many syncs; little tested"},
	"tmpfs":    {Failure, "memory: every message is gone after a restart of the machine, acknowledged or not"},
	"ramfs":    {Failure, "memory: every message is gone after a restart of the machine, acknowledged or not"},
}

func fileSystem(name, dir string, on mount) Finding {
	const move = "storePathRootDir=/a/folder/on/ext4/or/xfs   # in broker.conf"
	found := on.kind + " on " + on.source
	kind, known := kinds[on.kind]
	switch {
	case on.has("nolock") && strings.HasPrefix(on.kind, "nfs"):
		return failure(name, found+", nolock", "the store's lock holds on this machine only: two brokers may write one store", "mount -o remount,lock "+on.point, move)
	case !known && strings.HasPrefix(on.kind, "fuse"):
		return warning(name, found, "each sync goes through a program; mappings and reserving depend on it", move)
	case !known:
		return note(name, found, "nothing is known about it here: watch the checks below", move)
	}
	switch on.kind {
	case "btrfs":
		return newFinding(kind.state, name, found, kind.meaning, []string{"mkdir -p " + dir + " && chattr +C " + dir + "   # before the first start: no copy on write", move})
	case "overlay", "aufs":
		return newFinding(kind.state, name, found, kind.meaning, []string{"docker run -v ringmq-store:" + dir + " ...   # a volume, or a persistentVolumeClaim"})
	case "zfs":
		return newFinding(kind.state, name, found, kind.meaning, []string{"zfs set recordsize=16K logbias=latency atime=off " + on.source, move})
	}
	if kind.state == OK {
		return ok(name, found, kind.meaning)
	}
	return newFinding(kind.state, name, found, kind.meaning, []string{move})
}

// mountOptions are findings only where an option matters; none matters: one finding that says so.
func mountOptions(name string, on mount, d device) (findings []Finding) {
	remount := func(option string) string {
		return "mount -o remount," + option + " " + on.point + "   # and the same in /etc/fstab"
	}
	if on.has("ro") {
		findings = append(findings, failure(name, "ro", "the store cannot be written: the broker does not start", remount("rw")))
	}
	if value, set := on.options["barrier"]; on.has("nobarrier") || set && (value == "0" || value == "none") {
		meaning := "a sync does not empty the disk's cache: acknowledged messages may be lost with the power, SYNC_FLUSH or not"
		if d.writeCache == "write through" {
			meaning = "safe only as long as the disk has no volatile cache, which it says it has not: " + meaning
			findings = append(findings, warning(name, "barriers off", meaning, remount("barrier=1")))
		} else {
			findings = append(findings, failure(name, "barriers off", meaning, remount("barrier=1")))
		}
	}
	switch on.options["data"] {
	case "journal":
		findings = append(findings, warning(name, "data=journal", "each byte is written twice, and O_DIRECT is not direct",
			"tune2fs -o ^journal_data "+on.source+"   # and without data=journal in /etc/fstab, then mount anew"))
	case "writeback":
		findings = append(findings, note(name, "data=writeback", "after a crash new segments may hold old bytes; recovery checks every record's CRC",
			"data=ordered in /etc/fstab   # the default; then mount anew"))
	}
	if on.has("sync") {
		findings = append(findings, warning(name, "sync", "every write waits for the disk, also those that need not", remount("async")))
	}
	if on.has("discard") && (on.kind == "ext4" || on.kind == "xfs" || on.kind == "f2fs") {
		findings = append(findings, note(name, "discard", "the disk trims while segments are deleted, and syncs wait behind it",
			remount("nodiscard"), "systemctl enable --now fstrim.timer   # trims once a week instead"))
	}
	if on.has("strictatime") || !on.has("relatime") && !on.has("noatime") && !on.has("lazytime") && on.kind == "ext4" {
		findings = append(findings, note(name, "strictatime", "each read of a file dirties its inode", remount("noatime")))
	}
	if len(findings) == 0 {
		meaning := "barriers on, no option that slows syncs"
		if inMemory(on.kind) {
			meaning = "no option that matters"
		}
		findings = append(findings, ok(name, optionList(on), meaning))
	}
	return findings
}

// optionList names those options that one looks for.
func optionList(on mount) string {
	var seen []string
	for _, option := range []string{"rw", "noatime", "relatime", "lazytime", "data"} {
		if value, set := on.options[option]; set {
			if value != "" {
				option += "=" + value
			}
			seen = append(seen, option)
		}
	}
	return strings.Join(seen, ",")
}

// device is a block device as /sys shows it. The zero value: it is not seen.
type device struct {
	none       bool // there is none to see
	name       string
	rotational bool
	virtual    bool // a virtual machine's, whose word on rotation means nothing
	scheduler  string
	writeCache string // "write back" or "write through"
}

// withoutDevice are file systems that have none on this machine.
var withoutDevice = []string{"tmpfs", "ramfs", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "vboxsf"}

// inMemory are file systems whose files are pages of the page cache and nothing else.
func inMemory(kind string) bool { return kind == "tmpfs" || kind == "ramfs" }

// deviceOf finds the device beneath a mount, by its number, or by its name where the file system has a number of its own as btrfs has.
// A partition has no queue of its own: its disk, one folder up, has.
func (m *machine) deviceOf(on mount) (d device) {
	if slices.Contains(withoutDevice, on.kind) {
		return device{none: true}
	}
	folder, err := m.resolve("sys/dev/block/" + on.device)
	if err != nil && strings.HasPrefix(on.source, "/dev/") {
		folder, err = m.resolve("sys/class/block/" + path.Base(on.source))
	}
	if err != nil {
		return device{}
	}
	rotational, found := m.text(folder + "/queue/rotational")
	if !found {
		folder = path.Dir(folder)
		if rotational, found = m.text(folder + "/queue/rotational"); !found {
			return device{}
		}
	}
	d.name = path.Base(folder)
	d.rotational = rotational == "1"
	d.virtual = strings.HasPrefix(d.name, "vd") || strings.HasPrefix(d.name, "xvd") || m.virtualMachine()
	d.scheduler, _ = m.chosen(folder + "/queue/scheduler")
	d.writeCache, _ = m.text(folder + "/queue/write_cache")
	return d
}

// resolve follows one link of the tree.
func (m *machine) resolve(link string) (string, error) {
	target, err := fs.ReadLink(m.tree, link)
	return path.Join(path.Dir(link), target), err
}

func (d device) findings(label string) []Finding {
	name := label + " device"
	switch {
	case d.none:
		return nil
	case d.name == "":
		return []Finding{note(name, "not seen", "no block device of its own beneath it, or /sys does not show it", "lsblk   # on the host: is it an SSD, and is its scheduler none or mq-deadline?")}
	}
	schedulerCure := func(to string) string {
		return "echo " + to + " > /sys/block/" + d.name + "/queue/scheduler"
	}
	var findings []Finding
	switch {
	case strings.HasPrefix(d.name, "loop"):
		findings = append(findings, note(name, d.name+", a file as a disk", "writes and syncs go through the file system that has the file, too: good for trying, not for figures",
			"losetup -l /dev/"+d.name+"   # which file it is", "storePathRootDir=/a/folder/on/a/disk   # in broker.conf"))
	case d.rotational && d.virtual:
		findings = append(findings, ok(name, d.name+", virtual", "what is beneath is for the host to know: `ringmq tune` measures it"))
	case d.rotational:
		findings = append(findings, warning(name, d.name+", rotating", "a sync takes some ms, a cold read a seek: the latency promise is not held with SYNC_FLUSH", "storePathRootDir=/a/folder/on/an/ssd   # in broker.conf"))
	default:
		findings = append(findings, ok(name, d.name+", solid state", "made for many syncs and reads at once"))
	}
	name = label + " scheduler"
	switch {
	case d.scheduler == "bfq" || d.scheduler == "cfq":
		findings = append(findings, warning(name, d.scheduler, "shares the disk between programs by waiting: syncs wait with it", schedulerCure("mq-deadline")))
	case d.scheduler == "none" && d.rotational && !d.virtual:
		findings = append(findings, note(name, d.scheduler, "a rotating disk serves reads late while the log is written", schedulerCure("mq-deadline")))
	case d.scheduler != "":
		findings = append(findings, ok(name, d.scheduler, "serves requests without waiting for others"))
	}
	name = label + " write cache"
	switch d.writeCache {
	case "write through":
		findings = append(findings, ok(name, d.writeCache, "no volatile cache: a sync is a write"))
	case "write back":
		findings = append(findings, ok(name, d.writeCache, "volatile cache: each sync empties it"))
	}
	return findings
}
