package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/internal/beat"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// schedule delivers messages with a delay level: each level is a queue of SCHEDULE_TOPIC_XXXX in order of due time, and its entries carry
// that time as tagsCode. What is due is stored again under its real topic and queue. How far each level has come is kept in
// delayOffset.json, in Java's form; what is saved never runs ahead of what the device holds of the deliveries. A crash between a delivery
// and the next save delivers the messages of that time again: the log tells them apart by unique key, as in the original. Does the work of
// ScheduleMessageService.
type schedule struct {
	b      *Broker
	log    *slog.Logger
	saver  *saver
	levels []atomic.Int64 // next offset of each level's queue

	mu      sync.Mutex
	version remoting.DataVersion
	durable []int64 // levels whose deliveries are on the device: what is saved
}

// progress is how far the levels were when the log ended at end.
type progress struct {
	end    int64
	levels []int64
}

// How long the deliverer rests: until the next message is due, scheduleTick while deliveries are on their way to the device or failed, and at
// most scheduleRest, or the shortest delay if that is less: what is stored meanwhile is not due before. (A look ten times a second cost an
// idle broker more than everything else together.)
const (
	scheduleTick  = 100 * time.Millisecond
	scheduleRest  = time.Second
	scheduleSave  = 10 * time.Second
	scheduleBatch = 64
)

