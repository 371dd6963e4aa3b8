package maxwell

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The theory: packages without file, socket, clock, goroutine, log, lock or
// global, in the order in which data flows.
var pure = []string{"unit", "physics", "price", "market", "ledger", "apoptosis", "demon"}

// layers is the import table: what each package may import of this repository.
// A package that is not listed fails the test, so that every new one is placed
// on purpose. Tests may also import what their own package's row lacks, but
// never internal/node, and pure packages' tests stay pure.
var layers = map[string][]string{
	"unit":      {},
	"physics":   {"unit"},
	"price":     {"unit", "physics"},
	"market":    {"unit"},
	"ledger":    {"unit"},
	"apoptosis": {"unit"},
	"demon":     {"unit", "physics", "price", "market", "ledger", "apoptosis"},

	"internal/golden":                          {},
	"internal/container":                       {},
	"internal/host":                            {"unit"},
	"internal/host/hosttest":                   {"unit", "internal/host"},
	"internal/sensor":                          {"unit", "physics", "internal/host"},
	"internal/meter":                           {"unit", "physics", "internal/host", "internal/meter/bpf"},
	"internal/meter/bpf":                       {},
	"internal/dispatch":                        {"unit", "market", "internal/host"},
	"internal/dispatch/cgroup":                 {"unit", "market", "internal/host", "internal/dispatch"},
	"internal/dispatch/signal":                 {"unit", "market", "internal/host", "internal/dispatch", "internal/dispatch/launch"},
	"internal/dispatch/launch":                 {"unit", "internal/host", "internal/dispatch"},
	"internal/journal":                         {"unit", "ledger", "internal/host"},
	"internal/strict":                          {},
	"internal/fleet":                           {"unit", "apoptosis", "internal/strict"},
	"internal/config":                          {"unit", "internal/fleet", "internal/strict"},
	"internal/grid":                            {"unit", "internal/fleet"},
	"internal/report":                          {"unit"},
	"internal/tui":                             {"unit", "internal/report"},
	"internal/work":                            {"unit"},
	"internal/api":                             {"internal/api/maxwell/v1", "internal/api/maxwell/v1/maxwellv1connect", "internal/host", "unit"},
	"internal/api/maxwell/v1":                  {},
	"internal/api/maxwell/v1/maxwellv1connect": {"internal/api/maxwell/v1"},
	"internal/api/metrics":                     {"internal/api/maxwell/v1", "internal/report"},
	"internal/sim":                             {"unit", "physics", "price", "market", "ledger", "apoptosis", "demon"},

	"internal/node": {anything},
	"cmd/maxwell":   {anything},

	// The one public package that touches the world: for programs of others.
	"client": {"unit", "internal/api/maxwell/v1", "internal/api/maxwell/v1/maxwellv1connect"},

	"internal/vmtest":      {"internal/vmtest/plan"},
	"internal/vmtest/init": {"internal/vmtest/plan"},
	"internal/vmtest/plan": {},
	".ci/skips":            {},
	"packaging":            {"internal/config", "internal/host"},
	"e2e":                  {},
}

// anything is a row's word for wiring: it may import every package but the two
// that nobody imports (see onlyFrom).
const anything = "*"

// onlyFrom lists packages that only one other may import.
var onlyFrom = map[string]string{
	"internal/node":          "cmd/maxwell",
	"internal/host/hosttest": "tests",
}

// external says which folders (and those below) may import a module that is
// not of this repository. Tests may also use testModules.
var external = map[string][]string{
	"github.com/cilium/ebpf": {"internal/meter"},
	"golang.org/x/sys/unix": {
		"internal/host", "internal/dispatch", "internal/meter", "internal/node", "internal/api", "cmd", "internal/vmtest", "e2e",
	},
	"modernc.org/sqlite":           {"internal/journal", "e2e"}, // there to read what a dead daemon left
	"github.com/google/go-cmp/cmp": {"internal/golden"},         // which only tests import
	"golang.org/x/term":            {"cmd"},
	"github.com/spf13/cobra":       {"cmd"},
	"github.com/spf13/pflag":       {"cmd"},
	"connectrpc.com/connect":       {"internal/api", "internal/node", "cmd", "client"},
	"google.golang.org/protobuf":   {"internal/api", "internal/node", "cmd"},
	"github.com/goccy/go-yaml":     {"internal/strict"},
	"github.com/coreos/go-systemd": {"cmd"},
	"charm.land/bubbletea":         {"internal/tui"},
	"github.com/prometheus":        {"internal/api/metrics"},
}

var testModules = []string{"pgregory.net/rapid", "github.com/google/go-cmp/cmp", "github.com/google/btree"}

// pureStandard is what a pure package may import of the standard library.
var pureStandard = []string{
	"bytes", "cmp", "container/heap", "container/ring", "crypto/sha256", "encoding", "encoding/binary", "encoding/hex",
	"errors", "fmt", "hash/maphash", "iter", "maps", "math", "math/big", "math/bits", "math/cmplx", "math/rand/v2",
	"slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf8",
}

// impureTime is what of package time reads the clock or waits for it.
var impureTime = []string{
	"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "LoadLocation", "Local",
}

// goroutines may be started here and nowhere else, and this is why.
var goroutines = map[string]string{
	"internal/node": "the wiring owns and awaits them",
	"internal/api":  "accept loops",
	"internal/dispatch/launch": "one locked thread a start, awaited by the call: a thread that joined a group and " +
		"cannot leave it has to be given up",
}

func under(folder string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return folder == root || strings.HasPrefix(folder, root+"/")
	})
}

