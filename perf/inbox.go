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

// next cuts the next frame off, from its mark on; nil when there is no whole one. It is valid until fill.
func (b *inbox) next() ([]byte, error) {
	if b.end-b.start < 4 {
		return nil, nil
	}
	length := int64(binary.BigEndian.Uint32(b.buf[b.start:]))
	if length < 4 || length > maxFrame-4 {
		return nil, fmt.Errorf("frame length %d is not between 4 and %d", length, maxFrame-4)
	}
	if int64(b.end-b.start) < 4+length {
		return nil, nil
	}
	frame := b.buf[b.start+4 : b.start+4+int(length)]
	b.start += 4 + int(length)
	return frame, nil
}

func (b *inbox) reset() { b.start, b.end = 0, 0 }
