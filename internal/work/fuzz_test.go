package work

import (
	"strings"
	"testing"
)

// FuzzSum: what others write beside the reports neither counts nor makes a sum
// negative, and half a line is not yet work.
func FuzzSum(f *testing.F) {
	f.Add("work 3 lap\nwork 4 lap\n", "lap")
	f.Add("work 9223372036854775807 lap\nwork 1 lap\n", "lap")
	f.Add("work -1 lap\nwork 1 lap", "lap")
	f.Fuzz(func(t *testing.T, text, kind string) {
		sum := Sum([]byte(text), kind)
		whole := text[:strings.LastIndexByte(text, '\n')+1]
		if sum < 0 || sum > 0 && !strings.Contains(text, "work") || sum != Sum([]byte(whole), kind) {
			t.Errorf("%q has %d of %q", text, sum, kind)
		}
	})
}
