package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Burial is the end of a workload as its market remembers it.
type Burial struct {
	End
	Mode

	ID           string
	Client       string // the verb that started it
	Admitted     int64  // ns since 1970
	Ended        int64
	ReadoptedCPU unit.CoreTime // used while the market was away
	Readopted    unit.Credits
}

// burialReceipt is the receipt of `run --receipt` with what only the market
// knows. The receipt's keys stay first.
type burialReceipt struct {
	Receipt

	ID           string        `json:"id"`
	Client       string        `json:"client"`
	Admitted     int64         `json:"admitted_wall_ns"`
	Ended        int64         `json:"ended_wall_ns"`
	ReadoptedCPU unit.CoreTime `json:"readopted_cpu_ns"`
	Readopted    unit.Credits  `json:"readopted_ucredits"`

	Mode
}

// WriteJSON writes the receipt as one line.
func (u *Burial) WriteJSON(w io.Writer) error {
	return WriteLine(w, &burialReceipt{
		Receipt: u.Receipt(), Mode: u.Mode, ID: u.ID, Client: u.Client, Admitted: u.Admitted, Ended: u.Ended,
		ReadoptedCPU: u.ReadoptedCPU, Readopted: u.Readopted,
	})
}

// WriteText writes the receipt for people: how it ended, what it burned, what
// that cost and what to do next. now gives the zone, and the day that need not
// be said.
func (u *Burial) WriteText(w io.Writer, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s after %s\n", printable(u.Name), u.how(), unit.ShortDuration(u.Wall))
	fmt.Fprintf(&b, "  command  %s\n", abbreviated(u.Command))
	fmt.Fprintf(&b, "  lived    %s to %s, id %s\n", clock(u.Admitted, now), clock(u.Ended, now), printable(u.ID))
	fmt.Fprintf(&b, "  burned   %s (%s), %s, %s on average", u.Energy.Short(), Band(u.Modelled, u.Sigma), u.CPU.Short(), average(u.CPU, u.Wall))
	if u.PeakMemory > 0 {
		fmt.Fprintf(&b, ", peak memory %s", u.PeakMemory.Short())
	}
	fmt.Fprintf(&b, "\n  cost     %s\n", u.costs())
	if u.ReadoptedCPU > 0 {
		fmt.Fprintf(&b, "  away     %s of it for %s while the market was away, at the price of its energy\n", u.Readopted.Short(), u.ReadoptedCPU.Short())
	}
	if !u.Open {
		fmt.Fprintf(&b, "  left     %s of %s budget and %s income\n", u.left().Short(), u.Budget.Short(), u.Income.Short())
	}
	if u.free() {
		fmt.Fprintf(&b, "  mode     %s: nothing was done to it", u.state())
		if when, is := u.would(now); is {
			fmt.Fprintf(&b, "; it would have been stopped at %s", when)
		}
		b.WriteByte('\n')
	}
	if u.Loss > 0 {
		fmt.Fprintf(&b, "  loss     %s that it could not pay\n", u.Loss.Short())
	}
	if u.Remedy != "" {
		fmt.Fprintf(&b, "  next     %s\n", printable(u.Remedy))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (u *Burial) how() string {
	switch {
	case u.Stopped():
		return fmt.Sprintf("stopped: %s (exit %d)", printable(u.Reason), u.exit())
	case u.Reason == Signaled:
		return fmt.Sprintf("was ended by %s (exit %d)", signalName(u.exit()-128), u.exit())
	}
	return fmt.Sprintf("exited %d", u.exit())
}
