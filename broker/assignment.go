package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmq/ringmq/client"
	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Sharing of queues by the broker, for consumers with clientRebalance=false. Does the work of QueryAssignmentProcessor. A member that cannot be
// given queues gets an error and keeps those that it has.

// maxAssigned bounds the queues of one topic in all brokers.
const maxAssigned = 100_000

// queryAssignment handles QUERY_ASSIGNMENT: the queues of a topic that one member of a group is to consume.
func queryAssignment(r *request) *answer {
	var q remoting.QueryAssignmentBody
	if err := remoting.DecodeBody(r.cmd.Body, &q); err != nil {
		return failed(err)
	}
	return r.later(func() *answer {
		ctx, cancel := context.WithTimeout(context.Background(), routeTimeout)
		defer cancel()
		queues, err := r.b.assign(ctx, &q)
		if err != nil {
			return failed(err)
		}
		body := remoting.QueryAssignmentResult{MessageQueueAssignments: make([]remoting.MessageQueueAssignment, 0, len(queues))}
		for _, mq := range queues {
			// POP comes with a later version, so a group that Java's broker has set to it pulls.
			body.MessageQueueAssignments = append(body.MessageQueueAssignments, remoting.MessageQueueAssignment{MessageQueue: mq, Mode: modePull})
		}
		return r.bounded(body)
	})
}

// routeTimeout is how long a name server may take.
const routeTimeout = 3 * time.Second

func (b *Broker) assign(ctx context.Context, q *remoting.QueryAssignmentBody) ([]remoting.MessageQueue, error) {
	queues, err := b.queuesOf(ctx, q.Topic)
	if err != nil || q.MessageModel == remoting.Broadcasting {
		return queues, err
	}
	if q.MessageModel != remoting.Clustering {
		return nil, refuse(remoting.RespInvalidParameter, "no queues are shared in the model %.64q", string(q.MessageModel))
	}
	members := b.clients.clientIDs(q.ConsumerGroup)
	at := slices.Index(members, q.ClientID)
	switch {
	case at < 0:
		return nil, refuse(remoting.RespConsumerNotOnline, "client %.1024s is no member of group %.255s", q.ClientID, q.ConsumerGroup)
	case q.StrategyName == "AVG":
		return shareAveragely(queues, at, len(members)), nil
	case q.StrategyName == "AVG_BY_CIRCLE":
		return shareByCircle(queues, at, len(members)), nil
	}
	return nil, refuse(remoting.RespInvalidParameter, "unsupported strategy [%.64s]", q.StrategyName)
}

// shareAveragely gives each member a run of neighbours; the first members get one more where the numbers do not divide.
func shareAveragely(queues []remoting.MessageQueue, member, members int) []remoting.MessageQueue {
	each, rest := len(queues)/members, len(queues)%members
	from := member*each + min(member, rest)
	to := from + each
	if member < rest {
		to++
	}
	return queues[from:to]
}

// shareByCircle deals the queues out like cards.
func shareByCircle(queues []remoting.MessageQueue, member, members int) (share []remoting.MessageQueue) {
	for i := member; i < len(queues); i += members {
		share = append(share, queues[i])
	}
	return share
}

// queuesOf are the queues that consumers of a topic may read, in all brokers, in the clients' order.
func (b *Broker) queuesOf(ctx context.Context, topic string) ([]remoting.MessageQueue, error) {
	if strings.HasPrefix(topic, message.LMQPrefix) {
		return []remoting.MessageQueue{b.messageQueue(topic, 0)}, nil
	}
	parts, err := b.topicRoutes.readable(ctx, b, topic)
	if err != nil {
		return nil, err
	}
	var queues []remoting.MessageQueue
	for _, part := range parts {
		if len(queues)+part.Read > maxAssigned {
			return nil, refuse(remoting.RespSystemError, "topic %s has more than %d queues", topic, maxAssigned)
		}
		for id := range part.Read {
			queues = append(queues, remoting.MessageQueue{BrokerName: part.Broker, QueueID: int32(id), Topic: topic})
		}
	}
	slices.SortFunc(queues, remoting.MessageQueue.Compare)
	return queues, nil
}

// topicRoutes asks name servers where topics are. Does the work of TopicRouteInfoManager.
type topicRoutes struct {
	mu      sync.Mutex
	servers *client.NameServers
	addrs   string // what servers was made of
}

// readable are the parts of a topic that may be read: all that the name servers know, or this broker's own when it has no name server.
func (t *topicRoutes) readable(ctx context.Context, b *Broker, topic string) ([]client.Queues, error) {
	servers, err := t.current(b.register.servers(), b.outgoing)
	if err != nil {
		return nil, err
	}
	var parts []client.Queues
	if servers != nil {
		route, err := servers.Route(ctx, topic)
		if err != nil {
			return nil, routeError(topic, err)
		}
		parts = slices.Clone(route.Queues)
	} else if own := b.topics.find(topic); own != nil {
		c := b.register.masked(own.config.Load())
		parts = []client.Queues{{Broker: b.cfg.Load().BrokerName, Read: int(c.ReadQueueNums), Perm: int(c.Perm)}}
	} else {
		return nil, refuse(remoting.RespTopicNotExist, "topic[%s] not exist", topic)
	}
	return slices.DeleteFunc(parts, func(q client.Queues) bool { return q.Perm&remoting.PermRead == 0 || q.Read < 0 }), nil
}

func routeError(topic string, err error) error {
	if code := new(client.CodeError); errors.As(err, &code) {
		return refuse(code.Code, "%s", cmp.Or(code.Remark, "no route of topic "+topic))
	}
	return err
}

// current is nil without an error when there is no name server.
func (t *topicRoutes) current(addrs []string, o client.Options) (*client.NameServers, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.Join(addrs, ";")
	if text == t.addrs {
		return t.servers, nil
	}
	t.closeLocked()
	if text == "" {
		return nil, nil
	}
	servers, err := client.NewNameServers(addrs, o)
	if err == nil {
		t.servers, t.addrs = servers, text
	}
	return servers, err
}

func (t *topicRoutes) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closeLocked()
}

func (t *topicRoutes) closeLocked() {
	if t.servers != nil {
		_ = t.servers.Close()
	}
	t.servers, t.addrs = nil, ""
}
