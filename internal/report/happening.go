package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Happening is one event of a workload's life, a line of `events --json`.
type Happening struct {
	At       int64         `json:"at_wall_ns"`
	Name     string        `json:"name"`
	ID       string        `json:"id"`
	Kind     string        `json:"kind"` // admitted started warned broke paused funded dying dead readopted would-stop
	What     string        `json:"what"` // warned: budget memory pids cpu energy
	Percent  int           `json:"percent"`
	Left     time.Duration `json:"left_ns"`
	Reason   string        `json:"reason"`
	ExitCode *int          `json:"exit_code"`      // dead
	Spent    unit.Credits  `json:"spent_ucredits"` // until then
	CPU      unit.CoreTime `json:"cpu_ns"`
	// Notice is what its owner is told; nil if that is nothing.
	Notice *Notice `json:"-"`
}

// Line is the event on one line: when, who, what.
func (h *Happening) Line(now time.Time) string {
	text := ""
	if h.Notice != nil {
		text = strings.TrimPrefix(h.Notice.Line(), "maxwell: ")
	}
	if text == "" {
		text = h.Name
		switch h.Kind {
		case "admitted":
			text += " was admitted"
		case "started":
			text += " runs"
		case "readopted":
			text += " was taken back by the daemon"
		case "would-stop":
			text += " would have been stopped: " + h.Reason
		case "broke": // of one that is only warned
			text += " was told that it is broke"
		default:
			text += " " + h.Kind
			if h.Reason != "" {
				text += ": " + h.Reason
			}
		}
	}
	return clock(h.At, now) + "  " + printable(text)
}

// WriteJSON writes the event as one line.
func (h *Happening) WriteJSON(w io.Writer) error { return WriteLine(w, h) }

// Quote is the market's price at one moment: the answer of `price`.
type Quote struct {
	At        int64           `json:"at_wall_ns"`
	Base      unit.Rate       `json:"base_ucredits_per_core_s"`
	Spot      unit.Price      `json:"spot_x_milli"`
	SpotRate  unit.Rate       `json:"spot_ucredits_per_core_s"`
	SpotPeak  unit.Price      `json:"spot_peak_x_milli"`
	Grid      unit.PPM        `json:"grid_ppm"`
	Power     unit.Microwatts `json:"power_uw"` // sold now
	Allowance unit.Microwatts `json:"allowance_uw"`
	Cores     unit.MilliCores `json:"cores_milli"`
	Modelled  bool            `json:"modelled"`
	Sigma     Fraction        `json:"sigma"`
}

func (q *Quote) sold() string {
	if q.Allowance > 0 {
		return q.Power.Short() + " of " + q.Allowance.Short()
	}
	return q.Power.Short()
}

// WriteText writes the price for people.
func (q *Quote) WriteText(w io.Writer) error {
	state := "nobody competes"
	if q.Spot > atRest {
		state = "cores are scarce"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "base  %s (1x)\n", perCoreSecond(q.Base))
	fmt.Fprintf(&b, "spot  %s = %s, %s; peak %s\n", q.Spot.Short(), perCoreSecond(q.SpotRate), state, max(q.Spot, q.SpotPeak).Short())
	fmt.Fprintf(&b, "grid  %s, the price of energy as a share of the reference\n", gridText(q.Grid))
	fmt.Fprintf(&b, "sold  %s on %s (%s)\n", q.sold(), q.Cores, Band(q.Modelled, q.Sigma))
	_, err := io.WriteString(w, b.String())
	return err
}

// atRest is the spot price when nobody competes: the base price.
const atRest unit.Price = 1000

func perCoreSecond(r unit.Rate) string {
	return strings.Replace(r.Short(), "/core-s", " per core-second", 1)
}

func gridText(g unit.PPM) string { return unit.Price(g / 1000).String() }

// Line is the price on one line, for `price --watch`.
func (q *Quote) Line(now time.Time) string {
	return fmt.Sprintf("%s  spot %s  peak %s  1x = %s  grid %s  sold %s", clock(q.At, now), q.Spot.Short(), max(q.Spot, q.SpotPeak).Short(),
		q.Base.Short(), gridText(q.Grid), q.sold())
}

// WriteJSON writes the price as one line.
func (q *Quote) WriteJSON(w io.Writer) error { return WriteLine(w, q) }
