package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Live is a workload as the live table shows it.
type Live struct {
	Workload
	Bid      unit.Price
	Auto     bool
	Price    unit.Price // what it pays now
	CoresNow unit.MilliCores
	Power    unit.Microwatts
	Refusal  string // why it got less than it asked for; "" if it did not
}

// Snapshot is the market at one instant.
type Snapshot struct {
	At        time.Duration // since the market or the fleet began
	Node      Node
	Price     Price
	Workloads []Live
}

// Head is the first line of the live table.
func (s *Snapshot) Head() string {
	text := fmt.Sprintf("maxwell  %s  %s  %s  spot %s (1x = %s)  %s", unit.ShortDuration(s.At.Round(100*time.Millisecond)), s.Node.Enforcement,
		s.Node.Cores, s.Price.Spot.Short(), s.Price.Base.Short(), s.Node.Power.Short())
	if s.Node.Allowance > 0 {
		text += " of " + s.Node.Allowance.Short()
	}
	return text + "  " + Band(s.Node.Modelled, s.Node.Sigma)
}

// Line is the whole market on one line, for logs and pipes.
func (s *Snapshot) Line() string {
	states := map[string]int{}
	for i := range s.Workloads {
		states[s.Workloads[i].State]++
	}
	var cores unit.MilliCores
	for i := range s.Workloads {
		cores += s.Workloads[i].CoresNow
	}
	var text strings.Builder
	fmt.Fprintf(&text, "maxwell: %5.1f s  spot %s  %s  %s  %s", s.At.Seconds(), s.Price.Spot.Short(), coresText(cores), s.Node.Power.Short(), s.Node.Energy.Short())
	for _, state := range []string{"pending", "running", "waiting", "broke", "paused", "dying", "dead"} {
		if states[state] > 0 {
			fmt.Fprintf(&text, "  %d %s", states[state], state)
		}
	}
	return text.String()
}

func coresText(c unit.MilliCores) string { return fmt.Sprintf("%d.%02d cores", c/1000, c%1000/10) }

// columns of the live table; right-aligned ones hold numbers.
var tableHead = []string{"NAME", "STATE", "BID", "PRICE", "CORES", "WATTS", "JOULES", "$J LEFT", "WORK"}

func (w *Live) cells() []string {
	bid := w.Bid.Short()
	if w.Auto {
		bid = "auto " + bid
	}
	left := "open"
	if !w.Open {
		left = strings.TrimSuffix(w.Balance.Short(), " $J")
		if strings.HasSuffix(w.Balance.Short(), "$J") && left == w.Balance.Short() {
			left = strings.TrimSuffix(left, "$J")
		}
	}
	state := w.State
	if w.Reason != "" {
		state += ", " + w.Reason
	} else if w.Refusal != "" {
		state += ", " + w.Refusal
	}
	price, cores, power := w.Price.Short(), coresText(w.CoresNow), w.Power.Short()
	if w.State == "dead" || w.CoresNow == 0 {
		price = "-"
	}
	if w.State == "dead" {
		bid, cores, power = "-", "-", "-"
	}
	return []string{
		w.Name, state, bid, price, strings.TrimSuffix(cores, " cores"), strings.TrimSuffix(power, " W"),
		w.Energy.Short(), left, workText(w.Work, w.WorkKind),
	}
}

func workText(n int64, kind string) string {
	if n == 0 {
		return "-"
	}
	if kind == "" {
		return grouped(n)
	}
	return grouped(n) + " " + printable(kind)
}

// Rows returns the table's lines: the head, then at most limit workloads (all
// if limit is 0), the living first. What does not fit is counted in one line.
func (s *Snapshot) Rows(limit int) []string {
	shown := make([]*Live, 0, len(s.Workloads))
	for _, dead := range []bool{false, true} {
		for i := range s.Workloads {
			if (s.Workloads[i].State == "dead") == dead {
				shown = append(shown, &s.Workloads[i])
			}
		}
	}
	hidden := 0
	if limit > 0 && len(shown) > limit {
		hidden = len(shown) - max(limit-1, 0)
		shown = shown[:len(shown)-hidden]
	} else if limit == 0 || len(shown) <= limit {
		// Everything fits: keep the order of the fleet, so rows do not jump.
		shown = shown[:0]
		for i := range s.Workloads {
			shown = append(shown, &s.Workloads[i])
		}
	}
	cells := make([][]string, 0, len(shown)+1)
	cells = append(cells, tableHead)
	for _, w := range shown {
		cells = append(cells, w.cells())
	}
	rows := align(cells, 2)
	if hidden > 0 {
		rows = append(rows, fmt.Sprintf("... and %s more", grouped(int64(hidden))))
	}
	return rows
}

// align pads columns: the first left ones to the left, the others to the
// right. Lines have no trailing blanks.
func align(cells [][]string, left int) []string {
	var widths []int
	for _, row := range cells {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], widthOf(c))
		}
	}
	lines := make([]string, len(cells))
	var b strings.Builder
	for r, row := range cells {
		b.Reset()
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-widthOf(c))
			if i > 0 {
				b.WriteString("  ")
			}
			if i < left {
				b.WriteString(c + pad)
			} else {
				b.WriteString(pad + c)
			}
		}
		lines[r] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// Screen draws snapshots over one another on a terminal.
type Screen struct {
	W      io.Writer
	Width  int // columns; 0 for unknown
	Height int // lines; 0 for unknown
	drawn  int
}

// Draw writes the snapshot in place of the one before.
func (s *Screen) Draw(snapshot *Snapshot) error {
	limit := 0
	if s.Height > 0 {
		limit = max(1, s.Height-4) // head line, column heads, count, prompt
	}
	return s.Show(append([]string{snapshot.Head()}, snapshot.Rows(limit)...)...)
}

// Show writes lines in place of those before. It is one Write, so that a
// half-drawn table is never seen.
func (s *Screen) Show(lines ...string) error {
	var b strings.Builder
	s.back(&b)
	for _, line := range lines {
		b.WriteString(s.cut(line))
		b.WriteByte('\n')
	}
	s.drawn = len(lines)
	_, err := io.WriteString(s.W, b.String())
	return err
}

// Print writes a line that stays, above the table.
func (s *Screen) Print(line string) error {
	var b strings.Builder
	s.back(&b)
	s.drawn = 0
	b.WriteString(line + "\n")
	_, err := io.WriteString(s.W, b.String())
	return err
}

// Clear takes the table away, so that the closing statement replaces it.
func (s *Screen) Clear() error {
	var b strings.Builder
	s.back(&b)
	s.drawn = 0
	_, err := io.WriteString(s.W, b.String())
	return err
}

// back moves to the first line drawn and erases to the end of the screen.
func (s *Screen) back(b *strings.Builder) {
	if s.drawn > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r\x1b[J", s.drawn)
	}
}

// cut keeps a line from wrapping, which would break the count of lines.
func (s *Screen) cut(line string) string {
	if s.Width <= 0 {
		return line
	}
	return clip(line, s.Width)
}
