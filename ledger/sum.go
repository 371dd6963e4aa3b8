package ledger

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// An account's sums have 128 bits (unit.Wide): 64 would be full after 213 days
// of a 500 kW cluster, and 2^64 of the largest transfers do not fill 128.

// wide is a part of a sum. Amounts were judged: c is not negative.
func wide(c unit.Credits) unit.Wide { return unit.Wide{Lo: uint64(c)} }

// difference is a - b, and whether it lies within +-(2^63 - 1).
func difference(a, b unit.Wide) (unit.Credits, bool) {
	lo, borrow := bits.Sub64(a.Lo, b.Lo, 0)
	hi, _ := bits.Sub64(a.Hi, b.Hi, borrow)
	switch {
	case hi == 0 && lo <= math.MaxInt64:
		return unit.Credits(lo), true
	case hi == math.MaxUint64 && lo > 1<<63:
		return unit.Credits(lo), true
	}
	return 0, false
}

// mustDifference is a - b where the ledger has seen to it (Overflow) that it
// fits.
func mustDifference(a, b unit.Wide) unit.Credits {
	d, ok := difference(a, b)
	if !ok {
		panic(fmt.Sprintf("ledger: balance of %v - %v exceeds int64", a, b))
	}
	return d
}
