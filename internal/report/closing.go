package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// WriteClosing writes the statement for people: who spent what on what, where
// the joules went, and that the books are even.
func (s *Statement) WriteClosing(w io.Writer, wall time.Duration) error {
	var b strings.Builder
	n := &s.Node
	fmt.Fprintf(&b, "maxwell: %s after %s\n", workloads(len(s.Workloads)), unit.ShortDuration(wall))
	cells := [][]string{{"NAME", "END", "SPENT $J", "= ENERGY", "+ SCARCITY", "+ ERASURE", "+ OTHER", "EARNED", "LEFT", "JOULES", "CORE-S", "WORK"}}
	for i := range s.Workloads {
		cells = append(cells, s.Workloads[i].closing())
	}
	for _, line := range align(withoutNothing(cells), 2) {
		b.WriteString("  " + line + "\n")
	}
	fmt.Fprintf(&b, "  energy   %s (%s) = %s\n", n.Energy.Short(), Band(n.Modelled, n.Sigma), n.parts())
	fmt.Fprintf(&b, "  books    minted %s; %s; sum %s\n", s.Ledger.Minted.Short(), s.Ledger.held(), s.Ledger.Sum.Short())
	fmt.Fprintf(&b, "  market   %s enforcement, %s epochs of %s, spot up to %s, %s of time out of order\n", n.Enforcement, grouped(n.Epochs),
		unit.ShortDuration(time.Duration(n.EpochUS)*time.Microsecond), max(s.Price.Spot, s.Price.SpotPeak).Short(), n.Misdelivery.Short())
	if s.earned() {
		b.WriteString("  earned   is paid for work that the workloads report about themselves\n")
	}
	if n.Caveat != "" {
		caveat := n.Caveat
		if len(caveat) > screenWidth { // several, a line each
			caveat = strings.ReplaceAll(caveat, "; ", "\n           ")
		}
		fmt.Fprintf(&b, "  caveat   %s\n", caveat)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// withoutNothing leaves out the columns that say nothing: parts of the cost, income
// and work that nobody has. The first row has the heads.
func withoutNothing(cells [][]string) [][]string {
	drop := make([]bool, len(cells[0]))
	for i, head := range cells[0] {
		switch head {
		case "+ SCARCITY", "+ ERASURE", "+ OTHER", "EARNED", "WORK":
			drop[i] = !slices.ContainsFunc(cells[1:], func(row []string) bool { return row[i] != "0" && row[i] != "-" })
		}
	}
	out := make([][]string, len(cells))
	for y, row := range cells {
		for i, cell := range row {
			if !drop[i] {
				out[y] = append(out[y], cell)
			}
		}
	}
	return out
}

func workloads(n int) string {
	if n == 1 {
		return "1 workload"
	}
	return grouped(int64(n)) + " workloads"
}

func (s *Statement) earned() bool {
	return slices.ContainsFunc(s.Workloads, func(w Workload) bool { return w.Income > 0 })
}

func (n *Node) parts() string {
	return fmt.Sprintf("%s workloads + %s system + %s idle + %s unattributed",
		n.Attributed.Short(), n.System.Short(), n.Idle.Short(), n.Unattributed.Short())
}

func (w *Workload) closing() []string {
	whole, parts := sum(w.Spent, []unit.Credits{w.EnergyCost, w.Rent, w.Erasure, w.Other})
	end := w.State
	if w.Reason != "" {
		end = w.Reason
	}
	if w.ExitCode != nil {
		end += fmt.Sprintf(" (exit %d)", *w.ExitCode)
	}
	left := "open"
	if !w.Open {
		left = trimMoney(w.Budget + w.Income - w.Spent)
	}
	return []string{
		w.Name, end, strings.TrimSuffix(whole, " $J"), parts[0], parts[1], parts[2], parts[3], trimMoney(w.Income), left,
		strings.TrimSuffix(w.Energy.Short(), " J"), strings.TrimSuffix(w.CPU.Short(), " core-s"), workText(w.Work, w.WorkKind),
	}
}

// trimMoney is an amount without its unit, for a column that names it.
func trimMoney(c unit.Credits) string {
	return strings.TrimSpace(strings.TrimSuffix(c.Short(), "$J"))
}

// held lists what the accounts that are not wallets hold, in one order.
func (l *Ledger) held() string {
	var wallets unit.Credits
	named := map[string]unit.Credits{}
	for name, v := range l.Accounts {
		switch {
		case name == "mint":
		case strings.HasPrefix(name, "wallet:"), strings.HasPrefix(name, "deposit:"):
			wallets += v
		default:
			named[name] += v
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if named[name] != 0 {
			out = append(out, name+" "+named[name].Short())
		}
	}
	return strings.Join(append(out, "wallets "+wallets.Short()), ", ")
}
