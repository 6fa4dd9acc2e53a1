package broker

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Limits of the topic table. More topics are refused with SYSTEM_ERROR, more queues with INVALID_PARAMETER.
const (
	maxTopics      = 1_000_000
	maxTopicQueues = 65_536
)

// Queues of the system topics.
const (
	benchmarkQueues = 1024
	scheduleQueues  = 18
	reviveQueues    = 8
)

const dlqPerm = remoting.PermRead | remoting.PermWrite

// tableError is a request that a table refuses: the response code and the remark, in RocketMQ's words.
type tableError struct {
	Code   int32
	Remark string
}

func (e *tableError) Error() string { return e.Remark }

func refuse(code int32, format string, args ...any) error {
	return &tableError{code, fmt.Sprintf(format, args...)}
}

// Topic is one topic of this broker. Holders may keep the pointer; after a deletion deleted is set, and a topic that is created again
// under the same name is another Topic.
type Topic struct {
	Name    string
	system  bool                                 // the broker's own, by name
	config  atomic.Pointer[remoting.TopicConfig] // never nil, never changed once stored; topics swaps it
	stats   atomic.Pointer[topicStats]           // see brokerStats.ofTopic
	deleted atomic.Bool
}

// topics is the table of topics, kept in topics.json. Does the work of TopicConfigManager.
//
// Lookups take no lock. Changes are made one at a time under mu, and each bumps the data version, marks the file dirty and, after mu is
// released, calls changed.
type topics struct {
	table   nameTable[Topic]
	system  map[string]bool // names that this broker reserves besides RocketMQ's; fixed after open
	saver   *saver
	log     *slog.Logger
	now     func() int64 // wall clock, milliseconds since 1970
	changed func(*Topic) // told of a topic that is new or different, to register it; set before the first request, must not wait

	mu      sync.Mutex
	version remoting.DataVersion
}

