package client

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/ringmq/ringmq/message"
	"github.com/ringmq/ringmq/remoting"
)

// Member says who a client is: the part of HeartbeatData that a program without push consumers has.
type Member struct {
	ClientID       string
	ProducerGroups []string
	// Consumers are the groups that this client consumes for, each with its topics.
	Consumers []Consumer
}

// Consumer is one consumer group of a Member.
type Consumer struct {
	Group  string
	Topics map[string]string // topic to tag expression, "*" for all
	// Version of the subscriptions: a server replaces them only by a larger one.
	Version int64
}

type heartbeat struct {
	ClientID  string              `json:"clientID"`
	Producers []heartbeatProducer `json:"producerDataSet"`
	Consumers []heartbeatConsumer `json:"consumerDataSet"`
}

type heartbeatProducer struct {
	Group string `json:"groupName"`
}

type heartbeatConsumer struct {
	Group         string         `json:"groupName"`
	ConsumeType   string         `json:"consumeType"`
	MessageModel  string         `json:"messageModel"`
	From          string         `json:"consumeFromWhere"`
	UnitMode      bool           `json:"unitMode"`
	Subscriptions []subscription `json:"subscriptionDataSet"`
}

type subscription struct {
	ClassFilter bool     `json:"classFilterMode"`
	Topic       string   `json:"topic"`
	Text        string   `json:"subString"`
	Tags        []string `json:"tagsSet"`
	Codes       []int32  `json:"codeSet"`
	Version     int64    `json:"subVersion"`
	Type        string   `json:"expressionType"`
}

// Heartbeat tells the broker who this connection is (code 34). Official clients send one every 30 s.
func (c *Conn) Heartbeat(ctx context.Context, m *Member) error {
	body, err := json.Marshal(m.heartbeat())
	if err != nil {
		return err
	}
	_, err = c.Call(ctx, Request{Code: remoting.ReqHeartBeat, Body: body})
	return err
}

func (m *Member) heartbeat() *heartbeat {
	h := &heartbeat{ClientID: m.ClientID, Producers: []heartbeatProducer{}, Consumers: []heartbeatConsumer{}}
	for _, g := range m.ProducerGroups {
		h.Producers = append(h.Producers, heartbeatProducer{g})
	}
	for _, c := range m.Consumers {
		hc := heartbeatConsumer{
			Group: c.Group, ConsumeType: "CONSUME_ACTIVELY", MessageModel: "CLUSTERING", From: "CONSUME_FROM_LAST_OFFSET",
			Subscriptions: []subscription{},
		}
		for topic, expression := range c.Topics {
			hc.Subscriptions = append(hc.Subscriptions, subscribe(topic, expression, c.Version))
		}
		h.Consumers = append(h.Consumers, hc)
	}
	return h
}

// subscribe builds SubscriptionData from a tag expression ("a || b", "*" or "" for all), as FilterAPI does.
func subscribe(topic, expression string, version int64) subscription {
	s := subscription{Topic: topic, Text: expression, Tags: []string{}, Codes: []int32{}, Version: version, Type: "TAG"}
	if expression == "" || expression == "*" {
		s.Text = "*"
		return s
	}
	for _, tag := range strings.Split(expression, "||") {
		if tag = strings.TrimSpace(tag); tag != "" {
			s.Tags = append(s.Tags, tag)
			s.Codes = append(s.Codes, message.HashCode([]byte(tag)))
		}
	}
	return s
}
