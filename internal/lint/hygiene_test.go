package lint

import (
	"bytes"
	"go/ast"
	"go/format"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Lengths in lines: above the first a test run says so, above the second it fails.
const (
	longFile, tooLongFile = 800, 1200
	longFunc, tooLongFunc = 70, 150
)

func TestLengths(t *testing.T) {
	for _, s := range tree(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		lines := bytes.Count(s.text, []byte("\n"))
		report(t, lines, longFile, tooLongFile, "%s has %d lines: split it by step of the walk", s.path, lines)
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
				report(t, n, longFunc, tooLongFunc, "%s: %s has %d lines", s.at(f.Pos()), f.Name.Name, n)
			}
		}
	}
}

func report(t *testing.T, n, long, tooLong int, text string, args ...any) {
	t.Helper()
	switch {
	case n > tooLong:
		t.Errorf(text, args...)
	case n > long:
		t.Logf(text, args...)
	}
}

func TestGofmt(t *testing.T) {
	for _, s := range tree(t) {
		formatted, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
			continue
		}
		if !bytes.Equal(formatted, s.text) {
			t.Errorf("%s is not formatted: run gofmt -w %s", s.path, s.path)
		}
	}
}

var (
	openTask   = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	issueGiven = regexp.MustCompile(`\b(TODO|FIXME|XXX)\(#\d+\)`)
)

func TestOpenTasksNameAnIssue(t *testing.T) {
	for _, s := range tree(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if len(openTask.FindAllString(c.Text, -1)) > len(issueGiven.FindAllString(c.Text, -1)) {
					t.Errorf("%s: an open task names its issue, as in T%s", s.at(c.Pos()), "ODO(#12)")
				}
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, s := range tree(t) {
		if ast.IsGenerated(s.file) {
			continue
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no work in init: build it in a constructor, or lazily with sync.OnceValue", s.at(f.Pos()))
			}
		}
	}
}

// emptyNames say nothing about what is inside.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "base", "types", "misc"}

func TestNamesSaySomething(t *testing.T) {
	for _, s := range tree(t) {
		file := strings.TrimSuffix(strings.TrimSuffix(path.Base(s.path), ".go"), "_test")
		for _, name := range []string{file, path.Base(s.folder), strings.TrimSuffix(s.file.Name.Name, "_test")} {
			if slices.Contains(emptyNames, name) {
				t.Errorf("%s: %q is no name for a file or package: say what is inside", s.path, name)
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	documented := make(map[string]bool)
	for _, s := range tree(t) {
		if !s.isTest() {
			documented[s.folder] = documented[s.folder] || s.file.Doc != nil
		}
	}
	for folder, ok := range documented {
		if !ok {
			t.Errorf("%s: no file has a package comment that tells what the room does", folder)
		}
	}
}

// houseParts are promised to those who read the tree for the first time.
var houseParts = []string{
	"cmd", "ioengine", "commitlog", "netpath", "replication", "nameserver", "perf", "ebpf", "benchmarks",
	"Makefile", "go.mod", "README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/configuration.md",
}

func TestTheHouseIsComplete(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range houseParts {
		if _, err := os.Stat(filepath.Join(root, part)); err != nil {
			t.Errorf("%s is missing", part)
		}
	}
}

// readInConfig are the properties that the configuration itself obeys, so that no other room has to read them: it refuses what
// the roles and the test mode would promise (settle), guards keys and finds its files (load, live).
var readInConfig = []string{"BrokerRole", "InSyncReplicas", "ClusterTest", "ConfigBlackList", "ConfigStorePath", "TLSConfigFile"}

// Every property is read by some room: one that is not would promise an effect it does not have.
func TestEveryPropertyIsRead(t *testing.T) {
	read := make(map[string]bool)
	fields := make(map[string]string)
	for _, s := range tree(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if s.room() != "config" && !s.isTest() {
					read[n.Sel.Name] = true
				}
			case *ast.Field:
				if s.room() == "config" && n.Tag != nil && strings.Contains(n.Tag.Value, `prop:"`) && len(n.Names) == 1 {
					fields[n.Names[0].Name] = s.at(n.Pos())
				}
			}
			return true
		})
	}
	if len(fields) < 50 {
		t.Fatalf("only %d properties found in config: this test no longer sees them", len(fields))
	}
	for name, at := range fields {
		if !read[name] && !slices.Contains(readInConfig, name) {
			t.Errorf("%s: no room reads %s: obey it, or move it to config/without_effect.go with the reason", at, name)
		}
	}
	for _, name := range readInConfig {
		if fields[name] == "" {
			t.Errorf("readInConfig names %s, which is no property", name)
		}
	}
}
