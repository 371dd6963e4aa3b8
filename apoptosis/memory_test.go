package apoptosis

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestMemoryKeepsALife: at any moment a machine may be replaced by one that was
// restored from its memory, and nobody can tell.
func TestMemoryKeepsALife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := stopping
		policy.WhenBroke = Choice(rapid.IntRange(0, 1).Draw(t, "when broke"))
		m := New(policy)
		for now := range unit.Instant(40) {
			in := Input{
				Now: now * 100_000_000, Started: now > 0, Populated: now > 0 && rapid.IntRange(0, 30).Draw(t, "empty") > 0,
				Solvent: rapid.Bool().Draw(t, "solvent"), Winning: rapid.Bool().Draw(t, "winning"),
				Spent: unit.Credits(rapid.IntRange(0, 100).Draw(t, "spent")), Budget: 100,
			}
			if rapid.IntRange(0, 30).Draw(t, "trip") == 0 {
				in.Trip = Stopped
			}
			text, err := json.Marshal(m.Memory())
			if err != nil {
				t.Fatal(err)
			}
			var k Memory
			if err := json.Unmarshal(text, &k); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			other, err := Restore(policy, k)
			if err != nil || other != m {
				t.Fatalf("%+v restored as %+v: %v", m, other, err)
			}
			m.Step(in)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	for name, k := range map[string]Memory{
		"state":             {State: State(states)},
		"reason":            {State: Dying, Reason: Reason(reasons)},
		"dead of nothing":   {State: Dead},
		"alive of a reason": {State: Running, Reason: Stopped},
		"alive and killed":  {State: Running, Killed: true},
		"warned":            {State: Running, Warned: 81},
	} {
		if _, err := Restore(Policy{}, k); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Restore(Policy{Grace: -1}, Memory{}); err == nil {
		t.Error("negative grace: no error")
	}
	var s State
	var r Reason
	var c Choice
	for _, v := range []any{&s, &r, &c} {
		if err := json.Unmarshal([]byte(`"nonsense"`), v); err == nil {
			t.Errorf("%T reads nonsense", v)
		}
	}
}
