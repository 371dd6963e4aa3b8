package maxwell

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const (
	maxFileLines     = 800
	maxFunctionLines = 70
	// maxTestLines is for functions in tests, which are often a table and a
	// loop.
	maxTestLines = 130
)

// longFunctions may be longer than maxFunctionLines, for the reason given:
// "folder.Function" or "folder.Receiver.Function".
var longFunctions = map[string]string{}

// bannedWords say nothing about what they name.
var bannedWords = []string{"util", "utils", "common", "helper", "helpers", "manager", "misc"}

// TestPackageComments: every package says what it is, in its first sentence,
// once.
func TestPackageComments(t *testing.T) {
	s := load(t)
	for folder, files := range s.packages() {
		var comments []string
		for _, f := range files {
			if f.syntax.Doc != nil {
				comments = append(comments, f.syntax.Doc.Text())
			}
		}
		name := files[0].syntax.Name.Name
		want := []string{"Package " + name + " "}
		if name == "main" {
			want = append(want, "Command "+path.Base(folder)+" ")
		}
		begins := func(with string) bool { return strings.HasPrefix(comments[0], with) }
		generated := !slices.ContainsFunc(files, func(f *goFile) bool { return !f.generated })
		switch {
		case generated:
		case len(comments) != 1:
			t.Errorf("%s has %d package comments, want 1", folder, len(comments))
		case !slices.ContainsFunc(want, begins):
			t.Errorf("the package comment of %s begins %.40q, want %q", folder, comments[0], want)
		}
	}
}

// TestSizes: a file can be read in one sitting, a function on one screen.
func TestSizes(t *testing.T) {
	s := load(t)
	used := map[string]bool{}
	for _, f := range s.files {
		if f.generated {
			continue
		}
		if n := strings.Count(f.text, "\n"); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", f.path, n, maxFileLines)
		}
		limit := maxFunctionLines
		if f.test {
			limit = maxTestLines
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			lines := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			name := functionName(f, fn)
			if lines <= limit {
				continue
			}
			used[name] = true
			if longFunctions[name] == "" {
				t.Errorf("%s: %s has %d lines, more than %d", s.at(fn), name, lines, limit)
			}
		}
	}
	for name := range longFunctions {
		if !used[name] {
			t.Errorf("%s is allowed to be long, and is not", name)
		}
	}
}

func functionName(f *goFile, fn *ast.FuncDecl) string {
	name := f.pkg + "."
	if fn.Recv != nil {
		if id := root(fn.Recv.List[0].Type); id != nil {
			name += id.Name + "."
		}
	}
	return name + fn.Name.Name
}

// TestWords: names say what a thing is, and open points say where they are
// tracked.
func TestWords(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		for _, part := range strings.FieldsFunc(f.path, func(r rune) bool { return r == '/' || r == '_' || r == '.' }) {
			if slices.Contains(bannedWords, part) {
				t.Errorf("%s is named %q, which says nothing", f.path, part)
			}
		}
		if f.generated {
			continue
		}
		for _, id := range declared(f) {
			for _, word := range words(id.Name) {
				if slices.Contains(bannedWords, word) {
					t.Errorf("%s: %s is named %q, which says nothing", s.at(id), id.Name, word)
				}
			}
		}
		for _, group := range f.syntax.Comments {
			for _, c := range group.List {
				if unnumbered.MatchString(c.Text) {
					t.Errorf("%s: an open point without an issue number", s.at(c))
				}
			}
		}
	}
}

// unnumbered matches the usual marks of open points, unless an issue's number
// follows in parentheses: (#12).
var unnumbered = regexp.MustCompile(`\b(TODO|FIXME|XXX)\b([^(]|\([^#]|$)`)

// declared are the names that a file gives at package level.
func declared(f *goFile) []*ast.Ident {
	var names []*ast.Ident
	for _, d := range f.syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name)
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, spec.Name)
				case *ast.ValueSpec:
					names = append(names, spec.Names...)
				}
			}
		}
	}
	return names
}

// words splits camelCase into lower-case words.
func words(name string) []string {
	var out []string
	start := 0
	for i, r := range name {
		if i > start && unicode.IsUpper(r) && !unicode.IsUpper(rune(name[i-1])) {
			out = append(out, strings.ToLower(name[start:i]))
			start = i
		}
	}
	return append(out, strings.ToLower(name[start:]))
}

