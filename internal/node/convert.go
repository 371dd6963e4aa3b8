package node

import (
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// admission reads a request. Amounts are checked by the demon.
func admission(r *v1.AdmitRequest) demon.Admission {
	when := apoptosis.Stop
	if r.GetPauseWhenBroke() {
		when = apoptosis.Pause
	}
	return demon.Admission{
		Name: r.GetName(), Budget: unit.Credits(r.GetBudgetUcredits()), Bid: unit.Price(r.GetBidMilli()),
		Auto: r.GetAuto(), MaxBid: unit.Price(r.GetMaxBidMilli()), Rate: unit.Spend(r.GetRateUcreditsPerS()),
		Horizon: duration(r.GetHorizonNs()), Cores: unit.MilliCores(r.GetCoresMilli()),
		MaxEnergy: unit.Microjoules(r.GetMaxEnergyUj()), MaxCPU: unit.CoreTime(r.GetMaxCpuNs()),
		Memory: unit.Bytes(r.GetMemoryBytes()), Pids: r.GetPids(), Timeout: duration(r.GetTimeoutNs()),
		Policy: apoptosis.Policy{WhenBroke: when, Grace: duration(r.GetGraceNs())},
		Income: unit.Credits(r.GetIncomeUcredits()), Kind: r.GetIncomeKind(),
	}
}

// placement is a group's placement on the wire. The market's own choice of
// processors stands in where the enforcement made none.
func placement(p dispatch.Placement, cpus []int) *v1.Placement {
	if len(p.CPUs) == 0 {
		p.CPUs = cpus
	}
	out := &v1.Placement{
		Enforcement: p.Enforcement, Cgroup: p.Cgroup, Tasks: p.Tasks, Home: p.Home,
		Control: p.Control, Namespace: p.Namespace, Moved: p.Moved,
	}
	for _, cpu := range p.CPUs {
		out.Cpus = append(out.Cpus, int32(cpu))
	}
	return out
}

// placed is the other direction, in the client.
func placed(p *v1.Placement) dispatch.Placement {
	out := dispatch.Placement{
		Enforcement: p.GetEnforcement(), Cgroup: p.GetCgroup(), Tasks: p.GetTasks(), Home: p.GetHome(),
		Control: p.GetControl(), Namespace: p.GetNamespace(), Moved: p.GetMoved(),
	}
	for _, cpu := range p.GetCpus() {
		out.CPUs = append(out.CPUs, int(cpu))
	}
	return out
}

func duration(ns int64) time.Duration { return time.Duration(max(0, ns)) }

var eventWords = map[demon.EventKind]string{
	demon.EventAdmitted: "admitted", demon.EventStarted: "started", demon.EventWarned: "warned",
	demon.EventBroke: "broke", demon.EventPaused: "paused", demon.EventFunded: "funded",
	demon.EventDying: "dying", demon.EventDead: "dead", demon.EventReadopted: "readopted", demon.EventWouldStop: "would-stop",
}

// event is a demon's event on the wire. Called on the loop's thread.
func (m *Market) event(l *loop, mem *member, e *demon.Event) *v1.Event {
	out := &v1.Event{
		Workload: mem.name, Kind: eventWords[e.Kind], AtNs: int64(e.At - m.began),
		Percent: e.Percent, LeftNs: int64(e.Left), WallNs: time.Now().UnixNano(),
	}
	if e.Kind == demon.EventWarned {
		out.What = what(e.What)
	}
	if e.Reason != apoptosis.None {
		out.Reason = e.Reason.String()
	}
	if line, ok := l.demon.LineOf(e.Slot); ok {
		out.WorkloadState = m.workload(&line, mem)
	}
	return out
}

// refusalWords say why a workload got less than it asked for.
var refusalWords = map[market.Refusal]string{
	market.NotRefused: "", market.Outbid: "outbid", market.Rationed: "rationed",
	market.WalletBinds: "wallet", market.BelowReserve: "below reserve",
	market.Insolvent: "insolvent", market.NoDemand: "",
}

// what names the limit of a warning.
func what(r apoptosis.Reason) string {
	switch r {
	case apoptosis.CapCPU:
		return "cpu"
	case apoptosis.CapEnergy:
		return "energy"
	case apoptosis.CapMemory:
		return "memory"
	case apoptosis.CapPids:
		return "pids"
	default:
		return "budget"
	}
}

// workload is a line on the wire. mem may be nil.
func (m *Market) workload(l *demon.Line, mem *member) *v1.Workload {
	out := &v1.Workload{
		Name: l.Name, State: l.State.String(), BudgetUcredits: int64(l.Budget),
		IncomeUcredits: int64(l.Income), SpentUcredits: int64(l.Total()),
		EnergyUcredits: int64(l.Spent.Energy), RentUcredits: int64(l.Spent.Rent),
		ErasureUcredits: int64(l.Spent.Erasure), OtherUcredits: int64(l.Other),
		DepositUcredits: int64(l.Deposit), BalanceUcredits: int64(l.Balance),
		EnergyUj: int64(l.Energy), CpuNs: int64(l.CPU), WaitNs: int64(l.Wait),
		ErasedBytes: int64(l.Erased / 8), HasErased: l.Metered, PeakMemoryBytes: int64(l.Peak),
		Work: l.Work, Open: l.Open, BidMilli: int64(l.Bid), PriceMilli: int64(l.Price),
		PowerUw: int64(l.Power), CoresNowMilli: int64(l.CoresNow), LossUcredits: int64(l.Loss),
		AliveNs: int64(l.Alive), Refusal: refusalWords[l.Refusal], Wallet: l.Wallet, Draws: l.Draws,
	}
	if out.Auto = l.Auto; l.Auto {
		out.MaxBidMilli = int64(l.MaxBid)
	}
	if l.Enforce != demon.EnforceOn {
		out.Enforce = l.Enforce.String()
		if l.WouldHave.Reason != apoptosis.None {
			out.WouldStopReason, out.WouldStopStill = l.WouldHave.Reason.String(), l.WouldHave.Still
			out.WouldStopWallNs = time.Now().Add(-m.loop.clock.Now().Sub(l.WouldHave.At)).UnixNano()
		}
	}
	out.ReadoptedCpuNs, out.ReadoptedUcredits = int64(l.Readopted.CPU), int64(l.Readopted.Cost)
	if l.Reason != apoptosis.None {
		out.Reason = l.Reason.String()
		payer := l.Name
		if l.Draws {
			payer = l.Wallet
		}
		out.Retryable, out.Remedy = l.Reason.Retryable(), l.Reason.Remedy(payer)
	}
	if mem != nil {
		mem.describe(out)
		out.ExitCode = exitCode(l, mem.childExit, mem.hasExit)
		out.ChildExit, out.HasChildExit = mem.childExit, mem.hasExit
		out.PeakMemoryBytes = max(out.PeakMemoryBytes, mem.peak.Load())
	}
	return out
}

// describe adds what the market knows of a workload beside its line.
func (mem *member) describe(out *v1.Workload) {
	r := mem.asked
	out.Id, out.Uid, out.Client = mem.id(), mem.uid, mem.client
	out.Command, out.Log = r.GetCommand(), r.GetLog()
	out.AdmittedWallNs = mem.admitted.UnixNano()
	if out.State == apoptosis.Dead.String() {
		out.EndedWallNs = out.AdmittedWallNs + out.AliveNs
		out.SpotPeakMilli = mem.spotPeakMilli
	}
	out.RateUcreditsPerS, out.HorizonNs = r.GetRateUcreditsPerS(), r.GetHorizonNs()
	out.CoresMilli, out.MaxCpuNs, out.MaxEnergyUj = r.GetCoresMilli(), r.GetMaxCpuNs(), r.GetMaxEnergyUj()
	out.Guest = mem.guest
	out.MemoryBytes, out.Pids = r.GetMemoryBytes(), r.GetPids()
}

// multiple is a rate in thousandths of 1x. Called where the loop cannot move
// the base: on its thread or after its end.
func (m *Market) multiple(r unit.Rate) int64 {
	return int64(price.Multiple(r, m.loop.demon.BaseRate()))
}

// snapshot is a session's own part of the market now, or as it was when it ended.
func (s service) snapshot(own *session) *v1.Snapshot {
	var out *v1.Snapshot
	take := func() {
		out = s.m.snapshotOf(true, func(mem *member) bool { return mem.session == own })
	}
	s.m.loop.ask(take)
	for _, mem := range own.buried() {
		// It may have been buried since the look at the living.
		out.Workloads = slices.DeleteFunc(out.Workloads, func(w *v1.Workload) bool { return w.GetId() == mem.id() && mem.closed == nil })
		out.Workloads = append(out.Workloads, s.m.lastStatement(mem))
	}
	return out
}

// snapshotOf builds a snapshot of those that are not buried and that keep accepts; all:
// with the accounts of the dead one by one. Called on the loop's thread or after its end.
func (m *Market) snapshotOf(all bool, keep func(*member) bool) *v1.Snapshot {
	st := m.loop.demon.View(all)
	out := &v1.Snapshot{
		AtNs: int64(st.Now - m.began), Node: m.nodeOf(&st),
		Price: &v1.PriceInfo{
			BaseUcreditsPerCoreS: int64(st.Base), SpotUcreditsPerCoreS: int64(st.Spot),
			SpotXMilli: m.multiple(st.Spot), SpotPeakXMilli: m.multiple(m.loop.peak), GridPpm: int64(st.Grid),
		},
		Ledger: &v1.Ledger{
			MintedUcredits: int64(st.Minted), SumUcredits: int64(st.Sum), Accounts: make(map[string]int64),
		},
	}
	for name, balance := range st.Accounts {
		out.Ledger.Accounts[name] = int64(balance)
	}
	for i := range st.Lines {
		l := &st.Lines[i]
		// One that is dead and not yet buried still has its place; the slots of the
		// others were given back.
		if mem := m.loop.serials[l.ID]; mem != nil && m.loop.has(mem) && keep(mem) {
			out.Workloads = append(out.Workloads, m.workload(l, mem))
		}
	}
	return out
}

func (m *Market) nodeOf(st *demon.Statement) *v1.Node {
	about := m.enforcer.Describe()
	energy := m.sensor.Describe()
	return &v1.Node{
		Enforcement: about.Enforcement, EnergySource: st.Source.String(), Modelled: energy.Modelled,
		SigmaPpm: int64(energy.Sigma), Epochs: int64(st.Epochs), EpochUs: st.Epoch.Microseconds(),
		MisdeliveryPpm: int64(st.Misdelivery), EnergyUj: int64(st.Books.Node),
		AttributedUj: int64(st.Books.Attributed), SystemUj: int64(st.Books.System),
		IdleUj: int64(st.Books.Idle), UnattributedUj: int64(st.Books.Unattributed),
		CoresMilli: int64(m.settings.Cores), WattsUw: int64(st.Watts), BudgetUw: int64(m.settings.Watts),
		Meter: string(m.meter.Describe().Kind), SelfCpuNs: m.self.Load(), LateMaxNs: int64(m.loop.lateMax),
		Caveat: m.caveat(about, m.loop.unheld), LandauerPerGibUcredits: int64(m.landauer), SharePpm: int64(st.Share),
	}
}
