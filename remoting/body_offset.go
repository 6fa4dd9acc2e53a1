package remoting

import (
	"cmp"
	"encoding/json"
)

// Bodies about queues, offsets and locks.

// MessageQueue names one queue. As the key of a map it is written raw, {"brokerName":"ba","queueId":0,"topic":"T"}, which client-go
// cuts out of the text at precisely these places.
type MessageQueue struct {
	BrokerName string `json:"brokerName"`
	QueueID    int32  `json:"queueId"`
	Topic      string `json:"topic"`
}

// Compare orders queues by topic, broker and id.
func (q MessageQueue) Compare(other MessageQueue) int {
	return cmp.Or(cmp.Compare(q.Topic, other.Topic), cmp.Compare(q.BrokerName, other.BrokerName), cmp.Compare(q.QueueID, other.QueueID))
}

// UnmarshalText makes MessageQueue a key of maps for encoding/json, which then calls UnmarshalJSON.
func (q *MessageQueue) UnmarshalText(text []byte) error { return q.UnmarshalJSON(text) }

// UnmarshalJSON reads a queue that is a value, or one that is the key of a map: StandardJSON makes a string of it.
func (q *MessageQueue) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		var key string
		if err := json.Unmarshal(text, &key); err != nil {
			return err
		}
		text = []byte(key)
	}
	type plain MessageQueue
	return json.Unmarshal(text, (*plain)(q))
}

// TopicOffset is the state of one queue.
type TopicOffset struct {
	LastUpdateTimestamp int64 `json:"lastUpdateTimestamp"`
	MaxOffset           int64 `json:"maxOffset"`
	MinOffset           int64 `json:"minOffset"`
}

// TopicStatsTable is the answer to 202.
type TopicStatsTable struct {
	OffsetTable map[MessageQueue]TopicOffset `json:"offsetTable"`
	TopicPutTps float64                      `json:"topicPutTps"`
}

// OffsetWrapper is how far a group is in one queue.
type OffsetWrapper struct {
	BrokerOffset   int64 `json:"brokerOffset"`
	ConsumerOffset int64 `json:"consumerOffset"`
	LastTimestamp  int64 `json:"lastTimestamp"`
	PullOffset     int64 `json:"pullOffset"`
}

// ConsumeStats is the answer to 208.
type ConsumeStats struct {
	ConsumeTps  float64                        `json:"consumeTps"`
	OffsetTable map[MessageQueue]OffsetWrapper `json:"offsetTable"`
}

// TotalDiff is how many messages the group has not consumed.
func (c *ConsumeStats) TotalDiff() (diff int64) {
	for _, w := range c.OffsetTable {
		diff += w.BrokerOffset - w.ConsumerOffset
	}
	return diff
}

// InflightTotalDiff is how many messages the group has pulled and not consumed.
func (c *ConsumeStats) InflightTotalDiff() (diff int64) {
	for _, w := range c.OffsetTable {
		diff += w.PullOffset - w.ConsumerOffset
	}
	return diff
}

// ConsumeStatsList is the answer to 317: for each group its statistics.
type ConsumeStatsList struct {
	BrokerAddr        string                      `json:"brokerAddr"`
	ConsumeStatsList  []map[string][]ConsumeStats `json:"consumeStatsList"`
	TotalDiff         int64                       `json:"totalDiff"`
	TotalInflightDiff int64                       `json:"totalInflightDiff"`
}

// ResetOffsetBody is the answer to 222 and the body of 220.
type ResetOffsetBody struct {
	OffsetTable map[MessageQueue]int64 `json:"offsetTable"`
}

// ResetOffsetBodyForC is the body of 220 to C++ clients.
type ResetOffsetBodyForC struct {
	OffsetTable []MessageQueueForC `json:"offsetTable"`
}

// MessageQueueForC is a queue and an offset.
type MessageQueueForC struct {
	BrokerName string `json:"brokerName"`
	Offset     int64  `json:"offset"`
	QueueID    int32  `json:"queueId"`
	Topic      string `json:"topic"`
}

// ConsumerStatusBody is the answer to 221 and 223 (GetConsumerStatusBody).
type ConsumerStatusBody struct {
	ConsumerTable     map[string]map[MessageQueue]int64 `json:"consumerTable"`
	MessageQueueTable map[MessageQueue]int64            `json:"messageQueueTable"`
}

// LockBatchBody is the body of 41 and 42 (LockBatchRequestBody, UnlockBatchRequestBody).
type LockBatchBody struct {
	ClientID       string         `json:"clientId"`
	ConsumerGroup  string         `json:"consumerGroup"`
	MqSet          []MessageQueue `json:"mqSet"`
	OnlyThisBroker bool           `json:"onlyThisBroker"`
}

// LockBatchResult is the answer to 41 (LockBatchResponseBody).
type LockBatchResult struct {
	LockOKMQSet []MessageQueue `json:"lockOKMQSet"`
}

// ConsumerOffsetTable is the answer to 43 and the file consumerOffset.json; the outer key is topic@group
// (ConsumerOffsetSerializeWrapper, ConsumerOffsetManager).
type ConsumerOffsetTable struct {
	DataVersion     DataVersion                `json:"dataVersion"`
	GroupTopicMap   map[string][]string        `json:"groupTopicMap,omitempty"`
	OffsetTable     map[string]map[int32]int64 `json:"offsetTable"`
	PullOffsetTable map[string]map[int32]int64 `json:"pullOffsetTable,omitempty"`
}

// DelayOffsetTable is the answer to 45 and the file delayOffset.json (DelayOffsetSerializeWrapper).
type DelayOffsetTable struct {
	DataVersion DataVersion     `json:"dataVersion"`
	OffsetTable map[int32]int64 `json:"offsetTable"`
}

// CorrectionOffsets is the answer to 308 (QueryCorrectionOffsetBody).
type CorrectionOffsets struct {
	CorrectionOffsets map[int32]int64 `json:"correctionOffsets"`
}

// MessageQueueAssignment is one queue that a member is to consume.
type MessageQueueAssignment struct {
	Attachments  map[string]string `json:"attachments,omitempty"`
	MessageQueue MessageQueue      `json:"messageQueue"`
	Mode         string            `json:"mode"`
}

// QueryAssignmentBody is the body of 400 (QueryAssignmentRequestBody).
type QueryAssignmentBody struct {
	ClientID      string       `json:"clientId"`
	ConsumerGroup string       `json:"consumerGroup"`
	MessageModel  MessageModel `json:"messageModel"`
	StrategyName  string       `json:"strategyName"`
	Topic         string       `json:"topic"`
}

// QueryAssignmentResult is the answer to 400 (QueryAssignmentResponseBody).
type QueryAssignmentResult struct {
	MessageQueueAssignments []MessageQueueAssignment `json:"messageQueueAssignments"`
}
