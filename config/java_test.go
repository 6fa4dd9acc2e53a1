package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// javaProperty is one line of testdata/java-5.5.0-properties.tsv.
type javaProperty struct{ name, class, def string }

func javaProperties(t *testing.T) []javaProperty {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "java-5.5.0-properties.tsv"))
	require.NoError(t, err)
	var props []javaProperty
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		require.Len(t, f, 4, line)
		props = append(props, javaProperty{f[0], f[1], f[3]})
	}
	require.Greater(t, len(props), 500)
	return props
}

// Every property of the Java classes is a field here or says why it is without effect, and never both.
func TestEveryJavaPropertyIsAccountedFor(t *testing.T) {
	fields := map[string]bool{}
	for _, k := range append(BrokerKeys(), NameServerKeys()...) {
		fields[k.Name] = true
	}
	java := map[string]bool{}
	for _, p := range javaProperties(t) {
		java[p.name] = true
		_, without := withoutEffect()[p.name]
		require.True(t, fields[p.name] != without, "%s: field %v, without effect %v", p.name, fields[p.name], without)
	}
	for name := range withoutEffect() {
		require.True(t, java[name], "%s is not a property of the Java classes", name)
	}
	for name := range refusals {
		require.Contains(t, withoutEffect(), name)
	}
}

// classes whose properties a process reads, and the defaults that its start-up code puts in place of the class's own.
var brokerClasses = map[string]bool{"BrokerConfig": true, "MessageStoreConfig": true, "NettyServerConfig": true}
var nameServerClasses = map[string]bool{"NamesrvConfig": true, "NettyServerConfig": true}

// Defaults are RocketMQ's, or docs/configuration.md gives both values and the reason.
func TestDefaultsAreJavasOrDocumented(t *testing.T) {
	doc := documentedDifferences(t)
	check := func(process string, keys []Key, classes map[string]bool, startUp map[string]string) {
		java := map[string]string{}
		for _, p := range javaProperties(t) {
			if classes[p.class] && p.def != "*" {
				java[p.name] = p.def
			}
		}
		for name, def := range startUp {
			java[name] = def
		}
		for _, k := range keys {
			def, known := java[k.Name]
			row, listed := doc[process+" "+k.Name]
			if listed {
				require.Equal(t, k.Default, row.ours, "docs/configuration.md: %s of the %s", k.Name, process)
				if known {
					require.Equal(t, def, row.java, "docs/configuration.md: %s of the %s", k.Name, process)
				}
				delete(doc, process+" "+k.Name)
				continue
			}
			if known {
				require.Equal(t, def, k.Default, "%s of the %s differs from RocketMQ's and is not in docs/configuration.md", k.Name, process)
			}
		}
	}
	check("broker", BrokerKeys(), brokerClasses, map[string]string{"listenPort": "10911", "haListenPort": "0"})
	check("nameserver", NameServerKeys(), nameServerClasses, map[string]string{"listenPort": "9876"})
	require.Empty(t, doc, "rows of docs/configuration.md for keys that do not exist")
}

type difference struct{ java, ours string }

// documentedDifferences reads the rows "| process | `key` | `java` | `ours` | reason |" of docs/configuration.md.
func documentedDifferences(t *testing.T) map[string]difference {
	t.Helper()
	text := configurationPage(t)
	row := regexp.MustCompile("(?m)^\\| (broker|nameserver) \\| `([^`]+)` \\| `?([^`|]*?)`? \\| `?([^`|]*?)`? \\| .{10,} \\|$")
	rows := map[string]difference{}
	for _, m := range row.FindAllStringSubmatch(text, -1) {
		rows[m[1]+" "+m[2]] = difference{java: m[3], ours: m[4]}
	}
	require.NotEmpty(t, rows)
	return rows
}

func configurationPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// docs/configuration.md describes every property that RocketMQ does not have.
func TestOwnPropertiesAreDocumented(t *testing.T) {
	java := map[string]bool{}
	for _, p := range javaProperties(t) {
		java[p.name] = true
	}
	text := configurationPage(t)
	for _, k := range append(BrokerKeys(), NameServerKeys()...) {
		if !java[k.Name] {
			require.Contains(t, text, "`"+k.Name+"`", "docs/configuration.md")
		}
	}
}
