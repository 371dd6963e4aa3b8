// Package market is the order book of the processor: it ranks before an epoch
// and prices after it.
package market

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Unit is the commodity of an epoch.
type Unit uint8

// The two commodities. Which one is in force is chosen from previous epochs
// only (UnitChooser), so that no bid of this epoch can move it.
const (
	Cores Unit = iota
	Watts
)

// Order is one wallet's standing in the coming epoch: its bid (already paced)
// and its forecast demand.
type Order struct {
	ID      uint64          // canonical order among equal scores
	Bid     unit.Rate       // b_i
	Reserve unit.Rate       // r_i: class reserve (e-class x grid factor)
	Energy  unit.Microwatts // e_i: class watts per core
	Demand  unit.CoreTime   // q_i forecast, already cut to cores x epoch
	Balance unit.Credits    // what the wallet may spend, deposit excluded
	Deposit unit.Credits    // locked; weighs the floor
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

const (
	Idle   Class = iota // nothing asked for
	Served              // whole demand
	Margin              // the rationed bucket
	Loser               // outbid; Tier says how far
	Frozen              // insolvent, or the bid is below its own reserve
)

// Refusal says why an order got less than it asked for.
type Refusal uint8

const (
	NotRefused   Refusal = iota
	Outbid               // score below the margin
	Rationed             // shares the marginal bucket
	WalletBinds          // cut to what the balance buys
	BelowReserve         // bid < own reserve
	Insolvent
	NoDemand
)

// Allocation is one order's share of the coming epoch.
type Allocation struct {
	Time    unit.CoreTime // granted, floor included
	Floor   unit.CoreTime // of which from the floor
	Score   Bucket        // rank: bucket of (b_i - r_i)
	Class   Class
	Tier    uint8 // 0..3 for losers: 0 is nearest to the margin
	Refusal Refusal
}

// Bucket is an index on the log-scale price ladder: 64 buckets an octave.
type Bucket int32

// Use is what one wallet did in the epoch that just ended.
type Use struct {
	ID     uint64
	Score  Bucket          // as ranked
	Energy unit.Microwatts // class watts per core, as ranked (Watts unit only)
	Demand unit.CoreTime   // metered: run + runnable waiting, capped; as when stopped if Maxwell stopped it
	Used   unit.CoreTime   // metered run
	Floor  unit.CoreTime   // floor granted; the first units used are floor units
}

// Outcome is what an epoch's prices came to.
type Outcome struct {
	Marginal     Bucket        // best losing score; 0 when nobody lost
	Spot         unit.Rate     // base + marginal losing score
	Demand       unit.CoreTime // total metered demand
	Used         unit.CoreTime // total metered use
	Misdelivered unit.CoreTime // time delivered out of score order
}
