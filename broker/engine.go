package broker

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/netpath"
)

// Which log engine ioEngine=auto is.
//
//	ringmq-tune.json is there    what it says for this flushDiskType
//	else, Linux                  uring
//	else                         mmap
//
// Whatever it is: where the system refuses it, the log takes the next one by itself.

const (
	autoEngine     = "auto"
	portableEngine = "portable"
)

// autoLogEngine is the engine of ioEngine=auto, and the reason.
func (b *Broker) autoLogEngine(c *config.Broker) (kind ioengine.EngineKind, why string) {
	tuned, err := ioengine.LoadTuned(b.fsys, c.StorePathRootDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("what was measured for ioEngine=auto is not used", "err", err)
	}
	if err == nil {
		if chosen := tuned.Engine(b.syncFlush); chosen != nil {
			b.noteOtherPlace(c, tuned)
			kind, _ = ioengine.ParseEngine(chosen.Name) // it was read with the file
			return kind, fmt.Sprintf("%s, by %s on %s: %s", ioengine.TunedName, tuned.Source, tuned.MeasuredAt.Format(time.DateOnly), chosen.Why)
		}
	}
	if runtime.GOOS != "linux" {
		return ioengine.EngineMmap, "the only one on this system"
	}
	return ioengine.EngineUring, "the usual choice: ringmq tune has not measured this store's disk"
}

func (b *Broker) noteOtherPlace(c *config.Broker, tuned *ioengine.Tuned) {
	here := ioengine.PlaceOf(logFolder(c))
	if was := tuned.Place; was.Kernel != here.Kernel || was.FileSystem != here.FileSystem || was.Device != here.Device {
		b.log.Info("the log engines were measured elsewhere: ringmq tune measures them here", "file", ioengine.TunedName,
			"kernel", here.Kernel, "measuredKernel", was.Kernel, "fileSystem", here.FileSystem, "measuredFileSystem", was.FileSystem,
			"device", here.Device, "measuredDevice", was.Device)
	}
}

func logFolder(c *config.Broker) string {
	return cmp.Or(c.StorePathCommitLog, filepath.Join(c.StorePathRootDir, "commitlog"))
}

// engineName is how the log is written now: ioEngine's value, but for auto and for an engine that was refused.
func (b *Broker) engineName() string {
	if b.cfg.Load().IoEngine == portableEngine {
		return portableEngine
	}
	return b.store.Log().Engine().String()
}

// reactorName is how the network threads wait.
func (b *Broker) reactorName() string {
	if b.cfg.Load().IoEngine == portableEngine || runtime.GOOS != "linux" {
		return portableEngine
	}
	if b.pollerOf(b.cfg.Load()) == netpath.PollerUring {
		return uringPoller // epoll where that was refused, as the log says
	}
	return "epoll"
}

// uringPoller is a value of reactorPoller, and what tune calls it.
const uringPoller = "uring"

// pollerOf is reactorPoller; auto is what ringmq tune found.
func (b *Broker) pollerOf(c *config.Broker) netpath.Poller {
	name := c.ReactorPoller
	if name == "auto" {
		// A bad file is told of where the log engine is chosen.
		if tuned, err := ioengine.LoadTuned(b.fsys, c.StorePathRootDir); err == nil && tuned.Reactor != nil {
			name = tuned.Reactor.Name
		}
	}
	if name == uringPoller {
		return netpath.PollerUring
	}
	return netpath.PollerEpoll
}
