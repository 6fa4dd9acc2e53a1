package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ringmq/ringmq/ioengine"
)

// lookStore looks at the folder of the CommitLog, and at the store's root where that lies on another file system.
func lookStore(m *machine) []Finding {
	findings := lookFolder(m, "store", m.StoreDir)
	log := "store"
	rootMount, _ := m.mountOf(m.StoreDir)
	if logMount, _ := m.mountOf(m.CommitLogDir); m.linux && logMount.point != rootMount.point || !m.linux && filepath.Dir(m.CommitLogDir) != filepath.Clean(m.StoreDir) {
		log = "log"
		findings = append(findings, lookFolder(m, log, m.CommitLogDir)...)
	}
	findings = append(findings, lookSpace(m, log+" space"), lookUsed(m, log+" used"))
	return append(findings, lookSegmentSize(m)...)
}

// lookFolder looks at one folder, its file system and its device.
func lookFolder(m *machine, label, dir string) []Finding {
	at := ioengine.Existing(dir)
	folder, usable := lookWritable(m, label+" folder", dir, at)
	findings := []Finding{folder}
	if m.linux {
		if mount, found := m.mountOf(dir); found {
			findings = append(findings, fileSystem(label+" file system", dir, mount))
			device := m.deviceOf(mount)
			findings = append(findings, mountOptions(label+" mount", mount, device)...)
			findings = append(findings, device.findings(label)...)
		} else {
			findings = append(findings, unseen(label+" file system", "/proc/self/mountinfo"))
		}
	}
	if usable {
		findings = append(findings, probeFolder(m, label, at)...)
	}
	return findings
}

// probeName starts the names of probe files.
const probeName = ".ringmq-doctor-"

// probeFile is a name in dir that nobody has.
func probeFile(dir string) string {
	return filepath.Join(dir, probeName+strconv.Itoa(os.Getpid()))
}

func lookWritable(m *machine, name, dir, at string) (f Finding, usable bool) {
	cure := "install -d -o \"$(id -un ringmq)\" " + dir + "   # the user that the broker runs as"
	info, err := os.Stat(at)
	switch {
	case err != nil:
		return failure(name, errorText(err), "the broker cannot reach its store and does not start", cure), false
	case !info.IsDir():
		return failure(name, at+" is no folder", "the broker cannot make its store there and does not start", "mv "+at+" "+at+".old && mkdir -p "+dir), false
	}
	probe := probeFile(at)
	file, err := m.files.Open(probe, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failure(name, errorText(err), "the broker cannot write there and does not start", cure), false
	}
	if err := errors.Join(file.Close(), m.files.Remove(probe)); err != nil {
		return failure(name, errorText(err), "files cannot be removed: retention would not free space", cure), false
	}
	if abs, err := filepath.Abs(dir); err == nil && abs != at {
		return ok(name, "not there yet", "the broker makes it, in "+at), true
	}
	return ok(name, "writable", "the broker can keep its store there"), true
}

// errorText is an error without the path of a probe file, which is gone when somebody reads it.
func errorText(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Op + ": " + path.Err.Error()
	}
	return err.Error()
}

// probeSize is enough for two steps of zeroing.
const probeSize = 1 << 20

// probeFolder does with a small file what the engine does with a segment.
func probeFolder(m *machine, label, dir string) []Finding {
	findings := []Finding{probeSegment(m, label+" segments", dir)}
	if m.linux {
		findings = append(findings, probeAllocate(m, label+" fallocate", dir), probeDirect(m, label+" O_DIRECT", dir))
	}
	return findings
}

// probeSegment makes, maps, warms, writes and syncs a small segment.
func probeSegment(m *machine, name, dir string) Finding {
	cure := "storePathRootDir=/a/folder/on/ext4/or/xfs   # in broker.conf"
	probe := probeFile(dir)
	s, err := m.files.OpenSegment(probe, probeSize, true)
	if err != nil {
		return failure(name, errorText(err), "no segment can be made and mapped there: the broker does not start", cure)
	}
	defer m.files.Remove(probe)
	kind, err := exerciseSegment(s)
	err = errors.Join(err, s.Unmap(), s.Close())
	switch {
	case err != nil:
		return failure(name, errorText(err), "a segment cannot be written and synced there: the broker stops taking messages", cure)
	case kind == ioengine.WarmLocked:
		return ok(name, "mapped, synced, "+kind.String(), "the memory engine works")
	}
	return note(name, "mapped, synced, "+kind.String(), "the memory engine works; memory around the log's tail is not locked: see memlock", "see memlock and kernel")
}

func exerciseSegment(s ioengine.Segment) (ioengine.WarmKind, error) {
	if err := s.Zero(0, probeSize); err != nil {
		return 0, err
	}
	if err := s.Warm(0, probeSize/4); err != nil {
		return 0, err
	}
	kind := s.WarmKind()
	copy(s.Window(0, 4096), "ringmq")
	if err := s.SyncRange(0, 4096); err != nil {
		return kind, err
	}
	back := make([]byte, 6)
	if _, err := s.ReadAt(back, 0); err != nil {
		return kind, err
	}
	if !bytes.Equal(back, []byte("ringmq")) {
		return kind, errors.New("what was stored through the mapping does not come back by a read")
	}
	return kind, nil
}

