package config

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestParseProperties(t *testing.T) {
	cases := []struct {
		name, text string
		want       []Property // Key, Value, Line
	}{
		{"equals sign", "a=b", []Property{{Key: "a", Value: "b", Line: 1}}},
		{"colon, and blanks around", " a : b ", []Property{{Key: "a", Value: "b ", Line: 1}}},
		{"blank as separator", "a\tb c", []Property{{Key: "a", Value: "b c", Line: 1}}},
		{"second separator belongs to the value", "a==b", []Property{{Key: "a", Value: "=b", Line: 1}}},
		{"no value", "a\nb=\n", []Property{{Key: "a", Line: 1}, {Key: "b", Line: 2}}},
		{"comments and empty lines", "#a=1\n  ! b=2\n\n \t\nc=3", []Property{{Key: "c", Value: "3", Line: 5}}},
		{"a comment does not go on", "#a \\\nb=2", []Property{{Key: "b", Value: "2", Line: 2}}},
		{"continuation drops leading blanks", "a=1,\\\n   2\nb=3", []Property{{Key: "a", Value: "1,2", Line: 1}, {Key: "b", Value: "3", Line: 3}}},
		{"continued line may look like a comment", "a=1\\\n#2", []Property{{Key: "a", Value: "1#2", Line: 1}}},
		{"even number of backslashes ends the line", `a=1\\` + "\nb=2", []Property{{Key: "a", Value: `1\`, Line: 1}, {Key: "b", Value: "2", Line: 2}}},
		{"blank line ends a continuation", "a=1\\\n\nb=2", []Property{{Key: "a", Value: "1", Line: 1}, {Key: "b", Value: "2", Line: 3}}},
		{"line ends of all systems", "a=1\r\nb=2\rc=3\n", []Property{{Key: "a", Value: "1", Line: 1}, {Key: "b", Value: "2", Line: 2}, {Key: "c", Value: "3", Line: 3}}},
		{"escapes", `a\=b\ c=\t\n\r\f\\x\y`, []Property{{Key: "a=b c", Value: "\t\n\r\f\\xy", Line: 1}}},
		{"unicode escapes", `a=\u0041\u00e9\ud83d\ude00`, []Property{{Key: "a", Value: "Aé😀", Line: 1}}},
		{"utf-8", "a=é", []Property{{Key: "a", Value: "é", Line: 1}}},
		{"latin-1", "a=\xe9", []Property{{Key: "a", Value: "é", Line: 1}}},
		{"windows path needs doubled backslashes", `a=C:\\data`, []Property{{Key: "a", Value: `C:\data`, Line: 1}}},
		{"lone backslash at the end", `a=b\`, []Property{{Key: "a", Value: "b", Line: 1}}},
		{"nothing goes on behind a backslash alone", "\\\n#a\n\\\n\nb=2\n\\", []Property{{Key: "b", Value: "2", Line: 5}}},
		{"twice the same key", "a=1\na=2", []Property{{Key: "a", Value: "1", Line: 1}, {Key: "a", Value: "2", Line: 2}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseProperties([]byte(c.text))
			require.NoError(t, err)
			for i := range got {
				got[i].start, got[i].end = 0, 0
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestParsePropertiesErrors(t *testing.T) {
	_, err := ParseProperties([]byte("a=1\nb=\\u00g0"))
	require.ErrorContains(t, err, "line 2")
	require.ErrorIs(t, err, errBadUnicode)
	_, err = ParseProperties([]byte(`a=\u12`))
	require.ErrorIs(t, err, errBadUnicode)
	_, err = ParseProperties(make([]byte, MaxPropertiesSize+1))
	require.ErrorIs(t, err, errTooLarge)
}

func TestReplaceProperty(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"value in place, comments kept", "# mine\nk=1\nz=9\n", "# mine\nk=new\nz=9\n"},
		{"continuation lines go with it", "k=1,\\\n  2\nz=9\n", "k=new\nz=9\n"},
		{"last of several", "k=1\nk=2\n", "k=1\nk=new\n"},
		{"appended", "a=1\n", "a=1\nk=new\n"},
		{"appended to an unfinished line", "a=1", "a=1\nk=new\n"},
		{"appended behind a dangling continuation", "a=1\\\n", "a=1\\\n\nk=new\n"},
		{"empty file", "", "k=new\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := replaceProperty([]byte(c.text), "k", "new")
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

// FuzzProperties: reading never panics, and what formatProperty and replaceProperty write is read back unchanged.
func FuzzProperties(f *testing.F) {
	for _, seed := range []string{"a=b", "a : b\\\n c", "#x\n!y\n\\u0041=\\ud83d\\ude00", "a=\\", "\xff=\xfe", "k\\=1==\r\r\n\f", "=v", "a=1\\\n", "a=1\\\r"} {
		f.Add([]byte(seed), "flushDiskType", " SYNC_FLUSH\t")
	}
	f.Add([]byte("x=\\\n#"), "#k é", "\\\n😀")
	f.Fuzz(func(t *testing.T, text []byte, key, value string) {
		before, err := ParseProperties(text)
		if err != nil {
			return
		}
		for i, p := range before {
			if p.start >= p.end || p.end > len(text) || i > 0 && p.start < before[i-1].end {
				t.Fatalf("property %d has span %d..%d", i, p.start, p.end)
			}
		}
		if !utf8.ValidString(key) || !utf8.ValidString(value) || strings.ContainsRune(key+value, utf8.RuneError) {
			return
		}
		changed, err := replaceProperty(text, key, value)
		if err != nil {
			t.Fatal(err)
		}
		if len(changed) > MaxPropertiesSize {
			return
		}
		checkReplaced(t, before, changed, key, value)
	})
}

func checkReplaced(t *testing.T, before []Property, changed []byte, key, value string) {
	t.Helper()
	after, err := ParseProperties(changed)
	if err != nil {
		t.Fatalf("%q: %v", changed, err)
	}
	others := func(props []Property) (rest []string) {
		for _, p := range props {
			if p.Key != key {
				rest = append(rest, p.Key, p.Value)
			}
		}
		return rest
	}
	require.Equal(t, others(before), others(after), "%q", changed)
	last := ""
	found := false
	for _, p := range after {
		if p.Key == key {
			last, found = p.Value, true
		}
	}
	if !found || last != value {
		t.Fatalf("%q: key %q has value %q, want %q", changed, key, last, value)
	}
}
