package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/internal/golden"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func TestClearBooks(t *testing.T) {
	files, err := filepath.Glob("testdata/clear/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	var out strings.Builder
	for _, file := range files {
		for _, args := range [][]string{{"clear", file}, {"clear", "--json", file}} {
			o := newFakeMarket().run(args...)
			fmt.Fprintf(&out, "== %s (exit %d)\n%s%s", filepath.Base(file), o.code, o.out, o.err)
		}
	}
	golden.Check(t, "clear.golden", out.String())
}

// TestClearByHand holds the golden files to sums made by hand, up to the
// price grid of 1.1 %.
func TestClearByHand(t *testing.T) {
	text, err := os.ReadFile("testdata/clear/contested.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseBook("contested.json", text)
	if err != nil {
		t.Fatal(err)
	}
	got := clearBook(&b)
	// 50 ms for 90 ms wanted: high 30, mid 20, low 0. Who lost: mid's other 10
	// ms at a score of 30 $J/core-s, low's 30 ms at 10. high displaces 10 ms of
	// mid and 20 ms of low: 0.3 + 0.2 of rent beside 0.3 of energy. mid
	// displaces 20 ms of low: 0.2 + 0.2.
	for i, want := range []struct {
		us, payment int64
		refusal     string
	}{{30000, 800_000, ""}, {20000, 400_000, "rationed"}, {0, 0, "outbid"}, {0, 0, "no_demand"}, {0, 0, "below_reserve"}} {
		a := got.Allocations[i]
		if a.CoreUS != want.us || a.Refusal != want.refusal || a.Payment > want.payment || float64(a.Payment) < 0.985*float64(want.payment) {
			t.Errorf("%s: got %+v, want about %+v", b.Bids[i].ID, a, want)
		}
	}
	if got.Spot > 40_000_000 || got.Spot < 39_400_000 {
		t.Errorf("spot %d, want 10 + 30 $J per core-second", got.Spot)
	}
}

func drawBook(t *rapid.T) book {
	b := book{
		Rule: "vickrey", Seed: rapid.Uint64Range(0, math.MaxInt64).Draw(t, "seed"),
		SupplyUS: rapid.Int64Range(0, 200_000).Draw(t, "supply"), FloorPPM: rapid.SampledFrom([]int64{0, 20_000}).Draw(t, "floor"),
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "bids") {
		w := bid{
			ID: fmt.Sprintf("w%02d", i), DemandUS: rapid.Int64Range(0, 100_000).Draw(t, "demand"),
			Bid:     rapid.Int64Range(0, 20).Draw(t, "bid") * 5_000_000,
			Reserve: rapid.Int64Range(1, 4).Draw(t, "reserve") * 5_000_000,
			Deposit: rapid.Int64Range(0, 3).Draw(t, "deposit") * 1_000_000,
		}
		b.Bids = append(b.Bids, w)
	}
	return b
}

func TestClearProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawBook(t)
		got := clearBook(&b)
		var sold int64
		for i, a := range got.Allocations {
			w := b.Bids[i]
			sold += a.CoreUS
			if a.CoreUS < 0 || a.CoreUS > w.DemandUS {
				t.Fatalf("%s got %d of %d us", a.ID, a.CoreUS, w.DemandUS)
			}
			// Payment lies between the energy and the bid, both rounded up.
			least := w.Reserve * a.CoreUS / 1_000_000
			most := max(w.Bid, w.Reserve)*a.CoreUS/1_000_000 + 1
			if a.Payment < least || a.Payment > most {
				t.Fatalf("%s pays %d, want %d to %d", a.ID, a.Payment, least, most)
			}
			if (a.Refusal == "") != (a.CoreUS == w.DemandUS && w.DemandUS > 0 && w.Bid >= w.Reserve) {
				t.Fatalf("%+v of %+v: refusal %q", a, w, a.Refusal)
			}
		}
		if sold > b.SupplyUS {
			t.Fatalf("sold %d of %d us", sold, b.SupplyUS)
		}
		// The place in the file changes nothing.
		turned := b
		turned.Bids = slices.Clone(b.Bids)
		slices.Reverse(turned.Bids)
		again := clearBook(&turned)
		slices.Reverse(again.Allocations)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("order of the file matters (-as written +reversed):\n%s", diff)
		}
	})
}

