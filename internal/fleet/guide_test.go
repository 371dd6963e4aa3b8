package fleet

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/strict"
)

// keyRow is a row of the guide's tables: | `budget` | `500` | ...
var keyRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| `([^`]*)` \\|(.*)$")

// TestGuideKnowsEveryKey: the guide's tables have the keys of a fleet file, in
// order, each with an example that parses.
func TestGuideKnowsEveryKey(t *testing.T) {
	text, err := os.ReadFile("../../docs/guide/fleet-file.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	rows := keyRow.FindAllSubmatch(text, -1)
	for i, row := range rows {
		key, example := string(row[1]), string(row[2])
		got = append(got, key)
		body := "workloads: {a: {command: [x], budget: 900, " + key + ": " + example + "}}"
		switch {
		case i < len(nodeFields):
			body = "node: {" + key + ": " + example + "}\nworkloads: {a: {command: [x]}}"
		case key == "command" || key == "budget":
			body = "workloads: {a: {command: [x], " + key + ": " + example + "}}"
			if key == "command" {
				body = "workloads: {a: {" + key + ": " + example + "}}"
			}
		}
		f, err := Parse("guide", []byte(body))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if p := f.Workloads[0].Validate(); p != nil {
			t.Errorf("%s: %s: %v", key, example, p)
		}
	}
	want := strict.Names(nodeFields)
	want = append(want, "command")
	want = append(want, strict.Names(workloadFields)...)
	want = append(want, "income", "env")
	if !slices.Equal(got, want) {
		t.Errorf("the guide has %v\nthe file has  %v", got, want)
	}
}

// TestGuideKnowsTheDefaults: what the guide gives as defaults is what a
// workload without keys has.
func TestGuideKnowsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../docs/guide/fleet-file.md")
	if err != nil {
		t.Fatal(err)
	}
	w := New("a", "x")
	w.Bid.Auto, w.Budget = true, 1
	w.Fill()
	want := map[string]string{
		"bid": DefaultBid.String(), "max_bid": w.MaxBid.String(), "grace": fmt.Sprint(w.Grace), "when_broke": w.WhenBroke.String(),
	}
	if w.Horizon.Hours() != 1 {
		t.Errorf("the default horizon is %v, the guide says 1h", w.Horizon)
	}
	for _, row := range keyRow.FindAllSubmatch(text, -1) {
		key := string(row[1])
		if d, ok := want[key]; ok {
			if !regexp.MustCompile("^ `" + d + "` \\|").Match(row[3]) {
				t.Errorf("the guide does not give %s as the default of %s:%s", d, key, row[3])
			}
			delete(want, key)
		}
	}
	for key := range want {
		t.Errorf("the guide has no %s", key)
	}
}
