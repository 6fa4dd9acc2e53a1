package broker

import (
	"iter"
	"slices"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// What of pulls waits for the disk, on goroutines of the cold lane.

// sparseAfter is how many times as much as is asked for may be read from the disk with it: the messages of other queues lie between. They are
// wanted, too, where the queues of one topic are read, and reading on costs less than reading here and there.
const sparseAfter = 8

// pullCold has the lane for slow requests do what the disk is needed for. What was brought into memory once and has left it by now is not
// brought again: pullSlowly ends.
func (h *handler) pullCold(c *netpath.Conn, now netpath.Clock) {
	p, log := &h.pull, h.b.store.Log()
	from, end, sparse := p.span()
	if p.loadedSince != 0 || !log.KeepsBlocks() && (p.get.Bytes < sendfileMin || sparse) {
		h.toLane(c, laneCold, h.b.pullSlowly)
		return
	}
	load := func() bool { return log.Load(from, end) == nil }
	if log.KeepsBlocks() {
		parts := slices.Clone(p.get.Parts)
		load = func() bool { return log.LoadBlocks(partsOf(parts)) }
	}
	topic, group, queue := p.topic.Name, p.group.Name, p.hdr.QueueID
	h.toLane(c, laneCold, func(c *netpath.Conn, frame []byte) {
		again := func() {
			if !c.Closed() {
				h.pull.loadedSince = now.MonoNanos
				h.OnFrame(c, frame)
				h.pull.loadedSince = 0
			}
		}
		if !load() || !h.reactor.Post(again) {
			h.b.pullWaiting(c, frame, false)
			return
		}
		head := make([]byte, message.FixedSize)
		if log.ReadWait(head, from) == nil {
			h.b.fellBehind(topic, group, queue, from, head)
		}
	})
}

// partsOf lists parts as the log takes them.
func partsOf(parts []store.Part) iter.Seq2[int64, int] {
	return func(yield func(int64, int) bool) {
		for _, part := range parts {
			if !yield(part.Off, part.N) {
				return
			}
		}
	}
}

// readAhead gives the disk all that is to be read at once. What fails is told by who reads it.
func (b *Broker) readAhead(p *puller) {
	if len(p.get.Parts) == 1 {
		return
	}
	if from, end, sparse := p.span(); !sparse && b.store.Log().KeepsBlocks() {
		_ = b.store.Log().Load(from, end)
		return
	}
	for _, part := range p.get.Parts {
		b.store.Log().ReadAhead(part.Off, part.N)
	}
}

// span is the part of the log from the first to the last record that get found; sparse, where most of it is of other queues.
func (p *puller) span() (from, end int64, sparse bool) {
	last := p.get.Parts[len(p.get.Parts)-1]
	from, end = p.get.Parts[0].Off, last.Off+int64(last.N)
	return from, end, end-from > sparseAfter*int64(p.get.Bytes)
}

// fellBehind notes that a pull of the record at from, which begins with head, needed the disk.
func (b *Broker) fellBehind(topic, group string, queue int32, from int64, head []byte) {
	b.stats.fellBehind(topic, group, queue, b.store.Log().Published()-from, b.nowMillis()-message.StoreTimestampOf(head))
}

// pullSlowly is onPull where waiting is allowed: on a goroutine. It does not hold.
func (b *Broker) pullSlowly(c *netpath.Conn, frame []byte) {
	b.pullWaiting(c, frame, b.store.Log().KeepsBlocks())
}

// pullWaiting does it; load tells that blocks of the log may be of use and were not asked for yet.
func (b *Broker) pullWaiting(c *netpath.Conn, frame []byte, load bool) {
	p, began := puller{b: b, stats: b.stats.lane(0)}, netpath.ReadClock().MonoNanos
	var cmd remoting.Command
	if err := cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	if err := p.hdr.Decode(&cmd); err != nil {
		b.answer(c, &cmd, failed(err))
		return
	}
	v, forbidden := p.check(&cmd, c)
	if v.code == sendWaits { // deleted since the reactor looked
		v = verdict{remoting.RespSubscriptionGroupNotExist, "subscription group [" + string(p.hdr.ConsumerGroup) + "] does not exist, " + faq}
	}
	if v.code != sendReady {
		w := p.pullHead(nil, &cmd, v.code, v.remark, 0, forbidden)
		b.sendFrame(c, &cmd, w.Finish(nil))
		return
	}
	p.limits()
	q := b.store.Queue(p.hdr.Topic, p.hdr.QueueID)
	if err := p.get.Do(b.store, q, p.hdr.QueueOffset, int(p.hdr.MaxMsgNums), true); err != nil {
		b.answer(c, &cmd, failed(err))
		return
	}
	if p.get.Status != store.GetFound {
		w := p.pullHead(nil, &cmd, pullCode(p.get.Status, p.hdr.QueueOffset), p.remark(), p.get.Next, 0)
		b.sendFrame(c, &cmd, w.Finish(nil))
		return
	}
	w := p.pullHead(make([]byte, 0, p.get.Bytes+512), &cmd, remoting.RespSuccess, "", p.get.Next, 0)
	buf := w.FinishHead(p.get.Bytes)
	head := len(buf)
	if !load || !b.store.Log().LoadBlocks(partsOf(p.get.Parts)) {
		b.readAhead(&p)
	}
	for _, part := range p.get.Parts {
		n := len(buf)
		buf = grow(buf, part.N)
		if err := b.store.Log().ReadWait(buf[n:], part.Off); err != nil {
			b.answer(c, &cmd, failed(err))
			return
		}
	}
	p.count(began)
	b.fellBehind(p.topic.Name, p.group.Name, p.hdr.QueueID, p.get.Parts[0].Off, buf[head:])
	b.sendFrame(c, &cmd, buf)
}
