package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Kinds of wallets.
const (
	OfWorkload = "workload" // born and dies with a workload
	Standing   = "standing" // a person's or a team's: opened and filled by hand, or by an allowance
)

// Wallet is an element of `wallet ls --json`.
type Wallet struct {
	Name       string       `json:"name"`
	Kind       string       `json:"kind"`
	State      string       `json:"state"` // of its workload
	Open       bool         `json:"open"`  // no budget: minted as used
	Budget     unit.Credits `json:"budget_ucredits"`
	Income     unit.Credits `json:"income_ucredits"`
	Spent      unit.Credits `json:"spent_ucredits"`
	EnergyCost unit.Credits `json:"energy_ucredits"`
	Rent       unit.Credits `json:"rent_ucredits"`
	Erasure    unit.Credits `json:"erasure_ucredits"`
	Other      unit.Credits `json:"other_ucredits"`
	Deposit    unit.Credits `json:"deposit_ucredits"`
	Balance    unit.Credits `json:"balance_ucredits"` // of a dead one: what it left
	Loss       unit.Credits `json:"loss_ucredits"`

	Parent    string        `json:"parent"` // standing: where its allowance comes from, "" for the mint; of a workload: that pays it
	UID       uint32        `json:"uid"`
	Allowance unit.Credits  `json:"allowance_ucredits"` // standing, from here on
	Every     time.Duration `json:"allowance_every_ns"`
	Most      unit.Credits  `json:"most_ucredits"` // that the allowance fills it to; 0: no end
	Created   int64         `json:"created_wall_ns"`

	Owner string `json:"-"` // UID by name, for people

	long  string // the state with its reason
	draws bool
	peak  unit.Price
	depth int
}

// Wallet is the workload's wallet.
func (d *Detail) Wallet() Wallet {
	w := Wallet{
		Name: d.Name, Kind: OfWorkload, State: d.State, Open: d.Open, Budget: d.Budget, Income: d.Income, Spent: d.Spent,
		EnergyCost: d.EnergyCost, Rent: d.Rent, Erasure: d.Erasure, Other: d.Other, Deposit: d.Deposit, Balance: d.Balance, Loss: d.Loss,
		Parent: d.Payer, UID: d.UID, draws: d.Draws, long: d.stateText(), peak: d.SpotPeak,
	}
	if d.Dead() && !d.Open {
		w.Balance = d.Budget + d.Income - d.Spent
	}
	return w
}

func (w *Wallet) state() string {
	if w.Kind == Standing {
		return "-"
	}
	if w.long != "" {
		return w.long
	}
	return printable(w.State)
}

func (w *Wallet) left() string {
	if w.Open {
		return "open"
	}
	return trimMoney(w.Balance)
}

var walletColumns = []column{
	{head: "NAME", gives: true},
	{head: "KIND", rank: 6},
	{head: "STATE", rank: 4},
	{head: "BUDGET", right: true, rank: 2},
	{head: "EARNED", right: true, rank: 5},
	{head: "SPENT", right: true, rank: 1},
	{head: "DEPOSIT", right: true, rank: 3},
	{head: "$J LEFT", right: true},
}

// allowanceColumn comes before what is left, where a wallet has an allowance.
var allowanceColumn = column{head: "ALLOWANCE", right: true, rank: 2}

// Wallets is the table of `wallet ls`: under each wallet those that it fills, and the
// workloads that it pays.
func Wallets(list []Wallet, width int) []string {
	list = tree(list)
	filled := slices.ContainsFunc(list, func(w Wallet) bool { return w.Allowance > 0 })
	columns := walletColumns
	last := len(columns) - 1
	if filled {
		columns = slices.Insert(slices.Clone(columns), last, allowanceColumn)
	}
	rows := make([][]string, len(list))
	for i := range list {
		w := &list[i]
		row := []string{strings.Repeat("  ", w.depth) + printable(w.Name), printable(w.Kind), w.state()}
		for _, c := range []unit.Credits{w.Budget, w.Income, w.Spent, w.Deposit} {
			text := trimMoney(c)
			if w.Kind == Standing {
				text = "-"
			}
			row = append(row, text)
		}
		if filled {
			row = append(row, w.allowance())
		}
		rows[i] = append(row, w.left())
	}
	return fit(columns, rows, width)
}

