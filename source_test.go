package maxwell

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// modulePath is what this repository is imported as.
const modulePath = "github.com/maxwell-hypervisor/maxwell/"

// goFile is one parsed Go file of the repository.
type goFile struct {
	path      string // relative to the root, with slashes
	pkg       string // folder
	test      bool
	generated bool
	text      string
	syntax    *ast.File
}

// source is the repository as the tests of this folder see it.
type source struct {
	fset  *token.FileSet
	files []*goFile
	all   []string // every file that is not ignored, Go or not
}

// repository parses the tree once. It reads files only: a package that does not
// compile at the moment is still judged.
var repository = sync.OnceValues(func() (*source, error) {
	s := &source{fset: token.NewFileSet()}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin"}, name) || strings.HasSuffix(name, "testdata/rapid") {
				return filepath.SkipDir
			}
			return nil
		}
		s.all = append(s.all, name)
		if path.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			return nil
		}
		return s.add(name)
	})
	return s, err
})

func (s *source) add(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(s.fset, name, text, parser.ParseComments)
	if err != nil {
		return err
	}
	s.files = append(s.files, &goFile{
		path: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax), text: string(text), syntax: syntax,
	})
	return nil
}

// load is repository for a test.
func load(t *testing.T) *source {
	t.Helper()
	s, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// packages are the folders with Go code that is not only tests, sorted.
func (s *source) packages() map[string][]*goFile {
	byFolder := map[string][]*goFile{}
	for _, f := range s.files {
		if !f.test {
			byFolder[f.pkg] = append(byFolder[f.pkg], f)
		}
	}
	return byFolder
}

// folders are the keys of packages, sorted.
func (s *source) folders() []string { return slices.Sorted(maps.Keys(s.packages())) }

// at prints a place as editors read it.
func (s *source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return p.String()
}

// imports are the import paths of a file.
func (f *goFile) imports() []string {
	var paths []string
	for _, i := range f.syntax.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}
