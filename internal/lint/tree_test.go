package lint

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/ringmq/ringmq"

// skippedFolders hold no code of this module: e2e has modules of its own.
var skippedFolders = map[string]bool{"e2e": true, "testdata": true, ".git": true, "bin": true, "node_modules": true, "vendor": true}

// source is one parsed Go file.
type source struct {
	path   string // from the module's root, with slashes
	folder string // "" for the root
	text   []byte
	fset   *token.FileSet
	file   *ast.File
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// room is the first element of the folder: "ioengine" for ioengine/faultfs.
func (s source) room() string {
	first, _, _ := strings.Cut(s.folder, "/")
	return first
}

// at names a place in the file, as file:line.
func (s source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(pos).Line)
}

// imports are the imported paths with their places.
func (s source) imports() map[string]token.Pos {
	found := make(map[string]token.Pos)
	for _, spec := range s.file.Imports {
		if name, err := strconv.Unquote(spec.Path.Value); err == nil {
			found[name] = spec.Pos()
		}
	}
	return found
}

// tree returns the module's files, parsed once for all tests.
func tree(t *testing.T) []source {
	t.Helper()
	sources, err := parseTree()
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 10 {
		t.Fatalf("only %d Go files found: the walk does not see the module", len(sources))
	}
	return sources
}

var parseTree = sync.OnceValues(func() ([]source, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	var sources []source
	err = filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if file != root && (skippedFolders[entry.Name()] || isModule(file)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		s, err := parseFile(file, filepath.ToSlash(rel))
		if err == nil && !isIgnored(s.file) {
			sources = append(sources, s)
		}
		return err
	})
	return sources, err
})

func parseFile(file, rel string) (source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return source{}, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	folder := path.Dir(rel)
	if folder == "." {
		folder = ""
	}
	return source{path: rel, folder: folder, text: text, fset: fset, file: parsed}, nil
}

// isModule says whether a folder below the root is a module of its own.
func isModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

// isIgnored says whether the file is never built: it carries the build tag "ignore".
func isIgnored(f *ast.File) bool {
	for _, group := range f.Comments {
		if group.Pos() > f.Package {
			break
		}
		for _, c := range group.List {
			if expr, err := constraint.Parse(c.Text); err == nil && expr.String() == "ignore" {
				return true
			}
		}
	}
	return false
}

// moduleRoot is the folder with go.mod, from the working folder upwards.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if isModule(dir) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = parent
	}
}