func TestBookErrors(t *testing.T) {
	const good = `{"id":"a","demand_core_us":1,"bid_ucredits_per_core_s":1,"reserve_ucredits_per_core_s":1}`
	list := func(bids string) string { return `{"rule":"vickrey","supply_core_us":1,"bids":[` + bids + `]}` }
	tests := []struct{ name, text string }{
		{"nothing", ""},
		{"not JSON", "rule: vickrey"},
		{"a list", "[]"},
		{"cut off", `{"rule":"vickrey"`},
		{"two objects", list("") + "{}"},
		{"no rule", `{"supply_core_us":1,"bids":[]}`},
		{"no bids", `{"rule":"vickrey","supply_core_us":1}`},
		{"another rule", `{"rule":"gsp","supply_core_us":1,"bids":[]}`},
		{"rule in capitals", `{"RULE":"vickrey","supply_core_us":1,"bids":[]}`},
		{"unknown key", `{"rule":"vickrey","suply_core_us":1,"bids":[]}`},
		{"key twice", `{"rule":"vickrey","rule":"vickrey","supply_core_us":1,"bids":[]}`},
		{"negative supply", `{"rule":"vickrey","supply_core_us":-1,"bids":[]}`},
		{"fraction", `{"rule":"vickrey","supply_core_us":1.5,"bids":[]}`},
		{"exponent", `{"rule":"vickrey","supply_core_us":1e3,"bids":[]}`},
		{"overflow", `{"rule":"vickrey","supply_core_us":99999999999999999999,"bids":[]}`},
		{"text for a number", `{"rule":"vickrey","supply_core_us":"1","bids":[]}`},
		{"null", `{"rule":"vickrey","supply_core_us":null,"bids":[]}`},
		{"floor above one", `{"rule":"vickrey","supply_core_us":1,"floor_ppm":1000001,"bids":[]}`},
		{"bids of an object", `{"rule":"vickrey","supply_core_us":1,"bids":{}}`},
		{"bid of a number", list("1")},
		{"bid without an id", list(`{"demand_core_us":1}`)},
		{"empty id", list(strings.Replace(good, `"a"`, `""`, 1))},
		{"id twice", list(good + "," + good)},
		{"unknown bid key", list(`{"id":"a","demand":1}`)},
		{"used more than wanted", list(strings.Replace(good, `}`, `,"used_core_us":2}`, 1))},
		{"absurd bid", list(strings.Replace(good, `"bid_ucredits_per_core_s":1`, `"bid_ucredits_per_core_s":1000000000001`, 1))},
	}
	var out strings.Builder
	for _, tt := range tests {
		_, err := parseBook("BOOK.json", []byte(tt.text))
		if err == nil {
			t.Errorf("%s: accepted", tt.name)
			continue
		}
		fmt.Fprintf(&out, "%s\n    %v\n", tt.name, err)
	}
	golden.Check(t, "book-errors.golden", out.String())
}

func FuzzBook(f *testing.F) {
	files, _ := filepath.Glob("testdata/clear/*.json")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parseBook("f", text)
		if err != nil {
			if strings.Contains(oneLine(err.Error()), "\n") {
				t.Fatalf("several lines: %q", err)
			}
			return
		}
		if _, err := json.Marshal(clearBook(&b)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFirstScreen(t *testing.T) {
	o := newFakeMarket().run()
	if o.code != 0 || o.err != "" {
		t.Fatalf("got %+v", o)
	}
	golden.Check(t, "first-screen.golden", o.out)
}

func TestEndow(t *testing.T) {
	// 10 $J per core-second, bid 2x, two of them: 2 s x 1/2 core x 20 $J.
	if got := endow(10_000_000, 2000, 2, unit.One, 5_000_000); got != 25_000_000 {
		t.Errorf("two: %s, want 25 $J", got)
	}
	if got := endow(10_000_000, 2000, 2, unit.One/2, 5_000_000); got != 15_000_000 {
		t.Errorf("two on half a core: %s, want 15 $J", got)
	}
	if got := endow(10_000_000, 2000, 10, unit.One, 5_000_000); got != 10_000_000 {
		t.Errorf("ten: %s, want twice the deposit", got)
	}
}

func TestAttribute(t *testing.T) {
	before := machineBooks{at: time.Second, energy: 100_000_000, busy: 1_000_000_000}
	after := machineBooks{at: 11 * time.Second, energy: 400_000_000, busy: 21_000_000_000}
	// 300 J in 10 s, 10 W idle: 200 J above idle; half of the busy time is ours.
	if got := attribute(before, after, 10_000_000_000, 10_000_000); got != 100_000_000 {
		t.Errorf("got %s, want 100 J", got)
	}
	if got := attribute(before, before, 0, 10_000_000); got != 0 {
		t.Errorf("nothing happened: %s", got)
	}
	if got := attribute(before, after, 30_000_000_000, 10_000_000); got != 200_000_000 {
		t.Errorf("ticks lag behind the fleet: %s, want all 200 J", got)
	}
}

func TestBusyTime(t *testing.T) {
	got, err := busyTime([]byte("cpu  10 20 30 4000 50 6 7 0 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
	if err != nil || got != unit.CoreTime(730*time.Millisecond) {
		t.Errorf("got %v, %v, want 73 ticks", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu a b c d e f g h\n", "cpu -1 2 3 4 5 6 7 8\n"} {
		if _, err := busyTime([]byte(bad)); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestPricedResult(t *testing.T) {
	total := report.Tally{Work: 100, Energy: 50, CPU: 40}
	p := &priced{contest: &contest{leeches: 2}, alive: map[string]bool{"leech-2": true}}
	if r := p.result(total, 10*time.Second); r.after != nil || r.noAfter != "1 of 2 leeches were not yet broke and gone at the end" {
		t.Errorf("one lives: %+v", r)
	}
	p.atDeath, p.diedAt = &report.Tally{Work: 30, Energy: 20, CPU: 15}, 4*time.Second
	if r := p.result(total, 10*time.Second); r.after == nil || *r.after != (report.Tally{Work: 70, Energy: 30, CPU: 25}) || r.Tally != total {
		t.Errorf("all died: %+v", r)
	}
	if r := p.result(total, 4500*time.Millisecond); r.after != nil || r.noAfter != "the last leech died only 500ms before the end" {
		t.Errorf("too late: %+v", r)
	}
}
