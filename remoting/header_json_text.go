package remoting

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// The strings of the JSON header: nearly all of its bytes. They are looked at eight at a time.

// each is a byte repeated eight times when multiplied with it; high is the top bit of every byte.
const (
	each uint64 = 0x0101010101010101
	high uint64 = 0x8080808080808080
)

// zeroBytes marks the zero bytes of w by their top bits. The lowest mark is right; one above it may not be.
func zeroBytes(w uint64) uint64 { return (w - each) &^ w & high }

// marksIn marks the quotes and backslashes of eight bytes, as zeroBytes does.
func marksIn(w uint64) uint64 { return zeroBytes(w^each*'"') | zeroBytes(w^each*'\\') }

// plainEnd is the place of the first quote or backslash of t from at on, or len(t).
func plainEnd(t []byte, at int) int {
	for ; len(t)-at >= 8; at += 8 {
		if marks := marksIn(binary.LittleEndian.Uint64(t[at:])); marks != 0 {
			return at + bits.TrailingZeros64(marks)>>3
		}
	}
	for at < len(t) && t[at] != '"' && t[at] != '\\' {
		at++
	}
	return at
}

// plainFields reads extension fields as clients write them: "name":"value" and a comma, without blanks and without an escape in the
// name. It stands at a member; true: it has read the object to its end. Otherwise it stops before the first member that is
// written in another way, or wrong, and object reads that one.
func (s *jsonScanner) plainFields() (closed bool) {
	t, c := s.text, s.c
	fields, at, scratch := c.Fields, s.at, c.scratch
	for len(fields) < maxFields {
		key, quote, ok := plainName(t, at)
		if !ok {
			break
		}
		end := plainEnd(t, quote+1)
		if end == len(t) {
			break
		}
		value := t[quote+1 : end]
		if t[end] == '\\' {
			var err error
			s.at = end
			if value, err = s.unescape(quote + 1); err != nil {
				break
			}
			end = s.at - 1
		}
		if end+1 == len(t) || t[end+1] != ',' && t[end+1] != '}' {
			break
		}
		fields = append(fields, Field{key, value})
		at, scratch = end+2, c.scratch
		if t[end+1] == '}' {
			closed = true
			break
		}
	}
	s.at, c.Fields, c.scratch = at, fields, scratch
	return closed
}

// plainName reads "name":" and answers the place of the last quote.
func plainName(t []byte, at int) (name []byte, quote int, ok bool) {
	if len(t)-at >= 8 {
		// A name of one letter, as SEND_MESSAGE_V2 has them.
		const mask, want = 0xFF_FF_FF_00_FF, '"' | '"'<<16 | ':'<<24 | '"'<<32
		if binary.LittleEndian.Uint64(t[at:])&mask == want && t[at+1] != '"' && t[at+1] != '\\' {
			return t[at+1 : at+2], at + 4, true
		}
	}
	if at == len(t) || t[at] != '"' {
		return nil, 0, false
	}
	end := plainEnd(t, at+1)
	if len(t)-end < 3 || t[end] != '"' || t[end+1] != ':' || t[end+2] != '"' {
		return nil, 0, false
	}
	return t[at+1 : end], end + 2, true
}

// plainMembers reads members of the outer object as clients write them. True: the last one ended without a comma. False: it stands before a
// member that is written in another way, or wrong.
func (s *jsonScanner) plainMembers() bool {
	for s.plainMember() {
		if s.at == len(s.text) || s.text[s.at] != ',' {
			return true
		}
		s.at++
	}
	return false
}

