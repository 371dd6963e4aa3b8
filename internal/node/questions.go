package node

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

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
	// A wallet that stands: all of it is its owner's.
	stands, own := s.m.ownsWallet(a, strings.TrimPrefix(req.GetAccount(), ledger.KindWallet.String()+":"))
	if !a.fresh() {
		q.Limit = 0
		if !own {
			ids = s.lives(a, s.owner(a, req.GetAccount()))
		}
	}
	out := &v1.PostingsResponse{}
	for p, err := range s.m.keeper.store.Transfers(q) {
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		if own && !a.fresh() && p.Wall.Before(stands.created) {
			continue // of a workload that had the name before
		}
		if ids != nil && !ids[demon.Owner(p.UserData)] {
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
