package tui

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Ask is something that the model wants of the market.
type Ask struct {
	Kind   AskKind
	Name   string
	Amount unit.Credits // Fund
	Bid    unit.Price   // Bid; 0 = let the market bid
}

// AskKind enumerates what can be asked.
type AskKind uint8

// What can be asked.
const (
	Nothing AskKind = iota
	Fund
	Bid
	Stop
	Explain
	Quit
)

// mode is what keys mean at the moment.
type mode uint8

const (
	browsing mode = iota
	funding       // an amount is typed
	bidding       // a bid is typed
	stopping      // y or n
	explaining
	helping
)

// keepSamples is how many looks the lines over time remember: five minutes at
// one a second. A screen has fewer columns; several share one then.
const keepSamples = 300

// sample is what is remembered of one look.
type sample struct {
	at   time.Duration
	spot unit.Price
	base unit.Rate
}

// Model is the screen of top between two events. Its methods are the events;
// it is not safe for concurrent use.
type Model struct {
	width, height int  // 0 = as much as there is to show
	styled        bool // reverse video for the selected row
	ascii         bool // no block characters
	quiet         bool // one frame for a file: no prompt, no keys

	now     report.Snapshot
	seen    bool
	lost    bool                       // the last look failed, and the status says why
	wanted  map[string]unit.MilliCores // by name, of the last two looks
	history []sample

	mode     mode
	selected string
	first    int // row at the top of the table
	order    order
	reverse  bool
	typed    string
	pane     []string // lines of an explanation
	status   string
}

// NewModel returns an empty screen. styled allows reverse video, ascii keeps to
// characters that every terminal has.
func NewModel(styled, ascii bool) *Model {
	return &Model{styled: styled, ascii: ascii, status: "waiting for the market"}
}

// Sized tells the model how large the terminal is.
func (m *Model) Sized(width, height int) { m.width, m.height = max(0, width), max(0, height) }

// Took gives the model the market as it is now, or why it could not be had.
func (m *Model) Took(s report.Snapshot, err error) {
	if err != nil {
		m.status, m.lost = Clean(err.Error()), true
		return
	}
	if !m.seen || s.At < m.now.At { // another market than before
		m.history, m.wanted = nil, nil
	} else {
		m.wanted = wantedBetween(&m.now, &s)
	}
	if m.lost || !m.seen {
		m.status = ""
	}
	m.now, m.seen, m.lost = s, true, false
	m.history = append(m.history, sample{s.At, s.Price.Spot, s.Price.Base})
	if n := len(m.history); n > keepSamples {
		m.history = slices.Delete(m.history, 0, n-keepSamples)
	}
	m.keepSelection()
}

// wantedBetween is what each workload ran and waited to run between two looks.
func wantedBetween(before, after *report.Snapshot) map[string]unit.MilliCores {
	wanted := make(map[string]unit.MilliCores)
	elapsed := after.At - before.At
	if elapsed <= 0 {
		return wanted
	}
	was := make(map[string]unit.CoreTime)
	for i := range before.Workloads {
		w := &before.Workloads[i]
		was[w.Name] = w.CPU + w.Wait
	}
	for i := range after.Workloads {
		w := &after.Workloads[i]
		if old, ok := was[w.Name]; ok && w.CPU+w.Wait >= old {
			wanted[w.Name] = unit.MilliCores(unit.MulDivSat(int64(w.CPU+w.Wait-old), 1000, int64(elapsed)))
		}
	}
	return wanted
}

// Answered tells the model what came of an Ask: text to show, or an error.
func (m *Model) Answered(a Ask, text string, err error) {
	switch {
	case err != nil:
		m.status = Clean(err.Error())
		if m.mode == explaining {
			m.mode = browsing
		}
	case a.Kind == Explain:
		m.pane = nil
		for line := range strings.Lines(text) {
			m.pane = append(m.pane, Clean(strings.TrimRight(line, "\n")))
		}
		m.mode, m.status = explaining, ""
	default:
		m.status = Clean(text)
	}
}

// Key handles one key by its name ("up", "enter", "s") and the text that it
// types, if any, and returns what to ask the market.
func (m *Model) Key(name, text string) Ask {
	if name == "ctrl+c" {
		return Ask{Kind: Quit}
	}
	switch m.mode {
	case funding, bidding:
		return m.keyTyped(name, text)
	case stopping:
		return m.keyConfirm(name)
	case explaining, helping:
		m.mode, m.pane = browsing, nil
		if name == "q" {
			return Ask{}
		}
	case browsing:
	}
	return m.keyBrowse(name)
}

func (m *Model) keyBrowse(name string) Ask {
	switch name {
	case "q":
		return Ask{Kind: Quit}
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-m.tableRows())
	case "pgdown":
		m.move(m.tableRows())
	case "home", "g":
		m.move(-len(m.now.Workloads))
	case "end", "G":
		m.move(len(m.now.Workloads))
	case "s":
		m.order = (m.order + 1) % orders
		m.status = "sorted by " + m.order.String()
	case "r":
		m.reverse = !m.reverse
	case "?", "h":
		m.mode = helping
	case "f", "b", "x", "e":
		return m.act(name)
	}
	return Ask{}
}

// act begins something about the selected workload.
func (m *Model) act(name string) Ask {
	w := m.current()
	if w == nil {
		m.status = "select a workload first"
		return Ask{}
	}
	m.selected, m.typed, m.status = w.Name, "", ""
	switch name {
	case "f":
		m.mode = funding
	case "b":
		m.mode = bidding
	case "x":
		m.mode = stopping
	case "e":
		return Ask{Kind: Explain, Name: w.Name}
	}
	return Ask{}
}

