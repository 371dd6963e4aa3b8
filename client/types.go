package client

import (
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Price is what core time costs on this machine now.
type Price struct {
	Base unit.Rate  // 1x, in micro-$J per core-second
	Spot unit.Price // what the next core-second costs, as a multiple of Base
	Peak unit.Price // highest spot so far
	Grid unit.PPM   // how dear electricity is now, as a share of the reference
}

// Workload is one wallet and what it did. Amounts are sums since it was
// admitted, unless the field says now.
type Workload struct {
	Name   string
	ID     string // never another's, also after a restart
	Owner  uint32 // uid
	State  string // pending running waiting broke paused dying dead
	Reason string // why it ended, or is about to; empty while it lives well
	Remedy string // what to do about Reason

	Open    bool         // no budget: money is minted as it is used
	Draws   bool         // no budget of its own: it draws from a wallet, and Balance is what it holds of that
	Budget  unit.Credits // given at admission and by Fund
	Income  unit.Credits // earned
	Spent   unit.Credits
	On      Spending     // the parts of Spent, exactly
	Balance unit.Credits // what it can still spend, without its deposit
	Deposit unit.Credits // kept back to pay for its own end

	Bid    unit.Price // the most it pays per core-second
	Auto   bool       // the market bids for it, up to MaxBid
	MaxBid unit.Price
	Pays   unit.Price // what it pays now

	Energy     unit.Microjoules
	CPU        unit.CoreTime // used
	Wait       unit.CoreTime // runnable, and not run
	Power      unit.Microwatts
	Cores      unit.MilliCores // that it uses now
	PeakMemory unit.Bytes
	Work       int64  // finished units, by its own report
	Refusal    string // why it gets less than it asks for now; empty if it does not

	Caps Caps

	Admitted, Ended time.Time // Ended is zero while it lives
	ExitCode        int       // of maxwell run; meaningful when dead
	Retryable       bool      // dead: running it again may end better
}

// Spending is where a workload's money went.
type Spending struct {
	Energy  unit.Credits // its joules at the grid price
	Rent    unit.Credits // what scarcity added
	Erasure unit.Credits // bits freed or overwritten
	Other   unit.Credits
}

// Caps are limits other than money; zero is none.
type Caps struct {
	Energy unit.Microjoules
	CPU    unit.CoreTime
	Cores  unit.MilliCores
	Memory unit.Bytes
	Pids   int64
}

// Self is who the market takes the caller for and, inside a workload, how that
// is doing.
type Self struct {
	Workload // of the caller; empty if it is not inside one

	Inside  bool   // the caller is inside a workload
	UID     uint32 // of the caller
	Admin   bool   // may act for everybody
	Durable bool   // the market outlives its clients and its own process
	Version string // of the market
	Price   Price
}

// Bid is what a workload offers for a core-second.
type Bid struct {
	Price unit.Price // unit.Times is 1x
	Auto  bool       // let the market bid, so that the budget lasts; Price is then not used
	Max   unit.Price // of Auto; 0 leaves it as it was, or 8x
}

// Event is one line of a workload's life.
type Event struct {
	Workload string
	Kind     string // admitted started warned broke paused funded dying dead, and more to come
	At       time.Time
	Percent  int           // warned: how much is gone
	What     string        // warned: of budget, memory, pids, cpu or energy
	Reason   string        // broke, dying, dead
	Left     time.Duration // warned: until it is gone, at this rate; broke: of the grace
	State    Workload      // at that moment; its Name is empty if the market did not say
}

// Explanation is why a workload gets what it gets. Figures that do not bear on
// the verdict are zero.
type Explanation struct {
	Verdict  string // served outbid rationed wallet pacing rate below-reserve broke paused suspended idle cores machine ...
	Workload Workload
	Price    Price

	Wanted, Got unit.MilliCores // in the last seconds
	NeededBid   unit.Price      // that would have been served in full; 0 = none would help
	Rank, Of    int             // 1 = the highest score of those that want to run
	Reserve     unit.Price      // its own energy per core-second
	Lasts       time.Duration   // how long its money lasts at this rate; 0 = not limited
	Paced       unit.Spend      // what pacing lets it spend
	Supply      unit.MilliCores // cores for sale
	Others      unit.MilliCores // cores that ungoverned programs take
}

func priceOf(p *v1.PriceInfo) Price {
	return Price{
		Base: unit.Rate(p.GetBaseUcreditsPerCoreS()), Spot: unit.Price(p.GetSpotXMilli()),
		Peak: unit.Price(p.GetSpotPeakXMilli()), Grid: unit.PPM(p.GetGridPpm()),
	}
}

func workloadOf(w *v1.Workload) Workload {
	return Workload{
		Name: w.GetName(), ID: w.GetId(), Owner: w.GetUid(), State: w.GetState(), Reason: w.GetReason(), Remedy: w.GetRemedy(),
		Open: w.GetOpen(), Draws: w.GetDraws(), Budget: unit.Credits(w.GetBudgetUcredits()), Income: unit.Credits(w.GetIncomeUcredits()),
		Spent: unit.Credits(w.GetSpentUcredits()),
		On: Spending{
			Energy: unit.Credits(w.GetEnergyUcredits()), Rent: unit.Credits(w.GetRentUcredits()),
			Erasure: unit.Credits(w.GetErasureUcredits()), Other: unit.Credits(w.GetOtherUcredits()),
		},
		Balance: unit.Credits(w.GetBalanceUcredits()), Deposit: unit.Credits(w.GetDepositUcredits()),
		Bid: unit.Price(w.GetBidMilli()), Auto: w.GetAuto(), MaxBid: unit.Price(w.GetMaxBidMilli()), Pays: unit.Price(w.GetPriceMilli()),
		Energy: unit.Microjoules(w.GetEnergyUj()), CPU: unit.CoreTime(w.GetCpuNs()), Wait: unit.CoreTime(w.GetWaitNs()),
		Power: unit.Microwatts(w.GetPowerUw()), Cores: unit.MilliCores(w.GetCoresNowMilli()),
		PeakMemory: unit.Bytes(w.GetPeakMemoryBytes()), Work: w.GetWork(), Refusal: w.GetRefusal(),
		Caps: Caps{
			Energy: unit.Microjoules(w.GetMaxEnergyUj()), CPU: unit.CoreTime(w.GetMaxCpuNs()),
			Cores: unit.MilliCores(w.GetCoresMilli()), Memory: unit.Bytes(w.GetMemoryBytes()), Pids: w.GetPids(),
		},
		Admitted: instant(w.GetAdmittedWallNs()), Ended: instant(w.GetEndedWallNs()),
		ExitCode: int(w.GetExitCode()), Retryable: w.GetRetryable(),
	}
}

func eventOf(e *v1.Event) Event {
	return Event{
		Workload: e.GetWorkload(), Kind: e.GetKind(), At: instant(e.GetWallNs()), Percent: int(e.GetPercent()), What: e.GetWhat(),
		Reason: e.GetReason(), Left: time.Duration(e.GetLeftNs()), State: workloadOf(e.GetWorkloadState()),
	}
}

// instant is nanoseconds since 1970 as a time; 0 is no time.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
