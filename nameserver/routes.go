package nameserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ringmq/ringmq/remoting"
)

// Bounds of the tables. A registration that would go past one is refused as a whole.
const (
	maxName       = 255     // bytes in a name of a topic, broker, cluster or zone, and in an address
	maxBrokers    = 16384   // addresses
	maxTopicRows  = 2 << 20 // topic × broker
	maxFilterList = 64
)

// syncMemberPrefix begins the topics through which the members of a broker group find each other; they never get an acting master.
const syncMemberPrefix = "rmq_sys_SYNC_BROKER_MEMBER_"

// routes are the tables. Does the work of RouteInfoManager.
//
// Invariant: a broker name is in brokers exactly while it has an address; it is in at least one cluster then, and in none otherwise.
// Invariant: a row of topics has at least one queue entry. rows is the number of all queue entries.
// Invariant: an entry of live has its address in brokers, and byPeer names it exactly while its peer is set.
type routes struct {
	// epoch counts changes that a route can show. Encoded routes of another epoch are not used. Written under mu.
	epoch atomic.Uint64

	mu       sync.RWMutex
	topics   map[string]*topicRow
	rows     int
	brokers  map[string]*remoting.BrokerData   // by broker name
	clusters map[string]map[string]struct{}    // cluster → broker names
	live     map[brokerAddr]*liveBroker        // who keeps an address alive
	byPeer   map[*peer]map[brokerAddr]struct{} // what falls when a connection closes
	filters  map[brokerAddr][]string           // filter servers of old brokers
}

// brokerAddr identifies one broker process.
type brokerAddr struct{ cluster, addr string }

// topicRow is one topic. Its maps are guarded by routes.mu.
type topicRow struct {
	queues   map[string]*remoting.QueueData            // by broker name
	mappings map[string]remoting.TopicQueueMappingInfo // static topics; by broker name
	encoded  atomic.Pointer[encodedRoute]
}

// encodedRoute is an answer to GET_ROUTEINFO_BY_TOPIC that holds as long as nothing changes.
type encodedRoute struct {
	epoch    uint64
	acting   bool // supportActingMaster was on
	raw      []byte
	standard []byte
}

func newRoutes() *routes {
	return &routes{
		topics: make(map[string]*topicRow), brokers: make(map[string]*remoting.BrokerData), clusters: make(map[string]map[string]struct{}),
		live: make(map[brokerAddr]*liveBroker), byPeer: make(map[*peer]map[brokerAddr]struct{}), filters: make(map[brokerAddr][]string),
	}
}

func (r *routes) changedLocked() { r.epoch.Add(1) }

// encodedRoute answers a route request without options: the body, nil when the topic is unknown. The caller must not change it.
func (r *routes) encodedRoute(topic []byte, standard, acting bool) []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	row := r.topics[string(topic)]
	if row == nil {
		return nil
	}
	e := row.encoded.Load()
	if epoch := r.epoch.Load(); e == nil || e.epoch != epoch || e.acting != acting {
		data := r.routeLocked(string(topic), row, acting)
		if data == nil {
			return nil
		}
		e = &encodedRoute{epoch: epoch, acting: acting, raw: remoting.EncodeBody(data), standard: remoting.EncodeStandardBody(data)}
		row.encoded.Store(e)
	}
	if standard {
		return e.standard
	}
	return e.raw
}

// route puts the route of a topic together, nil when the topic is unknown or none of its brokers is left.
func (r *routes) route(topic string, acting bool) *remoting.TopicRouteData {
	r.mu.RLock()
	defer r.mu.RUnlock()
	row := r.topics[topic]
	if row == nil {
		return nil
	}
	return r.routeLocked(topic, row, acting)
}

func (r *routes) routeLocked(topic string, row *topicRow, acting bool) *remoting.TopicRouteData {
	data := &remoting.TopicRouteData{FilterServerTable: make(map[string][]string), TopicQueueMappingByBroker: maps.Clone(row.mappings)}
	for _, name := range slices.Sorted(maps.Keys(row.queues)) {
		queue := *row.queues[name]
		data.QueueDatas = append(data.QueueDatas, queue)
		broker := r.brokers[name]
		if broker == nil {
			continue
		}
		shown := *broker
		shown.BrokerAddrs = maps.Clone(broker.BrokerAddrs)
		for _, addr := range shown.BrokerAddrs {
			if list := r.filters[brokerAddr{shown.Cluster, addr}]; list != nil {
				data.FilterServerTable[addr] = list
			}
		}
		if acting && !strings.HasPrefix(topic, syncMemberPrefix) {
			showActingMaster(&shown, &queue)
		}
		data.BrokerDatas = append(data.BrokerDatas, shown)
	}
	if len(data.BrokerDatas) == 0 {
		return nil
	}
	return data
}

// showActingMaster shows the slave with the smallest id as master where there is none and the queues are read only, so that consumers
// that read from masters only go on.
func showActingMaster(broker *remoting.BrokerData, queue *remoting.QueueData) {
	if _, ok := broker.BrokerAddrs[remoting.MasterID]; ok || !broker.EnableActingMaster || queue.Perm&remoting.PermWrite != 0 {
		return
	}
	if id, ok := minID(broker.BrokerAddrs); ok {
		broker.BrokerAddrs[remoting.MasterID] = broker.BrokerAddrs[id]
		delete(broker.BrokerAddrs, id)
	}
}

func minID(addrs map[int64]string) (id int64, ok bool) {
	for i := range addrs {
		if !ok || i < id {
			id, ok = i, true
		}
	}
	return id, ok
}

