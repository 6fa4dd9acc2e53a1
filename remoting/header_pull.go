package remoting

// Bits of PullHeader.SysFlag (PullSysFlag).
const (
	PullCommitOffset = 1 << 0
	PullSuspend      = 1 << 1
	PullSubscription = 1 << 2
	PullClassFilter  = 1 << 3
	PullLite         = 1 << 4
)

// PullHeader is the header of PULL_MESSAGE and LITE_PULL_MESSAGE (PullMessageRequestHeader). Slices are views into the frame.
type PullHeader struct {
	ConsumerGroup  []byte
	Topic          []byte
	QueueID        int32
	QueueOffset    int64
	MaxMsgNums     int32
	SysFlag        int32
	CommitOffset   int64
	SuspendMillis  int64 // suspendTimeoutMillis
	Subscription   []byte
	SubVersion     int64
	ExpressionType []byte // "" reads as TAG
}

const requiredPull = 1<<9 - 1

var pullFieldNames = [...]string{
	"consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset", "suspendTimeoutMillis", "subVersion",
}

// Decode fills h from the fields of c. The error is a *FieldError that names the first field that is missing or no number.
func (h *PullHeader) Decode(c *Command) error {
	*h = PullHeader{}
	var seen uint
	for i := range c.Fields {
		bit, ok := h.field(&c.Fields[i])
		if !ok {
			return fieldError(string(c.Fields[i].Key), c.Fields[i].Value)
		}
		seen |= bit
	}
	if seen&requiredPull != requiredPull {
		for bit, name := range pullFieldNames {
			if requiredPull&^seen&(1<<bit) != 0 {
				return missing(name)
			}
		}
	}
	return nil
}

func (h *PullHeader) field(f *Field) (bit uint, ok bool) {
	switch string(f.Key) {
	case "consumerGroup":
		h.ConsumerGroup = f.Value
		return 1 << 0, true
	case "topic":
		h.Topic = f.Value
		return 1 << 1, true
	case "queueId":
		return 1 << 2, parseInt32(f.Value, &h.QueueID)
	case "queueOffset":
		h.QueueOffset, ok = ParseInt(f.Value)
		return 1 << 3, ok
	case "maxMsgNums":
		return 1 << 4, parseInt32(f.Value, &h.MaxMsgNums)
	case "sysFlag":
		return 1 << 5, parseInt32(f.Value, &h.SysFlag)
	case "commitOffset":
		h.CommitOffset, ok = ParseInt(f.Value)
		return 1 << 6, ok
	case "suspendTimeoutMillis":
		h.SuspendMillis, ok = ParseInt(f.Value)
		return 1 << 7, ok
	case "subVersion":
		h.SubVersion, ok = ParseInt(f.Value)
		return 1 << 8, ok
	case "subscription":
		h.Subscription = f.Value
	case "expressionType":
		h.ExpressionType = f.Value
	}
	return 0, true
}
