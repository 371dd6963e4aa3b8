package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/internal/work"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// priced runs the fleet in a market of its own: everybody has the same money
// and the same bid, and only the scientist earns.
type priced struct {
	*contest
	join    func(ctx context.Context, o opening) (session, error)
	enforce string
	bid     unit.Price
	income  unit.Credits
	share   unit.PPM // of the core that the machine leaves to the fleet

	market      session
	endowment   unit.Credits
	enforcement string
	modelled    bool
	sigma       report.Fraction
	began       time.Time
	alive       map[string]bool
	atDeath     *report.Tally
	diedAt      time.Duration
	scientist   string
}

// shareTime is how long an endowment lasts at an equal share of the core and
// the crowded price: long enough to compete, short enough to die in any run.
const shareTime = 2 * time.Second

// endow sizes the endowment from the market's base price: an equal share, for
// shareTime at the price of the bid, of what the core leaves to the fleet, on
// top of the deposit that the market locks, and never below what it admits
// (twice the deposit). The deposit does not grow with spot here: it bounds rent
// by a doubling of spot, and the bid is at most twice the base price.
func endow(base unit.Rate, bid unit.Price, fleetSize int, share unit.PPM, deposit unit.Credits) unit.Credits {
	crowded := unit.MulDivCeil(int64(base), int64(bid), 1000)
	whole := unit.MulDivCeil(crowded, int64(shareTime), int64(time.Second)*int64(fleetSize))
	return max(deposit+unit.Credits(unit.MulDivCeil(whole, int64(share), int64(unit.One))), 2*deposit)
}

