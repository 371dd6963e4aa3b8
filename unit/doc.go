// Package unit holds Maxwell's quantities: energy, power, money, price, heat,
// memory and core time, as integers whose types do not mix.
//
// # Problem
//
// A scheduler that sends bills can't use floating point (the parts would not
// sum to the whole) and can't use bare integers (a joule would be added to a
// $J, and both to a nanosecond). It also can't multiply two of its quantities
// in 64 bits: 64 cores for 50 ms at 1,000,000 $J per core-second is 3.2e18
// micro-$J, a third of an int64, before anything is divided.
//
// # Model
//
// Each quantity is an int64 in a fixed fraction of its unit; power is W, energy
// J, money $J, price x:
//
//	Microjoules   1e-6 J          Credits   1e-6 $J
//	Microwatts    1e-6 W          Rate      1e-6 $J per core-second
//	CoreTime      1e-9 core-s     Spend     1e-6 $J per second of wall time
//	Instant       1e-9 s          Price     1e-3 x, multiples of the base price
//	MilliCores    1e-3 core       PPM       1e-6
//	MilliCelsius  1e-3 C          Bytes, Bits
//
// Two products come up everywhere and need no conversion: a Rate times a
// CoreTime is nanocredits (1e-9 micro-$J), and energy in microjoules times a
// grid factor in PPM is 1e-6 micro-$J. Sums of such products are Wide (128
// bits), and one division at the end turns them into money.
//
// # Guarantees
//
//   - MulDiv, MulDivCeil and MulDivRem have exact 128-bit products and say in
//     their names which way they round. A result that does not fit, or a
//     negative operand, is a broken invariant and panics with the numbers:
//     wrong money is worse than no money. MulDivSat is for bounds only.
//   - Apportion splits a total so that the parts sum to it, rounds every part
//     to a neighbour of its exact share, and with a carry remembers what each
//     part is owed, so that rounding shorts nobody for long.
//   - String is exact and is read back by the Parse function of the same type
//     (negative amounts excepted: they are written but never accepted, except
//     for temperatures). Short is for people: about three digits, never read.
//   - Parse functions accept no sign, no NaN or infinity, no unknown unit, and
//     no amount beyond int64. Digits finer than the type are rounded down, but
//     an amount that is not zero never becomes zero. The error is one short
//     line that quotes the text and shows how the quantity is written, and
//     says what the text is if it is some other quantity.
//
// # What the caller must do
//
// Keep the remainders: whoever calls MulDivRem, At or Apportion in a loop has
// to carry what is left over. A job of 19 us per epoch at 0.5 W and a grid
// factor of 0.1 owes 0.95 micro-$J each time; rounded down each time, ten
// thousand such jobs take 3.8 cores and pay nothing.
//
// # Rejected
//
// Floats anywhere in money. big.Int (it allocates in the epoch loop; tests use
// it as the second implementation). Decimal suffixes for memory: 4G means what
// it means to Docker, 4 GiB, because a cap that is 7 % lower than expected
// kills. Short forms that parse: "1.9 GiB" is not the number it came from.
package unit