// openTopics loads topics.json from dir and adds the system topics. What the file says of a system topic counts.
func openTopics(fsys ioengine.FS, dir string, cfg *config.Broker, now func() int64, log *slog.Logger) (*topics, error) {
	file, err := ioengine.OpenMetadata(fsys, dir, "topics.json", log)
	if err != nil {
		return nil, err
	}
	t := &topics{system: map[string]bool{}, log: log, now: now, changed: func(*Topic) {}}
	t.table.limit = maxTopics
	t.saver = newSaver(file, log, 0, func() []byte { return remoting.EncodeBody(t.snapshot()) })
	var saved remoting.TopicConfigTable
	if _, err := file.Load(cfg.AcceptEmptyMetadata, func(text []byte) error {
		var latest remoting.TopicConfigTable
		err := decodeMetadata(text, &latest)
		if err == nil {
			saved = latest
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, c := range systemTopicConfigs(cfg) {
		t.system[c.TopicName] = true
		if _, ok := saved.TopicConfigTable[c.TopicName]; !ok {
			t.add(c)
		}
	}
	t.version = saved.DataVersion
	if t.version == (remoting.DataVersion{}) {
		t.version.Timestamp = now()
	}
	for name, c := range saved.TopicConfigTable {
		if name == "" {
			continue
		}
		c.TopicName = name
		if t.add(c) == nil {
			return nil, fmt.Errorf("topics.json holds more than %d topics", maxTopics)
		}
	}
	return t, nil
}

// systemTopicConfigs lists the topics that exist from the start.
func systemTopicConfigs(cfg *config.Broker) []remoting.TopicConfig {
	const readWrite = remoting.PermRead | remoting.PermWrite
	var list []remoting.TopicConfig
	add := func(name string, queues, perm int32) {
		c := remoting.NewTopicConfig(name)
		c.ReadQueueNums, c.WriteQueueNums, c.Perm = queues, queues, perm
		list = append(list, c)
	}
	shared := func(writable bool) int32 {
		if writable {
			return remoting.PermInherit | readWrite
		}
		return remoting.PermInherit
	}
	add(message.SelfTestTopic, 1, readWrite)
	if cfg.AutoCreateTopicEnable {
		add(message.AutoCreateTopic, int32(cfg.DefaultTopicQueueNums), shared(true))
	}
	add(message.BenchmarkTopic, benchmarkQueues, readWrite)
	add(cfg.BrokerClusterName, 16, shared(cfg.ClusterTopicEnable))
	add(cfg.BrokerName, 1, shared(cfg.BrokerTopicEnable))
	add(message.OffsetMovedTopic, 1, readWrite)
	add(message.ScheduleTopic, scheduleQueues, readWrite)
	if cfg.TraceTopicEnable {
		add(cfg.MsgTraceTopicName, 1, readWrite)
	}
	add(cfg.BrokerClusterName+"_"+message.ReplyTopicSuffix, 1, readWrite)
	add(message.SystemTopicPrefix+"REVIVE_LOG_"+cfg.BrokerClusterName, reviveQueues, readWrite)
	add(message.SystemTopicPrefix+"SYNC_BROKER_MEMBER_"+cfg.BrokerName, 1, remoting.PermInherit)
	add(message.HalfTopic, 1, readWrite)
	add(message.OpHalfTopic, 1, readWrite)
	add(message.RocksDBHalfTopic, 1, readWrite)
	add(message.RocksDBOpHalfTopic, 1, readWrite)
	add(message.WheelTimerTopic, 1, readWrite)
	return list
}

// add puts a topic into the table, or, where the name is taken (cluster and broker may have the same), replaces its values. Nil when full.
func (t *topics) add(c remoting.TopicConfig) *Topic {
	topic, added := t.table.getOrAdd(c.TopicName, func() *Topic {
		topic := &Topic{Name: c.TopicName, system: t.isSystem(c.TopicName)}
		topic.config.Store(&c)
		return topic
	})
	if topic != nil && !added {
		topic.config.Store(&c)
	}
	return topic
}

// lookup is nil for a topic that is not here.
func (t *topics) lookup(name []byte) *Topic { return t.table.get(name) }

// find is lookup for admin handlers.
func (t *topics) find(name string) *Topic { return t.table.find(name) }

// isSystem tells whether the broker reserves the name for itself.
func (t *topics) isSystem(name string) bool { return message.IsSystemTopic(name) || t.system[name] }

// count is the number of topics as RocketMQ counts them: queues of a topic's children (LMQ) are none.
func (t *topics) count() (n int) {
	for _, topic := range t.table.all() {
		if !strings.HasPrefix(topic.Name, message.LMQPrefix) {
			n++
		}
	}
	return n
}

func (t *topics) dataVersion() remoting.DataVersion {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version
}

// touchLocked is called after each change.
func (t *topics) touchLocked() (generation uint64) {
	t.version = t.version.Next(0, t.now())
	return t.saver.markDirty()
}

// waitSaved waits until the change with this generation is durable; 0 needs no waiting.
func (t *topics) waitSaved(generation uint64, timeout time.Duration) error {
	return t.saver.waitSaved(generation, timeout)
}

// createInSend makes the topic that a message asks for, from the default topic that its producer names (TBW102, nearly always). Nil without
// an error: that default topic does not exist or nobody may inherit from it; the answer is TOPIC_NOT_EXIST.
func (t *topics) createInSend(cfg *config.Broker, name, defaultTopic []byte, queueNums, sysFlag int32, addr netip.AddrPort) (*Topic, uint64, error) {
	parent := t.lookup(defaultTopic)
	if parent == nil {
		return nil, 0, nil
	}
	t.mu.Lock()
	if topic := t.lookup(name); topic != nil {
		t.mu.Unlock()
		return topic, 0, nil
	}
	model := t.parentLocked(cfg, parent)
	if model.Perm&remoting.PermInherit == 0 {
		t.mu.Unlock()
		return nil, 0, nil
	}
	c := remoting.NewTopicConfig(string(name))
	c.WriteQueueNums = max(min(queueNums, model.WriteQueueNums), 0)
	c.ReadQueueNums = c.WriteQueueNums
	c.Perm = model.Perm &^ remoting.PermInherit
	c.TopicSysFlag = sysFlag
	c.TopicFilterType = model.TopicFilterType
	t.log.Info("topic created by a message", "topic", c.TopicName, "from", parent.Name, "queues", c.WriteQueueNums, "addr", addr)
	return t.createAndUnlock(c)
}

// parentLocked is the config of a default topic. TBW102 of an earlier run loses the inherit bit once autoCreateTopicEnable is off.
func (t *topics) parentLocked(cfg *config.Broker, parent *Topic) *remoting.TopicConfig {
	c := parent.config.Load()
	if parent.Name == message.AutoCreateTopic && !cfg.AutoCreateTopicEnable && c.Perm&remoting.PermInherit != 0 {
		closed := *c
		closed.Perm = remoting.PermRead | remoting.PermWrite
		parent.config.Store(&closed)
		return &closed
	}
	return c
}

// createAndUnlock adds a new topic and releases mu before it tells changed.
func (t *topics) createAndUnlock(c remoting.TopicConfig) (*Topic, uint64, error) {
	topic := t.add(c)
	if topic == nil {
		t.mu.Unlock()
		return nil, 0, refuse(remoting.RespSystemError, "the broker has %d topics and takes no more", maxTopics)
	}
	generation := t.touchLocked()
	t.mu.Unlock()
	t.changed(topic)
	return topic, generation, nil
}

// createSendBack makes the retry or dead letter topic of a group, or another topic that the broker needs for itself. Where it exists only its
// order flag is brought up to date. The name is not checked: the group's name has been.
func (t *topics) createSendBack(name string, queueNums, perm int32, order bool, sysFlag int32) (*Topic, uint64, error) {
	if topic := t.find(name); topic != nil && topic.config.Load().Order == order {
		return topic, 0, nil
	}
	if queueNums < 0 || queueNums > maxTopicQueues {
		return nil, 0, refuse(remoting.RespInvalidParameter, "%d queues for topic %s: not in 0..%d", queueNums, name, maxTopicQueues)
	}
	t.mu.Lock()
	if topic := t.find(name); topic != nil {
		c := *topic.config.Load()
		c.Order = order
		topic.config.Store(&c)
		generation := t.touchLocked()
		t.mu.Unlock()
		t.changed(topic)
		return topic, generation, nil
	}
	c := remoting.NewTopicConfig(name)
	c.ReadQueueNums, c.WriteQueueNums, c.Perm, c.Order, c.TopicSysFlag = queueNums, queueNums, perm, order, sysFlag
	t.log.Info("topic created", "topic", name, "queues", queueNums)
	return t.createAndUnlock(c)
}

// createDLQ makes the dead letter topic of a group: one queue, and tools may read it.
func (t *topics) createDLQ(group string) (*Topic, uint64, error) {
	return t.createSendBack(message.DLQTopic(group), 1, dlqPerm, false, 0)
}

// update makes or changes topics as requests 17 and 18 ask, all or none. The attributes of want are changes: keys with their sign, as
// parseAttributes gives them. What is already so is no change: generation 0.
func (t *topics) update(cfg *config.Broker, want ...remoting.TopicConfig) (generation uint64, err error) {
	for i := range want {
		if err := t.checkUpdate(cfg, &want[i]); err != nil {
			return 0, err
		}
	}
	t.mu.Lock()
	final, err := t.alteredLocked(want)
	var updated []*Topic
	for i := range final {
		old := t.find(final[i].TopicName)
		if old != nil && sameTopicConfig(old.config.Load(), &final[i]) {
			continue
		}
		topic := t.add(final[i])
		if topic == nil {
			err = refuse(remoting.RespSystemError, "the broker has %d topics and takes no more", maxTopics)
			break
		}
		generation = t.touchLocked()
		updated = append(updated, topic)
	}
	t.mu.Unlock()
	for _, topic := range updated {
		c := topic.config.Load()
		t.log.Info("topic set", "topic", topic.Name, "perm", c.Perm, "readQueueNums", c.ReadQueueNums, "writeQueueNums", c.WriteQueueNums,
			"order", c.Order, "attributes", c.Attributes)
		t.changed(topic)
	}
	return generation, err
}

// alteredLocked works out what the topics will be, without changing anything.
func (t *topics) alteredLocked(want []remoting.TopicConfig) ([]remoting.TopicConfig, error) {
	final := make([]remoting.TopicConfig, len(want))
	for i, c := range want {
		var current map[string]string
		old := t.find(c.TopicName)
		if old != nil {
			current = old.config.Load().Attributes
		}
		attributes, err := alterAttributes(old == nil, topicAttributes, current, c.Attributes)
		if err != nil {
			return nil, refuse(remoting.RespSystemError, "%s", err)
		}
		c.Attributes = attributes
		final[i] = c
	}
	return final, nil
}

func sameTopicConfig(a, b *remoting.TopicConfig) bool {
	return a.TopicName == b.TopicName && a.Order == b.Order && a.Perm == b.Perm && a.TopicSysFlag == b.TopicSysFlag &&
		a.ReadQueueNums == b.ReadQueueNums && a.WriteQueueNums == b.WriteQueueNums && a.TopicFilterType == b.TopicFilterType &&
		maps.Equal(a.Attributes, b.Attributes)
}

func (t *topics) checkUpdate(cfg *config.Broker, c *remoting.TopicConfig) error {
	if remark := message.CheckTopic([]byte(c.TopicName)); remark != "" {
		return &tableError{remoting.RespInvalidParameter, remark}
	}
	if err := t.checkNotSystem(cfg, c.TopicName); err != nil {
		return err
	}
	if !cfg.EnableMixedMessageType && c.Attributes["+"+attributeMessageType] == messageTypeMixed {
		return refuse(remoting.RespInvalidParameter, "MIXED message type is not supported.")
	}
	for _, n := range []int32{c.ReadQueueNums, c.WriteQueueNums} {
		if n < 0 || n > maxTopicQueues {
			return refuse(remoting.RespInvalidParameter, "%d queues for topic %s: not in 0..%d", n, c.TopicName, maxTopicQueues)
		}
	}
	return nil
}

func (t *topics) checkNotSystem(cfg *config.Broker, name string) error {
	if cfg.ValidateSystemTopicWhenUpdateTopic && t.isSystem(name) {
		return refuse(remoting.RespInvalidParameter, "The topic[%s] is conflict with system topic.", name)
	}
	return nil
}

// checkDelete says why request 215 may not delete the topic. A topic that is not here may be deleted.
func (t *topics) checkDelete(cfg *config.Broker, name string) error {
	if strings.TrimSpace(name) == "" {
		return refuse(remoting.RespInvalidParameter, "The specified topic is blank.")
	}
	return t.checkNotSystem(cfg, name)
}

// popRetryTopics lists the retry topics that POP made for the topic and these groups.
func (t *topics) popRetryTopics(name string, groups []string) (list []string) {
	for _, group := range groups {
		for _, separator := range []string{"_", "+"} {
			if retry := message.RetryTopicPrefix + group + separator + name; t.find(retry) != nil {
				list = append(list, retry)
			}
		}
	}
	return list
}

// delete takes a topic out of the table and returns it, nil when it was not here. Its offsets and statistics are the caller's. deleteQueues
// runs before the topic can be made again: a new topic never gets the queues of the old one, and its messages don't go with them. When it
// fails the topic is deleted nevertheless.
func (t *topics) delete(name string, deleteQueues func(name string) error) (topic *Topic, generation uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	topic = t.table.remove(name)
	if topic == nil {
		return nil, 0, nil
	}
	topic.deleted.Store(true)
	t.log.Info("topic deleted", "topic", name)
	err = deleteQueues(name)
	return topic, t.touchLocked(), err
}

// whileAbsent runs work while no topic of that name can be made; it does nothing when there is one.
func (t *topics) whileAbsent(name string, work func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.find(name) != nil {
		return nil
	}
	return work()
}

// touch makes the name servers take everything anew, for a change that masks all topics.
func (t *topics) touch() (generation uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.touchLocked()
}

// markOrdered sets the order flag of topics that the name servers keep as globally ordered.
func (t *topics) markOrdered(names []string) (generation uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	any := false
	for _, name := range names {
		topic := t.find(name)
		if topic == nil || topic.config.Load().Order {
			continue
		}
		c := *topic.config.Load()
		c.Order = true
		topic.config.Store(&c)
		any = true
	}
	if !any {
		return 0
	}
	return t.touchLocked()
}

// snapshot is the whole table, as it is saved and registered.
func (t *topics) snapshot() remoting.TopicConfigTable {
	t.mu.Lock()
	defer t.mu.Unlock()
	table := map[string]remoting.TopicConfig{}
	for _, topic := range t.table.all() {
		table[topic.Name] = *topic.config.Load()
	}
	return remoting.TopicConfigTable{DataVersion: t.version, TopicConfigTable: table}
}

// page is a part of the table in the order of the names, for request 21: up to most topics from the seq-th on. A caller whose version (JSON)
// is not ours begins again at the first.
func (t *topics) page(version string, seq, most int) (page remoting.TopicConfigTable, total int) {
	page = t.snapshot()
	total = len(page.TopicConfigTable)
	page.TopicConfigTable = cutPage(page.TopicConfigTable, page.DataVersion, version, seq, most)
	return page, total
}

func cutPage[V any](table map[string]V, ours remoting.DataVersion, version string, seq, most int) map[string]V {
	var theirs remoting.DataVersion
	if seq != 0 && (remoting.DecodeBody([]byte(version), &theirs) != nil || theirs != ours) {
		seq = 0
	}
	page := map[string]V{}
	if seq < 0 || seq >= len(table) || most <= 0 {
		return page
	}
	names := slices.Sorted(maps.Keys(table))
	for _, name := range names[seq:min(seq+min(most, len(names)), len(names))] {
		page[name] = table[name]
	}
	return page
}

// list returns all topics by name.
func (t *topics) list() []*Topic {
	all := t.table.all()
	slices.SortFunc(all, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	return all
}