// mostTyped bounds a prompt: no amount is longer.
const mostTyped = 24

func (m *Model) keyTyped(name, text string) Ask {
	switch name {
	case "esc":
		m.mode, m.status = browsing, "nothing changed"
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(m.typed)
		m.typed = m.typed[:len(m.typed)-size]
	case "ctrl+u":
		m.typed = ""
	case "enter":
		return m.entered()
	default:
		if clean := Clean(text); len(m.typed)+len(clean) <= mostTyped {
			m.typed += clean
		}
	}
	return Ask{}
}

// entered reads what was typed. What cannot be read stays, to be corrected.
func (m *Model) entered() Ask {
	text := strings.TrimSpace(m.typed)
	if text == "" {
		m.mode, m.status = browsing, "nothing changed"
		return Ask{}
	}
	ask := Ask{Kind: Fund, Name: m.selected}
	var err error
	if m.mode == funding {
		ask.Amount, err = unit.ParseCredits(text)
		if err == nil && ask.Amount <= 0 {
			m.status = "the amount is zero; write an amount above zero"
			return Ask{}
		}
	} else {
		ask.Kind = Bid
		if text != "auto" {
			ask.Bid, err = unit.ParsePrice(text)
			if err == nil && ask.Bid <= 0 {
				m.status = "the bid is zero; write a multiple of the base price, as 4x"
				return Ask{}
			}
		}
	}
	if err != nil {
		m.status = Clean(err.Error())
		return Ask{}
	}
	m.mode, m.status = browsing, "asked the market"
	return ask
}

func (m *Model) keyConfirm(name string) Ask {
	m.mode, m.status = browsing, "nothing changed"
	if name == "y" || name == "Y" {
		m.status = "asked the market"
		return Ask{Kind: Stop, Name: m.selected}
	}
	return Ask{}
}

// Pasted puts text into a prompt as if it were typed.
func (m *Model) Pasted(text string) {
	if m.mode == funding || m.mode == bidding {
		m.keyTyped("", strings.TrimSpace(text))
	}
}

// current is the selected workload, the first one if none is selected, nil if
// there is none.
func (m *Model) current() *report.Live {
	rows := m.rows()
	if len(rows) == 0 {
		return nil
	}
	return rows[m.index(rows)]
}

func (m *Model) index(rows []*report.Live) int {
	return max(0, slices.IndexFunc(rows, func(w *report.Live) bool { return w.Name == m.selected }))
}

func (m *Model) move(by int) {
	rows := m.rows()
	if len(rows) == 0 {
		return
	}
	at := min(max(m.index(rows)+by, 0), len(rows)-1)
	m.selected = rows[at].Name
}

// keepSelection moves the selection to a neighbour when its workload is gone,
// and ends a prompt about it: what is typed must not reach another.
func (m *Model) keepSelection() {
	gone := !slices.ContainsFunc(m.now.Workloads, func(w report.Live) bool { return w.Name == m.selected })
	if m.selected == "" || !gone {
		return
	}
	if m.mode == funding || m.mode == bidding || m.mode == stopping {
		m.mode, m.status = browsing, Clean(m.selected)+" is gone; nothing changed"
	}
	m.selected = ""
}

// order is what rows are sorted by.
type order uint8

const (
	byArrival order = iota
	byName
	byBid
	byPrice
	byCores
	byWatts
	byJoules
	byLeft
	orders
)

// String names the order as the screen does.
func (o order) String() string {
	return [...]string{"arrival", "name", "bid", "price", "cores", "watts", "joules", "$J left"}[min(o, byLeft)]
}

// rows are the workloads in the order of the screen: figures from the greatest
// down, the dead last.
func (m *Model) rows() []*report.Live {
	rows := make([]*report.Live, len(m.now.Workloads))
	for i := range rows {
		rows[i] = &m.now.Workloads[i]
	}
	sign := 1
	if m.reverse {
		sign = -1
		if m.order == byArrival {
			slices.Reverse(rows)
		}
	}
	slices.SortStableFunc(rows, func(a, b *report.Live) int {
		if d := cmp.Compare(dead(a), dead(b)); d != 0 {
			return d
		}
		return sign * m.order.compare(a, b)
	})
	return rows
}

func dead(w *report.Live) int {
	if w.State == "dead" {
		return 1
	}
	return 0
}

func (o order) compare(a, b *report.Live) int {
	switch o {
	case byName:
		return cmp.Compare(a.Name, b.Name)
	case byBid:
		return cmp.Compare(b.Bid, a.Bid)
	case byPrice:
		return cmp.Compare(b.Price, a.Price)
	case byCores:
		return cmp.Compare(b.CoresNow, a.CoresNow)
	case byWatts:
		return cmp.Compare(b.Power, a.Power)
	case byJoules:
		return cmp.Compare(b.Energy, a.Energy)
	case byLeft:
		return cmp.Compare(left(b), left(a))
	case byArrival, orders:
	}
	return 0
}

// left is the money that a wallet has; an open one has more than any.
func left(w *report.Live) unit.Credits {
	if w.Open {
		return 1<<63 - 1
	}
	return w.Balance
}

// Clean reduces foreign text to characters that are one column wide and do
// nothing: ASCII, Latin, Greek and Cyrillic letters and signs; the rest is "?".
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case !unicode.IsPrint(r):
		case r >= ' ' && r < 0x7f, r >= 0xa1 && r < 0x300, r >= 0x391 && r < 0x400, r >= 0x400 && r < 0x483, r >= 0x48a && r < 0x530:
			return r
		}
		return '?'
	}, s)
}
