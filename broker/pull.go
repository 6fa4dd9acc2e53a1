package broker

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ringmq/ringmq/commitlog"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
	"github.com/ringmq/ringmq/store"
)

// In the walk of one message: before this, long_poll.go woke the pull or the client asked; store/get.go finds the parts of the log to
// send; after this, netpath/sendfile_linux.go or the connection's buffer carries them.
//
// A pull is answered by the thread that read it, from memory: small parts are copied from the log's own pages or the page cache, large
// ones go by sendfile. What would have to wait for the disk goes to a goroutine of the cold lane. A large answer it brings into the page cache,
// and then the pull runs again on its reactor, by sendfile; a small one, or one that lies here and there in the log, it reads and answers by
// itself. A log that was written past the page cache is not read through it either: the goroutine has blocks of it loaded, and the pull, which
// runs again, and those that follow copy from them, whatever their size (pull_cold.go, commitlog/cold_cache.go). Does the work of PullMessageProcessor.

// puller is the scratch for pulls of one thread.
type puller struct {
	b     *Broker
	hdr   remoting.PullHeader
	get   store.Get
	topic *Topic
	group *Group
	codes []int32
	stats statsLane
	// counters are those of the last pull's group and topic.
	counters *groupStats
	// loadedSince is when the pull came that runs now, on the monotonic clock (ns), if it came before what it asks for was brought into
	// memory; else 0.
	loadedSince int64
}

// sendfileMin is the size in bytes from which on a part goes by sendfile: below it, a system call costs more than the copy that it saves.
const sendfileMin = 16 << 10

// borrowMin is the size in bytes from which on parts are sent from where the log has them: below it a piece of its own costs as much as the copy.
const borrowMin = 512

// onPull handles PULL_MESSAGE and LITE_PULL_MESSAGE on the reactor.
func (h *handler) onPull(c *netpath.Conn) {
	p := &h.pull
	if err := p.hdr.Decode(&h.cmd); err != nil {
		h.replyError(c, err)
		return
	}
	v, forbidden := p.check(&h.cmd, c)
	switch {
	case v.code == sendWaits:
		h.toLane(c, laneControl, h.pullOfNewGroup)
		return
	case v.code != sendReady:
		h.replyPullError(c, v, forbidden)
		return
	}
	now := h.reactor.Now()
	if p.hdr.SysFlag&remoting.PullCommitOffset != 0 {
		h.b.offsets.commit(p.hdr.Topic, p.hdr.ConsumerGroup, p.hdr.QueueID, p.hdr.CommitOffset)
	}
	h.b.offsets.commitPull(p.hdr.Topic, p.hdr.ConsumerGroup, p.hdr.QueueID, p.hdr.QueueOffset)
	if reset, ok := h.b.offsets.takeReset(p.hdr.Topic, p.hdr.ConsumerGroup, p.hdr.QueueID); ok {
		p.get.Range(h.b.store.Queue(p.hdr.Topic, p.hdr.QueueID))
		h.replyPull(c, remoting.RespPullOffsetMoved, "the offset was reset by an administrator", reset, nil)
		return
	}
	q := h.b.store.Queue(p.hdr.Topic, p.hdr.QueueID)
	p.limits()
	err := p.get.Do(h.b.store, q, p.hdr.QueueOffset, int(p.hdr.MaxMsgNums), false)
	if err == nil && p.shouldHold() {
		h.hold(c, q, now)
		return
	}
	h.answerPull(c, err, now)
}

// pullOfNewGroup makes the group of a pull and waits until it is saved; then the pull runs again on its reactor, where it can be held.
func (h *handler) pullOfNewGroup(c *netpath.Conn, frame []byte) {
	var cmd remoting.Command
	if err := cmd.Decode(frame); err != nil {
		c.Close(err)
		return
	}
	var hdr remoting.PullHeader
	err := hdr.Decode(&cmd)
	if err == nil {
		_, err = h.b.ensureGroup(hdr.ConsumerGroup)
	}
	if err != nil {
		h.b.answer(c, &cmd, failed(err))
		return
	}
	again := func() {
		if !c.Closed() {
			h.OnFrame(c, frame)
		}
	}
	if !h.reactor.Post(again) {
		h.b.answer(c, &cmd, refused(remoting.RespSystemBusy, laneOverload))
	}
}

