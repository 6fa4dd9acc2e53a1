package remoting

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

// Writer appends one frame to a buffer, without taking memory of its own:
//
//	w := remoting.Respond(dst, cmd, remoting.RespSuccess, "")
//	w.Int("queueOffset", 7)
//	dst = w.Finish(body)
//
// The body is the caller's; the buffer is the caller's again after Finish.
type Writer struct {
	buf       []byte
	start     int // where the frame begins in buf
	ext       int // binary: where the length of the extension fields stands
	serialize byte
	any       bool // JSON: a field has been written
}

// Respond begins the response to request in the request's own serialisation. remark is "" on success.
func Respond(dst []byte, request *Command, code int32, remark string) Writer {
	return begin(dst, request.Serialize, code, request.Opaque, FlagResponse, remark)
}

// RespondTo is Respond for a request that is gone.
func RespondTo(dst []byte, serialize byte, code, opaque int32, remark string) Writer {
	return begin(dst, serialize, code, opaque, FlagResponse, remark)
}

// Request begins a request. flag is 0 or FlagOneway.
func Request(dst []byte, serialize byte, code, opaque, flag int32) Writer {
	return begin(dst, serialize, code, opaque, flag, "")
}

func begin(dst []byte, serialize byte, code, opaque, flag int32, remark string) Writer {
	w := Writer{buf: dst, start: len(dst), serialize: serialize}
	w.buf = append(w.buf, 0, 0, 0, 0, serialize, 0, 0, 0)
	if serialize == SerializeRocketMQ {
		be := binary.BigEndian
		w.buf = be.AppendUint16(w.buf, uint16(code))
		w.buf = append(w.buf, LanguageGo)
		w.buf = be.AppendUint16(w.buf, Version)
		w.buf = be.AppendUint32(w.buf, uint32(opaque))
		w.buf = be.AppendUint32(w.buf, uint32(flag))
		w.buf = be.AppendUint32(w.buf, uint32(len(remark)))
		w.buf = append(w.buf, remark...)
		w.ext = len(w.buf)
		w.buf = append(w.buf, 0, 0, 0, 0)
		return w
	}
	if code == RespSuccess && flag == FlagResponse && remark == "" {
		w.buf = append(w.buf, `{"code":0,"flag":1,"language":"GO","opaque":`...)
		w.buf = strconv.AppendInt(w.buf, int64(opaque), 10)
		w.buf = append(w.buf, `,"serializeTypeCurrentRPC":"JSON","version":513,"extFields":{`...)
		return w
	}
	w.buf = append(w.buf, `{"code":`...)
	w.buf = strconv.AppendInt(w.buf, int64(code), 10)
	w.buf = append(w.buf, `,"flag":`...)
	w.buf = strconv.AppendInt(w.buf, int64(flag), 10)
	w.buf = append(w.buf, `,"language":"GO","opaque":`...)
	w.buf = strconv.AppendInt(w.buf, int64(opaque), 10)
	w.buf = append(w.buf, `,"serializeTypeCurrentRPC":"JSON","version":513`...)
	if remark != "" {
		w.buf = append(w.buf, `,"remark":`...)
		w.buf = appendJSONString(w.buf, remark)
	}
	w.buf = append(w.buf, `,"extFields":{`...)
	return w
}

func (w *Writer) key(key string, valueLen int) {
	if w.serialize == SerializeRocketMQ {
		w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(len(key)))
		w.buf = append(w.buf, key...)
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(valueLen))
		return
	}
	if w.any {
		w.buf = append(w.buf, ',', '"')
	} else {
		w.any = true
		w.buf = append(w.buf, '"')
	}
	w.buf = append(w.buf, key...)
	w.buf = append(w.buf, '"', ':')
}

// Bytes adds a field. The key must need no escaping.
func (w *Writer) Bytes(key string, value []byte) {
	w.key(key, len(value))
	if w.serialize == SerializeRocketMQ {
		w.buf = append(w.buf, value...)
		return
	}
	w.buf = appendJSONString(w.buf, value)
}

