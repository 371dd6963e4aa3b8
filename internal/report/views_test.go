package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// noon is when the tables of these tests are looked at.
var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func wall(d time.Duration) int64 { return noon.Add(d).UnixNano() }

// details are workloads of every state, one of them with a hostile command.
func details() []Detail {
	running := Detail{
		Workload: Workload{
			Name: "agent-7", State: "running", Budget: 500 * coin, Spent: 120 * coin, EnergyCost: 100 * coin, Rent: 20 * coin,
			Deposit: 10 * coin, Balance: 370 * coin, Energy: 100 * joule, CPU: unit.CoreTime(11 * time.Second), LastPrice: 2300,
		},
		ID: "agent-7.1a2b", UID: 1000, Client: "run", Command: []string{"./agent", "--model", "large one", "--steps", "4000", "--output", "/var/tmp/agents/7"},
		Admitted: wall(-12 * time.Minute), Alive: 12 * time.Minute, Bid: 8000, CoresNow: 1250, Power: 11_500_000, Log: "/run/agent-7.log",
	}
	waiting := Detail{
		Workload: Workload{Name: "indexer", State: "waiting", Balance: 12_500_000, Budget: 40 * coin, LastPrice: 1000},
		Command:  []string{"python3", "-m", "index"}, Refusal: "outbid", Auto: true, Bid: 1500, MaxBid: 4000, Alive: 41_200 * time.Millisecond,
	}
	open := Detail{
		Workload: Workload{Name: "make", State: "running", Open: true, Energy: 12_345 * joule, LastPrice: 1000},
		Command:  []string{"make", "-j8"}, Bid: 2000, CoresNow: 8000, Power: 90_000_000, Alive: 3 * time.Hour,
	}
	hostile := Detail{
		Workload: Workload{Name: "evil\x1b[2J\nNAME", State: "running", Open: true, LastPrice: 1000},
		Command:  []string{"sh", "-c", "printf '\x1b]0;owned\a'; # \u202egnp.exe \u200b 你好世界 👩‍💻 한국어 ｆｕｌｌ e\u0301"}, Bid: 2000, Alive: time.Second,
	}
	dead := Detail{
		Workload: Workload{
			Name: "crawler", State: "dead", Reason: "insolvent", ExitCode: new(122), ChildExit: new(143), Budget: 50 * coin, Spent: 50 * coin,
			EnergyCost: 40 * coin, Rent: 10 * coin, Energy: 40 * joule, LastPrice: 1800,
		},
		ID: "crawler.9", Command: []string{"./crawl", "https://example.org/"}, Alive: 30 * time.Second, Retryable: true, Remedy: "fund crawler",
		Admitted: wall(-26 * time.Hour), Ended: wall(-26*time.Hour + 30*time.Second), SpotPeak: 2300,
	}
	long := Detail{
		Workload: Workload{Name: strings.Repeat("replica-of-a-fleet-", 3) + "12", State: "waiting", Balance: 1_234_567 * coin, LastPrice: 1000},
		Command:  []string{"/bin/true"}, Refusal: "below reserve", Bid: 12_345, Alive: 26 * time.Hour,
	}
	return []Detail{running, dead, waiting, open, hostile, long}
}

// observed are workloads that nothing is done to, before and after they would have
// been stopped, and one that is governed.
func observed() []Detail {
	list := details()[:1]
	for _, m := range []Mode{
		{Enforce: "observe"},
		{Enforce: "observe", WouldReason: "insolvent", WouldAt: wall(-time.Hour), WouldStill: true},
		{Enforce: "warn", WouldReason: "insolvent", WouldAt: wall(-30 * time.Hour)},
		{Enforce: "on", WouldReason: "insolvent", WouldAt: wall(-30 * time.Hour), WouldStill: true}, // from before it was on
	} {
		d := details()[2]
		d.Name, d.Mode = "web-"+m.Enforce, m
		list = append(list, d)
	}
	dead := details()[1]
	dead.Mode = Mode{Enforce: "observe", WouldReason: "insolvent", WouldAt: wall(-time.Hour), WouldStill: true}
	return append(list, dead)
}

