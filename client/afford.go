package client

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Estimate is what a step would cost now, and what is there to pay for it.
type Estimate struct {
	Cost       unit.Credits
	At         unit.Price       // the multiple that Cost was computed with
	Left       unit.Credits     // balance before the step; meaningless if Open or Draws
	LeftEnergy unit.Microjoules // below the energy cap; math.MaxInt64 if there is none
	Open       bool             // no budget limits this workload
	Draws      bool             // a wallet does, and a workload does not see what is in it
}

// Unaffordable is the refusal of Afford: the step does not fit into what is
// left.
type Unaffordable struct {
	Estimate

	Need   unit.Microjoules // what the step was said to burn
	Reason string           // balance, energy, or the state that the workload is in: broke, paused, dying, dead
	Remedy string
}

// Error is one line with what is needed and what is left.
func (u *Unaffordable) Error() string {
	switch u.Reason {
	case "balance":
		return fmt.Sprintf("a step of %s costs about %s at %s and %s is left; %s", u.Need, u.Cost, u.At, u.Left, u.Remedy)
	case "energy":
		return fmt.Sprintf("a step of %s does not fit below the energy cap, %s is left; %s", u.Need, u.LeftEnergy, u.Remedy)
	}
	return fmt.Sprintf("a step of %s cannot start: this workload is %s; %s", u.Need, u.Reason, u.Remedy)
}

// ending are the states in which no step should begin.
var ending = []string{"broke", "paused", "dying", "dead"}

// Afford asks whether the workload that the caller is in can pay for a step that
// burns about so much energy, before it begins. The refusal is an
// [*Unaffordable].
//
// The cost is the step's joules at the grid price, times spot, but not more than
// the workload's own bid: above that it waits instead of paying. It is an
// estimate for now. What draws from a standing wallet holds little of it at a time:
// there money refuses no step before the wallet is empty. The market's own limit is a hard one whatever was asked
// here.
func (c *Client) Afford(ctx context.Context, step unit.Microjoules) (Estimate, error) {
	if step < 0 {
		return Estimate{}, invalid("afford", "a step burns no negative energy", "")
	}
	self, err := c.Self(ctx)
	if err != nil {
		return Estimate{}, err
	}
	if !self.Inside {
		return Estimate{}, &Error{
			Code: Outside, Text: "afford: this program is not inside a workload, nothing limits it",
			Remedy: "start it with maxwell run --budget",
		}
	}
	return self.Afford(step)
}

// Afford judges a step by what Self knew, without asking again.
func (s *Self) Afford(step unit.Microjoules) (Estimate, error) {
	e := Estimate{At: s.multiple(), Left: s.Balance, LeftEnergy: math.MaxInt64, Open: s.Open, Draws: s.Draws}
	e.Cost = unit.Credits(ceiling(ceiling(int64(step), int64(s.Price.Grid), int64(unit.One)), int64(e.At), int64(unit.Times)))
	if s.Caps.Energy > 0 {
		e.LeftEnergy = max(0, s.Caps.Energy-s.Energy)
	}
	u := &Unaffordable{Estimate: e, Need: step}
	switch {
	case slices.Contains(ending, s.State):
		u.Reason, u.Remedy = s.State, s.Remedy
		if u.Remedy == "" {
			u.Remedy = "fund " + s.Name
		}
	case step > e.LeftEnergy:
		u.Reason, u.Remedy = "energy", "raise --max-energy of "+s.Name
	case !s.Open && !s.Draws && e.Cost > e.Left:
		u.Reason, u.Remedy = "balance", "take a smaller step, or fund "+s.Name
	default:
		return e, nil
	}
	return e, u
}

// multiple is spot, held between 1x and the workload's own bid.
func (s *Self) multiple() unit.Price {
	spot := max(s.Price.Spot, unit.Times)
	limit := s.Bid
	if s.Auto {
		limit = max(limit, s.MaxBid)
	}
	if limit > 0 {
		spot = min(spot, max(limit, unit.Times))
	}
	return spot
}

// ceiling is a*b/c rounded up, and the largest number where that is too small.
func ceiling(a, b, c int64) int64 {
	if a < 0 || b < 0 {
		return 0
	}
	q := unit.MulDivSat(a, b, c)
	if q < math.MaxInt64 && unit.Mul(uint64(q), uint64(c)) != unit.Mul(uint64(a), uint64(b)) {
		q++
	}
	return q
}
