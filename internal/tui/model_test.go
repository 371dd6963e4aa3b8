package tui

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	joule = unit.Microjoules(1_000_000)
	coin  = unit.Credits(1_000_000)
)

// at is a market with six workloads, t seconds old.
func at(t int) report.Snapshot {
	row := func(name, state, refusal string, bid unit.Price, cores unit.MilliCores) report.Live {
		used := unit.CoreTime(t) * unit.CoreTime(cores) * 1_000_000
		waited := unit.CoreTime(0)
		if refusal != "" {
			waited = unit.CoreTime(t)*1_000_000_000 - used
		}
		return report.Live{
			Workload: report.Workload{
				Name: name, State: state, Balance: 478 * coin, Energy: joule * unit.Microjoules(t), CPU: used, Wait: waited,
			},
			Bid: bid, Price: 1000, CoresNow: cores, Power: unit.Microwatts(cores) * 10_000, Refusal: refusal,
		}
	}
	list := []report.Live{
		row("scientist", "running", "", 4000, 1500),
		row("crawler", "waiting", "outbid", 2000, 100),
		row("evil\x1b[2J\tname\u202e\u4e16\u754c", "running", "", 1500, 200),
		row("a-name-that-is-much-longer-than-a-column", "waiting", "below reserve", 500, 0),
		row("open-make", "running", "", 20_000, 200),
		row("gone", "dead", "", 2000, 0),
	}
	list[2].Auto = true
	list[4].Open = true
	list[5].Reason = "insolvent"
	return report.Snapshot{
		At: time.Duration(t) * time.Second,
		Node: report.Node{
			Enforcement: "cgroup", EnergySource: "generic model", Modelled: true, Sigma: 500_000, Cores: 2000, Power: 20_000_000, Allowance: 30_000_000,
		},
		Price: report.Price{
			Base: 9_800_000, Spot: unit.Price(1000 + 300*(t%7)), SpotPeak: 3400,
		},
		Workloads: list,
	}
}

// screenOf is a model that has watched for n seconds.
func screenOf(width, height, n int) *Model {
	m := NewModel(false, false)
	m.Sized(width, height)
	for t := 1; t <= n; t++ {
		m.Took(at(t), nil)
	}
	return m
}

// press plays keys and returns the last thing asked.
func (m *Model) press(keys ...string) Ask {
	var last Ask
	for _, k := range keys {
		text := ""
		if utf8.RuneCountInString(k) == 1 {
			text = k
		}
		last = m.Key(k, text)
	}
	return last
}

// TestFrames: what scripts of keys lead to, on two terminals.
func TestFrames(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {200, 50}} {
		var out strings.Builder
		show := func(name string, m *Model) {
			fmt.Fprintf(&out, "== %s\n%s\n", name, m.Frame())
		}
		m := NewModel(false, false)
		m.Sized(size[0], size[1])
		show("before the first answer", m)
		m = screenOf(size[0], size[1], 12)
		show("twelve seconds", m)
		m.press("j", "s", "s", "r")
		show("down, sorted by bid from the lowest", m)
		m.press("f", "2", "0", "x")
		show("a fund prompt", m)
		m.press("enter")
		show("a fund prompt that was not understood", m)
		m.press("esc", "x")
		show("a stop prompt", m)
		ask := m.press("n", "e")
		m.Answered(ask, "crawler is outbid: it bids 2x\n  maxwell bid crawler 3.5x\n", nil)
		show("an explanation", m)
		m.press("q", "?")
		show("help", m)
		m.press("q")
		m.Took(report.Snapshot{}, errors.New("the market ended unexpectedly"))
		show("the market is gone", m)
		empty := at(13)
		empty.Workloads, empty.Node.Allowance = nil, 0
		m.Took(empty, nil)
		show("nobody", m)
		golden.Check(t, fmt.Sprintf("frames-%d.golden", size[0]), out.String())
	}
}

// TestASCII: a terminal without block characters gets none.
func TestASCII(t *testing.T) {
	m := NewModel(true, true)
	m.Sized(80, 24)
	for n := range 20 {
		m.Took(at(n), nil)
	}
	frame := m.Frame()
	for _, r := range frame {
		if r >= 0x80 {
			t.Errorf("%q in an ASCII frame", r)
		}
	}
	if !strings.Contains(frame, reverseOn+"> ") || strings.Count(frame, "\x1b") != 2 {
		t.Errorf("the selected row is not marked:\n%q", frame)
	}
}

