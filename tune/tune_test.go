package tune

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ringmq/ringmq/ioengine"
)

// fake is a section whose kinds score what the table says, a figure a round; a kind without figures is refused.
func fake(name string, ran *[]string, kinds []string, scores map[string][]float64) *section {
	s := &section{name: name, title: strings.ToLower(name), about: "what " + name + " is", kinds: kinds, loads: []string{"light", "heavy"}, scale: "points",
		columns: []column{{keyMessages, "messages/s", inThousands}, {keyP50, "p50", inMicros}, {keyCPU, "CPU", inMicros}}}
	turns := make(map[string]int)
	s.measure = func(_ context.Context, kind string, _ time.Duration) ([]Figures, error) {
		*ran = append(*ran, kind)
		if len(scores[kind]) == 0 {
			return nil, fmt.Errorf("%w: the kernel is too old", errRefused)
		}
		v := scores[kind][turns[kind]%len(scores[kind])]
		turns[kind]++
		return []Figures{{keyMessages: v, keyP50: 1e6 / v}, {keyMessages: 2 * v, keyP50: 5e5 / v, keyCPU: 1.5}}, nil
	}
	s.score = func(loads []Figures) float64 { return loads[0][keyMessages] }
	return s
}

// fakeOptions is a run of 10 s by its clock that takes no time.
func fakeOptions(dir string, ran *[]string) Options {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Options{StoreDir: dir, now: func() time.Time { now = now.Add(time.Second); return now }, sections: func(*machine) []*section {
		return []*section{
			fake("syncCommit", ran, []string{"pwrite", "direct", "uring"}, map[string][]float64{"pwrite": {1000, 900, 1100}, "uring": {2000, 2500, 1900}}),
			fake("asyncAppend", ran, []string{"mmap", "pwrite"}, map[string][]float64{"mmap": {12345, 20000}, "pwrite": {15000, 21000}}),
			fake("coldRead", ran, []string{"pread"}, nil),
			fake("reactor", ran, []string{"epoll"}, map[string][]float64{"epoll": {1_200_000}}),
		}
	}}
}

func TestRoundsGoToAndFro(t *testing.T) {
	var ran []string
	r, err := Run(t.Context(), fakeOptions(t.TempDir(), &ran))
	require.NoError(t, err)
	require.Equal(t, 6, r.Rounds)
	require.Equal(t, []string{"pwrite", "direct", "uring", "mmap", "pwrite", "pread", "epoll"}, ran[:7])
	require.Equal(t, []string{"uring", "pwrite", "pwrite", "mmap", "epoll"}, ran[7:12], "backward, without those that were refused")
	require.Equal(t, []string{"pwrite", "uring", "mmap", "pwrite", "epoll"}, ran[12:17])
	require.Len(t, ran, 7+5*5)
}

// Where preparing takes long, the run ends after the rounds that are needed.
func TestSlowMachineHasFewerRounds(t *testing.T) {
	var ran []string
	o := fakeOptions(t.TempDir(), &ran)
	o.Duration = time.Second
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, leastRounds, r.Rounds)
}

func TestResultIsWritten(t *testing.T) {
	var ran []string
	dir := t.TempDir()
	_, err := Run(t.Context(), fakeOptions(dir, &ran))
	require.NoError(t, err)
	tuned, err := ioengine.LoadTuned(ioengine.OS(), dir)
	require.NoError(t, err)
	require.Equal(t, ioengine.FromTune, tuned.Source)
	require.Equal(t, "uring", tuned.SyncEngine.Name)
	require.Contains(t, tuned.SyncEngine.Why, "clear of the noise")
	require.Equal(t, "mmap", tuned.AsyncEngine.Name, "the usual one, because pwrite is ahead within the noise only")
	require.Nil(t, tuned.ColdRead)
	require.Equal(t, "epoll", tuned.Reactor.Name)
	require.Equal(t, ioengine.PlaceOf(dir).Device, tuned.Device)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else stays")
}

