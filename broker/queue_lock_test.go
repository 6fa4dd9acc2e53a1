package broker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

func lockQueues(topic string, ids ...int32) (queues []remoting.MessageQueue) {
	for _, id := range ids {
		queues = append(queues, remoting.MessageQueue{BrokerName: "b", QueueID: id, Topic: topic})
	}
	return queues
}

func TestQueueLocks(t *testing.T) {
	locks := newQueueLocks(quiet())
	all := lockQueues("T", 0, 1, 2)
	for _, s := range []struct {
		rule   string
		group  string
		client string
		at     time.Duration
		unlock bool
		queues []remoting.MessageQueue
		want   []remoting.MessageQueue
	}{
		{"free queues are granted", "g", "a", 0, false, all[:2], all[:2]},
		{"another client gets what is left", "g", "b", 1, false, all, all[2:]},
		{"another group has its own locks", "h", "b", 1, false, all, all},
		{"the holder renews", "g", "a", 40 * time.Second, false, all, all[:2]},
		{"a renewed lock does not expire", "g", "b", 100 * time.Second, false, all, all[2:]},
		{"a lock lives 60 s", "g", "c", 100 * time.Second, false, all, nil},
		{"and not longer", "g", "c", 100*time.Second + 1, false, all, all[:2]},
		{"who does not hold cannot unlock", "g", "a", 101 * time.Second, true, all, nil},
		{"so it stays locked", "g", "a", 101 * time.Second, false, all, nil},
		{"the holder unlocks", "g", "c", 101 * time.Second, true, all, nil},
		{"and it is free", "g", "a", 101 * time.Second, false, all, all[:2]},
		{"unlocking what nobody has", "nobody", "a", 101 * time.Second, true, all, nil},
	} {
		if s.unlock {
			locks.unlockBatch(s.group, s.client, s.queues)
		} else if got := locks.lockBatch(s.group, s.client, s.queues, s.at); !slices.Equal(got, s.want) {
			t.Fatalf("%s: %v, want %v", s.rule, got, s.want)
		}
		n := 0
		for _, g := range locks.groups {
			n += len(g.queues)
		}
		if n != locks.count {
			t.Fatalf("%s: %d locks, counted %d", s.rule, n, locks.count)
		}
	}
}

func TestGroupLocked(t *testing.T) {
	locks := newQueueLocks(quiet())
	g := []byte("g")
	check := func(rule string, at time.Duration, want bool) {
		t.Helper()
		if locks.groupLocked(g, at) != want {
			t.Fatalf("%s: %t", rule, !want)
		}
	}
	check("no lock", 0, false)
	queues := lockQueues("T", 0, 1)
	locks.lockBatch("g", "a", queues[:1], 0)
	locks.lockBatch("g", "b", queues[1:], 30*time.Second)
	check("two locks", 90*time.Second, true)
	check("both expired", 90*time.Second+1, false)
	if who, ok := locks.holder(g, queues[0], time.Second); !ok || who != "a" {
		t.Errorf("holder %s %t", who, ok)
	}
	if _, ok := locks.holder(g, queues[0], 61*time.Second); ok {
		t.Error("an expired lock has a holder")
	}
	if list := locks.list(61 * time.Second); len(list) != 1 || list[0].ClientID != "b" || list[0].Age != 31*time.Second {
		t.Errorf("%+v", list)
	}
	locks.unlockBatch("g", "b", queues)
	check("the younger lock is gone, the older counts", 60*time.Second, true)
	check("the older expires by itself", 60*time.Second+1, false)
	locks.sweep(61 * time.Second)
	if len(locks.groups) != 0 || locks.count != 0 {
		t.Errorf("%d groups, %d locks after a sweep", len(locks.groups), locks.count)
	}
	locks.lockBatch("g", "a", queues, 100*time.Second)
	if n := testing.AllocsPerRun(100, func() { locks.groupLocked(g, 101*time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestQueueLocksAreBounded(t *testing.T) {
	locks := newQueueLocks(quiet())
	locks.count = maxQueueLocks - 1 // as if others had them
	queues := lockQueues("T", 0, 1)
	if got := locks.lockBatch("g", "a", queues, 0); !slices.Equal(got, queues[:1]) {
		t.Errorf("granted %v", got)
	}
	if got := locks.lockBatch("g", "b", queues[1:], 62*time.Second); !slices.Equal(got, queues[1:]) {
		t.Errorf("expired locks are not given up when the table is full: %v", got)
	}
	long := strings.Repeat("x", 2000)
	for _, c := range [][3]string{{long, "a", "T"}, {"g", long, "T"}, {"g", "a", long}, {"g", "", "T"}} {
		if got := newQueueLocks(quiet()).lockBatch(c[0], c[1], lockQueues(c[2], 0), 0); len(got) != 0 {
			t.Errorf("%.9q: granted", c)
		}
	}
}
