package broker

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// closedPusher is a connection that remembers that it was closed.
type closedPusher struct{ closed bool }

func (p *closedPusher) Send([]byte) bool { return !p.closed }
func (p *closedPusher) Close(error)      { p.closed = true }

func channelOf(connID uint64, clientID string, seen time.Duration) clientChannel {
	return clientChannel{
		connID: connID, conn: &closedPusher{}, clientID: clientID, version: 513, addr: netip.MustParseAddrPort("10.0.0.1:4711"), seen: seen,
		seenAt: 1000,
	}
}

func subscribe(topic, text string, version int64) remoting.SubscriptionData {
	s, err := remoting.NewTagSubscription(topic, text, version)
	if err != nil {
		panic(err)
	}
	return s
}

func consumerOf(group string, subscriptions ...remoting.SubscriptionData) *remoting.ConsumerData {
	return &remoting.ConsumerData{
		GroupName: group, ConsumeType: remoting.ConsumePassively, MessageModel: remoting.Clustering,
		ConsumeFromWhere: remoting.ConsumeFromLastOffset, SubscriptionDataSet: subscriptions,
	}
}

func mustRegister(t testing.TB, table *clientTable, ch clientChannel, r registration) registered {
	t.Helper()
	got, err := table.registerConsumer(ch, r)
	if err != nil {
		t.Fatal(err)
	}
	checkClientTable(t, table)
	return got
}

// checkClientTable holds the table to its invariant.
func checkClientTable(t testing.TB, table *clientTable) {
	t.Helper()
	for _, g := range table.consumers.all() {
		for connID := range g.members {
			if c := table.conns[connID]; c == nil || !c.consumers[g.name] {
				t.Fatalf("group %s holds connection %d, which does not know it", g.name, connID)
			}
		}
		if len(g.members) == 0 {
			t.Fatalf("group %s is empty", g.name)
		}
	}
	for connID, c := range table.conns {
		if c.empty() {
			t.Fatalf("connection %d is kept for nothing", connID)
		}
		for group := range c.consumers {
			if g := table.consumers.find(group); g == nil || g.members[connID] == nil {
				t.Fatalf("connection %d knows group %s, which does not hold it", connID, group)
			}
		}
		for group := range c.producers {
			if g := table.producers[group]; g == nil || g.members[connID] == nil {
				t.Fatalf("connection %d knows producer group %s, which does not hold it", connID, group)
			}
		}
	}
}

func TestHeartbeatChanges(t *testing.T) {
	table := newClientTable(quiet())
	a, b := channelOf(1, "a", 0), channelOf(2, "b", 0)
	broadcast := consumerOf("g", subscribe("T", "x", 3), subscribe("U", "*", 1))
	broadcast.MessageModel = remoting.Broadcasting
	steps := []struct {
		rule            string
		ch              clientChannel
		r               registration
		changed, notify bool
		topics          string // with their versions, afterwards
	}{
		{"a new member", a, registration{data: consumerOf("g", subscribe("T", "x", 1)), notify: true}, true, true, "T1"},
		{"the same again is no change", a, registration{data: consumerOf("g", subscribe("T", "x", 1)), notify: true}, false, false, "T1"},
		{"another member with the same subscription", b, registration{data: consumerOf("g", subscribe("T", "x", 1)), notify: true}, true, true, "T1"},
		{"a larger version replaces, and is no news", a, registration{data: consumerOf("g", subscribe("T", "y", 2)), notify: true}, false, false, "T2"},
		{"a smaller version does not replace", b, registration{data: consumerOf("g", subscribe("T", "x", 1)), notify: true}, false, false, "T2"},
		{"a new topic", a, registration{data: consumerOf("g", subscribe("T", "y", 2), subscribe("U", "*", 1)), notify: true}, true, true, "T2 U1"},
		{"a topic that is not named any more is dropped", b, registration{data: consumerOf("g", subscribe("T", "x", 1)), notify: true}, true, true, "T2"},
		{"a change, but the group does not want to hear", a, registration{data: consumerOf("g", subscribe("T", "y", 2), subscribe("U", "*", 1))}, true, false, "T2 U1"},
		{"a broadcasting group does not want to hear", a, registration{data: broadcast, notify: true}, false, false, "T3 U1"},
		{"without subscriptions they stay", a, registration{data: consumerOf("g"), withoutSub: true, fingerprint: 1, notify: true}, false, false, "T3 U1"},
		{"with an empty set they go", a, registration{data: consumerOf("g"), fingerprint: 1, notify: true}, true, true, ""},
	}
	for _, s := range steps {
		got := mustRegister(t, table, s.ch, s.r)
		if got.changed != s.changed || got.notify != s.notify {
			t.Fatalf("%s: %+v", s.rule, got)
		}
		var topics []string
		c, ok := table.consumerConnection("g")
		if !ok {
			t.Fatal("not online")
		}
		for topic, s := range c.SubscriptionTable {
			topics = append(topics, fmt.Sprintf("%s%d", topic, s.SubVersion))
		}
		slices.Sort(topics)
		if strings.Join(topics, " ") != s.topics {
			t.Fatalf("%s: topics %v, want %s", s.rule, topics, s.topics)
		}
	}
}

