package unit

import (
	"fmt"
	"math/bits"
)

// Wide is an unsigned 128-bit integer, Hi*2^64 + Lo. It holds sums of products
// of two quantities: rents in nanocredits (micro-$J per core-second times
// nanoseconds), before one division turns them into money. The zero value is 0.
// Every operation that would leave the range panics with the numbers.
type Wide struct{ Hi, Lo uint64 }

// Mul is a*b.
func Mul(a, b uint64) Wide {
	hi, lo := bits.Mul64(a, b)
	return Wide{hi, lo}
}

// Add is w + v.
func (w Wide) Add(v Wide) Wide {
	lo, carry := bits.Add64(w.Lo, v.Lo, 0)
	hi, over := bits.Add64(w.Hi, v.Hi, carry)
	if over != 0 {
		panic(fmt.Sprintf("unit: %v + %v is more than 128 bits", w, v))
	}
	return Wide{hi, lo}
}

// Sub is w - v; v must not be greater than w.
func (w Wide) Sub(v Wide) Wide {
	lo, borrow := bits.Sub64(w.Lo, v.Lo, 0)
	hi, under := bits.Sub64(w.Hi, v.Hi, borrow)
	if under != 0 {
		panic(fmt.Sprintf("unit: %v - %v is negative", w, v))
	}
	return Wide{hi, lo}
}

// AddMul is w + a*b.
func (w Wide) AddMul(a, b uint64) Wide {
	return w.Add(Mul(a, b))
}

// Cmp is -1, 0 or +1 as w is less than, equal to or greater than v.
func (w Wide) Cmp(v Wide) int {
	switch {
	case w == v:
		return 0
	case w.Hi < v.Hi || w.Hi == v.Hi && w.Lo < v.Lo:
		return -1
	default:
		return 1
	}
}

// DivRem is the quotient and remainder of w by d; d must not be 0.
func (w Wide) DivRem(d uint64) (q Wide, r uint64) {
	if d == 0 {
		panic(fmt.Sprintf("unit: %v / 0", w))
	}
	q.Hi, r = w.Hi/d, w.Hi%d
	q.Lo, r = bits.Div64(r, w.Lo, d)
	return q, r
}

// Uint64 is w as a uint64; ok says whether it fits.
func (w Wide) Uint64() (v uint64, ok bool) {
	return w.Lo, w.Hi == 0
}

// IsZero says whether w is 0.
func (w Wide) IsZero() bool {
	return w == Wide{}
}

// String is w in decimal.
func (w Wide) String() string {
	const billions = 1e18 // 18 digits at a time
	if w.Hi == 0 {
		return fmt.Sprint(w.Lo)
	}
	q, low := w.DivRem(billions)
	if q.Hi == 0 && q.Lo < billions {
		return fmt.Sprintf("%d%018d", q.Lo, low)
	}
	q, middle := q.DivRem(billions)
	return fmt.Sprintf("%d%018d%018d", q.Lo, middle, low)
}
