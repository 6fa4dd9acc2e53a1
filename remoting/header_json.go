package remoting

import "math"

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

// anyMember reads a name, a colon and a value, with blanks wherever JSON takes them.
func (s *jsonScanner) anyMember(kind objectKind, depth int) error {
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
	return s.member(kind, key, depth)
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
		if kind == inExtFields && s.plainFields() {
			return nil
		}
		if kind != inHeader || !s.plainMembers() {
			if err := s.anyMember(kind, depth); err != nil {
				return err
			}
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
	if s.at < len(s.text) && s.text[s.at] > ' ' { // as clients write it, and short enough to be inlined
		return s.text[s.at]
	}
	return s.peekBehindBlanks()
}

func (s *jsonScanner) peekBehindBlanks() byte {
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

// digits reads, skip bytes ahead, a number of up to ten digits and nothing else, as clients write it. False: it is not, and nothing was
// read.
func (s *jsonScanner) digits(skip int, dst *int32) bool {
	n, t, at := int64(0), s.text[s.at+skip:], 0
	for ; at < len(t) && at < 10; at++ {
		d := t[at] - '0'
		if d > 9 {
			break
		}
		n = n*10 + int64(d)
	}
	if at == 0 || n > math.MaxInt32 || at < len(t) && isScalarByte(t[at]) {
		return false
	}
	*dst = int32(n)
	s.at += skip + at
	return true
}

func isScalarByte(b byte) bool {
	return b == '-' || b == '+' || b == '.' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func (s *jsonScanner) int32(dst *int32) error {
	if s.digits(0, dst) {
		return nil
	}
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
