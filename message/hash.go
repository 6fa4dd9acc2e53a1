package message

import "unicode/utf8"

// HashCode is Java's String.hashCode of the UTF-8 text s: over UTF-16 units, wrapping at 32 bits. Tags and index keys are
// compared by it.
func HashCode(s []byte) int32 {
	var h int32
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			h = 31*h + int32(s[i])
			i++
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		i += n
		if r >= 0x10000 {
			r -= 0x10000
			h = 31*h + int32(0xD800+(r>>10))
			r = 0xDC00 + r&0x3FF
		}
		h = 31*h + int32(r)
	}
	return h
}

// HashCodeMore continues HashCode: the hash of a+b is HashCodeMore(HashCode(a), b).
func HashCodeMore(h int32, s []byte) int32 {
	pow := int32(1)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRune(s[i:])
		i += n
		pow *= 31
		if r >= 0x10000 {
			pow *= 31
		}
	}
	return h*pow + HashCode(s)
}

// TagsCode is the value that a ConsumeQueue entry holds for a message's tags: 0 for none.
func TagsCode(tags []byte) int64 { return int64(HashCode(tags)) }