func postings() []Posting {
	return []Posting{
		{Seq: 1, At: wall(-25 * time.Hour), Debit: "mint", Credit: "wallet:agent-7", Amount: 500 * coin, Purpose: "funding"},
		{Seq: 2, At: wall(-time.Hour), Debit: "wallet:agent-7", Credit: "deposit:agent-7", Amount: 10_500_000, Purpose: "deposit"},
		{Seq: 3, At: wall(-time.Minute), Debit: "wallet:agent-7", Credit: "heat", Amount: 1, Purpose: "energy"},
		{At: wall(-time.Second), Debit: "wallet:" + strings.Repeat("very-long-", 6), Credit: "wallet:evil\x1b[2J", Amount: 12_345_678_900_001, Purpose: "lease", Pending: true},
	}
}

// TestViews is what each table looks like at several widths.
func TestViews(t *testing.T) {
	ledger := Ledger{Minted: 500 * coin, Accounts: map[string]unit.Credits{
		"mint": -500 * coin, "wallet:agent-7": 370 * coin, "deposit:agent-7": 10 * coin, "heat": 100 * coin, "treasury": 20 * coin, "loss": 0,
	}}
	var out strings.Builder
	for _, width := range []int{0, 40, 80, 100, 200} {
		for _, view := range []struct {
			name  string
			lines []string
		}{
			{"ps", Processes(details()[:4], width, noon)},
			{"ps, with hostile names", Processes(details()[3:], width, noon)},
			{"wallet ls", Wallets(wallets(details()), width)},
			{"wallet ls, with standing ones", Wallets(treasury(), width)},
			{"ps, observed", Processes(observed(), width, noon)},
			{"ledger", Postings(postings(), noon, width)},
			{"balances", Balances(&ledger, width)},
		} {
			fmt.Fprintf(&out, "== %s, %d columns\n%s\n", view.name, width, strings.Join(view.lines, "\n"))
			for _, line := range view.lines {
				checkLine(t, line, width)
			}
		}
	}
	golden.Check(t, "views.golden", out.String())
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkLine: a line of a table stays on its line and steers nothing.
func checkLine(t fataler, line string, width int) {
	t.Helper()
	if width > 0 && widthOf(line) > width {
		t.Fatalf("%d cells in %d columns: %q", widthOf(line), width, line)
	}
	for _, r := range line {
		if !unicode.IsPrint(r) || r == utf8.RuneError && width == 0 {
			t.Fatalf("%q holds %U", line, r)
		}
	}
}

// TestTablesNeverWrap: whatever a name or a command holds.
func TestTablesNeverWrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 40, -1)
		width := rapid.IntRange(1, 250).Draw(t, "width")
		list := make([]Detail, rapid.IntRange(0, 4).Draw(t, "workloads"))
		var postings []Posting
		for i := range list {
			list[i] = details()[i]
			list[i].Name, list[i].Reason, list[i].Refusal = text.Draw(t, "name"), text.Draw(t, "reason"), text.Draw(t, "refusal")
			list[i].Command = rapid.SliceOfN(text, 0, 5).Draw(t, "command")
			list[i].Balance, list[i].Spent = unit.Credits(rapid.Int64().Draw(t, "balance")), unit.Credits(rapid.Int64().Draw(t, "spent"))
			postings = append(postings, Posting{
				At: wall(0), Debit: text.Draw(t, "debit"), Credit: text.Draw(t, "credit"), Purpose: text.Draw(t, "purpose"),
				Amount: unit.Credits(rapid.Int64().Draw(t, "amount")),
			})
		}
		standing := treasury()
		for i := range standing {
			standing[i].Parent, standing[i].Balance = text.Draw(t, "parent"), unit.Credits(rapid.Int64().Draw(t, "left"))
		}
		for _, line := range Wallets(standing, width) {
			if widthOf(line) > width {
				t.Fatalf("%d cells in %d columns: %q", widthOf(line), width, line)
			}
		}
		for _, lines := range [][]string{Processes(list, width, noon), Wallets(wallets(list), width)} {
			for _, line := range lines {
				for _, r := range line {
					if !unicode.IsPrint(r) && r != utf8.RuneError {
						t.Fatalf("%q holds %U", line, r)
					}
				}
				if widthOf(line) > width {
					t.Fatalf("%d cells in %d columns: %q", widthOf(line), width, line)
				}
			}
			if len(lines) != len(list)+1 {
				t.Fatalf("%d lines for %d workloads", len(lines), len(list))
			}
		}
		if width > 30 {
			for _, line := range Postings(postings, noon, width) {
				if widthOf(line) > width {
					t.Fatalf("%d cells in %d columns: %q", widthOf(line), width, line)
				}
			}
		}
	})
}

