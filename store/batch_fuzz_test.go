package store

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// appendBatchMessage writes one message as clients put it into a batch body.
func appendBatchMessage(dst []byte, flag int32, body, properties string) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, 20)...)
	binary.BigEndian.PutUint32(dst[n+12:], uint32(flag))
	binary.BigEndian.PutUint32(dst[n+16:], uint32(len(body)))
	dst = append(dst, body...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(properties)))
	dst = append(dst, properties...)
	binary.BigEndian.PutUint32(dst[n:], uint32(len(dst)-n))
	return dst
}

// A batch body of any bytes is taken apart within its bounds, and what came of it, put together again, has the same meaning.
func FuzzBatchBody(f *testing.F) {
	two := appendBatchMessage(appendBatchMessage(nil, 3, "body", "TAGS\x01a\x02"), -1, "", "")
	f.Add([]byte(nil))
	f.Add(two)
	f.Add(two[:len(two)-1])
	f.Add(append(bytes.Clone(two), 0))
	for _, lie := range []uint32{0x7FFFFFFF, 0x80000000, 0xFFFFFFFF} {
		bad := bytes.Clone(two)
		binary.BigEndian.PutUint32(bad[16:], lie)
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var again []byte
		rest := body
		for len(rest) > 0 {
			m, next, ok := nextBatchMessage(rest)
			if !ok {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("no way forward")
			}
			part := appendBatchMessage(nil, m.flag, string(m.body), string(m.properties))
			if len(part) != len(rest)-len(next) {
				t.Fatalf("%d bytes became %d", len(rest)-len(next), len(part))
			}
			if !bytes.Equal(part[12:], rest[12:len(rest)-len(next)]) {
				t.Fatalf("%x became %x", rest[:len(rest)-len(next)], part)
			}
			again = append(again, part...)
			rest = next
		}
		if len(again) != len(body) {
			t.Fatalf("%d bytes became %d", len(body), len(again))
		}
	})
}
