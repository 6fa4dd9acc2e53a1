package netpath

import (
	"errors"
	"fmt"
	"time"
)

var errNoWatch = fmt.Errorf("the portable reactor waits for no descriptors: %w", errors.ErrUnsupported)

// The reactor's wait without a poller: for Options.Portable, and for systems that have no
// reactor_linux.go. All its connections are streams, whose goroutines report by mail, so
// there is nothing to wait for but Wake and the clock.

// parking is where such a reactor sleeps.
type parking struct {
	wake  chan struct{} // capacity 1; a token left over costs one turn for nothing
	timer *time.Timer
}

func newParking() parking {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return parking{wake: make(chan struct{}, 1), timer: t}
}

func (p *parking) sleep(d time.Duration) {
	p.timer.Reset(d)
	select {
	case <-p.wake:
	case <-p.timer.C:
	}
	p.timer.Stop()
}

func (p *parking) interrupt() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
