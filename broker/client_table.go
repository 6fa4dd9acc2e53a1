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

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Limits of the table of clients. What goes beyond is refused with SYSTEM_ERROR and a remark that names the limit.
const (
	maxClientGroups      = 1 << 20 // groups online, of either kind
	maxGroupsOfConn      = 16_384  // groups of either kind on one connection; a proxy carries many
	maxMembersOfGroup    = 65_536
	maxSubscriptions     = 16_384 // topics of one group
	maxClientIDLength    = 1024
	maxExpressionLength  = 64 << 10 // one subscription's text
	maxCodesSubscription = 16_384   // tags of one subscription
)

// fitName and fitClientID bound texts that are kept and that nobody else has checked.
func fitName(name string) bool   { return len(name) <= message.MaxRetryTopicLength }
func fitClientID(id string) bool { return id != "" && len(id) <= maxClientIDLength }

// pusher is a connection as the tables of this room see it: the network's, and the tests' double.
type pusher interface {
	// Send hands a frame to the connection; false when it is gone or its peer does not read.
	Send(frame []byte) bool
	Close(cause error)
}

// clientChannel is one client on one connection. A value is never changed; a heartbeat replaces it.
type clientChannel struct {
	connID   uint64
	conn     pusher
	clientID string
	language byte
	version  int32
	addr     netip.AddrPort
	seen     time.Duration // latest heartbeat, monotonic
	seenAt   int64         // the same on the wall clock, milliseconds since 1970, for tools
}

func (c *clientChannel) connection() remoting.Connection {
	return remoting.Connection{ClientAddr: c.addr.String(), ClientID: c.clientID, Language: remoting.LanguageName(c.language), Version: c.version}
}

// subscription is what a group wants of a topic, made ready for pulls. It is never changed.
type subscription struct {
	data    remoting.SubscriptionData
	version int64   // when the client made it; a pull with a larger one must wait for the next heartbeat
	codes   []int32 // hashes of the tags, sorted; empty: every message matches. For expressions by tag only.
}

func newSubscription(d remoting.SubscriptionData) *subscription {
	s := &subscription{data: d, version: d.SubVersion}
	if d.SubString == remoting.SubscriptionAll || d.SubString == "" || d.ClassFilterMode || !s.isTag() {
		return s
	}
	s.codes = slices.Clone(d.CodeSet)
	tags := d.TagsSet
	if len(s.codes)+len(tags) == 0 {
		// Neither form of the tags came with the text. A text that holds no tag matches nothing that Java's clients can name.
		if made, err := remoting.NewTagSubscription(d.Topic, d.SubString, d.SubVersion); err == nil {
			tags = made.TagsSet
		}
	}
	if len(s.codes) == 0 {
		for _, tag := range tags {
			s.codes = append(s.codes, message.HashCode([]byte(tag)))
		}
	}
	slices.Sort(s.codes)
	s.codes = slices.Compact(s.codes)
	return s
}

// isTag tells expressions by tag from those by SQL92.
func (s *subscription) isTag() bool {
	return s.data.ExpressionType == "" || s.data.ExpressionType == remoting.ExpressionTag
}

// matchTags tells whether a queue entry's tags code may match; the consumer compares the text.
func (s *subscription) matchTags(tagsCode int64) bool {
	if len(s.codes) == 0 {
		return true
	}
	_, found := slices.BinarySearch(s.codes, int32(tagsCode))
	return found
}

// consumerView is what pulls ask of a group. It is never changed; registrations swap it.
type consumerView struct {
	consumeType   remoting.ConsumeType
	messageModel  remoting.MessageModel
	fromWhere     remoting.ConsumeFromWhere
	subscriptions map[string]*subscription // by topic
}

// subscription is nil when the group does not subscribe to the topic.
func (v *consumerView) subscription(topic []byte) *subscription {
	return v.subscriptions[string(topic)]
}

// isBroadcasting: each member consumes every message.
func (v *consumerView) isBroadcasting() bool { return v.messageModel == remoting.Broadcasting }

// onlineConsumers is a consumer group with members. The maps belong to clientTable.mu.
type onlineConsumers struct {
	name        string
	view        atomic.Pointer[consumerView]
	members     map[uint64]*clientChannel // by connection
	fingerprint int32                     // of the latest heartbeat, 0 for one of the first version
	heard       bool                      // fingerprint is set
	notify      bool                      // members want to hear of changes, as of the latest heartbeat
}

