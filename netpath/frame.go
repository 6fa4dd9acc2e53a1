package netpath

import (
	"encoding/binary"
	"fmt"
)

// The walk of one message: conn.go hands the bytes that arrived to Cut; the frame
// that comes out goes to the Handler, which reads it with remoting/command.go.
//
//	| 4: length | 1: serialization | 3: header length | header | body |
//	             \--------- the mark ----------/
//
// length does not count itself. All numbers are big-endian.

const (
	// LengthSize is the size of the length that precedes every frame.
	LengthSize = 4
	// MaxFrame is the largest frame RocketMQ's programs accept. It counts the length bytes.
	MaxFrame = 16 << 20
	// MaxHeader bounds the header of a frame; the binary form of one is rarely above 1 KiB.
	MaxHeader = 64 << 10

	markSize   = 4
	prefixSize = LengthSize + markSize

	serializationJSON   = 0
	serializationBinary = 1
)

// FrameError says why bytes cannot be the frame they claim to be. The stream behind
// it has no boundaries any more, so its connection has to be closed.
type FrameError struct {
	What  string // the broken rule, with its cure
	Got   int64  // what the bytes claim
	Limit int64  // what would have been allowed
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("bad frame: %s (got %d, limit %d)", e.What, e.Got, e.Limit)
}

// Cut returns the first whole frame of buf without its length bytes, and how many bytes
// of buf it took. used == 0 without an error means that more bytes are needed.
// The frame is a view into buf and lives as long as buf does.
//
// A lie in the length or the mark is found as soon as its bytes are there, before
// anybody waits for, or takes memory for, the bytes it promises.
func Cut(buf []byte, maxFrame int) (frame []byte, used int, err error) {
	if len(buf) < LengthSize {
		return nil, 0, nil
	}
	// 64 bits, so that a length near 4 GiB is not negative where int has 32.
	length := int64(binary.BigEndian.Uint32(buf))
	if length < markSize || length+LengthSize > int64(maxFrame) {
		return nil, 0, lengthError(length, maxFrame)
	}
	if len(buf) < prefixSize {
		return nil, 0, nil
	}
	mark := binary.BigEndian.Uint32(buf[LengthSize:])
	headerLen := int64(mark & 0xFFFFFF)
	if mark>>24 > serializationBinary || headerLen > MaxHeader || headerLen > length-markSize {
		return nil, 0, markError(mark, length)
	}
	end := LengthSize + int(length)
	if len(buf) < end {
		return nil, 0, nil
	}
	// The capacity ends with the frame: an append to it cannot reach the next one.
	return buf[LengthSize:end:end], end, nil
}

// frameSize is the size of the frame that starts buf, length bytes included, or of
// the prefix while that is not known. Cut has accepted what is there of buf.
func frameSize(buf []byte) int {
	if len(buf) < prefixSize {
		return prefixSize
	}
	return LengthSize + int(binary.BigEndian.Uint32(buf))
}

// checkFirst judges the first bytes of a connection harder than Cut: it also wants a
// header, and in JSON its brace. enough says that there were bytes enough to judge; a
// stranger who merely hits a valid prefix is found out before more is buffered for him.
func checkFirst(buf []byte, maxFrame int) (enough bool, err error) {
	if _, _, err := Cut(buf, maxFrame); err != nil {
		return true, err
	}
	if len(buf) < prefixSize {
		return false, nil
	}
	mark := binary.BigEndian.Uint32(buf[LengthSize:])
	if mark&0xFFFFFF == 0 {
		return true, &FrameError{What: "the first frame has no header; is the peer a RocketMQ client?", Limit: MaxHeader}
	}
	if len(buf) == prefixSize {
		return false, nil
	}
	if b := buf[prefixSize]; mark>>24 == serializationJSON && b != '{' {
		return true, &FrameError{What: "the first JSON header does not start with a brace; is the peer a RocketMQ client?", Got: int64(b), Limit: '{'}
	}
	return true, nil
}

func lengthError(length int64, maxFrame int) error {
	if length < markSize {
		return &FrameError{What: "length leaves no room for the mark", Got: length, Limit: markSize}
	}
	return &FrameError{What: "frame is too large; send less at once or raise the frame limit", Got: length + LengthSize, Limit: int64(maxFrame)}
}

func markError(mark uint32, length int64) error {
	headerLen := int64(mark & 0xFFFFFF)
	switch {
	case mark>>24 > serializationBinary:
		return &FrameError{What: "unknown header serialization; JSON is 0, ROCKETMQ is 1", Got: int64(mark >> 24), Limit: serializationBinary}
	case headerLen > MaxHeader:
		return &FrameError{What: "header is too long; shorten its properties", Got: headerLen, Limit: MaxHeader}
	default:
		return &FrameError{What: "header is longer than its frame", Got: headerLen, Limit: length - markSize}
	}
}
