package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/netpath"
)

// Which log engine ioEngine=auto is.
//
//	ringmq-tune.json is there       what it says for this flushDiskType
//	else, ASYNC_FLUSH               mmap
//	else, SYNC_FLUSH, new store     the winner of a short trial on the store's disk, which goes into that file
//	else                            pwrite
//
// Whatever it is: where the system refuses it, the log takes the next one by itself.

const (
	autoEngine     = "auto"
	portableEngine = "portable"

	// The trial: each engine in each round for trialStep, 200 ms in all, on segments of trialSegment bytes.
	trialRounds  = 4
	trialStep    = 12500 * time.Microsecond
	trialSegment = 16 << 20
	trialTail    = 32 << 20
	// trialInFlight is as many as a few producers have that wait for each answer.
	trialInFlight = 8
	// trialPatience ends the trial on a disk that takes this long to prepare a few segments.
	trialPatience = 3 * time.Second
)

// syncEngines are the engines of a SYNC_FLUSH broker, the simplest first: see commitlog.Choose.
var syncEngines = []ioengine.EngineKind{ioengine.EnginePwrite, ioengine.EngineMmap, ioengine.EngineDirect, ioengine.EngineUring}

// autoLogEngine is the engine of ioEngine=auto, and the reason.
func (b *Broker) autoLogEngine(c *config.Broker) (kind ioengine.EngineKind, why string) {
	tuned, err := ioengine.LoadTuned(b.fsys, c.StorePathRootDir)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		b.log.Warn("what was measured for ioEngine=auto is not used", "err", err)
	}
	if err == nil {
		if chosen := tuned.Engine(b.syncFlush); chosen != nil {
			b.noteOtherPlace(c, tuned)
			kind, _ = ioengine.ParseEngine(chosen.Name) // it was read with the file
			return kind, fmt.Sprintf("%s, by %s on %s: %s", ioengine.TunedName, tuned.Source, tuned.MeasuredAt.Format(time.DateOnly), chosen.Why)
		}
	}
	switch {
	case !b.syncFlush:
		return ioengine.EngineMmap, "the usual choice for ASYNC_FLUSH: ringmq tune has not measured this store's disk"
	case b.fsys != ioengine.OS():
		return ioengine.EngineMmap, "the only one for these files"
	case missing && b.storeIsNew(c):
		return b.tryLogEngines(c)
	}
	return ioengine.EnginePwrite, "the usual choice for SYNC_FLUSH: ringmq tune has not measured this store's disk"
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

// storeIsNew tells that there is no commit log yet.
func (b *Broker) storeIsNew(c *config.Broker) bool {
	entries, err := b.fsys.ReadDir(logFolder(c))
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}

// tryLogEngines runs the trial and remembers its result: the next start takes it from the file.
func (b *Broker) tryLogEngines(c *config.Broker) (ioengine.EngineKind, string) {
	ctx, cancel := context.WithTimeout(context.Background(), trialPatience)
	defer cancel()
	verdict, err := tryEngines(ctx, c.StorePathRootDir, logFolder(c))
	if err != nil {
		return ioengine.EnginePwrite, "the usual choice for SYNC_FLUSH: a trial of all log engines failed: " + err.Error()
	}
	tuned := &ioengine.Tuned{Source: ioengine.FromTrial, MeasuredAt: b.now().UTC().Truncate(time.Second), Place: ioengine.PlaceOf(logFolder(c)),
		SyncEngine: &ioengine.Chosen{Name: verdict.Chosen, Why: verdict.Why}}
	if err := tuned.Save(b.fsys, c.StorePathRootDir); err != nil {
		b.log.Warn("the result of the log engines' trial is not kept", "err", err)
	}
	kind, err := ioengine.ParseEngine(verdict.Chosen)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return kind, "the first start on this store tried all: " + verdict.Why
}

// tryEngines measures group commits of all engines, in turns. Nothing of it stays on the disk.
func tryEngines(ctx context.Context, root, logDir string) (verdict commitlog.Verdict, err error) {
	candidates := make([]commitlog.Candidate, len(syncEngines))
	trials := make([]*commitlog.Trial, len(syncEngines))
	defer func() {
		for _, t := range trials {
			if t != nil {
				err = errors.Join(err, t.Close())
			}
		}
	}()
	for i, kind := range syncEngines {
		candidates[i].Name = kind.String()
		t, err := commitlog.OpenTrial(commitlog.TrialOptions{Dir: ioengine.ScratchDir(root, logDir, "ringmq-trial-"+kind.String()+".tmp"),
			SegmentSize: trialSegment, EngineOptions: commitlog.EngineOptions{Engine: kind, TailSize: trialTail, Sync: true}})
		if errors.Is(err, ioengine.ErrEngineRefused) {
			candidates[i].Refused = err.Error()
			continue
		}
		if err != nil {
			return verdict, err
		}
		trials[i] = t
	}
	for round := range trialRounds {
		for n := range trials {
			i := n
			if round%2 == 1 {
				i = len(trials) - 1 - n
			}
			if trials[i] == nil {
				continue
			}
			f, err := trials[i].Commits(ctx, trialInFlight, trialStep)
			if err != nil {
				return verdict, err
			}
			candidates[i].Scores = append(candidates[i].Scores, f.PerSecond())
		}
	}
	verdict, ok := commitlog.Choose(candidates)
	if !ok {
		return verdict, errors.New("no log engine works here")
	}
	return verdict, nil
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
