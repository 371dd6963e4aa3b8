package report

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Statement is the whole account of a market: the document of `up --json`.
// Every number is an integer in the unit its key names; sigma is a fraction.
type Statement struct {
	Node      Node       `json:"node"`
	Price     Price      `json:"price"`
	Workloads []Workload `json:"workloads"`
	Ledger    Ledger     `json:"ledger"`
}

// Node is what the machine burned, and how that is known.
type Node struct {
	Enforcement  string           `json:"enforcement"`
	EnergySource string           `json:"energy_source"`
	Modelled     bool             `json:"modelled"`
	Sigma        Fraction         `json:"sigma"`
	Epochs       int64            `json:"epochs"`
	EpochUS      int64            `json:"epoch_us"`
	Misdelivery  unit.PPM         `json:"misdelivery_ppm"`
	Energy       unit.Microjoules `json:"energy_uj"`
	Attributed   unit.Microjoules `json:"attributed_uj"`
	System       unit.Microjoules `json:"system_uj"`
	Idle         unit.Microjoules `json:"idle_uj"`
	Unattributed unit.Microjoules `json:"unattributed_uj"`
	Cores        unit.MilliCores  `json:"cores_milli"`
	Power        unit.Microwatts  `json:"power_uw"`
	Allowance    unit.Microwatts  `json:"allowance_uw"`
	Caveat       string           `json:"caveat"` // what this enforcement cannot hold
}

// Price is the market's price at the end.
type Price struct {
	Base     unit.Rate  `json:"base_ucredits_per_core_s"`
	Spot     unit.Price `json:"spot_x_milli"`
	SpotPeak unit.Price `json:"spot_peak_x_milli"`
}

// Workload is one wallet: what it had, spent, burned and did.
type Workload struct {
	Name       string           `json:"name"`
	State      string           `json:"state"`
	Reason     string           `json:"reason"`    // "" while it lives
	ExitCode   *int             `json:"exit_code"` // null while it lives
	ChildExit  *int             `json:"child_exit"`
	Budget     unit.Credits     `json:"budget_ucredits"` // of an open wallet: minted so far
	Income     unit.Credits     `json:"income_ucredits"`
	Spent      unit.Credits     `json:"spent_ucredits"`
	EnergyCost unit.Credits     `json:"energy_ucredits"`
	Rent       unit.Credits     `json:"rent_ucredits"`
	Erasure    unit.Credits     `json:"erasure_ucredits"`
	Other      unit.Credits     `json:"other_ucredits"`
	Deposit    unit.Credits     `json:"deposit_ucredits"`
	Balance    unit.Credits     `json:"balance_ucredits"`
	Energy     unit.Microjoules `json:"energy_uj"`
	CPU        unit.CoreTime    `json:"cpu_ns"`
	Wait       unit.CoreTime    `json:"wait_ns"`
	Erased     *unit.Bytes      `json:"erased_bytes"` // null until something measures it
	PeakMemory unit.Bytes       `json:"peak_memory_bytes"`
	Work       int64            `json:"work"`
	WorkKind   string           `json:"work_kind"`
	Open       bool             `json:"open"` // no budget was set
	Loss       unit.Credits     `json:"loss_ucredits"`
	LastPrice  unit.Price       `json:"last_price_x_milli"`
	Payer      string           `json:"wallet"` // the standing wallet that pays it; "" if none does
	Draws      bool             `json:"draws"`  // it has no budget of its own and spends from there
}

// Ledger is the books: every account's balance; they sum to zero.
type Ledger struct {
	Minted   unit.Credits            `json:"minted_ucredits"`
	Accounts map[string]unit.Credits `json:"accounts"`
	Sum      unit.Credits            `json:"sum_ucredits"`
}

// WriteJSON writes the statement as one object and a newline.
func (s *Statement) WriteJSON(w io.Writer) error {
	c := *s
	if c.Workloads == nil {
		c.Workloads = []Workload{}
	}
	if c.Ledger.Accounts == nil {
		c.Ledger.Accounts = map[string]unit.Credits{}
	}
	return writeJSON(w, &c)
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// unattributedLimit is the share of a node's measured energy that may belong
// to nobody; where energy is modelled the band itself is the limit.
const unattributedLimit unit.PPM = 10_000

// Check returns the first identity that does not hold, with its numbers.
func (s *Statement) Check() error {
	if err := s.Node.check(); err != nil {
		return err
	}
	var burned unit.Microjoules
	for i := range s.Workloads {
		if err := s.Workloads[i].check(); err != nil {
			return err
		}
		burned += s.Workloads[i].Energy
	}
	if burned > s.Node.Attributed {
		return fmt.Errorf("workloads burned %d uJ of %d uJ attributed", burned, s.Node.Attributed)
	}
	return s.Ledger.check()
}

func (n *Node) check() error {
	parts := n.Attributed + n.System + n.Idle + n.Unattributed
	if parts != n.Energy {
		return fmt.Errorf("node energy %d uJ is not attributed %d + system %d + idle %d + unattributed %d uJ",
			n.Energy, n.Attributed, n.System, n.Idle, n.Unattributed)
	}
	limit := unattributedLimit
	if n.Modelled {
		limit = max(limit, unit.PPM(n.Sigma))
	}
	rest := max(n.Unattributed, -n.Unattributed)
	if rest > unit.Microjoules(unit.MulDiv(int64(max(n.Energy, 0)), int64(limit), int64(unit.One))) {
		return fmt.Errorf("unattributed %d uJ is more than %s of %d uJ", n.Unattributed, limit, n.Energy)
	}
	return nil
}

func (w *Workload) check() error {
	parts := w.EnergyCost + w.Rent + w.Erasure + w.Other
	switch {
	case parts != w.Spent:
		return fmt.Errorf("%s: spent %d is not energy %d + rent %d + erasure %d + other %d micro-$J",
			w.Name, w.Spent, w.EnergyCost, w.Rent, w.Erasure, w.Other)
	case w.Spent > w.Budget+w.Income:
		return fmt.Errorf("%s: spent %d of budget %d + income %d micro-$J", w.Name, w.Spent, w.Budget, w.Income)
	case w.Balance < 0 || w.Deposit < 0 || w.Energy < 0 || w.CPU < 0:
		return fmt.Errorf("%s: negative: balance %d, deposit %d, energy %d, cpu %d", w.Name, w.Balance, w.Deposit, w.Energy, w.CPU)
	}
	return nil
}

func (l *Ledger) check() error {
	var total unit.Credits
	for _, v := range l.Accounts {
		total += v
	}
	if total != l.Sum || l.Sum != 0 {
		return fmt.Errorf("accounts sum to %d and the ledger says %d micro-$J; both are 0", total, l.Sum)
	}
	return nil
}
