package broker

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/config"
	"github.com/ringmq/ringmq/ioengine"
	"github.com/ringmq/ringmq/ioengine/faultfs"
	"github.com/ringmq/ringmq/remoting"
)

func mustOpenGroups(t testing.TB, fsys ioengine.FS, cfg *config.Broker) *groups {
	t.Helper()
	g, err := openGroups(fsys, metadataDir, cfg, newTableClock().now, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestSystemGroups(t *testing.T) {
	g := mustOpenGroups(t, faultfs.New(), tableConfig())
	for _, name := range systemGroups {
		group := g.lookup([]byte(name))
		if group == nil {
			t.Errorf("no %s", name)
			continue
		}
		if c := group.config.Load(); !c.ConsumeEnable || !c.ConsumeBroadcastEnable || c.RetryMaxTimes != 16 {
			t.Errorf("%+v", c)
		}
	}
	if len(g.list()) != 8 {
		t.Errorf("%d groups", len(g.list()))
	}
}

func TestGroupLookupOrCreate(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		auto, made bool
	}{
		{"a client makes its group", "g", true, true},
		{"not when autoCreateSubscriptionGroup is off", "g", false, false},
		{"a system name is always made", "CID_RMQ_SYS_X", false, true},
		{"no illegal name", "a b", true, false},
		{"no blank name", "", true, false},
		{"no long name", strings.Repeat("x", 121), true, false},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cfg := tableConfig()
			cfg.AutoCreateSubscriptionGroup = c.auto
			g := mustOpenGroups(t, faultfs.New(), cfg)
			version := g.dataVersion()
			group, generation := g.lookupOrCreate(cfg, []byte(c.name))
			if (group != nil) != c.made || (generation != 0) != c.made || (g.dataVersion() != version) != c.made {
				t.Fatalf("group %v, generation %d", group, generation)
			}
			if !c.made {
				return
			}
			if got := group.config.Load(); got.GroupName != c.name || got.RetryQueueNums != 1 || got.RetryMaxTimes != 16 || !got.ConsumeEnable {
				t.Errorf("%+v", got)
			}
			if again, generation := g.lookupOrCreate(cfg, []byte(c.name)); again != group || generation != 0 {
				t.Error("made twice")
			}
		})
	}
}

func TestUpdateGroup(t *testing.T) {
	g := mustOpenGroups(t, faultfs.New(), tableConfig())
	c := remoting.NewSubscriptionGroupConfig("g")
	c.RetryMaxTimes = 3
	c.Attributes = map[string]string{"+priority.factor": "50"}
	if generation, err := g.update(c); err != nil || generation == 0 {
		t.Fatal(generation, err)
	}
	got := g.find("g").config.Load()
	if got.RetryMaxTimes != 3 || got.Attributes["priority.factor"] != "50" {
		t.Fatalf("%+v", got)
	}
	c.Attributes = nil
	if generation, err := g.update(c); err != nil || generation != 0 {
		t.Errorf("no change made generation %d, error %v", generation, err)
	}
	c.GroupRetryPolicy.Type = remoting.RetryExponential
	if generation, err := g.update(c); err != nil || generation == 0 || g.find("g").config.Load().Attributes["priority.factor"] != "50" {
		t.Errorf("generation %d, error %v", generation, err)
	}
	for _, bad := range []struct {
		name, key, value string
		queues, code     int32
	}{
		{"a b", "", "", 1, remoting.RespInvalidParameter},
		{"h", "+colour", "red", 1, remoting.RespSystemError},
		{"h", "", "", -1, remoting.RespInvalidParameter},
	} {
		other, wrong := remoting.NewSubscriptionGroupConfig("other"), remoting.NewSubscriptionGroupConfig(bad.name)
		wrong.RetryQueueNums = bad.queues
		if bad.key != "" {
			wrong.Attributes = map[string]string{bad.key: bad.value}
		}
		var refusal *tableError
		if _, err := g.update(other, wrong); !errors.As(err, &refusal) || refusal.Code != bad.code || g.find("other") != nil {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
}

func TestGroupForbidden(t *testing.T) {
	fsys := faultfs.New()
	cfg := tableConfig()
	g := mustOpenGroups(t, fsys, cfg)
	set := func(group, topic string, readable, changes bool) {
		t.Helper()
		generation, err := g.setReadable(group, topic, readable)
		if err != nil || (generation != 0) != changes {
			t.Fatalf("generation %d, error %v", generation, err)
		}
	}
	set("g", "T", true, false)
	set("g", "T", false, true)
	set("g", "T", false, false)
	set("g", "U", false, true)
	set("g", "U", true, true) // T stays forbidden, unlike in Java's broker
	set("h", "T", false, true)
	check := func(g *groups) {
		t.Helper()
		for _, c := range []struct {
			group, topic string
			may          bool
		}{{"g", "T", false}, {"g", "U", true}, {"h", "T", false}, {"i", "T", true}} {
			if g.mayRead([]byte(c.group), []byte(c.topic)) != c.may {
				t.Errorf("%s may read %s: %t", c.group, c.topic, !c.may)
			}
		}
	}
	check(g)
	if err := g.saver.file.Save(g.saver.encode()); err != nil {
		t.Fatal(err)
	}
	check(mustOpenGroups(t, fsys, cfg))
	group, topic := []byte("g"), []byte("T")
	if n := testing.AllocsPerRun(100, func() { g.mayRead(group, topic); g.lookup(group) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, generation := g.delete("h"); generation == 0 || !g.mayRead([]byte("h"), []byte("T")) {
		t.Error("deleting a group leaves what it may not read")
	}
}

func TestDeleteGroup(t *testing.T) {
	cfg := tableConfig()
	g := mustOpenGroups(t, faultfs.New(), cfg)
	group, _ := g.lookupOrCreate(cfg, []byte("g"))
	if got, generation := g.delete("g"); got != group || generation == 0 || !group.deleted.Load() || g.find("g") != nil {
		t.Error("not deleted")
	}
	if got, generation := g.delete("g"); got != nil || generation != 0 {
		t.Error("deleted twice")
	}
}

func TestGroupsLoadJavasFile(t *testing.T) {
	fsys := faultfs.New()
	copyGolden(t, fsys, "subscriptionGroup.json")
	g := mustOpenGroups(t, fsys, tableConfig())
	if g.find("golden-pull") == nil || g.find("TOOLS_CONSUMER") == nil || g.dataVersion().Counter < 1 {
		t.Fatalf("groups %v, version %+v", g.list(), g.dataVersion())
	}
	page, total := g.page("", 0, 3)
	if total != len(g.list()) || len(page.SubscriptionGroupTable) != 3 {
		t.Errorf("a page of %d of %d", len(page.SubscriptionGroupTable), total)
	}
}

func TestGroupsSurviveARestart(t *testing.T) {
	cfg := tableConfig()
	fsys := faultfs.New()
	g := mustOpenGroups(t, fsys, cfg)
	go g.saver.run()
	_, generation := g.lookupOrCreate(cfg, []byte("g"))
	if err := g.waitSaved(generation, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := g.saver.stop(); err != nil {
		t.Fatal(err)
	}
	again := mustOpenGroups(t, fsys.Crash(1, faultfs.LoseAll), cfg)
	names := func(g *groups) (names []string) {
		for _, group := range g.list() {
			names = append(names, group.Name)
		}
		return names
	}
	if again.find("g") == nil || !slices.Equal(names(g), names(again)) || again.dataVersion() != g.dataVersion() {
		t.Errorf("%v, version %+v", names(again), again.dataVersion())
	}
}
