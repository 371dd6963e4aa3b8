package report

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// crawler is a workload that is outbid; the other situations change it.
func crawler() Explanation {
	return Explanation{
		Verdict: "outbid",
		Live: Live{
			Workload: Workload{
				Name: "crawler", State: "waiting", Budget: 500 * coin, Spent: 20 * coin, EnergyCost: 15 * coin, Rent: 5 * coin, Balance: 478 * coin, Deposit: 2 * coin,
				Energy: 15 * joule,
			},
			Bid: 2000, Price: 1900,
		},
		Price:  Price{Base: 9_800_000, Spot: 3100, SpotPeak: 3400},
		Wanted: 1000, Got: 200, Needed: 3107, Rank: 3, Ranked: 5, Reserve: 1000, Lasts: 4 * time.Minute, Supply: 2000, Others: 100,
	}
}

// explained are all verdicts, some in more than one shape.
func explained() map[string]Explanation {
	list := map[string]Explanation{}
	add := func(name string, change func(*Explanation)) {
		x := crawler()
		x.Verdict, _, _ = strings.Cut(name, " ")
		change(&x)
		list[name] = x
	}
	add("outbid", func(*Explanation) {})
	add("outbid at spot", func(x *Explanation) { x.Price.Spot = 2000 })
	add("outbid auto", func(x *Explanation) { x.Live.Auto, x.MaxBid, x.Live.Bid, x.Needed = true, 8000, 8000, 9120 })
	add("outbid whatever it bids", func(x *Explanation) { x.Needed, x.Supply = 0, 900 })
	add("rationed", func(x *Explanation) { x.Got, x.Price.Spot, x.Rank, x.Needed = 500, 2000, 1, 2008 })
	add("below-reserve", func(x *Explanation) {
		x.Live.Bid, x.Reserve, x.Got, x.Rank, x.Needed, x.Lasts = 500, 1190, 0, 0, 1190, 0
	})
	add("wallet", func(x *Explanation) { x.Live.Balance, x.Needed, x.Lasts, x.Got = 400_000, 0, 900*time.Millisecond, 300 })
	add("pacing", func(x *Explanation) { x.Horizon, x.Paced, x.Needed = time.Hour, unit.Spend(coin/8), 0 })
	add("pacing auto", func(x *Explanation) { x.Live.Auto, x.MaxBid, x.Paced, x.Needed = true, 8000, unit.Spend(coin/8), 0 })
	add("rate", func(x *Explanation) {
		x.Rate, x.Paced, x.Live.Open, x.Lasts = unit.Spend(16*coin), unit.Spend(16*coin), true, 0
	})
	add("machine", func(x *Explanation) { x.Supply, x.Others, x.Rank, x.Needed = 500, 1500, 1, 0 })
	add("watts", func(x *Explanation) { x.Wanted, x.Got, x.Rank, x.Ranked, x.Needed = 4000, 2000, 1, 1, 0 })
	add("served", func(x *Explanation) { x.Got, x.Rank, x.Price.Spot, x.Lasts = 980, 1, 1000, 100*time.Hour })
	add("served late", func(x *Explanation) { x.Got, x.Rank = 600, 1 })
	add("served for ever", func(x *Explanation) {
		x.Got, x.Rank, x.Live.Open, x.Lasts, x.Supply, x.Others = 1000, 1, true, 0, 1000, 0
	})
	add("cores by its cap", func(x *Explanation) { x.Wanted, x.Got, x.CoresCap, x.Lasts = 1500, 1490, 1500, 15*time.Hour })
	add("cores by its threads", func(x *Explanation) { x.Got, x.Supply = 1000, 4000 })
	add("idle", func(x *Explanation) { x.Wanted, x.Got, x.Rank, x.Lasts = 2, 2, 0, 0 })
	add("suspended", func(x *Explanation) { x.Got, x.Rank, x.Lasts = 0, 0, 0 })
	add("starting", func(x *Explanation) { x.Wanted, x.Got, x.Rank, x.Lasts = 0, 0, 0, 0 })
	add("broke", func(x *Explanation) {
		x.Live.State, x.Live.Spent, x.Live.Balance, x.Lasts, x.Got = "broke", 498*coin, 0, 0, 0
	})
	add("paused", func(x *Explanation) {
		x.Live.State, x.Live.Spent, x.Live.Balance, x.Lasts, x.Got = "paused", 498*coin, 0, 0, 0
	})
	add("dying", func(x *Explanation) { x.Live.State, x.Live.Reason = "dying", "insolvent" })
	add("dead", func(x *Explanation) { x.Live.State, x.Live.Reason, x.Remedy = "dead", "cap:cpu", "raise --max-cpu" })
	add("observed", func(x *Explanation) { x.Got, x.Rank = 1000, 1 })
	add("observed would have been stopped", func(x *Explanation) {
		x.Got, x.Rank, x.Mode = 1000, 1, Mode{Enforce: "observe", WouldReason: "insolvent", WouldAt: wall(-time.Hour), WouldStill: true}
		x.Now = noon
	})
	add("observed and warned", func(x *Explanation) {
		x.Got, x.Rank, x.Mode = 1000, 1, Mode{Enforce: "warn", WouldReason: "cap-memory", WouldAt: wall(-time.Hour), WouldStill: true}
		x.Now = noon
	})
	add("unheard of", func(x *Explanation) { x.Verdict = "un\x1bheard" })
	return list
}

