package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestHealthyMachine(t *testing.T) {
	p := healthy(t)
	r, err := p.examine()
	require.NoError(t, err)
	for _, f := range r.Findings {
		requireWellFormed(t, p, f)
		require.Equal(t, OK, f.State, "%+v", f)
	}
	require.Equal(t, ExitOK, r.ExitStatus)
	require.Equal(t, len(r.Findings), r.Counts[OK])
	require.Greater(t, len(r.Findings), len(checks), "no check is silent")
	entries, err := os.ReadDir(p.StoreDir)
	require.NoError(t, err)
	require.Empty(t, entries, "probe files are removed")
}

// sick is a machine with findings of every state.
func sick(t *testing.T) *patient {
	p := healthy(t)
	p.set("proc/sys/kernel/osrelease", "6.1.0-28-generic")                                                    // note
	p.set("proc/sys/vm/zone_reclaim_mode", "1")                                                               // warning
	p.mounted("tmpfs", "rw")                                                                                  // failure
	p.IoUring = func() ([]Feature, error) { return []Feature{{"fsync", true, "5.1"}, {"x", false, ""}}, nil } // note
	p.Advertised = "localhost"                                                                                // failure
	return p
}

// The JSON is what programs read: its form changes on purpose only. RINGMQ_REWRITE=1 writes it anew.
func TestJSON(t *testing.T) {
	p := sick(t)
	r, err := p.examine()
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, r.JSON(&out))
	text := strings.ReplaceAll(out.String(), p.StoreDir, "/data/store")
	text = strings.Replace(text, runtime.GOARCH, "ARCH", 1)
	golden := filepath.Join("testdata", "report.json")
	if os.Getenv("RINGMQ_REWRITE") != "" {
		require.NoError(t, os.WriteFile(golden, []byte(text), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), text)

	var read Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &read))
	require.Equal(t, *r, read)
}

func TestPrint(t *testing.T) {
	p := sick(t)
	r, err := p.examine()
	require.NoError(t, err)
	var out bytes.Buffer
	r.Print(&out)
	text := strings.ReplaceAll(out.String(), p.StoreDir, "/data/store")
	for line := range strings.Lines(text) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 120, line)
	}
	for _, f := range r.Findings {
		require.Contains(t, text, f.Name)
		for line := range strings.SplitSeq(f.Cure, "\n") {
			require.Contains(t, text, strings.ReplaceAll(line, p.StoreDir, "/data/store"), "cures are not broken")
		}
	}
	require.Less(t, strings.Index(text, "cures, failures"), strings.Index(text, "cures, warnings"), "the gravest first")
	require.Less(t, strings.Index(text, "cures, warnings"), strings.Index(text, "cures, notes"))
	require.True(t, strings.HasSuffix(text, r.Summary()+"\n"))
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		rule   string
		states []State
		want   int
	}{
		{"nothing", nil, ExitOK}, {"all is well", []State{OK, OK}, ExitOK}, {"notes do not count", []State{OK, Note}, ExitOK},
		{"a warning", []State{Warning, Note, OK}, ExitWarning}, {"a failure outweighs warnings", []State{Warning, Failure, Warning}, ExitFailure},
	} {
		r := &Report{Counts: make(map[State]int)}
		for _, s := range c.states {
			r.add(newFinding(s, "name", "found", "meaning", nil))
		}
		require.Equal(t, c.want, r.ExitStatus, c.rule)
	}
}

func TestNotExamined(t *testing.T) {
	_, err := Examine(t.Context(), Options{})
	require.ErrorContains(t, err, "storePathRootDir")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Examine(ctx, Options{StoreDir: t.TempDir()})
	require.ErrorIs(t, err, context.Canceled)
}

// Where there is no linux, the rest is still looked at.
func TestOtherSystems(t *testing.T) {
	p := healthy(t)
	p.linux = false
	r, err := p.examine()
	require.NoError(t, err)
	require.Equal(t, "system", r.Findings[0].Name)
	require.Equal(t, Note, r.Findings[0].State)
	var names []string
	for _, f := range r.Findings {
		requireWellFormed(t, p, f)
		names = append(names, f.Name)
	}
	require.Equal(t, []string{"system", "store folder", "store segments", "store space", "store used", "advertised address", "port 10911", "port 10912"}, names)
}

// Nothing that a machine shows makes a check panic or leave a finding without its parts.
func TestNothingToSee(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "odd": " : - ,0- [ \n\n:::\n\x00", "huge numbers": "99999999999999999999999 99999999999999999999999 1-99999999999"} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			for file := range healthyTree {
				p.set(file, content)
			}
			r, err := p.examine()
			require.NoError(t, err)
			for _, f := range r.Findings {
				requireWellFormed(t, p, f)
			}
		})
	}
	t.Run("no files", func(t *testing.T) {
		p := healthy(t)
		p.remove("proc")
		p.remove("sys")
		r, err := p.examine()
		require.NoError(t, err)
		for _, f := range r.Findings {
			requireWellFormed(t, p, f)
			require.NotEqual(t, Failure, f.State, "what is not seen is no failure: %+v", f)
		}
	})
}

// The machine that the test runs on: its form only.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	r, err := Examine(t.Context(), Options{StoreDir: dir, Advertised: "127.0.0.1", BindAddress: "127.0.0.1", Ports: []Port{{Property: "listenPort", Bind: "127.0.0.1", Number: 1, Required: true}}})
	require.NoError(t, err)
	require.NotEmpty(t, r.System)
	require.GreaterOrEqual(t, len(r.Findings), 8)
	total := 0
	for _, n := range r.Counts {
		total += n
	}
	require.Equal(t, len(r.Findings), total)
	seen := make(map[string]bool)
	for _, f := range r.Findings {
		require.False(t, seen[f.Name] && !strings.HasSuffix(f.Name, "mount"), "%s twice", f.Name)
		seen[f.Name] = true
		require.NotEmpty(t, f.Found, f.Name)
		require.NotEmpty(t, f.Meaning, f.Name)
		require.Equal(t, f.State == OK, f.Cure == "", f.Name)
		require.LessOrEqual(t, f.ExitStatus, r.ExitStatus)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// docs/doctor.md tells of every finding that these machines have.
func TestDocumentationNamesEveryFinding(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "doctor.md"))
	require.NoError(t, err)
	p := sick(t)
	p.set("proc/sys/fs/file-max", "1000")
	p.set("proc/sys/net/ipv4/tcp_wmem", "1 2 3")
	r, err := p.examine()
	require.NoError(t, err)
	r.add(healthyReport(t).Findings...)
	for _, f := range r.Findings {
		if name, number, isPort := strings.Cut(f.Name, " "); isPort && name == "port" && number != "range" {
			f.Name = "port N"
		}
		require.Contains(t, string(text), "| "+f.Name+" |")
	}
	for _, status := range []int{ExitOK, ExitWarning, ExitFailure, ExitNoRun} {
		require.Contains(t, string(text), "\n| "+strconv.Itoa(status)+" |")
	}
}

func healthyReport(t *testing.T) *Report {
	r, err := healthy(t).examine()
	require.NoError(t, err)
	return r
}
