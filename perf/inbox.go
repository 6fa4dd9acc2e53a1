package perf

import (
	"encoding/binary"
	"fmt"
)

const (
	inboxSize = 256 << 10
	maxFrame  = 16 << 20
)

// inbox is what a connection has received and not handled yet. Its buffer is used again and again; it grows, by doubling, only for
// a frame that fills it.
type inbox struct {
	buf        []byte
	start, end int
}

// fill reads once. whole tells that the buffer was filled: there may be more.
func (b *inbox) fill(s *socket) (whole bool, err error) {
	if b.start > 0 {
		b.end = copy(b.buf, b.buf[b.start:b.end])
		b.start = 0
	}
	if b.end == len(b.buf) {
		b.buf = append(b.buf, make([]byte, max(len(b.buf), inboxSize))...)
	}
	n, err := s.read(b.buf[b.end:])
	b.end += n
	return b.end == len(b.buf), err
}

// rest is what has not been handled yet. It is valid until fill.
func (b *inbox) rest() []byte { return b.buf[b.start:b.end] }

// take counts n bytes of rest as handled.
func (b *inbox) take(n int) { b.start += n }

// sizedFrame is the size of the frame that b begins with, whose length stands in its first four bytes: 0 when it is not whole.
func sizedFrame(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, nil
	}
	length := int64(binary.BigEndian.Uint32(b))
	if length < 4 || length > maxFrame-4 {
		return 0, fmt.Errorf("frame length %d is not between 4 and %d", length, maxFrame-4)
	}
	if int64(len(b)) < 4+length {
		return 0, nil
	}
	return 4 + int(length), nil
}

func (b *inbox) reset() { b.start, b.end = 0, 0 }
