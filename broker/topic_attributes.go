package broker

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Attributes of topics and groups. Does the work of TopicAttributes, SubscriptionGroupAttributes, AttributeParser and AttributeUtil. A
// request changes them by signed keys, "+message.type=FIFO,-reserve.time". The error texts are Java's: mqadmin shows them and people search
// for them.

// Names of the attributes that this program acts upon.
const (
	attributeQueueType     = "queue.type"
	attributeCleanupPolicy = "cleanup.policy"
	attributeMessageType   = "message.type"
	attributeReserveTime   = "reserve.time"
	attributeLiteExpires   = "lite.topic.expiration"

	messageTypeMixed = "MIXED"
)

const (
	maxAttributes      = 64   // in one request, and so in one topic
	maxAttributeLength = 1024 // of a value
)

// javaText is an error in Java's words, capitals and full stops included.
type javaText string

func (t javaText) Error() string { return string(t) }

// attribute is what may be said of one key.
type attribute struct {
	changeable bool
	verify     func(value string) error
}

var topicAttributes = map[string]attribute{
	attributeQueueType:     {false, oneOf("BatchCQ", "SimpleCQ")},
	attributeCleanupPolicy: {false, oneOf("DELETE", "COMPACTION")},
	attributeMessageType:   {true, oneOf("UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "PRIORITY", "LITE", messageTypeMixed)},
	attributeReserveTime:   {true, inRange(-1, math.MaxInt64)},
	attributeLiteExpires:   {true, inRange(-1, 30*24*60)},
}

var groupAttributes = map[string]attribute{
	"priority.factor":                   {true, inRange(0, 100)},
	"lite.bind.topic":                   {true, anyText},
	"lite.sub.model":                    {true, oneOf("Shared", "Exclusive")},
	"lite.sub.reset.offset.exclusive":   {true, trueOrFalse},
	"lite.sub.reset.offset.unsubscribe": {true, trueOrFalse},
	"lite.sub.client.quota":             {true, inRange(-1, math.MaxInt64)},
	"lite.sub.client.max.event.cnt":     {true, inRange(10, math.MaxInt64)},
	"lite.sub.wildcard":                 {true, anyText},
}

func oneOf(values ...string) func(string) error {
	return func(value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("value is not in set: [%s]", strings.Join(values, ", "))
		}
		return nil
	}
}

func inRange(lowest, highest int64) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return javaText(fmt.Sprintf("For input string: %q", value))
		}
		if n < lowest || n > highest {
			return fmt.Errorf("value is not in range(%d, %d)", lowest, highest)
		}
		return nil
	}
}

func trueOrFalse(value string) error {
	if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
		return javaText("boolean attribute format is wrong.")
	}
	return nil
}

func anyText(string) error { return nil }

// parseAttributes cuts the text of a request header into signed keys and values.
func parseAttributes(text string) (map[string]string, error) {
	changes := map[string]string{}
	if strings.Count(text, ",") >= maxAttributes {
		return nil, fmt.Errorf("more than %d attributes in one request", maxAttributes)
	}
	for kv := range strings.SplitSeq(strings.TrimRight(text, ","), ",") {
		if text == "" {
			break
		}
		key, value, isValue := strings.Cut(kv, "=")
		switch {
		case isValue && !strings.Contains(key, "+"):
			return nil, errors.New("add/alter attribute format is wrong: " + key)
		case !isValue && !strings.Contains(key, "-"):
			return nil, errors.New("delete attribute format is wrong: " + key)
		case isValue && value == "":
			return nil, javaText("kv string format wrong.")
		}
		if _, twice := changes[key]; twice {
			return nil, errors.New("key duplication: " + key)
		}
		changes[key] = value
	}
	return changes, nil
}

// alterAttributes applies signed changes to the attributes of something that exists, or, with create, of something new. It changes neither
// map.
func alterAttributes(create bool, known map[string]attribute, current, changes map[string]string) (map[string]string, error) {
	if len(changes) > maxAttributes {
		return nil, fmt.Errorf("more than %d attributes in one request", maxAttributes)
	}
	result := map[string]string{}
	maps.Copy(result, current)
	seen := map[string]bool{}
	for _, signed := range slices.Sorted(maps.Keys(changes)) {
		key, err := realKey(signed)
		if err != nil {
			return nil, err
		}
		if seen[key] {
			return nil, errors.New("alter duplication key. key: " + key)
		}
		seen[key] = true
		if err := alterOne(create, known, result, signed[0], key, changes[signed]); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func realKey(signed string) (string, error) {
	if len(signed) < 2 || strings.ContainsAny(signed[1:], "+-") {
		return "", javaText("kv string format wrong.")
	}
	return signed[1:], nil
}

func alterOne(create bool, known map[string]attribute, result map[string]string, sign byte, key, value string) error {
	_, has := result[key]
	switch {
	case create && sign != '+':
		return errors.New("only add attribute is supported while creating topic. key: " + key)
	case sign != '+' && sign != '-':
		return errors.New("wrong format key: " + key)
	case sign == '-' && !has:
		return errors.New("attempt to delete a nonexistent key: " + key)
	}
	a, ok := known[key]
	switch {
	case !ok:
		return errors.New("unsupported key: " + key)
	case !create && !a.changeable:
		return errors.New("attempt to update an unchangeable attribute. key: " + key)
	case sign == '-':
		delete(result, key)
		return nil
	case len(value) > maxAttributeLength:
		return fmt.Errorf("value of %s is longer than %d", key, maxAttributeLength)
	}
	if err := a.verify(value); err != nil {
		return err
	}
	result[key] = value
	return nil
}
