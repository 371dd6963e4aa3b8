package tui

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// A screen of 80 columns where the terminal does not say.
const defaultWidth = 80

// From these heights on there is room for the lines over time, and for the
// depth of the book, beside a few workloads.
const (
	heightForLines = 12
	heightForDepth = 18
)

// Frame draws the screen: lines without a newline at the end, none wider than
// the terminal, and not more than fit.
func (m *Model) Frame() string {
	var lines []string
	switch m.mode {
	case helping:
		lines = m.filled(help())
	case explaining:
		lines = m.filled(append([]string{"why " + Clean(m.selected) + " gets what it gets", ""}, m.pane...))
	case browsing, funding, bidding, stopping:
		lines = append(m.head(), m.table()...)
		if !m.quiet {
			lines = append(m.padded(lines, 2), m.statusLine(), m.keysLine())
		}
	}
	for i, line := range lines {
		lines[i] = m.cut(line)
	}
	if m.height > 0 && len(lines) > m.height {
		lines = lines[len(lines)-m.height:] // the prompt is below
	}
	return strings.Join(lines, "\n")
}

// filled is a pane that takes the whole screen.
func (m *Model) filled(lines []string) []string {
	if m.height > 0 && len(lines) > m.height-1 {
		lines = lines[:max(0, m.height-1)]
	}
	return append(m.padded(lines, 1), "any key: back")
}

// padded fills up to the bottom of the screen, less below lines.
func (m *Model) padded(lines []string, below int) []string {
	for m.height > 0 && len(lines) < m.height-below {
		lines = append(lines, "")
	}
	return lines
}

func (m *Model) columns() int {
	if m.width == 0 {
		return defaultWidth
	}
	return m.width
}

// cut keeps a line within the terminal. Rows of the table are cut before they
// are marked; everything else is plain text.
func (m *Model) cut(line string) string {
	if strings.HasPrefix(line, reverseOn) {
		return line
	}
	return clip(line, m.columns())
}

func clip(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:width])
}

// head is what is above the table.
func (m *Model) head() []string {
	n, p := &m.now.Node, &m.now.Price
	if !m.seen {
		return []string{"maxwell  no answer yet"}
	}
	lines := []string{
		fmt.Sprintf("maxwell  %s  %s  spot %s  base price %s  peak %s", Clean(n.Enforcement), n.Cores, p.Spot.Short(), p.Base.Short(), p.SpotPeak.Short()),
		"energy   " + strings.Replace(report.Band(n.Modelled, n.Sigma), "modelled", "MODELLED", 1) + " (" + Clean(n.EnergySource) + ")",
		"watts    " + m.watts(),
	}
	if !m.quiet && (m.height == 0 || m.height >= heightForLines) {
		lines = append(lines, m.overTime()...)
	}
	if m.height == 0 || m.height >= heightForDepth {
		lines = append(lines, m.depth()...)
	}
	return append(lines, "")
}

// watts is what is sold now, against the budget where there is one.
func (m *Model) watts() string {
	n := &m.now.Node
	if n.Allowance <= 0 {
		return n.Power.Short() + ", no budget"
	}
	text := n.Power.Short() + " of " + n.Allowance.Short() + "  "
	size := min(40, m.columns()-9-utf8.RuneCountInString(text)-2)
	if size < 5 {
		return text
	}
	full := int(min(unit.MulDivSat(int64(max(n.Power, 0)), int64(size), int64(n.Allowance)), int64(size)))
	return text + "[" + strings.Repeat("#", full) + strings.Repeat(".", size-full) + "]"
}

// overTime is spot and base price, the newest at the right.
func (m *Model) overTime() []string {
	spot, base := make([]int64, len(m.history)), make([]int64, len(m.history))
	for i, s := range m.history {
		spot[i], base[i] = int64(s.spot), int64(s.base)
	}
	since := ""
	if n := len(m.history); n > 1 {
		if span := m.history[n-1].at - m.history[0].at; span >= time.Second {
			since = ", " + unit.ShortDuration(span.Round(time.Second))
		}
	}
	line := func(label string, values []int64, from, to string) string {
		note := "  " + from
		if from != to {
			note += " to " + to
		}
		note += since
		return label + m.spark(values, max(1, m.columns()-9-30)) + note
	}
	return []string{
		line("spot     ", spot, unit.Price(slices.Min(spot)).Short(), unit.Price(slices.Max(spot)).Short()),
		line("base     ", base, unit.Rate(slices.Min(base)).Short(), unit.Rate(slices.Max(base)).Short()),
	}
}

