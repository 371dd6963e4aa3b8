package node

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
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
		snap = m.snapshotOf(func(*member) bool { return true })
		m.seen.caveat = m.caveat(m.enforcer.Describe(), nil)
	}
	if !m.loop.do(take) {
		take()
	}
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
		Ledger: &v1.Ledger{
			MintedUcredits: all.GetLedger().GetMintedUcredits(), SumUcredits: all.GetLedger().GetSumUcredits(),
			Accounts: maps.Clone(all.GetLedger().GetAccounts()),
		},
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
	if !a.admin || a.self != nil {
		maps.DeleteFunc(out.Ledger.Accounts, func(account string, _ int64) bool {
			_, name, personal := strings.Cut(account, ":")
			return personal && !mine[name]
		})
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