// TestFunds: keys become an amount; nothing else does.
func TestFunds(t *testing.T) {
	m := screenOf(80, 24, 3)
	if a := m.press("j", "f", "1", "5", "backspace", ".", "5", "enter"); a != (Ask{Kind: Fund, Name: "crawler", Amount: 1_500_000}) {
		t.Errorf("asked %+v", a)
	}
	m.Answered(Ask{Kind: Fund}, "crawler has 1.5 $J more", nil)
	if !strings.Contains(m.Frame(), "crawler has 1.5 $J more") {
		t.Error("the answer is not shown")
	}
	for _, keys := range [][]string{
		{"f", "enter"},
		{"f", "0", "enter"},
		{"f", "-", "5", "enter"},
		{"f", "q", "enter"}, // a key of the browser is text here
		{"f", "5", "esc"},
		{"f", "5", "ctrl+u", "enter"},
	} {
		m = screenOf(80, 24, 3)
		if a := m.press(keys...); a.Kind != Nothing {
			t.Errorf("%v asked %+v", keys, a)
		}
	}
	if a := m.press("esc", "f", "9", "ctrl+c"); a.Kind != Quit {
		t.Errorf("^C in a prompt is %+v", a)
	}
}

func TestBidsStopsExplains(t *testing.T) {
	m := screenOf(80, 24, 3)
	for _, test := range []struct {
		keys []string
		want Ask
	}{
		{[]string{"b", "8", "x", "enter"}, Ask{Kind: Bid, Name: "scientist", Bid: 8000}},
		{[]string{"b", "a", "u", "t", "o", "enter"}, Ask{Kind: Bid, Name: "scientist"}},
		{[]string{"b", "0", "x", "enter"}, Ask{}},
		{[]string{"esc", "x", "y"}, Ask{Kind: Stop, Name: "scientist"}},
		{[]string{"x", "n"}, Ask{}},
		{[]string{"x", "enter"}, Ask{}},
		{[]string{"end", "e"}, Ask{Kind: Explain, Name: "gone"}},
		{[]string{"home", "down", "down", "k", "e"}, Ask{Kind: Explain, Name: "crawler"}},
		{[]string{"q"}, Ask{Kind: Quit}},
	} {
		if have := m.press(test.keys...); have != test.want {
			t.Errorf("%v asked %+v, want %+v", test.keys, have, test.want)
		}
	}
	m.Took(report.Snapshot{}, nil)
	for _, key := range []string{"f", "b", "x", "e", "j", "k"} {
		if a := m.press(key); a.Kind != Nothing {
			t.Errorf("%s without a workload asked %+v", key, a)
		}
	}
}

// TestPromptDiesWithItsWorkload: a sum that was typed for one must not reach
// the next in the list.
func TestPromptDiesWithItsWorkload(t *testing.T) {
	for _, key := range []string{"f", "b", "x"} {
		m := screenOf(80, 24, 3)
		m.press("j", key, "5")
		if key == "x" {
			m.press("x")
		}
		s := at(4)
		s.Workloads = slices.Delete(s.Workloads, 1, 2)
		m.Took(s, nil)
		if a := m.press("enter"); a.Kind != Nothing || m.mode != browsing {
			t.Errorf("%s: %+v after its workload was gone", key, a)
		}
		if a := m.press("y"); a.Kind != Nothing {
			t.Errorf("%s: y stops %q", key, a.Name)
		}
	}
}

// TestSelectionStays where it was when rows move.
func TestSelectionStays(t *testing.T) {
	m := screenOf(80, 24, 3)
	m.press("j")
	for range 2 * int(orders) {
		m.press("s")
		if a := m.press("e"); a.Name != "crawler" {
			t.Errorf("sorted by %v: %q is selected", m.order, a.Name)
		}
	}
	s := at(4)
	slices.Reverse(s.Workloads)
	m.Took(s, nil)
	if a := m.press("e"); a.Name != "crawler" {
		t.Errorf("after another look %q is selected", a.Name)
	}
}

// TestSorts: every order sorts by its column, and r turns it round; the dead
// are last either way.
func TestSorts(t *testing.T) {
	m := screenOf(80, 24, 3)
	for o := byName; o < orders; o++ {
		m.order, m.reverse = o, false
		names := func() (list []string) {
			for _, w := range m.rows() {
				list = append(list, w.Name)
			}
			return list
		}
		rows := m.rows()
		for i := 1; i < len(rows)-1; i++ {
			if o.compare(rows[i-1], rows[i]) > 0 {
				t.Errorf("by %v: %v", o, names())
			}
		}
		forth := names()
		m.reverse = true
		back := names()
		if forth[5] != "gone" || back[5] != "gone" || o.compare(m.rows()[0], m.rows()[4]) < 0 && slices.Equal(forth, back) {
			t.Errorf("by %v: %v, reversed %v", o, forth, back)
		}
	}
}

// TestDepthCountsWhatWaits: the book's depth is what was wanted, not what was
// given.
func TestDepthCountsWhatWaits(t *testing.T) {
	m := screenOf(80, 24, 3)
	frame := m.Frame()
	for _, want := range []string{"4x to 8x", "1.50 cores wanted", "2x to 4x", "1.00 cores wanted", "over 16x", "0.20 cores wanted", "below 1x"} {
		if !strings.Contains(frame, want) {
			t.Errorf("no %q in\n%s", want, frame)
		}
	}
	for bid, want := range map[unit.Price]int{0: 0, 999: 0, 1000: 1, 1999: 1, 2000: 2, 3999: 2, 4000: 3, 8000: 4, 15_999: 4, 16_000: 5, 1 << 60: 5} {
		if have := octaveOf(bid); have != want {
			t.Errorf("%v is in octave %d, want %d", bid, have, want)
		}
	}
}

