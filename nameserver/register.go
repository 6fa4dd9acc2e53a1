package nameserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

var (
	errTopicTable  = fmt.Errorf("the name server holds its limit of %d topic rows: delete unused topics or run a second cluster", maxTopicRows)
	errBrokerTable = fmt.Errorf("the name server holds its limit of %d brokers", maxBrokers)
	// errNotYet is Java's answer to a single topic of a broker that has not registered as a whole.
	errNotYet = errors.New("register broker failed")
)

// registration is one REGISTER_BROKER request.
type registration struct {
	brokerAddr
	name        string
	id          int64
	ha          string
	zone        string
	lease       time.Duration
	actingAware bool // says anything about acting masters: brokers before 5.0 do not
	acting      bool // wants one
	body        *remoting.RegisterBrokerBody
	peer        *peer
	dropOld     bool // deleteTopicWithBrokerRegistration
}

// registered is what the broker learns.
type registered struct {
	haServerAddr, masterAddr string // of the master, for slaves
	isNew                    bool
	yields                   bool // another address holds the id with a newer state: nothing was taken
	// notice is for the members of the group when the smallest id is another one now.
	notice *minIDNotice
}

// minIDNotice is a NOTIFY_MIN_BROKER_ID_CHANGE to be sent.
type minIDNotice struct {
	name        string
	minID       int64
	minAddr     string
	offlineAddr string
	haAddr      string
	to          []string
}

// register takes a broker and its topics in. The order of its steps is Java's, because brokers of both kinds fail over by it.
func (r *routes) register(reg *registration, now time.Duration) (registered, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.roomLocked(reg); err != nil {
		return registered{}, err
	}
	if l := r.live[reg.brokerAddr]; l != nil && l.name != reg.name {
		r.unregisterLocked([]removal{{reg.brokerAddr, l.name, l.id}}) // the process has another name now
	}
	broker, first := r.brokers[reg.name], false
	if broker == nil {
		broker, first = &remoting.BrokerData{BrokerAddrs: make(map[int64]string), BrokerName: reg.name, Cluster: reg.cluster}, true
	}
	addrs := broker.BrokerAddrs
	if r.yieldsLocked(reg, addrs[reg.id]) {
		r.unregisterLocked([]removal{{reg.brokerAddr, reg.name, reg.id}})
		return registered{yields: true}, nil
	}
	if _, has := addrs[reg.id]; !has && len(reg.body.Topics.TopicConfigTable) == 1 {
		return registered{}, errNotYet
	}
	prevMin, _ := minID(addrs)
	// The same address has one id: a slave that became master leaves its old one.
	for id, addr := range addrs {
		if addr == reg.addr && id != reg.id {
			delete(addrs, id)
			r.changedLocked()
		}
	}
	old, has := addrs[reg.id]
	first = first || !has
	if has && old != reg.addr {
		// The holder before has lost its place; when it falls silent it must not take the newcomer's with it.
		r.forgetLocked(brokerAddr{broker.Cluster, old})
	}
	r.enterLocked(reg, broker, old)
	r.takeTopicsLocked(reg, broker, first)
	result := registered{isNew: r.live[reg.brokerAddr] == nil}
	l := &liveBroker{name: reg.name, id: reg.id, ha: reg.ha, lease: reg.lease, version: reg.body.Topics.DataVersion, peer: reg.peer}
	l.lastSeen.Store(int64(now))
	r.keepLocked(reg.brokerAddr, l)
	r.takeFiltersLocked(reg)
	if reg.id != remoting.MasterID {
		if master, ok := addrs[remoting.MasterID]; ok {
			if m := r.live[brokerAddr{reg.cluster, master}]; m != nil {
				result.haServerAddr, result.masterAddr = m.ha, master
			}
		}
	}
	if reg.id < prevMin {
		result.notice = r.noticeLocked(broker, "", reg.ha)
	}
	return result, nil
}

