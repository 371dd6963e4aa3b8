package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// OfWorkload is the kind of a wallet that is born and dies with a workload.
const OfWorkload = "workload"

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

	long string // the state with its reason
	peak unit.Price
}

// Wallet is the workload's wallet.
func (d *Detail) Wallet() Wallet {
	w := Wallet{
		Name: d.Name, Kind: OfWorkload, State: d.State, Open: d.Open, Budget: d.Budget, Income: d.Income, Spent: d.Spent,
		EnergyCost: d.EnergyCost, Rent: d.Rent, Erasure: d.Erasure, Other: d.Other, Deposit: d.Deposit, Balance: d.Balance, Loss: d.Loss,
		long: d.stateText(), peak: d.SpotPeak,
	}
	if d.Dead() && !d.Open {
		w.Balance = d.Budget + d.Income - d.Spent
	}
	return w
}

func (w *Wallet) state() string {
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

// Wallets is the table of `wallet ls`.
func Wallets(list []Wallet, width int) []string {
	rows := make([][]string, len(list))
	for i := range list {
		w := &list[i]
		rows[i] = []string{
			printable(w.Name), printable(w.Kind), w.state(), trimMoney(w.Budget), trimMoney(w.Income), trimMoney(w.Spent), trimMoney(w.Deposit), w.left(),
		}
	}
	return fit(walletColumns, rows, width)
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
	var b strings.Builder
	left := "no end: the wallet is open, money is minted as it is used"
	if !w.Open {
		left = w.left() + " $J"
	}
	fmt.Fprintf(&b, "wallet   %s (%s), %s\n", printable(w.Name), printable(w.Kind), w.state())
	fmt.Fprintf(&b, "had      %s budget + %s income\n", w.Budget.Short(), w.Income.Short())
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