// spark draws values in at most width columns: the highest of those that share
// one. What does not change is a flat line.
func (m *Model) spark(values []int64, width int) string {
	marks := []rune("▁▂▃▄▅▆▇█")
	if m.ascii {
		marks = []rune("_.-:=+*#")
	}
	each := (len(values) + width - 1) / width
	low, high := slices.Min(values), slices.Max(values)
	var b strings.Builder
	for group := range slices.Chunk(values, max(1, each)) {
		at := int64(0)
		if high > low {
			at = unit.MulDiv(slices.Max(group)-low, int64(len(marks)-1), high-low)
		}
		b.WriteRune(marks[at])
	}
	return b.String()
}

// The depth's rows: one for each octave of bids, from below 1x to 16x and more.
var depthLabels = [...]string{"below 1x", "1x to 2x", "2x to 4x", "4x to 8x", "8x to 16x", "over 16x"}

func octaveOf(bid unit.Price) int {
	return min(bits.Len64(uint64(max(bid, 0)/unit.Times)), len(depthLabels)-1)
}

// depth is how many cores the workloads on this screen want at which bids. Other
// wallets' bids are private, and not in it.
func (m *Model) depth() []string {
	var cores [len(depthLabels)]unit.MilliCores
	for i := range m.now.Workloads {
		w := &m.now.Workloads[i]
		if dead(w) == 0 {
			cores[octaveOf(w.Bid)] += m.wants(w)
		}
	}
	low, high := 0, len(cores)-1
	for low < high && cores[low] == 0 {
		low++
	}
	for high > low && cores[high] == 0 {
		high--
	}
	most := slices.Max(cores[:])
	if most == 0 {
		return []string{"depth    nobody wants to run"}
	}
	size := min(40, max(5, m.columns()-40))
	var lines []string
	for i := high; i >= low; i-- {
		bar := strings.Repeat("#", int(unit.MulDivCeil(int64(cores[i]), int64(size), int64(most))))
		label := "         "
		if i == high {
			label = "depth    "
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("%s%-9s  %-*s  %s", label, depthLabels[i], size, bar, figure(cores[i])+" cores wanted"), " "))
	}
	return lines
}

// wants is what w ran and waited for between the last two looks; of the first
// look, what it ran.
func (m *Model) wants(w *report.Live) unit.MilliCores {
	if wanted, ok := m.wanted[w.Name]; ok {
		return wanted
	}
	return w.CoresNow
}

func figure(c unit.MilliCores) string { return fmt.Sprintf("%d.%02d", c/1000, c%1000/10) }

// What marks the selected row on a terminal that can.
const (
	reverseOn  = "\x1b[7m"
	reverseOff = "\x1b[0m"
)

// Columns of the table: the first two hold words, the others figures.
var columnHeads = []string{"NAME", "STATE", "BID", "PRICE", "CORES", "WATTS", "JOULES", "$J LEFT"}

// Columns of words are at least this wide where figures leave the room: the end
// of a name matters less than a figure.
const (
	leastName  = 10
	leastState = 15 // dead, insolvent
	mostName   = 20 // in a prompt
)

// table is the head of the table and the rows that fit, the selected among them.
func (m *Model) table() []string {
	if !m.seen {
		return nil
	}
	rows := m.rows()
	if len(rows) == 0 {
		return []string{"no workload of yours; start one with maxwell run or maxwell up"}
	}
	at := m.index(rows)
	fit := m.tableRows()
	m.first = min(max(m.first, at-fit+1, 0), at, max(0, len(rows)-fit))
	shown := rows[m.first:min(len(rows), m.first+fit)]
	cells := [][]string{columnHeads}
	for _, w := range shown {
		cells = append(cells, m.cells(w))
	}
	lines := aligned(cells, m.columns()-2)
	for i, line := range lines {
		mark := "  "
		if i > 0 && m.first+i-1 == at && !m.quiet {
			mark = "> "
		}
		lines[i] = clip(mark+line, m.columns())
		if m.styled && mark == "> " {
			lines[i] = reverseOn + lines[i] + strings.Repeat(" ", m.columns()-utf8.RuneCountInString(lines[i])) + reverseOff
		}
	}
	return lines
}

