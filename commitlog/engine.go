package commitlog

import (
	"errors"

	"github.com/ringmq/ringmq/ioengine"
)

// Engine is how records reach the segments: Options.Engine, or what took its place.
func (l *Log) Engine() ioengine.EngineKind { return l.opt.Engine }

// chooseEngine takes the next engine while the system refuses the one that was asked for. What it says is said once.
func (l *Log) chooseEngine() error {
	o := &l.opt
	if o.FS != ioengine.OS() {
		// The others open files themselves.
		o.Engine = min(o.Engine, ioengine.EnginePwrite)
	}
	for o.Engine != ioengine.EngineMmap {
		err := ioengine.EngineWorks(o.Engine, o.Dir, o.SegmentSize)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ioengine.ErrEngineRefused) {
			return err
		}
		o.Logger.Warn("this log engine is refused here, taking the next one", "engine", o.Engine, "next", o.Engine-1, "err", err)
		o.Engine--
	}
	return nil
}
