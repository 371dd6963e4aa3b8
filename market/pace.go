package market

import (
	"errors"
	"math/bits"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Round is what pacing knows when an epoch begins.
type Round struct {
	Now     unit.Instant
	Length  time.Duration
	Balance unit.Credits  // what the wallet may spend
	Demand  unit.CoreTime // forecast
	Reserve unit.Rate     // own
	Spot    unit.Rate
	Base    unit.Rate
	Cap     unit.Rate // highest bid allowed: --bid, or --max-bid of an auto bid
}

// MinHorizon is the shortest horizon that can be paced: a bid settles in about
// 100 epochs (5 s of 50 ms), so that anything shorter is all transient.
const MinHorizon = 5 * time.Second

// The refusals of NewAuto and NewPacer.
var (
	ErrShortHorizon = errors.New("horizon is below 5s, too short to pace")
	ErrNoPace       = errors.New("pacing needs a rate or a horizon")
)

// The gains and time constants of the pacing rule; see doc.go. Twice the gains
// collapse where many autos meet, a quarter of them is too slow for 200 of
// them or for bursts.
const (
	pacedCredit  = 2 * time.Second // most that a wallet can save up, in time
	dutyWindow   = 200             // epochs that the duty cycle averages over
	dutyLeast    = unit.One / 20
	gainSpending = 1638 // 1.6, in 1/1024 bucket
	gainLevel    = 410  // 0.4
	mostStep     = 8 * fineBucket
	fineBucket   = 1024          // steps of beta in a bucket
	mostBeta     = 6 * PerOctave // 64 times the base price
	fineCredit   = 1024          // steps of the token bucket in a micro-$J
	mostBalance  = unit.Credits(1 << 50)
	dutyOne      = int64(1) << 30
	costWeight   = 4 // the recent unit cost averages over about this many epochs
)

// pacing is the rule that Auto and Pacer share: a token bucket paces the
// quantity, and a price that follows spending and the level of the bucket
// paces the bid.
type pacing struct {
	end   unit.Instant // of the horizon, if timed
	timed bool
	rate  unit.Spend // 0 = as the budget lasts for the horizon

	begun    bool
	wanted   bool  // anything in the last epoch
	duty     int64 // share of epochs that want anything, of dutyOne
	tokens   int64 // A, in 1/1024 micro-$J; negative = overrun, to be made up for
	rho      int64 // tokens per wanting epoch, likewise
	credit   int64 // K, in 1/1024 epochs
	beta     int64 // 1/1024 bucket above the base price
	unitCost unit.Rate
	most     unit.CoreTime // the quantity of the epoch
	slack    unit.CoreTime // that it may be overrun by
}

func newPacing(now unit.Instant, rate unit.Spend, horizon time.Duration) (pacing, error) {
	switch {
	case rate <= 0 && horizon <= 0:
		return pacing{}, ErrNoPace
	case horizon > 0 && horizon < MinHorizon:
		return pacing{}, ErrShortHorizon
	}
	return pacing{
		end: now + unit.Instant(horizon), timed: horizon > 0, rate: max(0, rate),
		duty: dutyOne, wanted: true,
	}, nil
}

// End is when the horizon ends, if there is one.
func (p *pacing) End() (end unit.Instant, timed bool) { return p.end, p.timed }

// EndAt moves the end of the horizon: pacing that goes on after a restart has
// what is left of it, which may be less than could be asked for. It has no
// effect where there is no horizon.
func (p *pacing) EndAt(end unit.Instant) {
	if p.timed {
		p.end = end
	}
}

// next returns the bid and the quantity of the coming epoch.
func (p *pacing) next(r Round) (unit.Rate, unit.CoreTime) {
	if r.Length <= 0 || r.Base < 0 || r.Cap < 0 || r.Reserve < 0 || r.Demand < 0 {
		panicf("market: pace an epoch of %v at base %d, cap %d, reserve %d, demand %d",
			r.Length, r.Base, r.Cap, r.Reserve, r.Demand)
	}
	balance := int64(max(0, min(r.Balance, mostBalance))) * fineCredit
	p.allow(r, balance)
	level := unit.MulDivSat(p.credit, p.rho, 1024)
	if !p.begun {
		p.begun = true
		p.tokens = min(level/2, balance)
		p.beta = betaOf(r.Spot, r.Base) + fineBucket
		p.unitCost = r.Spot
	} else if p.wanted {
		p.tokens = min(p.tokens+p.rho, level)
	}
	p.tokens = min(p.tokens, balance)
	// Not below the own reserve, where nothing can be bought, and not above
	// the cap, from where it would take long to come back.
	least := max(fineBucket, betaOf(r.Reserve, r.Base)+fineBucket)
	p.beta = max(p.beta, min(least, mostBeta*fineBucket))
	p.beta = min(p.beta, max(fineBucket, min(betaOf(r.Cap, r.Base), mostBeta*fineBucket)))
	bid := min(rateAt(p.beta, r.Base), r.Cap)
	cost := max(r.Reserve, min(p.unitCost, bid), 1)
	p.most = unit.CoreTime(unit.MulDivSat(max(0, p.tokens), int64(unit.CoreSecond)/fineCredit, int64(cost)))
	p.slack = unit.CoreTime(unit.MulDivSat(min(level/2, (balance-min(level, balance))/4), int64(unit.CoreSecond)/fineCredit, int64(cost)))
	return bid, min(r.Demand, p.most)
}

// Slack is how far a run may go over the quantity of the last Bid before it has
// to be stopped: half of what the wallet can save up, and nothing near the end
// of its horizon, when it could not be made up for. The overrun is owed, and
// the next quantities are nothing until it is made up for. So spare time comes
// in runs as long as a second's pace instead of one run an epoch, each of which
// would have to be stopped and started.
func (p *pacing) Slack() unit.CoreTime { return p.slack }

// allow sets rho, the tokens of one wanting epoch, and the credit.
func (p *pacing) allow(r Round, balance int64) {
	duty := max(unit.MulDiv(p.duty, int64(unit.One), dutyOne), int64(dutyLeast))
	credit := max(1, int64(pacedCredit/r.Length))
	rho := int64(1 << 61)
	if p.timed {
		left := max(1, (int64(p.end-r.Now)+int64(r.Length)-1)/int64(r.Length))
		wanting := unit.MulDivCeil(left, duty, int64(unit.One))
		rho = unit.MulDivSat(balance, int64(unit.One), max(int64(unit.One), left*duty))
		credit = max(1, min(credit, wanting))
	}
	if p.rate > 0 {
		perEpoch := unit.MulDivSat(int64(p.rate), int64(r.Length)*fineCredit, int64(time.Second))
		rho = min(rho, unit.MulDivSat(perEpoch, int64(unit.One), duty))
	}
	p.rho, p.credit = rho, credit*1024
}

// settle learns what the epoch cost, how much was wanted and how much used.
func (p *pacing) settle(cost unit.Credits, wanted, used unit.CoreTime) {
	p.wanted = wanted > 0
	target := int64(0)
	if p.wanted {
		target = dutyOne
	}
	p.duty += (target - p.duty) / dutyWindow
	spent := int64(max(0, min(cost, mostBalance))) * fineCredit
	level := unit.MulDivSat(p.credit, p.rho, 1024)
	owed := p.tokens <= 0
	over := p.overrun(spent, used)
	p.tokens = max(-level, min(p.tokens, max(0, p.tokens-spent+over))-over)
	if used > 0 {
		paid := unit.Rate(unit.MulDivSat(int64(max(0, cost)), int64(unit.CoreSecond), int64(used)))
		p.unitCost += (paid - p.unitCost) / costWeight
	}
	if !p.wanted || p.rho == 0 {
		return
	}
	step := int64(gainSpending) - min(unit.MulDivSat(gainSpending, spent, p.rho), 2*mostStep)
	step += min(unit.MulDivSat(gainLevel, max(0, p.tokens), max(1, level)), gainLevel) - gainLevel/2
	step = max(-mostStep, min(step, mostStep))
	if step > 0 && (owed || wanted-used <= wanted/PerOctave) {
		return // its own pacing held it back, or more money could not have bought more
	}
	p.beta = max(fineBucket, min(p.beta+step, mostBeta*fineBucket))
}

// overrun is the part of spent that paid for use beyond the quantity. Only that
// is owed: that a core-second cost more than foreseen is not made up for, which
// would leave gaps where many pace against each other.
func (p *pacing) overrun(spent int64, used unit.CoreTime) int64 {
	if used <= p.most {
		return 0
	}
	return unit.MulDivSat(spent, int64(used-p.most), int64(used))
}

// betaOf is how far rate stands above base, in 1/1024 bucket; 0 below it.
func betaOf(rate, base unit.Rate) int64 {
	if base <= 0 || rate <= base {
		return 0
	}
	return int64(BucketOf(rate)-BucketOf(base)) * fineBucket
}

// rateAt is base times 2^(beta/64).
func rateAt(beta int64, base unit.Rate) unit.Rate {
	bucket := uint64(beta) / fineBucket
	octave := uint(bucket / PerOctave)
	k := bucket % PerOctave
	// Between two buckets the price goes in a straight line.
	from, to := bucketStart[k]>>10, bucketStart[k+1]>>10
	m := from + (to-from)*(uint64(beta)%fineBucket)/fineBucket
	hi, lo := bits.Mul64(m, uint64(base))
	// m is scaled to 2^52: shift right by 52 less the octave.
	shift := 52 - octave
	if hi>>shift != 0 {
		return huge
	}
	return unit.Rate(min(hi<<(64-shift)|lo>>shift, huge))
}

// Auto is the bid of a wallet that asked the node to bid for it: its budget
// lasts for its horizon and buys as much as it can meanwhile. It never
// bankrupts anybody before the horizon.
type Auto struct{ pacing }

// NewAuto begins to pace at now. Horizons below MinHorizon are refused.
func NewAuto(now unit.Instant, horizon time.Duration) (*Auto, error) {
	if horizon <= 0 {
		return nil, ErrNoPace
	}
	p, err := newPacing(now, 0, horizon)
	if err != nil {
		return nil, err
	}
	return &Auto{p}, nil
}

// Bid returns the bid and the demand with which to stand in the coming epoch.
func (a *Auto) Bid(r Round) (unit.Rate, unit.CoreTime) { return a.next(r) }

// Settle tells what the epoch cost, how much was wanted (metered demand, not
// the paced one) and how much was used.
func (a *Auto) Settle(cost unit.Credits, wanted, used unit.CoreTime) { a.settle(cost, wanted, used) }

// Pacer paces a fixed bid, given as Round.Cap, to a rate of spending or to the
// horizon of the budget. It bids below the cap when that suffices: a paced
// victim drops below a spiteful rival, who then wins, pays and goes broke.
type Pacer struct{ pacing }

// NewPacer begins to pace at now: at rate, or so that the balance lasts for
// the horizon, or at the lower of the two.
func NewPacer(now unit.Instant, rate unit.Spend, horizon time.Duration) (*Pacer, error) {
	p, err := newPacing(now, rate, horizon)
	if err != nil {
		return nil, err
	}
	return &Pacer{p}, nil
}

// Bid returns the bid and the demand with which to stand in the coming epoch.
func (p *Pacer) Bid(r Round) (unit.Rate, unit.CoreTime) { return p.next(r) }

// Settle tells what the epoch cost, how much was wanted (metered demand, not
// the paced one) and how much was used.
func (p *Pacer) Settle(cost unit.Credits, wanted, used unit.CoreTime) { p.settle(cost, wanted, used) }