// TestSkips: a test is skipped by hosttest.Skip and for nothing else, so that
// .ci/skips can judge every reason. One that returns early instead is not seen
// here; do not write it.
func TestSkips(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		if f.pkg == "internal/host/hosttest" || !f.test && !slices.Contains(f.imports(), "testing") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "hosttest" {
				t.Errorf("%s: skips without hosttest.Skip", s.at(n))
			}
			return true
		})
	}
}

// TestFileNames: names that every file system and every checkout can hold.
func TestFileNames(t *testing.T) {
	for _, name := range load(t).all {
		if strings.ContainsAny(name, `: \"<>|?*`) {
			t.Errorf("%q: a character that some file systems refuse", name)
		}
		info, err := os.Lstat(name)
		if err != nil {
			continue // removed since
		}
		if info.Mode()&os.ModeSymlink != 0 {
			t.Errorf("%s is a symbolic link", name)
		}
	}
}

// TestTreesAreUsed: a recorded machine that no test reads proves nothing.
func TestTreesAreUsed(t *testing.T) {
	s := load(t)
	for _, name := range s.all {
		if path.Ext(name) != ".tree" {
			continue
		}
		base := strings.TrimSuffix(path.Base(name), ".tree")
		used := slices.ContainsFunc(s.files, func(f *goFile) bool {
			return f.test && (strings.Contains(f.text, `"`+base) || strings.Contains(f.text, "/"+base+".tree"))
		})
		if !used {
			t.Errorf("no test names %s", name)
		}
	}
}

// TestDecisionsAreIndexed: docs/decisions/README.md lists every decision, and
// numbers are used once.
func TestDecisionsAreIndexed(t *testing.T) {
	index, err := os.ReadFile("docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob("docs/decisions/[0-9]*.md")
	if err != nil || len(records) == 0 {
		t.Fatalf("no decisions: %v", err)
	}
	numbers := map[string]string{}
	for _, record := range records {
		base := filepath.Base(record)
		if !bytes.Contains(index, []byte("("+base+")")) {
			t.Errorf("%s is not linked in docs/decisions/README.md", record)
		}
		number, _, _ := strings.Cut(base, "-")
		if other := numbers[number]; other != "" {
			t.Errorf("%s and %s have one number", other, base)
		}
		numbers[number] = base
	}
	for _, link := range regexp.MustCompile(`\]\((\d[^)]*\.md)\)`).FindAllSubmatch(index, -1) {
		if !slices.Contains(records, "docs/decisions/"+string(link[1])) {
			t.Errorf("docs/decisions/README.md links %s, which does not exist", link[1])
		}
	}
}

// TestPureIsPortable: the theory compiles where Maxwell does not run. It holds
// if no file of it is chosen by the system or the processor, since its imports
// (layering_test.go) exist everywhere; .ci/run also builds it for two others.
func TestPureIsPortable(t *testing.T) {
	for _, f := range load(t).files {
		if f.test || !slices.Contains(pure, f.pkg) {
			continue
		}
		for _, group := range f.syntax.Comments {
			if text := group.List[0].Text; constraint.IsGoBuild(text) && group.Pos() < f.syntax.Package {
				t.Errorf("%s has a build constraint", f.path)
			}
		}
		if name := path.Base(f.path); strings.Contains(name, "_") {
			t.Errorf("%s: a pure package's file names have no underscore, so that none is chosen by system or processor", f.path)
		}
	}
}

// TestWordSplitting keeps the test above honest.
func TestWordSplitting(t *testing.T) {
	for name, want := range map[string]string{
		"Ledger": "ledger", "newWindow": "new window", "IDManager": "idmanager", "packetUtil": "packet util", "x": "x",
	} {
		if have := strings.Join(words(name), " "); have != want {
			t.Errorf("words of %s: %q, want %q", name, have, want)
		}
	}
	for text, want := range map[string]bool{
		"// TODO: later": true, "// TODO(me) later": true, "// TODO(#12) later": false, "// XXX": true, "// todos": false,
	} {
		if have := unnumbered.MatchString(text); have != want {
			t.Errorf("%q is unnumbered: %v, want %v", text, have, want)
		}
	}
	if err := fmt.Sprint(root(ast.NewIdent("x"))); err != "x" {
		t.Errorf("root of x is %s", err)
	}
}
