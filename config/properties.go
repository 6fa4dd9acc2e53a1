package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Java's properties syntax, as java.util.Properties reads it:
//
//	# comment, ! comment
//	key = value       separators: =, :, or blanks
//	key value \       a line that ends with an odd number of backslashes goes on in the next one,
//	    goes on       whose leading blanks do not count
//	k\u0065y          escapes: \uXXXX \t \n \r \f; any other escaped character stands for itself
//
// Where Java reads Latin-1, a text that is valid UTF-8 is read as UTF-8: both agree on ASCII, which is all that
// formatProperty writes.

// MaxPropertiesSize bounds a properties file and the body of an update-config request.
const MaxPropertiesSize = 1 << 20

var errTooLarge = fmt.Errorf("properties of more than %d bytes", MaxPropertiesSize)

// Property is one key and value, and where they stood.
type Property struct {
	Key, Value string
	Line       int // the first line, from 1

	start, end int // span of the natural lines in the text, line ends included
}

// ParseProperties reads Java's properties syntax. A key that occurs twice is returned twice; the last one counts.
func ParseProperties(text []byte) ([]Property, error) {
	if len(text) > MaxPropertiesSize {
		return nil, errTooLarge
	}
	var props []Property
	line := 1
	for pos := 0; pos < len(text); {
		logical, end, lines := logicalLine(text, pos)
		if logical != "" {
			p, err := splitProperty(logical)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			p.Line, p.start, p.end = line, pos, end
			props = append(props, p)
		}
		line += lines
		pos = end
	}
	return props, nil
}

// logicalLine joins the natural lines that belong together, from pos; it is empty for blank lines and comments.
// It returns the position behind them and their number.
func logicalLine(text []byte, pos int) (logical string, end, lines int) {
	var b strings.Builder
	for {
		natural, next := naturalLine(text, pos)
		lines++
		pos = next
		trimmed := strings.TrimLeft(natural, " \t\f")
		if b.Len() == 0 && (trimmed == "" || trimmed[0] == '#' || trimmed[0] == '!') {
			return "", pos, lines // also behind a line that is a backslash only, as in Java
		}
		if !continues(trimmed) {
			b.WriteString(trimmed)
			return b.String(), pos, lines
		}
		b.WriteString(trimmed[:len(trimmed)-1])
		if pos >= len(text) {
			return b.String(), pos, lines
		}
	}
}

// naturalLine returns the line at pos without its end, as UTF-8, and the position behind its end.
func naturalLine(text []byte, pos int) (line string, next int) {
	end := pos
	for end < len(text) && text[end] != '\n' && text[end] != '\r' {
		end++
	}
	next = min(end+1, len(text))
	if end+1 < len(text) && text[end] == '\r' && text[end+1] == '\n' {
		next = end + 2
	}
	return toUTF8(text[pos:end]), next
}

func toUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// continues says whether the line ends with an odd number of backslashes.
func continues(line string) bool {
	n := len(line) - len(strings.TrimRight(line, `\`))
	return n%2 == 1
}

// splitProperty cuts a logical line into key and value and removes the escapes.
func splitProperty(line string) (Property, error) {
	keyEnd := len(line)
	for i := 0; i < len(line); i++ {
		if line[i] == '\\' {
			i++
			continue
		}
		if strings.IndexByte("=: \t\f", line[i]) >= 0 {
			keyEnd = i
			break
		}
	}
	rest := strings.TrimLeft(line[keyEnd:], " \t\f")
	if rest != "" && (rest[0] == '=' || rest[0] == ':') {
		rest = strings.TrimLeft(rest[1:], " \t\f")
	}
	key, err := unescape(line[:keyEnd])
	if err != nil {
		return Property{}, err
	}
	value, err := unescape(rest)
	return Property{Key: key, Value: value}, err
}

var errBadUnicode = errors.New(`\u must be followed by four hexadecimal digits`)

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			break // a lone backslash at the very end stands for nothing
		}
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			r, used, err := unescapeRune(s[i+1:])
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
			i += used
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

// unescapeRune reads the digits behind \u, and the second half of a surrogate pair. It returns the number of bytes used.
func unescapeRune(s string) (r rune, used int, err error) {
	r, ok := hex4(s)
	if !ok {
		return 0, 0, errBadUnicode
	}
	if utf16.IsSurrogate(r) && len(s) >= 10 && s[4] == '\\' && s[5] == 'u' {
		if low, ok := hex4(s[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 10, nil
			}
		}
	}
	return r, 4, nil
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(s[:4], 16, 32)
	return rune(n), err == nil
}

// formatProperty writes one line that ParseProperties and Java read back to the same key and value.
func formatProperty(key, value string) string {
	var b strings.Builder
	escapeInto(&b, key, true)
	b.WriteByte('=')
	escapeInto(&b, value, false)
	b.WriteByte('\n')
	return b.String()
}

func escapeInto(b *strings.Builder, s string, isKey bool) {
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\f':
			b.WriteString(`\f`)
		case r == ' ' && (isKey || i == 0), isKey && strings.ContainsRune("=:#!", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r > 0x7e:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(b, `\u%04x`, unit)
			}
		default:
			b.WriteRune(r)
		}
	}
}

// replaceProperty returns text with the value of key set: in place of its last occurrence, with comments and all
// other lines kept, or as a new last line.
func replaceProperty(text []byte, key, value string) ([]byte, error) {
	props, err := ParseProperties(text)
	if err != nil {
		return nil, err
	}
	start, end := len(text), len(text)
	for _, p := range props {
		if p.Key == key {
			start, end = p.start, p.end
		}
	}
	out := append([]byte(nil), text[:start]...)
	if start == len(text) {
		out = endLine(out)
	}
	out = append(out, formatProperty(key, value)...)
	return append(out, text[end:]...), nil
}

// endLine ends the last line of text, so that a line appended does not run into it.
func endLine(text []byte) []byte {
	if len(text) == 0 {
		return text
	}
	if last := text[len(text)-1]; last != '\n' && last != '\r' {
		text = append(text, '\n')
	}
	if continues(strings.TrimRight(string(text), "\r\n")) {
		if text[len(text)-1] == '\r' {
			text = append(text, '\n') // or the next would belong to it
		}
		text = append(text, '\n') // a blank line ends the continuation
	}
	return text
}
