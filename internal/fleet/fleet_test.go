package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

var placeless = cmpopts.IgnoreFields(Workload{}, "Place")

func TestParseReadsEveryKey(t *testing.T) {
	text := `
node: {cores: 1, watts: 12, watts_per_core: 14W, idle_watts: 3.5, floor: 2%, epoch: 100ms}
workloads:
  scientist: {command: [maxwell, work, primes], budget: 30, bid: 2x, income: {per: prime-batch, amount: 10}}
  leech:
    command:
      - maxwell
      - work
      - hash
      - 0o17
      - true
      - "5"
    budget: 30 $J
    bid: auto
    max_bid: 16x
    horizon: 2h
    timeout: 10m
    cores: 0.5
    memory: 4G
    pids: 512
    max_energy: 500J
    max_cpu: 10m
    when_broke: pause
    grace: 2s
    replicas: 3
    env: {LEVEL: 3, MODE: "a b"}
    dir: /tmp
  paced: {command: [x], rate: 16/s, grace: 0}
`
	got, err := Parse("fleet.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	scientist := New("scientist", "maxwell", "work", "primes")
	scientist.Budget = 30_000_000
	scientist.Income = Income{Per: "prime-batch", Amount: 10_000_000}
	leech := New("leech", "maxwell", "work", "hash", "0o17", "true", "5")
	leech.Budget, leech.Bid, leech.MaxBid = 30_000_000, Bid{Auto: true}, 16_000
	leech.Horizon, leech.Timeout, leech.Cores = 2*time.Hour, 10*time.Minute, 500
	leech.Memory, leech.Pids, leech.MaxEnergy = 4<<30, 512, 500_000_000
	leech.MaxCPU, leech.WhenBroke, leech.Grace = unit.CoreTime(10*time.Minute), Pause, 2*time.Second
	leech.Replicas, leech.Dir = 3, "/tmp"
	leech.Env = map[string]string{"LEVEL": "3", "MODE": "a b"}
	paced := New("paced", "x")
	paced.Rate, paced.Grace = 16_000_000, 0
	want := Fleet{
		Node: Node{
			Cores: 1000, Watts: 12_000_000, WattsPerCore: 14_000_000, IdleWatts: 3_500_000,
			Floor: new(unit.PPM(20_000)), Epoch: 100 * time.Millisecond,
		},
		Workloads: []Workload{scientist, leech, paced},
	}
	if diff := cmp.Diff(want, got, placeless); diff != "" {
		t.Errorf("fleet (-want +got):\n%s", diff)
	}
	if p := got.Workloads[1].Place; p != (Place{5, 3}) {
		t.Errorf("leech is at %v, want 5:3", p)
	}
	var names []string
	for _, w := range got.Expand() {
		names = append(names, w.Name)
	}
	if diff := cmp.Diff([]string{"scientist", "leech-1", "leech-2", "leech-3", "paced"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

// TestErrors runs every file of testdata/errors.txt: blocks of YAML between
// lines "== name", and compares the one-line errors with errors.golden.
func TestErrors(t *testing.T) {
	raw, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for block := range strings.SplitSeq(string(raw), "== ") {
		name, text, found := strings.Cut(block, "\n")
		if !found {
			continue
		}
		_, err := Parse("fleet.yaml", []byte(text))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%s: the error has several lines: %q", name, err)
		}
		fmt.Fprintf(&out, "%s\n    %v\n", name, err)
	}
	golden.Check(t, "errors.golden", out.String())
}

func drawWorkload(t *rapid.T, name string) Workload {
	word := rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return r != 0 }), 0, 12, -1)
	w := New(name, append([]string{rapid.StringMatching(`[a-z./ :#"'\\-]{1,9}`).Draw(t, "program")}, rapid.SliceOfN(word, 0, 3).Draw(t, "args")...)...)
	pick := func(what string) bool { return rapid.Bool().Draw(t, what) }
	amount := func(what string, limit int64) int64 { return rapid.Int64Range(1, limit).Draw(t, what) }
	if pick("budget") {
		w.Budget = unit.Credits(amount("budget µ$J", 1<<60))
		w.Bid.Auto = pick("auto")
		if w.Bid.Auto {
			w.Bid.Price, w.Horizon = 0, MinHorizon+time.Duration(amount("horizon", 1<<50))
		}
	}
	if !w.Bid.Auto && pick("bid") {
		w.Bid.Price = unit.Price(amount("bid m", 1<<40))
	}
	if w.Horizon == 0 && pick("rate") {
		w.Rate = unit.Spend(amount("rate", 1<<50))
	}
	if pick("caps") {
		w.MaxBid = unit.Price(amount("max bid", 1<<40))
		w.Timeout = time.Duration(amount("timeout", 1<<50))
		w.Cores = unit.MilliCores(amount("cores", 1<<20))
		w.Memory = leastMemory - 1 + unit.Bytes(amount("memory", 1<<50))
		w.Pids = 1 + amount("pids", 4<<20-1)
		w.MaxEnergy = unit.Microjoules(amount("energy", 1<<60))
		w.MaxCPU = unit.CoreTime(amount("cpu", 1<<50))
		w.Grace = time.Duration(amount("grace", 1<<50)) - 1
		w.Replicas = int(amount("replicas", 5))
		w.WhenBroke = Pause
		w.Dir = "/" + word.Draw(t, "dir")
		w.Income = Income{Per: "unit", Amount: unit.Credits(amount("income", 1<<60))}
		w.Env = map[string]string{"A": word.Draw(t, "env"), "b c": "x"}
	}
	w.StopSaid = w.WhenBroke == Stop && rapid.Bool().Draw(t, "stop said")
	w.Wallet = rapid.SampledFrom([]string{"", "team", "a_b-1"}).Draw(t, "wallet")
	return w
}

func TestFormatRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want Fleet
		for i := range rapid.IntRange(1, 4).Draw(t, "workloads") {
			want.Workloads = append(want.Workloads, drawWorkload(t, fmt.Sprintf("w%d", i)))
		}
		if rapid.Bool().Draw(t, "node") {
			want.Node = Node{
				Cores:        unit.MilliCores(rapid.Int64Range(1, 1<<20).Draw(t, "node cores")),
				Watts:        unit.Microwatts(rapid.Int64Range(1, 1<<50).Draw(t, "watts")),
				WattsPerCore: unit.Microwatts(rapid.Int64Range(1, 1<<50).Draw(t, "watts per core")),
				IdleWatts:    unit.Microwatts(rapid.Int64Range(1, 1<<50).Draw(t, "idle")),
				Floor:        new(unit.PPM(rapid.Int64Range(0, 200_000).Draw(t, "floor"))),
				Epoch:        time.Duration(rapid.Int64Range(int64(minEpoch), int64(maxEpoch)).Draw(t, "epoch")),
			}
		}
		text := Format(&want)
		got, err := Parse("fleet.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got, placeless); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, text)
		}
	})
}

func TestTenThousandWorkloads(t *testing.T) {
	var b strings.Builder
	b.WriteString("workloads:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  w%d: {command: [sleep, inf], budget: 30, bid: 2x}\n", i)
	}
	f, err := Parse("fleet.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Workloads) != 10_000 || f.Workloads[9999].Place.Line != 10_001 {
		t.Errorf("%d workloads, the last on line %d", len(f.Workloads), f.Workloads[len(f.Workloads)-1].Place.Line)
	}
	if _, err := Parse("fleet.yaml", []byte("workloads: {w: {command: [x], replicas: 10000}}")); err != nil {
		t.Error(err)
	}
}

func BenchmarkParse10k(b *testing.B) {
	var text strings.Builder
	text.WriteString("workloads:\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "  w%d: {command: [sleep, inf], budget: 30, bid: 2x}\n", i)
	}
	raw := []byte(text.String())
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Parse("fleet.yaml", raw); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTrusted(t *testing.T) {
	plain := Caller{UID: 0, SudoUID: -1, SudoGID: -1}
	sudo := Caller{UID: 0, SudoUID: 1000, SudoGID: 1000}
	user := Caller{UID: 1000, SudoUID: -1, SudoGID: -1}
	tests := []struct {
		name         string
		mode         fs.FileMode
		owner, group int
		caller       Caller
		ok           bool
	}{
		{"root's own", 0o644, 0, 0, plain, true},
		{"world writable", 0o646, 0, 0, plain, false},
		{"group writable by a foreign group", 0o664, 0, 50, plain, false},
		{"group writable by group root", 0o664, 0, 0, plain, true},
		{"another user's", 0o644, 1000, 1000, plain, false},
		{"the sudoer's own", 0o664, 1000, 1000, sudo, true},
		{"a third person's behind sudo", 0o644, 1001, 1000, sudo, false},
		{"the sudoer's, world writable", 0o666, 1000, 1000, sudo, false},
		{"a plain user runs what he likes", 0o666, 1001, 1001, user, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Trusted("fleet.yaml", tt.mode, tt.owner, tt.group, tt.caller)
			if (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestNameFor(t *testing.T) {
	for command, want := range map[string]string{
		"make": "make", "./agent": "agent", "/usr/bin/python3.12": "python3-12",
		"./-x": "x", "/": "run", "..": "run", "a b": "a-b", "ünï": "n", strings.Repeat("a", 99): strings.Repeat("a", 63),
	} {
		got := NameFor(command)
		if got != want {
			t.Errorf("NameFor(%q) = %q, want %q", command, got, want)
		}
		if p := CheckName(got); p != nil {
			t.Errorf("NameFor(%q) = %q, which is no name: %v", command, got, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	raw, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(raw), "== ") {
		_, text, _ := strings.Cut(block, "\n")
		f.Add([]byte(text))
	}
	f.Add([]byte("workloads: {a: {command: [x], budget: 30, replicas: 2}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			return
		}
		fleet, err := Parse("f", text)
		if err != nil {
			placed, ok := errors.AsType[*Error](err)
			if !ok || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("not a one-line placed error: %q %T", err, err)
			}
			_ = placed
			return
		}
		again, err := Parse("f", Format(&fleet))
		if err != nil {
			t.Fatalf("%v\n%s", err, Format(&fleet))
		}
		if diff := cmp.Diff(fleet, again, placeless, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
	})
}