// inZone leaves of a route what a client in that zone is to use: the brokers there, and groups without a master from anywhere. Does the
// work of ZoneRouteRPCHook.
func inZone(data *remoting.TopicRouteData, zone string) {
	away := make(map[string]bool)
	data.BrokerDatas = slices.DeleteFunc(data.BrokerDatas, func(b remoting.BrokerData) bool {
		if _, master := b.BrokerAddrs[remoting.MasterID]; !master || strings.EqualFold(b.ZoneName, zone) {
			return false
		}
		away[b.BrokerName] = true
		for _, addr := range b.BrokerAddrs {
			delete(data.FilterServerTable, addr)
		}
		return true
	})
	data.QueueDatas = slices.DeleteFunc(data.QueueDatas, func(q remoting.QueueData) bool { return away[q.BrokerName] })
}

func (r *routes) clusterInfo() *remoting.ClusterInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	info := &remoting.ClusterInfo{BrokerAddrTable: make(map[string]remoting.BrokerData), ClusterAddrTable: make(map[string][]string)}
	for name, b := range r.brokers {
		shown := *b
		shown.BrokerAddrs = maps.Clone(b.BrokerAddrs)
		info.BrokerAddrTable[name] = shown
	}
	for cluster, names := range r.clusters {
		info.ClusterAddrTable[cluster] = slices.Sorted(maps.Keys(names))
	}
	return info
}

func (r *routes) memberGroup(cluster, name string) remoting.BrokerMemberGroup {
	r.mu.RLock()
	defer r.mu.RUnlock()
	group := remoting.BrokerMemberGroup{BrokerName: name, Cluster: cluster}
	if b := r.brokers[name]; b != nil {
		group.BrokerAddrs = maps.Clone(b.BrokerAddrs)
	}
	return group
}

// topicList lists the topics that want says yes to, sorted.
func (r *routes) topicList(want func(row *topicRow) bool) remoting.TopicList {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := remoting.TopicList{TopicList: make([]string, 0, len(r.topics))}
	for topic, row := range r.topics {
		if want(row) {
			list.TopicList = append(list.TopicList, topic)
		}
	}
	slices.Sort(list.TopicList)
	return list
}

// clusterTopics lists the topics of a cluster's brokers.
func (r *routes) clusterTopics(cluster string) remoting.TopicList {
	r.mu.RLock()
	names := maps.Clone(r.clusters[cluster])
	r.mu.RUnlock()
	return r.topicList(func(row *topicRow) bool {
		for name := range row.queues {
			if _, ok := names[name]; ok {
				return true
			}
		}
		return false
	})
}

// sysFlagTopics lists the topics whose topicSysFlag has the bits of must and none of mustNot.
func (r *routes) sysFlagTopics(must, mustNot int32) remoting.TopicList {
	return r.topicList(func(row *topicRow) bool {
		// All brokers of a topic have the same flag; where they do not, the first name decides and not chance.
		first := slices.Min(slices.Collect(maps.Keys(row.queues)))
		flag := row.queues[first].TopicSysFlag
		return flag&must == must && flag&mustNot == 0
	})
}

// systemTopics lists the names of clusters and brokers, which are topics too, with the address of one broker to ask for more.
func (r *routes) systemTopics() remoting.TopicList {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := make(map[string]struct{})
	for cluster, brokers := range r.clusters {
		names[cluster] = struct{}{}
		maps.Copy(names, brokers)
	}
	list := remoting.TopicList{TopicList: slices.Sorted(maps.Keys(names))}
	for _, name := range slices.Sorted(maps.Keys(r.brokers)) {
		if id, ok := minID(r.brokers[name].BrokerAddrs); ok {
			list.BrokerAddr = r.brokers[name].BrokerAddrs[id]
			break
		}
	}
	return list
}

// setPerm applies change to the permission of all rows of a broker and answers how many there are.
func (r *routes) setPerm(broker string, change func(perm int32) int32) (count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.topics {
		if q := row.queues[broker]; q != nil {
			q.Perm = change(q.Perm)
			count++
		}
	}
	r.changedLocked()
	return count
}

// deleteTopic removes a topic, from the brokers of one cluster if one is given.
func (r *routes) deleteTopic(topic, cluster string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.topics[topic]
	if row == nil {
		return
	}
	for name := range row.queues {
		if _, in := r.clusters[cluster][name]; in || cluster == "" {
			r.removeRowLocked(topic, row, name)
		}
	}
	r.changedLocked()
}

// setQueues stores what REGISTER_TOPIC_IN_NAMESRV says about one topic.
func (r *routes) setQueues(topic string, queues []remoting.QueueData) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rows+len(queues) > maxTopicRows {
		return errTopicTable
	}
	for _, q := range queues {
		if r.brokers[q.BrokerName] == nil {
			return fmt.Errorf("broker %s has not registered", q.BrokerName)
		}
	}
	for _, q := range queues {
		r.putRowLocked(topic, q)
	}
	return nil
}

// putRowLocked stores the queues of a topic on one broker.
func (r *routes) putRowLocked(topic string, q remoting.QueueData) {
	row := r.topics[topic]
	if row == nil {
		row = &topicRow{queues: make(map[string]*remoting.QueueData)}
		r.topics[topic] = row
	}
	old := row.queues[q.BrokerName]
	if old == nil {
		r.rows++
	} else if *old == q {
		return
	}
	row.queues[q.BrokerName] = &q
	r.changedLocked()
}

// removeRowLocked removes the queues of a topic on one broker, and the topic with the last of them.
func (r *routes) removeRowLocked(topic string, row *topicRow, broker string) {
	if row.queues[broker] == nil {
		return
	}
	delete(row.queues, broker)
	delete(row.mappings, broker)
	r.rows--
	r.changedLocked()
	if len(row.queues) == 0 {
		delete(r.topics, topic)
	}
}
