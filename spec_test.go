package maxwell

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// specification is the file that says what is promised and what holds it.
const specification = "SPECIFICATION.md"

// promised are the rows that the specification must have: the promises of the
// project, the properties of the market, and what a daemon is held to.
var promised = []string{
	"A1", "A1b", "A2", "A3", "E", "L", "P1", "P2", "P3", "X", "EQ", "H",
	"M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9", "M11", "M12",
	"I1", "I2", "I3", "I4", "I5", "I6", "I7",
	"D1", "D1b", "D2", "D3", "D4", "D5", "D6", "D7",
}

// namedTest is a link to a test: [TestP1Feasible](market/property_test.go).
var namedTest = regexp.MustCompile(`\[((?:Test|Fuzz|Benchmark)\w*)\]\(([^)\s]+)\)`)

// pendingRow says where an open row is tracked: pending: *title of the issue*.
var pendingRow = regexp.MustCompile(`pending: \*[^*]+\*`)

// specRow is a row of a table whose first cell is an identifier in bold.
var specRow = regexp.MustCompile(`(?m)^\| \*\*([A-Z]+[0-9]*b?)\*\* \|(.*)$`)

// checkSpecification returns what is wrong with a specification. exists tells
// whether a file has a test of a name.
func checkSpecification(text string, want []string, exists func(file, test string) bool) []string {
	var faults []string
	rows := map[string]int{}
	for _, row := range specRow.FindAllStringSubmatch(text, -1) {
		rows[row[1]]++
		if !namedTest.MatchString(row[2]) && !pendingRow.MatchString(row[2]) {
			faults = append(faults, row[1]+" names neither a test nor the issue it waits for")
		}
	}
	for _, id := range want {
		if rows[id] != 1 {
			faults = append(faults, fmt.Sprintf("%s has %d rows, want 1", id, rows[id]))
		}
	}
	for _, link := range namedTest.FindAllStringSubmatch(text, -1) {
		if !exists(link[2], link[1]) {
			faults = append(faults, fmt.Sprintf("%s has no %s", link[2], link[1]))
		}
	}
	return faults
}

// TestSpecificationNamesRealTests: every promise has a row, and every test that
// a row names exists in the file it links.
func TestSpecificationNamesRealTests(t *testing.T) {
	text, err := os.ReadFile(specification)
	if err != nil {
		t.Fatal(err)
	}
	s := load(t)
	exists := func(file, test string) bool {
		i := slices.IndexFunc(s.files, func(f *goFile) bool { return f.path == file })
		return i >= 0 && slices.ContainsFunc(s.files[i].syntax.Decls, func(d ast.Decl) bool {
			fn, ok := d.(*ast.FuncDecl)
			return ok && fn.Recv == nil && fn.Name.Name == test
		})
	}
	for _, fault := range checkSpecification(string(text), promised, exists) {
		t.Errorf("%s: %s", specification, fault)
	}
}

// TestSpecificationCheckFinds keeps the test above honest.
func TestSpecificationCheckFinds(t *testing.T) {
	exists := func(file, test string) bool { return file == "a_test.go" && test == "TestA" }
	good := "| **A1** | word | [TestA](a_test.go) |\n| **A2** | word | pending: *an issue* |\n"
	if faults := checkSpecification(good, []string{"A1", "A2"}, exists); len(faults) != 0 {
		t.Errorf("good text: %v", faults)
	}
	for _, bad := range []string{
		"| **A1** | word | [TestB](a_test.go) |\n| **A2** | word | pending: *an issue* |\n",
		"| **A1** | word | [TestA](b_test.go) |\n| **A2** | word | pending: *an issue* |\n",
		"| **A1** | word | tested |\n| **A2** | word | pending: *an issue* |\n",
		"| **A1** | word | [TestA](a_test.go) |\n| **A2** | word | pending |\n",
		"| **A1** | word | [TestA](a_test.go) |\n",
	} {
		if faults := checkSpecification(bad, []string{"A1", "A2"}, exists); len(faults) != 1 {
			t.Errorf("%q: %d faults %v, want 1", bad, len(faults), faults)
		}
	}
}

// link is a relative link in a Markdown text, without its anchor.
var link = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)

// fences are blocks of code, in which brackets are not links.
var fences = regexp.MustCompile("(?s)\n```.*?\n```")

// TestLinks: what a text points at exists.
func TestLinks(t *testing.T) {
	s := load(t)
	texts := 0
	for _, name := range s.all {
		if path.Ext(name) != ".md" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts++
		for _, l := range link.FindAllStringSubmatch(fences.ReplaceAllString(string(text), ""), -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			if _, err := os.Stat(path.Join(path.Dir(name), l[1])); err != nil {
				t.Errorf("%s links %s, which does not exist", name, l[1])
			}
		}
	}
	if texts < 5 {
		t.Errorf("%d texts found", texts)
	}
}