// plainMember reads one of them. The names are compared as constants: a few instructions instead of a call.
func (s *jsonScanner) plainMember() bool {
	c, t := s.c, s.text[s.at:]
	if len(t) < 10 {
		return false
	}
	switch t[1] {
	case 'c':
		return string(t[:7]) == `"code":` && s.digits(7, &c.Code)
	case 'f':
		return string(t[:7]) == `"flag":` && s.digits(7, &c.Flag)
	case 'o':
		return string(t[:9]) == `"opaque":` && s.digits(9, &c.Opaque)
	case 'v':
		return string(t[:10]) == `"version":` && s.digits(10, &c.Version)
	case 'l':
		const name = `"language":"`
		if len(t) < len(name) || string(t[:len(name)]) != name {
			return false
		}
		end := plainEnd(t, len(name))
		if end == len(t) || t[end] != '"' {
			return false
		}
		c.Language = languageCode(t[len(name):end])
		s.at += end + 1
		return true
	case 's':
		const whole = `"serializeTypeCurrentRPC":"JSON"`
		if len(t) < len(whole) || string(t[:len(whole)]) != whole {
			return false
		}
		s.at += len(whole)
		return true
	}
	return false
}

// str reads a string at its opening quote. Without escapes the result is a view into the header, else into scratch.
func (s *jsonScanner) str() ([]byte, error) {
	start := s.at + 1
	s.at = plainEnd(s.text, start)
	switch {
	case s.at == len(s.text):
		return nil, errJSONHeader
	case s.text[s.at] == '\\':
		return s.unescape(start)
	}
	v := s.text[start:s.at]
	s.at++
	return v, nil
}

// unescape reads on at the first backslash of a string that began at start.
func (s *jsonScanner) unescape(start int) ([]byte, error) {
	// An unescaped text is never longer than the escaped one, so scratch, as long as the header, does not grow.
	t, out := s.text, s.c.scratch
	from := len(out)
	out = append(out, t[start:s.at]...)
	for s.at < len(t) {
		if b, ok := controlEscape(t[s.at:]); ok {
			out = append(out, b)
			s.at += controlEscapeLen
		} else if t[s.at] == '\\' {
			s.at++
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		} else {
			s.at++
			s.c.scratch = out
			return out[from:len(out):len(out)], nil
		}
		out = s.copyPlain(out)
	}
	return nil, errJSONHeader
}

// copyPlain appends what stands before the next quote or backslash. It copies eight bytes and then looks how many of them count: most
// texts between two escapes are too short for a call.
func (s *jsonScanner) copyPlain(out []byte) []byte {
	t, at, n := s.text, s.at, len(out)
	for len(t)-at >= 8 && cap(out)-n >= 8 {
		w := binary.LittleEndian.Uint64(t[at:])
		binary.LittleEndian.PutUint64(out[n:n+8], w)
		if marks := marksIn(w); marks != 0 {
			k := bits.TrailingZeros64(marks) >> 3
			s.at = at + k
			return out[:n+k]
		}
		at += 8
		n += 8
	}
	end := plainEnd(t, at)
	s.at = end
	return append(out[:n], t[at:end]...)
}

const controlEscapeLen = len(`\u0000`)

// controlEscape reads \u0000 to \u0009, which are most of what is escaped: the separators of properties.
func controlEscape(t []byte) (b byte, ok bool) {
	if len(t) < controlEscapeLen || string(t[:5]) != `\u000` {
		return 0, false
	}
	b = t[5] - '0'
	return b, b <= 9
}

// escape reads what follows a backslash.
func (s *jsonScanner) escape(out []byte) ([]byte, error) {
	if s.at >= len(s.text) {
		return nil, errJSONHeader
	}
	b := s.text[s.at]
	s.at++
	switch b {
	case '"', '\\', '/', '\'':
		return append(out, b), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, ok := s.hex4()
		if !ok {
			return nil, errJSONHeader
		}
		if utf16.IsSurrogate(r) && s.at+1 < len(s.text) && s.text[s.at] == '\\' && s.text[s.at+1] == 'u' {
			s.at += 2
			low, ok := s.hex4()
			if !ok {
				return nil, errJSONHeader
			}
			r = utf16.DecodeRune(r, low)
		}
		return utf8.AppendRune(out, r), nil
	}
	return nil, errJSONHeader
}

func (s *jsonScanner) hex4() (rune, bool) {
	if s.at+4 > len(s.text) {
		return 0, false
	}
	var r rune
	for _, b := range s.text[s.at : s.at+4] {
		switch {
		case b >= '0' && b <= '9':
			r = r<<4 | rune(b-'0')
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			r = r<<4 | rune(b|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	s.at += 4
	return r, true
}
