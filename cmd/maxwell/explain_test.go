package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// explainLine is a line to a market that explains one workload. A call that a test
// did not expect panics: the embedded client is nil.
type explainLine struct {
	maxwellv1connect.MarketServiceClient

	explained *v1.ExplainResponse
	asked     []string
	closed    int
}

func (f *explainLine) Explain(_ context.Context, r *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	f.asked = append(f.asked, r.GetName())
	if f.explained.GetWorkload().GetName() != r.GetName() {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no workload "+r.GetName()+"; see maxwell ps"))
	}
	return f.explained, nil
}

func (f *explainLine) Close() { f.closed++ }

func (f *explainLine) run(args ...string) outcome {
	var out, err strings.Builder
	a := &app{
		out: &out, err: &err, in: os.Stdin, now: time.Now, environ: func() []string { return nil },
		connect: func(context.Context) (connection, error) { return f, nil },
	}
	code := a.execute(args)
	return outcome{out.String(), err.String(), code}
}

func outbidCrawler() *explainLine {
	return &explainLine{explained: &v1.ExplainResponse{
		Verdict: "outbid",
		Workload: &v1.Workload{
			Name: "crawler", State: "waiting", BudgetUcredits: 500_000_000, BalanceUcredits: 478_000_000, SpentUcredits: 20_000_000,
			BidMilli: 2000, Refusal: "outbid",
		},
		Price:       &v1.PriceInfo{BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 3100},
		WantedMilli: 1000, GotMilli: 200, NeededBidMilli: 3107, Rank: 3, Ranked: 5, ReserveMilli: 1000,
		LastsNs: 240_000_000_000, SupplyMilli: 2000, OthersMilli: 100,
	}}
}

func TestExplain(t *testing.T) {
	f := outbidCrawler()
	o := f.run("explain", "crawler")
	const want = "crawler is outbid: it bids 2x, the last core-second went for 3.1x; it got 0.2 of\n" +
		"  the 1.0 cores it wants\n" +
		"  maxwell bid crawler 3.5x    3.11x would have been enough just now\n" +
		"  price  bid 2x, spot 3.1x, its own energy 1x; rank 3 of 5 that want to run\n" +
		"  cores  got 0.2 of 1.0 wanted; 2.0 for sale, 0.1 taken by other programs\n" +
		"  money  478 $J left, enough for 4 min at this rate\n"
	if o.out != want || o.err != "" || o.code != 0 || f.closed != 1 {
		t.Errorf("got %+v, %d lines closed, want\n%s", o, f.closed, want)
	}
	// Every figure of the answer reaches the person who asked.
	f.explained.Verdict, f.explained.GetWorkload().HorizonNs = "pacing", 3_600_000_000_000
	f.explained.PacedUcreditsPerS = 2_000_000
	if o := f.run("explain", "crawler"); !strings.Contains(o.out, "paced to 2 $J/s") || !strings.Contains(o.out, "horizon of 60 min") {
		t.Errorf("a paced one: %s", o.out)
	}
	f.explained.Verdict, f.explained.GetWorkload().CoresMilli, f.explained.GotMilli = "cores", 1000, 1000
	if o := f.run("explain", "crawler"); !strings.Contains(o.out, "the most that its --cores allows") {
		t.Errorf("a capped one: %s", o.out)
	}
}

func TestExplainJSON(t *testing.T) {
	o := outbidCrawler().run("explain", "--json", "crawler")
	var doc struct {
		Name, Verdict string
		Help          []string
		Needed        int64 `json:"needed_bid_x_milli"`
		Others        int64 `json:"others_milli"`
		Price         struct {
			Spot int64 `json:"spot_x_milli"`
		}
		Workload struct {
			Balance int64 `json:"balance_ucredits"`
		}
	}
	if err := json.Unmarshal([]byte(o.out), &doc); err != nil || o.code != 0 {
		t.Fatalf("%+v: %v", o, err)
	}
	if doc.Name != "crawler" || doc.Verdict != "outbid" || len(doc.Help) != 1 || doc.Help[0] != "maxwell bid crawler 3.5x" ||
		doc.Needed != 3107 || doc.Others != 100 || doc.Price.Spot != 3100 || doc.Workload.Balance != 478_000_000 {
		t.Errorf("got %+v", doc)
	}
}

// TestGuideKnowsEveryVerdict: no word of the market is unexplained.
func TestGuideKnowsEveryVerdict(t *testing.T) {
	guide, err := os.ReadFile(documents + "guide/explain.md")
	if err != nil {
		t.Fatal(err)
	}
	for v := demon.VerdictDead; v <= demon.VerdictObserved; v++ {
		if !strings.Contains(string(guide), "`"+v.String()+"`") {
			t.Errorf("docs/guide/explain.md does not explain %q", v)
		}
		// Nor is it a word that the screen only repeats.
		x := explanationOf(&v1.ExplainResponse{Verdict: v.String(), Workload: &v1.Workload{Name: "x"}})
		var text strings.Builder
		if err := x.WriteText(&text); err != nil || strings.HasPrefix(text.String(), "x is "+v.String()+"\n") && v != demon.VerdictDead {
			t.Errorf("%s has no text of its own: %s (%v)", v, text.String(), err)
		}
	}
}

func TestExplainRefuses(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "maxwell: explain: the name of a workload is missing; write maxwell explain NAME\n"},
		{[]string{"a", "b"}, "maxwell: explain: unexpected argument \"b\"\n"},
		{[]string{"--jsn", "a"}, "maxwell: explain: unknown flag --jsn; did you mean --json?\n"},
		// What is not the market's own words is a broken line: see node.Plain.
		{[]string{"nobody"}, "maxwell: the market ended unexpectedly\n"},
	} {
		o := outbidCrawler().run(append([]string{"explain"}, test.args...)...)
		if o.code != 125 || o.out != "" || o.err != test.want {
			t.Errorf("explain %v: %+v, want 125 and %q", test.args, o, test.want)
		}
	}
	var out, errs strings.Builder
	a := &app{out: &out, err: &errs, connect: func(context.Context) (connection, error) { return nil, errors.New("no market runs here") }}
	if code := a.execute([]string{"explain", "x"}); code != 125 || errs.String() != "maxwell: no market runs here\n" {
		t.Errorf("without a market: %d, %q", code, errs.String())
	}
}
