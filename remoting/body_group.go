package remoting

import "encoding/json"

// Bodies about subscription groups.

// SubscriptionGroupConfig is the body of 200, the answer to 352 and a row of subscriptionGroup.json.
type SubscriptionGroupConfig struct {
	Attributes                     map[string]string        `json:"attributes"`
	BrokerID                       int64                    `json:"brokerId"`
	ConsumeBroadcastEnable         bool                     `json:"consumeBroadcastEnable"`
	ConsumeEnable                  bool                     `json:"consumeEnable"`
	ConsumeFromMinEnable           bool                     `json:"consumeFromMinEnable"`
	ConsumeMessageOrderly          bool                     `json:"consumeMessageOrderly"`
	ConsumeTimeoutMinute           int32                    `json:"consumeTimeoutMinute"`
	GroupName                      string                   `json:"groupName"`
	GroupRetryPolicy               GroupRetryPolicy         `json:"groupRetryPolicy"`
	GroupSysFlag                   int32                    `json:"groupSysFlag"`
	NotifyConsumerIDsChangedEnable bool                     `json:"notifyConsumerIdsChangedEnable"`
	RetryMaxTimes                  int32                    `json:"retryMaxTimes"`
	RetryQueueNums                 int32                    `json:"retryQueueNums"`
	SubscriptionDataSet            []SimpleSubscriptionData `json:"subscriptionDataSet,omitempty"`
	WhichBrokerWhenConsumeSlowly   int64                    `json:"whichBrokerWhenConsumeSlowly"`
}