func TestExplanations(t *testing.T) {
	var out strings.Builder
	list := explained()
	for _, verdict := range []string{
		"outbid", "outbid at spot", "outbid auto", "outbid whatever it bids", "rationed", "below-reserve", "wallet", "pacing", "pacing auto",
		"rate", "machine", "watts", "served", "served late", "served for ever", "cores by its cap", "cores by its threads", "idle", "suspended", "starting",
		"broke", "paused", "dying", "dead", "observed", "observed would have been stopped", "observed and warned", "unheard of",
	} {
		x, ok := list[verdict]
		if !ok {
			t.Fatalf("no explanation %q", verdict)
		}
		delete(list, verdict)
		fmt.Fprintf(&out, "== %s\n", verdict)
		if err := x.WriteText(&out); err != nil {
			t.Fatal(err)
		}
	}
	if len(list) > 0 {
		t.Errorf("not shown: %v", list)
	}
	x := crawler()
	out.WriteString("== json\n")
	if err := x.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "explain.golden", out.String())
}

// TestExplanationsFit: 80 columns, whatever the figures, and no control
// character of a name reaches the terminal.
func TestExplanationsFit(t *testing.T) {
	for verdict, x := range explained() {
		x.Live.Name = "a-name-of-30-runes-with-\x1b[31m-é"
		x.Wanted, x.Others, x.Supply = 64_000, 1_000_000, 1_024_000
		x.Needed = min(x.Needed, 1) * 123_456
		x.Price.Spot, x.Live.Bid, x.Reserve, x.Rank, x.Ranked = 123_456, 65_432, 54_321, 16_000, 16_384
		x.Live.Balance, x.Live.Spent, x.Live.Budget = 1_234_567_890*coin, 987_654_321*coin, 2_345_678_901*coin
		var b strings.Builder
		if err := x.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > 80 {
				t.Errorf("%s: %d columns: %s", verdict, n, line)
			}
			if strings.ContainsAny(line, "\x1b\r\t") || strings.TrimSpace(line) == "" || line != strings.TrimRight(line, " ") {
				t.Errorf("%s: %q", verdict, line)
			}
		}
	}
}

// TestProposedBidIsEnough: what is proposed, and what is said to have been
// enough, is never less than what is needed, as printed.
func TestProposedBidIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := crawler()
		x.Needed = unit.Price(rapid.Int64Range(1, 1<<40).Draw(t, "needed"))
		command := x.Commands()[0]
		bid, err := unit.ParsePrice(command[strings.LastIndexByte(command, ' ')+1:])
		if err != nil || bid < x.Needed {
			t.Fatalf("%s, needed %v (%v)", command, x.Needed, err)
		}
		text, _, _ := strings.Cut(x.help()[0].text, " ")
		enough, err := unit.ParsePrice(text)
		if err != nil || enough < x.Needed || bid < enough {
			t.Fatalf("%s, %s, needed %v (%v)", command, text, x.Needed, err)
		}
	})
}

// TestWrap: nothing is lost, no line is longer than it has to be.
func TestWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-zé]{1,100}`), 1, 30).Draw(t, "words")
		lines := wrap("  "+strings.Join(words, " "), "    ")
		if back := strings.Fields(strings.Join(lines, " ")); strings.Join(back, " ") != strings.Join(words, " ") {
			t.Fatalf("%q became %q", words, lines)
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > explainWidth && len(strings.Fields(line)) > 1 {
				t.Fatalf("too long: %q", line)
			}
		}
	})
}