// wantsNotice: broadcasting groups share nothing, so a change means nothing to them.
func (g *onlineConsumers) wantsNotice() bool {
	return g.notify && !g.view.Load().isBroadcasting()
}

type onlineProducers struct {
	name    string
	members map[uint64]*clientChannel
	turn    uint64 // whose turn it is to be asked about a transaction
}

// connGroups are the groups that one connection is a member of.
type connGroups struct{ consumers, producers map[string]bool }

func (c *connGroups) empty() bool { return len(c.consumers)+len(c.producers) == 0 }

// clientTable knows which clients are connected, in which groups, and what they subscribe to. Does the work of ConsumerManager, ConsumerGroupInfo
// and ProducerManager. A member is a connection; its clientId is an attribute. Pulls find subscriptions without a lock, everything else
// happens under mu.
type clientTable struct {
	log       *slog.Logger
	consumers nameTable[onlineConsumers]

	mu        sync.Mutex
	producers map[string]*onlineProducers
	conns     map[uint64]*connGroups // Invariant: holds connection and group exactly when the group holds the connection
}

func newClientTable(log *slog.Logger) *clientTable {
	t := &clientTable{log: log, producers: map[string]*onlineProducers{}, conns: map[uint64]*connGroups{}}
	t.consumers.limit = maxClientGroups
	return t
}

// consumerGroup is nil for a group without members. For the hot path: no lock, no allocation.
func (t *clientTable) consumerGroup(group []byte) *consumerView {
	if g := t.consumers.get(group); g != nil {
		return g.view.Load()
	}
	return nil
}

// subscription is what a group online wants of a topic, for tools; nil when it wants nothing.
func (t *clientTable) subscription(group, topic string) *remoting.SubscriptionData {
	g := t.consumers.find(group)
	if g == nil {
		return nil
	}
	if s := g.view.Load().subscriptions[topic]; s != nil {
		return &s.data
	}
	return nil
}

// registration is one consumer group of a heartbeat.
type registration struct {
	data        *remoting.ConsumerData
	fingerprint int32 // heartbeatFingerprint: 0 is a heartbeat of the first version
	withoutSub  bool  // keep the subscriptions
	notify      bool  // notifyConsumerIdsChangedEnable of group and broker
}

// registered is what a registration changed.
type registered struct {
	changed    bool // a member is new, or topics came or went
	notify     bool // the group's members are to be told (request 40)
	subChanged bool // IS_SUB_CHANGE of the answer: the client is to send its subscriptions again
}

// registerConsumer notes that the client of ch is a member of a group. ch.seen and ch.seenAt are the times of the heartbeat.
func (t *clientTable) registerConsumer(ch clientChannel, r registration) (result registered, err error) {
	if err := checkRegistration(&ch, r.data); err != nil {
		return result, err
	}
	group := r.data.GroupName
	t.mu.Lock()
	defer t.mu.Unlock()
	groups := t.connLocked(ch.connID)
	if !groups.consumers[group] && len(groups.consumers) >= maxGroupsOfConn {
		return result, t.refuseLocked(ch.connID, "%d consumer groups on one connection are too many", maxGroupsOfConn)
	}
	g, added := t.consumers.getOrAdd(group, func() *onlineConsumers {
		g := &onlineConsumers{name: group, members: map[uint64]*clientChannel{}}
		g.view.Store(&consumerView{})
		return g
	})
	if g == nil {
		return result, t.refuseLocked(ch.connID, "%d consumer groups online are too many", maxClientGroups)
	}
	old := g.members[ch.connID]
	if old == nil && len(g.members) >= maxMembersOfGroup {
		return result, t.refuseLocked(ch.connID, "%d members of one group are too many", maxMembersOfGroup)
	}
	if old == nil {
		t.log.Info("consumer online", "group", group, "client", ch.clientID, "addr", ch.addr)
	}
	g.members[ch.connID] = &ch
	groups.consumers[group] = true
	g.notify = r.notify
	result.subChanged = g.hear(r, added)
	subscriptionsChanged := t.updateViewLocked(g, r)
	result.changed = old == nil || subscriptionsChanged
	result.notify = result.changed && g.wantsNotice()
	return result, nil
}

