// Package market is the order book of the processor: it ranks before an epoch
// and prices after it.
//
// # The problem
//
// Who runs in the next 50 ms, and what does it cost? The answer must make it
// pointless to lie about what a core-second is worth, to appear under many
// names, to declare demand one has not, to sleep on capacity, or to grind ids;
// and it must cost less than 0.2 % of a core for 10,000 bidders.
//
// # The model: Thermal Vickrey
//
// Wallet i bids b_i per core-second. Its reserve r_i is what a core-second
// costs in energy (e-class times grid factor), its score is b_i - r_i, or
// (b_i - r_i)/e_i per joule in epochs that sell watts. Scores live on a ladder
// of 4,096 logarithmic buckets, 64 an octave.
//
// Before an epoch (Market.Rank) the floor is taken out of supply, every demand
// is cut to what its wallet backs,
//
//	q_i <= balance_i / max(r_i, min(b_i, 2*last spot))
//
// and supply is given away from the best bucket down. All above the marginal
// bucket are served in full; the marginal bucket is shared pro rata of q by
// systematic rounding. Rank gives an order and caps, not a reservation: time
// that somebody leaves goes to the next score.
//
// After it (Market.Price), with q_i the metered demand, x_i the metered use
// (both above the floor) and S the supply if all demand fits in it, else the
// part of it that was really delivered,
//
//	rent_i = min( score_i * x_i,  area over [S-x_i, S) under D(others) )
//
// where D(others) is the others' demand sorted by score. This is what those
// units were worth to whoever would have had them. Energy is billed beside it,
// as metered, in full (package price).
//
//	spot = base price + score of the first unit of demand that did not fit
//
// The floor is 2 % of supply in total. Wallets stand around a circle, each
// with an arc as long as its deposit, and slices of at least 1 ms go round in
// steps of the golden ratio: exact shares in the long run, no wait longer than
// about three rounds, and no advantage in splitting an arc. Everybody who
// showed demand in the last epoch, is solvent and bids at least its reserve
// takes part, won or lost.
//
// # Guarantees, with their exact bounds on this integer mechanism
//
// Each line is a test of the same name, on the whole mechanism.
//
//	P1  No time or watt is sold twice; nobody gets more than q_i.
//	P2  rent_i <= (b_i - r_i)*x_i with r_i the class reserve. With metered
//	    reserve m_i the whole payment is at most (b_i + max(0, m_i-r_i))*x_i:
//	    where the class is the metered value (every modelled source) nobody
//	    pays above its bid. Cutting the rent so that this held for any m_i
//	    would let a workload that is ranked cool and runs hot shade its bid
//	    at a profit (TestAttackCoolWhileLosing).
//	P3  rent_i >= 0, so everybody pays at least its energy.
//	P4  No lie about bid or demand pays, to within 1 ns of core time for each
//	    participant, on values that lie on bucket floors; on others it gains
//	    less than 1.1 % of the score times the demand. Leakage m of the kernel
//	    adds at most m times value (Outcome.Misdelivered measures m).
//	    Not claimed while two limits bind at once (watts in an epoch that sells
//	    cores; UnitChooser ends that after three epochs), nor for wallets that
//	    bind, nor over time.
//	P5  No split into names pays, likewise. The floor does so on average over
//	    the rotation; in one epoch names differ by whole slices.
//	P6  Raising a bid lowers the allocation by at most one granule (1 us, of
//	    systematic rounding in another bucket), unless the wallet binds; where
//	    watts cut core sales, by at most one granule for each order at the
//	    margin.
//	P7  Equal orders differ by at most one granule above the floor, and by one
//	    wallet's slices of the floor.
//	P8  The order of submission changes nothing.
//	P9  A payment exceeds the balance only by rent, and only as far as the
//	    price rose above twice the last spot. The caller writes that off or
//	    takes it from the deposit.
//	P11 At least 98.9 % of the best possible welfare, given the floor.
//	P12 Same configuration and calls, same results.
//
// Not claimed: truthful over time or with budgets, optimal under two limits at
// once, collusion-proof, spite-proof. Against spite there is pacing.
//
// # Pacing
//
// Auto and Pacer share one rule, in integers. With rem epochs left to the
// horizon, duty the slow average (200 epochs) of "wanted anything", c the cost
// of the epoch:
//
//	rho   = balance / (rem*max(duty, 0.05))         or the rate, per wanting epoch
//	K     = min(2 s, rem*duty)                      credit, in epochs
//	A     = min(A + rho, K*rho, balance)            in epochs with demand
//	q     = min(demand, A / max(r, min(own recent unit cost, b)))
//	beta += clamp(1.6*(1 - c/rho) + 0.4*(A/(K*rho) - 1/2), -8, +8)
//	b     = base * 2^(beta/64), from 1 bucket above max(base, r) to the cap, at most 64x
//
// A is owed where spare time let a wallet run over q, as it may by Slack: then q
// is nothing until the pace has caught up. A rise is dropped if everything wanted
// was delivered, or while A is owed. Over nine populations
// (TestAutoPopulations) 97-100 % of the money is spent at the horizon and every
// wallet is within 5 % of its budget, except where the bid stands at 64x.
//
// # What the caller must do
//
// Keep ids unique, and hand orders in order of id where it can (else each
// epoch pays for a sort). Draw Epoch.Offset uniformly and secretly, after the
// bids are in. Weigh the floor by a deposit that the bid cannot change; wallets
// without a deposit have no floor. Meter demand by integrating run and
// runnable-waiting time over the epoch, never from use alone, cut to
// Allocation.Cap and to the paced quantity. Choose the unit by UnitChooser.
// Print Misdelivered: P4 is only as good as delivery.
//
// # Rejected
//
// Second price on the next bid and uniform prices are manipulable in 18-59 %
// of random markets. Rent on the grant instead of the use bills sleepers;
// leftovers at the reserve make shading below the winners pay; demand taken
// from use empties the losing curve; a lottery among equals, a floor per head
// or by age, and shares by id pay splitters; a wallet cap at the own bid makes
// a high bid immortal and lowers its own allocation. A sorted tree instead of
// the ladder costs ten times as much and buys precision below the meters'.
package market
