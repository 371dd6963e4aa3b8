package apoptosis

import (
	"fmt"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Memory is what has to be kept of a Machine so that another process can go on
// with it. The policy is not in it: that was agreed with the workload.
type Memory struct {
	State    State        `json:"state"`
	Reason   Reason       `json:"reason"`
	Deadline unit.Instant `json:"deadline_ns"`    // of broke and dying, on the node's monotonic clock
	Killed   bool         `json:"killed"`         // the lane is over, or there was none
	Warned   int32        `json:"warned_percent"` // highest share of the budget that was told: 0, 80 or 95
}

// Memory returns what has to be kept of m.
func (m Machine) Memory() Memory {
	k := Memory{State: m.state, Reason: m.reason, Deadline: m.deadline, Killed: m.killed}
	switch {
	case m.warned.Has(Warn95):
		k.Warned = 95
	case m.warned.Has(Warn80):
		k.Warned = 80
	}
	return k
}

// Restore returns the machine of policy p that goes on where k was kept. It
// refuses what no machine remembers.
func Restore(p Policy, k Memory) (Machine, error) {
	ends := k.State == Dying || k.State == Dead
	switch {
	case p.Grace < 0 || p.Term < 0 || p.LaneTime < 0:
		return Machine{}, fmt.Errorf("life: negative policy: grace %v, term %v, lane %d ns", p.Grace, p.Term, p.LaneTime)
	case int(k.State) >= states:
		return Machine{}, fmt.Errorf("life: unknown state %d", k.State)
	case int(k.Reason) >= reasons || (k.Reason != None) != ends:
		return Machine{}, fmt.Errorf("life: %v with reason %v", k.State, k.Reason)
	case k.Killed && !ends:
		return Machine{}, fmt.Errorf("life: %v and killed", k.State)
	}
	m := Machine{policy: p, state: k.State, reason: k.Reason, deadline: k.Deadline, killed: k.Killed}
	switch k.Warned {
	case 0:
	case 80:
		m.warned = Warn80
	case 95:
		m.warned = Warn80 | Warn95
	default:
		return Machine{}, fmt.Errorf("life: warned at %d %%", k.Warned)
	}
	return m, nil
}

// MarshalText writes the state's word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("state %q: want one of %v", text, stateNames)
}

// MarshalText writes the reason's word.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Reason) UnmarshalText(text []byte) error {
	have, ok := ParseReason(string(text))
	if !ok {
		return fmt.Errorf("reason %q is not one of this Maxwell's", text)
	}
	*r = have
	return nil
}

// MarshalText writes the choice's word.
func (c Choice) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Choice) UnmarshalText(text []byte) error {
	have, ok := ParseChoice(string(text))
	if !ok {
		return fmt.Errorf("choice %q: want stop or pause", text)
	}
	*c = have
	return nil
}
