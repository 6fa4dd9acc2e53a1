package perf

import (
	"context"
	"time"
)

// Produce sends, by rate or by depth, and checks the answers. The report is nil only when the load could not begin.
func Produce(ctx context.Context, config Config) (*Report, error) {
	r, err := newRun(ctx, "produce", config)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.clock = newClock()
	if err := r.addSenders(); err != nil {
		return nil, err
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	r.schedule()
	r.startCollect(ctx)
	r.startSenders(ctx)
	failure := r.waitSenders()
	r.finishCollect()
	return r.report(failure)
}

// Consume reads what comes for the configured time, with long polls, and verifies it.
func Consume(ctx context.Context, config Config) (*Report, error) {
	r, err := newRun(ctx, "consume", config)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.clock = newClock()
	begin, err := r.begins("max")
	if err != nil {
		return nil, err
	}
	if err := r.addPullers(ctx, begin, "end to end"); err != nil {
		return nil, err
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	r.schedule()
	r.startCollect(ctx)
	r.startPullers()
	r.sleepUntilEnd(ctx)
	failure := r.stopPullers()
	r.finishCollect()
	return r.report(failure)
}

// sleepUntilEnd waits for the end of the measured time, for Count messages, for a worker to end by itself, or, with a Count, until
// nothing has come for Config.Idle.
func (r *run) sleepUntilEnd(ctx context.Context) {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	began := r.clock.now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		if r.clock.now() >= r.measureTo || r.allPullersEnded() {
			return
		}
		if r.config.Count > 0 && (r.received() >= r.config.Count || r.idle(began)) {
			return
		}
	}
}

// idle tells whether nothing has come for Config.Idle, counted from began at the earliest.
func (r *run) idle(began int64) bool {
	for _, p := range r.pullers {
		began = max(began, p.heard.Load())
	}
	return r.clock.now()-began > int64(r.config.Idle)
}

func (r *run) received() (n int64) {
	for _, p := range r.pullers {
		n += p.received.Load()
	}
	return n
}

func (r *run) allPullersEnded() bool {
	for _, p := range r.pullers {
		select {
		case <-p.ended:
		default:
			return false
		}
	}
	return true
}

// EndToEnd sends and reads at once, and checks that everything acknowledged arrives, once, in order.
func EndToEnd(ctx context.Context, config Config) (*Report, error) {
	r, err := newRun(ctx, "e2e", config)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.clock = newClock()
	if err := r.addSenders(); err != nil {
		return nil, err
	}
	if err := r.addPullers(ctx, func(q *queue) int64 { return q.base }, "end to end", "after the ack"); err != nil {
		return nil, err
	}
	for _, p := range r.pullers {
		p.own = r.generator
	}
	r.shareAckTimes()
	if err := r.connect(); err != nil {
		return nil, err
	}
	r.schedule()
	r.startCollect(ctx)
	r.startPullers()
	r.startSenders(ctx)
	failure := r.waitSenders()
	ends := r.storedEnd()
	for _, q := range r.pullQueues() {
		q.limit.Store(max(ends[q.queue], q.began))
	}
	// An interrupt has ended the senders; what they got acknowledged is read all the same, for a verdict.
	r.waitPullers(context.WithoutCancel(ctx))
	if err := r.stopPullers(); err != nil {
		failure = err
	}
	r.finishCollect()
	return r.report(failure)
}

// Drain reads every queue from its beginning (or Config.From) to its end as of now, as fast as the broker answers, and verifies.
func Drain(ctx context.Context, config Config) (*Report, error) {
	config.UseExisting = true
	config.Count = noLimit // there is no time limit
	r, err := newRun(ctx, "drain", config)
	if err != nil {
		return nil, err
	}
	defer r.close()
	r.clock = newClock()
	begin, err := r.begins("min")
	if err != nil {
		return nil, err
	}
	if err := r.addPullers(ctx, begin, "pull"); err != nil {
		return nil, err
	}
	for _, p := range r.pullers {
		p.drain = true
	}
	for _, q := range r.pullQueues() {
		q.limit.Store(q.queue.base)
		q.passes = r.config.Passes - 1
	}
	if err := r.connect(); err != nil {
		return nil, err
	}
	r.measureFrom = r.clock.now()
	r.startCollect(ctx)
	r.startPullers()
	r.waitPullers(ctx)
	failure := r.stopPullers()
	r.finishCollect()
	return r.report(failure)
}

// waitPullers waits until every queue has been read to its limit, or nothing has come for Config.Idle.
func (r *run) waitPullers(ctx context.Context) {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	began := r.clock.now()
	for !r.allPullersEnded() {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
		if r.idle(began) {
			return
		}
	}
}
