package message

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestNextProperty(t *testing.T) {
	// What MessageDecoder.string2messageProperties makes of the same text.
	for _, c := range []struct{ rule, text, want string }{
		{"empty", "", ""},
		{"one", "a\x01b\x02", "a=b"},
		{"last separator is optional", "a\x01b\x02c\x01d", "a=b c=d"},
		{"no name separator: skipped", "junk\x02a\x01b\x02", "a=b"},
		{"no name: skipped", "\x01v\x02a\x01b\x02", "a=b"},
		{"no value: skipped", "a\x01\x02c\x01d\x02", "c=d"},
		{"no value at the end: skipped", "a\x01b\x02c\x01", "a=b"},
		{"name separator in the value belongs to it", "a\x01b\x01c\x02", "a=b\x01c"},
		{"separators alone", "\x02\x02\x01\x02", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			var got []string
			for text := []byte(c.text); ; {
				name, value, rest, ok := NextProperty(text)
				if !ok {
					break
				}
				got = append(got, fmt.Sprintf("%s=%s", name, value))
				text = rest
			}
			if g := strings.Join(got, " "); g != c.want {
				t.Errorf("%q, want %q", g, c.want)
			}
		})
	}
}

func TestProperty(t *testing.T) {
	text := []byte("a\x01first\x02b\x01x\x02a\x01last\x02a\x01\x02")
	if v, ok := Property(text, "a"); !ok || string(v) != "last" {
		t.Errorf("the last entry with a value wins: %q", v)
	}
	if _, ok := Property(text, "c"); ok {
		t.Error("there is no c")
	}
}

func TestAppendAndLeaveOut(t *testing.T) {
	text := AppendProperty(AppendProperty(nil, "a", []byte("1")), "b", []byte("2"))
	if string(text) != "a\x011\x02b\x012\x02" {
		t.Fatalf("%q", text)
	}
	got := AppendWithout([]byte("x"), append(text, "c\x013"...), func(name []byte) bool { return string(name) == "b" })
	if string(got) != "xa\x011\x02c\x013\x02" {
		t.Errorf("%q", got)
	}
}

func TestScanHot(t *testing.T) {
	h := ScanHot([]byte("KEYS\x01k1 k2\x02TAGS\x01t\x02UNIQ_KEY\x01u\x02DELAY\x013\x02WAIT\x01false\x02x\x01y"))
	if string(h.Keys) != "k1 k2" || string(h.Tags) != "t" || string(h.UniqKey) != "u" || string(h.Delay) != "3" || string(h.Wait) != "false" || h.Special {
		t.Errorf("%+v", h)
	}
	for _, name := range []string{PropertyTransactionPrepared, PropertyTimerDelayMs, PropertyTimerDelaySec, PropertyTimerDeliverMs,
		PropertyRetryTopic, PropertyInnerMultiDispatch, PropertyInnerNum, PropertyPopCk, PropertyLiteTopic, PropertyPriority,
		PropertyMsgRegion, PropertyTraceOn, PropertyCluster, PropertyCRC32} {
		if !ScanHot(AppendProperty(nil, name, []byte("v"))).Special {
			t.Errorf("%s needs the slow look", name)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name         string
		topic, group bool // allowed
	}{
		{"abc_%|-9", true, true}, {"", false, false}, {" ", false, false}, {"a b", false, false}, {"a/b", false, false}, {"ä", false, false},
		{strings.Repeat("t", 120), true, true}, {strings.Repeat("t", 127), true, false}, {strings.Repeat("t", 128), false, false},
		{RetryTopic(strings.Repeat("g", 248)), true, false}, {RetryTopic(strings.Repeat("g", 249)), false, false},
	} {
		if got := CheckTopic([]byte(c.name)); (got == "") != c.topic {
			t.Errorf("topic %q: %s", c.name, got)
		}
		if got := CheckGroup([]byte(c.name)); (got == "") != c.group {
			t.Errorf("group %q: %s", c.name, got)
		}
	}
	for _, topic := range SystemTopics() {
		if !IsSystemTopic(topic) {
			t.Errorf("%s is no system topic", topic)
		}
	}
	if !IsSendForbidden([]byte(HalfTopic)) || IsSendForbidden([]byte("t")) || !IsSystemGroup("CID_RMQ_SYS_x") || IsSystemGroup("g") {
		t.Error("reserved names")
	}
	if !IsRetryTopic([]byte("%RETRY%g")) || IsRetryTopic([]byte("%RETRY%")) || !IsDLQTopic([]byte(DLQTopic("g"))) || IsDLQTopic([]byte("g")) {
		t.Error("prefixes")
	}
}

// utf8 texts and their String.hashCode in Java (testdata/README.md).
var javaHashes = map[string]int32{
	"": 0, "a": 97, "TagA": 2598919, "Aa": 2112, "BB": 2112, "é": 233, "中文": 646394, "😀": 1772899, "a😀b": 57849694, "\x00": 0,
	"TAG-with-a-very-long-name-that-wraps-around-the-32-bit-range": 329924809, "𝔘𝔫𝔦": -2106254422,
}

func TestHashCodeIsJavas(t *testing.T) {
	for s, want := range javaHashes {
		if got := HashCode([]byte(s)); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
		if TagsCode([]byte(s)) != int64(want) {
			t.Errorf("%q: the tags code is not the hash with its sign", s)
		}
		for other := range javaHashes {
			if got, want := HashCodeMore(HashCode([]byte(s)), []byte(other)), HashCode([]byte(s+other)); got != want {
				t.Errorf("%q + %q: %d, want %d", s, other, got, want)
			}
		}
	}
}

func FuzzProperties(f *testing.F) {
	for _, seed := range []string{"", "a\x01b\x02", "TAGS\x01t\x02KEYS\x01k", "\x01\x02", "\x02\x02", "a\x01\x02b", "__CRC32#\x010123456789\x02",
		"UNIQ_KEY\x017F0000010001B4AAC27D0000000000000001\x02WAIT\x01true\x02DELAY\x013\x02TRAN_MSG\x01true\x02TAGS\x01a\x01b"} {
		f.Add([]byte(seed), "a")
	}
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		value, ok := Property(text, name)
		// The same by plain means, as Java's decoder does it.
		var want []byte
		found := false
		for entry := range bytes.SplitSeq(text, []byte{PropertySeparator}) {
			if n, v, cut := bytes.Cut(entry, []byte{NameValueSeparator}); cut && len(n) > 0 && len(v) > 0 && string(n) == name {
				want, found = v, true
			}
		}
		if ok != found || !bytes.Equal(value, want) {
			t.Fatalf("%q %t, want %q %t", value, ok, want, found)
		}
		all := AppendWithout(nil, text, func([]byte) bool { return false })
		if again := AppendWithout(nil, all, func([]byte) bool { return false }); !bytes.Equal(all, again) {
			t.Fatalf("%q became %q", all, again)
		}
		hot := ScanHot(text)
		for name, got := range map[string][]byte{
			PropertyTags: hot.Tags, PropertyKeys: hot.Keys, PropertyUniqKey: hot.UniqKey, PropertyWait: hot.Wait, PropertyDelay: hot.Delay,
		} {
			if want, _ := Property(text, name); !bytes.Equal(got, want) {
				t.Fatalf("%s is %q in one pass, %q by itself", name, got, want)
			}
		}
		if _, special := Property(text, PropertyTransactionPrepared); special && !hot.Special {
			t.Fatalf("a transaction's message is not special: %q", text)
		}
	})
}
