package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// stubMarket is the server's side of a market with two workloads that remembers
// what it was asked.
type stubMarket struct {
	maxwellv1connect.UnimplementedMarketServiceHandler

	mu     sync.Mutex
	asked  []string // guarded by mu
	looks  int      // guarded by mu
	ids    map[string]bool
	broken bool
}

// note remembers one question and that its id was not used before.
func (s *stubMarket) note(what string, id []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(id) != 16 || s.ids[string(id)] {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("an id is 16 bytes, used once"))
	}
	if s.ids == nil {
		s.ids = make(map[string]bool)
	}
	s.ids[string(id)] = true
	s.asked = append(s.asked, what)
	return nil
}

func (s *stubMarket) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.asked...)
}

func (s *stubMarket) Snapshot(context.Context, *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return nil, connect.NewError(connect.CodeInternal, errors.New("the market is on fire"))
	}
	s.looks++
	return &v1.SnapshotResponse{Snapshot: &v1.Snapshot{
		AtNs: int64(s.looks) * 1_000_000_000,
		Node: &v1.Node{
			Enforcement: "cgroup", EnergySource: "generic model", Modelled: true, SigmaPpm: 500_000, CoresMilli: 2000,
			WattsUw: 12_000_000, BudgetUw: 30_000_000,
		},
		Price: &v1.PriceInfo{BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 3100, SpotPeakXMilli: 3400},
		Workloads: []*v1.Workload{
			{Name: "scientist", State: "running", BidMilli: 4000, PriceMilli: 2000, CoresNowMilli: 1000, PowerUw: 10_000_000, EnergyUj: 5_000_000, Open: true},
			{Name: "crawler\x1b[31m", State: "waiting", Refusal: "outbid", BidMilli: 2000, Auto: true, BalanceUcredits: 478_000_000},
		},
	}}, nil
}

func (s *stubMarket) Fund(_ context.Context, r *v1.FundRequest) (*v1.FundResponse, error) {
	err := s.note("fund "+r.GetName()+" "+formatCount(r.GetAmountUcredits()), r.GetRequestId())
	return &v1.FundResponse{BalanceUcredits: 478_000_000 + r.GetAmountUcredits()}, err
}

func (s *stubMarket) SetBid(_ context.Context, r *v1.SetBidRequest) (*v1.SetBidResponse, error) {
	return &v1.SetBidResponse{}, s.note("bid "+r.GetName()+" "+formatCount(r.GetBidMilli()), r.GetRequestId())
}

func (s *stubMarket) Stop(_ context.Context, r *v1.StopRequest) (*v1.StopResponse, error) {
	return &v1.StopResponse{}, s.note("stop "+r.GetName(), r.GetRequestId())
}

func (s *stubMarket) Explain(_ context.Context, r *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	x := outbidCrawler().explained
	x.Workload.Name = r.GetName()
	return x, nil
}

// stubLine is a stub without a wire between. Join and Watch, which differ on the
// two sides, are not there.
type stubLine struct {
	maxwellv1connect.MarketServiceClient

	market *stubMarket
}

func (l stubLine) Snapshot(ctx context.Context, r *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	return l.market.Snapshot(ctx, r)
}

func (l stubLine) Fund(ctx context.Context, r *v1.FundRequest) (*v1.FundResponse, error) {
	return l.market.Fund(ctx, r)
}

func (l stubLine) SetBid(ctx context.Context, r *v1.SetBidRequest) (*v1.SetBidResponse, error) {
	return l.market.SetBid(ctx, r)
}

func (l stubLine) Stop(ctx context.Context, r *v1.StopRequest) (*v1.StopResponse, error) {
	return l.market.Stop(ctx, r)
}

func (l stubLine) Explain(ctx context.Context, r *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	return l.market.Explain(ctx, r)
}

func (stubLine) Close() {}

func runTop(s *stubMarket, environ []string, args ...string) outcome {
	var out, err strings.Builder
	a := &app{
		out: &out, err: &err, environ: func() []string { return environ },
		connect: func(context.Context) (connection, error) { return stubLine{market: s}, nil },
	}
	code := a.execute(append([]string{"top"}, args...))
	return outcome{out.String(), err.String(), code}
}

// TestTopOnce: one frame as text, with everybody on it and nothing to press.
func TestTopOnce(t *testing.T) {
	o := runTop(&stubMarket{}, nil, "--once")
	const want = `maxwell  cgroup  2 cores  spot 3.1x  base price 9.8 $J/core-s  peak 3.4x
energy   MODELLED, +-50 % (generic model)
watts    12 W of 30 W  [################........................]
depth    4x to 8x   ########################################  1.00 cores wanted

  NAME          STATE        BID  PRICE  CORES  WATTS  JOULES  $J LEFT
  scientist     running       4x     2x   1.00     10     5 J     open
  crawler?[31m  outbid   auto 2x      -   0.00      0     0 J      478
`
	if o.out != want || o.err != "" || o.code != 0 {
		t.Errorf("got %+v, want\n%s", o, want)
	}
	o = runTop(&stubMarket{}, []string{"COLUMNS=40"}, "--once")
	for line := range strings.Lines(o.out) {
		if len(line) > 41 {
			t.Errorf("%d columns of 40: %s", len(line)-1, line)
		}
	}
}

func TestTopRefuses(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "maxwell: top: needs a terminal; for a list: maxwell ps, for prices: maxwell price --watch, for one frame: maxwell top --once\n"},
		{[]string{"--interval", "1ms"}, "maxwell: top --interval: 1ms is too short; give at least 100ms\n"},
		{[]string{"x"}, "maxwell: top: unexpected argument \"x\"\n"},
	} {
		s := &stubMarket{}
		if o := runTop(s, nil, test.args...); o.code != 125 || o.out != "" || o.err != test.want || s.looks != 0 {
			t.Errorf("top %v: %+v, want 125 and %q", test.args, o, test.want)
		}
	}
	if o := runTop(&stubMarket{broken: true}, nil, "--once"); o.code != 125 || strings.Count(o.err, "\n") != 1 {
		t.Errorf("a market in trouble: %+v", o)
	}
}

// TestTopAsks: what is pressed reaches the market by name, each with an id of
// its own.
func TestTopAsks(t *testing.T) {
	ctx, s := t.Context(), &stubMarket{}
	m := topMarket{stubLine{market: s}}
	for range 2 {
		if balance, err := m.Fund(ctx, "a", 20_000_000); err != nil || balance != 498_000_000 {
			t.Errorf("fund: %v, %v", balance, err)
		}
	}
	if err := errors.Join(m.Bid(ctx, "a", 3500), m.Bid(ctx, "b", 0), m.Stop(ctx, "c")); err != nil {
		t.Error(err)
	}
	const want = "fund a 20000000, fund a 20000000, bid a 3500, bid b 0, stop c"
	if have := strings.Join(s.questions(), ", "); have != want {
		t.Errorf("asked %s, want %s", have, want)
	}
	if text, err := m.Explain(ctx, "crawler"); err != nil || !strings.HasPrefix(text, "crawler is outbid: ") {
		t.Errorf("explained as %q, %v", text, err)
	}
}

func TestSpeaksUTF8(t *testing.T) {
	for environ, want := range map[string]bool{
		"": false, "LANG=C": false, "LANG=C.UTF-8": true, "LANG=en_US.utf8": true, "LANG=C.UTF-8 LC_ALL=C": false, "LC_CTYPE=de_DE.UTF-8 LANG=C": true,
	} {
		if have := speaksUTF8(getenv(strings.Fields(environ))); have != want {
			t.Errorf("%q: %v, want %v", environ, have, want)
		}
	}
}
