package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	joule = unit.Microjoules(1_000_000)
	coin  = unit.Credits(1_000_000)
)

// makeEnd is the example of the user guide: make, 41.2 s, nothing limited.
func makeEnd() End {
	return End{
		Workload: Workload{
			Name: "make", State: "dead", Reason: Exited, ExitCode: new(0), ChildExit: new(0),
			Budget: 612 * coin, Spent: 612 * coin, EnergyCost: 571 * coin, Rent: 39 * coin, Erasure: 2 * coin,
			Energy: 571 * joule, CPU: unit.CoreTime(58_300 * time.Millisecond), PeakMemory: 1_946 << 20, Open: true, LastPrice: 1100,
		},
		Command: []string{"make", "-j8"}, Wall: 41_200 * time.Millisecond, Modelled: true, Sigma: 500_000, SpotPeak: 2300,
	}
}

func agentEnd() End {
	return End{
		Workload: Workload{
			Name: "agent-7", State: "dead", Reason: "insolvent", ExitCode: new(122), ChildExit: new(143),
			Budget: 500 * coin, Spent: 500 * coin, EnergyCost: 463 * coin, Rent: 37 * coin,
			Energy: 463 * joule, CPU: unit.CoreTime(47_200 * time.Millisecond), LastPrice: 1800,
		},
		Command: []string{"./agent"}, Wall: time.Minute, Retryable: true, Remedy: "fund agent-7", Modelled: true, Sigma: 500_000,
	}
}

func TestClosingLines(t *testing.T) {
	ends := []struct {
		name    string
		end     End
		receipt string
	}{
		{name: "open wallet", end: makeEnd()},
		{name: "insolvent", end: agentEnd(), receipt: "agent-7.json"},
	}
	add := func(name string, base End, change func(*End)) {
		change(&base)
		ends = append(ends, struct {
			name    string
			end     End
			receipt string
		}{name, base, ""})
	}
	add("nobody competed", makeEnd(), func(e *End) {
		e.Rent, e.Erasure, e.Spent, e.EnergyCost = 0, 0, 571*coin, 571*coin
	})
	add("budget", makeEnd(), func(e *End) { e.Open, e.Budget = false, 1000*coin })
	add("earned", makeEnd(), func(e *End) { e.Open, e.Budget, e.Income = false, 1000*coin, 20*coin })
	add("budget from a wallet", makeEnd(), func(e *End) { e.Open, e.Budget, e.Payer = false, 612*coin, "team" })
	add("dear", makeEnd(), func(e *End) { e.EnergyCost += 12_000 * coin; e.Spent += 12_000 * coin })
	add("failed command, measured", makeEnd(), func(e *End) {
		e.ExitCode, e.Modelled, e.Sigma, e.PeakMemory = new(2), false, 10_000, 0
	})
	add("killed by a signal", makeEnd(), func(e *End) { e.Reason, e.ExitCode = Signaled, new(139) })
	add("long command with quotes and an escape", makeEnd(), func(e *End) {
		e.Command = []string{"/usr/bin/printf", "it's\x1b[31m", strings.Repeat("x", 99)}
	})
	add("quoted", makeEnd(), func(e *End) { e.Command = []string{"sh", "-c", "echo 'a b' $HOME"} })
	add("instant", makeEnd(), func(e *End) {
		e.Wall, e.CPU, e.Energy = 900*time.Microsecond, 700_000, 8_000
		e.Spent, e.EnergyCost, e.Rent, e.Erasure = 8_001, 8_000, 1, 0
	})
	add("cap", agentEnd(), func(e *End) { e.Reason, e.ExitCode = "cap:memory", new(121) })
	var out strings.Builder
	for _, e := range ends {
		fmt.Fprintf(&out, "== %s\n", e.name)
		if err := e.end.WriteLines(&out, e.receipt); err != nil {
			t.Fatal(err)
		}
	}
	golden.Check(t, "closing.golden", out.String())
}

func TestReceiptFirstKeys(t *testing.T) {
	end := agentEnd()
	receipt := end.Receipt()
	var b bytes.Buffer
	if err := receipt.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "receipt.golden", b.String())
	const first = `{"reason":"insolvent","retryable":true,"exit_code":122,"child_exit":143,"remedy":"fund agent-7"`
	if !strings.HasPrefix(b.String(), first) {
		t.Errorf("receipt begins %.120s, want %s", b.String(), first)
	}
}