// roomLocked refuses what would go past the bounds of the tables.
func (r *routes) roomLocked(reg *registration) error {
	if len(r.live) >= maxBrokers && r.live[reg.brokerAddr] == nil {
		return errBrokerTable
	}
	rows := r.rows
	for name := range reg.body.Topics.TopicConfigTable {
		if row := r.topics[name]; row == nil || row.queues[reg.name] == nil {
			rows++
		}
	}
	if rows > maxTopicRows {
		return errTopicTable
	}
	return nil
}

// yieldsLocked says that the id belongs to another address whose state is newer: an old master that comes back must not take over.
func (r *routes) yieldsLocked(reg *registration, holder string) bool {
	if holder == "" || holder == reg.addr {
		return false
	}
	l := r.live[brokerAddr{reg.cluster, holder}]
	return l != nil && l.version.StateVersion > reg.body.Topics.DataVersion.StateVersion
}

// enterLocked puts the broker's address and properties into the tables. old is who held its id.
func (r *routes) enterLocked(reg *registration, broker *remoting.BrokerData, old string) {
	if r.clusters[reg.cluster] == nil {
		r.clusters[reg.cluster] = make(map[string]struct{})
	}
	r.clusters[reg.cluster][reg.name] = struct{}{}
	if old != reg.addr || r.brokers[reg.name] == nil || broker.EnableActingMaster != reg.acting || broker.ZoneName != reg.zone {
		broker.EnableActingMaster, broker.ZoneName = reg.acting, reg.zone
		broker.BrokerAddrs[reg.id] = reg.addr
		r.brokers[reg.name] = broker
		r.changedLocked()
	}
}

// takeTopicsLocked stores the topics of a master, or of the slave that stands in for it (the prime slave).
func (r *routes) takeTopicsLocked(reg *registration, broker *remoting.BrokerData, first bool) {
	smallest, _ := minID(broker.BrokerAddrs)
	prime := reg.actingAware && reg.id != remoting.MasterID && reg.id == smallest
	if reg.id != remoting.MasterID && !prime {
		return
	}
	topics := &reg.body.Topics
	if reg.dropOld && len(topics.TopicQueueMappingInfoMap) == 0 {
		for name, row := range r.topics {
			if _, stays := topics.TopicConfigTable[name]; !stays {
				r.removeRowLocked(name, row, reg.name)
			}
		}
	}
	l := r.live[reg.brokerAddr]
	changed := first || l == nil || l.version != topics.DataVersion
	for name, t := range topics.TopicConfigTable {
		if row := r.topics[name]; !changed && row != nil && row.queues[reg.name] != nil {
			continue
		}
		q := remoting.QueueData{
			BrokerName: reg.name, Perm: t.Perm, ReadQueueNums: t.ReadQueueNums, TopicSysFlag: t.TopicSysFlag, WriteQueueNums: t.WriteQueueNums,
		}
		if prime && broker.EnableActingMaster {
			q.Perm &^= remoting.PermWrite
		}
		r.putRowLocked(name, q)
	}
	if changed {
		r.takeMappingsLocked(topics.TopicQueueMappingInfoMap)
	}
}

// takeMappingsLocked stores where the queues of static topics are, for topics that have a row: the others have no route to show it in.
func (r *routes) takeMappingsLocked(mappings map[string]remoting.TopicQueueMappingInfo) {
	for name, m := range mappings {
		row := r.topics[name]
		if row == nil || row.queues[m.Bname] == nil {
			continue
		}
		if row.mappings == nil {
			row.mappings = make(map[string]remoting.TopicQueueMappingInfo)
		}
		row.mappings[m.Bname] = m
		r.changedLocked()
	}
}

func (r *routes) takeFiltersLocked(reg *registration) {
	if len(reg.body.FilterServerList) > 0 {
		r.filters[reg.brokerAddr] = reg.body.FilterServerList[:min(len(reg.body.FilterServerList), maxFilterList)]
		r.changedLocked()
	} else if r.filters[reg.brokerAddr] != nil {
		delete(r.filters, reg.brokerAddr)
		r.changedLocked()
	}
}

// removal names a broker that is to be removed.
type removal struct {
	brokerAddr
	name string
	id   int64
}

