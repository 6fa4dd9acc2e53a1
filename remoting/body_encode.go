package remoting

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// Bodies are written the way RocketMQ's Java programs write theirs (RemotingSerializable, fastjson2), because old clients read them
// with string searches and not with a JSON parser:
//
//   - members in alphabetical order (the structs in body_*.go declare them so; a test holds them to it), no blanks
//   - what Java has as null is left out: nil pointers, and members tagged omitempty that are empty strings, nil slices or nil maps
//   - empty collections are written: a nil slice or map without omitempty is [] or {}
//   - doubles always have a point: 0.0
//   - a map whose keys are numbers has them raw, {0:"addr"}; a map whose keys are objects has those raw,
//     {{"brokerName":"ba","queueId":0,"topic":"T"}:1}
//
// Maps are written in the order of their keys, so that the same content is the same bytes. Reflection is fine here: bodies belong to the
// control plane.

// EncodeBody writes v, a struct of body_*.go or what is made of them, as Java writes it.
func EncodeBody(v any) []byte {
	e := bodyEncoder{}
	e.value(reflect.ValueOf(v))
	return e.buf
}

// EncodeStandardBody writes standard JSON in ASCII: number keys are quoted, other scripts escaped. Clients from 4.9.4 on get routes so.
func EncodeStandardBody(v any) []byte {
	e := bodyEncoder{standard: true}
	e.value(reflect.ValueOf(v))
	return e.buf
}

// EncodePrettyBody is EncodeBody with a line for each member, indented by tabs: the form of the files under store/config.
func EncodePrettyBody(v any) []byte {
	e := bodyEncoder{pretty: true}
	e.value(reflect.ValueOf(v))
	return e.buf
}

type bodyEncoder struct {
	buf      []byte
	standard bool
	pretty   bool
	depth    int
}

type bodyField struct {
	name      string
	index     int
	omitEmpty bool
}

var bodyFieldCache sync.Map // reflect.Type → []bodyField

func bodyFields(t reflect.Type) []bodyField {
	if f, ok := bodyFieldCache.Load(t); ok {
		return f.([]bodyField)
	}
	var fields []bodyField
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			panic("BUG: body " + t.Name() + ": field " + f.Name + " has no json tag")
		}
		fields = append(fields, bodyField{name, i, options == "omitempty"})
	}
	bodyFieldCache.Store(t, fields)
	return fields
}

func (e *bodyEncoder) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			e.buf = append(e.buf, "null"...)
			return
		}
		e.value(v.Elem())
	case reflect.Struct:
		e.structure(v)
	case reflect.Map:
		e.table(v)
	case reflect.Slice:
		if raw, ok := v.Interface().(json.RawMessage); ok {
			e.buf = append(e.buf, raw...)
			return
		}
		e.open('[')
		for i := range v.Len() {
			e.element(i)
			e.value(v.Index(i))
		}
		e.close(']', v.Len())
	case reflect.String:
		e.text(v.String())
	case reflect.Bool:
		e.buf = strconv.AppendBool(e.buf, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.buf = strconv.AppendInt(e.buf, v.Int(), 10)
	case reflect.Float64:
		e.buf = appendDouble(e.buf, v.Float())
	default:
		panic(fmt.Sprintf("BUG: a body cannot hold a %s", v.Type()))
	}
}

func (e *bodyEncoder) structure(v reflect.Value) {
	e.open('{')
	n := 0
	for _, f := range bodyFields(v.Type()) {
		member := v.Field(f.index)
		if absent(member, f.omitEmpty) {
			continue
		}
		e.element(n)
		n++
		e.text(f.name)
		e.buf = append(e.buf, ':')
		e.value(member)
	}
	e.close('}', n)
}

func absent(v reflect.Value, omitEmpty bool) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return v.IsNil()
	case reflect.Slice, reflect.Map:
		return omitEmpty && v.IsNil()
	case reflect.String:
		return omitEmpty && v.Len() == 0
	}
	return false
}

func (e *bodyEncoder) table(v reflect.Value) {
	keys := v.MapKeys()
	slices.SortFunc(keys, compareKeys)
	e.open('{')
	for i, k := range keys {
		e.element(i)
		e.tableKey(k)
		e.buf = append(e.buf, ':')
		e.value(v.MapIndex(k))
	}
	e.close('}', len(keys))
}

func compareKeys(a, b reflect.Value) int {
	switch a.Kind() {
	case reflect.String:
		return strings.Compare(a.String(), b.String())
	case reflect.Struct:
		return a.Interface().(MessageQueue).Compare(b.Interface().(MessageQueue))
	}
	x, y := a.Int(), b.Int()
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func (e *bodyEncoder) tableKey(k reflect.Value) {
	if k.Kind() == reflect.String {
		e.text(k.String())
		return
	}
	// A raw key is always in one line, also where the rest is indented.
	inner := bodyEncoder{standard: e.standard}
	inner.value(k)
	if e.standard {
		e.text(string(inner.buf))
		return
	}
	e.buf = append(e.buf, inner.buf...)
}

func (e *bodyEncoder) open(bracket byte) {
	e.buf = append(e.buf, bracket)
	e.depth++
}

func (e *bodyEncoder) element(i int) {
	if i > 0 {
		e.buf = append(e.buf, ',')
	}
	e.newLine()
}

func (e *bodyEncoder) close(bracket byte, elements int) {
	e.depth--
	if elements > 0 {
		e.newLine()
	}
	e.buf = append(e.buf, bracket)
}

func (e *bodyEncoder) newLine() {
	if !e.pretty {
		return
	}
	e.buf = append(e.buf, '\n')
	for range e.depth {
		e.buf = append(e.buf, '\t')
	}
}

func (e *bodyEncoder) text(s string) {
	start := len(e.buf)
	e.buf = appendJSONString(e.buf, s)
	if e.standard {
		e.buf = appendASCII(e.buf[:start], string(e.buf[start:]))
	}
}

// appendASCII adds text, with \uXXXX for what is not ASCII.
func appendASCII(dst []byte, text string) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			dst = append(dst, text[i])
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		i += n
		for _, u := range utf16.AppendRune(nil, r) {
			dst = append(dst, '\\', 'u', hex[u>>12], hex[u>>8&15], hex[u>>4&15], hex[u&15])
		}
	}
	return dst
}

// appendDouble writes a number as Java's Double.toString does: plain from 1e-3 to 1e7, else with E and no plus sign. JSON has no NaN
// and no infinities; fastjson writes null for them, and readers take 0.0 better.
func appendDouble(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		f = 0
	}
	if a := math.Abs(f); a == 0 || a >= 1e-3 && a < 1e7 {
		start := len(dst)
		dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
		if !slices.Contains(dst[start:], '.') {
			dst = append(dst, '.', '0')
		}
		return dst
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	dst = append(dst, mantissa...)
	if !strings.Contains(mantissa, ".") {
		dst = append(dst, '.', '0')
	}
	n, _ := strconv.Atoi(exponent)
	return strconv.AppendInt(append(dst, 'E'), int64(n), 10)
}
