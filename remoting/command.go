package remoting

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// In the walk of one message: before this, netpath/frame.go cut the frame; after this, broker/dispatch.go finds the handler.

// Serialisation of a header. Every frame tells its own; a response echoes its request's.
const (
	SerializeJSON     byte = 0
	SerializeRocketMQ byte = 1
)

// Bits of Command.Flag.
const (
	FlagResponse = 1 << 0
	FlagOneway   = 1 << 1
)

// Version is what this program answers as its version: the ordinal of V5_5_0 in MQVersion. Clients switch features on by it.
const Version = 513

// Language codes (LanguageCode); the index is the code.
var languages = [...]string{
	"JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST", "NODE_JS",
}

// LanguageGo is the code for Go; it is what this program says of itself.
const LanguageGo byte = 9

// LanguageName is the name of a language code, "OTHER" for an unknown one.
func LanguageName(code byte) string {
	if int(code) < len(languages) {
		return languages[code]
	}
	return "OTHER"
}

const languageOther byte = 7

func languageCode(name []byte) byte {
	for i, l := range languages {
		if l == string(name) {
			return byte(i)
		}
	}
	return languageOther
}

// maxFields bounds the extension fields of one header. The longest header of RocketMQ has 17.
const maxFields = 256

// Field is one extension field. Both slices are views.
type Field struct{ Key, Value []byte }

// Command is one request or response. A reactor keeps one and decodes into it again and again.
type Command struct {
	Code     int32
	Opaque   int32
	Flag     int32
	Version  int32
	Language byte
	// Serialize is how the header was written: SerializeJSON or SerializeRocketMQ.
	Serialize byte
	Remark    []byte
	Body      []byte
	// Fields are the extension fields in the order of the frame. Unknown ones are kept: access control reads them.
	Fields []Field

	frame []byte

	// scratch holds strings that had to be unescaped. Invariant: it never grows while a frame is being decoded, because Fields
	// point into it.
	scratch []byte
}

// HeaderError is a header that cannot be read; the connection that sent it is of no further use.
type HeaderError struct{ Reason string }

func (e *HeaderError) Error() string { return "remoting header: " + e.Reason }

var errTooManyFields = &HeaderError{fmt.Sprintf("more than %d extension fields", maxFields)}

// Decode reads a frame (from the mark on) into c. What it fills are views into frame and into c's own scratch memory: valid until
// the next Decode and as long as frame is.
func (c *Command) Decode(frame []byte) error {
	if len(frame) < 4 {
		return &HeaderError{"frame is shorter than its mark"}
	}
	mark := binary.BigEndian.Uint32(frame)
	headerLen := int(mark & 0xFFFFFF)
	if headerLen > len(frame)-4 {
		return &HeaderError{"header is longer than the frame"}
	}
	header := frame[4 : 4+headerLen : 4+headerLen]
	*c = Command{Fields: c.Fields[:0], scratch: c.scratch[:0], frame: frame, Serialize: byte(mark >> 24), Body: frame[4+headerLen:]}
	switch c.Serialize {
	case SerializeJSON:
		return c.decodeJSON(header)
	case SerializeRocketMQ:
		return c.decodeBinary(header)
	}
	return &HeaderError{fmt.Sprintf("unknown serialisation %d", c.Serialize)}
}

// Frame is what c was decoded from.
func (c *Command) Frame() []byte { return c.frame }

// IsResponse tells a response from a request.
func (c *Command) IsResponse() bool { return c.Flag&FlagResponse != 0 }

// IsOneway tells that no answer may be sent, not even an error.
func (c *Command) IsOneway() bool { return c.Flag&FlagOneway != 0 }

// Value is the text of an extension field; ok is false where it is absent. The last of several wins.
func (c *Command) Value(key string) (value []byte, ok bool) {
	for i := len(c.Fields) - 1; i >= 0; i-- {
		if string(c.Fields[i].Key) == key {
			return c.Fields[i].Value, true
		}
	}
	return nil, false
}

// String is Value as a string, "" where it is absent. It allocates: not for the hot path.
func (c *Command) String(key string) string {
	v, _ := c.Value(key)
	return string(v)
}

// Int is a decimal field, or fallback where it is absent; an error where it is no number.
func (c *Command) Int(key string, fallback int64) (int64, error) {
	v, ok := c.Value(key)
	if !ok {
		return fallback, nil
	}
	n, ok := ParseInt(v)
	if !ok {
		return 0, fieldError(key, v)
	}
	return n, nil
}

// Bool is a field that reads "true" (any case, as Boolean.parseBoolean), or fallback where it is absent.
func (c *Command) Bool(key string, fallback bool) bool {
	v, ok := c.Value(key)
	if !ok {
		return fallback
	}
	return isTrue(v)
}

// FieldError is a request field that is missing or cannot be read; it is answered, not punished.
type FieldError struct{ Key, Reason string }

func (e *FieldError) Error() string { return "the custom field <" + e.Key + "> " + e.Reason }

func fieldError(key string, value []byte) error {
	if len(value) > 64 {
		value = value[:64]
	}
	return &FieldError{key, fmt.Sprintf("is not valid: %q", value)}
}

func missing(key string) error { return &FieldError{key, "is null"} }

// IsFieldError tells whether err is a FieldError.
func IsFieldError(err error) bool {
	var f *FieldError
	return errors.As(err, &f)
}

// ParseInt reads a decimal number as Java's Long.parseLong does: optional sign, digits only, 64 bits.
func ParseInt(b []byte) (n int64, ok bool) {
	i, negative := 0, false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative, i = b[0] == '-', 1
	}
	if i == len(b) || len(b)-i > 19 {
		return 0, false
	}
	var u uint64
	if len(b)-i >= 8 {
		if u, ok = eightDigits(binary.LittleEndian.Uint64(b[i:])); !ok {
			return 0, false
		}
		i += 8
	}
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 {
			return 0, false
		}
		u = u*10 + uint64(d)
	}
	switch {
	case negative && u <= 1<<63:
		return -int64(u), true
	case !negative && u < 1<<63:
		return int64(u), true
	}
	return 0, false
}

// eightDigits reads eight decimal digits, the first in the lowest byte: neighbours are joined into pairs, fours, eight.
func eightDigits(w uint64) (n uint64, ok bool) {
	const nibbles = each * 0xF0
	if w&nibbles != each*'0' || (w+each*6)&nibbles != each*'0' {
		return 0, false
	}
	w = (w & (each * 0x0F)) * (1 + 10<<8) >> 8
	w = (w & 0x00FF00FF00FF00FF) * (1 + 100<<16) >> 16
	w = (w & 0x0000FFFF0000FFFF) * (1 + 10000<<32) >> 32
	return w, true
}

func isTrue(v []byte) bool {
	return len(v) == 4 && v[0]|0x20 == 't' && v[1]|0x20 == 'r' && v[2]|0x20 == 'u' && v[3]|0x20 == 'e'
}
