package node

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// chronicle is what the market remembers of what happened, for those who ask
// later or watch: the last events and the last dead.
type chronicle struct {
	mu     sync.Mutex
	events []happening // oldest first
	first  uint64      // number of events[0]
	news   chan struct{}
	dead   []*member // oldest first
}

// happening is an event and whom it concerns.
type happening struct {
	uid uint32
	e   *v1.Event
}

// The memory of a market without a journal.
const (
	mostEvents = 10_000
	mostDead   = 10_000
)

// add notes an event. It never waits: the loop calls it.
func (c *chronicle) add(uid uint32, e *v1.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.events) >= mostEvents {
		c.events = append(c.events[:0], c.events[mostEvents/4:]...)
		c.first += mostEvents / 4
	}
	c.events = append(c.events, happening{uid, e})
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

// atOnce is how many events a watcher takes at a time: one that does not read on
// holds no more of them, and finds what is older than the memory gone.
const atOnce = 256

// after returns what happened since number n, at most atOnce of it, the number after
// that, and a channel that is closed when more happens; nil if more has.
func (c *chronicle) after(n uint64) (list []happening, next uint64, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(max(n, c.first), c.first+uint64(len(c.events)))
	rest := c.events[n-c.first:]
	list = slices.Clone(rest[:min(len(rest), atOnce)])
	next = n + uint64(len(list))
	if len(list) < len(rest) {
		return list, next, nil
	}
	if c.news == nil {
		c.news = make(chan struct{})
	}
	return list, next, c.news
}

// last is the number of the next event.
func (c *chronicle) last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first + uint64(len(c.events))
}

// buried notes a dead one.
func (c *chronicle) buried(mem *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dead) >= mostDead {
		c.dead = append(c.dead[:0], c.dead[mostDead/10:]...)
	}
	c.dead = append(c.dead, mem)
}

// graves are the dead, newest first, that keep accepts; at most limit.
func (c *chronicle) graves(limit int, keep func(*member) bool) []*member {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*member
	for _, mem := range slices.Backward(c.dead) {
		if len(list) == limit {
			break
		}
		if keep(mem) {
			list = append(list, mem)
		}
	}
	return list
}

// remember takes a buried member from the living to the dead.
func (m *Market) remember(mem *member) {
	m.mu.Lock()
	if m.names[mem.name] == mem {
		delete(m.names, mem.name)
	}
	m.mu.Unlock()
	m.vacate(mem)
	m.chronicle.buried(mem)
	m.changes.Add(1)
}

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

// grave is the newest dead one of that name or id, if a may see it.
func (s service) grave(a actor, name string) *member {
	list := s.m.chronicle.graves(1, func(mem *member) bool {
		return a.may(mem) && (mem.name == name || mem.id() == name)
	})
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// Wait implements MarketService.
func (s service) Wait(ctx context.Context, req *v1.WaitRequest) (*v1.WaitResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("wait for its own end")
	}
	if err != nil {
		return nil, err
	}
	mem, err := s.visible(a, req.GetName())
	if err != nil {
		if mem = s.grave(a, req.GetName()); mem == nil {
			return nil, err
		}
	}
	select {
	case <-mem.buried:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.m.done:
		return nil, errClosing
	}
	w := s.m.lastStatement(mem)
	return &v1.WaitResponse{Workload: w, SpotPeakMilli: w.GetSpotPeakMilli()}, nil
}

// Watch implements MarketService.
func (s service) Watch(ctx context.Context, req *v1.WatchRequest, stream *connect.ServerStream[v1.WatchResponse]) error {
	a, err := s.actor(ctx)
	if err != nil {
		return err
	}
	if name := req.GetName(); name != "" {
		if _, err := s.visible(a, name); err != nil && s.grave(a, name) == nil {
			return err
		}
	}
	next := uint64(0)
	if req.GetSinceWallNs() == 0 {
		next = s.m.chronicle.last()
	}
	for {
		list, after, news := s.m.chronicle.after(next)
		next = after
		for _, h := range list {
			if h.e.GetWallNs() < req.GetSinceWallNs() || !a.hears(h) || req.GetName() != "" && h.e.GetWorkload() != req.GetName() {
				continue
			}
			if err := stream.Send(&v1.WatchResponse{Event: a.news(h.e)}); err != nil {
				return err
			}
		}
		if news == nil {
			continue
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.m.done:
			return errClosing
		case <-news:
		}
	}
}

// hears reports whether an event is for a.
func (a actor) hears(h happening) bool {
	if a.self != nil {
		return h.e.GetWorkloadState().GetId() == a.self.id()
	}
	return a.admin || a.uid == h.uid
}

// Receipts implements MarketService.
func (s service) Receipts(ctx context.Context, req *v1.ReceiptsRequest) (*v1.ReceiptsResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	limit := orDefault(req.GetLimit(), mostListed)
	name := req.GetName()
	out := &v1.ReceiptsResponse{}
	for _, mem := range s.m.chronicle.graves(limit, func(mem *member) bool {
		return a.may(mem) && (name == "" || mem.name == name || mem.id() == name)
	}) {
		out.Workloads = append(out.Workloads, s.m.lastStatement(mem))
	}
	return out, nil
}

