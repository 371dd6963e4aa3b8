package main

import (
	"slices"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// detailOf is a workload for a report, with all that the market knows.
func detailOf(w *v1.Workload) report.Detail {
	return report.Detail{
		Workload: workloadOf(w, ""), Mode: modeOf(w), ID: w.GetId(), UID: w.GetUid(), Client: w.GetClient(), Command: w.GetCommand(), Log: w.GetLog(),
		Admitted: w.GetAdmittedWallNs(), Ended: w.GetEndedWallNs(), Alive: time.Duration(w.GetAliveNs()),
		Retryable: w.GetRetryable(), Remedy: w.GetRemedy(), Refusal: w.GetRefusal(),
		Bid: unit.Price(w.GetBidMilli()), Auto: w.GetAuto(), MaxBid: unit.Price(w.GetMaxBidMilli()),
		Rate: unit.Spend(w.GetRateUcreditsPerS()), Horizon: time.Duration(w.GetHorizonNs()),
		CoresNow: unit.MilliCores(w.GetCoresNowMilli()), Power: unit.Microwatts(w.GetPowerUw()),
		Cores: unit.MilliCores(w.GetCoresMilli()), MaxCPU: unit.CoreTime(w.GetMaxCpuNs()), MaxEnergy: unit.Microjoules(w.GetMaxEnergyUj()),
		Memory: unit.Bytes(w.GetMemoryBytes()), Pids: w.GetPids(), SpotPeak: unit.Price(w.GetSpotPeakMilli()),
		ReadoptedCPU: unit.CoreTime(w.GetReadoptedCpuNs()), Readopted: unit.Credits(w.GetReadoptedUcredits()),
	}
}

// modeOf is how far the market goes with a workload.
func modeOf(w *v1.Workload) report.Mode {
	m := report.Mode{
		Enforce: w.GetEnforce(), WouldReason: w.GetWouldStopReason(), WouldAt: w.GetWouldStopWallNs(), WouldStill: w.GetWouldStopStill(),
	}
	if m.Enforce == "" {
		m.Enforce = "on"
	}
	return m
}

func detailsOf(list []*v1.Workload) []report.Detail {
	out := make([]report.Detail, len(list))
	for i, w := range list {
		out[i] = detailOf(w)
	}
	return out
}

// burialOf is the receipt of a dead workload. The node says how its energy is
// known.
func burialOf(w *v1.Workload, n *v1.Node) report.Burial {
	alive := time.Duration(w.GetAliveNs())
	if w.GetAdmittedWallNs() > 0 && w.GetEndedWallNs() > w.GetAdmittedWallNs() {
		alive = time.Duration(w.GetEndedWallNs() - w.GetAdmittedWallNs())
	}
	return report.Burial{
		End: report.End{
			Workload: workloadOf(w, ""), Command: w.GetCommand(), Wall: alive, Retryable: w.GetRetryable(), Remedy: w.GetRemedy(),
			Modelled: n.GetModelled(), Sigma: report.Fraction(n.GetSigmaPpm()), SpotPeak: unit.Price(w.GetSpotPeakMilli()),
		},
		Mode: modeOf(w), ID: w.GetId(), Client: w.GetClient(), Admitted: w.GetAdmittedWallNs(), Ended: w.GetEndedWallNs(),
		ReadoptedCPU: unit.CoreTime(w.GetReadoptedCpuNs()), Readopted: unit.Credits(w.GetReadoptedUcredits()),
	}
}

func ledgerOf(l *v1.Ledger) report.Ledger {
	out := report.Ledger{
		Minted: unit.Credits(l.GetMintedUcredits()), Sum: unit.Credits(l.GetSumUcredits()), Accounts: make(map[string]unit.Credits),
	}
	for name, v := range l.GetAccounts() {
		out.Accounts[name] = unit.Credits(v)
	}
	return out
}

// postingsOf are transfers in the order in which they happened: the market
// tells the newest first.
func postingsOf(list []*v1.Posting) []report.Posting {
	out := make([]report.Posting, len(list))
	for i, p := range list {
		out[i] = report.Posting{
			Seq: p.GetSeq(), At: p.GetWallNs(), Debit: p.GetDebit(), Credit: p.GetCredit(), Amount: unit.Credits(p.GetAmountUcredits()),
			Purpose: p.GetPurpose(), Pending: p.GetPending(),
		}
	}
	slices.Reverse(out)
	return out
}

// quoteOf is the price in a snapshot taken at a moment.
func quoteOf(s *v1.Snapshot, at time.Time) report.Quote {
	p, n := s.GetPrice(), s.GetNode()
	grid := unit.PPM(p.GetGridPpm())
	if grid == 0 {
		grid = unit.One
	}
	spot := unit.Rate(p.GetSpotUcreditsPerCoreS())
	if spot == 0 {
		spot = unit.Rate(unit.MulDiv(p.GetBaseUcreditsPerCoreS(), p.GetSpotXMilli(), 1000))
	}
	return report.Quote{
		At: at.UnixNano(), Base: unit.Rate(p.GetBaseUcreditsPerCoreS()), Spot: unit.Price(p.GetSpotXMilli()), SpotRate: spot,
		SpotPeak: unit.Price(p.GetSpotPeakXMilli()), Grid: grid, Power: unit.Microwatts(n.GetWattsUw()), Allowance: unit.Microwatts(n.GetBudgetUw()),
		Cores: unit.MilliCores(n.GetCoresMilli()), Modelled: n.GetModelled(), Sigma: report.Fraction(n.GetSigmaPpm()),
	}
}

// happeningOf is an event for the list of events.
func happeningOf(e *v1.Event) report.Happening {
	w := e.GetWorkloadState()
	h := report.Happening{
		At: e.GetWallNs(), Name: e.GetWorkload(), ID: w.GetId(), Kind: e.GetKind(), What: e.GetWhat(), Percent: int(e.GetPercent()),
		Left: time.Duration(e.GetLeftNs()), Reason: e.GetReason(), Spent: unit.Credits(w.GetSpentUcredits()), CPU: unit.CoreTime(w.GetCpuNs()),
	}
	if h.Kind == "dead" {
		h.ExitCode = new(int(w.GetExitCode()))
	}
	n, ok := noticeOf(e)
	if !ok {
		return h
	}
	if n.Kind == report.Warned && n.Limit == "" {
		n.Limit = capText(w, n.What)
	}
	h.Notice = &n
	return h
}

// capText is a cap as the market holds it, for a warning.
func capText(w *v1.Workload, what string) string {
	switch what {
	case "memory":
		return unit.Bytes(w.GetMemoryBytes()).String()
	case "pids":
		return formatCount(w.GetPids())
	case "cpu":
		return time.Duration(w.GetMaxCpuNs()).String()
	case "energy":
		return unit.Microjoules(w.GetMaxEnergyUj()).String()
	}
	return unit.Credits(w.GetBudgetUcredits()).Short()
}