func openSchedule(b *Broker, fsys ioengine.FS, dir string, acceptEmpty bool, log *slog.Logger) (*schedule, error) {
	s := &schedule{b: b, log: log, levels: make([]atomic.Int64, len(b.delayLevels))}
	file, err := ioengine.OpenMetadata(fsys, dir, "delayOffset.json", log)
	if err != nil {
		return nil, err
	}
	_, err = file.Load(acceptEmpty, func(text []byte) error {
		var f remoting.DelayOffsetTable
		if err := decodeMetadata(text, &f); err != nil {
			return err
		}
		s.version = f.DataVersion
		for level, offset := range f.OffsetTable {
			if level >= 1 && int(level) <= len(s.levels) {
				s.levels[level-1].Store(offset)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.durable = s.now()
	s.saver = newSaver(file, log, scheduleSave, s.encode)
	return s, nil
}

// now is where the levels are.
func (s *schedule) now() []int64 {
	levels := make([]int64, len(s.levels))
	for i := range s.levels {
		levels[i] = s.levels[i].Load()
	}
	return levels
}

// offsets is the table as GET_ALL_DELAY_OFFSET tells it.
func (s *schedule) offsets() remoting.DelayOffsetTable {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tableLocked(s.now())
}

func (s *schedule) tableLocked(levels []int64) remoting.DelayOffsetTable {
	f := remoting.DelayOffsetTable{DataVersion: s.version, OffsetTable: map[int32]int64{}}
	for i, at := range levels {
		if at > 0 {
			f.OffsetTable[int32(i+1)] = at
		}
	}
	return f
}

func (s *schedule) encode() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return remoting.EncodePrettyBody(s.tableLocked(s.durable))
}

// run delivers until ctx ends: one goroutine for all levels, because what they wait for is the clock and not each other.
func (s *schedule) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	d := delivery{schedule: s, sender: s.b.newSender()}
	defer d.settleLast()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		next := int64(math.MaxInt64)
		for level := range s.levels {
			due, err := d.level(ctx, level)
			if err != nil && ctx.Err() == nil {
				s.log.Error("delayed messages wait", "level", level+1, "err", err)
				due = d.b.nowMillis() + scheduleTick.Milliseconds()
			}
			next = min(next, due)
		}
		d.settle()
		timer.Reset(d.rest(next))
	}
}

// rest is how long to wait when next, in ms, is the earliest time at which a message is due.
func (d *delivery) rest(next int64) time.Duration {
	most := scheduleRest
	for _, delay := range d.b.delayLevels {
		most = min(most, max(delay, scheduleTick))
	}
	if d.moved || d.unsettled.levels != nil {
		most = scheduleTick
	}
	if wait := next - d.b.nowMillis(); wait < most.Milliseconds() {
		return time.Duration(max(wait, 1)) * time.Millisecond
	}
	wait := beat.UntilNext(most)
	if wait > most {
		wait -= most
	}
	return wait
}

// settle lets deliveries that have reached the device count as such, and marks those since as the next to look at.
func (d *delivery) settle() {
	log := d.b.store.Log()
	if d.unsettled.levels != nil && log.Flushed() >= d.unsettled.end {
		d.mu.Lock()
		d.durable, d.version = d.unsettled.levels, d.version.Next(0, d.b.nowMillis())
		d.mu.Unlock()
		d.unsettled.levels = nil
		d.saver.markDirty()
	}
	if d.unsettled.levels == nil && d.moved {
		d.moved = false
		levels := d.now()
		d.unsettled = progress{log.Published(), levels}
	}
}

// settleLast settles what was delivered before the end, so that a clean start does not deliver it again.
func (d *delivery) settleLast() {
	for range 2 { // what waits already, and what came since
		d.settle()
		if d.unsettled.levels != nil && d.b.store.Log().Flush(saveTimeout) != nil {
			return
		}
	}
	d.settle()
}

// delivery is the scratch of the delivering goroutine.
type delivery struct {
	*schedule
	sender  sender
	entries [scheduleBatch]store.Entry
	props   []byte
	// moved: a level has come further since unsettled was taken.
	moved     bool
	unsettled progress
}

// level delivers what is due of one level and tells when the next message of it is, in ms; never, when there is none.
func (d *delivery) level(ctx context.Context, level int) (next int64, err error) {
	const never = math.MaxInt64
	q := d.b.store.Queue([]byte(message.ScheduleTopic), int32(level))
	if q == nil {
		return never, nil
	}
	// Behind the end is a table that outlived its queue: what comes now must not be passed over.
	at := min(max(d.levels[level].Load(), q.Min()), q.Max())
	for ctx.Err() == nil && at < q.Max() {
		n, err := q.ReadWait(at, d.entries[:])
		if err != nil {
			return never, err
		}
		for _, e := range d.entries[:n] {
			if e.Size > 0 {
				if due := d.due(e, level); due > d.b.nowMillis() {
					return due, nil
				}
			}
			if e.Size > 0 {
				if err := d.deliver(ctx, e); err != nil {
					return never, fmt.Errorf("queue offset %d: %w", at, err)
				}
			}
			at++
			d.levels[level].Store(at)
			d.moved = true
		}
		if n == 0 {
			break
		}
	}
	return never, nil
}

// due is when e is to be delivered: never later than a whole delay from now, whatever the clock was when it was stored.
func (d *delivery) due(e store.Entry, level int) int64 {
	now := d.b.nowMillis()
	if latest := now + d.b.delayLevels[level].Milliseconds(); e.TagsCode > latest {
		return now
	}
	return e.TagsCode
}

// deliver stores the message of e under its real topic and queue. A message that retention took, or that rotted, is passed over.
func (d *delivery) deliver(ctx context.Context, e store.Entry) error {
	var r message.Record
	var invalid *message.InvalidError
	switch _, err := d.b.store.ReadMessage(e.PhysicalOffset, &r); {
	case err == nil:
	case !errors.Is(err, commitlog.ErrGone) && !errors.As(err, &invalid):
		return err
	default:
		d.log.Error("a delayed message cannot be read and is passed over", "offset", e.PhysicalOffset, "err", err)
		return nil
	}
	topic, _ := message.Property(r.Properties, message.PropertyRealTopic)
	queue, _ := message.Property(r.Properties, message.PropertyRealQueueID)
	queueID, err := strconv.ParseInt(string(queue), 10, 32)
	if err != nil || message.CheckTopic(topic) != "" {
		d.log.Error("a delayed message does not say where it goes and is passed over", "offset", e.PhysicalOffset, "topic", string(topic))
		return nil
	}
	d.props = message.AppendWithout(d.props[:0], r.Properties, doneWhenDelivered)
	draft := message.Draft{Topic: topic, QueueID: int32(queueID), Body: r.Body, Properties: d.props, Flag: r.Flag,
		SysFlag: r.SysFlag, ReconsumeTimes: r.ReconsumeTimes, BornTimestamp: r.BornTimestamp, BornHost: r.BornHost,
		AppendCRC: d.b.cfg.Load().EnabledAppendPropCRC}
	if err := draft.Check(len(r.Body)); err != nil {
		d.log.Error("a delayed message cannot be stored again and is passed over", "offset", e.PhysicalOffset, "err", err)
		return nil
	}
	return d.b.storeInternal(ctx, &d.sender, draft)
}

// doneWhenDelivered tells the properties that a delayed message leaves behind.
func doneWhenDelivered(name []byte) bool {
	switch string(name) {
	case message.PropertyDelay, message.PropertyTimerDeliverMs, message.PropertyTimerDelaySec, message.PropertyCRC32:
		return true
	}
	return false
}

// storeInternal stores a message of the broker's own, waiting for the log's memory but not for its device.
func (b *Broker) storeInternal(ctx context.Context, s *sender, d message.Draft) error {
	q, err := b.store.EnsureQueue(string(d.Topic), d.QueueID)
	if err != nil {
		return err
	}
	for {
		if err := b.store.Writable(); err != nil {
			return err
		}
		s.put.Draft = d
		err := b.store.Append(&s.put, q, b.nowMillis())
		if err == nil {
			b.store.DispatchWait()
			return nil
		}
		if !errors.Is(err, commitlog.ErrNotReady) {
			return err
		}
		if err := b.store.Log().WaitReady(ctx); err != nil {
			return err
		}
	}
}
