package message

import "unicode/utf8"

// HashCode is Java's String.hashCode of the UTF-8 text s: over UTF-16 units, wrapping at 32 bits. Tags and index keys are
// compared by it.
func HashCode(s []byte) int32 { return HashCodeMore(0, s) }

// HashCodeMore continues HashCode: the hash of a+b is HashCodeMore(HashCode(a), b).
func HashCodeMore(h int32, s []byte) int32 {
	for len(s) >= 4 && s[0]|s[1]|s[2]|s[3] < utf8.RuneSelf {
		// Four steps at once: only one of the multiplications waits for the four before.
		h = 31*31*31*31*h + (31*31*31*int32(s[0]) + 31*31*int32(s[1]) + 31*int32(s[2]) + int32(s[3]))
		s = s[4:]
	}
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

// TagsCode is the value that a ConsumeQueue entry holds for a message's tags: 0 for none.
func TagsCode(tags []byte) int64 { return int64(HashCode(tags)) }
