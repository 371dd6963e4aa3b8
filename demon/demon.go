package demon

import (
	"math/rand/v2"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Epoch lengths and the size of the market at which they change (DESIGN
// section 2): shorter epochs answer faster, longer ones cost less.
const (
	ShortEpoch   = 50 * time.Millisecond
	LongEpoch    = 100 * time.Millisecond
	ShortUpTo    = 200
	defaultFloor = 20_000 // 2 %
	defaultBid   = UsualBid
	defaultMax   = HighestAuto
	postEvery    = time.Second
)

// Bids of those who do not say.
const (
	UsualBid    = unit.Price(2000) // 2x
	HighestAuto = unit.Price(8000) // 8x, the ceiling of --bid auto
	// MostBid is the highest that a market takes. Two that bid against each other pay
	// each other's bids, and an open wallet has what it pays minted: raised, some of
	// those use up sooner all the money that a market can hold (see mostMoney; at 1000x
	// on 64 cores of 10 W, 40 days).
	MostBid = unit.Price(1_000_000) // 1000x
)

// autoHorizon is how long a budget is to last where nobody says.
const autoHorizon = time.Hour

// workload is one wallet and what it has done. Times and sums are cumulative.
type workload struct {
	slot int32
	id   uint64
	ask  Admission

	floorWeight unit.Credits // the energy part of its deposit: no bid can buy floor

	purse purse
	life  apoptosis.Machine
	carry price.Carry
	class market.EClass
	pacer *market.Pacer // nil: the bid stands as given
	auto  *market.Auto  // nil: not --bid auto

	bid      unit.Rate     // as ranked
	quantity unit.CoreTime // most it may use this epoch by its pacing; negative = not paced
	slack    unit.CoreTime // how far it may go over that
	reserve  unit.Rate
	watts    unit.Microwatts // class e_i as ranked
	last     market.Allocation

	run, wait unit.CoreTime // at the last tick
	ran       unit.CoreTime // in the epoch that ended
	waited    unit.CoreTime // likewise, runnable
	wanted    unit.CoreTime // metered demand of the epoch that ended
	desire    unit.PPM      // demand over elapsed when it last was free to show it
	energy    unit.Microjoules
	erased    unit.Bits
	hasErased bool
	laneFrom  unit.CoreTime // run when the dying lane opened
	paid      price.Bill    // of the last epoch
	unitPrice unit.Rate     // what a core-second cost it when it last ran
	unitGrid  unit.PPM      // grid factor of then

	usage    Usage
	work     int64
	admitted unit.Instant
	ended    unit.Instant
	started  bool
	gone     bool // the main process ended
	killed   bool // ... by a foreign signal
	trip     apoptosis.Reason
	frozen   bool // what enforcement was last told
	halted   bool // by the life of the workload: broke or paused
	saving   bool // paced, and what it may use is not worth a start
	starved  bool // its bid is below its own reserve
	asleep   bool // suspended by its owner (^Z)
	dying    bool
	dead     bool
	warned   [4]int32 // highest warning given, per limit

	base      base         // what it had used when this process took it over
	readopted Readopted    // gaps that were billed to it
	would     WouldHave    // not enforced: been stopped
	saved     *Saved       // newest, if there is a journal
	parched   unit.Instant // since when it is broke and draws nothing; 0 = it is not
	served    unit.Instant // when it last drew from its wallet
	short     unit.Credits // while those who draw are served: what it lacks
	round     uint64       // of Saves in which it was last saved
	queued    int          // its place there
	touched   bool         // in the demon's touched
}

// base is what a readopted workload had used before: the meter starts anew.
type base struct {
	run, wait unit.CoreTime
	erased    unit.Bits
}

// Demon is one node's market between two ticks. It is not safe for
// concurrent use.
type Demon struct {
	cfg    Config
	rng    *rand.Rand
	market *market.Market
	book   *ledger.Ledger
	split  *physics.Attributor
	idle   *physics.Baseline
	units  market.UnitChooser
	money  bookkeeper

	slots []*workload // nil = free
	free  []int32
	names map[string]int32

	wallets  map[string]*standing // by name
	standing []*standing          // in order of opening
	closed   map[string]closed    // standing wallets that were, by name
	active   []int32              // occupied slots in order of admission
	dead     []Line               // statements of the buried, oldest first, at most keepDead
	nextID   uint64

	epoch    uint64
	length   time.Duration // of the epoch that is running
	now      unit.Instant
	reading  physics.Reading
	busy     unit.CoreTime
	system   unit.CoreTime
	others   unit.CoreTime // what the system used in the epoch that ended
	elapsed  time.Duration // how long that epoch really was
	tariff   price.Grid
	grid     unit.PPM // factor in force, until the sensor's window ends
	edge     bool     // a window ended in the epoch that ended
	spot     unit.Rate
	marginal market.Bucket
	supply   unit.CoreTime // for sale in the epoch that is running
	share    unit.PPM      // of the configured cores that the market really gets
	unitNow  market.Unit
	totals   physics.Books
	books    physics.Books // of the epoch that ended
	delivery delivery
	posted   unit.Instant
	refilled unit.Instant

	touched   []int32          // slots that a caller changed since the last PostTouched
	saves     []Saved          // of this round of Saves
	round     uint64           // of Saves
	gridKept  unit.PPM         // factor that was last to be handed over
	gridSave  unit.PPM         // for the next GridSave; 0 = none
	resumed   bool             // the books are older than this process, and nobody asked for all of them yet
	inherited unit.Microjoules // what readopted workloads had burnt before
	gaps      unit.Microjoules // what they burnt while no daemon was there, modelled

	scratch scratch
	events  []Event // raised between ticks
}

// delivery sums what was sold and how much of it out of score order.
type delivery struct {
	used, misdelivered unit.CoreTime
}

// scratch is reused by every tick, so that a steady market allocates nothing.
type scratch struct {
	orders []market.Order
	allocs []market.Allocation
	index  []int32
	uses   []market.Use
	rents  []unit.Wide
	used   []unit.CoreTime    // by slot
	joules []unit.Microjoules // by slot

	thirsty []int32
}

// New returns an empty market that starts at now.
func New(cfg Config, now unit.Instant) *Demon {
	d := newDemon(cfg, now)
	d.money = newBookkeeper(d.book, d.rng.Uint64(), cfg.Journal)
	return d
}

// newDemon returns a market without a bookkeeper.
func newDemon(cfg Config, now unit.Instant) *Demon {
	if cfg.Cores <= 0 || cfg.Reference <= 0 {
		panic("demon: a market needs cores and a reference power")
	}
	if cfg.Capacity == 0 {
		cfg.Capacity = 16_384
	}
	switch {
	case cfg.Floor < 0:
		cfg.Floor = 0
	case cfg.Floor == 0:
		cfg.Floor = defaultFloor
	}
	d := &Demon{
		cfg:    cfg,
		rng:    rand.New(rand.NewPCG(cfg.Seed[0], cfg.Seed[1])),
		market: market.New(market.Config{}),
		book:   ledger.New(ledger.Config{}),
		split:  physics.NewAttributor(),
		idle:   physics.NewBaseline(),
		now:    now,
		tariff: price.GridFrom(now, cfg.Grid),
		share:  unit.One,
		names:  make(map[string]int32),
		posted: now, refilled: now,
		round: 1,
	}
	if !cfg.Modelled {
		// What idle costs until the machine was seen at rest, and how little
		// counts as rest: a percent of the cores.
		d.idle.Prior, d.idle.Quiet = cfg.Idle, max(cfg.Online, cfg.Cores)/100
	}
	d.grid = d.tariff.Factor(now)
	d.gridKept = d.grid
	d.length = d.epochLength()
	d.spot = d.base()
	d.supply = d.configured(d.length)
	return d
}

// Step settles the epoch that ended at in.Now and ranks the next one.
// It panics when an invariant is broken.
func (d *Demon) Step(in *Input, out *Decisions) {
	out.reset()
	elapsed := time.Duration(in.Now - d.now)
	if elapsed <= 0 {
		panic("demon: a tick must be later than the one before it")
	}
	if d.resumed {
		d.closeUnclaimed()
	}
	d.epoch++
	d.measure(in, elapsed)
	outcome := d.price(elapsed)
	d.charge(out)
	out.Ended = Ended{
		Epoch: d.epoch, Length: elapsed, Supply: d.delivered(elapsed), Watts: d.cfg.Watts, Unit: d.unitNow,
		Grid: d.grid, Base: d.base(), Outcome: outcome, Books: d.books,
	}
	d.now = in.Now
	d.regrid(in)
	d.quote(outcome, elapsed)
	d.quench()
	d.decide(out)
	if time.Duration(in.Now-d.refilled) >= refillEvery {
		d.refillAll(in.Now)
		d.refilled = in.Now
	}
	if time.Duration(in.Now-d.posted) >= postEvery {
		d.postAll()
		d.posted = in.Now
	}
	d.length = d.epochLength()
	d.supply = d.offer(d.length)
	d.rank(out)
	d.gates(out)
	out.Events = append(out.Events, d.events...)
	d.events = d.events[:0]
	out.Epoch = d.length
}

// regrid takes what was seen of the grid price and, where a window of the sensor
// ended, puts the factor of now in force: the energy of one reading has one price.
// The spot keeps its multiple of the base, as bids do.
func (d *Demon) regrid(in *Input) {
	d.tariff.Observe(in.Now, in.Grid.Factor, in.Grid.Until)
	if !d.edge {
		return
	}
	before := d.base()
	d.grid = d.tariff.Factor(in.Now)
	d.spot = unit.Rate(unit.MulDivSat(int64(d.spot), int64(d.base()), int64(before)))
}

// epochLength is 50 ms for a small market and 100 ms for a large one.
func (d *Demon) epochLength() time.Duration {
	switch {
	case d.cfg.Epoch > 0:
		return d.cfg.Epoch
	case len(d.active) <= ShortUpTo:
		return ShortEpoch
	}
	return LongEpoch
}

// base is 1x in micro-$J per core-second, at the grid factor in force.
func (d *Demon) base() unit.Rate { return price.Base(d.cfg.Reference, d.grid) }

// Spot returns what the next core-second costs.
func (d *Demon) Spot() unit.Rate { return d.spot }

// BaseRate returns 1x in micro-$J per core-second.
func (d *Demon) BaseRate() unit.Rate { return d.base() }

// Alive returns how many workloads hold a slot.
func (d *Demon) Alive() int { return len(d.active) }

func (d *Demon) at(slot int32) *workload {
	if slot < 0 || int(slot) >= len(d.slots) {
		return nil
	}
	return d.slots[slot]
}

func (d *Demon) raise(w *workload, e Event) {
	e.At, e.Slot = d.now, w.slot
	d.events = append(d.events, e)
}