func TestNotices(t *testing.T) {
	var out strings.Builder
	for _, n := range []Notice{
		{Kind: Warned, Name: "agent-7", Percent: 80, What: "budget", Limit: "500 $J", Left: 40 * time.Second, Fund: FundFor(500 * coin)},
		{Kind: Warned, Name: "agent-7", Percent: 95, Limit: "500 $J"},
		{Kind: Warned, Name: "agent-7", Percent: 80, Limit: "5000 $J", Fund: FundFor(5000 * coin)},
		{Kind: Warned, Name: "agent-7", Percent: 95, What: "memory", Limit: "4 GiB"},
		{Kind: WentBroke, Name: "agent-7", Left: 10 * time.Second},
		{Kind: WasPaused, Name: "agent-7"},
		{Kind: WasFunded, Name: "agent-7"},
		{Kind: WentBroke, Name: "agent-7", Wallet: "anna", Left: 10 * time.Second},
		{Kind: WasPaused, Name: "agent-7", Wallet: "anna"},
		{Kind: WasFunded, Name: "agent-7", Wallet: "anna"},
		{Kind: IsDying, Name: "agent-7", Reason: "insolvent"},
		{Kind: HasEnded, Name: "agent-7", Reason: "insolvent", Exit: 122},
		{Kind: HasEnded, Name: "agent-7", Reason: Exited, Exit: 3},
	} {
		out.WriteString(n.Line() + "\n")
	}
	golden.Check(t, "notices.golden", out.String())
}

func fleetStatement() Statement {
	return Statement{
		Node: Node{
			Enforcement: "cgroup", EnergySource: "generic model", Modelled: true, Sigma: 500_000, Epochs: 400, EpochUS: 50_000,
			Misdelivery: 12_000, Energy: 260 * joule, Attributed: 240*joule - 7, System: 4 * joule, Idle: 16 * joule, Unattributed: 7, Cores: 1000,
		},
		Price: Price{Base: 12_000_000, Spot: 1000, SpotPeak: 2000},
		Workloads: []Workload{
			{
				Name: "scientist", State: "dead", Reason: "stopped", ExitCode: new(0), ChildExit: new(0), Budget: 30 * coin, Income: 5120 * coin,
				Spent: 231 * coin, EnergyCost: 222 * coin, Rent: 9 * coin, Balance: 4919 * coin, Energy: 222 * joule,
				CPU: unit.CoreTime(18_500 * time.Millisecond), Wait: 1, Work: 512, WorkKind: "prime-batch",
			},
			{
				Name: "leech-1", State: "dead", Reason: "insolvent", ExitCode: new(122), ChildExit: new(143), Budget: 30 * coin,
				Spent: 30 * coin, EnergyCost: 17*coin + 3, Rent: 13*coin - 3, Energy: 17 * joule, CPU: 1_417_000_000, Erased: new(unit.Bytes(4096)),
			},
		},
		Ledger: Ledger{
			Minted: 5180 * coin,
			Accounts: map[string]unit.Credits{
				"mint": -5180 * coin, "heat": 239*coin + 3, "treasury": 22*coin - 3, "wallet:scientist": 4919 * coin, "wallet:leech-1": 0,
			},
		},
	}
}

func TestStatement(t *testing.T) {
	s := fleetStatement()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "statement.golden", out.String())
	var back Statement
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
	out.Reset()
	if err := s.WriteClosing(&out, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "statement-closing.golden", out.String())
}

func TestEmptyStatementHasEveryKey(t *testing.T) {
	var out bytes.Buffer
	if err := (&Statement{}).WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "null") {
		t.Errorf("an empty statement holds null:\n%s", out.String())
	}
}

func TestStatementCheckFindsEveryBreak(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Statement)
	}{
		{"node energy", func(s *Statement) { s.Node.Idle++ }},
		{"unattributed", func(s *Statement) {
			s.Node.Modelled = false
			s.Node.Idle -= 3 * joule
			s.Node.Unattributed += 3 * joule
		}},
		{"unattributed, modelled", func(s *Statement) { s.Node.Attributed -= 131 * joule; s.Node.Unattributed += 131 * joule }},
		{"more burned than attributed", func(s *Statement) { s.Workloads[0].Energy += 2 * joule }},
		{"parts", func(s *Statement) { s.Workloads[1].Rent++ }},
		{"overspent", func(s *Statement) { s.Workloads[1].Budget-- }},
		{"negative balance", func(s *Statement) { s.Workloads[0].Balance = -1 }},
		{"ledger", func(s *Statement) { s.Ledger.Accounts["heat"]++ }},
		{"ledger sum", func(s *Statement) { s.Ledger.Sum++ }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := fleetStatement()
			tt.spoil(&s)
			err := s.Check()
			if err == nil {
				t.Fatal("accepted")
			}
			t.Log(err)
		})
	}
}

