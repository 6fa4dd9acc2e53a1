package remoting

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmq/ringmq/message"
)

// Bodies of heartbeats and subscriptions.

// ConsumeType is how a consumer gets its messages.
type ConsumeType string

// Consume types.
const (
	ConsumeActively  ConsumeType = "CONSUME_ACTIVELY"  // pull
	ConsumePassively ConsumeType = "CONSUME_PASSIVELY" // push
	ConsumePop       ConsumeType = "CONSUME_POP"
)

// MessageModel is whether the members of a group share the messages.
type MessageModel string

// Message models.
const (
	Broadcasting  MessageModel = "BROADCASTING"
	Clustering    MessageModel = "CLUSTERING"
	LiteSelective MessageModel = "LITE_SELECTIVE"
)

// ConsumeFromWhere is where a group without offsets begins.
type ConsumeFromWhere string

// Values of ConsumeFromWhere that are not deprecated.
const (
	ConsumeFromLastOffset  ConsumeFromWhere = "CONSUME_FROM_LAST_OFFSET"
	ConsumeFromFirstOffset ConsumeFromWhere = "CONSUME_FROM_FIRST_OFFSET"
	ConsumeFromTimestamp   ConsumeFromWhere = "CONSUME_FROM_TIMESTAMP"
)

var (
	consumeTypes      = []ConsumeType{ConsumeActively, ConsumePassively, ConsumePop}
	messageModels     = []MessageModel{Broadcasting, Clustering, LiteSelective}
	consumeFromWheres = []ConsumeFromWhere{
		ConsumeFromLastOffset, "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST", "CONSUME_FROM_MIN_OFFSET", "CONSUME_FROM_MAX_OFFSET",
		ConsumeFromFirstOffset, ConsumeFromTimestamp,
	}
)

// UnmarshalJSON takes a name or an ordinal.
func (c *ConsumeType) UnmarshalJSON(text []byte) error { return unmarshalEnum(text, consumeTypes, c) }

// UnmarshalJSON takes a name or an ordinal.
func (m *MessageModel) UnmarshalJSON(text []byte) error { return unmarshalEnum(text, messageModels, m) }

// UnmarshalJSON takes a name or an ordinal.
func (c *ConsumeFromWhere) UnmarshalJSON(text []byte) error {
	return unmarshalEnum(text, consumeFromWheres, c)
}

// unmarshalEnum reads a name, or an ordinal as the C++ clients send it. A name that is not in the list is an error: the tables that
// clients see are made of these, and a name that Java does not know makes its tools fail.
func unmarshalEnum[E ~string](text []byte, all []E, dst *E) error {
	if string(text) == "null" {
		return nil
	}
	if n, ok := ParseInt(text); ok {
		if n < 0 || n >= int64(len(all)) {
			return fmt.Errorf("%d is no %T", n, *dst)
		}
		*dst = all[n]
		return nil
	}
	var name string
	if err := json.Unmarshal(text, &name); err != nil {
		return err
	}
	if !slices.Contains(all, E(name)) {
		return fmt.Errorf("%.64q is no %T", name, *dst)
	}
	*dst = E(name)
	return nil
}

// HeartbeatData is the body of 34.
type HeartbeatData struct {
	ClientID             string         `json:"clientID"`
	ConsumerDataSet      []ConsumerData `json:"consumerDataSet"`
	HeartbeatFingerprint int32          `json:"heartbeatFingerprint"`
	ProducerDataSet      []ProducerData `json:"producerDataSet"`
	WithoutSub           bool           `json:"withoutSub"`
}

// ProducerData is one producer group of a client.
type ProducerData struct {
	GroupName string `json:"groupName"`
}

// ConsumerData is one consumer group of a client.
type ConsumerData struct {
	ConsumeFromWhere    ConsumeFromWhere   `json:"consumeFromWhere"`
	ConsumeType         ConsumeType        `json:"consumeType"`
	GroupName           string             `json:"groupName"`
	MessageModel        MessageModel       `json:"messageModel"`
	SubscriptionDataSet []SubscriptionData `json:"subscriptionDataSet"`
	UnitMode            bool               `json:"unitMode"`
}

// Expression types.
const (
	ExpressionTag   = "TAG"
	ExpressionSQL92 = "SQL92"
)

// SubscriptionAll subscribes to every message of a topic.
const SubscriptionAll = "*"

// SubscriptionData is what a group wants of one topic. An empty CodeSet with ExpressionTag means everything.
type SubscriptionData struct {
	ClassFilterMode bool     `json:"classFilterMode"`
	CodeSet         []int32  `json:"codeSet"`
	ExpressionType  string   `json:"expressionType"`
	SubString       string   `json:"subString"`
	SubVersion      int64    `json:"subVersion"`
	TagsSet         []string `json:"tagsSet"`
	Topic           string   `json:"topic"`
}

// looseInt is a number that some clients (C++) send as a string.
type looseInt int64

func (n *looseInt) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	if len(text) >= 2 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	v, ok := ParseInt(text)
	if !ok {
		return fmt.Errorf("%.64q is no number", text)
	}
	*n = looseInt(v)
	return nil
}

// UnmarshalJSON leaves Java's defaults where the text says nothing, and takes numbers that are written as strings.
func (s *SubscriptionData) UnmarshalJSON(text []byte) error {
	type plain SubscriptionData
	p := struct {
		plain
		CodeSet    []looseInt `json:"codeSet"`
		SubVersion looseInt   `json:"subVersion"`
	}{plain: plain{ExpressionType: ExpressionTag}}
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*s = SubscriptionData(p.plain)
	s.SubVersion = int64(p.SubVersion)
	s.CodeSet = make([]int32, len(p.CodeSet))
	for i, c := range p.CodeSet {
		s.CodeSet[i] = int32(c)
	}
	return nil
}

// maxTags bounds the tags of one subscription.
const maxTags = 1024

// ErrSubscription is an expression that is no subscription; it is answered with SUBSCRIPTION_PARSE_FAILED.
var ErrSubscription = errors.New("the subscription expression cannot be parsed")

// NewTagSubscription builds a subscription from `a || b`, `*` or "". Does the work of FilterAPI.
func NewTagSubscription(topic, expression string, version int64) (SubscriptionData, error) {
	s := SubscriptionData{ExpressionType: ExpressionTag, SubString: expression, SubVersion: version, Topic: topic}
	if expression == "" || expression == SubscriptionAll {
		s.SubString = SubscriptionAll
		return s, nil
	}
	if strings.Trim(expression, "|") == "" && len(expression)%2 == 0 {
		return s, fmt.Errorf("%w: %.64q has separators only", ErrSubscription, expression)
	}
	for tag := range strings.SplitSeq(expression, "||") {
		tag = strings.TrimFunc(tag, func(r rune) bool { return r <= ' ' }) // as String.trim
		if tag == "" || slices.Contains(s.TagsSet, tag) {
			continue
		}
		if len(s.TagsSet) == maxTags {
			return s, fmt.Errorf("%w: more than %s tags", ErrSubscription, strconv.Itoa(maxTags))
		}
		s.TagsSet = append(s.TagsSet, tag)
		if code := message.HashCode([]byte(tag)); !slices.Contains(s.CodeSet, code) {
			s.CodeSet = append(s.CodeSet, code)
		}
	}
	return s, nil
}

// CheckClientBody is the body of 46 (CheckClientRequestBody).
type CheckClientBody struct {
	ClientID         string           `json:"clientId"`
	Group            string           `json:"group"`
	Namespace        string           `json:"namespace,omitempty"`
	SubscriptionData SubscriptionData `json:"subscriptionData"`
}
