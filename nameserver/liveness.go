package nameserver

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ringmq/ringmq/netpath"
	"github.com/ringmq/ringmq/remoting"
)

const (
	// defaultLease is how long a broker that does not say otherwise stays in the tables without a word.
	defaultLease = 120 * time.Second
	// maxLease keeps a broker's number from meaning for ever.
	maxLease = 24 * time.Hour
)

// peer is one connection as the tables see it: the identity of whoever registered through it.
type peer struct {
	conn *netpath.Conn // nil in tests of the tables
	addr netip.AddrPort
	// closed is set before the tables are told that the connection is gone; a registration that was under way on another goroutine
	// looks at it after it has put its broker in. One of the two always removes the broker.
	closed atomic.Bool
}

// liveBroker keeps one address in the tables.
type liveBroker struct {
	name  string // broker name
	id    int64
	ha    string // haServerAddr
	lease time.Duration
	// lastSeen is monotonic time; heartbeats set it under a read lock.
	lastSeen atomic.Int64
	version  remoting.DataVersion
	peer     *peer // the connection of the last registration
}

// lease clamps what a broker asks for.
func lease(millis int64) time.Duration {
	if millis <= 0 {
		return defaultLease
	}
	return min(time.Duration(min(millis, maxLease.Milliseconds()))*time.Millisecond, maxLease)
}

// seen notes a word from a broker and answers its data version; ok is false for an unknown one.
func (r *routes) seen(a brokerAddr, now time.Duration) (version remoting.DataVersion, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	l := r.live[a]
	if l == nil {
		return remoting.DataVersion{}, false
	}
	l.lastSeen.Store(int64(now))
	return l.version, true
}

// keepLocked puts a broker into the live table, in place of what stands there for its address.
func (r *routes) keepLocked(a brokerAddr, l *liveBroker) {
	r.forgetLocked(a)
	r.live[a] = l
	if r.byPeer[l.peer] == nil {
		r.byPeer[l.peer] = make(map[brokerAddr]struct{})
	}
	r.byPeer[l.peer][a] = struct{}{}
}

// forgetLocked takes an address out of the live table.
func (r *routes) forgetLocked(a brokerAddr) {
	l := r.live[a]
	if l == nil {
		return
	}
	delete(r.live, a)
	delete(r.byPeer[l.peer], a)
	if len(r.byPeer[l.peer]) == 0 {
		delete(r.byPeer, l.peer)
	}
}

// keeps says whether a connection has registered a broker that is still here.
func (r *routes) keeps(p *peer) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byPeer[p]) > 0
}

// of lists the brokers that a connection registered.
func (r *routes) of(p *peer) (gone []removal) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for a := range r.byPeer[p] {
		l := r.live[a]
		gone = append(gone, removal{a, l.name, l.id})
	}
	return gone
}

// silent lists the brokers whose lease has run out, and their connections.
func (r *routes) silent(now time.Duration, log *slog.Logger) (gone []removal, peers []*peer) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for a, l := range r.live {
		quiet := now - time.Duration(l.lastSeen.Load())
		if quiet <= l.lease {
			continue
		}
		log.Warn("broker is silent for too long, removing it", "broker", l.name, "brokerId", l.id, "addr", a.addr, "silent", quiet, "lease", l.lease)
		gone = append(gone, removal{a, l.name, l.id})
		peers = append(peers, l.peer)
	}
	return gone, peers
}
