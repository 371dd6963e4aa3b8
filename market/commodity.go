package market

import "github.com/maxwell-hypervisor/maxwell/unit"

// Unit is the commodity of an epoch.
type Unit uint8

// The two commodities. Which one is in force is chosen from previous epochs
// only (UnitChooser), so that no bid of this epoch can move it.
const (
	Cores Unit = iota
	Watts
)

// String names the commodity.
func (u Unit) String() string {
	if u == Watts {
		return "watts"
	}
	return "cores"
}

// When the commodity changes. Watts at once when they bind, because cores sold
// past the allowance are heat; cores only after a while, because changing back
// and forth would make the price jump between two units.
const (
	wattsFrom  = 950_000 // ppm of the allowance sold
	wattsAfter = 3       // epochs in a row
	coresBelow = 850_000
	coresAfter = 20
)

// UnitChooser remembers which limit bound in previous epochs. The zero value
// sells cores.
type UnitChooser struct {
	current Unit
	row     int // epochs in a row that spoke for the other unit
}

// Observe takes the watts sold in the epoch that ended and the allowance for
// them (0 = not limited), and returns the commodity of the coming epoch.
func (c *UnitChooser) Observe(sold, allowance unit.Microwatts) Unit {
	if allowance <= 0 {
		*c = UnitChooser{}
		return Cores
	}
	share := unit.MulDivSat(int64(max(sold, 0)), int64(unit.One), int64(allowance))
	against, needed := share >= wattsFrom, wattsAfter
	if c.current == Watts {
		against, needed = share < coresBelow, coresAfter
	}
	if !against {
		c.row = 0
		return c.current
	}
	if c.row++; c.row >= needed {
		c.current, c.row = Cores+Watts-c.current, 0
	}
	return c.current
}

// Current returns the commodity in force.
func (c *UnitChooser) Current() Unit { return c.current }