// answerPull answers with what get found; err is get's.
func (h *handler) answerPull(c *netpath.Conn, err error, now netpath.Clock) {
	p := &h.pull
	switch {
	case errors.Is(err, ioengine.ErrCold):
		h.toLane(c, laneCold, h.b.pullSlowly)
	case err != nil:
		h.replyError(c, err)
	case p.get.Status == store.GetFound:
		if !h.sendFound(c) {
			h.pullCold(c, now)
			return
		}
		p.count(cmp.Or(p.loadedSince, now.MonoNanos))
	default:
		code := pullCode(p.get.Status, p.hdr.QueueOffset)
		h.replyPull(c, code, p.remark(), p.get.Next, nil)
	}
}

func (p *puller) remark() string { return pullRemarks[p.get.Status] }

// pullRemarks are the remarks by status, made once: consumers that wait ask for nothing new all the time.
var pullRemarks = func() (list [store.GetNoMatchedLogicQueue + 1]string) {
	for s := range list {
		list[s] = "store getMessage return: " + store.GetStatus(s).String()
	}
	return list
}()

func (h *handler) toLane(c *netpath.Conn, lane laneID, run func(*netpath.Conn, []byte)) {
	if !h.b.lanes[lane].Submit(c, h.cmd.Frame(), run) {
		h.reply(c, remoting.RespSystemBusy, laneOverload)
	}
}

// check checks a pull in the original's order and finds its filter. forbidden is the ForbiddenType of the answer, 0 for none.
func (p *puller) check(cmd *remoting.Command, c *netpath.Conn) (v verdict, forbidden int) {
	b, hdr := p.b, &p.hdr
	cfg := b.cfg.Load()
	if cfg.BrokerPermission&remoting.PermRead == 0 {
		return verdict{remoting.RespNoPermission, "the broker[" + cfg.BrokerIP1 + "] pulling message is forbidden"}, forbiddenBroker
	}
	if cmd.Code == remoting.ReqLitePullMessage && !cfg.LitePullMessageEnable {
		return verdict{remoting.RespNoPermission, "the broker[" + cfg.BrokerIP1 + "] for lite pull consumer is forbidden"}, forbiddenBroker
	}
	// Most pulls are of the group and topic of the one before.
	if g := p.group; g == nil || g.Name != string(hdr.ConsumerGroup) || g.deleted.Load() {
		p.group = b.groups.lookup(hdr.ConsumerGroup)
	}
	if p.group == nil {
		if cfg.AutoCreateSubscriptionGroup && message.CheckGroup(hdr.ConsumerGroup) == "" {
			return verdict{code: sendWaits}, 0
		}
		return verdict{remoting.RespSubscriptionGroupNotExist, "subscription group [" + string(hdr.ConsumerGroup) + "] does not exist, " + faq}, 0
	}
	gc := p.group.config.Load()
	if !gc.ConsumeEnable {
		return verdict{remoting.RespNoPermission, "subscription group no permission, " + string(hdr.ConsumerGroup)}, forbiddenGroup
	}
	if t := p.topic; t == nil || t.Name != string(hdr.Topic) || t.deleted.Load() {
		p.topic = b.topics.lookup(hdr.Topic)
	}
	if p.topic == nil {
		return verdict{remoting.RespTopicNotExist, "topic[" + string(hdr.Topic) + "] not exist, apply first please! " + faq}, 0
	}
	tc := p.topic.config.Load()
	if tc.Perm&remoting.PermRead == 0 {
		return verdict{remoting.RespNoPermission, "the topic[" + tc.TopicName + "] pulling message is forbidden"}, forbiddenTopic
	}
	if hdr.QueueID < 0 || hdr.QueueID >= tc.ReadQueueNums {
		return verdict{remoting.RespInvalidParameter, fmt.Sprintf("queueId[%d] is illegal, topic:[%s] topicConfig.readQueueNums:[%d] consumer:[%s]",
			hdr.QueueID, tc.TopicName, tc.ReadQueueNums, c.Remote)}, 0
	}
	if hdr.MaxMsgNums <= 0 {
		return verdict{remoting.RespInvalidParameter, "maxMsgNums must be more than 0, it is " + strconv.Itoa(int(hdr.MaxMsgNums))}, 0
	}
	return p.checkSubscription(gc)
}

