package node

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// quantum is how old what a caller without a session sees of the market may be:
// energy that is read more often tells what a neighbour computes (Lipp et al.,
// PLATYPUS, 2021).
const quantum = 100 * time.Millisecond

func (m *Market) quantum() time.Duration {
	if m.durable() {
		return max(quantum, m.settings.Daemon.Quantum)
	}
	return quantum
}

// glance is the market as callers without a session see it.
type glance struct {
	mu      sync.Mutex
	taken   time.Time
	snap    *v1.Snapshot
	changes uint64 // of those it knows
	caveat  string // without names
}

// view is the whole market: who lives, as of now, and what they used, at most a
// quantum old. It is shared: read only.
func (m *Market) view() *v1.Snapshot {
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	changes := m.changes.Load()
	recent := m.seen.snap != nil && time.Since(m.seen.taken) < m.quantum()
	if recent && changes == m.seen.changes {
		return m.seen.snap
	}
	var snap *v1.Snapshot
	take := func() {
		snap = m.snapshotOf(false, func(*member) bool { return true })
		m.seen.caveat = m.caveat(m.enforcer.Describe(), nil)
	}
	m.loop.ask(take)
	if recent {
		snap = aged(snap, m.seen.snap)
	} else {
		m.seen.taken = time.Now()
	}
	m.seen.snap, m.seen.changes = snap, changes
	return snap
}

// aged is a new look at who lives, with what an older one found of energy and money.
func aged(snap, old *v1.Snapshot) *v1.Snapshot {
	before := make(map[string]*v1.Workload)
	for _, w := range old.GetWorkloads() {
		before[w.GetId()] = w
	}
	out := &v1.Snapshot{Node: old.GetNode(), Price: old.GetPrice(), AtNs: old.GetAtNs(), Ledger: old.GetLedger()}
	for _, w := range snap.GetWorkloads() {
		out.Workloads = append(out.Workloads, blur(w, before[w.GetId()]))
	}
	return out
}

// seenBy is what a may see of the market: everything but others' workloads and
// accounts. dead adds the last dead.
func (m *Market) seenBy(a actor, dead bool) *v1.Snapshot {
	all := m.view()
	out := &v1.Snapshot{
		Node: m.publicNode(a, all), Price: all.GetPrice(), AtNs: all.GetAtNs(),
		Ledger: all.GetLedger(),
	}
	mine := make(map[string]bool) // by the name of who has it, or had it last
	m.ownWallets(a, mine)
	var list []*member
	buried := make(map[string]bool) // by id: since the view was taken, some
	for _, w := range all.GetWorkloads() {
		mine[w.GetName()] = a.sees(w)
	}
	if dead {
		list = m.chronicle.graves(mostDead, func(mem *member) bool {
			if _, known := mine[mem.name]; !known {
				mine[mem.name] = a.may(mem)
			}
			return a.may(mem)
		})
		for _, mem := range list {
			buried[mem.id()] = true
		}
	}
	for _, w := range all.GetWorkloads() {
		if a.sees(w) && !buried[w.GetId()] && (dead || w.GetState() != apoptosis.Dead.String()) {
			out.Workloads = append(out.Workloads, w)
		}
	}
	for _, mem := range slices.Backward(list) {
		out.Workloads = append(out.Workloads, m.lastStatement(mem))
	}
	if dead {
		out.Ledger = m.withDeparted(out.Ledger)
	}
	if !a.admin || a.self != nil {
		out.Ledger = ledgerOf(out.Ledger, mine)
	}
	return out
}

// departed are the accounts of the dead, which are many, for those who ask for them.
type departed struct {
	mu       sync.Mutex
	taken    time.Time
	accounts map[string]unit.Credits
}

// withDeparted is a view's ledger with the accounts of the dead one by one, where it
// has their sum.
func (m *Market) withDeparted(view *v1.Ledger) *v1.Ledger {
	d := &m.departed
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.accounts == nil || time.Since(d.taken) >= m.quantum() {
		take := func() {
			all, living := m.loop.demon.View(true).Accounts, m.loop.demon.View(false).Accounts
			maps.DeleteFunc(all, func(name string, _ unit.Credits) bool {
				_, alive := living[name]
				return alive
			})
			d.accounts = all
		}
		m.loop.ask(take)
		d.taken = time.Now()
	}
	out := &v1.Ledger{
		MintedUcredits: view.GetMintedUcredits(), SumUcredits: view.GetSumUcredits(), Accounts: maps.Clone(view.GetAccounts()),
	}
	for name, balance := range d.accounts {
		if _, listed := out.Accounts[name]; !listed {
			out.Accounts[name] = int64(balance)
			out.Accounts[demon.OtherWallets] -= int64(balance)
		}
	}
	if out.Accounts[demon.OtherWallets] == 0 {
		delete(out.Accounts, demon.OtherWallets)
	}
	return out
}

// ledgerOf is a ledger with the accounts of some, and of nobody in particular.
func ledgerOf(all *v1.Ledger, mine map[string]bool) *v1.Ledger {
	out := &v1.Ledger{
		MintedUcredits: all.GetMintedUcredits(), SumUcredits: all.GetSumUcredits(), Accounts: make(map[string]int64),
	}
	for account, balance := range all.GetAccounts() {
		if _, name, personal := strings.Cut(account, ":"); !personal || mine[name] {
			out.Accounts[account] = balance
		}
	}
	return out
}

// sees reports whether a may see a line of the market.
func (a actor) sees(w *v1.Workload) bool {
	if a.self != nil {
		return w.GetId() == a.self.id()
	}
	return a.admin || a.uid == w.GetUid()
}
