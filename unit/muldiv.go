package unit

import (
	"fmt"
	"math"
	"math/bits"
)

// MulDiv is floor(a*b/c), with the product in 128 bits. The operands are
// amounts, so a negative one, c <= 0, or a quotient beyond int64 is a broken
// invariant: it panics with the numbers.
func MulDiv(a, b, c int64) int64 {
	q, _ := MulDivRem(a, b, c)
	return q
}

// MulDivCeil is ceil(a*b/c): what somebody owes.
func MulDivCeil(a, b, c int64) int64 {
	q, r := MulDivRem(a, b, c)
	if r == 0 {
		return q
	}
	if q == math.MaxInt64 {
		panic(fmt.Sprintf("unit: %d * %d / %d, rounded up, is more than 64 bits", a, b, c))
	}
	return q + 1
}

// MulDivRem is the quotient and remainder of a*b by c: a*b = q*c + r with
// 0 <= r < c. A caller that keeps r loses nothing.
func MulDivRem(a, b, c int64) (q, r int64) {
	hi, lo := product(a, b, c)
	if hi >= uint64(c) {
		panic(fmt.Sprintf("unit: %d * %d / %d is more than 64 bits", a, b, c))
	}
	uq, ur := bits.Div64(hi, lo, uint64(c))
	if uq > math.MaxInt64 {
		panic(fmt.Sprintf("unit: %d * %d / %d is more than 63 bits", a, b, c))
	}
	return int64(uq), int64(ur)
}

// MulDivSat is MulDiv that stops at the largest int64 instead of panicking
// over a large quotient. It is for figures that a person typed or that bound
// something from above, never for money that changes hands.
func MulDivSat(a, b, c int64) int64 {
	hi, lo := product(a, b, c)
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(min(q, math.MaxInt64))
}

func product(a, b, c int64) (hi, lo uint64) {
	if a < 0 || b < 0 || c <= 0 {
		panic(fmt.Sprintf("unit: %d * %d / %d: negative operand or divisor below 1", a, b, c))
	}
	return bits.Mul64(uint64(a), uint64(b))
}

// At is the money that e costs at grid factor g, and what is left over in
// 1e-6 micro-$J (0 <= rest < 1,000,000). The caller carries rest; dropping it
// rounds down.
func (e Microjoules) At(g PPM) (c Credits, rest int64) {
	q, r := MulDivRem(int64(e), int64(g), int64(One))
	return Credits(q), r
}

// Over is the energy that power p is worth over t of core time (or of wall
// time, for a node's power), rounded down to the microjoule.
func (p Microwatts) Over(t CoreTime) Microjoules {
	return Microjoules(MulDiv(int64(p), int64(t), int64(CoreSecond)))
}

// Of is the fraction f of x, rounded down.
func (f PPM) Of(x int64) int64 {
	return MulDiv(x, int64(f), int64(One))
}