const faq = "see https://rocketmq.apache.org/docs/bestPractice/06FAQ"

// Values of forbiddenType in the answer to a pull (ForbiddenType).
const (
	forbiddenBroker       = 1
	forbiddenGroup        = 2
	forbiddenTopic        = 3
	forbiddenBroadcast    = 4
	forbiddenSubscription = 5
)

// checkSubscription finds the filter: in the request, or in what the group's heartbeats told.
func (p *puller) checkSubscription(gc *remoting.SubscriptionGroupConfig) (verdict, int) {
	b, hdr := p.b, &p.hdr
	if hdr.SysFlag&remoting.PullSubscription != 0 {
		if !isTagExpression(hdr.ExpressionType) {
			return sqlRefused(), 0
		}
		p.codes = appendTagCodes(p.codes[:0], hdr.Subscription)
		return verdict{code: sendReady}, 0
	}
	group := b.clients.consumerGroup(hdr.ConsumerGroup)
	if group == nil {
		return verdict{remoting.RespSubscriptionNotExist, "the consumer's group info not exist" + faq}, 0
	}
	if !gc.ConsumeBroadcastEnable && group.isBroadcasting() {
		return verdict{remoting.RespNoPermission, "the consumer group[" + string(hdr.ConsumerGroup) + "] can not consume by broadcast way"}, forbiddenBroadcast
	}
	if !b.groups.mayRead(hdr.ConsumerGroup, hdr.Topic) {
		return verdict{remoting.RespNoPermission, "the consumer group[" + string(hdr.ConsumerGroup) + "] is forbidden for topic[" + string(hdr.Topic) + "]"}, forbiddenSubscription
	}
	sub := group.subscription(hdr.Topic)
	if sub == nil {
		return verdict{remoting.RespSubscriptionNotExist, "the consumer's subscription not exist" + faq}, 0
	}
	if sub.version < hdr.SubVersion {
		return verdict{remoting.RespSubscriptionNotLatest, "the consumer's subscription not latest"}, 0
	}
	if !sub.isTag() {
		return sqlRefused(), 0
	}
	p.codes = append(p.codes[:0], sub.codes...)
	return verdict{code: sendReady}, 0
}

// appendTagCodes adds the hashes of the tags of an expression `a || b`; none means every message.
func appendTagCodes(dst []int32, expression []byte) []int32 {
	if len(expression) == 0 || string(expression) == remoting.SubscriptionAll {
		return dst
	}
	for len(expression) > 0 {
		tag := expression
		if at := bytes.Index(expression, []byte("||")); at >= 0 {
			tag, expression = expression[:at], expression[at+2:]
		} else {
			expression = nil
		}
		if tag = bytes.TrimSpace(tag); len(tag) > 0 {
			dst = append(dst, message.HashCode(tag))
		}
	}
	return dst
}

func isTagExpression(kind []byte) bool {
	return len(kind) == 0 || string(kind) == remoting.ExpressionTag
}

func sqlRefused() verdict {
	return verdict{remoting.RespSystemError, "The broker does not support consumer to filter message by SQL92"}
}

