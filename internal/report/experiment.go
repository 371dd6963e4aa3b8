package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Tally is what one arm did: finished work of the earner, and the energy and
// core time of the whole fleet, parasites included.
type Tally struct {
	Work   int64
	Energy unit.Microjoules
	CPU    unit.CoreTime
}

// Add returns both tallies together.
func (t Tally) Add(u Tally) Tally {
	return Tally{t.Work + u.Work, t.Energy + u.Energy, t.CPU + u.CPU}
}

// Since returns what was done after an earlier reading of the same arm.
func (t Tally) Since(earlier Tally) Tally {
	return Tally{t.Work - earlier.Work, t.Energy - earlier.Energy, t.CPU - earlier.CPU}
}

// PerJoule is finished work per joule; 0 when no energy was used.
func (t Tally) PerJoule() float64 {
	if t.Energy <= 0 {
		return 0
	}
	return float64(t.Work) / (float64(t.Energy) / 1e6)
}

// MarshalJSON adds the quotient to the sums it is made of.
func (t Tally) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Work     int64            `json:"work"`
		Energy   unit.Microjoules `json:"energy_uj"`
		CPU      unit.CoreTime    `json:"cpu_ns"`
		PerJoule float64          `json:"work_per_joule"`
	}{t.Work, t.Energy, t.CPU, t.PerJoule()})
}

// Arms are the four ways to run the same fleet.
type Arms struct {
	Stock   Tally `json:"stock"`
	Oracle  Tally `json:"oracle"`
	Quota   Tally `json:"quota"`
	Maxwell Tally `json:"maxwell"`
}

// Round is one pass over the four arms.
type Round struct {
	Arms
	// After is the part of Maxwell's arm after the last leech died; nil when
	// one was still alive at the end, and then NoAfter says which or why.
	After   *Tally
	NoAfter string
	DiedAt  time.Duration // when the last leech died, from the start of the arm
}

// Plan is what was run.
type Plan struct {
	Leeches     int
	Rounds      int
	Length      time.Duration // of one arm in one round
	Endowment   unit.Credits  // of each workload
	Bid         unit.Price
	Enforcement string
	Quota       string // how the quota arm was enforced
	Modelled    bool
	Sigma       Fraction
}

// Experiment is the result over all rounds. Ratios compare work per joule of
// sums over rounds, so that a reader can recompute them from Arms.
type Experiment struct {
	Plan    Plan
	Arms    Arms
	After   *Tally
	NoAfter string
	Rounds  []Round
}

// Compare sums the rounds. After exists only if in every round every leech
// went broke and died, and something was measured afterwards.
func Compare(plan Plan, rounds []Round) Experiment {
	e := Experiment{Plan: plan, Rounds: rounds}
	after := new(Tally{})
	for i := range rounds {
		r := &rounds[i]
		e.Arms.Stock = e.Arms.Stock.Add(r.Stock)
		e.Arms.Oracle = e.Arms.Oracle.Add(r.Oracle)
		e.Arms.Quota = e.Arms.Quota.Add(r.Quota)
		e.Arms.Maxwell = e.Arms.Maxwell.Add(r.Maxwell)
		switch {
		case after == nil:
		case r.After == nil:
			after, e.NoAfter = nil, fmt.Sprintf("round %d: %s", i+1, r.NoAfter)
		default:
			after = new(after.Add(*r.After))
		}
	}
	if after != nil && (len(rounds) == 0 || after.Energy <= 0) {
		after, e.NoAfter = nil, "nothing was measured after the last leech died"
	}
	e.After = after
	return e
}

// quotient is a/b, nil where b is nothing.
func quotient(a, b float64) *float64 {
	if b <= 0 {
		return nil
	}
	return new(a / b)
}

// Ratio is Maxwell's work per joule over the stock scheduler's, whole run.
func (e *Experiment) Ratio() *float64 {
	return quotient(e.Arms.Maxwell.PerJoule(), e.Arms.Stock.PerJoule())
}

// RatioAfter is the same after the last leech died; nil unless all went broke.
func (e *Experiment) RatioAfter() *float64 {
	if e.After == nil {
		return nil
	}
	return quotient(e.After.PerJoule(), e.Arms.Stock.PerJoule())
}

// OracleShare is Maxwell's work per joule after the last leech died over that
// of an operator who knew the leeches; nil unless all went broke.
func (e *Experiment) OracleShare() *float64 {
	if e.After == nil {
		return nil
	}
	return quotient(e.After.PerJoule(), e.Arms.Oracle.PerJoule())
}

