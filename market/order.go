package market

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Order is one wallet's standing in the coming epoch: its bid (already paced)
// and its forecast demand.
type Order struct {
	ID      uint64          // unique; canonical order among equal scores
	Bid     unit.Rate       // b_i
	Reserve unit.Rate       // r_i: class reserve (e-class x grid factor)
	Energy  unit.Microwatts // e_i: class watts per core
	Demand  unit.CoreTime   // q_i forecast, already cut to cores x epoch
	Balance unit.Credits    // what the wallet may spend, deposit excluded
	// Deposit weighs the floor. It must be an amount that the bid cannot
	// change (the energy part of the locked deposit), or a high bid would buy
	// floor that it never pays for.
	Deposit unit.Credits
	Solvent bool
}

// Epoch is what the node offers in one round of the market.
type Epoch struct {
	Length time.Duration
	Cores  unit.CoreTime   // supply in core time (system share already taken off)
	Watts  unit.Microwatts // allowance for sold watts; 0 = not limited
	Unit   Unit
	Floor  unit.PPM  // of supply, in total; default 20,000
	Spot   unit.Rate // last spot
	Base   unit.Rate // 1x
	Offset uint64    // secret uniform draw of this epoch
}

// Class is how enforcement has to treat an allocation (DESIGN section 7).
type Class uint8

// The classes, in the order in which the processor should serve them.
const (
	Idle   Class = iota // nothing asked for
	Served              // whole demand
	Margin              // the rationed bucket
	Loser               // outbid; Tier says how far
	Frozen              // insolvent, or the bid is below its own reserve
)

// Refusal says why an order got less than it asked for.
type Refusal uint8

// The refusals. When two apply, the one that would have to change first is
// given: insolvency before the reserve, the reserve before the demand, the
// market before the wallet.
const (
	NotRefused   Refusal = iota
	Outbid               // score below the margin
	Rationed             // shares the marginal bucket
	WalletBinds          // cut to what the balance buys
	BelowReserve         // bid < own reserve
	Insolvent
	NoDemand
)

// String names the class.
func (c Class) String() string {
	names := [...]string{"idle", "served", "margin", "loser", "frozen"}
	if int(c) >= len(names) {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return names[c]
}

// String names the refusal.
func (r Refusal) String() string {
	names := [...]string{"none", "outbid", "rationed", "wallet binds", "below reserve", "insolvent", "no demand"}
	if int(r) >= len(names) {
		return fmt.Sprintf("refusal(%d)", uint8(r))
	}
	return names[r]
}

// Tiers is how many loser classes enforcement is asked to tell apart. Weights
// of a cgroup span about five orders of magnitude and neighbours need a ratio
// of 32 to matter, so a total order of losers does not exist there.
const Tiers = 4

// NoCap is the Cap of a wallet that can pay for more than there is.
const NoCap = unit.CoreTime(huge)

// Allocation is one order's share of the coming epoch.
type Allocation struct {
	Time    unit.CoreTime // granted, floor included
	Floor   unit.CoreTime // of it at the reserve: the first units used; may exceed Time
	Cap     unit.CoreTime // demand that the wallet backs, NoCap if it does not bind
	Score   Bucket        // rank: bucket of (b_i - r_i), per joule in Watts
	Class   Class
	Tier    uint8 // 0..3 for losers: 0 is nearest to the margin
	Refusal Refusal
}

// floorTime is the part of Time that is floor.
func (a *Allocation) floorTime() unit.CoreTime { return min(a.Floor, a.Time) }

// Use is what one wallet did in the epoch that just ended.
type Use struct {
	ID     uint64
	Score  Bucket          // as ranked
	Energy unit.Microwatts // class watts per core, as ranked (used where watts are limited)
	// Demand is metered: run + runnable waiting, at most cores x epoch and at
	// most Allocation.Cap (but never less than Used): others are not priced
	// against demand that nobody can pay for. As when stopped, if Maxwell
	// stopped it for its price; no more than Used, if it is not in the market.
	Demand unit.CoreTime
	Used   unit.CoreTime // metered run
	Floor  unit.CoreTime // floor granted; the first units used are floor units
}

// Outcome is what an epoch's prices came to.
type Outcome struct {
	Marginal     Bucket        // best losing score; 0 when nobody lost
	Spot         unit.Rate     // base + marginal losing score
	Demand       unit.CoreTime // total metered demand
	Used         unit.CoreTime // total metered use
	Misdelivered unit.CoreTime // time delivered out of score order
}

// panicf reports a broken invariant with its numbers.
func panicf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