// hear compares the fingerprint with the one before. A first-version client is always told to send its subscriptions; one that sent none to a
// broker that has none must be told, too, or its pulls would be refused for ever (Java's broker forgets that after a restart).
func (g *onlineConsumers) hear(r registration, added bool) (subChanged bool) {
	switch {
	case r.fingerprint == 0:
		subChanged = true
	case g.heard:
		subChanged = g.fingerprint != r.fingerprint
	default:
		subChanged = added && r.withoutSub
	}
	g.fingerprint, g.heard = r.fingerprint, true
	return subChanged
}

func checkRegistration(ch *clientChannel, d *remoting.ConsumerData) error {
	if !fitClientID(ch.clientID) {
		return refuse(remoting.RespSystemError, "the client id has %d bytes, not 1..%d", len(ch.clientID), maxClientIDLength)
	}
	if remark := message.CheckGroup([]byte(d.GroupName)); remark != "" {
		return &tableError{remoting.RespSystemError, remark}
	}
	if len(d.SubscriptionDataSet) > maxSubscriptions {
		return refuse(remoting.RespSystemError, "group %s subscribes to %d topics, more than %d", d.GroupName, len(d.SubscriptionDataSet), maxSubscriptions)
	}
	for i := range d.SubscriptionDataSet {
		s := &d.SubscriptionDataSet[i]
		if !fitName(s.Topic) || len(s.SubString) > maxExpressionLength || max(len(s.CodeSet), len(s.TagsSet)) > maxCodesSubscription {
			return refuse(remoting.RespSystemError, "group %s: a subscription is too long", d.GroupName)
		}
	}
	return nil
}

// refuseLocked also forgets a connection that is a member of nothing.
func (t *clientTable) refuseLocked(connID uint64, format string, args ...any) error {
	t.tidyConnLocked(connID)
	return refuse(remoting.RespSystemError, format, args...)
}

func (t *clientTable) connLocked(connID uint64) *connGroups {
	c := t.conns[connID]
	if c == nil {
		c = &connGroups{consumers: map[string]bool{}, producers: map[string]bool{}}
		t.conns[connID] = c
	}
	return c
}

func (t *clientTable) tidyConnLocked(connID uint64) {
	if c := t.conns[connID]; c != nil && c.empty() {
		delete(t.conns, connID)
	}
}

// updateViewLocked swaps the group's view. A topic that is new is taken, one that the heartbeat does not name is dropped, and a subscription is
// replaced by one with a larger version only. True when a topic came or went; a new version alone is no news for the members.
func (t *clientTable) updateViewLocked(g *onlineConsumers, r registration) (changed bool) {
	old := g.view.Load()
	next := consumerView{
		consumeType: r.data.ConsumeType, messageModel: r.data.MessageModel, fromWhere: r.data.ConsumeFromWhere, subscriptions: old.subscriptions,
	}
	replaced := false
	if !r.withoutSub {
		next.subscriptions, changed, replaced = mergeSubscriptions(old.subscriptions, r.data.SubscriptionDataSet)
	}
	if changed {
		t.log.Info("subscription changed", "group", g.name, "topics", slices.Sorted(maps.Keys(next.subscriptions)))
	}
	if changed || replaced || next.consumeType != old.consumeType || next.messageModel != old.messageModel || next.fromWhere != old.fromWhere {
		g.view.Store(&next)
	}
	return changed
}

func mergeSubscriptions(old map[string]*subscription, list []remoting.SubscriptionData) (merged map[string]*subscription, changed, replaced bool) {
	merged = make(map[string]*subscription, len(list))
	for _, d := range list {
		before := merged[d.Topic]
		if before == nil {
			before = old[d.Topic]
		}
		switch {
		case before == nil:
			changed = true
			merged[d.Topic] = newSubscription(d)
		case d.SubVersion > before.version:
			replaced = true
			merged[d.Topic] = newSubscription(d)
		default:
			merged[d.Topic] = before
		}
	}
	for topic := range old {
		if merged[topic] == nil {
			changed = true
		}
	}
	return merged, changed, replaced
}

