package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Key is one property of a process: a row of the table that the struct tags spell out.
type Key struct {
	Name    string // property name, RocketMQ's where RocketMQ has it
	Env     string // name of the environment variable
	Kind    string // bool, int, float or string
	Default string // in the text form of the properties file
	Unit    string // what a number counts; empty for plain counts and words
	Hot     bool   // may be changed while the process runs
	Secret  bool   // never printed

	index    []int // of the field, for reflect.Value.FieldByIndex
	min, max int64
	words    []string
	check    string
}

// keysOf reads the table from the tags of the struct that dst points to.
func keysOf(dst any) []Key {
	var keys []Key
	for _, f := range reflect.VisibleFields(reflect.TypeOf(dst).Elem()) {
		name, ok := f.Tag.Lookup("prop")
		if !ok {
			continue
		}
		k := Key{
			Name: name, Env: envName(name), Kind: kindOf(f.Type), index: f.Index,
			Default: f.Tag.Get("default"), Unit: f.Tag.Get("unit"), check: f.Tag.Get("check"),
			Hot: f.Tag.Get("hot") != "", Secret: f.Tag.Get("secret") != "",
		}
		if words := f.Tag.Get("oneof"); words != "" {
			k.words = strings.Split(words, "|")
		}
		if k.Kind == "int" {
			k.min, k.max = mustInt(name, f.Tag.Get("min")), mustInt(name, f.Tag.Get("max"))
		}
		keys = append(keys, k)
	}
	return keys
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int64:
		return "int"
	case reflect.String:
		return "string"
	}
	panic("BUG: no properties of type " + t.String())
}

func mustInt(name, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic("BUG: property " + name + " needs min and max: " + err.Error())
	}
	return n
}

// Usage is one line for a flag: what is accepted, and the default.
func (k Key) Usage() string {
	parts := []string{k.Accepts()}
	if k.Default != "" {
		parts = append(parts, "default "+k.Default)
	}
	if k.Hot {
		parts = append(parts, "changeable at run time")
	}
	return strings.Join(parts, "; ")
}

// Accepts says in words which values the key takes.
func (k Key) Accepts() string {
	switch {
	case len(k.words) > 0:
		return "one of " + strings.Join(k.words, ", ")
	case k.Kind == "bool":
		return "true or false"
	case k.Kind == "int":
		s := fmt.Sprintf("a whole number %d..%d", k.min, k.max)
		if k.Unit != "" {
			s += " (" + k.Unit + ")"
		}
		return s
	case k.check != "":
		return valueChecks[k.check].accepts
	}
	return "text"
}

// Check says whether the text is a value for this key; the error names the key and what is accepted.
func (k Key) Check(text string) error {
	_, err := k.parse(text)
	return err
}

// parse turns text into a value of the field's kind: bool, int64 or string.
func (k Key) parse(text string) (any, error) {
	text = strings.TrimSpace(text)
	switch k.Kind {
	case "bool":
		if v, ok := parseBool(text); ok {
			return v, nil
		}
	case "int":
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && n >= k.min && n <= k.max {
			return n, nil
		}
	case "string":
		if len(k.words) > 0 && !slices.Contains(k.words, text) {
			break
		}
		if k.check == "" || valueChecks[k.check].ok(text) {
			return text, nil
		}
	}
	return nil, &ValueError{Key: k.Name, Value: shown(k, text), Accepts: k.Accepts()}
}

// shown is the value as an error may show it: bounded, and nothing of a secret.
func shown(k Key, text string) string {
	if k.Secret {
		return "(hidden)"
	}
	if len(text) > 80 {
		return text[:80] + "..."
	}
	return text
}

// parseBool takes true and false in any case, as Java does; anything else, which Java reads as false, is refused.
func parseBool(text string) (value, ok bool) {
	switch {
	case strings.EqualFold(text, "true"):
		return true, true
	case strings.EqualFold(text, "false"):
		return false, true
	}
	return false, false
}

// set parses text into the key's field of the struct that dst points to.
func (k Key) set(dst any, text string) error {
	v, err := k.parse(text)
	if err != nil {
		return err
	}
	field := reflect.ValueOf(dst).Elem().FieldByIndex(k.index)
	switch v := v.(type) {
	case bool:
		field.SetBool(v)
	case int64:
		field.SetInt(v)
	case string:
		field.SetString(v)
	}
	return nil
}

// text is the key's value in the struct that src points to, in Java's value style.
func (k Key) text(src any) string {
	return fmt.Sprint(reflect.ValueOf(src).Elem().FieldByIndex(k.index).Interface())
}

func mustSetDefaults(dst any) {
	for _, k := range keysOf(dst) {
		if err := k.set(dst, k.Default); err != nil {
			panic("BUG: default of a property: " + err.Error())
		}
	}
}

// ValueError is a value that a key does not take.
type ValueError struct {
	Key, Value string
	Accepts    string // what it does take
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s=%q is not accepted: give %s", e.Key, e.Value, e.Accepts)
}

// envPrefix starts the environment variables that carry properties.
const envPrefix = "RINGMQ_"

// envName turns flushDiskType into RINGMQ_FLUSH_DISK_TYPE, brokerIP1 into RINGMQ_BROKER_IP1 and tls.server.mode into
// RINGMQ_TLS_SERVER_MODE.
func envName(property string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	lower := false
	for _, r := range property {
		switch {
		case r == '.':
			b.WriteByte('_')
			lower = false
			continue
		case unicode.IsUpper(r) && lower:
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
		lower = !unicode.IsUpper(r)
	}
	return b.String()
}