func TestHeartbeatFingerprint(t *testing.T) {
	table := newClientTable(quiet())
	for _, s := range []struct {
		rule       string
		connID     uint64
		group      string
		r          registration
		subChanged bool
	}{
		{"first version: always send everything", 1, "g", registration{}, true},
		{"first of the second version after one of the first", 1, "g", registration{fingerprint: 7}, true},
		{"the same fingerprint", 1, "g", registration{fingerprint: 7, withoutSub: true}, false},
		{"another fingerprint", 2, "g", registration{fingerprint: 8}, true},
		{"and again the same", 2, "g", registration{fingerprint: 8, withoutSub: true}, false},
		{"a new group that sends its subscriptions", 3, "h", registration{fingerprint: 7}, false},
		{"a new group that sends none: the broker has forgotten them", 4, "i", registration{fingerprint: 7, withoutSub: true}, true},
	} {
		s.r.data = consumerOf(s.group, subscribe("T", "*", 1))
		if s.r.withoutSub {
			s.r.data.SubscriptionDataSet = nil
		}
		if got := mustRegister(t, table, channelOf(s.connID, "c", 0), s.r); got.subChanged != s.subChanged {
			t.Errorf("%s: %t", s.rule, got.subChanged)
		}
	}
}

func TestUnregisterAndClose(t *testing.T) {
	table := newClientTable(quiet())
	for connID, clientID := range []string{"a", "b", "c"} {
		mustRegister(t, table, channelOf(uint64(connID), clientID, 0), registration{data: consumerOf("g", subscribe("T", "*", 1)), notify: true})
	}
	broadcast := consumerOf("loud", subscribe("T", "*", 1))
	broadcast.MessageModel = remoting.Broadcasting
	for _, connID := range []uint64{1, 2} {
		mustRegister(t, table, channelOf(connID, "x", 0), registration{data: broadcast, notify: true})
	}
	if err := table.registerProducer(channelOf(1, "b", 0), "p"); err != nil {
		t.Fatal(err)
	}
	if got := table.clientIDs("g"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("members %v", got)
	}
	if table.unregisterConsumer(7, "g") || table.unregisterConsumer(0, "nobody") {
		t.Error("who is no member leaves")
	}
	if !table.unregisterConsumer(0, "g") {
		t.Error("the others are not told")
	}
	if got := table.closeConn(1); !slices.Equal(got, []string{"g"}) {
		t.Errorf("after a close %v are told", got)
	}
	if _, ok := table.producerConnection("p"); ok {
		t.Error("the producer is still online")
	}
	checkClientTable(t, table)
	if got := table.closeConn(1); got != nil {
		t.Errorf("closed twice: %v", got)
	}
	if got := table.closeConn(2); got != nil {
		t.Errorf("nobody is left, but %v are told", got)
	}
	if table.consumerGroup([]byte("g")) != nil || table.clientIDs("g") != nil || table.countConns() != 0 {
		t.Error("an empty group is still online")
	}
}