// registerProducer notes that the client of ch is a member of a producer group.
func (t *clientTable) registerProducer(ch clientChannel, group string) error {
	if !fitClientID(ch.clientID) || group == "" || !fitName(group) {
		return refuse(remoting.RespSystemError, "client id or producer group is empty or too long")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	groups := t.connLocked(ch.connID)
	if !groups.producers[group] && len(groups.producers) >= maxGroupsOfConn {
		return t.refuseLocked(ch.connID, "%d producer groups on one connection are too many", maxGroupsOfConn)
	}
	g := t.producers[group]
	switch {
	case g == nil && len(t.producers) >= maxClientGroups:
		return t.refuseLocked(ch.connID, "%d producer groups online are too many", maxClientGroups)
	case g == nil:
		g = &onlineProducers{name: group, members: map[uint64]*clientChannel{}}
		t.producers[group] = g
	case g.members[ch.connID] == nil && len(g.members) >= maxMembersOfGroup:
		return t.refuseLocked(ch.connID, "%d members of one group are too many", maxMembersOfGroup)
	}
	if g.members[ch.connID] == nil {
		t.log.Info("producer online", "group", group, "client", ch.clientID, "addr", ch.addr)
	}
	g.members[ch.connID] = &ch
	groups.producers[group] = true
	return nil
}

// unregisterConsumer takes a connection out of a consumer group. True: the members that are left are to be told.
func (t *clientTable) unregisterConsumer(connID uint64, group string) (notify bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	notify = t.leaveConsumersLocked(connID, group)
	t.tidyConnLocked(connID)
	return notify
}

// unregisterProducer takes a connection out of a producer group.
func (t *clientTable) unregisterProducer(connID uint64, group string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveProducersLocked(connID, group)
	t.tidyConnLocked(connID)
}

func (t *clientTable) leaveConsumersLocked(connID uint64, group string) (notify bool) {
	if c := t.conns[connID]; c != nil {
		delete(c.consumers, group)
	}
	g := t.consumers.find(group)
	if g == nil || g.members[connID] == nil {
		return false
	}
	t.log.Info("consumer offline", "group", group, "client", g.members[connID].clientID, "addr", g.members[connID].addr)
	delete(g.members, connID)
	if len(g.members) == 0 {
		t.consumers.remove(group)
		return false
	}
	return g.wantsNotice()
}

func (t *clientTable) leaveProducersLocked(connID uint64, group string) {
	if c := t.conns[connID]; c != nil {
		delete(c.producers, group)
	}
	g := t.producers[group]
	if g == nil || g.members[connID] == nil {
		return
	}
	t.log.Info("producer offline", "group", group, "client", g.members[connID].clientID, "addr", g.members[connID].addr)
	delete(g.members, connID)
	if len(g.members) == 0 {
		delete(t.producers, group)
	}
}

// closeConn takes a connection that is gone out of all its groups. It returns the consumer groups whose members are to be told.
func (t *clientTable) closeConn(connID uint64) (notify []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.conns[connID]
	if c == nil {
		return nil
	}
	for group := range maps.Clone(c.consumers) {
		if t.leaveConsumersLocked(connID, group) {
			notify = append(notify, group)
		}
	}
	for group := range maps.Clone(c.producers) {
		t.leaveProducersLocked(connID, group)
	}
	delete(t.conns, connID)
	slices.Sort(notify)
	return notify
}

// expire takes members out that have not sent a heartbeat for longer than life. It returns the consumer groups whose members are to be told,
// and the connections that are members of nothing any more, which are to be closed. (Java closes a connection when one of its groups has
// expired, and so cuts off the others.)
func (t *clientTable) expire(now, life time.Duration) (notify []string, closing []pusher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	told, gone := map[string]bool{}, map[uint64]pusher{}
	for _, g := range t.consumers.all() {
		for connID, m := range maps.Clone(g.members) {
			if now-m.seen > life {
				gone[connID] = m.conn
				told[g.name] = t.leaveConsumersLocked(connID, g.name)
			}
		}
	}
	for _, g := range slices.Collect(maps.Values(t.producers)) {
		for connID, m := range maps.Clone(g.members) {
			if now-m.seen > life {
				gone[connID] = m.conn
				t.leaveProducersLocked(connID, g.name)
			}
		}
	}
	for group, tell := range told {
		if tell {
			notify = append(notify, group)
		}
	}
	for connID, conn := range gone {
		if c := t.conns[connID]; c != nil && c.empty() {
			delete(t.conns, connID)
			closing = append(closing, conn)
		}
	}
	slices.Sort(notify)
	return notify, closing
}

// membersLocked are the channels of a group in the order in which they connected.
func membersLocked(members map[uint64]*clientChannel) []*clientChannel {
	list := slices.Collect(maps.Values(members))
	slices.SortFunc(list, func(a, b *clientChannel) int {
		switch {
		case a.connID < b.connID:
			return -1
		case a.connID > b.connID:
			return 1
		}
		return 0
	})
	return list
}

// consumerChannels are the members of a consumer group, to be told something.
func (t *clientTable) consumerChannels(group string) []*clientChannel {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.consumers.find(group); g != nil {
		return membersLocked(g.members)
	}
	return nil
}

// clientIDs is the answer to request 38: each client once, also where an old connection of it has not been noticed to be dead. (A client
// that stood there twice would leave the second share of the queues to nobody.) Empty: no consumer for this group.
func (t *clientTable) clientIDs(group string) []string {
	var ids []string
	for _, ch := range t.consumerChannels(group) {
		ids = append(ids, ch.clientID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// consumerChannel finds a client of a consumer group; of several connections the one that was heard last. Nil: not online.
func (t *clientTable) consumerChannel(group, clientID string) (found *clientChannel) {
	for _, ch := range t.consumerChannels(group) {
		if ch.clientID == clientID && (found == nil || ch.seen >= found.seen) {
			found = ch
		}
	}
	return found
}

// nextProducer is a member of a producer group to be asked about a transaction, each in turn. Nil: none online.
func (t *clientTable) nextProducer(group string) *clientChannel {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.producers[group]
	if g == nil {
		return nil
	}
	list := membersLocked(g.members)
	g.turn++
	return list[g.turn%uint64(len(list))]
}

// consumerConnection is the answer to request 203.
func (t *clientTable) consumerConnection(group string) (c remoting.ConsumerConnection, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.consumers.find(group)
	if g == nil {
		return c, false
	}
	v := g.view.Load()
	c = remoting.ConsumerConnection{
		ConsumeFromWhere: v.fromWhere, ConsumeType: v.consumeType, MessageModel: v.messageModel,
		SubscriptionTable: map[string]remoting.SubscriptionData{},
	}
	for topic, s := range v.subscriptions {
		c.SubscriptionTable[topic] = s.data
	}
	c.ConnectionSet = connections(membersLocked(g.members))
	return c, true
}

func connections(members []*clientChannel) []remoting.Connection {
	list := make([]remoting.Connection, len(members))
	for i, m := range members {
		list[i] = m.connection()
	}
	return list
}

// producerConnection is the answer to request 204.
func (t *clientTable) producerConnection(group string) (c remoting.ProducerConnection, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.producers[group]
	if g == nil {
		return c, false
	}
	return remoting.ProducerConnection{ConnectionSet: connections(membersLocked(g.members))}, true
}

// producerTable is the answer to request 328.
func (t *clientTable) producerTable() remoting.ProducerTableInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	table := remoting.ProducerTableInfo{Data: map[string][]remoting.ProducerInfo{}}
	for group, g := range t.producers {
		for _, m := range membersLocked(g.members) {
			table.Data[group] = append(table.Data[group], remoting.ProducerInfo{
				ClientID: m.clientID, Language: remoting.LanguageName(m.language), LastUpdateTimestamp: m.seenAt,
				RemoteIP: "/" + m.addr.String(), Version: m.version,
			})
		}
	}
	return table
}

// groupsOf are the groups online that subscribe to a topic; request 300 adds those with offsets.
func (t *clientTable) groupsOf(topic string) (groups []string) {
	for _, g := range t.consumers.all() {
		if g.view.Load().subscriptions[topic] != nil {
			groups = append(groups, g.name)
		}
	}
	slices.Sort(groups)
	return groups
}

// consumerGroups are the groups online.
func (t *clientTable) consumerGroups() (names []string) {
	for _, g := range t.consumers.all() {
		names = append(names, g.name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

// countConns is how many connections are members of something.
func (t *clientTable) countConns() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

// String names a client in logs and error texts.
func (c *clientChannel) String() string { return fmt.Sprintf("%s (%s)", c.clientID, c.addr) }