// allowance is "50k/day", as it is written.
func (w *Wallet) allowance() string {
	if w.Allowance == 0 {
		return "-"
	}
	a := unit.Allowance{Amount: w.Allowance, Every: w.Every}
	return strings.Replace(a.Short(), " $J", "", 1)
}

// tree is list with the children of each wallet under it, in the order in which they
// came. A parent that is not in the list is nobody's to see: its children come first.
func tree(list []Wallet) []Wallet {
	known := make(map[string]bool)
	for i := range list {
		if list[i].Kind == Standing {
			known[list[i].Name] = true
		}
	}
	out := make([]Wallet, 0, len(list))
	var under func(parent string, depth int)
	under = func(parent string, depth int) {
		for _, standing := range []bool{true, false} {
			for _, w := range list {
				up := w.Parent
				if !known[up] {
					up = ""
				}
				if (w.Kind == Standing) != standing || up != parent {
					continue
				}
				w.depth = depth
				out = append(out, w)
				if standing {
					under(w.Name, depth+1)
				}
			}
		}
	}
	under("", 0)
	return out
}

// WriteWallets writes wallets as one object: {"wallets":[...]}.
func WriteWallets(w io.Writer, list []Wallet) error {
	if list == nil {
		list = []Wallet{}
	}
	return WriteLine(w, map[string]any{"wallets": list})
}

// WriteJSON writes the wallet as one line.
func (w *Wallet) WriteJSON(out io.Writer) error { return WriteLine(out, w) }

// WriteText writes the wallet for people.
func (w *Wallet) WriteText(out io.Writer) error {
	if w.Kind == Standing {
		return w.writeStanding(out)
	}
	var b strings.Builder
	left := "no end: the wallet is open, money is minted as it is used"
	if !w.Open {
		left = w.left() + " $J"
	}
	fmt.Fprintf(&b, "wallet   %s (%s), %s\n", printable(w.Name), printable(w.Kind), w.state())
	switch {
	case w.draws:
		fmt.Fprintf(&b, "had      %s so far, as it spends, from wallet %s\n", w.Budget.Short(), printable(w.Parent))
	case w.Parent != "":
		fmt.Fprintf(&b, "had      %s budget from wallet %s + %s income\n", w.Budget.Short(), printable(w.Parent), w.Income.Short())
	default:
		fmt.Fprintf(&b, "had      %s budget + %s income\n", w.Budget.Short(), w.Income.Short())
	}
	e := End{Workload: Workload{Spent: w.Spent, EnergyCost: w.EnergyCost, Rent: w.Rent, Erasure: w.Erasure, Other: w.Other}, SpotPeak: w.peak}
	fmt.Fprintf(&b, "spent    %s\n", e.costs())
	if w.Deposit > 0 {
		fmt.Fprintf(&b, "deposit  %s for its own death; what is not needed is not spent\n", w.Deposit.Short())
	}
	fmt.Fprintf(&b, "left     %s\n", left)
	if w.Loss > 0 {
		fmt.Fprintf(&b, "loss     %s that it could not pay\n", w.Loss.Short())
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// writeStanding is WriteText of a standing wallet.
func (w *Wallet) writeStanding(out io.Writer) error {
	var b strings.Builder
	owner := fmt.Sprintf("user %d", w.UID)
	if w.Owner != "" {
		owner = printable(w.Owner)
	}
	fmt.Fprintf(&b, "wallet   %s (%s) of %s\n", printable(w.Name), printable(w.Kind), owner)
	fmt.Fprintf(&b, "income   %s\n", w.Terms())
	fmt.Fprintf(&b, "left     %s\n", w.Balance.Short())
	_, err := io.WriteString(out, b.String())
	return err
}

// Terms is "50k $J/day from org, until it has 100k $J".
func (w *Wallet) Terms() string {
	if w.Allowance == 0 {
		if w.Parent != "" {
			return "none; it belongs to " + printable(w.Parent)
		}
		return "none"
	}
	text := unit.Allowance{Amount: w.Allowance, Every: w.Every}.Short()
	if w.Parent != "" {
		text += " from " + printable(w.Parent)
	}
	if w.Most > 0 {
		text += ", until it has " + w.Most.Short()
	}
	return text
}
