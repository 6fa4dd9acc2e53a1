package broker

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

const (
	// queueLockLife is how long a lock lives without being renewed (rocketmq.broker.rebalance.lockMaxLiveTime).
	queueLockLife = 60 * time.Second
	// maxQueueLocks bounds the locks of all groups, expired ones included. A lock for one more queue is not granted; the client asks again in 20 s.
	maxQueueLocks = 1 << 20
)

// queueLocks says which member of a group consumes a queue in order. Locks are in memory only. Does the work of RebalanceLockManager.
// All times are readings of one monotonic clock.
type queueLocks struct {
	log *slog.Logger

	mu     sync.Mutex
	groups map[string]*groupLocks
	count  int           // locks in all groups
	swept  time.Duration // when a full table was last searched for expired locks
}

type groupLocks struct {
	queues map[remoting.MessageQueue]*queueLock
	newest time.Duration // Invariant: no lock of the group was renewed later
}

type queueLock struct {
	clientID string
	renewed  time.Duration
}

func (l *queueLock) expired(now time.Duration) bool { return now-l.renewed > queueLockLife }

func newQueueLocks(log *slog.Logger) *queueLocks {
	return &queueLocks{log: log, groups: map[string]*groupLocks{}}
}

// lockBatch renews the locks that the client has and takes those that nobody has; it returns the queues that the client now holds.
// Names that are too long are not granted.
func (l *queueLocks) lockBatch(group, clientID string, queues []remoting.MessageQueue, now time.Duration) []remoting.MessageQueue {
	if !fitName(group) || !fitClientID(clientID) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[group]
	if g == nil {
		g = &groupLocks{queues: map[remoting.MessageQueue]*queueLock{}}
	}
	granted := make([]remoting.MessageQueue, 0, len(queues))
	for _, q := range queues {
		if fitName(q.Topic) && fitName(q.BrokerName) && l.lockOneLocked(g, group, clientID, q, now) {
			granted = append(granted, q)
			g.newest = max(g.newest, now)
		}
	}
	if len(g.queues) > 0 {
		l.groups[group] = g
	}
	return granted
}

func (l *queueLocks) lockOneLocked(g *groupLocks, group, clientID string, q remoting.MessageQueue, now time.Duration) bool {
	lock := g.queues[q]
	switch {
	case lock == nil:
		if l.count >= maxQueueLocks && now-l.swept >= time.Second {
			l.sweepLocked(now)
		}
		if l.count >= maxQueueLocks {
			l.log.Warn("queue not locked: too many locks", "group", group, "client", clientID, "limit", maxQueueLocks)
			return false
		}
		lock = &queueLock{}
		g.queues[q] = lock
		l.count++
		l.log.Info("queue locked", "group", group, "client", clientID, "topic", q.Topic, "queueId", q.QueueID)
	case lock.clientID == clientID:
	case lock.expired(now):
		l.log.Warn("queue lock taken over from a client that did not renew it", "group", group, "client", clientID, "before", lock.clientID,
			"topic", q.Topic, "queueId", q.QueueID)
	default:
		return false
	}
	lock.clientID, lock.renewed = clientID, now
	return true
}

// unlockBatch gives the client's locks back; others' stay.
func (l *queueLocks) unlockBatch(group, clientID string, queues []remoting.MessageQueue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[group]
	if g == nil {
		return
	}
	for _, q := range queues {
		if lock := g.queues[q]; lock != nil && lock.clientID == clientID {
			delete(g.queues, q)
			l.count--
		}
	}
	l.tidyLocked(group, g)
}

// tidyLocked sets newest right after locks have gone, and drops a group without locks.
func (l *queueLocks) tidyLocked(group string, g *groupLocks) {
	if len(g.queues) == 0 {
		delete(l.groups, group)
		return
	}
	first := true
	for _, lock := range g.queues {
		if first || lock.renewed > g.newest {
			g.newest, first = lock.renewed, false
		}
	}
}

// groupLocked tells whether some member of the group consumes in order now: such a group's failed messages go to the dead letter topic.
func (l *queueLocks) groupLocked(group []byte, now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[string(group)]
	return g != nil && now-g.newest <= queueLockLife
}

// holder is the client that holds the queue now.
func (l *queueLocks) holder(group []byte, q remoting.MessageQueue, now time.Duration) (clientID string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[string(group)]
	if g == nil {
		return "", false
	}
	lock := g.queues[q]
	if lock == nil || lock.expired(now) {
		return "", false
	}
	return lock.clientID, true
}

// sweep drops locks that expired; to be called now and then.
func (l *queueLocks) sweep(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked(now)
}

func (l *queueLocks) sweepLocked(now time.Duration) {
	l.swept = now
	for group, g := range l.groups {
		for q, lock := range g.queues {
			if lock.expired(now) {
				delete(g.queues, q)
				l.count--
			}
		}
		l.tidyLocked(group, g)
	}
}

// lockedQueue is one line of list.
type lockedQueue struct {
	Group, ClientID string
	Queue           remoting.MessageQueue
	Age             time.Duration // since it was renewed
}

// list returns the locks that have not expired, by group and queue.
func (l *queueLocks) list(now time.Duration) []lockedQueue {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []lockedQueue
	for group, g := range l.groups {
		for q, lock := range g.queues {
			if !lock.expired(now) {
				all = append(all, lockedQueue{group, lock.clientID, q, now - lock.renewed})
			}
		}
	}
	slices.SortFunc(all, func(a, b lockedQueue) int {
		if c := strings.Compare(a.Group, b.Group); c != 0 {
			return c
		}
		return a.Queue.Compare(b.Queue)
	})
	return all
}
