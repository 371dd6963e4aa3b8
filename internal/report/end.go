package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Reasons that are not a stop: the command ended by itself.
const (
	Exited   = "exited"
	Signaled = "signaled"
)

// End is everything known about a workload that is over.
type End struct {
	Workload
	Command   []string
	Wall      time.Duration
	Retryable bool
	Remedy    string
	Modelled  bool
	Sigma     Fraction
	SpotPeak  unit.Price   // highest spot while it lived
	Least     unit.Credits // smallest budget the node would admit; 0 if unknown
}

// Stopped says that Maxwell ended it, not the command itself.
func (e *End) Stopped() bool {
	return e.Reason != Exited && e.Reason != Signaled && e.Reason != ""
}

func (e *End) exit() int {
	if e.ExitCode == nil {
		return 0
	}
	return *e.ExitCode
}

// WriteLines writes the closing lines of `maxwell run`. receipt is the file
// the receipt went to, or "".
func (e *End) WriteLines(w io.Writer, receipt string) error {
	var b strings.Builder
	if e.Stopped() {
		e.stoppedLine(&b, receipt)
	} else {
		e.exitedLines(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (e *End) stoppedLine(b *strings.Builder, receipt string) {
	fmt.Fprintf(b, "maxwell: %s stopped: %s (exit %d) after %s, %s; last price %s",
		e.Name, e.Reason, e.exit(), e.Energy.Short(), e.CPU.Short(), e.LastPrice.Short())
	if receipt != "" {
		fmt.Fprintf(b, "; receipt %s", receipt)
	}
	b.WriteByte('\n')
}

func (e *End) exitedLines(b *strings.Builder) {
	how := fmt.Sprintf("exited %d", e.exit())
	if e.Reason == Signaled {
		how = fmt.Sprintf("was ended by %s (exit %d)", signalName(e.exit()-128), e.exit())
	}
	name := e.Name
	if len(e.Command) > 0 {
		name = printable(e.Command[0][strings.LastIndexByte(e.Command[0], '/')+1:])
	}
	fmt.Fprintf(b, "maxwell: %s %s after %s\n", name, how, unit.ShortDuration(e.Wall))
	fmt.Fprintf(b, "  burned   %s (%s), %s, %s on average", e.Energy.Short(), Band(e.Modelled, e.Sigma), e.CPU.Short(), average(e.CPU, e.Wall))
	if e.PeakMemory > 0 {
		fmt.Fprintf(b, ", peak memory %s", e.PeakMemory.Short())
	}
	b.WriteString("\n  cost     " + e.costs() + "\n")
	switch {
	case e.Open:
		fmt.Fprintf(b, "  to cap it next time:  maxwell run --budget %s -- %s\n", typed(budgetFor(e.Spent, e.Least)), abbreviated(e.Command))
	case e.Draws:
		fmt.Fprintf(b, "  paid by  wallet %s\n", printable(e.Payer))
	case e.Payer != "": // its budget is what it kept of it
		fmt.Fprintf(b, "  paid by  wallet %s, which has the rest of the budget back\n", printable(e.Payer))
	case e.Income > 0:
		fmt.Fprintf(b, "  left     %s of %s budget and %s income\n", e.left().Short(), e.Budget.Short(), e.Income.Short())
	default:
		fmt.Fprintf(b, "  left     %s of %s\n", e.left().Short(), e.Budget.Short())
	}
}

func (e *End) left() unit.Credits { return e.Budget + e.Income - e.Spent }

// costs is "612 $J = 571 energy + 39 scarcity (spot up to 2.3x) + 2 erasure".
func (e *End) costs() string {
	if e.Rent == 0 && e.Erasure == 0 && e.Other == 0 {
		return e.Spent.Short() + ", all of it energy: nobody competed"
	}
	whole, parts := sum(e.Spent, []unit.Credits{e.EnergyCost, e.Rent, e.Erasure, e.Other})
	text := whole + " = " + parts[0] + " energy"
	if parts[1] != "0" {
		text += " + " + parts[1] + " scarcity"
		if e.SpotPeak > 0 {
			text += " (spot up to " + e.SpotPeak.Short() + ")"
		}
	}
	if parts[2] != "0" {
		text += " + " + parts[2] + " erasure"
	}
	if parts[3] != "0" {
		text += " + " + parts[3] + " other"
	}
	return text
}

// abbreviated is a command for a proposal: whole if it fits a line.
func abbreviated(command []string) string {
	const limit = 60
	text := printable(ShellQuote(command))
	if len(text) > limit && len(command) > 0 {
		return printable(quoteWord(command[0])) + " ..."
	}
	return text
}

func signalName(n int) string {
	names := map[syscall.Signal]string{
		syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGILL: "SIGILL",
		syscall.SIGABRT: "SIGABRT", syscall.SIGFPE: "SIGFPE", syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV",
		syscall.SIGPIPE: "SIGPIPE", syscall.SIGALRM: "SIGALRM", syscall.SIGTERM: "SIGTERM",
	}
	if name, ok := names[syscall.Signal(n)]; ok {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}

// Receipt is the machine-readable end of a workload. The first five keys are
// what a supervisor needs to decide what to do next; they stay first.
type Receipt struct {
	Reason     string           `json:"reason"`
	Retryable  bool             `json:"retryable"`
	ExitCode   int              `json:"exit_code"`
	ChildExit  *int             `json:"child_exit"`
	Remedy     string           `json:"remedy"`
	Name       string           `json:"name"`
	Command    []string         `json:"command"`
	Wall       int64            `json:"wall_ns"`
	Energy     unit.Microjoules `json:"energy_uj"`
	Modelled   bool             `json:"modelled"`
	Sigma      Fraction         `json:"sigma"`
	CPU        unit.CoreTime    `json:"cpu_ns"`
	Wait       unit.CoreTime    `json:"wait_ns"`
	PeakMemory unit.Bytes       `json:"peak_memory_bytes"`
	Budget     unit.Credits     `json:"budget_ucredits"`
	Open       bool             `json:"open"`
	Income     unit.Credits     `json:"income_ucredits"`
	Spent      unit.Credits     `json:"spent_ucredits"`
	EnergyCost unit.Credits     `json:"energy_ucredits"`
	Rent       unit.Credits     `json:"rent_ucredits"`
	Erasure    unit.Credits     `json:"erasure_ucredits"`
	Other      unit.Credits     `json:"other_ucredits"`
	LastPrice  unit.Price       `json:"last_price_x_milli"`
	SpotPeak   unit.Price       `json:"spot_peak_x_milli"`
	Erased     *unit.Bytes      `json:"erased_bytes"`
	Work       int64            `json:"work"`
}

// Receipt is the end as its receipt.
func (e *End) Receipt() Receipt {
	command := e.Command
	if command == nil {
		command = []string{}
	}
	return Receipt{
		Reason: e.Reason, Retryable: e.Retryable, ExitCode: e.exit(), ChildExit: e.ChildExit, Remedy: e.Remedy,
		Name: e.Name, Command: command, Wall: int64(e.Wall),
		Energy: e.Energy, Modelled: e.Modelled, Sigma: e.Sigma, CPU: e.CPU, Wait: e.Wait, PeakMemory: e.PeakMemory,
		Budget: e.Budget, Open: e.Open, Income: e.Income, Spent: e.Spent,
		EnergyCost: e.EnergyCost, Rent: e.Rent, Erasure: e.Erasure, Other: e.Other,
		LastPrice: e.LastPrice, SpotPeak: e.SpotPeak, Erased: e.Erased, Work: e.Work,
	}
}

// WriteJSON writes the receipt as one line: a supervisor reads lines.
func (r *Receipt) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(r)
}
