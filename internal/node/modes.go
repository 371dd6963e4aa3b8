package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
)

// How far the market goes with a workload is said by the newest of: its rule, the
// verb that attached it, maxwell enforce NAME. Over all of them is the ceiling, which
// disarms the whole market at once and forgets nothing of what was said.

// ceiling is the ceiling in the journal.
type ceiling struct {
	Most demon.Enforce `json:"most"`
}

func (c *ceiling) encode() ([]byte, error) { return json.Marshal(c) }

func ceilingNote(most demon.Enforce) note {
	n := note{ref: journal.Ref{Kind: ofCeiling, Key: ofCeiling}}
	if most != demon.EnforceOn {
		n.body = &ceiling{most}
	}
	return n
}

// reach orders the modes by what they do.
func reach(e demon.Enforce) int {
	return slices.Index([]demon.Enforce{demon.EnforceObserve, demon.EnforceWarn, demon.EnforceOn}, e)
}

// under is a mode below the market's ceiling.
func (m *Market) under(mode demon.Enforce) demon.Enforce {
	m.mu.Lock()
	defer m.mu.Unlock()
	if reach(m.ceiling) < reach(mode) {
		return m.ceiling
	}
	return mode
}

// govern makes the market go as far with a workload as its mode and the ceiling say.
// Called on the loop's thread.
func (l *loop) govern(mem *member) error {
	mode := l.m.under(mem.mode)
	guest, is := mem.group.(dispatch.Guest)
	is = is && mem.guest != ""
	if is && mode == demon.EnforceOn {
		// First, so that the demon finds it where it can be held.
		if err := guest.Govern(true); err != nil {
			return err
		}
	}
	if err := l.demon.SetEnforce(mem.slot, mode); err != nil {
		return err
	}
	mem.observed.Store(mem.guest != "" && mode != demon.EnforceOn)
	if is && mode != demon.EnforceOn {
		return guest.Govern(false)
	}
	return nil
}

// SetEnforce implements MarketService.
func (s service) SetEnforce(ctx context.Context, req *v1.SetEnforceRequest) (*v1.SetEnforceResponse, error) {
	a, err := s.actor(ctx)
	if err == nil {
		err = a.outside("change how far the market goes")
	}
	if err != nil {
		return nil, err
	}
	if !a.admin {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("how far the market goes is for admins to say; ask one"))
	}
	if !s.m.durable() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("a market that ends with its clients enforces always; start one with maxwell daemon"))
	}
	if out, known := answered[*v1.SetEnforceResponse](&s.m.answers, a.uid, req); known {
		return out, s.m.settled(ctx)
	}
	mode, ok := demon.ParseEnforce(req.GetEnforce())
	switch {
	case !ok:
		return nil, refused(&demon.Refusal{What: "enforce", Reason: fmt.Sprintf("%q: write observe, warn or on", req.GetEnforce())})
	case req.GetAll() == (req.GetName() != ""):
		return nil, refused(&demon.Refusal{What: "name", Reason: "name one workload, or all of them"})
	case req.GetAll():
		out, err := mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.SetEnforceResponse, error) { return l.setCeiling(mode) })
		s.m.loop.through(func() {}) // until weights are back
		return out, err
	}
	mem, err := s.visible(a, req.GetName())
	if err != nil {
		return nil, err
	}
	out, err := mutate(ctx, s.m, a.uid, req, func(l *loop) (*v1.SetEnforceResponse, error) {
		if err := l.still(mem); err != nil {
			return nil, err
		}
		was := mem.mode
		mem.mode = mode
		if err := l.govern(mem); err != nil {
			mem.mode = was
			if _, ok := errors.AsType[*cgroup.GuestError](err); ok {
				err = connect.NewError(connect.CodeFailedPrecondition, err)
			}
			return nil, err
		}
		l.m.log.Info("enforcement", "workload", mem.name, "mode", mode.String())
		return &v1.SetEnforceResponse{Enforce: l.m.under(mode).String(), Workloads: 1}, nil
	})
	s.m.loop.through(func() {})
	return out, err
}

// setCeiling is for the whole market, and for what comes into it later, also into
// the daemon's next process. Called on the loop's thread.
func (l *loop) setCeiling(most demon.Enforce) (*v1.SetEnforceResponse, error) {
	l.m.mu.Lock()
	l.m.ceiling = most
	l.m.mu.Unlock()
	out := &v1.SetEnforceResponse{Enforce: most.String()}
	for _, mem := range l.serials {
		if err := l.govern(mem); err != nil {
			l.m.fault("enforcement of "+mem.name, err) // the others first
			continue
		}
		out.Workloads++
	}
	l.m.log.Info("enforcement", "most", most.String(), "workloads", out.GetWorkloads())
	l.record(ceilingNote(most))
	return out, nil
}

// recast makes a workload of an earlier process go by the mode that holds now.
func (m *Market) recast(mem *member, a *alive) {
	mode := m.under(mem.mode)
	if a.Saved.Terms.Enforce != mode {
		a.Saved.Terms.Enforce = mode
		a.Saved.WouldHave.Still = false // it is stopped now, or it would not be
	}
	mem.observed.Store(mem.guest != "" && mode != demon.EnforceOn)
}

// reruled gives a guest of an earlier process what its rule says now, and reports
// whether it has one. What the rule has not changed stays as a person has set it.
func (m *Market) reruled(mem *member, a *alive) bool {
	if a.Client != byRule {
		return true
	}
	rule, subject, known := m.ruleOf(a.Guest)
	switch {
	case !known:
		return true // as it was
	case rule == nil:
		return false
	}
	now, err := m.termsOf(rule, subject)
	if err != nil {
		m.fault("rule of "+mem.name, err)
		return true // as it was
	}
	t := &a.Saved.Terms
	was := mem.ruled
	if was == nil { // of a Maxwell that did not remember it
		was = t
	}
	if now.Enforce != was.Enforce {
		mem.mode = now.Enforce
	}
	if now.Bid != was.Bid && !t.Auto && !now.Auto {
		t.Bid = now.Bid
	}
	if now.MaxBid != was.MaxBid {
		t.MaxBid = now.MaxBid
	}
	t.Cores, t.Memory, t.Pids, t.Policy.WhenBroke = now.Cores, now.Memory, now.Pids, now.Policy.WhenBroke
	mem.limits = dispatch.Limits{Memory: t.Memory, Pids: t.Pids, Cores: t.Cores}
	mem.ruled = &now
	return true
}

// letGo is a group that was let go, in the journal.
type letGo struct {
	ID uint64 `json:"group_id"`
}

func (g *letGo) encode() ([]byte, error) { return json.Marshal(g) }

// readModes reads what holds beside the workloads: the ceiling, and the groups that
// were let go and are still there.
func (p *past) readModes() error {
	p.gone = make(map[string]uint64)
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofReleased}) {
		var g letGo
		if err == nil {
			err = json.Unmarshal(d.Body, &g)
		}
		if err != nil {
			return fmt.Errorf("read released group %s: %w", d.Key, err)
		}
		if p.boot {
			p.gone[d.Key] = g.ID
		} else { // the id is another group's, if it is one's
			p.stale = append(p.stale, d.Key)
		}
	}
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofCeiling, Key: ofCeiling}) {
		var c ceiling
		if err == nil {
			err = json.Unmarshal(d.Body, &c)
		}
		if err != nil {
			return fmt.Errorf("read the ceiling of enforcement: %w", err)
		}
		p.most = c.Most
	}
	return nil
}
