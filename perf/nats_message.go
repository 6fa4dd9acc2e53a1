package perf

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// natsKind is what a line of a NATS server is about.
type natsKind byte

const (
	natsOther natsKind = iota // INFO, +OK, PONG: nothing to do
	natsPing
	natsMsg
)

// natsMessage is one line of a NATS server, with the message that it announces. All slices are views.
//
//	MSG subject sid [reply] size\r\npayload\r\n
//	HMSG subject sid [reply] headerSize size\r\nNATS/1.0[ status text]\r\n...\r\n\r\npayload\r\n
type natsMessage struct {
	kind       natsKind
	sid        int // of the subscription
	subject    []byte
	reply      []byte
	header     []byte
	payload    []byte
	status     int // of an answer that is no message: 404 nothing there, 408 time is over, 503 nobody listens
	headerSize int
	size       int // of header and payload
}

var natsCRLF = []byte("\r\n")

// read reads what b begins with; size is 0 when b does not hold all of it.
func (m *natsMessage) read(b []byte) (size int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > natsMaxLine {
			return 0, fmt.Errorf("nats: no end of line within %d bytes", natsMaxLine)
		}
		return 0, nil
	}
	behind, err := m.head(b[:end+1])
	if err != nil || len(b) < end+1+behind {
		return 0, err
	}
	m.body(b[end+1 : end+1+behind])
	return end + 1 + behind, nil
}

// head reads the line, and tells how many bytes belong to it behind its end.
func (m *natsMessage) head(line []byte) (behind int, err error) {
	*m = natsMessage{}
	line = bytes.TrimSuffix(line, natsCRLF)
	word, rest, _ := bytes.Cut(line, []byte(" "))
	var sizes int
	switch string(word) {
	case "MSG":
		sizes = 1
	case "HMSG":
		sizes = 2
	case "PING":
		m.kind = natsPing
		return 0, nil
	case "INFO", "+OK", "PONG":
		return 0, nil
	default:
		return 0, fmt.Errorf("nats: the server says %q", line)
	}
	m.kind = natsMsg
	var fields [5][]byte
	n := 0
	for len(rest) > 0 && n < len(fields) {
		fields[n], rest, _ = bytes.Cut(rest, []byte(" "))
		n++
	}
	if len(rest) > 0 || n != 2+sizes && n != 3+sizes {
		return 0, fmt.Errorf("nats: the server says %q", line)
	}
	m.subject = fields[0]
	sid, _ := number(fields[1])
	m.sid = int(sid)
	if n == 3+sizes {
		m.reply = fields[2]
	}
	var ok bool
	if m.size, ok = natsSize(fields[n-1]); !ok {
		return 0, errors.New("nats: a message without a size")
	}
	if sizes == 2 {
		if m.headerSize, ok = natsSize(fields[n-2]); !ok || m.headerSize > m.size {
			return 0, errors.New("nats: a header larger than its message")
		}
	}
	return m.size + len(natsCRLF), nil
}

func natsSize(digits []byte) (int, bool) {
	n, ok := number(digits)
	return int(n), ok && n <= maxFrame
}

// body takes what is behind the line.
func (m *natsMessage) body(b []byte) {
	if m.kind != natsMsg {
		return
	}
	m.header, m.payload = b[:m.headerSize], b[m.headerSize:m.size]
	if line, ok := bytes.CutPrefix(m.header, []byte("NATS/1.0 ")); ok && len(line) >= 3 {
		if status, ok := number(line[:3]); ok {
			m.status = int(status)
		}
	}
}

// number reads decimal digits and nothing else.
func number(digits []byte) (n int64, ok bool) {
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

// lastNumber is the number behind the last dot of a subject.
func lastNumber(subject []byte) (int64, bool) {
	return number(subject[bytes.LastIndexByte(subject, '.')+1:])
}

// numberBehind is the number that follows a key of a JSON text written without blanks; 0 when it is not there.
func numberBehind(text, key []byte) int64 {
	at := bytes.Index(text, key)
	if at < 0 {
		return 0
	}
	text = text[at+len(key):]
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	n, _ := number(text[:end])
	return n
}

// streamSequence is the stream's sequence in the reply subject of a message from a consumer: $JS.ACK.stream.consumer.delivered.
// streamSeq.consumerSeq.time.pending, with domain and account before the stream in the long form; 0 when it is something else.
func streamSequence(reply []byte) int64 {
	dots := bytes.Count(reply, []byte("."))
	skip := 5
	switch {
	case !bytes.HasPrefix(reply, []byte("$JS.ACK.")) || dots < 8:
		return 0
	case dots > 8:
		skip = 7
	}
	for range skip {
		reply = reply[bytes.IndexByte(reply, '.')+1:]
	}
	end := bytes.IndexByte(reply, '.')
	if end < 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(reply[:end]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