// Text adds a field.
func (w *Writer) Text(key, value string) {
	w.key(key, len(value))
	if w.serialize == SerializeRocketMQ {
		w.buf = append(w.buf, value...)
		return
	}
	w.buf = appendJSONString(w.buf, value)
}

// Int adds a decimal field.
func (w *Writer) Int(key string, value int64) {
	if w.serialize != SerializeRocketMQ {
		w.key(key, 0)
		w.buf = append(w.buf, '"')
		w.buf = strconv.AppendInt(w.buf, value, 10)
		w.buf = append(w.buf, '"')
		return
	}
	var digits [20]byte
	w.Bytes(key, strconv.AppendInt(digits[:0], value, 10))
}

// Encoded is a run of fields in both serialisations, for what is the same in many answers.
type Encoded struct{ json, binary []byte }

// EncodeFields writes fields once for many answers. They are at least one.
func EncodeFields(write func(w *Writer)) Encoded {
	j, b := Writer{serialize: SerializeJSON}, Writer{serialize: SerializeRocketMQ}
	write(&j)
	write(&b)
	return Encoded{j.buf, b.buf}
}

// Encoded adds fields that were written before.
func (w *Writer) Encoded(e *Encoded) {
	if w.serialize == SerializeRocketMQ {
		w.buf = append(w.buf, e.binary...)
		return
	}
	if w.any {
		w.buf = append(w.buf, ',')
	}
	w.any = true
	w.buf = append(w.buf, e.json...)
}

// Bool adds a field that reads true or false.
func (w *Writer) Bool(key string, value bool) {
	if value {
		w.Text(key, "true")
		return
	}
	w.Text(key, "false")
}

// Finish adds the body and closes the frame.
func (w *Writer) Finish(body []byte) []byte {
	w.close(len(body))
	return append(w.buf, body...)
}

// FinishHead closes the header of a frame whose body of bodyLen bytes the caller sends behind it (sendfile).
func (w *Writer) FinishHead(bodyLen int) []byte {
	w.close(bodyLen)
	return w.buf
}

func (w *Writer) close(bodyLen int) {
	if w.serialize == SerializeRocketMQ {
		binary.BigEndian.PutUint32(w.buf[w.ext:], uint32(len(w.buf)-w.ext-4))
	} else {
		w.buf = append(w.buf, '}', '}')
	}
	headerLen := len(w.buf) - w.start - 8
	binary.BigEndian.PutUint32(w.buf[w.start:], uint32(4+headerLen+bodyLen))
	binary.BigEndian.PutUint32(w.buf[w.start+4:], uint32(w.serialize)<<24|uint32(headerLen))
}

// appendJSONString quotes text. Nearly every text can stand as it is: it is copied first and looked at where it lies then.
func appendJSONString[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, '"')
	at := len(dst)
	dst = append(dst, text...)
	if n := plainASCII(dst[at:]); n < len(text) {
		dst = appendEscaped(dst[:at+n], text[n:])
	}
	return append(dst, '"')
}

// plainASCII is the number of bytes at the start of text that JSON takes as they are.
func plainASCII(text []byte) int {
	at := 0
	for ; len(text)-at >= 8; at += 8 {
		w := binary.LittleEndian.Uint64(text[at:])
		if marks := marksIn(w) | (w-each*0x20)&^w&high | w&high; marks != 0 {
			return at + bits.TrailingZeros64(marks)>>3
		}
	}
	for at < len(text) && text[at] >= 0x20 && text[at] != '"' && text[at] != '\\' && text[at] < utf8.RuneSelf {
		at++
	}
	return at
}

// appendEscaped is the inside of a string. Bytes that are no UTF-8 become the replacement character, as JSON has no other way.
func appendEscaped[T string | []byte](dst []byte, text T) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(text); {
		b := text[i]
		if b >= 0x20 && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(text[i:min(len(text), i+utf8.UTFMax)]))
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, text[start:i]...)
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b == '\r':
			dst = append(dst, '\\', 'r')
		case b == '\t':
			dst = append(dst, '\\', 't')
		case b >= utf8.RuneSelf:
			dst = utf8.AppendRune(dst, utf8.RuneError)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
		i++
		start = i
	}
	return append(dst, text[start:]...)
}
