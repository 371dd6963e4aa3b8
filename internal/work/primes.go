package work

import (
	"math/bits"
)

// PrimeBatch is the kind under which the prime finder reports.
const PrimeBatch = "prime-batch"

// Sizes of the sieve. span is what one batch covers; piece is what one pass of
// the sieve holds, odd numbers only, one bit each: 32 KiB.
const (
	first    = 1_000_000_000_000
	span     = 1 << 20
	piece    = 1 << 19
	words    = piece / 2 / 64
	passes   = span / piece
	lastBase = 1_100_000 // squared, 2.1e11 above first: 200,000 batches
	lastOdd  = lastBase*lastBase - span
)

// Primes is a segmented sieve of Eratosthenes that goes up from 10^12.
type Primes struct {
	base []uint32 // odd primes up to lastBase
	next []uint32 // per base prime: index of its next odd multiple, from the piece's first odd number
	bits [words]uint64
	low  uint64 // first number of the coming piece; even
	sum  uint64
}

// NewPrimes prepares the base primes. It takes a few milliseconds, once.
func NewPrimes() *Primes {
	p := &Primes{base: basePrimes(lastBase)}
	p.next = make([]uint32, len(p.base))
	p.rewind()
	return p
}

// basePrimes are the odd primes up to limit.
func basePrimes(limit int) []uint32 {
	composite := make([]bool, limit+1)
	var out []uint32
	for n := 3; n <= limit; n += 2 {
		if composite[n] {
			continue
		}
		out = append(out, uint32(n))
		for m := n * n; m <= limit; m += 2 * n {
			composite[m] = true
		}
	}
	return out
}

// rewind starts again at the first number: after 200,000 batches the base
// primes would no longer suffice.
func (p *Primes) rewind() {
	p.low = first
	for i, prime := range p.base {
		q := uint64(prime)
		multiple := (p.low + q - 1) / q * q
		if multiple%2 == 0 {
			multiple += q
		}
		p.next[i] = uint32((multiple - p.low) / 2) // the odd number low+1+2k has index k
	}
}

// Unit does one batch and returns how many primes it held.
func (p *Primes) Unit() int {
	if p.low > lastOdd {
		p.rewind()
	}
	found := 0
	for range passes {
		found += p.sieve()
	}
	p.sum += uint64(found)
	return found
}

// Found is the number of primes found so far.
func (p *Primes) Found() uint64 { return p.sum }

// sieve crosses out one piece and counts what is left.
func (p *Primes) sieve() int {
	clear(p.bits[:])
	const odds = piece / 2
	for i, prime := range p.base {
		k := p.next[i]
		for k < odds {
			p.bits[k/64] |= 1 << (k % 64)
			k += prime
		}
		p.next[i] = k - odds
	}
	p.low += piece
	left := odds
	for _, w := range p.bits {
		left -= bits.OnesCount64(w)
	}
	return left
}