// The JSON is what programs read: its form changes on purpose only. RINGMQ_REWRITE=1 writes it anew.
func TestJSON(t *testing.T) {
	var ran []string
	r, err := Run(t.Context(), fakeOptions(t.TempDir(), &ran))
	require.NoError(t, err)
	r.System, r.StoreDir, r.Place = "linux/amd64", "/data/store", ioengine.Place{Kernel: "linux 6.18.1", FileSystem: "ext4", Device: "/dev/vda"}
	var out bytes.Buffer
	require.NoError(t, r.JSON(&out))
	golden := filepath.Join("testdata", "report.json")
	if os.Getenv("RINGMQ_REWRITE") != "" {
		require.NoError(t, os.WriteFile(golden, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
	var read Report
	require.NoError(t, json.Unmarshal(out.Bytes(), &read))
	require.Equal(t, r.Sections[0].Choice, read.Sections[0].Choice)
}

func TestPrint(t *testing.T) {
	var ran []string
	r, err := Run(t.Context(), fakeOptions(t.TempDir(), &ran))
	require.NoError(t, err)
	r.FileSystem = ""
	var out bytes.Buffer
	r.Print(&out)
	text := out.String()
	for _, want := range []string{
		"unknown on", "6 rounds in", "│ pwrite │ light │ 1000 (900–1100)", "16.2k (12.3k–20.0k)", "1.20M (1.20M–1.20M)", "1.0ms (909µs–1.1ms)", "1.5µs (1.5µs–1.5µs)", "│ -",
		"not measured  direct: not to be had here: the kernel is too old", "choice        uring: uring has 2.00 times the score of pwrite, clear of the noise",
		"score         points", "written to ringmq-tune.json",
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "choice        pread")
}

// An interrupted run leaves nothing behind, not even the store's folder where it was not there.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var ran []string
	o := fakeOptions(filepath.Join(dir, "new", "store"), &ran)
	o.Progress = func(p Progress) {
		if p.Step == 10 {
			require.DirExists(t, filepath.Join(dir, "new", "store", scratchName))
			cancel()
		}
	}
	_, err := Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, ran, 8)
	requireEmpty(t, dir)
}

func TestFailureOfADevice(t *testing.T) {
	dir, broken := t.TempDir(), errors.New("the device is broken")
	_, err := Run(t.Context(), Options{StoreDir: filepath.Join(dir, "store"), sections: func(*machine) []*section {
		return []*section{{title: "test", kinds: []string{"a"}, loads: []string{""},
			measure: func(context.Context, string, time.Duration) ([]Figures, error) { return nil, broken }}}
	}})
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, "measure test of a")
	requireEmpty(t, dir)
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestScratch(t *testing.T) {
	dir := t.TempDir()
	fsys := ioengine.OS()
	_, err := openScratch(fsys, "", "")
	require.ErrorContains(t, err, "storePathRootDir")

	s, err := openScratch(fsys, dir, filepath.Join(dir, "commitlog"))
	require.NoError(t, err)
	_, err = openScratch(fsys, dir, "")
	require.ErrorContains(t, err, "another ringmq tune")
	require.DirExists(t, s.dir, "the other one's folder stays")
	require.NoError(t, s.close(false))
	requireEmpty(t, dir)

	left := filepath.Join(dir, scratchName, "log.tmp")
	require.NoError(t, os.MkdirAll(left, 0o755))
	s, err = openScratch(fsys, dir, "")
	require.NoError(t, err)
	require.NoDirExists(t, left, "what a killed run left is removed")
	require.NoError(t, s.close(false))

	broker, err := fsys.Lock(filepath.Join(dir, lockName))
	require.NoError(t, err)
	_, err = openScratch(fsys, dir, "")
	require.ErrorContains(t, err, "a broker runs on the store")
	require.NoError(t, broker.Close())
	s, err = openScratch(fsys, dir, "")
	require.NoError(t, err, "a lock that nobody holds is no broker")
	require.NoError(t, s.close(false))
	require.FileExists(t, filepath.Join(dir, lockName))
}

// smallDisk is a file system with little space left.
type smallDisk struct{ ioengine.FS }

func (smallDisk) Usage(string) (free, total int64, err error) { return space - 1, 1 << 40, nil }

func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	_, err := Run(t.Context(), Options{StoreDir: filepath.Join(dir, "store"), fsys: smallDisk{ioengine.OS()}})
	require.ErrorIs(t, err, ioengine.ErrDiskFull)
	require.ErrorContains(t, err, "1024 MiB")
	requireEmpty(t, dir)
}

// The real sections on this machine, as short as they go: the form of what comes out.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	steps := 0
	r, err := Run(t.Context(), Options{StoreDir: dir, Duration: time.Millisecond, Progress: func(Progress) { steps++ },
		sections: func(m *machine) []*section {
			m.segment, m.tail, m.coldBytes = 4<<20, 32<<20, 2<<20
			return allSections(m)
		}})
	require.NoError(t, err)
	require.Equal(t, leastRounds, r.Rounds)
	require.Positive(t, steps)
	require.Len(t, r.Sections, 4)
	for _, s := range r.Sections {
		measured := 0
		for _, row := range s.Rows {
			if row.Refused != "" {
				require.Empty(t, row.Figures)
				continue
			}
			measured++
			for _, c := range s.columns {
				f := row.Figures[c.key]
				require.Positive(t, f.Min, "%s %s %s %s", s.Name, row.Kind, row.Load, c.key)
				require.LessOrEqual(t, f.Min, f.Median)
				require.LessOrEqual(t, f.Median, f.Max)
			}
		}
		if s.Name == "coldRead" && measured == 0 {
			continue // the test's folder is in memory
		}
		require.Positive(t, measured, s.Name)
		require.NotNil(t, s.Choice, s.Name)
		require.NotEmpty(t, s.Choice.Why)
	}
	_, err = ioengine.LoadTuned(ioengine.OS(), dir)
	require.NoError(t, err)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	var out bytes.Buffer
	r.Print(&out)
	for line := range strings.Lines(out.String()) {
		if strings.ContainsAny(line, "│┌├└") {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimRight(line, "\n")), 130, line)
		}
	}
}

// A server that goes away in the middle is an error, not a figure.
func TestEchoThatEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := measureReactor(ctx, "portable", time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}

func TestGeometricMean(t *testing.T) {
	require.InDelta(t, 4.0, geometricMean(2, 8), 1e-9)
	require.Zero(t, geometricMean(2, 0))
	require.Zero(t, geometricMean())
}

// docs/tune.md tells of every section, kind and exit status.
func TestDocumentation(t *testing.T) {
	b, err := fs.ReadFile(os.DirFS(".."), "docs/tune.md")
	require.NoError(t, err)
	text := string(b)
	for _, s := range allSections(&machine{}) {
		require.Contains(t, text, "| "+s.title+" |")
		for _, kind := range s.kinds {
			require.Contains(t, text, "`"+kind+"`")
		}
	}
	for _, status := range []int{ExitOK, ExitNoRun} {
		require.Contains(t, text, "\n| "+strconv.Itoa(status)+" |")
	}
	require.Contains(t, text, ioengine.TunedName)
}
