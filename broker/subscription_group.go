package broker

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
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

// Limits of the group table. More are refused with SYSTEM_ERROR.
const (
	maxGroups    = 1_000_000
	maxForbidden = 100_000 // pairs of group and topic
	// forbiddenRead is the bit of the forbidden table that says: the group may not read the topic (PermName.INDEX_PERM_READ).
	forbiddenRead = 2
)

// systemGroups exist from the start.
var systemGroups = []string{
	"TOOLS_CONSUMER", "FILTERSRV_CONSUMER", "SELF_TEST_C_GROUP", "CID_ONS-HTTP-PROXY", "CID_ONSAPI_PULL", "CID_ONSAPI_PERMISSION",
	"CID_ONSAPI_OWNER", "CID_RMQ_SYS_TRANS",
}

// Group is one consumer group as it is configured; who is online stands in clientTable. Holders may keep the pointer; after a deletion
// deleted is set.
type Group struct {
	Name    string
	config  atomic.Pointer[remoting.SubscriptionGroupConfig] // never nil, never changed once stored
	deleted atomic.Bool
}

// groups is the table of consumer groups, kept in subscriptionGroup.json. Does the work of SubscriptionGroupManager. Lookups take no lock;
// changes are made one at a time under mu.
type groups struct {
	table nameTable[Group]
	saver *saver
	log   *slog.Logger
	now   func() int64 // wall clock, milliseconds since 1970

	// forbidden has, for few groups, the topics that they may not read. The maps are never changed once stored.
	forbidden atomic.Pointer[map[string]map[string]int32]

	mu      sync.Mutex
	version remoting.DataVersion
}

// openGroups loads subscriptionGroup.json from dir and adds the system groups.
func openGroups(fsys ioengine.FS, dir string, cfg *config.Broker, now func() int64, log *slog.Logger) (*groups, error) {
	file, err := ioengine.OpenMetadata(fsys, dir, "subscriptionGroup.json", log)
	if err != nil {
		return nil, err
	}
	g := &groups{log: log, now: now}
	g.table.limit = maxGroups
	g.saver = newSaver(file, log, 0, func() []byte { return remoting.EncodeBody(g.snapshot()) })
	var saved remoting.SubscriptionGroupTable
	if _, err := file.Load(cfg.AcceptEmptyMetadata, func(text []byte) error {
		var latest remoting.SubscriptionGroupTable
		err := decodeMetadata(text, &latest)
		if err == nil {
			saved = latest
		}
		return err
	}); err != nil {
		return nil, err
	}
	for _, name := range systemGroups {
		g.add(remoting.NewSubscriptionGroupConfig(name))
	}
	for name, c := range saved.SubscriptionGroupTable {
		if name == "" {
			continue
		}
		c.GroupName = name
		if g.add(c) == nil {
			return nil, fmt.Errorf("subscriptionGroup.json holds more than %d groups", maxGroups)
		}
	}
	if saved.ForbiddenTable == nil {
		saved.ForbiddenTable = map[string]map[string]int32{}
	}
	g.forbidden.Store(&saved.ForbiddenTable)
	g.version = saved.DataVersion
	if g.version == (remoting.DataVersion{}) {
		g.version.Timestamp = now()
	}
	return g, nil
}

// add puts a group into the table or replaces its values. Nil when the table is full.
func (g *groups) add(c remoting.SubscriptionGroupConfig) *Group {
	group, added := g.table.getOrAdd(c.GroupName, func() *Group {
		group := &Group{Name: c.GroupName}
		group.config.Store(&c)
		return group
	})
	if group != nil && !added {
		group.config.Store(&c)
	}
	return group
}

// lookup is nil for a group that is not here.
func (g *groups) lookup(name []byte) *Group { return g.table.get(name) }

// find is lookup for admin handlers.
func (g *groups) find(name string) *Group { return g.table.find(name) }

