package main

import (
	"cmp"
	"slices"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// terms is a workload as the market is asked to admit it.
func terms(w *fleet.Workload) *v1.AdmitRequest {
	return &v1.AdmitRequest{
		Name: w.Name, Command: w.Command, BudgetUcredits: int64(w.Budget), BidMilli: int64(w.Bid.Price), Auto: w.Bid.Auto,
		MaxBidMilli: int64(w.MaxBid), RateUcreditsPerS: int64(w.Rate), HorizonNs: int64(w.Horizon),
		CoresMilli: int64(w.Cores), MaxEnergyUj: int64(w.MaxEnergy), MaxCpuNs: int64(w.MaxCPU),
		MemoryBytes: int64(w.Memory), Pids: w.Pids, TimeoutNs: int64(w.Timeout),
		PauseWhenBroke: w.WhenBroke == fleet.Pause, GraceNs: int64(w.Grace),
		IncomeUcredits: int64(w.Income.Amount), IncomeKind: w.Income.Per,
		Wallet: w.Wallet, BrokeByWallet: w.Wallet != "" && w.WhenBroke == fleet.Stop && !w.StopSaid,
	}
}

// nodeOf is the market's node for a report.
func nodeOf(n *v1.Node) report.Node {
	return report.Node{
		Enforcement: n.GetEnforcement(), EnergySource: n.GetEnergySource(), Modelled: n.GetModelled(), Sigma: report.Fraction(n.GetSigmaPpm()),
		Epochs: n.GetEpochs(), EpochUS: n.GetEpochUs(), Misdelivery: unit.PPM(n.GetMisdeliveryPpm()),
		Energy: unit.Microjoules(n.GetEnergyUj()), Attributed: unit.Microjoules(n.GetAttributedUj()), System: unit.Microjoules(n.GetSystemUj()),
		Idle: unit.Microjoules(n.GetIdleUj()), Unattributed: unit.Microjoules(n.GetUnattributedUj()),
		Cores: unit.MilliCores(n.GetCoresMilli()), Power: unit.Microwatts(n.GetWattsUw()), Allowance: unit.Microwatts(n.GetBudgetUw()),
		Caveat: n.GetCaveat(),
	}
}

func priceOf(p *v1.PriceInfo) report.Price {
	return report.Price{
		Base: unit.Rate(p.GetBaseUcreditsPerCoreS()), Spot: unit.Price(p.GetSpotXMilli()), SpotPeak: unit.Price(p.GetSpotPeakXMilli()),
	}
}

// workloadOf is a wallet for a report; kind is the work it is paid for.
func workloadOf(w *v1.Workload, kind string) report.Workload {
	out := report.Workload{
		Name: w.GetName(), State: w.GetState(), Reason: w.GetReason(),
		Budget: unit.Credits(w.GetBudgetUcredits()), Income: unit.Credits(w.GetIncomeUcredits()), Spent: unit.Credits(w.GetSpentUcredits()),
		EnergyCost: unit.Credits(w.GetEnergyUcredits()), Rent: unit.Credits(w.GetRentUcredits()),
		Erasure: unit.Credits(w.GetErasureUcredits()), Other: unit.Credits(w.GetOtherUcredits()),
		Deposit: unit.Credits(w.GetDepositUcredits()), Balance: unit.Credits(w.GetBalanceUcredits()),
		Energy: unit.Microjoules(w.GetEnergyUj()), CPU: unit.CoreTime(w.GetCpuNs()), Wait: unit.CoreTime(w.GetWaitNs()),
		PeakMemory: unit.Bytes(w.GetPeakMemoryBytes()), Work: w.GetWork(), WorkKind: kind, Open: w.GetOpen(), Payer: w.GetWallet(), Draws: w.GetDraws(),
		Loss: unit.Credits(w.GetLossUcredits()), LastPrice: unit.Price(w.GetPriceMilli()),
	}
	if w.GetState() == "dead" {
		out.ExitCode = new(int(w.GetExitCode()))
	}
	if w.GetHasChildExit() {
		out.ChildExit = new(int(w.GetChildExit()))
	}
	if w.GetHasErased() {
		out.Erased = new(unit.Bytes(w.GetErasedBytes()))
	}
	return out
}

// roster is a fleet by name: what the market does not know about it.
type roster map[string]rosterEntry

type rosterEntry struct {
	place int // in the fleet file
	kind  string
	auto  bool
}

func rosterOf(workloads []fleet.Workload) roster {
	r := make(roster, len(workloads))
	for i := range workloads {
		r[workloads[i].Name] = rosterEntry{i, workloads[i].Income.Per, workloads[i].Bid.Auto}
	}
	return r
}

// sorted are the workloads of a snapshot in the order of the fleet file.
func (r roster) sorted(list []*v1.Workload) []*v1.Workload {
	return slices.SortedStableFunc(slices.Values(list), func(a, b *v1.Workload) int {
		return cmp.Compare(r[a.GetName()].place, r[b.GetName()].place)
	})
}

func snapshotOf(s *v1.Snapshot, fleet roster, at time.Duration) report.Snapshot {
	out := report.Snapshot{At: at, Node: nodeOf(s.GetNode()), Price: priceOf(s.GetPrice())}
	for _, w := range fleet.sorted(s.GetWorkloads()) {
		entry := fleet[w.GetName()]
		refusal := w.GetRefusal()
		if w.GetState() != "waiting" {
			refusal = ""
		}
		out.Workloads = append(out.Workloads, report.Live{
			Workload: workloadOf(w, entry.kind), Bid: unit.Price(w.GetBidMilli()), Auto: entry.auto,
			Price: unit.Price(w.GetPriceMilli()), CoresNow: unit.MilliCores(w.GetCoresNowMilli()), Power: unit.Microwatts(w.GetPowerUw()),
			Refusal: refusal,
		})
	}
	return out
}

func statementOf(s *v1.Snapshot, fleet roster) report.Statement {
	out := report.Statement{
		Node: nodeOf(s.GetNode()), Price: priceOf(s.GetPrice()),
		Ledger: report.Ledger{
			Minted: unit.Credits(s.GetLedger().GetMintedUcredits()), Sum: unit.Credits(s.GetLedger().GetSumUcredits()),
			Accounts: make(map[string]unit.Credits),
		},
	}
	for _, w := range fleet.sorted(s.GetWorkloads()) {
		out.Workloads = append(out.Workloads, workloadOf(w, fleet[w.GetName()].kind))
	}
	for name, v := range s.GetLedger().GetAccounts() {
		out.Ledger.Accounts[name] = unit.Credits(v)
	}
	return out
}

// noticeOf is an event worth a line; false if it is not.
func noticeOf(e *v1.Event) (report.Notice, bool) {
	w := e.GetWorkloadState()
	n := report.Notice{Name: e.GetWorkload(), Left: time.Duration(e.GetLeftNs()), Reason: e.GetReason(), Exit: int(w.GetExitCode())}
	if w.GetDraws() {
		n.Wallet = w.GetWallet()
	}
	free := w.GetEnforce() != ""
	switch e.GetKind() {
	case "would-stop":
		n.Kind = report.WouldBeStopped
		return n, w.GetEnforce() == "warn" // who is only observed is not told
	case "broke", "paused":
		if free { // that it would be stopped is told, and it is not
			return n, false
		}
	}
	switch e.GetKind() {
	case "warned":
		budget := unit.Credits(w.GetBudgetUcredits() + w.GetIncomeUcredits())
		n.Kind, n.Percent, n.What = report.Warned, int(e.GetPercent()), e.GetWhat()
		if n.What == "" || n.What == "budget" {
			n.Limit, n.Fund = budget.Short(), report.FundFor(budget)
			if deposit := unit.Credits(w.GetDepositUcredits()); deposit > budget/20 { // what is kept for its death is no small part
				n.Limit += " less its deposit of " + deposit.Short()
			}
		}
	case "broke":
		n.Kind = report.WentBroke
	case "paused":
		n.Kind = report.WasPaused
	case "funded":
		n.Kind = report.WasFunded
	case "dying":
		n.Kind = report.IsDying
	case "dead":
		n.Kind = report.HasEnded
	default:
		return n, false
	}
	return n, true
}

// limitText is a cap as its owner wrote it, for a warning.
func limitText(w *fleet.Workload, what string) string {
	switch what {
	case "memory":
		return w.Memory.String()
	case "pids":
		return formatCount(w.Pids)
	case "cpu":
		return time.Duration(w.MaxCPU).String()
	case "energy":
		return w.MaxEnergy.String()
	}
	return w.Budget.Short()
}
