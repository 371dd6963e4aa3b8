package report

import (
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// NoticeKind says what happened to a workload that its owner should hear.
type NoticeKind uint8

// Notices, in the order of a life.
const (
	Warned NoticeKind = iota // a budget or a cap is nearly used
	WentBroke
	WasPaused
	WasFunded
	IsDying
	HasEnded
	WouldBeStopped // it is only warned
)

// Notice is one event of a workload as its owner sees it.
type Notice struct {
	Kind    NoticeKind
	Name    string
	Wallet  string        // standing, that it spends; empty: it has money of its own
	Percent int           // Warned: of what
	What    string        // Warned: "budget", "memory", "pids", "cpu", "energy"
	Limit   string        // Warned: the limit as text, "500 $J"
	Left    time.Duration // Warned: at this rate, 0 if unknown; WentBroke: of the grace
	Fund    unit.Credits  // Warned: a sum worth proposing, 0 for none
	Reason  string        // IsDying, HasEnded
	Exit    int           // HasEnded
}

// Line is the notice on one line without a newline; "" if there is nothing
// worth a line.
func (n Notice) Line() string {
	switch n.Kind {
	case Warned:
		return n.warning()
	case WentBroke:
		if n.Left <= 0 {
			return fmt.Sprintf("maxwell: %s is broke and ends", n.Name)
		}
		if n.Wallet != "" {
			return fmt.Sprintf("maxwell: wallet %s is empty: %s is paused, and ends in %s unless money comes in", n.Wallet, n.Name, seconds(n.Left))
		}
		return fmt.Sprintf("maxwell: %s is broke and paused; ends in %s unless funded", n.Name, seconds(n.Left))
	case WasPaused:
		if n.Wallet != "" {
			return fmt.Sprintf("maxwell: wallet %s is empty: %s is paused until money comes in: maxwell fund %s AMOUNT", n.Wallet, n.Name, n.Wallet)
		}
		return fmt.Sprintf("maxwell: %s is broke and paused until funded: maxwell fund %s AMOUNT", n.Name, n.Name)
	case WasFunded:
		if n.Wallet != "" {
			return fmt.Sprintf("maxwell: wallet %s has money; %s runs on", n.Wallet, n.Name)
		}
		return fmt.Sprintf("maxwell: %s was funded and runs on", n.Name)
	case IsDying:
		return fmt.Sprintf("maxwell: %s is being stopped: %s", n.Name, n.Reason)
	case WouldBeStopped:
		return fmt.Sprintf("maxwell: %s would have been stopped: %s", n.Name, n.Reason)
	case HasEnded:
		if n.Reason == Exited || n.Reason == Signaled {
			return fmt.Sprintf("maxwell: %s exited %d", n.Name, n.Exit)
		}
		return fmt.Sprintf("maxwell: %s stopped: %s (exit %d)", n.Name, n.Reason, n.Exit)
	}
	return ""
}

func (n Notice) warning() string {
	if n.What != "" && n.What != "budget" {
		return fmt.Sprintf("maxwell: %s has used %d %% of its %s cap, %s; it ends at 100 %%", n.Name, n.Percent, n.What, n.Limit)
	}
	text := fmt.Sprintf("maxwell: %s has spent %d %% of %s", n.Name, n.Percent, n.Limit)
	if n.Left >= time.Second {
		text += fmt.Sprintf(" (about %s left at this rate)", seconds(n.Left))
	}
	if n.Fund > 0 {
		text += fmt.Sprintf(".  More: maxwell fund %s %s", n.Name, typed(n.Fund))
	}
	return text
}

// FundFor proposes a sum for a warning: two fifths of the budget, as a person
// would type it.
func FundFor(budget unit.Credits) unit.Credits {
	return budgetFor(budget*2/5-budget/10, 0)
}

// seconds is a duration for a countdown: whole seconds, minutes from 100 s up.
func seconds(d time.Duration) string {
	if d >= 100*time.Second {
		return unit.ShortDuration(d.Round(time.Second))
	}
	return fmt.Sprintf("%d s", int64((d+time.Second/2)/time.Second))
}