func snapshot() Snapshot {
	s := fleetStatement()
	s.Node.Power, s.Node.Allowance = 12_000_000, 12_000_000
	s.Price.Spot = 1950
	alive := Live{Workload: s.Workloads[0], Bid: 2000, Price: 1950, CoresNow: 250, Power: 3_000_000}
	alive.State, alive.Reason, alive.ExitCode = "running", "", nil
	waiting := Live{Workload: Workload{Name: "leech-2", State: "waiting", Balance: 12 * coin}, Bid: 1500, Auto: true, Refusal: "outbid"}
	open := Live{Workload: Workload{Name: "make", State: "running", Open: true, Energy: 12_345 * joule}, Bid: 2000, Price: 1000, CoresNow: 1400, Power: 9_000_000}
	dead := Live{Workload: s.Workloads[1], Bid: 2000}
	return Snapshot{At: 12 * time.Second, Node: s.Node, Price: s.Price, Workloads: []Live{alive, dead, waiting, open}}
}

func TestTable(t *testing.T) {
	s := snapshot()
	var out strings.Builder
	out.WriteString("== all\n" + s.Head() + "\n" + strings.Join(s.Rows(0), "\n") + "\n")
	out.WriteString("== three fit\n" + strings.Join(s.Rows(3), "\n") + "\n")
	out.WriteString("== one line\n" + s.Line() + "\n")
	golden.Check(t, "table.golden", out.String())
}

func TestScreenRedrawsInPlace(t *testing.T) {
	s := snapshot()
	var out strings.Builder
	screen := Screen{W: &out, Width: 60, Height: 7}
	for _, step := range []func() error{
		func() error { return screen.Draw(&s) },
		func() error { return screen.Print("maxwell: leech-1 is broke") },
		func() error { return screen.Draw(&s) },
		func() error { return screen.Draw(&s) },
		screen.Clear,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.SplitSeq(out.String(), "\n") {
		text := line[strings.LastIndex(line, "\x1b[J")+1:]
		if n := len([]rune(strings.TrimPrefix(text, "[J"))); n > 60 {
			t.Errorf("a line of %d columns on a screen of 60: %q", n, line)
		}
	}
	golden.Check(t, "screen.golden", strings.ReplaceAll(out.String(), "\x1b", "ESC"))
}

func TestDoctor(t *testing.T) {
	d := Doctor{
		Enforcement: Finding{Name: "enforcement", OK: true, Value: "cgroup v2, as root", Better: "scheduler (needs Linux 6.12+ with sched_ext; this is 6.1)"},
		Trees:       Finding{Name: "stops trees", OK: true, Value: "yes, all descendants"},
		Caps:        []string{"cpu", "memory", "pids"},
		Energy:      Finding{Name: "energy", Value: "generic model", Better: "no RAPL in this VM", Hint: "narrow it: maxwell up with node: {watts_per_core: N}"},
		Modelled:    true, Sigma: 500_000, Base: 9_800_000, Ready: true,
		Features: []Finding{
			{Name: "bpf", OK: true, Value: "tp_btf"},
			{Name: "sched_ext", Better: "the kernel has no sched_ext", Hint: "Linux 6.12 or later"},
		},
	}
	var out bytes.Buffer
	if err := d.WriteText(&out, true); err != nil {
		t.Fatal(err)
	}
	out.WriteString("== nothing works\n")
	broken := Doctor{
		Enforcement: Finding{Value: "none"}, Trees: Finding{Value: "no"}, Base: 9_800_000, Sigma: 20_000,
		Energy: Finding{Value: "powercap"}, Blocker: "no /proc; mount it",
		Repair: []Repaired{{What: "/sys/fs/cgroup/maxwell-1", Done: true}, {What: "/sys/fs/cgroup/maxwell-2", Error: "busy"}},
	}
	if err := broken.WriteText(&out, false); err != nil {
		t.Fatal(err)
	}
	out.WriteString("== nothing to repair, and a market\n")
	d.Repair, d.Market = []Repaired{}, "1.5 cores"
	if err := d.WriteText(&out, false); err != nil {
		t.Fatal(err)
	}
	out.WriteString("== json\n")
	if err := d.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "doctor.golden", out.String())
}

