package remoting

import "encoding/json"

// Bodies about routes, brokers and topics: what brokers tell the name server and what it tells clients and tools.

// Bits of perm (PermName).
const (
	PermInherit = 1 << 0
	PermWrite   = 1 << 1
	PermRead    = 1 << 2
)

// Bits of topicSysFlag (TopicSysFlag).
const (
	TopicUnit    = 1 << 0
	TopicUnitSub = 1 << 1
)

// MasterID is the brokerId of a master.
const MasterID = 0

// TopicRouteData is the answer to 105.
type TopicRouteData struct {
	BrokerDatas               []BrokerData                     `json:"brokerDatas"`
	FilterServerTable         map[string][]string              `json:"filterServerTable"`
	OrderTopicConf            string                           `json:"orderTopicConf,omitempty"`
	QueueDatas                []QueueData                      `json:"queueDatas"`
	TopicQueueMappingByBroker map[string]TopicQueueMappingInfo `json:"topicQueueMappingByBroker,omitempty"`
}

// BrokerData is a group of brokers with one name; its addresses by brokerId.
type BrokerData struct {
	BrokerAddrs        map[int64]string `json:"brokerAddrs"`
	BrokerName         string           `json:"brokerName"`
	Cluster            string           `json:"cluster"`
	EnableActingMaster bool             `json:"enableActingMaster"`
	ZoneName           string           `json:"zoneName,omitempty"`
}

// QueueData is how many queues of a topic a broker has.
type QueueData struct {
	BrokerName     string `json:"brokerName"`
	Perm           int32  `json:"perm"`
	ReadQueueNums  int32  `json:"readQueueNums"`
	TopicSysFlag   int32  `json:"topicSysFlag"`
	WriteQueueNums int32  `json:"writeQueueNums"`
}

// ClusterInfo is the answer to 106.
type ClusterInfo struct {
	BrokerAddrTable  map[string]BrokerData `json:"brokerAddrTable"`
	ClusterAddrTable map[string][]string   `json:"clusterAddrTable"`
}

// BrokerMemberGroup is the brokers that share a name.
type BrokerMemberGroup struct {
	BrokerAddrs map[int64]string `json:"brokerAddrs"`
	BrokerName  string           `json:"brokerName"`
	Cluster     string           `json:"cluster"`
}

// BrokerMemberGroupBody is the answer to 901 (GetBrokerMemberGroupResponseBody).
type BrokerMemberGroupBody struct {
	BrokerMemberGroup BrokerMemberGroup `json:"brokerMemberGroup"`
}

// TopicList is the answer to 206, 224, 304, 305, 311, 312, 313, 343.
type TopicList struct {
	BrokerAddr string   `json:"brokerAddr,omitempty"`
	TopicList  []string `json:"topicList"`
}

// KVTable is the answer to 28 and 219.
type KVTable struct {
	Table map[string]string `json:"table"`
}

// DataVersion tells two states of a table apart. All three numbers count.
type DataVersion struct {
	Counter      int64 `json:"counter"`
	StateVersion int64 `json:"stateVersion"`
	Timestamp    int64 `json:"timestamp"`
}

// Next is the version after a change at nowMillis.
func (v DataVersion) Next(stateVersion, nowMillis int64) DataVersion {
	return DataVersion{Counter: v.Counter + 1, StateVersion: stateVersion, Timestamp: nowMillis}
}

// TopicConfig is one topic of a broker.
type TopicConfig struct {
	Attributes      map[string]string `json:"attributes"`
	Order           bool              `json:"order"`
	Perm            int32             `json:"perm"`
	ReadQueueNums   int32             `json:"readQueueNums"`
	TopicFilterType string            `json:"topicFilterType"`
	TopicName       string            `json:"topicName"`
	TopicSysFlag    int32             `json:"topicSysFlag"`
	WriteQueueNums  int32             `json:"writeQueueNums"`
}

// SingleTag is the TopicFilterType of nearly every topic; MultiTag is the other one.
const (
	SingleTag = "SINGLE_TAG"
	MultiTag  = "MULTI_TAG"
)

