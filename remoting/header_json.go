package remoting

import (
	"unicode/utf16"
	"unicode/utf8"
)

// The JSON header (RemotingSerializable). This reader takes one flat object with an object of texts inside, and no memory; the
// bodies are read elsewhere, by a library.

var (
	errJSONHeader = &HeaderError{"not a JSON object of the form {\"code\":..,\"extFields\":{..},..}"}
	errJSONDeep   = &HeaderError{"JSON nested deeper than 32 levels"}
)

// jsonScanner walks over the header. at never goes past len(text).
type jsonScanner struct {
	text []byte
	at   int
	c    *Command
}

func (c *Command) decodeJSON(header []byte) error {
	if cap(c.scratch) < len(header) {
		c.scratch = make([]byte, 0, max(512, len(header)))
	}
	s := jsonScanner{text: header, c: c}
	return s.object(inHeader, 0)
}

// What the members of an object are. A number and not a function value: a method value would take memory on each call.
type objectKind int

const (
	inHeader objectKind = iota
	inExtFields
	inUnknown
)

func (s *jsonScanner) member(kind objectKind, key []byte, depth int) error {
	switch kind {
	case inHeader:
		return s.headerMember(key)
	case inExtFields:
		return s.extField(key)
	}
	return s.skip(depth + 1)
}

// headerMember reads one member of the outer object.
func (s *jsonScanner) headerMember(key []byte) error {
	switch string(key) {
	case "code":
		return s.int32(&s.c.Code)
	case "flag":
		return s.int32(&s.c.Flag)
	case "opaque":
		return s.int32(&s.c.Opaque)
	case "version":
		return s.int32(&s.c.Version)
	case "language":
		v, _, err := s.scalar()
		s.c.Language = languageCode(v)
		return err
	case "remark":
		v, null, err := s.scalar()
		if !null {
			s.c.Remark = v
		}
		return err
	case "extFields":
		if s.peek() != '{' {
			return s.skip(0)
		}
		return s.object(inExtFields, 0)
	}
	return s.skip(0)
}

func (s *jsonScanner) extField(key []byte) error {
	if next := s.peek(); next == '{' || next == '[' {
		return s.skip(0)
	}
	v, null, err := s.scalar()
	if err != nil || null {
		return err
	}
	if len(s.c.Fields) == maxFields {
		return errTooManyFields
	}
	s.c.Fields = append(s.c.Fields, Field{key, v})
	return nil
}

// object reads {"key":value,...}; member reads each value.
func (s *jsonScanner) object(kind objectKind, depth int) error {
	if s.peek() != '{' {
		return errJSONHeader
	}
	s.at++
	if s.peek() == '}' {
		s.at++
		return nil
	}
	for {
		if s.peek() != '"' {
			return errJSONHeader
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		if s.peek() != ':' {
			return errJSONHeader
		}
		s.at++
		if err := s.member(kind, key, depth); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return errJSONHeader
		}
	}
}

// peek skips blanks and returns the next byte, 0 at the end.
func (s *jsonScanner) peek() byte {
	for s.at < len(s.text) {
		switch b := s.text[s.at]; b {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return b
		}
	}
	return 0
}

// scalar reads a string, number, true, false or null; null is told apart.
func (s *jsonScanner) scalar() (text []byte, null bool, err error) {
	switch b := s.peek(); {
	case b == '"':
		text, err = s.str()
		return text, false, err
	case b == '-' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z':
		start := s.at
		for s.at < len(s.text) && isScalarByte(s.text[s.at]) {
			s.at++
		}
		text = s.text[start:s.at]
		return text, string(text) == "null", nil
	}
	return nil, false, errJSONHeader
}

func isScalarByte(b byte) bool {
	return b == '-' || b == '+' || b == '.' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func (s *jsonScanner) int32(dst *int32) error {
	text, null, err := s.scalar()
	if err != nil || null {
		return err
	}
	n, ok := ParseInt(text)
	if !ok || n != int64(int32(n)) {
		return &HeaderError{"code, flag, opaque or version is not a 32-bit number"}
	}
	*dst = int32(n)
	return nil
}

// str reads a string at its opening quote. Without escapes the result is a view into the header, else into scratch.
func (s *jsonScanner) str() ([]byte, error) {
	s.at++
	start := s.at
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case '"':
			v := s.text[start:s.at]
			s.at++
			return v, nil
		case '\\':
			return s.unescape(start)
		}
		s.at++
	}
	return nil, errJSONHeader
}

func (s *jsonScanner) unescape(start int) ([]byte, error) {
	// An unescaped text is never longer than the escaped one, so scratch, as long as the header, does not grow.
	out := s.c.scratch
	from := len(out)
	out = append(out, s.text[start:s.at]...)
	for s.at < len(s.text) {
		b := s.text[s.at]
		s.at++
		switch b {
		case '"':
			s.c.scratch = out
			return out[from:len(out):len(out)], nil
		case '\\':
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		default:
			out = append(out, b)
		}
	}
	return nil, errJSONHeader
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

// skip passes over any value.
func (s *jsonScanner) skip(depth int) error {
	if depth > 32 {
		return errJSONDeep
	}
	switch s.peek() {
	case '{':
		return s.object(inUnknown, depth)
	case '[':
		return s.skipArray(depth)
	}
	_, _, err := s.scalar()
	return err
}

func (s *jsonScanner) skipArray(depth int) error {
	s.at++
	if s.peek() == ']' {
		s.at++
		return nil
	}
	for {
		if err := s.skip(depth + 1); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return errJSONHeader
		}
	}
}