// Postings implements MarketService.
func (s service) Postings(ctx context.Context, req *v1.PostingsRequest) (*v1.PostingsResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	if s.m.keeper == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			errors.New("this market keeps no journal: start it with --journal FILE, or as maxwell daemon"))
	}
	most := mostListed
	if a.fresh() {
		most = math.MaxInt32
	}
	limit := orDefault(req.GetLimit(), most)
	q := journal.TransferQuery{Limit: limit}
	if q.Account, err = s.account(a, req.GetAccount()); err != nil {
		return nil, err
	}
	var ids map[uint64]bool // nil: everybody's
	if !a.fresh() {
		q.Limit, ids = 0, s.lives(a, s.owner(a, req.GetAccount()))
	}
	out := &v1.PostingsResponse{}
	for p, err := range s.m.keeper.store.Transfers(q) {
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		if ids != nil && !ids[p.UserData] {
			continue // of somebody else, who had the name before or has it now
		}
		out.Postings = append(out.Postings, &v1.Posting{
			Seq: p.Seq, WallNs: p.Wall.UnixNano(), Debit: p.DebitName, Credit: p.CreditName,
			AmountUcredits: int64(p.Amount), Purpose: p.Code.String(), Pending: p.Flags&ledger.Pending != 0,
		})
		if len(out.Postings) == limit {
			break
		}
	}
	return out, nil
}

// mostListed is the longest list that somebody gets who is no admin.
const mostListed = 10_000

// orDefault is the limit that a request asks for: 100 if it does not say.
func orDefault(asked int32, most int) int {
	if asked <= 0 {
		return 100
	}
	return min(int(asked), most)
}

// owner is the workload that a name of an account is about.
func (s service) owner(a actor, name string) string {
	if name == "" && a.self != nil {
		return a.self.name
	}
	if _, owner, personal := strings.Cut(name, ":"); personal {
		return owner
	}
	return name
}

// account is the ledger's account that a caller means: a workload's wallet by its
// name, or any account as the books print it. Only who may act for everybody sees
// those that are nobody's own, or all at once.
func (s service) account(a actor, name string) (ledger.ID, error) {
	if name == "" && a.self != nil {
		name = a.self.name
	}
	kind, owner, personal := strings.Cut(name, ":")
	if !personal {
		kind, owner = "", name
	}
	if a.admin && a.self == nil {
		switch {
		case name == "":
			return ledger.ID{}, nil
		case personal:
			return ledger.NameID(name), nil
		case slices.Contains(impersonal, name):
			return ledger.NameID(name), nil
		}
		return ledger.Wallet(name).ID, nil
	}
	if name == "" {
		return ledger.ID{}, connect.NewError(connect.CodePermissionDenied, errors.New("all postings are for admins; name one of your workloads"))
	}
	if id, mine := s.ownAccount(a, name); mine {
		return id, nil
	}
	if _, err := s.visible(a, owner); err != nil && s.grave(a, owner) == nil {
		return ledger.ID{}, noSuch(owner)
	}
	if kind == "" {
		return ledger.Wallet(owner).ID, nil
	}
	return ledger.NameID(name), nil
}

// impersonal are the accounts of nobody in particular.
var impersonal = []string{"mint", "heat", "entropy", "treasury", "system", "loss"}

// Explain implements MarketService.
func (s service) Explain(ctx context.Context, req *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	a, err := s.actor(ctx)
	if err != nil {
		return nil, err
	}
	mem, err := s.visible(a, req.GetName())
	if err != nil {
		if mem = s.grave(a, req.GetName()); mem == nil {
			return nil, err
		}
		return &v1.ExplainResponse{Verdict: demon.VerdictDead.String(), Workload: s.m.lastStatement(mem), Price: s.m.view().GetPrice()}, nil
	}
	if !a.fresh() {
		if out := s.m.recentlyExplained(mem); out != nil {
			return out, nil
		}
	}
	out, known := s.m.explain(a, mem)
	if !known {
		return nil, noSuch(req.GetName())
	}
	if !a.fresh() {
		out = s.m.rememberExplained(mem, out)
	}
	return out, nil
}

// explain says of a living workload what it gets and why.
func (m *Market) explain(a actor, mem *member) (*v1.ExplainResponse, bool) {
	var x demon.Explanation
	var line demon.Line
	known := false
	m.loop.do(func() {
		if m.loop.has(mem) {
			x, known = m.loop.demon.Explain(mem.slot)
			line, _ = m.loop.demon.LineOf(mem.slot)
		}
	})
	if !known {
		return nil, false
	}
	needed := x.Needed
	if !a.fresh() { // what others bid is theirs: told as coarsely as it is of use
		needed = coarse(needed)
	}
	if line.Enforce != demon.EnforceOn {
		x.Verdict = demon.VerdictObserved
	}
	return &v1.ExplainResponse{
		Verdict: x.Verdict.String(), Workload: m.discreet(a, m.workload(&line, mem)), Price: m.view().GetPrice(),
		WantedMilli: int64(x.Wanted), GotMilli: int64(x.Got), NeededBidMilli: int64(needed), Rank: int32(x.Rank), Ranked: int32(x.Ranked),
		ReserveMilli: int64(x.Reserve), LastsNs: int64(x.Lasts), PacedUcreditsPerS: int64(x.Paced),
		SupplyMilli: int64(x.Supply), OthersMilli: int64(x.Others),
	}, true
}

// coarse rounds a price up to a quarter of an octave of 1x.
func coarse(p unit.Price) unit.Price {
	if p <= 0 {
		return p
	}
	steps := math.Ceil(4*math.Log2(float64(p)/1000) - 1e-9)
	return unit.Price(math.Ceil(1000 * math.Exp2(steps/4)))
}
