package price

import (
	"fmt"
	"math"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Base is 1x: what a core-second costs with nobody competing, the node's
// reference power per busy core (idle subtracted) at grid factor g. It is
// rounded up, so that it is zero only if power or grid cost nothing.
func Base(ref unit.Microwatts, g unit.PPM) unit.Rate {
	return unit.Rate(unit.MulDivCeil(int64(ref), int64(g), int64(unit.One)))
}

// Absolute is the price of p base prices, rounded down: a bid is the most that
// somebody pays. Beyond int64 it stops at the greatest rate.
func Absolute(p unit.Price, base unit.Rate) unit.Rate {
	return unit.Rate(unit.MulDivSat(int64(p), int64(base), int64(unit.Times)))
}

// Multiple is r in base prices, to the nearest 1/1000, so that it gives back
// what Absolute was given wherever the base is above 2000 micro-$J. At a base
// price of zero a positive rate is the greatest multiple, and zero is 0x.
func Multiple(r, base unit.Rate) unit.Price {
	if base == 0 {
		if r == 0 {
			return 0
		}
		return math.MaxInt64
	}
	if int64(r) > math.MaxInt64/int64(unit.Times) {
		return unit.Price(unit.MulDivSat(int64(r), int64(unit.Times), int64(base)))
	}
	q, rest := unit.MulDivRem(int64(r), int64(unit.Times), int64(base))
	if rest >= int64(base)-rest && rest > 0 {
		q++
	}
	return unit.Price(q)
}

// Supply is what a node sells in an epoch.
type Supply struct {
	Cores unit.CoreTime
	Watts unit.Microwatts // for workloads, above idle; 0 = not limited
}

// OfferTerms is what a supply is made from.
type OfferTerms struct {
	Machine unit.MilliCores // cores that exist for this node (affinity, cpuset)
	Sold    unit.MilliCores // cores configured for sale; 0 = all of them
	Length  time.Duration   // of the coming epoch

	System  unit.CoreTime // what the system itself used...
	Elapsed time.Duration // ...in this time, just measured; 0 = not measured yet

	// Watts is the watt budget in force; 0 is none. It is what the operator
	// configured; a thermal loop that knows the temperature gives its own
	// budget here instead, and nothing else changes.
	Watts unit.Microwatts
	// Overhead is the part of Watts that is not for sale: idle and system power,
	// if the budget is for the whole package. 0 if it is for workloads alone.
	Overhead unit.Microwatts
}

// Offer is the supply of the coming epoch, the floor included (the market takes
// it out):
//
//	Cores = min(Sold * Length, Machine * Length - System * Length / Elapsed)
//	Watts = Watts - Overhead
//
// The system goes first and uses unsold cores before sold ones. A watt budget
// that the overhead uses up leaves one microwatt, because 0 means no limit.
func Offer(t OfferTerms) Supply {
	if t.Machine < 0 || t.Sold < 0 || t.Length < 0 || t.System < 0 || t.Elapsed < 0 || t.Watts < 0 || t.Overhead < 0 {
		panic(fmt.Sprintf("price: offer from negative terms %+v", t))
	}
	capacity := t.Machine.In(t.Length)
	free := capacity
	if t.Elapsed > 0 {
		system := unit.MulDivSat(int64(t.System), int64(t.Length), int64(t.Elapsed))
		free = max(0, capacity-unit.CoreTime(system))
	}
	s := Supply{Cores: free}
	if t.Sold > 0 {
		s.Cores = min(t.Sold.In(t.Length), free)
	}
	if t.Watts > 0 {
		s.Watts = max(1, t.Watts-t.Overhead)
	}
	return s
}

// DepositTerms is what a deposit is computed from.
type DepositTerms struct {
	Cores  unit.MilliCores // c: the most cores it may use at once
	Epoch  time.Duration   // T_epoch: nothing is known inside an epoch
	Settle time.Duration   // T_settle: a sensor window is split when it is over
	Late   time.Duration   // T_late: a tick comes late on a loaded machine
	Stop   time.Duration   // T_stop: from the order to stop until nothing runs

	Energy unit.Microwatts // e_hi: the hottest a core of this node gets
	Factor unit.PPM        // g
	Sigma  unit.PPM        // 1-sigma of the energy source

	Bid     unit.Rate // b: its bid, or the highest that may be bid for it
	Spot    unit.Rate // spot now; rent may double within the blind time
	Reserve unit.Rate // r: its own reserve

	Term      time.Duration   // T_term: time between SIGTERM and SIGKILL
	TermCores unit.MilliCores // c_term: what the dying lane lets it use

	TaxCap unit.Credits // the most erasure that is charged unseen
}

// Deposit is the money that pays what metering finds after the balance is gone,
// and a workload's own death:
//
//	D = c * (T_epoch + T_settle + T_late + T_stop)
//	      * (e_hi * g * (1 + 2 sigma) + max(0, min(b, 2 spot) - r))
//	  + T_term * c_term * e_hi * g
//	  + tax cap
//
// The first line is how long a workload may run unpaid, on all its cores: 173 ms
// at an epoch of 50 ms. The second is the most that a core-second can cost
// then: energy, at the upper end of the sensor's band, is always paid in full,
// and rent is bounded by the bid and, within that time, by a doubling of spot.
// The third is the last moments between SIGTERM and SIGKILL. Each product is
// rounded up; what Carry.Flush rounds up at death (3 micro-$J at most) is beside
// it. One core of 12 W at 1x needs about 2 $J.
func Deposit(t DepositTerms) unit.Credits {
	blind := t.Epoch + t.Settle + t.Late + t.Stop
	if t.Cores < 0 || blind < 0 || t.Term < 0 || t.TermCores < 0 || t.TaxCap < 0 {
		panic(fmt.Sprintf("price: deposit from negative terms %+v", t))
	}
	energy := unit.MulDivCeil(int64(t.Energy), int64(t.Factor), int64(unit.One))
	band := unit.MulDivCeil(energy, int64(unit.One+2*t.Sigma), int64(unit.One))
	highest := unit.Rate(unit.MulDivSat(int64(t.Spot), 2, 1))
	rent := max(0, min(t.Bid, highest)-t.Reserve)
	life := costs(add(band, int64(rent)), t.Cores, blind)
	death := costs(energy, t.TermCores, t.Term)
	return unit.Credits(add(add(life, death), int64(t.TaxCap)))
}

// costs is the money for n cores over d at rate, rounded up.
func costs(rate int64, n unit.MilliCores, d time.Duration) int64 {
	use := unit.MulDivCeil(int64(n), int64(d), int64(unit.Core))
	return unit.MulDivCeil(rate, use, int64(unit.CoreSecond))
}

func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		panic(fmt.Sprintf("price: %d + %d is more than 63 bits", a, b))
	}
	return a + b
}

// MinimumBudget is the least budget that a workload is admitted with: twice its
// deposit. Below that it would be broke as soon as the deposit is locked.
func MinimumBudget(deposit unit.Credits) unit.Credits {
	return unit.Credits(unit.MulDiv(int64(deposit), 2, 1))
}