// probeAllocate tells fallocate from the engine's replacement, which writes zeroes: these are in the page cache afterwards.
func probeAllocate(m *machine, name, dir string) Finding {
	probe := probeFile(dir)
	f, err := m.files.Open(probe, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failure(name, errorText(err), "space cannot be reserved for segments", "storePathRootDir=/a/folder/on/ext4/or/xfs   # in broker.conf")
	}
	defer m.files.Remove(probe)
	defer f.Close()
	if err := f.Allocate(0, probeSize); err != nil {
		return failure(name, errorText(err), "space cannot be reserved for segments: the broker does not start", "df -h "+dir+"   # free some")
	}
	on, _ := m.mountOf(dir)
	if f.Resident(0, probeSize) && !inMemory(on.kind) { // whose pages are what fallocate reserves
		return note(name, "does not reserve", "each new segment is written with zeroes to reserve its space, "+size(m.SegmentSize)+" more of writing a segment",
			"storePathRootDir=/a/folder/on/ext4/or/xfs   # in broker.conf")
	}
	return ok(name, "works", "a segment's space is reserved in one call")
}

func probeDirect(m *machine, name, dir string) Finding {
	err := m.writeDirect(dir)
	if err == nil {
		return ok(name, "works", "segments can be zeroed and written past the page cache")
	}
	return note(name, errorText(err), "every write goes through the page cache; the direct io_uring engine is not to be had", "storePathRootDir=/a/folder/on/ext4/or/xfs   # in broker.conf")
}

// lookSpace: the tail's segment and the next one are made in advance.
func lookSpace(m *machine, name string) Finding {
	at := ioengine.Existing(m.CommitLogDir)
	free, _, err := m.files.Usage(at)
	if err != nil {
		return note(name, errorText(err), "retention cannot see how full the disk is", "df "+at)
	}
	about := "two segments of " + size(m.SegmentSize) + " are made in advance"
	cures := []string{"df -h " + at + "   # free some, or add capacity", fmt.Sprintf("or in broker.conf, before the first start: mappedFileSizeCommitLog=%d", 64<<20)}
	switch {
	case free < m.SegmentSize:
		return failure(name, size(free)+" free", "no room for one segment ("+about+"): the broker does not start, or stops taking messages", cures...)
	case free < 2*m.SegmentSize:
		return warning(name, size(free)+" free", about+": sends are refused at the end of the first", cures...)
	}
	return ok(name, size(free)+" free", about)
}

// lookUsed compares with the three ratios at which retention acts.
func lookUsed(m *machine, name string) Finding {
	at := ioengine.Existing(m.CommitLogDir)
	free, total, err := m.files.Usage(at)
	if err != nil || total <= 0 {
		return note(name, "not seen", "retention cannot see how full the disk is", "df "+at)
	}
	used := int(100 * (total - free) / total)
	found := fmt.Sprintf("%d %% of %s", used, size(total))
	cures := []string{"df -h " + at + "   # free some, or add capacity", "or in broker.conf: a smaller fileReservedTime"}
	switch {
	case used >= m.WarningLevelRatio:
		return failure(name, found, fmt.Sprintf("from diskSpaceWarningLevelRatio=%d on sends are refused", m.WarningLevelRatio), cures...)
	case used >= m.CleanForciblyRatio:
		return warning(name, found, fmt.Sprintf("from diskSpaceCleanForciblyRatio=%d on the oldest segments go before their time", m.CleanForciblyRatio), cures...)
	case used >= m.MaxUsedRatio:
		return warning(name, found, fmt.Sprintf("from diskMaxUsedSpaceRatio=%d on expired segments are deleted at any hour, under load too", m.MaxUsedRatio), cures...)
	}
	return ok(name, found, fmt.Sprintf("below diskMaxUsedSpaceRatio=%d", m.MaxUsedRatio))
}

// lookSegmentSize: a store goes on only with the segment size that it was made with.
func lookSegmentSize(m *machine) []Finding {
	const name = "segment size"
	entries, err := os.ReadDir(m.CommitLogDir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		info, err := e.Info()
		if _, number := strconv.ParseUint(e.Name(), 10, 64); err != nil || number != nil || !info.Mode().IsRegular() {
			continue
		}
		if info.Size() != m.SegmentSize {
			return []Finding{failure(name, fmt.Sprintf("%s has %d bytes", e.Name(), info.Size()),
				fmt.Sprintf("mappedFileSizeCommitLog=%d is not what this store was made with: the broker does not start", m.SegmentSize),
				fmt.Sprintf("mappedFileSizeCommitLog=%d   # in broker.conf", info.Size()))}
		}
	}
	return nil
}
