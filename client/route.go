package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// MasterID is the broker id of a master.
const MasterID = 0

// Broker is one broker set: its name, its cluster and its addresses by broker id.
type Broker struct {
	Name    string           `json:"brokerName"`
	Cluster string           `json:"cluster"`
	Addrs   map[int64]string `json:"brokerAddrs"`
}

// Master is the address of the master, "" when the route names none.
func (b *Broker) Master() string { return b.Addrs[MasterID] }

// Queues is what one broker set has of a topic.
type Queues struct {
	Broker string `json:"brokerName"`
	Read   int    `json:"readQueueNums"`
	Write  int    `json:"writeQueueNums"`
	Perm   int    `json:"perm"`
}

// Route is where a topic is: what a client needs of TopicRouteData.
type Route struct {
	Queues    []Queues `json:"queueDatas"`
	Brokers   []Broker `json:"brokerDatas"`
	OrderConf string   `json:"orderTopicConf"`
}

// Broker finds a broker set by name; nil when the route does not have it.
func (r *Route) Broker(name string) *Broker {
	for i := range r.Brokers {
		if r.Brokers[i].Name == name {
			return &r.Brokers[i]
		}
	}
	return nil
}

// Cluster is what a name server knows of all clusters: what a client needs of ClusterInfo.
type Cluster struct {
	Brokers  map[string]Broker   `json:"brokerAddrTable"`
	Clusters map[string][]string `json:"clusterAddrTable"`
}

// Masters lists the addresses of all masters, in the order of the brokers' names; cluster "" means every cluster.
func (c *Cluster) Masters(cluster string) []string {
	var addrs []string
	for _, name := range slices.Sorted(maps.Keys(c.Brokers)) {
		b := c.Brokers[name]
		if addr := b.Master(); addr != "" && (cluster == "" || cluster == b.Cluster) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// routeTTL is how long a route is believed. The official clients ask every 30 s, too.
const routeTTL = 30 * time.Second

// maxRoutes bounds the cache; past it, it starts anew.
const maxRoutes = 10000

// NameServers asks the first name server that answers, and keeps to it until it fails.
type NameServers struct {
	addrs   []string
	options Options

	mu     sync.Mutex
	conn   *Conn
	at     int // index in addrs of the one that conn is, or that is tried next
	routes map[string]cachedRoute
	now    func() time.Time
}

type cachedRoute struct {
	route   *Route
	expires time.Time
}

// NewNameServers takes addresses ("host:port", or several in one text separated by ";"). Nothing is dialled yet.
func NewNameServers(addrs []string, o Options) (*NameServers, error) {
	n := &NameServers{options: o, routes: map[string]cachedRoute{}, now: time.Now}
	for _, text := range addrs {
		n.addrs = append(n.addrs, strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == ',' || r == ' ' })...)
	}
	if len(n.addrs) == 0 {
		return nil, errors.New("no name server address given")
	}
	return n, nil
}

// Close ends the connection.
func (n *NameServers) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil {
		return nil
	}
	err := n.conn.Close()
	n.conn = nil
	return err
}

// Route is where topic is, at most 30 s old. A topic that no name server knows is a *CodeError with code 17.
func (n *NameServers) Route(ctx context.Context, topic string) (*Route, error) {
	n.mu.Lock()
	cached, ok := n.routes[topic]
	fresh := ok && n.now().Before(cached.expires)
	n.mu.Unlock()
	if fresh {
		return cached.route, nil
	}
	return n.Refresh(ctx, topic)
}

// Refresh asks for the route of topic, whatever the cache says.
func (n *NameServers) Refresh(ctx context.Context, topic string) (*Route, error) {
	response, err := n.Invoke(ctx, Request{
		Code:   remoting.ReqGetRouteinfoByTopic,
		Fields: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"},
	})
	if err != nil {
		return nil, err
	}
	if err := response.Err(); err != nil {
		return nil, err
	}
	route := new(Route)
	if err := remoting.DecodeBody(response.Body, route); err != nil {
		return nil, fmt.Errorf("route of topic %s: %w", topic, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.routes) >= maxRoutes {
		clear(n.routes)
	}
	n.routes[topic] = cachedRoute{route, n.now().Add(routeTTL)}
	return route, nil
}

// Cluster asks for all clusters and brokers.
func (n *NameServers) Cluster(ctx context.Context) (*Cluster, error) {
	response, err := n.Invoke(ctx, Request{Code: remoting.ReqGetBrokerClusterInfo})
	if err != nil {
		return nil, err
	}
	if err := response.Err(); err != nil {
		return nil, err
	}
	cluster := new(Cluster)
	if err := remoting.DecodeBody(response.Body, cluster); err != nil {
		return nil, fmt.Errorf("cluster info: %w", err)
	}
	return cluster, nil
}

// Invoke sends a request to the name server in use; one that fails is left for the next, each tried once.
func (n *NameServers) Invoke(ctx context.Context, r Request) (*Response, error) {
	var errs []error
	for range n.addrs {
		conn, err := n.current(ctx)
		if err == nil {
			var response *Response
			if response, err = conn.Invoke(ctx, r); err == nil {
				return response, nil
			}
		}
		errs = append(errs, err)
		n.leave(conn)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (n *NameServers) current(ctx context.Context) (*Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil && n.conn.Err() == nil {
		return n.conn, nil
	}
	n.conn = nil
	conn, err := Dial(ctx, n.addrs[n.at], n.options)
	if err != nil {
		return nil, err
	}
	n.conn = conn
	return conn, nil
}

// leave goes on to the next address, unless another caller has done so already.
func (n *NameServers) leave(failed *Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != failed {
		return
	}
	if n.conn != nil {
		_ = n.conn.Close()
		n.conn = nil
	}
	n.at = (n.at + 1) % len(n.addrs)
}
