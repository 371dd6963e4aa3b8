package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Doctor is what this machine can measure and enforce, and how to get more.
type Doctor struct {
	Enforcement Finding    `json:"enforcement"`
	Trees       Finding    `json:"stops_trees"`
	Caps        []string   `json:"caps"`
	Energy      Finding    `json:"energy"`
	Modelled    bool       `json:"modelled"`
	Sigma       Fraction   `json:"sigma"`
	Base        unit.Rate  `json:"base_ucredits_per_core_s"`
	Market      string     `json:"market"` // what the market that governs the caller sells, "" if none runs
	Ready       bool       `json:"ready"`
	Blocker     string     `json:"blocker"` // why it is not ready, with the fix
	Features    []Finding  `json:"features"`
	Repair      []Repaired `json:"repaired"` // nil: not asked for
}

// Finding is one ability: what is so, and what would make it better.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Value  string `json:"value"`
	Better string `json:"better"` // the next better thing, or why not; "" if none
	Hint   string `json:"hint"`   // what the operator can do; "" if nothing
}

// Repaired is one thing that a dead market left and repair removed.
type Repaired struct {
	What  string `json:"what"`
	Done  bool   `json:"done"`
	Error string `json:"error"`
}

// exampleBudget is the sum the doctor translates into core time.
const exampleBudget unit.Credits = 500_000_000

// WriteText writes the doctor's screen; verbose adds every feature probed.
func (d *Doctor) WriteText(w io.Writer, verbose bool) error {
	var b strings.Builder
	for _, r := range d.Repair {
		verb := "removed"
		if !r.Done {
			verb = "could not remove"
		}
		fmt.Fprintf(&b, "repair       %s %s", verb, r.What)
		if r.Error != "" {
			fmt.Fprintf(&b, ": %s", r.Error)
		}
		b.WriteByte('\n')
	}
	if d.Repair != nil && len(d.Repair) == 0 {
		b.WriteString("repair       nothing was left behind\n")
	}
	caps := "caps: " + strings.Join(d.Caps, ", ")
	if len(d.Caps) == 0 {
		caps = "caps: none"
	}
	rows := [][]string{ // label, value, remarks
		append([]string{"enforcement", d.Enforcement.Value}, d.Enforcement.remarks("better: ")...),
		{"stops trees", d.Trees.Value, caps},
		append([]string{"energy", d.energy()}, d.Energy.remarks("")...),
	}
	if d.Market != "" {
		rows = append(rows, []string{"market", "runs, " + d.Market + " for sale", "energy and base price are as it has them"})
	}
	rows = append(rows, []string{
		"base price", strings.TrimSuffix(d.Base.Short(), "/core-s") + " per core-second (1x)", d.example(),
	})
	width := 0
	for _, r := range rows {
		width = max(width, len(r[1]))
	}
	for _, r := range rows {
		writeRow(&b, width, r)
	}
	if d.Ready {
		b.WriteString("ready        try: maxwell run -- sleep 1\n")
	} else {
		fmt.Fprintf(&b, "not ready    %s\n", d.Blocker)
	}
	if verbose {
		d.features(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// screenWidth is where the doctor's lines break: between remarks, and not within
// one, which may be a command to copy.
const screenWidth = 110

// writeRow writes a label, a value padded to width, and what is to be said about
// it: on the same line as far as that is short enough, else below the value.
func writeRow(b *strings.Builder, width int, row []string) {
	line := fmt.Sprintf("%-12s %-*s ", row[0], width, row[1])
	between := " "
	for _, remark := range row[2:] {
		if len(line)+len(between)+len(remark) > screenWidth {
			fmt.Fprintln(b, strings.TrimRight(line, " "))
			line, between = strings.Repeat(" ", 13), ""
		}
		line += between + remark
		between = "; "
	}
	fmt.Fprintln(b, strings.TrimRight(line, " "))
}

// remarks are what would be better, or why not, and what can be done for it.
func (f Finding) remarks(prefix string) []string {
	var list []string
	if f.Better != "" {
		list = append(list, prefix+f.Better)
	}
	if f.Hint != "" {
		list = append(list, f.Hint)
	}
	return list
}

func (d *Doctor) energy() string {
	word := "measured"
	if d.Modelled {
		word = "MODELLED"
	}
	band := Band(d.Modelled, d.Sigma)
	if _, sigma, found := strings.Cut(band, ", "); found {
		word += ", " + sigma
	}
	if !d.Modelled && d.Energy.Value != "" {
		word += " (" + d.Energy.Value + ")"
	}
	return word
}

func (d *Doctor) example() string {
	if d.Base <= 0 {
		return ""
	}
	return fmt.Sprintf("so %s is about %d core-seconds", exampleBudget.Short(), int64(exampleBudget)/int64(d.Base))
}

func (d *Doctor) features(b *strings.Builder) {
	b.WriteByte('\n')
	cells := make([][]string, 0, len(d.Features))
	for _, f := range d.Features {
		mark := "yes"
		if !f.OK {
			mark = "no"
		}
		cells = append(cells, []string{f.Name, mark, strings.TrimSpace(f.Value + "  " + strings.Join(f.remarks(""), "; "))})
	}
	for _, line := range align(cells, 3) {
		b.WriteString(line + "\n")
	}
}

// WriteJSON writes the findings as one object and a newline.
func (d *Doctor) WriteJSON(w io.Writer) error {
	c := *d
	if c.Caps == nil {
		c.Caps = []string{}
	}
	if c.Features == nil {
		c.Features = []Finding{}
	}
	if c.Repair == nil {
		c.Repair = []Repaired{}
	}
	return writeJSON(w, &c)
}