func TestClientExpiry(t *testing.T) {
	const life = 120 * time.Second
	table := newClientTable(quiet())
	register := func(connID uint64, group string, seen time.Duration) {
		mustRegister(t, table, channelOf(connID, fmt.Sprint("c", connID), seen), registration{data: consumerOf(group, subscribe("T", "*", 1)), notify: true})
	}
	register(1, "g", 0)
	register(2, "g", 50*time.Second)
	register(2, "old", 0)
	if err := table.registerProducer(channelOf(3, "p", 0), "p"); err != nil {
		t.Fatal(err)
	}
	if notify, closing := table.expire(life, life); notify != nil || closing != nil {
		t.Fatalf("after 120 s: %v %v", notify, closing)
	}
	notify, closing := table.expire(life+1, life)
	if !slices.Equal(notify, []string{"g"}) || len(closing) != 2 {
		t.Fatalf("told %v, %d to close", notify, len(closing))
	}
	checkClientTable(t, table)
	if table.countConns() != 1 || table.consumerGroup([]byte("old")) != nil || table.nextProducer("p") != nil {
		t.Error("the wrong ones are left")
	}
	register(2, "g", 100*time.Second)
	if notify, closing = table.expire(life+60*time.Second, life); notify != nil || closing != nil {
		t.Errorf("a heartbeat did not help: %v %v", notify, closing)
	}
}

func TestFindChannels(t *testing.T) {
	table := newClientTable(quiet())
	r := registration{data: consumerOf("g", subscribe("T", "*", 1))}
	mustRegister(t, table, channelOf(1, "same", 5), r)
	mustRegister(t, table, channelOf(2, "same", 9), r)
	mustRegister(t, table, channelOf(3, "other", 1), r)
	if got := table.clientIDs("g"); !slices.Equal(got, []string{"other", "same"}) {
		t.Errorf("a client with two connections: %v", got)
	}
	if ch := table.consumerChannel("g", "same"); ch == nil || ch.connID != 2 {
		t.Errorf("found %v", ch)
	}
	if table.consumerChannel("g", "nobody") != nil || table.consumerChannel("nobody", "same") != nil {
		t.Error("found who is not there")
	}
	mustRegister(t, table, channelOf(1, "renamed", 10), r)
	if ch := table.consumerChannel("g", "renamed"); ch == nil || ch.connID != 1 {
		t.Errorf("found %v", ch)
	}
	for connID := range uint64(3) {
		if err := table.registerProducer(channelOf(connID, "p", 0), "p"); err != nil {
			t.Fatal(err)
		}
	}
	asked := map[uint64]int{}
	for range 6 {
		asked[table.nextProducer("p").connID]++
	}
	if len(asked) != 3 || asked[0] != 2 || asked[1] != 2 {
		t.Errorf("producers were asked %v times", asked)
	}
}

