package lint

import (
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
)

// levels are the rooms from top to bottom. A room imports only rooms of lower levels; rooms of one level never import
// each other, so that broker and nameserver meet at the socket only.
var levels = [][]string{
	{"cmd"},
	{"console"},
	{"admin", "proxy", "doctor", "tune"},
	{"broker", "nameserver"},
	{"replication"},
	{"store"},
	{"commitlog"},
	{"ioengine", "netpath", "client"},
	{"uring"},
	{"remoting", "filter", "auth"},
	{"message", "metrics", "config"},
}

// besides are the rooms next to that list and the only rooms they import: they reach the broker through its socket.
var besides = map[string][]string{
	"perf":       {"client", "remoting", "message", "metrics"},
	"benchmarks": {"perf", "client", "remoting", "message", "metrics"},
	"ebpf":       {"remoting", "message", "metrics"},
	"internal":   {},
}

// configReaders are the rooms that are processes, or build them.
var configReaders = []string{"cmd", "proxy", "broker", "nameserver", "replication"}

// lowLevelRooms may use unsafe and raw system calls. perf waits with epoll of its own: it must not measure a broker through the very
// reactor that it measures.
var lowLevelRooms = []string{"ioengine", "netpath", "uring", "ebpf", "perf"}

// lowLevelFolder is the one folder outside those rooms: it installs the filter that makes io_uring's refusal testable, and is for tests.
const lowLevelFolder = "internal/seccomp"

func (s source) isLowLevel() bool {
	return slices.Contains(lowLevelRooms, s.room()) || s.folder == lowLevelFolder
}

func levelOf(room string) int {
	return slices.IndexFunc(levels, func(level []string) bool { return slices.Contains(level, room) })
}

// mayImport says whether the rules let one room import another.
func mayImport(from, to string) bool {
	switch {
	case from == to:
		return true
	case to == "config" && !slices.Contains(configReaders, from):
		return false
	case to == "internal":
		return true
	case from == "cmd":
		return to != "benchmarks" && to != "e2e"
	}
	if allowed, ok := besides[from]; ok {
		return slices.Contains(allowed, to)
	}
	if _, ok := besides[to]; ok {
		return false
	}
	return levelOf(from) >= 0 && levelOf(from) < levelOf(to)
}

func TestImportsGoDown(t *testing.T) {
	for _, s := range tree(t) {
		for name, pos := range s.imports() {
			rest, ours := strings.CutPrefix(name, module+"/")
			if !ours {
				continue
			}
			to, _, _ := strings.Cut(rest, "/")
			if !mayImport(s.room(), to) {
				t.Errorf("%s: %s must not import %s", s.at(pos), s.room(), to)
			}
			if rest == "internal/lint" {
				t.Errorf("%s: nothing imports internal/lint", s.at(pos))
			}
			if rest == lowLevelFolder && !s.isTest() {
				t.Errorf("%s: %s is for tests", s.at(pos), rest)
			}
		}
	}
}

// The rule itself, so that a slip in the table does not pass for permission.
func TestMayImport(t *testing.T) {
	allowed := [][2]string{
		{"cmd", "broker"}, {"cmd", "perf"}, {"proxy", "broker"}, {"broker", "config"}, {"broker", "store"}, {"nameserver", "netpath"},
		{"store", "commitlog"}, {"commitlog", "ioengine"}, {"client", "remoting"}, {"ioengine", "ioengine"}, {"perf", "client"},
		{"replication", "config"}, {"store", "internal"}, {"remoting", "message"},
	}
	for _, a := range allowed {
		if !mayImport(a[0], a[1]) {
			t.Errorf("%s should be allowed to import %s", a[0], a[1])
		}
	}
	forbidden := [][2]string{
		{"broker", "nameserver"}, {"nameserver", "broker"}, {"store", "broker"}, {"commitlog", "store"}, {"netpath", "ioengine"}, {"client", "netpath"},
		{"perf", "broker"}, {"perf", "config"}, {"perf", "store"}, {"benchmarks", "commitlog"}, {"store", "config"}, {"commitlog", "config"},
		{"netpath", "config"}, {"broker", "perf"}, {"message", "remoting"}, {"metrics", "message"}, {"cmd", "benchmarks"}, {"", "broker"}, {"newroom", "message"},
	}
	for _, f := range forbidden {
		if mayImport(f[0], f[1]) {
			t.Errorf("%s should not be allowed to import %s", f[0], f[1])
		}
	}
}

