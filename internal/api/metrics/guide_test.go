package metrics

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

//go:generate go test -count=1 -run ^TestGuide$ . -args -update

// guide is the page for people.
const guide = "../../../docs/guide/metrics.md"

// TestGuide: the guide's table is the table of the code, with -update written
// from it.
func TestGuide(t *testing.T) {
	const begin, end = "<!-- written by make generate -->\n", "<!-- end -->\n"
	page, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	have, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("no table in %s", guide)
	}
	var want strings.Builder
	want.WriteString("| metric | type | labels | JSON keys | what |\n|---|---|---|---|---|\n")
	for _, r := range rows() {
		kind := "gauge"
		if r.kind == prometheus.CounterValue {
			kind = "counter"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s | %s |\n", r.name, kind, code(r.labels), code(r.keys), r.help)
	}
	if have == want.String() {
		return
	}
	if flag.Lookup("update").Value.String() != "true" {
		t.Fatalf("%s has not the metrics that there are; make generate writes them", guide)
	}
	if err := os.WriteFile(guide, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func code(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "`" + w + "`"
	}
	return strings.Join(quoted, ", ")
}

// TestKeysExist: a metric shows a figure that has a meaning, and says it with
// the words of the JSON documents.
func TestKeysExist(t *testing.T) {
	for _, r := range rows() {
		for i, key := range r.keys {
			object, name, _ := strings.Cut(key, ".")
			means := report.Help(object, name)
			own := []string{"maxwell_node_info", "maxwell_workload_state", "maxwell_workloads"} // made of several, or a form of its own
			if means == "" || i == 0 && !strings.HasPrefix(r.help, means) && !slices.Contains(own, r.name) {
				t.Errorf("%s: %s means %q, the help is %q", r.name, key, means, r.help)
			}
		}
		if len(r.keys) == 0 || strings.HasSuffix(r.help, ".") {
			t.Errorf("%s: keys %v, help %q", r.name, r.keys, r.help)
		}
	}
}

// TestGuideNamesExist: every metric that the guide speaks of is one.
func TestGuideNamesExist(t *testing.T) {
	page, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, r := range rows() {
		known[r.name] = true
	}
	found := 0
	for word := range strings.FieldsFuncSeq(string(page), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' }) {
		if strings.HasPrefix(word, "maxwell_") {
			found++
			if !known[word] {
				t.Errorf("the guide names %s, which does not exist", word)
			}
		}
	}
	if found <= len(known) { // the table alone has as many
		t.Errorf("%d names found", found)
	}
}