func TestClientLists(t *testing.T) {
	table := newClientTable(quiet())
	mustRegister(t, table, channelOf(1, "a", 0), registration{data: consumerOf("g", subscribe("T", "x || y", 4))})
	mustRegister(t, table, channelOf(1, "a", 0), registration{data: consumerOf("h", subscribe("U", "*", 1))})
	if err := table.registerProducer(channelOf(1, "a", 0), "p"); err != nil {
		t.Fatal(err)
	}
	if got := table.groupsOf("T"); !slices.Equal(got, []string{"g"}) {
		t.Errorf("groups of T: %v", got)
	}
	if got := table.consumerGroups(); !slices.Equal(got, []string{"g", "h"}) {
		t.Errorf("groups: %v", got)
	}
	if s := table.subscription("g", "T"); s == nil || s.SubVersion != 4 || table.subscription("g", "U") != nil || table.subscription("x", "U") != nil {
		t.Errorf("subscription %+v", s)
	}
	c, ok := table.consumerConnection("g")
	if !ok || string(remoting.EncodeBody(c.ConnectionSet)) != `[{"clientAddr":"10.0.0.1:4711","clientId":"a","language":"JAVA","version":513}]` || c.ConsumeType != remoting.ConsumePassively {
		t.Errorf("%+v", c)
	}
	if _, ok := table.consumerConnection("nobody"); ok {
		t.Error("nobody is online")
	}
	const want = `{"data":{"p":[{"clientId":"a","language":"JAVA","lastUpdateTimestamp":1000,"remoteIP":"/10.0.0.1:4711","version":513}]}}`
	if got := string(remoting.EncodeBody(table.producerTable())); got != want {
		t.Errorf("%s", got)
	}
	if p, ok := table.producerConnection("p"); !ok || len(p.ConnectionSet) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestSubscriptionMatch(t *testing.T) {
	code := func(tag string) int64 { return message.TagsCode([]byte(tag)) }
	onlyText := remoting.SubscriptionData{Topic: "T", SubString: "x || y", ExpressionType: remoting.ExpressionTag}
	onlyTags := onlyText
	onlyTags.TagsSet = []string{"x", "y"}
	starWithCodes := remoting.SubscriptionData{SubString: "*", CodeSet: []int32{1}}
	classFilter := remoting.SubscriptionData{SubString: "x", CodeSet: []int32{1}, ClassFilterMode: true}
	for _, c := range []struct {
		rule      string
		data      remoting.SubscriptionData
		x, z, bad bool // x and untagged and another tag match
	}{
		{"codes", subscribe("T", "x || y", 1), true, false, false},
		{"tags without codes", onlyTags, true, false, false},
		{"text only", onlyText, true, false, false},
		{"star", subscribe("T", "*", 1), true, true, true},
		{"star whatever the codes", starWithCodes, true, true, true},
		{"class filter", classFilter, true, true, true},
	} {
		s := newSubscription(c.data)
		if s.matchTags(code("x")) != c.x || s.matchTags(0) != c.z || s.matchTags(code("bad")) != c.bad || !s.isTag() {
			t.Errorf("%s: x %t, untagged %t, bad %t", c.rule, s.matchTags(code("x")), s.matchTags(0), s.matchTags(code("bad")))
		}
	}
	sql := newSubscription(remoting.SubscriptionData{SubString: "a > 1", ExpressionType: remoting.ExpressionSQL92})
	if sql.isTag() || len(sql.codes) != 0 {
		t.Errorf("%+v", sql)
	}
}

func TestClientTableRefuses(t *testing.T) {
	table := newClientTable(quiet())
	long := consumerOf("g", remoting.SubscriptionData{Topic: "T", SubString: strings.Repeat("x", maxExpressionLength+1)})
	for _, c := range []struct {
		rule string
		ch   clientChannel
		data *remoting.ConsumerData
	}{
		{"no client id", channelOf(1, "", 0), consumerOf("g")},
		{"a long client id", channelOf(1, strings.Repeat("x", maxClientIDLength+1), 0), consumerOf("g")},
		{"an illegal group", channelOf(1, "c", 0), consumerOf("a b")},
		{"a long expression", channelOf(1, "c", 0), long},
		{"a long topic", channelOf(1, "c", 0), consumerOf("g", remoting.SubscriptionData{Topic: strings.Repeat("x", 256)})},
		{"too many topics", channelOf(1, "c", 0), consumerOf("g", make([]remoting.SubscriptionData, maxSubscriptions+1)...)},
	} {
		var refusal *tableError
		if _, err := table.registerConsumer(c.ch, registration{data: c.data}); !errors.As(err, &refusal) || refusal.Code != remoting.RespSystemError {
			t.Errorf("%s: error %v", c.rule, err)
		}
	}
	table.consumers.limit = 1
	mustRegister(t, table, channelOf(1, "c", 0), registration{data: consumerOf("g")})
	if _, err := table.registerConsumer(channelOf(2, "d", 0), registration{data: consumerOf("h")}); err == nil {
		t.Error("a full table takes more groups")
	}
	if err := table.registerProducer(channelOf(2, "d", 0), strings.Repeat("x", 256)); err == nil {
		t.Error("a long producer group is taken")
	}
	checkClientTable(t, table)
	if table.countConns() != 1 {
		t.Errorf("%d connections are kept", table.countConns())
	}
}

func TestGroupsOfOneConnectionAreBounded(t *testing.T) {
	table := newClientTable(quiet())
	for i := range maxGroupsOfConn {
		if err := table.registerProducer(channelOf(1, "c", 0), fmt.Sprint("p", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.registerProducer(channelOf(1, "c", 0), "one-more"); err == nil {
		t.Error("one more is taken")
	}
	if err := table.registerProducer(channelOf(1, "c", 0), "p1"); err != nil {
		t.Error("a heartbeat of a member is refused:", err)
	}
	if table.closeConn(1); len(table.producers) != 0 {
		t.Errorf("%d groups are left", len(table.producers))
	}
}

func TestSubscriptionLookupAllocatesNothing(t *testing.T) {
	table := newClientTable(quiet())
	mustRegister(t, table, channelOf(1, "c", 0), registration{data: consumerOf("some-group", subscribe("some-topic", "x || y || z", 1))})
	group, topic := []byte("some-group"), []byte("some-topic")
	if n := testing.AllocsPerRun(100, func() {
		if s := table.consumerGroup(group).subscription(topic); s == nil || s.matchTags(1) {
			t.Error("wrong subscription")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