func (p *priced) Start(ctx context.Context) error {
	var err error
	p.began = time.Now()
	p.market, err = p.join(ctx, opening{client: "experiment", enforce: p.enforce, machine: fleet.Node{Cores: unit.Core}})
	if err != nil {
		return err
	}
	n := p.market.Node()
	p.enforcement, p.modelled, p.sigma = n.GetEnforcement(), n.GetModelled(), report.Fraction(n.GetSigmaPpm())
	if n.GetCoresMilli() != int64(unit.Core) {
		return errors.New("another market runs on this machine and sells more than one core; end it first")
	}
	before, err := p.market.Snapshot(ctx, true)
	if err != nil {
		return err
	}
	if p.endowment, err = p.size(ctx, unit.Rate(before.GetPrice().GetBaseUcreditsPerCoreS())); err != nil {
		return err
	}
	p.alive = make(map[string]bool)
	p.began = time.Now()
	for i := range p.leeches + 1 {
		if err := p.spawn(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// size asks the market for its deposit by admitting a trial command that ends
// at once, then sizes the endowment.
func (p *priced) size(ctx context.Context, base unit.Rate) (unit.Credits, error) {
	trial := fleet.New("trial", p.command("hash")...)
	trial.Bid.Price = p.bid
	trial.Budget = 100 * endow(base, p.bid, 1, unit.One, 0)
	j, err := p.job(&trial, "--units", "1")
	if err != nil {
		return 0, err
	}
	r, err := p.market.Start(ctx, j)
	if err != nil {
		return 0, fmt.Errorf("start trial: %w", err)
	}
	snapshot, err := p.market.Snapshot(ctx, true)
	if err != nil {
		return 0, err
	}
	var deposit unit.Credits
	for _, w := range snapshot.GetWorkloads() {
		if w.GetName() == r.Wallet() {
			deposit = unit.Credits(w.GetDepositUcredits())
		}
	}
	for done := false; !done; {
		select {
		case <-r.Done():
			done = true
		case <-p.market.Events():
		}
	}
	if _, err := r.Result(); err != nil {
		return 0, err
	}
	if deposit <= 0 {
		return 0, errors.New("the market names no deposit; the experiment cannot size its endowments")
	}
	return endow(base, p.bid, p.leeches+1, p.share, deposit), nil
}

func (p *priced) job(w *fleet.Workload, more ...string) (job, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return job{}, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	args := append(slices.Clip(w.Command), more...)
	return job{terms: terms(w), spec: launch.Spec{Args: args, Env: p.environ, Files: [3]*os.File{null, null, null}}}, nil
}

func (p *priced) spawn(ctx context.Context, i int) error {
	w := fleet.New("scientist", p.command("primes")...)
	if i > 0 {
		w = fleet.New(fmt.Sprintf("leech-%d", i), p.command("hash")...)
	} else {
		w.Income = fleet.Income{Per: work.PrimeBatch, Amount: p.income}
	}
	w.Budget, w.Bid.Price, w.Grace = p.endowment, p.bid, 0
	j, err := p.job(&w)
	if err != nil {
		return err
	}
	defer j.spec.Files[0].Close()
	r, err := p.market.Start(ctx, j)
	if err != nil {
		return err
	}
	if i == 0 {
		p.scientist = r.Wallet()
	} else {
		p.alive[r.Wallet()] = true
	}
	return nil
}

func (p *priced) Wait(ctx context.Context, d time.Duration) error {
	over := time.After(d)
	for {
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-p.market.Events():
			if !open {
				return errors.New("the market ended unexpectedly")
			}
			if err := p.event(ctx, e); err != nil {
				return err
			}
		}
	}
}

// event notes the moment at which the last leech was buried.
func (p *priced) event(ctx context.Context, e *v1.Event) error {
	if e.GetKind() != "dead" || !p.alive[e.GetWorkload()] {
		return nil
	}
	if e.GetReason() != "insolvent" {
		return fmt.Errorf("%s ended by itself: %s", e.GetWorkload(), e.GetReason())
	}
	delete(p.alive, e.GetWorkload())
	if len(p.alive) > 0 {
		return nil
	}
	now, err := p.market.Snapshot(ctx, true)
	if err != nil {
		return err
	}
	p.atDeath = new(p.tally(now))
	p.diedAt = time.Since(p.began)
	return nil
}

// tally sums the fleet up: the scientist's work, everybody's energy and time.
func (p *priced) tally(s *v1.Snapshot) report.Tally {
	var t report.Tally
	for _, w := range s.GetWorkloads() {
		if w.GetName() == p.scientist {
			t.Work += w.GetWork()
		} else if w.GetName() == "trial" {
			continue
		}
		t.Energy += unit.Microjoules(w.GetEnergyUj())
		t.CPU += unit.CoreTime(w.GetCpuNs())
	}
	return t
}

// minAfter is the shortest time after the last death that is worth a ratio:
// work is reported every 50 ms, so a second is known to a tenth at worst.
const minAfter = time.Second

// Stop takes the tally while everybody still runs and reports, then ends them:
// what is burned while dying is nobody's work.
func (p *priced) Stop() (armResult, error) {
	if p.market == nil {
		return armResult{}, nil
	}
	ctx := context.Background()
	length := time.Since(p.began)
	end, err := p.market.Snapshot(ctx, true)
	_, leaveErr := p.market.Leave(ctx)
	if err = errors.Join(err, leaveErr); err != nil {
		return armResult{}, err
	}
	return p.result(p.tally(end), length), nil
}

// result is the arm's tally after length; after is what came after the last
// death, if all died early enough.
func (p *priced) result(total report.Tally, length time.Duration) armResult {
	r := armResult{Tally: total, diedAt: p.diedAt}
	switch {
	case p.atDeath == nil:
		r.noAfter = fmt.Sprintf("%d of %d leeches were not yet broke and gone at the end", len(p.alive), p.leeches)
	case length-p.diedAt < minAfter:
		r.noAfter = fmt.Sprintf("the last leech died only %v before the end", (length - p.diedAt).Round(time.Millisecond))
	default:
		r.after = new(total.Since(*p.atDeath))
	}
	return r
}