// limits sets what one answer may hold.
func (p *puller) limits() {
	cfg := p.b.cfg.Load()
	p.get.Codes = p.codes
	p.get.Limits = store.GetLimits{
		BytesInMemory: cfg.MaxTransferBytesOnMessageInMemory, CountInMemory: cfg.MaxTransferCountOnMessageInMemory,
		BytesOnDisk: cfg.MaxTransferBytesOnMessageInDisk, CountOnDisk: cfg.MaxTransferCountOnMessageInDisk,
		MemoryBytes: p.b.memoryBytes / 100 * int64(cfg.AccessMessageInMemoryMaxRatio), FilterBytes: cfg.MaxFilterMessageSize,
	}
}

// pullCode maps what the store found to the response code.
func pullCode(s store.GetStatus, offset int64) int32 {
	switch s {
	case store.GetFound:
		return remoting.RespSuccess
	case store.GetNoMatchedMessage, store.GetMessageWasRemoving:
		return remoting.RespPullRetryImmediately
	case store.GetOffsetOverflowOne:
		return remoting.RespPullNotFound
	case store.GetNoMessageInQueue, store.GetNoMatchedLogicQueue:
		if offset == 0 {
			return remoting.RespPullNotFound
		}
	}
	return remoting.RespPullOffsetMoved
}

// count adds an answered pull to the statistics. began is on the monotonic clock (ns).
func (p *puller) count(began int64) {
	gs := p.counters
	if gs == nil || gs.topic != p.topic.Name || gs.group != p.group.Name || gs.idle.dropped.Load() {
		gs = p.stats.stats.ofGroup(p.topic.Name, p.group.Name)
		p.counters = gs
	}
	p.stats.getTook(gs, p.hdr.QueueID, millisSince(began))
	p.stats.gotOf(gs, p.topic, p.get.Count, p.get.Bytes)
}

// pullHead writes everything of the answer but the records.
func (p *puller) pullHead(dst []byte, cmd *remoting.Command, code int32, remark string, next int64, forbidden int) remoting.Writer {
	w := remoting.Respond(dst, cmd, code, remark)
	w.Int("suggestWhichBrokerId", p.suggestedBroker())
	w.Int("nextBeginOffset", next)
	w.Int("minOffset", p.get.Min)
	w.Int("maxOffset", p.get.Max)
	if p.topic != nil && p.group != nil {
		w.Int("topicSysFlag", int64(p.topic.config.Load().TopicSysFlag))
		w.Int("groupSysFlag", int64(p.group.config.Load().GroupSysFlag))
	}
	if forbidden != 0 {
		w.Int("forbiddenType", int64(forbidden))
	}
	return w
}

// suggestedBroker is where to pull next: here, unless slaves may be read and this reader is far behind.
func (p *puller) suggestedBroker() int64 {
	if p.group == nil || !p.b.cfg.Load().SlaveReadEnable || p.get.Status != store.GetFound || len(p.get.Parts) == 0 {
		return remoting.MasterID
	}
	if p.b.store.Log().Published()-p.get.Parts[0].Off > p.get.Limits.MemoryBytes {
		return p.group.config.Load().WhichBrokerWhenConsumeSlowly
	}
	return p.group.config.Load().BrokerID
}

func (h *handler) replyPull(c *netpath.Conn, code int32, remark string, next int64, body []byte) {
	if h.cmd.IsOneway() {
		return
	}
	w := h.pull.pullHead(c.Begin(), &h.cmd, code, remark, next, 0)
	c.End(w.Finish(body))
}

func (h *handler) replyPullError(c *netpath.Conn, v verdict, forbidden int) {
	if h.cmd.IsOneway() {
		return
	}
	h.pull.get.Min, h.pull.get.Max = 0, 0
	w := h.pull.pullHead(c.Begin(), &h.cmd, v.code, v.remark, 0, forbidden)
	c.End(w.Finish(nil))
}

// pullHeadSize is more than the head of an answer to a pull takes.
const pullHeadSize = 1 << 10

