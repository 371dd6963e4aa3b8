package demon

import (
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Config is what an operator decides about a market. The zero value of every
// field but Cores and Reference is useful.
type Config struct {
	Cores     unit.MilliCores // for sale at most
	Online    unit.MilliCores // cores the machine has; 0 = Cores
	Watts     unit.Microwatts // the market may burn at most this above idle; 0 = not limited
	Reference unit.Microwatts // dynamic power of an average busy core: the 1x of the price
	Idle      unit.Microwatts // idle power: of a model, or a first guess for a counter
	Sigma     unit.PPM        // 1-sigma of the energy source
	Modelled  bool            // the source is a model: every workload is in the node's e-class
	Floor     unit.PPM        // of supply, in total; negative = none, 0 = the default 2 %
	Epoch     time.Duration   // 0 = 50 ms up to 200 workloads, 100 ms above
	Duty      bool            // enforcement stops and goes (signal): what it did not deliver was not missing
	Landauer  price.Landauer
	Grid      unit.PPM  // grid factor to begin with: what GridSave of the process before gave; 0 = 1
	Journal   bool      // keep what is done for Entries and Saves; both must be called now and then
	Capacity  int       // most workloads alive at once; 0 = 16,384
	Seed      [2]uint64 // of the secret offsets
}

// Admission is a workload that asks to enter the market.
type Admission struct {
	Name      string           `json:"name"`
	Budget    unit.Credits     `json:"budget_ucredits"` // 0 = an open wallet: minted as used, never broke; or it draws from Wallet
	Wallet    string           `json:"wallet"`          // the standing wallet that pays; empty = the mint
	Bid       unit.Price       `json:"bid_xmilli"`      // multiple of the base price; 0 = 2x
	Auto      bool             `json:"auto"`            // the node bids
	MaxBid    unit.Price       `json:"max_bid_xmilli"`  // ceiling of Auto; 0 = 8x
	Rate      unit.Spend       `json:"rate_ucredits_per_s"`
	Horizon   time.Duration    `json:"horizon_ns"`
	Cores     unit.MilliCores  `json:"cores_milli"` // most cores it may use; 0 = all that are sold
	MaxEnergy unit.Microjoules `json:"max_energy_uj"`
	MaxCPU    unit.CoreTime    `json:"max_cpu_ns"`
	Memory    unit.Bytes       `json:"memory_bytes"` // for the warnings only: the kernel enforces it
	Pids      int64            `json:"pids"`         // likewise
	Timeout   time.Duration    `json:"timeout_ns"`
	Policy    apoptosis.Policy `json:"policy"`
	Income    unit.Credits     `json:"income_ucredits"` // per reported unit of work of kind Kind
	Kind      string           `json:"income_kind"`
	Enforce   Enforce          `json:"enforce"` // how far the market goes with it
}

// Usage is what the meter knows about one slot. Times are cumulative since
// admission, or since readoption.
type Usage struct {
	Run, Wait   unit.CoreTime
	Runnable    int32
	Populated   bool
	Stopped     bool // enforcement held it back for part of the interval (signal enforcement)
	PeakMemory  unit.Bytes
	Processes   int64
	OOMKills    uint64
	PidsRefused uint64
	Erased      unit.Bits // cumulative; meaningless unless HasErased
	HasErased   bool
}

// Tariff is what a source of the grid price says. The zero value is a source that
// says nothing.
type Tariff struct {
	Factor unit.PPM
	Until  unit.Instant // valid up to here
}

// Input is the world as one tick sees it.
type Input struct {
	Now     unit.Instant
	Reading physics.Reading
	Busy    unit.CoreTime // whole machine, cumulative
	System  unit.CoreTime // of which not governed, cumulative
	Grid    Tariff        // seen since the last tick
	Usage   []Usage       // by slot
}

// Share is one workload's standing in the coming epoch.
type Share struct {
	Slot       int32
	Allocation market.Allocation
	Demand     unit.CoreTime // metered in the epoch that ended
	Used       unit.CoreTime
	Neutral    bool // not enforced: leave it as the machine has it
}

// Action is something the node must do to one group, at once and in order.
type Action struct {
	Slot int32
	Kind ActionKind
}

// ActionKind enumerates what can be done to a group.
type ActionKind uint8

const (
	Freeze ActionKind = iota
	Thaw
	Term // dying lane: SIGTERM, lane quota, thaw
	Kill // whole tree
	Bury // the group is empty and paid for: remove it, then Release the slot
)

// EventKind enumerates what a person or a program may want to know.
type EventKind uint8

const (
	EventAdmitted EventKind = iota
	EventStarted
	EventWarned // Percent of What is gone
	EventBroke
	EventPaused
	EventFunded
	EventDying
	EventDead
	EventReadopted // taken back after a restart
	EventWouldStop // not enforced: it would have been stopped now
)

// Event is one line of a workload's life.
type Event struct {
	At      unit.Instant
	Slot    int32
	Kind    EventKind
	Percent int32            // EventWarned: 80 or 95
	What    apoptosis.Reason // EventWarned: which limit (Insolvent = the budget)
	Reason  apoptosis.Reason // EventBroke, EventDying, EventDead, EventWouldStop
	Left    time.Duration    // EventWarned: at this rate; EventBroke: of the grace
}

// Gate tells the node that a slot may exhaust something before the next tick:
// once it has run Allowance since the tick it must be frozen.
type Gate struct {
	Slot      int32
	Allowance unit.CoreTime
	Cores     unit.MilliCores // it can burn at most this many at once
	Soft      bool            // only its pacing is exhausted then: a little over is made up for
}

// Settlement is one wallet's line in the history of an epoch: enough, with
// the epoch's own line, for a second program to recompute the bill.
type Settlement struct {
	Slot    int32
	ID      uint64
	Bid     unit.Rate       // as ranked
	Reserve unit.Rate       // likewise
	Watts   unit.Microwatts // its e-class, likewise
	Score   market.Bucket
	Demand  unit.CoreTime // metered; priced as at most Cap, at least Used
	Cap     unit.CoreTime // most demand that its money and its pacing backed
	Used    unit.CoreTime
	Floor   unit.CoreTime
	Energy  unit.Microjoules
	Bill    price.Bill
}

// Decisions is everything a tick wants done. Its slices are reused by the
// next Step with the same value.
type Decisions struct {
	Epoch       time.Duration // until the next tick
	Shares      []Share
	Actions     []Action
	Events      []Event
	Gates       []Gate
	Settlements []Settlement
	Ended       Ended
}

// Ended describes the epoch that this tick settled.
type Ended struct {
	Epoch   uint64
	Length  time.Duration
	Supply  unit.CoreTime // for sale in its real length, floor included
	Watts   unit.Microwatts
	Unit    market.Unit // the commodity that was sold
	Grid    unit.PPM
	Base    unit.Rate
	Outcome market.Outcome
	Books   physics.Books
}

func (d *Decisions) reset() {
	d.Shares, d.Actions, d.Events = d.Shares[:0], d.Actions[:0], d.Events[:0]
	d.Gates, d.Settlements = d.Gates[:0], d.Settlements[:0]
}
