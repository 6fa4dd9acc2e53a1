package message

import (
	"strconv"
	"strings"
)

// Prefixes and names that RocketMQ reserves (MixAll, TopicValidator).
const (
	RetryTopicPrefix   = "%RETRY%"
	DLQTopicPrefix     = "%DLQ%"
	SystemTopicPrefix  = "rmq_sys_"
	SystemGroupPrefix  = "CID_RMQ_SYS_"
	LMQPrefix          = "%LMQ%"
	ReplyTopicSuffix   = "REPLY_TOPIC"
	AutoCreateTopic    = "TBW102"
	ScheduleTopic      = "SCHEDULE_TOPIC_XXXX"
	BenchmarkTopic     = "BenchmarkTest"
	HalfTopic          = "RMQ_SYS_TRANS_HALF_TOPIC"
	OpHalfTopic        = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
	RocksDBHalfTopic   = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC"
	RocksDBOpHalfTopic = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC"
	TraceTopic         = "RMQ_SYS_TRACE_TOPIC"
	TransCheckMaxTopic = "TRANS_CHECK_MAX_TIME_TOPIC"
	SelfTestTopic      = "SELF_TEST_TOPIC"
	OffsetMovedTopic   = "OFFSET_MOVED_EVENT"
	WheelTimerTopic    = SystemTopicPrefix + "wheel_timer"
)

// Lengths that TopicValidator allows.
const (
	MaxTopicLength      = 127
	MaxRetryTopicLength = 255
	MaxGroupLength      = 120
)

var systemTopics = map[string]bool{
	AutoCreateTopic: true, ScheduleTopic: true, BenchmarkTopic: true, HalfTopic: true, OpHalfTopic: true,
	RocksDBHalfTopic: true, RocksDBOpHalfTopic: true, TraceTopic: true, TransCheckMaxTopic: true, SelfTestTopic: true,
	OffsetMovedTopic: true,
}

var systemGroups = map[string]bool{
	"DEFAULT_CONSUMER": true, "DEFAULT_PRODUCER": true, "TOOLS_CONSUMER": true, "SCHEDULE_CONSUMER": true,
	"FILTERSRV_CONSUMER": true, "__MONITOR_CONSUMER": true, "CLIENT_INNER_PRODUCER": true, "SELF_TEST_P_GROUP": true,
	"SELF_TEST_C_GROUP": true, "CID_ONS-HTTP-PROXY": true, "CID_ONSAPI_PERMISSION": true, "CID_ONSAPI_OWNER": true,
	"CID_ONSAPI_PULL": true, "CID_RMQ_SYS_TRANS": true,
}

// IsSystemTopic tells whether the name is reserved for the broker itself.
func IsSystemTopic(topic string) bool {
	return systemTopics[topic] || strings.HasPrefix(topic, SystemTopicPrefix)
}

// SystemTopics lists the reserved names that are fixed.
func SystemTopics() []string {
	names := make([]string, 0, len(systemTopics))
	for n := range systemTopics {
		names = append(names, n)
	}
	return names
}

// IsSendForbidden tells whether clients may not send to this system topic.
func IsSendForbidden(topic []byte) bool {
	switch string(topic) {
	case ScheduleTopic, HalfTopic, OpHalfTopic, RocksDBHalfTopic, RocksDBOpHalfTopic, TransCheckMaxTopic, SelfTestTopic, OffsetMovedTopic:
		return true
	}
	return false
}

// IsSystemGroup tells whether a consumer or producer group belongs to the system.
func IsSystemGroup(group string) bool {
	return systemGroups[group] || strings.HasPrefix(group, SystemGroupPrefix)
}

// IsRetryTopic tells whether the topic holds messages of one group that are to be consumed again.
func IsRetryTopic(topic []byte) bool {
	return len(topic) > len(RetryTopicPrefix) && string(topic[:len(RetryTopicPrefix)]) == RetryTopicPrefix
}

// IsDLQTopic tells whether the topic holds messages of one group that could not be consumed.
func IsDLQTopic(topic []byte) bool {
	return len(topic) > len(DLQTopicPrefix) && string(topic[:len(DLQTopicPrefix)]) == DLQTopicPrefix
}

// RetryTopic is the retry topic of a group.
func RetryTopic(group string) string { return RetryTopicPrefix + group }

// DLQTopic is the dead letter topic of a group.
func DLQTopic(group string) string { return DLQTopicPrefix + group }

// CheckTopic tells what is wrong with a topic name, in TopicValidator's words; "" when nothing is.
func CheckTopic(topic []byte) (remark string) {
	switch {
	case len(strings.TrimSpace(string(topic))) == 0:
		return "The specified topic is blank."
	case illegal(topic):
		return "The specified topic: " + string(topic) + ", contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
	case IsRetryTopic(topic) || IsDLQTopic(topic):
		if len(topic) > MaxRetryTopicLength {
			return "The specified topic is DLQ or Retry topic: " + string(topic) + ", and it's longer than topic max length: " + strconv.Itoa(MaxRetryTopicLength)
		}
	case len(topic) > MaxTopicLength:
		return "The specified topic: " + string(topic) + ", is longer than topic max length: " + strconv.Itoa(MaxTopicLength)
	}
	return ""
}

// CheckGroup tells what is wrong with a group name, in TopicValidator's words; "" when nothing is.
func CheckGroup(group []byte) (remark string) {
	switch {
	case len(strings.TrimSpace(string(group))) == 0:
		return "The specified group is blank."
	case illegal(group):
		return "The specified group: " + string(group) + ", contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
	case len(group) > MaxGroupLength:
		return "The specified group: " + string(group) + ", is longer than group max length: " + strconv.Itoa(MaxGroupLength)
	}
	return ""
}

func illegal(name []byte) bool {
	for _, c := range name {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '%', c == '|':
		default:
			return true
		}
	}
	return false
}