// NewTopicConfig is a topic with the values that Java gives to what is not said.
func NewTopicConfig(name string) TopicConfig {
	return TopicConfig{Perm: PermRead | PermWrite, ReadQueueNums: 16, TopicFilterType: SingleTag, TopicName: name, WriteQueueNums: 16}
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (t *TopicConfig) UnmarshalJSON(text []byte) error {
	type plain TopicConfig
	p := plain(NewTopicConfig(""))
	err := json.Unmarshal(text, &p)
	*t = TopicConfig(p)
	return err
}

// TopicConfigList is the body of 18 (CreateTopicListRequestBody).
type TopicConfigList struct {
	TopicConfigList []TopicConfig `json:"topicConfigList"`
}

// TopicConfigTable is the file topics.json (TopicConfigSerializeWrapper).
type TopicConfigTable struct {
	DataVersion      DataVersion            `json:"dataVersion"`
	TopicConfigTable map[string]TopicConfig `json:"topicConfigTable"`
}

// TopicConfigAndMappings is the answer to 21 and the core of a registration (TopicConfigAndMappingSerializeWrapper).
type TopicConfigAndMappings struct {
	DataVersion                DataVersion                        `json:"dataVersion"`
	MappingDataVersion         DataVersion                        `json:"mappingDataVersion"`
	TopicConfigTable           map[string]TopicConfig             `json:"topicConfigTable"`
	TopicQueueMappingDetailMap map[string]TopicQueueMappingDetail `json:"topicQueueMappingDetailMap"`
	TopicQueueMappingInfoMap   map[string]TopicQueueMappingInfo   `json:"topicQueueMappingInfoMap"`
}

// GlobalScope is the scope of a static topic that no one has given another.
const GlobalScope = "__global__"

// TopicQueueMappingInfo is where a static topic's logical queues are on one broker.
type TopicQueueMappingInfo struct {
	Bname       string          `json:"bname"`
	CurrIDMap   map[int32]int32 `json:"currIdMap"`
	Dirty       bool            `json:"dirty"`
	Epoch       int64           `json:"epoch"`
	Scope       string          `json:"scope"`
	Topic       string          `json:"topic"`
	TotalQueues int32           `json:"totalQueues"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (t *TopicQueueMappingInfo) UnmarshalJSON(text []byte) error {
	type plain TopicQueueMappingInfo
	p := plain{Scope: GlobalScope}
	err := json.Unmarshal(text, &p)
	*t = TopicQueueMappingInfo(p)
	return err
}

// TopicQueueMappingDetail is the same with the history of each queue.
type TopicQueueMappingDetail struct {
	Bname        string                            `json:"bname"`
	CurrIDMap    map[int32]int32                   `json:"currIdMap"`
	Dirty        bool                              `json:"dirty"`
	Epoch        int64                             `json:"epoch"`
	HostedQueues map[int32][]LogicQueueMappingItem `json:"hostedQueues"`
	Scope        string                            `json:"scope"`
	Topic        string                            `json:"topic"`
	TotalQueues  int32                             `json:"totalQueues"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (t *TopicQueueMappingDetail) UnmarshalJSON(text []byte) error {
	type plain TopicQueueMappingDetail
	p := plain{Scope: GlobalScope}
	err := json.Unmarshal(text, &p)
	*t = TopicQueueMappingDetail(p)
	return err
}

// LogicQueueMappingItem is one stay of a logical queue on a broker.
type LogicQueueMappingItem struct {
	Bname       string `json:"bname"`
	EndOffset   int64  `json:"endOffset"`
	Gen         int32  `json:"gen"`
	LogicOffset int64  `json:"logicOffset"`
	QueueID     int32  `json:"queueId"`
	StartOffset int64  `json:"startOffset"`
	TimeOfEnd   int64  `json:"timeOfEnd"`
	TimeOfStart int64  `json:"timeOfStart"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (t *LogicQueueMappingItem) UnmarshalJSON(text []byte) error {
	type plain LogicQueueMappingItem
	p := plain{EndOffset: -1, TimeOfEnd: -1, TimeOfStart: -1}
	err := json.Unmarshal(text, &p)
	*t = LogicQueueMappingItem(p)
	return err
}
