package report

import (
	"slices"
	"strings"
)

// column is one column of a table for a terminal of any width.
type column struct {
	head  string
	right bool // numbers
	// rank says which columns are left out first where the terminal is narrow:
	// the highest. 0: never.
	rank int
	// gives: a name, cut where a long one would cost the others their place.
	gives bool
}

// Cells that a table never goes below: what is left of a command, and of a name.
const (
	leastCommand = 12
	leastName    = 12
	gap          = 2 // between columns
)

// fit lays a table out so that no line is wider than width (0: no limit). Where
// it is too wide, names give way to a quarter of the line, then columns are
// left out by their rank, then names shrink further. The last column takes what
// the others leave and is cut.
func fit(columns []column, rows [][]string, width int) []string {
	widths := make([]int, len(columns))
	shown := make([]bool, len(columns))
	for i, c := range columns {
		shown[i] = true
		widths[i] = widthOf(c.head)
		for _, row := range rows {
			widths[i] = max(widths[i], widthOf(row[i]))
		}
	}
	if width > 0 {
		narrow(columns, widths, shown, width)
	}
	lines := make([]string, 0, len(rows)+1)
	heads := make([]string, len(columns))
	for i, c := range columns {
		heads[i] = c.head
	}
	for _, row := range append([][]string{heads}, rows...) {
		line := layOut(columns, row, widths, shown)
		if width > 0 {
			line = cutTo(line, width)
		}
		lines = append(lines, line)
	}
	return lines
}

// narrow takes cells and columns away until the table fits.
func narrow(columns []column, widths []int, shown []bool, width int) {
	last := len(columns) - 1
	least := min(widths[last], leastCommand)
	// over is how much too wide the table is, the last column at its least.
	over := func() int {
		sum := least - width
		if !shown[last] {
			sum = -gap - width
		}
		for i := range last {
			if shown[i] {
				sum += widths[i] + gap
			}
		}
		return sum
	}
	wanted := slices.Clone(widths)
	shrink := func(floor int) {
		for i, c := range columns {
			if o := over(); o > 0 && c.gives {
				widths[i] = max(min(floor, widths[i]), widths[i]-o)
			}
		}
	}
	shrink(max(leastName, width/4))
	for over() > 0 {
		worst := 0
		for i, c := range columns {
			if shown[i] && c.rank > columns[worst].rank {
				worst = i
			}
		}
		if columns[worst].rank == 0 {
			break
		}
		shown[worst] = false
	}
	shrink(leastName)
	for i, c := range columns {
		if room := -over(); room > 0 && c.gives {
			widths[i] = min(wanted[i], widths[i]+room)
		}
	}
	if shown[last] {
		widths[last] = min(widths[last], max(least-over(), 1))
	}
}

// layOut is one line without trailing blanks.
func layOut(columns []column, row []string, widths []int, shown []bool) string {
	var b strings.Builder
	for i, c := range columns {
		if !shown[i] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		text := cutTo(row[i], widths[i])
		pad := strings.Repeat(" ", widths[i]-widthOf(text))
		if c.right {
			b.WriteString(pad + text)
		} else {
			b.WriteString(text + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