// NewSubscriptionGroupConfig is a group with Java's defaults.
func NewSubscriptionGroupConfig(name string) SubscriptionGroupConfig {
	return SubscriptionGroupConfig{
		ConsumeBroadcastEnable: true, ConsumeEnable: true, ConsumeFromMinEnable: true, ConsumeTimeoutMinute: 15, GroupName: name,
		GroupRetryPolicy: GroupRetryPolicy{Type: RetryCustomized}, NotifyConsumerIDsChangedEnable: true, RetryMaxTimes: 16,
		RetryQueueNums: 1, WhichBrokerWhenConsumeSlowly: 1,
	}
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (g *SubscriptionGroupConfig) UnmarshalJSON(text []byte) error {
	type plain SubscriptionGroupConfig
	p := plain(NewSubscriptionGroupConfig(""))
	err := json.Unmarshal(text, &p)
	*g = SubscriptionGroupConfig(p)
	return err
}

// SimpleSubscriptionData is a subscription that an operator fixed for a group.
type SimpleSubscriptionData struct {
	Expression     string `json:"expression"`
	ExpressionType string `json:"expressionType"`
	Topic          string `json:"topic"`
	Version        int64  `json:"version"`
}

// RetryType is the kind of a GroupRetryPolicy (GroupRetryPolicyType).
type RetryType string

// Kinds of retry policies.
const (
	RetryExponential RetryType = "EXPONENTIAL"
	RetryCustomized  RetryType = "CUSTOMIZED"
)

var retryTypes = []RetryType{RetryExponential, RetryCustomized}

// UnmarshalJSON takes a name or an ordinal.
func (r *RetryType) UnmarshalJSON(text []byte) error { return unmarshalEnum(text, retryTypes, r) }

// GroupRetryPolicy is when a message that was not consumed comes again.
type GroupRetryPolicy struct {
	CustomizedRetryPolicy  *CustomizedRetryPolicy  `json:"customizedRetryPolicy"`
	ExponentialRetryPolicy *ExponentialRetryPolicy `json:"exponentialRetryPolicy"`
	Type                   RetryType               `json:"type"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (g *GroupRetryPolicy) UnmarshalJSON(text []byte) error {
	type plain GroupRetryPolicy
	p := plain{Type: RetryCustomized}
	err := json.Unmarshal(text, &p)
	*g = GroupRetryPolicy(p)
	return err
}

// defaultRetrySeconds are the delays of a customized policy that names none.
var defaultRetrySeconds = []int64{1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200}

// CustomizedRetryPolicy lists the delays in milliseconds.
type CustomizedRetryPolicy struct {
	Next []int64 `json:"next"`
}

// ExponentialRetryPolicy multiplies the delay each time. Milliseconds.
type ExponentialRetryPolicy struct {
	Initial    int64 `json:"initial"`
	Max        int64 `json:"max"`
	Multiplier int64 `json:"multiplier"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (e *ExponentialRetryPolicy) UnmarshalJSON(text []byte) error {
	type plain ExponentialRetryPolicy
	p := plain{Initial: 5000, Max: 2 * 3600 * 1000, Multiplier: 2}
	err := json.Unmarshal(text, &p)
	*e = ExponentialRetryPolicy(p)
	return err
}

// NextDelayMillis is how long the message waits after it failed for the reconsumeTimes-th time. As in Java, a customized policy looks two
// places further: its first two delays belong to delay levels that retries do not use.
func (g *GroupRetryPolicy) NextDelayMillis(reconsumeTimes int32) int64 {
	times := int64(max(reconsumeTimes, 0))
	if e := g.ExponentialRetryPolicy; g.Type == RetryExponential && e != nil {
		return e.nextDelay(min(times, 32))
	}
	if c := g.CustomizedRetryPolicy; g.Type == RetryCustomized && c != nil && len(c.Next) > 0 {
		return c.Next[min(times+2, int64(len(c.Next)-1))]
	}
	return 1000 * defaultRetrySeconds[min(times+2, int64(len(defaultRetrySeconds)-1))]
}

func (e *ExponentialRetryPolicy) nextDelay(times int64) int64 {
	delay := e.Initial
	for range times {
		if delay >= e.Max || e.Multiplier < 1 {
			break
		}
		if delay > e.Max/e.Multiplier {
			return e.Max
		}
		delay *= e.Multiplier
	}
	return min(delay, e.Max)
}

// SubscriptionGroupList is the body of 225.
type SubscriptionGroupList struct {
	GroupConfigList []SubscriptionGroupConfig `json:"groupConfigList"`
}

// SubscriptionGroupTable is the answer to 201 and the file subscriptionGroup.json (SubscriptionGroupWrapper).
type SubscriptionGroupTable struct {
	DataVersion            DataVersion                        `json:"dataVersion"`
	ForbiddenTable         map[string]map[string]int32        `json:"forbiddenTable"`
	SubscriptionGroupTable map[string]SubscriptionGroupConfig `json:"subscriptionGroupTable"`
}

// GroupForbidden is the answer to 353.
type GroupForbidden struct {
	Group    string `json:"group"`
	Readable *bool  `json:"readable"`
	Topic    string `json:"topic"`
}

// GroupList is the answer to 300.
type GroupList struct {
	GroupList []string `json:"groupList"`
}

// QuerySubscriptionBody is the answer to 345 (QuerySubscriptionResponseBody).
type QuerySubscriptionBody struct {
	Group            string            `json:"group"`
	SubscriptionData *SubscriptionData `json:"subscriptionData"`
	Topic            string            `json:"topic,omitempty"`
}

// SetRequestModeBody is the body of 401 and a row of 402 (SetMessageRequestModeRequestBody).
type SetRequestModeBody struct {
	ConsumerGroup    string `json:"consumerGroup"`
	Mode             string `json:"mode"` // PULL or POP
	PopShareQueueNum int32  `json:"popShareQueueNum"`
	Topic            string `json:"topic"`
}

// UnmarshalJSON leaves Java's defaults where the text says nothing.
func (s *SetRequestModeBody) UnmarshalJSON(text []byte) error {
	type plain SetRequestModeBody
	p := plain{Mode: "PULL"}
	err := json.Unmarshal(text, &p)
	*s = SetRequestModeBody(p)
	return err
}

// RequestModeTable is the answer to 402 (MessageRequestModeSerializeWrapper).
type RequestModeTable struct {
	MessageRequestModeMap map[string]map[string]SetRequestModeBody `json:"messageRequestModeMap"`
}
