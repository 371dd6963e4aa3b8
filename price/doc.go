// Package price turns energy, scarcity and erased information into money, and
// says what a node has to sell and what it costs.
//
// # Problem
//
// A bill has to be exact, to be explained part by part, and to be recomputed by
// somebody else from the same inputs. It is made of quantities twelve orders of
// magnitude apart: 0.95 micro-$J of energy for 19 us of a cool job, and 1e-5
// micro-$J for one erased bit. Rounding any of them each epoch gives work away
// or charges for nothing.
//
// # Model
//
// Cost is the core equation and the only way to a debit:
//
//	Cost = Cycles * Current_Grid_Price + Memory_Freed * Landauer_Constant
//	     = E * g  +  rent  +  bits * (kT ln 2 * multiplier)
//
// E is attributed energy, g the grid factor of the settlement window (Grid),
// rent the area under the losing bids that the market computed, and the last
// term the tax of Landauer.
//
// Grid keeps g within [0.1x, 10x], moves it by at most 10 % a minute, and lets
// it return to 1 when its source has gone stale.
//
// Base is 1x, the price of an average core-second with nobody competing:
//
//	base = reference watts per core (idle subtracted) * g
//
// Absolute and Multiple go between x and micro-$J per core-second. Offer is what
// an epoch can sell, and Deposit what a workload locks for its own death.
//
// # Guarantees
//
//   - The parts of a Bill sum to its total, and over the life of a wallet each
//     part, after Flush, is the exact sum of what was owed rounded up once.
//   - A price of zero is a price: energy at g = 0 costs nothing and is still
//     metered and attributed.
//   - Amounts that can't be (negative, or beyond int64) panic with the numbers
//     and leave the carry unchanged.
//   - Cost, Grid.Factor, Offer and Deposit do not allocate.
//
// # What the caller must do
//
// Keep one Carry for each wallet, Flush it at death and post the result. Take g
// once per settlement window. Print Landauer's multiplier wherever the tax is
// printed: physics alone asks 2.9e-21 J per bit, which is nothing, and the
// default of 10 pJ per bit is a policy, calibrated to what DRAM spends.
//
// # Rejected
//
//   - Rounding every bill up: 20 epochs a second overcharge a wallet by 20
//     micro-$J a second for each part, most for those who use least.
//   - Rounding every bill down: ten thousand wallets of 19 us at 0.5 W and
//     g = 0.1 then take 3.8 cores and pay nothing.
//   - Applying g to erasure: the tax is policy, and a tariff for electricity
//     should not change it.
//   - Capping energy at the bid: a job that bids low and runs hot would be
//     paid for by the others.
package price