// TestEveryFrameFits: whatever comes and whatever is pressed, no line is wider
// and no frame higher than the terminal, nothing but text is in it, and the
// selected row is on it.
func TestEveryFrameFits(t *testing.T) {
	keys := []string{
		"up", "down", "j", "k", "s", "r", "f", "b", "x", "e", "?", "q", "esc", "enter", "y", "1", "x", "backspace", "pgup", "pgdown", "home", "end", "世",
	}
	rapid.Check(t, func(t *rapid.T) {
		m := NewModel(false, rapid.Bool().Draw(t, "ascii"))
		now := 0
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			switch rapid.IntRange(0, 4).Draw(t, "event") {
			case 0:
				m.Sized(rapid.IntRange(1, 250).Draw(t, "width"), rapid.IntRange(1, 60).Draw(t, "height"))
			case 1:
				now += rapid.IntRange(0, 3).Draw(t, "seconds")
				m.Took(drawMarket(t, now), nil)
			case 2:
				m.Took(report.Snapshot{}, errors.New(rapid.String().Draw(t, "error")))
			case 3:
				m.Answered(Ask{Kind: Explain}, rapid.String().Draw(t, "answer"), nil)
			case 4:
				m.press(rapid.SampledFrom(keys).Draw(t, "key"))
			}
			checkFrame(t, m)
		}
	})
}

func checkFrame(t *rapid.T, m *Model) {
	lines := strings.Split(m.Frame(), "\n")
	if m.height > 0 && len(lines) > m.height {
		t.Fatalf("%d lines on %d", len(lines), m.height)
	}
	marked := 0
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > m.columns() {
			t.Fatalf("%d columns of %d: %q", n, m.columns(), line)
		}
		for _, r := range line {
			if !unicode.IsPrint(r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Han, r) {
				t.Fatalf("%U in %q", r, line)
			}
		}
		if strings.HasPrefix(line, "> ") || line == ">" {
			marked++
		}
	}
	if m.mode == browsing && m.seen && len(m.now.Workloads) > 0 && m.height >= 24 && marked != 1 {
		t.Fatalf("%d rows are marked:\n%s", marked, m.Frame())
	}
}

func drawMarket(t *rapid.T, now int) report.Snapshot {
	s := at(now)
	s.Price.Spot = unit.Price(rapid.Int64Range(0, 1<<62).Draw(t, "spot"))
	s.Price.Base = unit.Rate(rapid.Int64Range(0, 1<<62).Draw(t, "base"))
	s.Node.Power = unit.Microwatts(rapid.Int64Range(0, 1<<62).Draw(t, "power"))
	n := rapid.IntRange(0, 80).Draw(t, "n")
	s.Workloads = s.Workloads[:0]
	for i := range n {
		w := at(now).Workloads[i%6]
		w.Name = fmt.Sprintf("%d %s", i, rapid.String().Draw(t, "name"))
		w.Bid = unit.Price(rapid.Int64Range(0, 1<<62).Draw(t, "bid"))
		w.Balance = unit.Credits(rapid.Int64Range(0, 1<<62).Draw(t, "left"))
		s.Workloads = append(s.Workloads, w)
	}
	return s
}

// TestFiguresAreSeen: on 80 columns a long name gives way to the last figure.
func TestFiguresAreSeen(t *testing.T) {
	m := screenOf(80, 24, 12)
	if frame := m.Frame(); !strings.Contains(frame, "$J LEFT\n") || strings.Count(frame, " 478\n") != 5 {
		t.Errorf("not all figures are on the screen:\n%s", frame)
	}
	m.Took(report.Snapshot{}, errors.New("the market ended"))
	m.Took(at(13), nil)
	if strings.Contains(m.Frame(), "the market ended") {
		t.Error("it is still said to have ended")
	}
}

// TestClean: what is left is one column wide and does nothing.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"agent-7": "agent-7", "a\x1b[31mb": "a?[31mb", "a\r\nb\tc\x00": "a??b?c?", "世界": "??", "café Ωж": "café Ωж", "e\u0301": "e?",
		"\u202eabc": "?abc", "\u200b": "?", "\xff": "?", "😀": "?", "\u009b31m": "?31m", "\u00ad": "?", "\u00a0": "?",
	} {
		if have := Clean(text); have != want {
			t.Errorf("Clean(%q) = %q, want %q", text, have, want)
		}
	}
	for r := range rune(0x3000) {
		if c := Clean(string(r)); c != "?" && (!unicode.IsPrint(r) || unicode.IsOneOf([]*unicode.RangeTable{unicode.Mn, unicode.Me, unicode.Cf}, r)) {
			t.Errorf("%U stays", r)
		}
	}
}