// sendFound sends the records that get found. False: nothing was sent, because some of them are not in memory.
func (h *handler) sendFound(c *netpath.Conn) bool {
	if h.cmd.IsOneway() {
		return true
	}
	g := &h.pull.get
	blocks := h.b.store.Log().KeepsBlocks()
	if g.Bytes >= sendfileMin*len(g.Parts) && !blocks {
		if sent, inMemory := h.sendRanges(c); sent || !inMemory {
			return sent
		}
	}
	if blocks && g.Bytes >= borrowMin*len(g.Parts) && c.Borrows() && h.sendBlocks(c) {
		return true
	}
	start := c.BeginSize(g.Bytes + pullHeadSize)
	w := h.pull.pullHead(start, &h.cmd, remoting.RespSuccess, "", g.Next, 0)
	buf := slices.Grow(w.FinishHead(g.Bytes), g.Bytes)
	for _, part := range g.Parts {
		n := len(buf)
		buf = grow(buf, part.N)
		if err := h.b.store.Log().ReadNoWait(buf[n:], part.Off); err != nil {
			c.End(buf[:len(start)])
			return false
		}
	}
	c.End(buf)
	return true
}

// loan is what one answer borrows from the log.
type loan struct {
	commitlog.Loan
	h *handler
}

// Release is for the connection, when the answer has left.
func (ln *loan) Release() {
	ln.Loan.Release()
	ln.h.loans = append(ln.h.loans, ln)
}

// sendBlocks sends the parts from the log's blocks, where they all are there; else nothing was sent.
func (h *handler) sendBlocks(c *netpath.Conn) bool {
	if len(h.loans) == 0 {
		h.loans = append(h.loans, &loan{h: h})
	}
	n := len(h.loans) - 1
	ln := h.loans[n]
	h.loans = h.loans[:n]
	defer func() { clear(h.pieces) }()
	h.pieces = h.pieces[:0]
	for _, part := range h.pull.get.Parts {
		var there bool
		if h.pieces, there = ln.Add(h.b.store.Log(), h.pieces, part.Off, part.N); !there {
			ln.Release()
			return false
		}
	}
	w := h.pull.pullHead(c.Begin(), &h.cmd, remoting.RespSuccess, "", h.pull.get.Next, 0)
	c.End(w.FinishHead(h.pull.get.Bytes))
	last := len(h.pieces) - 1
	for _, piece := range h.pieces[:last] {
		c.Borrow(piece, nil)
	}
	c.Borrow(h.pieces[last], ln)
	return true
}

// sendRanges sends each part by sendfile, straight from the page cache. inMemory: one of them is not in its file yet, or there is no
// sendfile; then nothing was sent, and copying does it.
func (h *handler) sendRanges(c *netpath.Conn) (sent, inMemory bool) {
	g, log := &h.pull.get, h.b.store.Log()
	from, end, sparse := h.pull.span()
	there := h.pull.loadedSince != 0 // a moment ago
	if !there && !sparse && len(g.Parts) > 1 {
		if there = log.Resident(from, end); !there {
			return false, false
		}
	}
	for i, part := range g.Parts {
		r, err := log.Hold(part.Off, part.N)
		if err == nil && (r.Fd() < 0 || !there && !r.Resident()) {
			inMemory = r.Fd() < 0
			r.Release()
			err = ioengine.ErrCold
		}
		if err != nil {
			h.releaseRanges(i)
			return false, inMemory
		}
		h.ranges = append(h.ranges, r)
	}
	w := h.pull.pullHead(c.Begin(), &h.cmd, remoting.RespSuccess, "", g.Next, 0)
	c.End(w.FinishHead(g.Bytes))
	for _, r := range h.ranges {
		c.SendFile(r.Fd(), r.Off, r.N, r.Releaser())
	}
	h.ranges = h.ranges[:0]
	return true, false
}

func (h *handler) releaseRanges(n int) {
	for _, r := range h.ranges[:n] {
		r.Release()
	}
	h.ranges = h.ranges[:0]
}

// grow lengthens b by n bytes of whatever content.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(b, make([]byte, n)...)
		return b
	}
	return b[:len(b)+n]
}