func TestWidths(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int
		cut  string // to 6 cells
	}{
		{"", 0, ""},
		{"abc", 3, "abc"},
		{"abcdefgh", 8, "abcd.."},
		{"你好", 4, "你好"},
		{"你好世界", 8, "你好.."},
		{"a你好世", 7, "a你.."},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301"},
		{"ｆｕ", 4, "ｆｕ"},
		{"한국", 4, "한국"},
		{"👍", 2, "👍"},
		{"❤\ufe0f", 3, "❤\ufe0f"}, // one more than it may be: a gap, not a wrap
	} {
		if got := widthOf(tt.text); got != tt.want {
			t.Errorf("%q fills %d cells, want %d", tt.text, got, tt.want)
		}
		if got := cutTo(tt.text, 6); got != tt.cut {
			t.Errorf("%q cut to 6: %q, want %q", tt.text, got, tt.cut)
		}
	}
}

// TestAccounts are the texts about one thing, and every line of JSON.
func TestAccounts(t *testing.T) {
	var out bytes.Buffer
	section := func(name string, write func() error) {
		t.Helper()
		fmt.Fprintf(&out, "== %s\n", name)
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	list := details()
	for _, i := range []int{0, 1, 3} {
		w := list[i].Wallet()
		section("wallet "+w.Name, func() error { return w.WriteText(&out) })
	}
	for _, w := range treasury() {
		section("wallet "+w.Name, func() error { return w.WriteText(&out) })
	}
	end := agentEnd()
	end.SpotPeak, end.Loss = 2300, 2*coin
	burials := []Burial{
		{End: end, ID: "agent-7.1a2b", Client: "run", Admitted: wall(-time.Minute), Ended: wall(0)},
		{End: makeEnd(), ID: "make.3", Client: "run", Admitted: wall(-30 * time.Hour), Ended: wall(-29 * time.Hour), ReadoptedCPU: unit.CoreTime(3 * time.Second), Readopted: 29 * coin},
	}
	watched := burials[1]
	watched.Mode, watched.Loss = Mode{Enforce: "observe", WouldReason: "insolvent", WouldAt: wall(-time.Hour), WouldStill: true}, 3*coin
	unseen := burials[1]
	unseen.Mode = Mode{Enforce: "warn"}
	burials = append(burials, watched, unseen)
	for i := range burials {
		section("receipt "+burials[i].Name, func() error { return burials[i].WriteText(&out, noon) })
	}
	killed := burials[0]
	killed.Reason, killed.ExitCode, killed.Remedy = Signaled, new(137), ""
	section("receipt, killed", func() error { return killed.WriteText(&out, noon) })
	quiet := Quote{At: wall(0), Base: 9_800_000, Spot: 1000, SpotRate: 9_800_000, Grid: unit.One, Cores: 2000, Modelled: true, Sigma: 500_000}
	busy := Quote{At: wall(0), Base: 9_800_000, Spot: 2300, SpotRate: 22_540_000, SpotPeak: 4100, Grid: 1_500_000, Power: 31_200_000, Allowance: 65_000_000, Cores: unit.Core}
	for _, q := range []Quote{quiet, busy} {
		section("price", func() error { return q.WriteText(&out) })
		section("price, line", func() error { _, err := fmt.Fprintln(&out, q.Line(noon)); return err })
	}
	for _, h := range happenings() {
		section("event", func() error { _, err := fmt.Fprintln(&out, h.Line(noon)); return err })
	}
	section("json", func() error {
		for _, write := range []func() error{
			func() error { return list[0].WriteJSON(&out) },
			func() error { return WriteDetails(&out, list[1:3]) },
			func() error { return WriteDetails(&out, nil) },
			func() error { return WriteWallets(&out, wallets(list[:2])) },
			func() error { return WriteWallets(&out, treasury()[1:3]) },
			func() error { return WriteWallets(&out, nil) },
			func() error { w := list[1].Wallet(); return w.WriteJSON(&out) },
			func() error { return burials[1].WriteJSON(&out) },
			func() error { return watched.WriteJSON(&out) },
			func() error { return busy.WriteJSON(&out) },
			func() error { return WritePostings(&out, postings()[:2]) },
			func() error { return WritePostings(&out, nil) },
			func() error { return (&Ledger{}).WriteJSON(&out) },
			func() error { h := happenings()[2]; return h.WriteJSON(&out) },
		} {
			if err := write(); err != nil {
				return err
			}
		}
		return nil
	})
	golden.Check(t, "accounts.golden", out.String())
}

func wallets(list []Detail) []Wallet {
	out := make([]Wallet, len(list))
	for i := range list {
		out[i] = list[i].Wallet()
	}
	return out
}

// treasury is an organisation's tree of wallets, as a market lists it.
func treasury() []Wallet {
	list := details()
	list[0].Payer = "anna"
	list[1].Payer, list[1].Draws = "anna", true
	day := 24 * time.Hour
	return append([]Wallet{
		{Name: "org", Kind: Standing, Allowance: 200_000 * coin, Every: day, Most: 500_000 * coin, Balance: 123_400 * coin, Owner: "root", Created: wall(0)},
		{Name: "pot", Kind: Standing, Balance: 20 * coin, UID: 1000},
		{Name: "ben", Kind: Standing, Parent: "org", UID: 1001, Owner: "ben\x1b[2J"},
		{Name: "anna", Kind: Standing, Parent: "org", Allowance: 50_000 * coin, Every: day, Balance: 1500 * coin, UID: 1002, Owner: "anna"},
		{Name: "mine", Kind: Standing, Parent: "somebodys", Allowance: 1_500_000, Every: time.Minute},
	}, wallets(list[:3])...)
}

func happenings() []Happening {
	at := wall(-time.Second)
	return []Happening{
		{At: at, Name: "agent-7", Kind: "admitted"},
		{At: at, Name: "agent-7", Kind: "started"},
		{At: at, Name: "agent-7", Kind: "warned", What: "budget", Percent: 80, Left: 40 * time.Second, Notice: &Notice{
			Kind: Warned, Name: "agent-7", Percent: 80, What: "budget", Limit: "500 $J", Left: 40 * time.Second, Fund: 200 * coin,
		}},
		{At: at, Name: "agent-7", Kind: "dying", Reason: "insolvent", Notice: &Notice{Kind: IsDying, Name: "agent-7", Reason: "insolvent"}},
		{At: wall(-48 * time.Hour), Name: "agent-7", Kind: "dead", Reason: "insolvent", ExitCode: new(122), Notice: &Notice{
			Kind: HasEnded, Name: "agent-7", Reason: "insolvent", Exit: 122,
		}},
		{At: at, Name: "ev\x1b[2Jil", Kind: "resumed\n", Reason: "it is tomorrow"},
	}
}

// TestReceiptsAgree: a receipt asked for later begins with what run wrote.
func TestReceiptsAgree(t *testing.T) {
	end := agentEnd()
	var first, later bytes.Buffer
	r := end.Receipt()
	if err := r.WriteJSON(&first); err != nil {
		t.Fatal(err)
	}
	if err := (&Burial{End: end, ID: "x"}).WriteJSON(&later); err != nil {
		t.Fatal(err)
	}
	begin := strings.TrimSuffix(first.String(), "}\n")
	if !strings.HasPrefix(later.String(), begin+`,"id":"x",`) {
		t.Errorf("run wrote\n%sthe market says\n%s", first.String(), later.String())
	}
	if !json.Valid(later.Bytes()) {
		t.Error("no JSON")
	}
}