// tableRows is how many workloads fit: not the heads, nor the two lines below.
func (m *Model) tableRows() int {
	if m.height == 0 {
		return max(1, len(m.now.Workloads))
	}
	return max(1, m.height-len(m.head())-3)
}

func (m *Model) cells(w *report.Live) []string {
	bid := w.Bid.Short()
	if w.Auto {
		bid = "auto " + bid
	}
	words := w.State
	if w.Reason != "" {
		words += ", " + w.Reason
	} else if w.Refusal != "" {
		words = w.Refusal // that it waits goes without saying
	}
	price, cores, power := w.Price.Short(), figure(w.CoresNow), strings.TrimSuffix(w.Power.Short(), " W")
	if w.CoresNow == 0 {
		price = "-"
	}
	if dead(w) == 1 {
		bid, price, cores, power = "-", "-", "-", "-"
	}
	money := "open"
	if !w.Open {
		money = strings.TrimSuffix(strings.TrimSuffix(w.Balance.Short(), "$J"), " ")
	}
	return []string{Clean(w.Name), Clean(words), bid, price, cores, power, w.Energy.Short(), money}
}

// shortened ends a text that is too long with a tilde.
func shortened(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return clip(s, most-1) + "~"
}

// aligned pads columns: words to the left, figures to the right. Words are
// shortened to what figures leave of the width.
func aligned(cells [][]string, width int) []string {
	widths := make([]int, len(columnHeads))
	for _, row := range cells {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	over := -width - 2
	for _, w := range widths {
		over += w + 2
	}
	for i, least := range []int{leastName, leastState} {
		give := min(max(over, 0), max(0, widths[i]-least))
		widths[i] -= give
		over -= give
	}
	lines := make([]string, len(cells))
	for r, row := range cells {
		parts := make([]string, len(row))
		for i, c := range row {
			if i < 2 {
				c = shortened(c, widths[i])
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i < 2 {
				parts[i] = c + pad
			} else {
				parts[i] = pad + c
			}
		}
		lines[r] = strings.TrimRight(strings.Join(parts, "  "), " ")
	}
	return lines
}

// statusLine is the prompt, or what happened last.
func (m *Model) statusLine() string {
	name := shortened(Clean(m.selected), mostName)
	prompt := ""
	switch m.mode {
	case funding:
		prompt = "fund " + name + " with how many $J? " + m.typed + "_"
	case bidding:
		prompt = "bid how much for " + name + "? (4x, or auto) " + m.typed + "_"
	case stopping:
		return "stop " + name + "? y or n"
	case browsing, explaining, helping:
		return m.status
	}
	return prompt
}

func (m *Model) keysLine() string {
	switch m.mode {
	case funding, bidding:
		if m.status != "" {
			return m.status // what was typed was not understood
		}
		return "enter: do it   esc: leave"
	case stopping:
		return "y: stop it, any other key: leave"
	case browsing, explaining, helping:
	}
	keys := "? help  s sort  r reverse  f fund  b bid  x stop  e explain  q quit"
	if n := len(m.now.Workloads); n > m.tableRows() {
		keys += fmt.Sprintf("  %d of %d", m.tableRows(), n)
	}
	return keys
}

// help is the screen behind the question mark.
func help() []string {
	return []string{
		"maxwell top", "",
		"up down k j   select a workload      home end g G   the first, the last",
		"s             sort by the next of arrival, name, bid, price, cores, watts,",
		"              joules, $J left        r              reverse the order",
		"f             fund the selected one  b              change its bid",
		"x             stop it (asks first)   e              explain why it is slow",
		"q ^C          leave: nothing is stopped by that", "",
		"spot   what the next core-second costs; 1x = nobody competes",
		"base   what 1x is in $J",
		"depth  cores that the workloads on this screen want, by their bids;",
		"       the bids of others are private and not in it",
		"PRICE  what a core-second costs this workload now; never above its bid",
		"MODELLED energy rests on a model of the processor, not on a counter",
	}
}
