// Package beat gives the work that is done every so often one beat: what is done every second is done at the same moment, by whatever
// goroutine, so that an idle process wakes once for all of it. Each wake costs a few switches of threads.
package beat

import (
	"context"
	"time"
)

// Every calls work until ctx ends, with about d between.
func Every(ctx context.Context, d time.Duration, work func()) {
	timer := time.NewTimer(UntilNext(d))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			work()
			timer.Reset(UntilNext(d))
		}
	}
}

// UntilNext is the time to the next multiple of d, between a quarter and five quarters of d. The wall clock only sets the beat: a jump of it
// makes one wait shorter or longer within these bounds.
func UntilNext(d time.Duration) time.Duration {
	wait := d - time.Duration(time.Now().UnixNano())%d
	if wait < d/4 {
		wait += d // a timer that came a moment early must not count twice
	}
	return wait
}
