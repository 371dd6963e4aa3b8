package node

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// What somebody who is no admin is told of energy is at least a quantum old: of the
// living it comes from the view, of the dead it is what was settled at their end.
// What money went for energy tells as much as the energy does.

// fresh reports whether a may be told how things stand at this moment.
func (a actor) fresh() bool { return a.admin && a.self == nil }

// discreet is a workload as a may see it. w is not changed.
func (m *Market) discreet(a actor, w *v1.Workload) *v1.Workload {
	if a.fresh() || w.GetState() == stateDead {
		return w
	}
	return blur(w, m.lineOf(w.GetId()))
}

const stateDead = "dead"

// blur puts what an older look found of energy and of what was spent into a newer
// line; old may be nil: nothing was known yet.
func blur(w, old *v1.Workload) *v1.Workload {
	out := proto.CloneOf(w)
	out.BalanceUcredits += w.GetSpentUcredits() - old.GetSpentUcredits()
	out.SpentUcredits, out.EnergyUcredits, out.RentUcredits = old.GetSpentUcredits(), old.GetEnergyUcredits(), old.GetRentUcredits()
	out.ErasureUcredits, out.OtherUcredits, out.LossUcredits = old.GetErasureUcredits(), old.GetOtherUcredits(), old.GetLossUcredits()
	out.EnergyUj, out.PowerUw = old.GetEnergyUj(), old.GetPowerUw()
	if w.GetOpen() { // minted as it is used: what was spent by then, and what it has
		out.BalanceUcredits = old.GetBalanceUcredits()
		out.BudgetUcredits = out.GetSpentUcredits() + out.GetBalanceUcredits() + out.GetDepositUcredits() - out.GetIncomeUcredits()
	}
	return out
}

// lineOf is a living workload in the view; nil if it is not there yet.
func (m *Market) lineOf(id string) *v1.Workload {
	list := m.view().GetWorkloads()
	if i := slices.IndexFunc(list, func(w *v1.Workload) bool { return w.GetId() == id }); i >= 0 {
		return list[i]
	}
	return nil
}

// news is an event as a may hear it: what was used by then is told at the end.
func (a actor) news(e *v1.Event) *v1.Event {
	w := e.GetWorkloadState()
	if a.fresh() || w == nil || e.GetKind() == stateDead {
		return e
	}
	out := &v1.Event{
		Workload: e.GetWorkload(), Kind: e.GetKind(), AtNs: e.GetAtNs(), Percent: e.GetPercent(), What: e.GetWhat(), Reason: e.GetReason(),
		LeftNs: e.GetLeftNs(), WallNs: e.GetWallNs(),
	}
	out.WorkloadState = blur(w, nil)
	out.WorkloadState.BalanceUcredits = 0
	if e.GetKind() == "readopted" { // the gap, settled at once
		out.WorkloadState.ReadoptedCpuNs, out.WorkloadState.ReadoptedUcredits = w.GetReadoptedCpuNs(), w.GetReadoptedUcredits()
	}
	return out
}

// publicNode is the node of a view as a may see it: without what the enforcement
// said of single workloads, which names them.
func (m *Market) publicNode(a actor, view *v1.Snapshot) *v1.Node {
	n := view.GetNode()
	if a.fresh() {
		return n
	}
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	n = proto.CloneOf(n)
	n.Caveat = m.seen.caveat
	return n
}

// sessionSeen is a session's own part of the market as a may see it.
func (s service) sessionSeen(a actor, own *session) *v1.Snapshot {
	snap := s.snapshot(own)
	if a.fresh() {
		return snap
	}
	view := s.m.seenBy(a, false)
	snap.Node, snap.Price = view.GetNode(), view.GetPrice()
	snap.Ledger = view.GetLedger()
	for i, w := range snap.GetWorkloads() {
		snap.Workloads[i] = s.m.discreet(a, w)
	}
	return snap
}

// balanceSeen is a living workload's balance as a may see it.
func (m *Market) balanceSeen(a actor, balance, spent unit.Credits, old *v1.Workload) unit.Credits {
	if a.fresh() {
		return balance
	}
	return balance + spent - unit.Credits(old.GetSpentUcredits())
}

// explained is the last answer to Explain about a workload that somebody was given
// who is no admin. Guarded by the view's lock.
type explained struct {
	at  time.Time
	out *v1.ExplainResponse
}

// recentlyExplained is that answer, while it is not older than a quantum.
func (m *Market) recentlyExplained(mem *member) *v1.ExplainResponse {
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	if mem.explained.out == nil || time.Since(mem.explained.at) >= m.quantum() {
		return nil
	}
	return mem.explained.out
}

func (m *Market) rememberExplained(mem *member, out *v1.ExplainResponse) *v1.ExplainResponse {
	m.seen.mu.Lock()
	defer m.seen.mu.Unlock()
	if mem.explained.out != nil && time.Since(mem.explained.at) < m.quantum() {
		return mem.explained.out // another call was first
	}
	mem.explained = explained{time.Now(), out}
	return out
}

// lives are the numbers of the workloads of that name that a may act on, dead or
// alive: a name may have been others' between them.
func (s service) lives(a actor, name string) map[uint64]bool {
	ids := make(map[uint64]bool)
	s.m.mu.Lock()
	if mem := s.m.names[name]; mem != nil && a.may(mem) {
		ids[mem.serial] = true
	}
	s.m.mu.Unlock()
	for _, mem := range s.m.chronicle.graves(mostDead, func(mem *member) bool {
		return a.may(mem) && (mem.name == name || mem.id() == name)
	}) {
		ids[mem.serial] = true
	}
	return ids
}

// What one user who is no admin may have in the market at once: a quarter of the
// workloads that there can be, as many sessions as clients can be meant to be, and
// wallets of which hundreds of such users leave room for others in the books.
const (
	mostWorkloads = 4096
	mostSessions  = 1024
	mostWallets   = 256
)

// room refuses a user's next workload where that user has too many.
func (m *Market) room(uid uint32) error {
	if m.admin(uid) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, mem := range m.names {
		if mem.uid == uid {
			n++
		}
	}
	if n < mostWorkloads {
		return nil
	}
	return connect.NewError(connect.CodeResourceExhausted,
		errTooMany("workloads", mostWorkloads))
}

// roomLocked refuses a user's next session likewise.
func (m *Market) roomLocked(uid uint32) error {
	if uid == 0 || uid == m.uid {
		return nil
	}
	n := 0
	for _, s := range m.session {
		if s.uid == uid {
			n++
		}
	}
	if n < mostSessions {
		return nil
	}
	return connect.NewError(connect.CodeResourceExhausted, errTooMany("sessions", mostSessions))
}

// roomForWallet refuses a user's next standing wallet likewise.
func (m *Market) roomForWallet(a actor) error {
	if a.admin {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, w := range m.wallets {
		if w.owner == a.uid {
			n++
		}
	}
	if n < mostWallets {
		return nil
	}
	return connect.NewError(connect.CodeResourceExhausted,
		fmt.Errorf("you have %d wallets, and more is for admins; use one of them, or ask an admin to remove some", n))
}

type tooMany struct {
	what string
	most int
}

func errTooMany(what string, most int) error { return &tooMany{what, most} }

// Error implements error.
func (e *tooMany) Error() string {
	return "you have " + strconv.Itoa(e.most) + " " + e.what + ", and more is for admins; wait for some to end"
}
