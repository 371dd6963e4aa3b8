package physics

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestCarriesSumToZero: whatever lives and dies, nothing that rounding owes is
// lost or made, and a slot's next owner starts with nothing.
func TestCarriesSumToZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a Attributor
		for range rapid.IntRange(1, 40).Draw(t, "intervals") {
			used := make([]unit.CoreTime, rapid.IntRange(0, 6).Draw(t, "slots"))
			for i := range used {
				used[i] = unit.CoreTime(rapid.Int64Range(0, 9).Draw(t, "used"))
			}
			energy := unit.Microjoules(rapid.Int64Range(0, 30).Draw(t, "energy"))
			a.Split(energy, 0, 0, unit.CoreTime(rapid.Int64Range(0, 9).Draw(t, "system")), used, make([]unit.Microjoules, len(used)))
			if dead := rapid.IntRange(0, 7).Draw(t, "dead"); rapid.Bool().Draw(t, "dies") {
				a.Forget(dead)
				if dead+1 < len(a.carry) && a.carry[dead+1] != 0 {
					t.Fatalf("the next owner of slot %d is owed %d", dead, a.carry[dead+1])
				}
			}
			sum := int64(0)
			for _, c := range a.carry {
				sum += c
			}
			if sum != 0 {
				t.Fatalf("carries %v sum to %d", a.carry, sum)
			}
		}
	})
}
