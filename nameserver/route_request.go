package nameserver

import (
	"fmt"
	"time"

	"github.com/ringmq/ringmq/remoting"
)

// What clients and tools ask about routes and topics.

// standardJSONVersion is the ordinal of 4.9.4, from which on clients read routes as standard JSON.
const standardJSONVersion = 401

// Fields of a request that wants the brokers of one zone only.
const (
	zoneModeField = "__ZONE_MODE"
	zoneNameField = "__ZONE_NAME"
)

const faq = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."

func getRoute(s *Server, r *request) reply {
	topic, ok := r.Value("topic")
	if !ok {
		return failed(&remoting.FieldError{Key: "topic", Reason: "is null"})
	}
	c := s.config.Load()
	if c.NeedWaitForService && s.now()-s.started < time.Duration(c.WaitSecondsForService)*time.Second {
		return reply{code: remoting.RespSystemError, remark: "name server not ready"}
	}
	standard := r.Version >= standardJSONVersion || r.Bool("acceptStandardJsonOnly", false)
	zone := ""
	if r.Bool(zoneModeField, false) {
		zone = r.String(zoneNameField)
	}
	var body []byte
	if zone == "" && !c.OrderMessageEnable {
		body = s.routes.encodedRoute(topic, standard, c.SupportActingMaster)
	} else {
		body = s.specialRoute(string(topic), zone, standard, c.SupportActingMaster, c.OrderMessageEnable)
	}
	if body == nil {
		return reply{code: remoting.RespTopicNotExist, remark: fmt.Sprintf("No topic route info in name server for the topic: %s%s", topic, faq)}
	}
	return reply{body: body}
}

// specialRoute answers what is asked too rarely to keep.
func (s *Server) specialRoute(topic, zone string, standard, acting, order bool) []byte {
	data := s.routes.route(topic, acting)
	if data == nil {
		return nil
	}
	if order {
		data.OrderTopicConf, _ = s.kv.get(orderTopicNamespace, topic)
	}
	if zone != "" {
		inZone(data, zone)
	}
	if standard {
		return remoting.EncodeStandardBody(data)
	}
	return remoting.EncodeBody(data)
}

func getClusterInfo(s *Server, _ *request) reply {
	return reply{body: remoting.EncodeBody(s.routes.clusterInfo())}
}

func getMemberGroup(s *Server, r *request) reply {
	cluster, err := r.text("clusterName")
	if err != nil {
		return failed(err)
	}
	name, err := r.text("brokerName")
	if err != nil {
		return failed(err)
	}
	return reply{body: remoting.EncodeBody(remoting.BrokerMemberGroupBody{BrokerMemberGroup: s.routes.memberGroup(cluster, name)})}
}

var disabled = reply{code: remoting.RespSystemError, remark: "disable"}

func getAllTopics(s *Server, r *request) reply {
	if !s.config.Load().EnableAllTopicList {
		return disabled
	}
	return reply{body: remoting.EncodeBody(s.routes.topicList(func(*topicRow) bool { return true }))}
}

func getClusterTopics(s *Server, r *request) reply {
	if !s.config.Load().EnableTopicList {
		return disabled
	}
	cluster, err := r.text("cluster")
	if err != nil {
		return failed(err)
	}
	return reply{body: remoting.EncodeBody(s.routes.clusterTopics(cluster))}
}

func getSystemTopics(s *Server, _ *request) reply {
	return reply{body: remoting.EncodeBody(s.routes.systemTopics())}
}

func getUnitTopics(s *Server, _ *request) reply { return s.sysFlagTopics(remoting.TopicUnit, 0) }

func getUnitSubTopics(s *Server, _ *request) reply { return s.sysFlagTopics(remoting.TopicUnitSub, 0) }

func getUnitSubUnunitTopics(s *Server, _ *request) reply {
	return s.sysFlagTopics(remoting.TopicUnitSub, remoting.TopicUnit)
}

func (s *Server) sysFlagTopics(must, mustNot int32) reply {
	if !s.config.Load().EnableTopicList {
		return disabled
	}
	return reply{body: remoting.EncodeBody(s.routes.sysFlagTopics(must, mustNot))}
}

func deleteTopic(s *Server, r *request) reply {
	topic, err := r.text("topic")
	if err != nil {
		return failed(err)
	}
	cluster := r.String("clusterName")
	s.routes.deleteTopic(topic, cluster)
	s.log.Info("topic deleted", "topic", topic, "cluster", cluster, "client", r.peer.addr)
	return reply{}
}

func registerTopic(s *Server, r *request) reply {
	topic, err := r.name("topic")
	if err != nil {
		return failed(err)
	}
	var data remoting.TopicRouteData
	if err := remoting.DecodeBody(r.Body, &data); err != nil {
		return failed(err)
	}
	if len(data.QueueDatas) == 0 {
		return failed(fmt.Errorf("topic %s: no queueDatas in the body", topic))
	}
	if err := s.routes.setQueues(topic, data.QueueDatas); err != nil {
		return failed(fmt.Errorf("topic %s: %w", topic, err))
	}
	return reply{}
}