// WriteJSON writes the result as one object and a newline.
func (e *Experiment) WriteJSON(w io.Writer) error {
	type round struct {
		Arms    Arms   `json:"arms"`
		After   *Tally `json:"after"`
		NoAfter string `json:"no_after"`
		DiedAt  int64  `json:"died_at_ns"`
	}
	rounds := make([]round, len(e.Rounds))
	for i, r := range e.Rounds {
		rounds[i] = round{r.Arms, r.After, r.NoAfter, int64(r.DiedAt)}
	}
	return writeJSON(w, struct {
		Arms        Arms         `json:"arms"`
		Ratio       *float64     `json:"ratio"`
		RatioAfter  *float64     `json:"ratio_after"`
		OracleShare *float64     `json:"oracle_share"`
		Modelled    bool         `json:"modelled"`
		Sigma       Fraction     `json:"sigma"`
		After       *Tally       `json:"after"`
		NoAfter     string       `json:"no_after"`
		Leeches     int          `json:"leeches"`
		Length      int64        `json:"length_ns"`
		Endowment   unit.Credits `json:"endowment_ucredits"`
		Bid         unit.Price   `json:"bid_x_milli"`
		Enforcement string       `json:"enforcement"`
		Quota       string       `json:"quota_enforcement"`
		SelfReport  bool         `json:"work_self_reported"`
		Rounds      []round      `json:"rounds"`
	}{
		e.Arms, e.Ratio(), e.RatioAfter(), e.OracleShare(), e.Plan.Modelled, e.Plan.Sigma, e.After, e.NoAfter,
		e.Plan.Leeches, int64(e.Plan.Length), e.Plan.Endowment, e.Plan.Bid, e.Plan.Enforcement, e.Plan.Quota, true, rounds,
	})
}

// WriteText writes the result for people: the whole run first, then what
// remains after the last leech died.
func (e *Experiment) WriteText(w io.Writer) error {
	p := &e.Plan
	var b strings.Builder
	fmt.Fprintf(&b, "scientist and %s on one core, %d rounds of %s an arm, energy %s\n", leeches(p.Leeches), p.Rounds, unit.ShortDuration(p.Length), Band(p.Modelled, p.Sigma))
	fmt.Fprintf(&b, "everybody: %s and a bid of %s; only the scientist earns, for work it reports itself\n\n", p.Endowment.Short(), p.Bid.Short())
	stock := e.Arms.Stock.PerJoule()
	cells := [][]string{{"WHOLE RUN", "WORK", "JOULES", "CORE-S", "WORK/J", "TO STOCK"}}
	for _, arm := range []struct {
		name string
		Tally
	}{
		{"stock scheduler", e.Arms.Stock},
		{"oracle (leeches set idle)", e.Arms.Oracle},
		{"equal quotas (" + p.Quota + ")", e.Arms.Quota},
		{"maxwell (" + p.Enforcement + ")", e.Arms.Maxwell},
	} {
		cells = append(cells, arm.cells(arm.name, stock))
	}
	cells = append(cells, []string{""}, []string{"AFTER THE LAST LEECH DIED"})
	if e.After != nil {
		cells = append(cells, e.After.cells("maxwell ("+p.Enforcement+")", stock))
	}
	for _, line := range align(cells, 1) {
		b.WriteString(line + "\n")
	}
	if e.After == nil {
		fmt.Fprintf(&b, "not measured: %s\n", e.NoAfter)
	}
	b.WriteByte('\n')
	e.verdict(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func leeches(n int) string {
	if n == 1 {
		return "1 leech"
	}
	return fmt.Sprintf("%d leeches", n)
}

func (t Tally) cells(name string, stock float64) []string {
	ratio := "-"
	if r := quotient(t.PerJoule(), stock); r != nil {
		ratio = fmt.Sprintf("%.2fx", *r)
	}
	return []string{
		name, grouped(t.Work), strings.TrimSuffix(t.Energy.Short(), " J"), strings.TrimSuffix(t.CPU.Short(), " core-s"),
		fmt.Sprintf("%.2f", t.PerJoule()), ratio,
	}
}

// verdict prints the ratios beside the limits they cannot pass: with n equal
// leeches the stock scheduler gives the scientist 1/(n+1) of the core.
func (e *Experiment) verdict(b *strings.Builder) {
	limit := e.Plan.Leeches + 1
	if r := e.Ratio(); r != nil {
		fmt.Fprintf(b, "whole run: %.2fx the work per joule of the stock scheduler (limit %dx, while the leeches have money it is nearer 1x)\n", *r, limit)
	}
	if r := e.RatioAfter(); r != nil {
		fmt.Fprintf(b, "after the last leech died: %.2fx (limit %dx)", *r, limit)
		if s := e.OracleShare(); s != nil {
			fmt.Fprintf(b, ", %.1f %% of the oracle's", *s*100)
		}
		b.WriteByte('\n')
	}
}
