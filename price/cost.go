package price

import (
	"fmt"
	"math"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Cycles is what a workload used: core time, weighted by the energy it burnt in
// it. Energy is what the attribution says, not a rate times Time.
type Cycles struct {
	Time   unit.CoreTime
	Energy unit.Microjoules
}

// GridPrice is what the used cycles cost: the grid factor for their energy, and
// the rent that scarcity adds, as the market's area over Time in nanocredits
// (1e-9 micro-$J).
type GridPrice struct {
	Factor unit.PPM
	Rent   unit.Wide
}

// Denominators of the remainders in a Carry: how many of them make one
// micro-$J.
const (
	energyParts  = 1_000_000         // microjoules times PPM
	rentParts    = 1_000_000_000     // nanocredits
	erasureParts = 1_000_000_000_000 // bits times attojoules
)

// Carry is what one wallet owes below a micro-$J. It belongs to the wallet for
// its whole life: dropping it gives work away, sharing it charges the wrong one.
type Carry struct {
	Energy  uint64 `json:"energy_pcredits"`  // in 1e-6 micro-$J, below 1e6
	Rent    uint64 `json:"rent_fcredits"`    // in 1e-9 micro-$J, below 1e9
	Erasure uint64 `json:"erasure_acredits"` // in 1e-12 micro-$J, below 1e12
}

// Valid reports whether each part is less than one micro-$J.
func (c Carry) Valid() bool {
	return c.Energy < energyParts && c.Rent < rentParts && c.Erasure < erasureParts
}

// Flush empties the carry at the wallet's death: each part that is owed at all
// is rounded up to one micro-$J.
func (c *Carry) Flush() Bill {
	b := Bill{
		Energy:  unit.Credits(min(c.Energy, 1)),
		Rent:    unit.Credits(min(c.Rent, 1)),
		Erasure: unit.Credits(min(c.Erasure, 1)),
	}
	*c = Carry{}
	return b
}

// Bill is a debit by its parts. Energy goes to the heat account, Erasure to
// entropy, Rent to the treasury.
type Bill struct {
	Energy  unit.Credits `json:"energy_ucredits"`
	Rent    unit.Credits `json:"rent_ucredits"`
	Erasure unit.Credits `json:"erasure_ucredits"`
}

// Total is the whole debit.
func (b Bill) Total() unit.Credits { return b.Energy + b.Rent + b.Erasure }

// Plus is the sum of two bills, part by part.
func (b Bill) Plus(c Bill) Bill {
	return Bill{Energy: b.Energy + c.Energy, Rent: b.Rent + c.Rent, Erasure: b.Erasure + c.Erasure}
}

// Cost is the core equation, and the only way to a debit:
//
//	Cost = Cycles * Current_Grid_Price + Memory_Freed * Landauer_Constant
//
//	Cost                micro-$J, in three parts
//	Cycles              core time c.Time (ns), weighted by its energy c.Energy (uJ)
//	Current_Grid_Price  p.Factor (1e-6) on the energy, plus p.Rent (1e-9 micro-$J)
//	                    over the time
//	Memory_Freed        erased (bit)
//	Landauer_Constant   l.PerBit (1e-18 J/bit): kT ln 2 times the policy multiplier
//
// so that, with what the wallet still owed from before,
//
//	Energy  = floor(c.Energy * p.Factor / 1e6  + carried)
//	Rent    = floor(p.Rent / 1e9               + carried)
//	Erasure = floor(erased * l.PerBit() / 1e12 + carried)
//
// and carry keeps the rest of each exactly. One joule of erasure costs one $J at
// any grid factor: its multiplier is policy already. Negative quantities, and
// money beyond int64 (9 million million $J), are broken invariants and panic
// with the numbers, leaving carry as it was.
func Cost(c Cycles, p GridPrice, erased unit.Bits, l Landauer, carry *Carry) Bill {
	if c.Time < 0 || c.Energy < 0 || p.Factor < 0 || erased < 0 {
		panic(fmt.Sprintf("price: cost of %d ns, %d uJ at %d ppm, %d bits", c.Time, c.Energy, p.Factor, erased))
	}
	energy, energyRest := settle(unit.Mul(uint64(c.Energy), uint64(p.Factor)), carry.Energy, energyParts)
	rent, rentRest := settle(p.Rent, carry.Rent, rentParts)
	erasure, erasureRest := settle(unit.Mul(uint64(erased), uint64(l.PerBit())), carry.Erasure, erasureParts)
	b := Bill{Energy: energy, Rent: rent, Erasure: erasure}
	if math.MaxInt64-energy-rent < erasure { // can't wrap: none is negative
		panic(fmt.Sprintf("price: %d + %d + %d micro-$J is more than 63 bits", energy, rent, erasure))
	}
	*carry = Carry{Energy: energyRest, Rent: rentRest, Erasure: erasureRest}
	return b
}

// settle is the whole credits in owed + carried, and what is left.
func settle(owed unit.Wide, carried, parts uint64) (unit.Credits, uint64) {
	q, rest := owed.Add(unit.Wide{Lo: carried}).DivRem(parts)
	whole, fits := q.Uint64()
	if !fits || whole > math.MaxInt64 {
		panic(fmt.Sprintf("price: %v / %d micro-$J is more than 63 bits", owed, parts))
	}
	return unit.Credits(whole), rest
}