// lookupOrCreate makes a group that is not here with the default values, where the broker does that: autoCreateSubscriptionGroup, or a system
// name. Nil: the answer is SUBSCRIPTION_GROUP_NOT_EXIST. generation is not 0 when the group is new.
func (g *groups) lookupOrCreate(cfg *config.Broker, name []byte) (group *Group, generation uint64) {
	if group := g.table.get(name); group != nil {
		return group, 0
	}
	system := strings.HasPrefix(string(name), message.SystemGroupPrefix)
	if !cfg.AutoCreateSubscriptionGroup && !system || message.CheckGroup(name) != "" {
		return nil, 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	group, added := g.table.getOrAdd(string(name), func() *Group {
		c := remoting.NewSubscriptionGroupConfig(string(name))
		group := &Group{Name: c.GroupName}
		group.config.Store(&c)
		return group
	})
	if !added {
		return group, 0
	}
	g.log.Info("group created by a client", "group", group.Name)
	return group, g.touchLocked()
}

// update makes or changes groups as requests 200 and 225 ask, all or none. Attributes are changes: keys with their sign. What is already so
// is no change: generation 0.
func (g *groups) update(want ...remoting.SubscriptionGroupConfig) (generation uint64, err error) {
	for i := range want {
		if remark := message.CheckGroup([]byte(want[i].GroupName)); remark != "" {
			return 0, &tableError{remoting.RespInvalidParameter, remark}
		}
		if n := want[i].RetryQueueNums; n < 0 || n > maxTopicQueues {
			return 0, refuse(remoting.RespInvalidParameter, "%d retry queues for group %s: not in 0..%d", n, want[i].GroupName, maxTopicQueues)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	final, err := g.alteredLocked(want)
	if err != nil {
		return 0, err
	}
	for _, c := range final {
		if old := g.find(c.GroupName); old != nil && sameGroupConfig(old.config.Load(), &c) {
			continue
		}
		if g.add(c) == nil {
			return generation, refuse(remoting.RespSystemError, "the broker has %d groups and takes no more", maxGroups)
		}
		g.log.Info("group set", "group", c.GroupName, "consumeEnable", c.ConsumeEnable, "broadcast", c.ConsumeBroadcastEnable,
			"retryMaxTimes", c.RetryMaxTimes, "attributes", c.Attributes)
		generation = g.touchLocked()
	}
	return generation, nil
}

func (g *groups) alteredLocked(want []remoting.SubscriptionGroupConfig) ([]remoting.SubscriptionGroupConfig, error) {
	final := make([]remoting.SubscriptionGroupConfig, len(want))
	for i, c := range want {
		var current map[string]string
		old := g.find(c.GroupName)
		if old != nil {
			current = old.config.Load().Attributes
		}
		attributes, err := alterAttributes(old == nil, groupAttributes, current, c.Attributes)
		if err != nil {
			return nil, refuse(remoting.RespSystemError, "%s", err)
		}
		c.Attributes = attributes
		final[i] = c
	}
	return final, nil
}

func sameGroupConfig(a, b *remoting.SubscriptionGroupConfig) bool {
	x, y := *a, *b
	if !maps.Equal(x.Attributes, y.Attributes) {
		return false
	}
	x.Attributes, y.Attributes = nil, nil
	return reflect.DeepEqual(x, y)
}

// delete takes a group out, and with it what it may not read. Its offsets and statistics are the caller's.
func (g *groups) delete(name string) (group *Group, generation uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	forbidden := *g.forbidden.Load()
	if _, ok := forbidden[name]; ok {
		rest := maps.Clone(forbidden)
		delete(rest, name)
		g.forbidden.Store(&rest)
		generation = g.touchLocked()
	}
	group = g.table.remove(name)
	if group == nil {
		return nil, generation
	}
	group.deleted.Store(true)
	g.log.Info("group deleted", "group", name)
	return group, g.touchLocked()
}

// mayRead is false when an operator has forbidden the group to read the topic.
func (g *groups) mayRead(group, topic []byte) bool {
	topics := (*g.forbidden.Load())[string(group)]
	return topics == nil || topics[string(topic)]&(1<<forbiddenRead) == 0
}

// setReadable is request 353. Unlike Java's, allowing one topic again does not allow all others, and it is saved.
func (g *groups) setReadable(group, topic string, readable bool) (generation uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := *g.forbidden.Load()
	bits := old[group][topic]
	next := bits | 1<<forbiddenRead
	if readable {
		next = bits &^ (1 << forbiddenRead)
	}
	if next == bits {
		return 0, nil
	}
	pairs := 0
	for _, topics := range old {
		pairs += len(topics)
	}
	if !readable && pairs >= maxForbidden {
		return 0, refuse(remoting.RespSystemError, "%d pairs of group and topic are forbidden, no more can be", pairs)
	}
	table := maps.Clone(old)
	topics := maps.Clone(old[group])
	if topics == nil {
		topics = map[string]int32{}
	}
	topics[topic] = next
	if next == 0 {
		delete(topics, topic)
	}
	table[group] = topics
	if len(topics) == 0 {
		delete(table, group)
	}
	g.forbidden.Store(&table)
	g.log.Info("group forbidden or allowed to read", "group", group, "topic", topic, "readable", readable)
	return g.touchLocked(), nil
}

func (g *groups) touchLocked() (generation uint64) {
	g.version = g.version.Next(0, g.now())
	return g.saver.markDirty()
}

// waitSaved waits until the change with this generation is durable; 0 needs no waiting.
func (g *groups) waitSaved(generation uint64, timeout time.Duration) error {
	return g.saver.waitSaved(generation, timeout)
}

func (g *groups) dataVersion() remoting.DataVersion {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.version
}

// snapshot is the whole table, as it is saved and answered to request 201.
func (g *groups) snapshot() remoting.SubscriptionGroupTable {
	g.mu.Lock()
	defer g.mu.Unlock()
	table := map[string]remoting.SubscriptionGroupConfig{}
	for _, group := range g.table.all() {
		table[group.Name] = *group.config.Load()
	}
	return remoting.SubscriptionGroupTable{DataVersion: g.version, ForbiddenTable: *g.forbidden.Load(), SubscriptionGroupTable: table}
}

// page is a part of the table in the order of the names, as topics.page.
func (g *groups) page(version string, seq, most int) (page remoting.SubscriptionGroupTable, total int) {
	page = g.snapshot()
	total = len(page.SubscriptionGroupTable)
	page.SubscriptionGroupTable = cutPage(page.SubscriptionGroupTable, page.DataVersion, version, seq, most)
	forbidden := map[string]map[string]int32{}
	for group, topics := range page.ForbiddenTable {
		if _, ok := page.SubscriptionGroupTable[group]; ok {
			forbidden[group] = topics
		}
	}
	page.ForbiddenTable = forbidden
	return page, total
}

// list returns all groups by name.
func (g *groups) list() []*Group {
	all := g.table.all()
	slices.SortFunc(all, func(a, b *Group) int { return strings.Compare(a.Name, b.Name) })
	return all
}
