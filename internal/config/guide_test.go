package config

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
)

const guide = "../../docs/guide/daemon.md"

// generated is what stands between the marks of a table in the guide.
var generated = regexp.MustCompile(`(?s)<!-- (keys|match): written by make generate -->\n.*?<!-- end -->`)

// TestDocuments: the guide's tables and the installed file are what the schema
// says.
func TestDocuments(t *testing.T) {
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	want := generated.ReplaceAllStringFunc(string(text), func(old string) string {
		tables++
		var b strings.Builder
		first, _, _ := strings.Cut(old, "\n")
		b.WriteString(first + "\n\n")
		if strings.Contains(first, "keys") {
			b.WriteString("| key | example | default | |\n|---|---|---|---|\n")
			for _, r := range Schema() {
				fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", r.Path, r.Example, r.Default, r.About)
			}
		} else {
			b.WriteString("| key | example | matches |\n|---|---|---|\n")
			for _, r := range MatchKeys() {
				fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", r.Path, r.Example, r.About)
			}
		}
		return b.String() + "\n<!-- end -->"
	})
	if tables != 2 {
		t.Errorf("%s has %d generated tables, want 2", guide, tables)
	}
	golden.CheckFile(t, guide, want)
	var b bytes.Buffer
	if err := WriteTemplate(&b); err != nil {
		t.Fatal(err)
	}
	golden.CheckFile(t, "../../packaging/maxwell.yaml", b.String())
}

// TestTemplate: the installed file says nothing but observe; with the marks of
// comments taken away it is a whole file, and all examples are right.
func TestTemplate(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTemplate(&b); err != nil {
		t.Fatal(err)
	}
	c := parse(t, b.String(), nil, nil)
	for _, k := range keys() {
		if o := c.Origin(k.path); (o.Layer == File) != (k.path == "enforce") {
			t.Errorf("%s came from %v", k.path, o)
		}
	}
	if c.Enforce != Observe || len(c.Rules) != 0 {
		t.Errorf("the installed file says %v and %d rules", c.Enforce, len(c.Rules))
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 100 {
			t.Errorf("a long line: %s", line)
		}
	}
	bare := regexp.MustCompile(`(?m)^#((?:  )?[a-z_]+: |[a-z]+:$|  - match|    enforce|    wallet)`).ReplaceAllString(b.String(), "$1")
	c = parse(t, bare, nil, nil)
	for _, k := range keys() {
		if o := c.Origin(k.path); o.Layer != File {
			t.Errorf("%s is not in the template", k.path)
		}
	}
	if len(c.Rules) != 3 {
		t.Errorf("%d rules in the template", len(c.Rules))
	}
}

// TestBlocksOfTheGuide: every YAML block of the administrator's pages loads.
func TestBlocksOfTheGuide(t *testing.T) {
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	for _, name := range []string{guide, "../../docs/guide/administrators-week.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := blocks.FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s shows no configuration", name)
		}
		for _, b := range found {
			if _, err := Parse(name, b[1], nil, nil); err != nil {
				t.Errorf("%v\n%s", err, b[1])
			}
		}
	}
}