func TestEveryFolderIsARoom(t *testing.T) {
	for _, s := range tree(t) {
		if _, beside := besides[s.room()]; !beside && levelOf(s.room()) < 0 {
			t.Errorf("%s: %q is not a room of the house: put it into one, or add the room here and in docs/ARCHITECTURE.md", s.path, s.room())
		}
		if strings.Count(s.folder, "/") > 1 {
			t.Errorf("%s: folders nest no deeper than two", s.path)
		}
	}
}

func TestForeignImports(t *testing.T) {
	for _, s := range tree(t) {
		low := s.isLowLevel()
		for name, pos := range s.imports() {
			switch {
			case (name == "unsafe" || name == "golang.org/x/sys/unix" || name == "golang.org/x/sys/windows") && !low:
				t.Errorf("%s: %s only in %v", s.at(pos), name, lowLevelRooms)
			case strings.HasSuffix(name, "/iouring-go/syscall") && !low:
				t.Errorf("%s: %s only in %v", s.at(pos), name, lowLevelRooms)
			case strings.Contains(name, "/iouring-go") && !strings.HasSuffix(name, "/iouring-go/syscall"):
				t.Errorf("%s: of iouring-go only its syscall package", s.at(pos))
			case strings.HasPrefix(name, "github.com/stretchr/testify") && !s.isTest():
				t.Errorf("%s: testify only in _test files", s.at(pos))
			case name == "math/rand":
				t.Errorf("%s: math/rand/v2 instead of math/rand", s.at(pos))
			case name == "flag" && s.room() != "cmd" && !s.isTest():
				t.Errorf("%s: flags are read in cmd", s.at(pos))
			}
		}
	}
}

// harmlessSyscalls are conversions, which look like calls.
var harmlessSyscalls = []string{"Errno", "Signal"}

// forbiddenCalls are calls by package and name, with the rule that forbids them and where it does not hold.
var forbiddenCalls = []struct {
	pkg, name string
	allowed   func(s source) bool
	rule      string
}{
	{"time", "Sleep", maySleep, "tests wait for an event or use testing/synctest, they do not sleep"},
	{"os", "Getenv", mayReadEnvironment, "the environment is read in cmd"},
	{"os", "LookupEnv", mayReadEnvironment, "the environment is read in cmd"},
	{"os", "Environ", mayReadEnvironment, "the environment is read in cmd"},
}

// maySleep: in the bubble of testing/synctest a sleep costs no time and waits for nothing that can be late.
func maySleep(s source) bool {
	_, bubble := s.imports()["testing/synctest"]
	return !s.isTest() || bubble || s.room() == "perf"
}

func mayReadEnvironment(s source) bool {
	return s.isTest() || s.room() == "cmd" || s.room() == "benchmarks"
}

func TestForbiddenCalls(t *testing.T) {
	for _, s := range tree(t) {
		imported := s.imports()
		low := s.isLowLevel()
		for call := range calls(s.file) {
			pkg, name := call.X.(*ast.Ident).Name, call.Sel.Name
			if pkg == "syscall" && !low && !slices.Contains(harmlessSyscalls, name) {
				t.Errorf("%s: raw system calls only in %v", s.at(call.Pos()), lowLevelRooms)
			}
			for _, f := range forbiddenCalls {
				if _, ok := imported[pkg]; ok && pkg == f.pkg && name == f.name && !f.allowed(s) {
					t.Errorf("%s: %s.%s: %s", s.at(call.Pos()), pkg, name, f.rule)
				}
			}
		}
	}
}

// calls returns all calls of the form name.Name(...) in the file, as keys.
func calls(f *ast.File) map[*ast.SelectorExpr]bool {
	found := make(map[*ast.SelectorExpr]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
				if _, ok := sel.X.(*ast.Ident); ok {
					found[sel] = true
				}
			}
		}
		return true
	})
	return found
}

func TestRoomListsAreDisjoint(t *testing.T) {
	seen := make(map[string]bool)
	for _, room := range slices.Concat(append(levels, slices.Sorted(maps.Keys(besides)))...) {
		if seen[room] {
			t.Errorf("%s stands twice in the lists", room)
		}
		seen[room] = true
	}
}
