package remoting

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Java's bodies are not always JSON: maps with keys that are no strings come raw, {0:"addr"} and {{"queueId":0}:1}. The normaliser
// below turns such a text into standard JSON in one pass; encoding/json reads the result. It also takes what fastjson takes besides:
// single quotes, names without quotes, a comma before a closing bracket, control characters inside strings.
//
// Its bounds: 64 levels, and no object key inside another object key (each level of quoting would double the backslashes); with that the
// result is at most seven times as long as the input, and the input is no longer than a frame.

const (
	maxBodyDepth = 64
	// maxBodySize bounds a body that DecodeBody reads: no frame is longer, but an inflated registration may be.
	maxBodySize = 64 << 20
)

// ErrEmptyBody is the absence of a body where the request needs one.
var ErrEmptyBody = errors.New("the request has no body")

// DecodeBody reads a body into v, a pointer to a struct of body_*.go. Members that v does not know are ignored. Maps with object keys
// are map[MessageQueue]T.
func DecodeBody(text []byte, v any) error {
	if len(text) == 0 {
		return ErrEmptyBody
	}
	standard, err := StandardJSON(make([]byte, 0, len(text)+len(text)/8), text)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(standard, v); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// JSONError is a text that is neither JSON nor what fastjson takes for it.
type JSONError struct {
	At     int // byte where reading stopped
	Reason string
}

func (e *JSONError) Error() string { return fmt.Sprintf("body: %s at byte %d", e.Reason, e.At) }

// StandardJSON appends text to dst as standard JSON. Numbers and literals are passed on as they stand: encoding/json judges them.
func StandardJSON(dst, text []byte) ([]byte, error) {
	if len(text) > maxBodySize {
		return dst, &JSONError{0, fmt.Sprintf("text of %d bytes, more than %d", len(text), maxBodySize)}
	}
	n := normaliser{text: text, out: dst}
	if err := n.value(0); err != nil {
		return dst, err
	}
	if n.peek() != 0 || n.at < len(text) {
		return dst, n.fail("something behind the end of the value")
	}
	return n.out, nil
}

// normaliser reads text from at on and writes out. Invariant: at <= len(text).
type normaliser struct {
	text  []byte
	out   []byte
	at    int
	inKey bool
}

func (n *normaliser) fail(reason string) error { return &JSONError{n.at, reason} }

// peek skips blanks and returns the next byte, 0 at the end.
func (n *normaliser) peek() byte {
	for n.at < len(n.text) {
		switch b := n.text[n.at]; b {
		case ' ', '\t', '\n', '\r', '\f', '\b':
			n.at++
		default:
			return b
		}
	}
	return 0
}

func (n *normaliser) value(depth int) error {
	if depth > maxBodyDepth {
		return n.fail(fmt.Sprintf("nested deeper than %d levels", maxBodyDepth))
	}
	switch b := n.peek(); {
	case b == '{':
		return n.list('}', depth, n.member)
	case b == '[':
		return n.list(']', depth, n.value)
	case b == '"' || b == '\'':
		return n.str(b)
	case isBare(b):
		n.out = append(n.out, n.bare()...)
		return nil
	}
	return n.fail("no value")
}

// list reads what stands between two brackets, with commas between its elements and perhaps one behind the last.
func (n *normaliser) list(end byte, depth int, element func(depth int) error) error {
	n.out = append(n.out, n.text[n.at])
	n.at++
	for i := 0; ; i++ {
		if n.peek() == end {
			break
		}
		if i > 0 {
			n.out = append(n.out, ',')
		}
		if err := element(depth + 1); err != nil {
			return err
		}
		next := n.peek()
		if next == end {
			break
		}
		if next != ',' {
			return n.fail("neither a comma nor a closing bracket")
		}
		n.at++
	}
	n.out = append(n.out, end)
	n.at++
	return nil
}

func (n *normaliser) member(depth int) error {
	if err := n.key(depth); err != nil {
		return err
	}
	if n.peek() != ':' {
		return n.fail("no colon behind the name of a member")
	}
	n.at++
	n.out = append(n.out, ':')
	return n.value(depth)
}

func (n *normaliser) key(depth int) error {
	switch b := n.peek(); {
	case b == '"' || b == '\'':
		return n.str(b)
	case b == '{':
		return n.objectKey(depth)
	case isBare(b):
		n.out = append(n.out, '"')
		n.out = append(n.out, n.bare()...)
		n.out = append(n.out, '"')
		return nil
	}
	return n.fail("no name of a member")
}

// objectKey writes an object that is a key as a string with the object's text.
func (n *normaliser) objectKey(depth int) error {
	if n.inKey {
		return n.fail("an object as a key inside a key")
	}
	n.inKey = true
	start := len(n.out)
	err := n.value(depth)
	n.inKey = false
	if err != nil {
		return err
	}
	object := string(n.out[start:])
	n.out = appendJSONString(n.out[:start], object)
	return nil
}

// isBare tells the bytes of which numbers, literals and names without quotes are made.
func isBare(b byte) bool {
	return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' || b == '-' || b == '+' || b == '.' || b == '_' || b == '$'
}

func (n *normaliser) bare() []byte {
	start := n.at
	for n.at < len(n.text) && isBare(n.text[n.at]) {
		n.at++
	}
	return n.text[start:n.at]
}

func (n *normaliser) str(quote byte) error {
	n.at++
	n.out = append(n.out, '"')
	for n.at < len(n.text) {
		b := n.text[n.at]
		n.at++
		switch {
		case b == quote:
			n.out = append(n.out, '"')
			return nil
		case b == '\\':
			if err := n.escape(); err != nil {
				return err
			}
		case b == '"':
			n.out = append(n.out, '\\', '"')
		case b < 0x20:
			n.out = appendControl(n.out, b)
		default:
			n.out = append(n.out, b)
		}
	}
	return n.fail("string without an end")
}

// escape reads what follows a backslash. Besides JSON's escapes fastjson takes \' \v \xHH and \0..\7.
func (n *normaliser) escape() error {
	if n.at == len(n.text) {
		return n.fail("string without an end")
	}
	b := n.text[n.at]
	n.at++
	switch {
	case b == '\'':
		n.out = append(n.out, b)
	case b == 'v':
		n.out = appendControl(n.out, '\v')
	case b >= '0' && b <= '7':
		n.out = appendControl(n.out, b-'0')
	case b == 'x':
		if n.at+2 > len(n.text) {
			return n.fail("string without an end")
		}
		c, err := strconv.ParseUint(string(n.text[n.at:n.at+2]), 16, 8)
		if err != nil {
			return n.fail("no two digits behind \\x")
		}
		n.at += 2
		n.out = appendControl(n.out, byte(c))
	default:
		n.out = append(n.out, '\\', b) // encoding/json judges the rest
	}
	return nil
}

func appendControl(dst []byte, b byte) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
}
