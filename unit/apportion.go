package unit

import (
	"fmt"
	"math"
	"math/bits"
)

// CarryUnit is the denominator of Apportion's carried remainders: a carry of
// CarryUnit is one whole unit of the total.
const CarryUnit = 1_000_000_000

// Apportion splits total over weights into out, exactly: the parts sum to the
// total, and part i is total*w_i/sum(w) rounded down or up (largest remainder).
// It reports false, with out all zero, if no weight is positive.
//
// carry, if not nil, remembers from call to call what each index is owed (+)
// or has had too much (-), in 1/CarryUnit; it is updated in place. The units
// that rounding leaves over go to the greatest (remainder + carry), so that
// over many calls no index is shorted by its place or its size; ties go by
// index. An index with weight 0 receives nothing and keeps its carry. The
// carries sum to what they summed to before, so they stay near zero as long as
// whoever removes an index moves its carry to another one.
//
// Apportion allocates nothing. Negative weights, a negative total, slices of
// different lengths or a sum of weights beyond int64 are broken invariants and
// panic.
func Apportion(total int64, weights, carry, out []int64) bool {
	if len(out) != len(weights) || carry != nil && len(carry) != len(weights) {
		panic(fmt.Sprintf("unit: apportion %d weights, %d carries, %d parts", len(weights), len(carry), len(out)))
	}
	if total < 0 {
		panic(fmt.Sprintf("unit: apportion a negative total %d", total))
	}
	sum := sumOf(weights)
	if sum == 0 {
		clear(out)
		return false
	}
	if carry == nil {
		apportionFresh(total, sum, weights, out)
	} else {
		apportionCarried(total, sum, weights, carry, out)
	}
	return true
}

func sumOf(weights []int64) int64 {
	sum := int64(0)
	for i, w := range weights {
		if w < 0 || sum > math.MaxInt64-w {
			panic(fmt.Sprintf("unit: apportion: weight %d is %d, sum so far %d", i, w, sum))
		}
		sum += w
	}
	return sum
}

// apportionFresh ranks the exact remainders. It keeps them in out for the time
// of the ranking, and computes the quotients twice rather than ask for scratch.
func apportionFresh(total, sum int64, weights, out []int64) {
	left := total
	for i, w := range weights {
		q, r := MulDivRem(total, w, sum)
		left -= q
		out[i] = r
	}
	cut := threshold(out, weights, left)
	for i, w := range weights {
		extra := cut.take(out[i], w)
		out[i] = MulDiv(total, w, sum) + extra
	}
}

// apportionCarried ranks remainder + carry, kept in carry.
func apportionCarried(total, sum int64, weights, carry, out []int64) {
	left, nano := total, int64(0)
	for i, w := range weights {
		q, r := MulDivRem(total, w, sum)
		f := MulDiv(r, CarryUnit, sum)
		out[i] = q
		carry[i] += f
		left -= q
		nano += f
	}
	// The fractions sum to left whole units; what rounding them down to 1e-9
	// units lost (less than 1e-9 for each index) goes to the first indices, so
	// that the carries keep their sum.
	for i := 0; nano < left*CarryUnit; i++ {
		if weights[i] > 0 {
			carry[i]++
			nano++
		}
	}
	cut := threshold(carry, weights, left)
	for i, w := range weights {
		extra := cut.take(carry[i], w)
		out[i] += extra
		carry[i] -= extra * CarryUnit
	}
}

// cutoff hands one unit to every value above at, and to the first ties values
// equal to it.
type cutoff struct {
	at   int64
	ties int64
}

func (c *cutoff) take(value, weight int64) int64 {
	if weight == 0 || value < c.at {
		return 0
	}
	if value > c.at {
		return 1
	}
	if c.ties == 0 {
		return 0
	}
	c.ties--
	return 1
}

// threshold finds the count-th greatest value among the indices of positive
// weight, by radix selection: at most eight passes, no allocation.
func threshold(values, weights []int64, count int64) cutoff {
	if count == 0 {
		return cutoff{at: math.MaxInt64}
	}
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for i, v := range values {
		if weights[i] > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	// prefix is the part of the answer's offset above low that is known; shift
	// is the place of the next digit.
	width := bits.Len64(uint64(high) - uint64(low))
	prefix := uint64(0)
	for shift := max(0, (width-1)/8*8); ; shift -= 8 {
		var bins [256]int64
		for i, v := range values {
			if weights[i] == 0 {
				continue
			}
			offset := uint64(v) - uint64(low)
			if offset>>(shift+8) == prefix {
				bins[offset>>shift&255]++
			}
		}
		digit := 255
		for ; count > bins[digit]; digit-- {
			count -= bins[digit]
		}
		prefix = prefix<<8 | uint64(digit)
		if shift == 0 {
			return cutoff{at: int64(uint64(low) + prefix), ties: count}
		}
	}
}