func round() Round {
	s := Tally{Work: 1000, Energy: 120 * joule, CPU: 10_000_000_000}
	return Round{
		Arms: Arms{
			Stock: s, Oracle: Tally{1990, 120 * joule, 10_000_000_000}, Quota: Tally{1000, 119 * joule, 9_900_000_000},
			Maxwell: Tally{1800, 120 * joule, 10_000_000_000},
		},
		After: &Tally{1390, 84 * joule, 7_000_000_000}, DiedAt: 3 * time.Second,
	}
}

func TestExperiment(t *testing.T) {
	plan := Plan{
		Leeches: 1, Rounds: 2, Length: 10 * time.Second, Endowment: 24 * coin, Bid: 2000,
		Enforcement: "cgroup", Quota: "cgroup", Modelled: true, Sigma: 500_000,
	}
	e := Compare(plan, []Round{round(), round()})
	if got, want := *e.Ratio(), 1.8; got < want-1e-9 || got > want+1e-9 {
		t.Errorf("ratio %v, want %v", got, want)
	}
	// 1390/84 over 1000/120 and over 1990/120.
	if got := *e.RatioAfter(); got < 1.9857 || got > 1.9858 {
		t.Errorf("ratio after %v, want 1.98571", got)
	}
	if got := *e.OracleShare(); got < 0.99784 || got > 0.99786 {
		t.Errorf("oracle share %v, want 0.99785", got)
	}
	var out bytes.Buffer
	write := func(e *Experiment) {
		t.Helper()
		if err := e.WriteText(&out); err != nil {
			t.Fatal(err)
		}
		if err := e.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
	}
	write(&e)
	alive := round()
	alive.After, alive.NoAfter = nil, "leech-1 still had 3.1 $J"
	undead := Compare(plan, []Round{round(), alive})
	if undead.RatioAfter() != nil || undead.OracleShare() != nil {
		t.Error("a leech lived in round 2, and yet there is a ratio after the last death")
	}
	write(&undead)
	golden.Check(t, "experiment.golden", out.String())
	empty := Compare(plan, nil)
	if empty.Ratio() != nil || empty.RatioAfter() != nil || empty.NoAfter == "" {
		t.Errorf("no rounds gave %v, %v, %q", empty.Ratio(), empty.RatioAfter(), empty.NoAfter)
	}
	late := round()
	late.After = &Tally{}
	if e := Compare(plan, []Round{late}); e.RatioAfter() != nil || e.NoAfter == "" {
		t.Error("nothing was measured after the last death, and yet there is a ratio")
	}
}

func TestSumsAsPrintedAddUp(t *testing.T) {
	number := func(text string) int64 {
		text = strings.ReplaceAll(strings.TrimSuffix(text, " $J"), ",", "")
		whole, fraction, _ := strings.Cut(text, ".")
		v, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", 6-len(fraction)), 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return v
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := make([]unit.Credits, 4)
		var whole unit.Credits
		for i := range parts {
			parts[i] = unit.Credits(rapid.Int64Range(0, 1<<rapid.IntRange(0, 50).Draw(t, "bits")).Draw(t, "part"))
			whole += parts[i]
		}
		text, shown := sum(whole, parts)
		var total int64
		for _, s := range shown {
			total += number(s)
		}
		if total != number(text) {
			t.Fatalf("%v shows as %s = %v", parts, text, shown)
		}
	})
}

func TestBudgetFor(t *testing.T) {
	for cost, want := range map[unit.Credits]unit.Credits{
		612 * coin: 800 * coin, 0: coin, coin: 3 * coin / 2, 100 * coin: 150 * coin, 7 * coin: 10 * coin, 1 << 62: 1<<62 + 1<<60,
	} {
		if got := budgetFor(cost, 0); got != want {
			t.Errorf("budgetFor(%s) = %s, want %s", cost, got, want)
		}
	}
	if got := budgetFor(coin, 5*coin); got != 5*coin {
		t.Errorf("below the least budget: %s", got)
	}
}

func TestFractionRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Fraction(rapid.Int64Range(-10_000_000, 10_000_000).Draw(t, "ppm"))
		text, err := want.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var got Fraction
		if err := got.UnmarshalJSON(text); err != nil || got != want {
			t.Fatalf("%d became %s became %d (%v)", want, text, got, err)
		}
	})
}
