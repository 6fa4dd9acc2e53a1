package broker

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/remoting"
)

const (
	// maxOffsetPairs bounds the pairs of topic and group with offsets. A commit for one more is refused with SYSTEM_ERROR.
	maxOffsetPairs = 1 << 20
	// offsetVersionStep is how many commits make a new data version (consumerOffsetUpdateVersionStep).
	offsetVersionStep = 500
)

// commitResult is what became of a commit.
type commitResult uint8

const (
	commitStored  commitResult = iota
	commitPending              // ignored: a reset waits for the next pull of that queue. The answer is SUCCESS with resetRemark.
	commitRefused              // the queue number is out of range, or the table is full. The answer is SYSTEM_ERROR.
)

// resetRemark is what Java answers to a commit while a reset is pending.
const resetRemark = "Offset has been previously reset"

// consumerOffsets is how far each group has consumed each queue, kept in consumerOffset.json. Does the work of ConsumerOffsetManager.
//
// A commit locks its pair of topic and group only, and allocates nothing when pair and queue are there.
type consumerOffsets struct {
	pairs   nameTable[groupOffsets] // by topic@group
	saver   *saver
	log     *slog.Logger
	now     func() int64 // wall clock, milliseconds since 1970
	commits atomic.Int64 // since the start

	mu      sync.Mutex
	version remoting.DataVersion
}

// groupOffsets are the offsets of one group in one topic.
type groupOffsets struct {
	topic, group string

	mu     sync.Mutex
	queues map[int32]queuePosition
}

// queuePosition is where a group is in one queue.
type queuePosition struct {
	committed int64 // next offset to consume
	pulled    int64 // next offset to pull; for display
	reset     int64 // where the next pull is to go
	has       uint8 // which of the three there are
}

const (
	hasCommitted uint8 = 1 << iota
	hasPulled
	hasReset
)

// offsetFile is consumerOffset.json. Java forgets pending resets at a restart; ours come back from resetOffsetTable.
type offsetFile struct {
	DataVersion      remoting.DataVersion       `json:"dataVersion"`
	OffsetTable      map[string]map[int32]int64 `json:"offsetTable"`
	PullOffsetTable  map[string]map[int32]int64 `json:"pullOffsetTable"`
	ResetOffsetTable map[string]map[int32]int64 `json:"resetOffsetTable"`
}