// unregister removes brokers. One pass over the topics serves all of them.
func (r *routes) unregister(gone []removal) (notices []*minIDNotice) {
	if len(gone) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unregisterLocked(gone)
}

// unregisterPeer removes what a closed connection has registered.
func (r *routes) unregisterPeer(p *peer) (gone []removal, notices []*minIDNotice) {
	if gone = r.of(p); len(gone) == 0 {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// In the meantime the broker may have registered again through another connection.
	gone = slices.DeleteFunc(gone, func(g removal) bool { l := r.live[g.brokerAddr]; return l == nil || l.peer != p })
	return gone, r.unregisterLocked(gone)
}

// unregisterSilent removes brokers whose lease has run out, unless they have been heard of since.
func (r *routes) unregisterSilent(gone []removal, now time.Duration) (notices []*minIDNotice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone = slices.DeleteFunc(gone, func(g removal) bool {
		l := r.live[g.brokerAddr]
		return l == nil || now-time.Duration(l.lastSeen.Load()) <= l.lease
	})
	return r.unregisterLocked(gone)
}

func (r *routes) unregisterLocked(gone []removal) (notices []*minIDNotice) {
	removed, reduced := make(map[string]bool), make(map[string]bool)
	for _, g := range gone {
		if l := r.live[g.brokerAddr]; l != nil {
			g.name = l.name // what it registered as counts, not what the request says
		}
		r.forgetLocked(g.brokerAddr)
		delete(r.filters, g.brokerAddr)
		broker := r.brokers[g.name]
		if broker == nil {
			continue
		}
		smallest, _ := minID(broker.BrokerAddrs)
		maps.DeleteFunc(broker.BrokerAddrs, func(_ int64, addr string) bool { return addr == g.addr })
		r.changedLocked()
		switch {
		case r.dropEmptyLocked(broker):
			removed[g.name] = true
			delete(reduced, g.name)
		default:
			reduced[g.name] = true
			if g.id == smallest && broker.EnableActingMaster {
				notices = append(notices, r.noticeLocked(broker, g.addr, ""))
			}
		}
	}
	r.cleanTopicsLocked(removed, reduced)
	return notices
}

// dropEmptyLocked removes a broker name without addresses from the tables of names.
func (r *routes) dropEmptyLocked(broker *remoting.BrokerData) bool {
	if len(broker.BrokerAddrs) > 0 {
		return false
	}
	delete(r.brokers, broker.BrokerName)
	for cluster, names := range r.clusters {
		delete(names, broker.BrokerName)
		if len(names) == 0 {
			delete(r.clusters, cluster)
		}
	}
	return true
}

// cleanTopicsLocked removes the rows of brokers that are gone, and makes those read only whose master is gone and that want an acting one.
func (r *routes) cleanTopicsLocked(removed, reduced map[string]bool) {
	maps.DeleteFunc(reduced, func(name string, _ bool) bool {
		broker := r.brokers[name]
		_, master := broker.BrokerAddrs[remoting.MasterID]
		return master || !broker.EnableActingMaster
	})
	if len(removed)+len(reduced) == 0 {
		return
	}
	for topic, row := range r.topics {
		for name := range reduced {
			if q := row.queues[name]; q != nil {
				q.Perm &^= remoting.PermWrite
			}
		}
		for name := range removed {
			r.removeRowLocked(topic, row, name)
		}
	}
	r.changedLocked()
}

// noticeLocked says who is to be told of a new smallest id: all who are left when one went, the others when one came.
func (r *routes) noticeLocked(broker *remoting.BrokerData, offline, ha string) *minIDNotice {
	smallest, _ := minID(broker.BrokerAddrs)
	n := &minIDNotice{
		name: broker.BrokerName, minID: smallest, minAddr: broker.BrokerAddrs[smallest], offlineAddr: offline, haAddr: ha,
	}
	for _, id := range slices.Sorted(maps.Keys(broker.BrokerAddrs)) {
		if offline != "" || len(broker.BrokerAddrs) == 1 || id != smallest {
			n.to = append(n.to, broker.BrokerAddrs[id])
		}
	}
	return n
}
