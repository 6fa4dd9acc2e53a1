package remoting

import (
	"strings"
	"time"
)

// Bodies about connected clients, and what tools ask about them and about the broker.

// ConsumerIDList is the answer to 38 (GetConsumerListByGroupResponseBody).
type ConsumerIDList struct {
	ConsumerIDList []string `json:"consumerIdList"`
}

// Connection is one connected client.
type Connection struct {
	ClientAddr string `json:"clientAddr"`
	ClientID   string `json:"clientId"`
	Language   string `json:"language"`
	Version    int32  `json:"version"`
}

// ConsumerConnection is the answer to 203.
type ConsumerConnection struct {
	ConnectionSet     []Connection                `json:"connectionSet"`
	ConsumeFromWhere  ConsumeFromWhere            `json:"consumeFromWhere"`
	ConsumeType       ConsumeType                 `json:"consumeType"`
	MessageModel      MessageModel                `json:"messageModel"`
	SubscriptionTable map[string]SubscriptionData `json:"subscriptionTable"`
}

// ProducerConnection is the answer to 204.
type ProducerConnection struct {
	ConnectionSet []Connection `json:"connectionSet"`
}

// ProducerInfo is one connected producer. RemoteIP has the form "/ip:port".
type ProducerInfo struct {
	ClientID            string `json:"clientId"`
	Language            string `json:"language"`
	LastUpdateTimestamp int64  `json:"lastUpdateTimestamp"`
	RemoteIP            string `json:"remoteIP"`
	Version             int32  `json:"version"`
}

// ProducerTableInfo is the answer to 328: producers by group.
type ProducerTableInfo struct {
	Data map[string][]ProducerInfo `json:"data"`
}

// QueueTimeSpan is from when to when the messages of a queue are, and where the group stands. Times are milliseconds since 1970; the
// texts are the same times. NewQueueTimeSpan fills them.
type QueueTimeSpan struct {
	ConsumeTimeStamp    int64        `json:"consumeTimeStamp"`
	ConsumeTimeStampStr string       `json:"consumeTimeStampStr"`
	DelayTime           int64        `json:"delayTime"`
	MaxTimeStamp        int64        `json:"maxTimeStamp"`
	MaxTimeStampStr     string       `json:"maxTimeStampStr"`
	MessageQueue        MessageQueue `json:"messageQueue"`
	MinTimeStamp        int64        `json:"minTimeStamp"`
	MinTimeStampStr     string       `json:"minTimeStampStr"`
}

// NewQueueTimeSpan fills in the texts.
func NewQueueTimeSpan(q MessageQueue, minMillis, maxMillis, consumeMillis, delayMillis int64) QueueTimeSpan {
	return QueueTimeSpan{
		ConsumeTimeStamp: consumeMillis, ConsumeTimeStampStr: timeText(consumeMillis), DelayTime: delayMillis,
		MaxTimeStamp: maxMillis, MaxTimeStampStr: timeText(maxMillis), MessageQueue: q,
		MinTimeStamp: minMillis, MinTimeStampStr: timeText(minMillis),
	}
}

// timeText is YYYY_MM_DD_HH_MM_SS_SSS of UtilAll, in local time. Go's layouts know no fraction behind a colon.
func timeText(millis int64) string {
	return strings.Replace(time.UnixMilli(millis).Format("2006-01-02#15:04:05,000"), ",", ":", 1)
}

// ConsumeTimeSpans is the answer to 303 (QueryConsumeTimeSpanBody).
type ConsumeTimeSpans struct {
	ConsumeTimeSpanSet []QueueTimeSpan `json:"consumeTimeSpanSet"`
}

// BrokerStatsItem is one line of statistics.
type BrokerStatsItem struct {
	Avgpt float64 `json:"avgpt"`
	Sum   int64   `json:"sum"`
	Tps   float64 `json:"tps"`
}

// BrokerStatsData is the answer to 315.
type BrokerStatsData struct {
	StatsDay    BrokerStatsItem `json:"statsDay"`
	StatsHour   BrokerStatsItem `json:"statsHour"`
	StatsMinute BrokerStatsItem `json:"statsMinute"`
}

// ConsumeQueueData is one entry of a queue.
type ConsumeQueueData struct {
	BitMap         string `json:"bitMap,omitempty"`
	Eval           bool   `json:"eval"`
	ExtendDataJSON string `json:"extendDataJson,omitempty"`
	Msg            string `json:"msg,omitempty"`
	PhysicOffset   int64  `json:"physicOffset"`
	PhysicSize     int32  `json:"physicSize"`
	TagsCode       int64  `json:"tagsCode"`
}

// QueryConsumeQueueBody is the answer to 321 (QueryConsumeQueueResponseBody).
type QueryConsumeQueueBody struct {
	FilterData       string             `json:"filterData,omitempty"`
	MaxQueueIndex    int64              `json:"maxQueueIndex"`
	MinQueueIndex    int64              `json:"minQueueIndex"`
	QueueData        []ConsumeQueueData `json:"queueData"`
	SubscriptionData *SubscriptionData  `json:"subscriptionData"`
}

// HARuntimeInfo is the answer to 907.
type HARuntimeInfo struct {
	HaClientRuntimeInfo      HAClientRuntimeInfo       `json:"haClientRuntimeInfo"`
	HaConnectionInfo         []HAConnectionRuntimeInfo `json:"haConnectionInfo"`
	InSyncSlaveNums          int32                     `json:"inSyncSlaveNums"`
	Master                   bool                      `json:"master"`
	MasterCommitLogMaxOffset int64                     `json:"masterCommitLogMaxOffset"`
}

// HAClientRuntimeInfo is a slave's view of its connection.
type HAClientRuntimeInfo struct {
	Activated               bool   `json:"activated"`
	LastReadTimestamp       int64  `json:"lastReadTimestamp"`
	LastWriteTimestamp      int64  `json:"lastWriteTimestamp"`
	MasterAddr              string `json:"masterAddr,omitempty"`
	MasterFlushOffset       int64  `json:"masterFlushOffset"`
	MaxOffset               int64  `json:"maxOffset"`
	TransferredByteInSecond int64  `json:"transferredByteInSecond"`
}

// HAConnectionRuntimeInfo is a master's view of one slave.
type HAConnectionRuntimeInfo struct {
	Addr                    string `json:"addr"`
	Diff                    int64  `json:"diff"`
	InSync                  bool   `json:"inSync"`
	SlaveAckOffset          int64  `json:"slaveAckOffset"`
	TransferFromWhere       int64  `json:"transferFromWhere"`
	TransferredByteInSecond int64  `json:"transferredByteInSecond"`
}