// TestImportTable holds the table above, row by row.
func TestImportTable(t *testing.T) {
	s := load(t)
	for _, folder := range s.folders() {
		if _, ok := layers[folder]; !ok {
			t.Errorf("%s has no row in the import table of layering_test.go", folder)
		}
	}
	for folder := range layers {
		if _, ok := s.packages()[folder]; !ok {
			t.Errorf("the import table has a row for %s, which does not exist", folder)
		}
	}
	for _, f := range s.files {
		for _, imported := range f.imports() {
			if why := forbidden(f, imported); why != "" {
				t.Errorf("%s imports %s: %s", f.path, imported, why)
			}
		}
	}
}

// forbidden says why a file may not import a path; "" if it may.
func forbidden(f *goFile, imported string) string {
	inner, ours := strings.CutPrefix(imported, modulePath)
	if !ours {
		return forbiddenOutside(f, imported)
	}
	if inner == f.pkg && f.test { // an external test of its own package
		return ""
	}
	if only, ok := onlyFrom[inner]; ok && only != f.pkg && (only != "tests" || !f.test) {
		return "only " + only + " may"
	}
	row := layers[f.pkg]
	switch {
	case slices.Contains(row, anything), slices.Contains(row, inner):
		return ""
	case f.pkg == ".", f.test && !slices.Contains(pure, f.pkg):
		return ""
	}
	return "not in its row of the import table"
}

func forbiddenOutside(f *goFile, imported string) string {
	standard := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
	isPure := slices.Contains(pure, f.pkg)
	switch {
	case f.test && slices.ContainsFunc(testModules, func(m string) bool { return strings.HasPrefix(imported, m) }):
		return ""
	case standard && isPure && !f.test && !slices.Contains(pureStandard, imported):
		return "a pure package may not"
	case standard:
		return ""
	case isPure:
		return "a pure package uses the standard library only"
	}
	for module, folders := range external {
		if imported == module || strings.HasPrefix(imported, module+"/") {
			if under(f.pkg, folders) || f.test && under(f.pkg, []string{"internal", "cmd", "client"}) {
				return ""
			}
			return "only " + strings.Join(folders, ", ") + " may"
		}
	}
	return "no dependency of this project; add it to external with a decision record"
}

// TestPureStaysPure: no clock, no goroutine, no channel in the theory.
func TestPureStaysPure(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		if f.test || !slices.Contains(pure, f.pkg) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(impureTime, n.Sel.Name) {
					t.Errorf("%s: time.%s in a pure package; take now as an argument", s.at(n), n.Sel.Name)
				}
			case *ast.ChanType, *ast.SelectStmt, *ast.SendStmt:
				t.Errorf("%s: a channel in a pure package", s.at(n))
			}
			return true
		})
	}
}

// TestGoroutines: `go` is written where somebody owns and awaits it.
func TestGoroutines(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		if f.test || goroutines[f.pkg] != "" {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a goroutine; only %s start them", s.at(g), slices.Sorted(maps.Keys(goroutines)))
			}
			return true
		})
	}
}

// TestNoInit: nothing happens because a package was imported. Generated code
// registers itself and is excused.
func TestNoInit(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		if f.generated {
			continue
		}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: an init function", s.at(fn))
			}
		}
	}
}

// TestNoChangingGlobals: a package-level variable is a table or a sentinel,
// set where it is declared and never again.
func TestNoChangingGlobals(t *testing.T) {
	s := load(t)
	for folder, files := range s.packages() {
		globals := map[string]*ast.ValueSpec{}
		for _, f := range files {
			collectGlobals(f, globals)
		}
		for name, spec := range globals {
			if why := bornToChange(spec); why != "" {
				t.Errorf("%s: %s.%s %s", s.at(spec), folder, name, why)
			}
		}
		for _, f := range files {
			if f.generated {
				continue
			}
			for _, change := range changes(f, globals) {
				t.Errorf("%s: changes the package-level variable %s", s.at(change), change.Name)
			}
		}
	}
}

func collectGlobals(f *goFile, into map[string]*ast.ValueSpec) {
	if f.generated {
		return
	}
	for _, d := range f.syntax.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			v := spec.(*ast.ValueSpec)
			for _, name := range v.Names {
				if name.Name != "_" {
					into[name.Name] = v
				}
			}
		}
	}
}

// bornToChange tells a variable that makes sense only if it changes.
func bornToChange(v *ast.ValueSpec) string {
	if sel, ok := v.Type.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "sync" || x.Name == "atomic") {
			return "is a global " + x.Name + "." + sel.Sel.Name
		}
	}
	if sel, ok := v.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "FS" {
		return "" // files embedded by the compiler
	}
	if v.Type != nil && len(v.Values) == 0 {
		return "is declared without a value"
	}
	return ""
}

// changes finds assignments to globals, to their parts, and their addresses.
func changes(f *goFile, globals map[string]*ast.ValueSpec) []*ast.Ident {
	var found []*ast.Ident
	note := func(e ast.Expr) {
		id := root(e)
		if id == nil || globals[id.Name] == nil {
			return
		}
		if id.Obj != nil { // resolved in this file: a local name, or the global itself
			if spec, ok := id.Obj.Decl.(*ast.ValueSpec); !ok || spec != globals[id.Name] {
				return
			}
		}
		found = append(found, id)
	}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					note(e)
				}
			}
		case *ast.IncDecStmt:
			note(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND && !indexed(n.X) { // a pointer to one row of a table is a way to read it
				note(n.X)
			}
		case *ast.CallExpr:
			if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") && len(n.Args) > 0 {
				note(n.Args[0])
			}
		}
		return true
	})
	return found
}

func indexed(e ast.Expr) bool {
	_, ok := e.(*ast.IndexExpr)
	return ok
}

// root is the variable that an assignable expression starts from.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
