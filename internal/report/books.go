package report

import (
	"io"
	"maps"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Posting is one transfer of the books, an element of `ledger --json`.
type Posting struct {
	Seq     uint64       `json:"seq"` // of the journal's record; 0 where none is kept
	At      int64        `json:"at_wall_ns"`
	Debit   string       `json:"debit"`
	Credit  string       `json:"credit"`
	Amount  unit.Credits `json:"amount_ucredits"`
	Purpose string       `json:"purpose"`
	Pending bool         `json:"pending"`
}

var postingColumns = []column{
	{head: "DEBIT", gives: true}, {head: "CREDIT", gives: true}, {head: "AMOUNT $J", right: true}, {head: "PURPOSE"},
}

// Postings is the table of `ledger`, in the order given. The time is shown in
// the zone of now, with the day if that is not today.
func Postings(list []Posting, now time.Time, width int) []string {
	const timeHead = "TIME"
	times := make([]string, len(list))
	widest := len(timeHead)
	for i := range list {
		times[i] = clock(list[i].At, now)
		widest = max(widest, len(times[i]))
	}
	rows := make([][]string, len(list))
	for i := range list {
		p := &list[i]
		purpose := p.Purpose
		if p.Pending {
			purpose += " (pending)"
		}
		rows[i] = []string{printable(p.Debit), printable(p.Credit), money(int64(p.Amount)), printable(purpose)}
	}
	// The time never gives way; the accounts do.
	if width > 0 {
		width = max(1, width-widest-gap)
	}
	lines := fit(postingColumns, rows, width)
	for i := range lines {
		text := timeHead
		if i > 0 {
			text = times[i-1]
		}
		lines[i] = padTo(text, widest+gap) + lines[i]
	}
	return lines
}

// WritePostings writes transfers as one object: {"postings":[...]}.
func WritePostings(w io.Writer, list []Posting) error {
	if list == nil {
		list = []Posting{}
	}
	return WriteLine(w, map[string]any{"postings": list})
}

// Balances is the table of `ledger --balances`: every account that holds
// something, and the sum, which is zero.
func Balances(l *Ledger, width int) []string {
	columns := []column{{head: "ACCOUNT", gives: true}, {head: "BALANCE $J", right: true}}
	var rows [][]string
	for _, name := range slices.Sorted(maps.Keys(l.Accounts)) {
		if v := l.Accounts[name]; v != 0 {
			rows = append(rows, []string{printable(name), money(int64(v))})
		}
	}
	rows = append(rows, []string{"sum", money(int64(l.Sum))})
	return fit(columns, rows, width)
}

// WriteJSON writes the books as one line.
func (l *Ledger) WriteJSON(w io.Writer) error {
	c := *l
	if c.Accounts == nil {
		c.Accounts = map[string]unit.Credits{}
	}
	return WriteLine(w, &c)
}

// clock is a moment for people: the time of today, or the day before it. now
// gives the day and the zone.
func clock(wall int64, now time.Time) string {
	if wall == 0 {
		return "-"
	}
	t := time.Unix(0, wall).In(now.Location())
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