// openOffsets loads consumerOffset.json from dir.
func openOffsets(fsys ioengine.FS, dir string, cfg *config.Broker, now func() int64, log *slog.Logger) (*consumerOffsets, error) {
	file, err := ioengine.OpenMetadata(fsys, dir, "consumerOffset.json", log)
	if err != nil {
		return nil, err
	}
	o := &consumerOffsets{log: log, now: now}
	o.pairs.limit = maxOffsetPairs
	o.saver = newSaver(file, log, time.Duration(cfg.FlushConsumerOffsetInterval)*time.Millisecond, o.encode)
	var saved offsetFile
	if _, err := file.Load(cfg.AcceptEmptyMetadata, func(text []byte) error {
		var latest offsetFile
		err := decodeMetadata(text, &latest)
		if err == nil {
			saved = latest
		}
		return err
	}); err != nil {
		return nil, err
	}
	o.version = saved.DataVersion
	if o.version == (remoting.DataVersion{}) {
		o.version.Timestamp = now()
	}
	for has, table := range map[uint8]map[string]map[int32]int64{
		hasCommitted: saved.OffsetTable, hasPulled: saved.PullOffsetTable, hasReset: saved.ResetOffsetTable,
	} {
		if err := o.restore(table, has); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *consumerOffsets) restore(table map[string]map[int32]int64, has uint8) error {
	for key, queues := range table {
		topic, group, ok := strings.Cut(key, "@")
		if !ok || topic == "" || group == "" || strings.Contains(group, "@") {
			o.log.Warn("consumerOffset.json: left out offsets whose key is not topic@group", "key", key)
			continue
		}
		pair := o.pair(topic, group)
		if pair == nil {
			return fmt.Errorf("consumerOffset.json holds more than %d pairs of topic and group", maxOffsetPairs)
		}
		for queueID, offset := range queues {
			if pair.set(queueID, offset, has) == commitRefused {
				o.log.Warn("consumerOffset.json: left out an impossible queue", "topic", topic, "group", group, "queueId", queueID)
			}
		}
	}
	return nil
}

// maxPairKey holds topic@group of names of every length that is allowed, on the stack.
const maxPairKey = 512

func appendPairKey[T string | []byte](dst []byte, topic, group T) []byte {
	dst = append(dst, topic...)
	dst = append(dst, '@')
	return append(dst, group...)
}

// lookup is nil when the group has no offset in the topic.
func (o *consumerOffsets) lookup(topic, group []byte) *groupOffsets {
	var buf [maxPairKey]byte
	return o.pairs.get(appendPairKey(buf[:0], topic, group))
}

// pair makes the entry where there is none; nil when the table is full.
func (o *consumerOffsets) pair(topic, group string) *groupOffsets {
	p, _ := o.pairs.getOrAdd(topic+"@"+group, func() *groupOffsets {
		return &groupOffsets{topic: topic, group: group, queues: map[int32]queuePosition{}}
	})
	return p
}

// commit stores an offset, whatever it is, also a smaller one. Topic and group must have been checked. No error is told to anybody when the
// queue does not exist: Java accepts that, too.
func (o *consumerOffsets) commit(topic, group []byte, queueID int32, offset int64) commitResult {
	p := o.lookup(topic, group)
	if p == nil {
		if p = o.pair(string(topic), string(group)); p == nil {
			return commitRefused
		}
	}
	result, changed := p.commit(queueID, offset)
	if result == commitStored && o.commits.Add(1)%offsetVersionStep == 0 {
		o.nextVersion()
	}
	if changed {
		o.saver.markDirty()
	}
	return result
}

func (o *consumerOffsets) nextVersion() {
	o.mu.Lock()
	o.version = o.version.Next(0, o.now())
	o.mu.Unlock()
}

func (p *groupOffsets) commit(queueID int32, offset int64) (result commitResult, changed bool) {
	if queueID < 0 || queueID >= maxTopicQueues {
		return commitRefused, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[queueID]
	if q.has&hasReset != 0 {
		return commitPending, false
	}
	if q.has&hasCommitted != 0 && q.committed == offset {
		return commitStored, false
	}
	q.committed = offset
	q.has |= hasCommitted
	p.queues[queueID] = q
	return commitStored, true
}

// set stores one of the three numbers of a queue.
func (p *groupOffsets) set(queueID int32, offset int64, has uint8) commitResult {
	if queueID < 0 || queueID >= maxTopicQueues {
		return commitRefused
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[queueID]
	switch has {
	case hasCommitted:
		q.committed = offset
	case hasPulled:
		q.pulled = offset
	case hasReset:
		q.reset = offset
	}
	q.has |= has
	p.queues[queueID] = q
	return commitStored
}

// commitPull notes how far a group has pulled.
func (o *consumerOffsets) commitPull(topic, group []byte, queueID int32, offset int64) {
	p := o.lookup(topic, group)
	if p == nil {
		if p = o.pair(string(topic), string(group)); p == nil {
			return
		}
	}
	p.set(queueID, offset, hasPulled)
}

func (o *consumerOffsets) position(topic, group []byte, queueID int32) queuePosition {
	p := o.lookup(topic, group)
	if p == nil {
		return queuePosition{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[queueID]
}

// query is where the group stands: a pending reset, else what was committed. False when it has committed nothing.
func (o *consumerOffsets) query(topic, group []byte, queueID int32) (offset int64, ok bool) {
	q := o.position(topic, group, queueID)
	if q.has&hasReset != 0 {
		return q.reset, true
	}
	return q.committed, q.has&hasCommitted != 0
}

// queryPull is how far the group has pulled; as query when it has not since the start.
func (o *consumerOffsets) queryPull(topic, group []byte, queueID int32) (offset int64, ok bool) {
	q := o.position(topic, group, queueID)
	switch {
	case q.has&hasPulled != 0:
		return q.pulled, true
	case q.has&hasReset != 0:
		return q.reset, true
	}
	return q.committed, q.has&hasCommitted != 0
}

// takeReset answers a pending reset once and forgets it. The pull that gets it must not commit the offset of its own header after.
func (o *consumerOffsets) takeReset(topic, group []byte, queueID int32) (offset int64, ok bool) {
	p := o.lookup(topic, group)
	if p == nil {
		return 0, false
	}
	p.mu.Lock()
	q := p.queues[queueID]
	if q.has&hasReset == 0 {
		p.mu.Unlock()
		return 0, false
	}
	offset = q.reset
	q.has &^= hasReset
	p.queues[queueID] = q
	p.mu.Unlock()
	o.saver.markDirty()
	return offset, true
}

// assignReset makes the next pull of the queue go to offset. It also becomes the committed offset, for members that ask before they pull.
func (o *consumerOffsets) assignReset(topic, group string, queueID int32, offset int64) (generation uint64, result commitResult) {
	if offset < 0 || topic == "" || group == "" {
		return 0, commitRefused
	}
	p := o.pair(topic, group)
	if p == nil || p.set(queueID, offset, hasCommitted) == commitRefused {
		return 0, commitRefused
	}
	p.set(queueID, offset, hasReset)
	o.log.Info("offset reset", "topic", topic, "group", group, "queueId", queueID, "offset", offset)
	return o.saver.markDirty(), commitStored
}

// committed are the offsets of a group in a topic, nil when there are none.
func (o *consumerOffsets) committed(topic, group string) map[int32]int64 {
	p := o.pairs.find(topic + "@" + group)
	if p == nil {
		return nil
	}
	return p.table(hasCommitted)
}

// table copies one of the three numbers of each queue that has it; nil when none has.
func (p *groupOffsets) table(has uint8) map[int32]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var table map[int32]int64
	for queueID, q := range p.queues {
		if q.has&has == 0 {
			continue
		}
		if table == nil {
			table = map[int32]int64{}
		}
		table[queueID] = q.number(has)
	}
	return table
}

func (q queuePosition) number(has uint8) int64 {
	switch has {
	case hasPulled:
		return q.pulled
	case hasReset:
		return q.reset
	}
	return q.committed
}

func (p *groupOffsets) hasAny(has uint8) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.queues {
		if q.has&has != 0 {
			return true
		}
	}
	return false
}

// deleteTopic forgets what all groups have consumed of a topic.
func (o *consumerOffsets) deleteTopic(topic string) (generation uint64) {
	return o.removeIf(func(p *groupOffsets) bool { return p.topic == topic })
}

// deleteGroup forgets what a group has consumed.
func (o *consumerOffsets) deleteGroup(group string) (generation uint64) {
	return o.removeIf(func(p *groupOffsets) bool { return p.group == group })
}

func (o *consumerOffsets) removeIf(unwanted func(*groupOffsets) bool) (generation uint64) {
	for _, p := range o.pairs.all() {
		if unwanted(p) && o.pairs.remove(p.topic+"@"+p.group) != nil {
			o.log.Info("offsets deleted", "topic", p.topic, "group", p.group)
			generation = o.saver.markDirty()
		}
	}
	return generation
}

// clone gives one group another's offsets in a topic, in place of its own.
func (o *consumerOffsets) clone(from, to, topic string) (generation uint64) {
	source := o.committed(topic, from)
	if source == nil {
		return 0
	}
	p := o.pair(topic, to)
	if p == nil {
		return 0
	}
	p.mu.Lock()
	p.queues = map[int32]queuePosition{}
	for queueID, offset := range source {
		p.queues[queueID] = queuePosition{committed: offset, has: hasCommitted}
	}
	p.mu.Unlock()
	return o.saver.markDirty()
}

// topicsOf are the topics in which a group has committed offsets.
func (o *consumerOffsets) topicsOf(group string) (list []string) {
	for _, p := range o.pairs.all() {
		if p.group == group && p.hasAny(hasCommitted) {
			list = append(list, p.topic)
		}
	}
	slices.Sort(list)
	return list
}

// topicsByGroup are, for each group, the topics in which it has committed offsets.
func (o *consumerOffsets) topicsByGroup() map[string][]string {
	topics := map[string][]string{}
	for _, p := range o.pairs.all() {
		if p.hasAny(hasCommitted) {
			topics[p.group] = append(topics[p.group], p.topic)
		}
	}
	for _, list := range topics {
		slices.Sort(list)
	}
	return topics
}

// groupsOf are the groups that have committed offsets in a topic.
func (o *consumerOffsets) groupsOf(topic string) (list []string) {
	for _, p := range o.pairs.all() {
		if p.topic == topic && p.hasAny(hasCommitted) {
			list = append(list, p.group)
		}
	}
	slices.Sort(list)
	return list
}

// corrections is request 308: for each queue of a topic the smallest committed offset of all groups but the filtered ones, among those that
// are not below the queue's smallest. Where compareGroup is behind that, the answer is the largest number. (Java also deletes the filtered
// groups' offsets; ours does not.)
func (o *consumerOffsets) corrections(topic string, filtered []string, compareGroup string, minInStore func(queueID int32) int64) map[int32]int64 {
	smallest := map[int32]int64{}
	for _, p := range o.pairs.all() {
		if p.topic != topic || slices.Contains(filtered, p.group) {
			continue
		}
		for queueID, offset := range p.table(hasCommitted) {
			if offset < minInStore(queueID) {
				continue
			}
			if old, ok := smallest[queueID]; !ok || offset < old {
				smallest[queueID] = offset
			}
		}
	}
	for queueID, offset := range o.committed(topic, compareGroup) {
		if least, ok := smallest[queueID]; ok && least > offset {
			smallest[queueID] = math.MaxInt64
		}
	}
	return smallest
}

// snapshot is the answer to request 43.
func (o *consumerOffsets) snapshot() remoting.ConsumerOffsetTable {
	t := remoting.ConsumerOffsetTable{
		DataVersion: o.dataVersion(), GroupTopicMap: o.topicsByGroup(),
		OffsetTable: map[string]map[int32]int64{}, PullOffsetTable: map[string]map[int32]int64{},
	}
	for _, p := range o.pairs.all() {
		key := p.topic + "@" + p.group
		if committed := p.table(hasCommitted); committed != nil {
			t.OffsetTable[key] = committed
		}
		if pulled := p.table(hasPulled); pulled != nil {
			t.PullOffsetTable[key] = pulled
		}
	}
	return t
}

func (o *consumerOffsets) dataVersion() remoting.DataVersion {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.version
}

// encode writes the file by hand: it may have millions of numbers.
func (o *consumerOffsets) encode() []byte {
	pairs := o.pairs.all()
	slices.SortFunc(pairs, func(a, b *groupOffsets) int {
		if c := strings.Compare(a.group, b.group); c != 0 {
			return c
		}
		return strings.Compare(a.topic, b.topic)
	})
	dst := append(make([]byte, 0, 64*len(pairs)+256), `{"dataVersion":`...)
	dst = append(dst, remoting.EncodeBody(o.dataVersion())...)
	dst = append(dst, `,"groupTopicMap":{`...)
	dst = appendGroupTopics(dst, pairs)
	dst = append(dst, `},"offsetTable":{`...)
	dst = appendOffsets(dst, pairs, hasCommitted)
	dst = append(dst, `},"pullOffsetTable":{`...)
	dst = appendOffsets(dst, pairs, hasPulled)
	dst = append(dst, `},"resetOffsetTable":{`...)
	dst = appendOffsets(dst, pairs, hasReset)
	return append(dst, "}}"...)
}

func appendGroupTopics(dst []byte, pairs []*groupOffsets) []byte {
	group, open := "", false
	for _, p := range pairs {
		if !p.hasAny(hasCommitted) {
			continue
		}
		switch {
		case open && p.group == group:
			dst = append(dst, ',')
		case open:
			dst = append(dst, "],"...)
			fallthrough
		default:
			dst = append(appendJSONText(dst, p.group), ":["...)
			group, open = p.group, true
		}
		dst = appendJSONText(dst, p.topic)
	}
	if open {
		dst = append(dst, ']')
	}
	return dst
}

func appendOffsets(dst []byte, pairs []*groupOffsets, has uint8) []byte {
	first := true
	for _, p := range pairs {
		table := p.table(has)
		if table == nil {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendJSONText(dst, p.topic+"@"+p.group), ":{"...)
		for i, queueID := range slices.Sorted(maps.Keys(table)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, '"')
			dst = strconv.AppendInt(dst, int64(queueID), 10)
			dst = append(dst, '"', ':')
			dst = strconv.AppendInt(dst, table[queueID], 10)
		}
		dst = append(dst, '}')
	}
	return dst
}

func appendJSONText(dst []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic("BUG: a string cannot be written as JSON: " + err.Error())
	}
	return append(dst, quoted...)
}
