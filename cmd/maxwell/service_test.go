package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// fakeNow is when the verbs of the tests are used.
var fakeNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) int64 { return fakeNow.Add(-d).UnixNano() }

// fakeService is the market at the other end of a real line.
type fakeService struct {
	maxwellv1connect.UnimplementedMarketServiceHandler

	f          *fakeMarket
	mu         sync.Mutex
	servers    []*httptest.Server
	asked      []proto.Message // every request, in order
	breaks     int             // so many answers are lost with their line
	away       int             // so many attempts after that find no market
	none       bool            // no market at all
	refuse     error
	durable    bool
	workloads  []*v1.Workload // the answer of Snapshot and of what asks for one
	standing   []*v1.Wallet
	postings   []*v1.Posting
	past       []*v1.Event
	future     [][]*v1.Event // what each stream tells before it ends
	onSnapshot func(n int)   // before the n-th Snapshot is answered
	snapshots  int
	// endAfterStop: the market is gone when it was told to stop something.
	endAfterStop bool
}

// connect opens a real line to this service.
func (s *fakeService) connect(context.Context) (connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.none || s.breaks == 0 && s.away > 0 {
		s.away--
		return nil, &noMarket{[]string{"/run/maxwell/market.sock", "/run/user/1000/maxwell/market.sock"}}
	}
	_, handler := maxwellv1connect.NewMarketServiceHandler(s)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.breakNow() {
			handler.ServeHTTP(httptest.NewRecorder(), r) // it happens, and nobody hears of it
			panic(http.ErrAbortHandler)
		}
		handler.ServeHTTP(w, r)
	}))
	s.servers = append(s.servers, server)
	return &fakeLine{maxwellv1connect.NewMarketServiceClient(server.Client(), server.URL), server}, nil
}

func (s *fakeService) breakNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.breaks == 0 {
		return false
	}
	s.breaks--
	return true
}

func (s *fakeService) close() {
	for _, server := range s.servers {
		server.CloseClientConnections()
		server.Close()
	}
	s.servers = nil
}

type fakeLine struct {
	maxwellv1connect.MarketServiceClient
	server *httptest.Server
}

func (l *fakeLine) Close() { l.server.CloseClientConnections() }

// hear remembers a request and returns the refusal, if there is one.
func (s *fakeService) hear(r proto.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, proto.Clone(r))
	return s.refuse
}

func (s *fakeService) named(name string) (*v1.Workload, error) {
	if w := find(&v1.Snapshot{Workloads: s.workloads}, name); w != nil {
		return w, nil
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no workload %q", name))
}

func (s *fakeService) Self(_ context.Context, r *v1.SelfRequest) (*v1.SelfResponse, error) {
	return &v1.SelfResponse{Durable: s.durable}, s.hear(r)
}

func (s *fakeService) Snapshot(_ context.Context, r *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	s.snapshots++
	if s.onSnapshot != nil {
		s.onSnapshot(s.snapshots)
	}
	out := &v1.Snapshot{
		Node: s.f.Node(), Price: &v1.PriceInfo{
			BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 2300, SpotUcreditsPerCoreS: 22_540_000, SpotPeakXMilli: 4100, GridPpm: 1_500_000,
		},
		Ledger: &v1.Ledger{MintedUcredits: 5_000_000, Accounts: map[string]int64{"mint": -5_000_000, "heat": 2_000_000, "wallet:agent-7": 3_000_000}},
	}
	out.Node.WattsUw, out.Node.BudgetUw = 31_000_000, 65_000_000
	for _, w := range s.workloads {
		if w.GetState() != "dead" || r.GetDead() {
			out.Workloads = append(out.Workloads, w)
		}
	}
	return &v1.SnapshotResponse{Snapshot: out}, nil
}

func (s *fakeService) Stop(_ context.Context, r *v1.StopRequest) (*v1.StopResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	_, err := s.named(r.GetName())
	s.none = s.endAfterStop
	return &v1.StopResponse{}, err
}

func (s *fakeService) Wait(_ context.Context, r *v1.WaitRequest) (*v1.WaitResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	w, err := s.named(r.GetName())
	if err != nil {
		return nil, err
	}
	if w.GetState() != "dead" {
		w = proto.CloneOf(w)
		w.State, w.Reason, w.ExitCode, w.ChildExit, w.HasChildExit = "dead", "stopped", 143, 143, true
	}
	return &v1.WaitResponse{Workload: w}, nil
}

func (s *fakeService) Fund(_ context.Context, r *v1.FundRequest) (*v1.FundResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	for _, w := range s.standing {
		if w.GetName() == r.GetName() {
			return &v1.FundResponse{BalanceUcredits: w.GetBalanceUcredits() + r.GetAmountUcredits()}, nil
		}
	}
	w, err := s.named(r.GetName())
	return &v1.FundResponse{BalanceUcredits: w.GetBalanceUcredits() + r.GetAmountUcredits()}, err
}

func (s *fakeService) Transfer(_ context.Context, r *v1.TransferRequest) (*v1.TransferResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	from, fromErr := s.named(r.GetFrom())
	to, toErr := s.named(r.GetTo())
	return &v1.TransferResponse{
		FromBalanceUcredits: from.GetBalanceUcredits() - r.GetAmountUcredits(), ToBalanceUcredits: to.GetBalanceUcredits() + r.GetAmountUcredits(),
	}, errors.Join(fromErr, toErr)
}

func (s *fakeService) SetBid(_ context.Context, r *v1.SetBidRequest) (*v1.SetBidResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	w, err := s.named(r.GetName())
	if err != nil {
		return nil, err
	}
	w = proto.CloneOf(w)
	w.BidMilli, w.Auto, w.MaxBidMilli = r.GetBidMilli(), r.GetAuto(), r.GetMaxBidMilli()
	if w.GetAuto() && w.GetMaxBidMilli() == 0 {
		w.MaxBidMilli = 8000
	}
	return &v1.SetBidResponse{Workload: w}, nil
}

func (s *fakeService) Receipts(_ context.Context, r *v1.ReceiptsRequest) (*v1.ReceiptsResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	w, err := s.named(r.GetName())
	if err != nil || w.GetState() != "dead" {
		return &v1.ReceiptsResponse{}, nil
	}
	return &v1.ReceiptsResponse{Workloads: []*v1.Workload{w}}, nil
}

func (s *fakeService) Postings(_ context.Context, r *v1.PostingsRequest) (*v1.PostingsResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	out := &v1.PostingsResponse{}
	for _, p := range s.postings {
		name := r.GetAccount()
		if name == "" || p.GetDebit() == name || p.GetCredit() == name || p.GetDebit() == "wallet:"+name || p.GetCredit() == "wallet:"+name {
			out.Postings = append(out.Postings, p)
		}
	}
	if n := int(r.GetLimit()); n > 0 && len(out.Postings) > n {
		out.Postings = out.Postings[:n]
	}
	return out, nil
}

func (s *fakeService) Watch(_ context.Context, r *v1.WatchRequest, stream *connect.ServerStream[v1.WatchResponse]) error {
	if err := s.hear(r); err != nil {
		return err
	}
	list := s.past
	if r.GetFollow() && len(s.future) > 0 {
		list, s.future = s.future[0], s.future[1:]
	}
	for _, e := range list {
		if r.GetName() != "" && e.GetWorkload() != r.GetName() || e.GetWallNs() < r.GetSinceWallNs() {
			continue
		}
		if err := stream.Send(&v1.WatchResponse{Event: e}); err != nil {
			return err
		}
	}
	if r.GetFollow() && len(s.future) == 0 { // its last word: the market ends with it
		s.mu.Lock()
		s.none = true
		s.mu.Unlock()
	}
	return nil
}

func (s *fakeService) CreateWallet(_ context.Context, r *v1.CreateWalletRequest) (*v1.CreateWalletResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	return &v1.CreateWalletResponse{Wallet: &v1.Wallet{
		Name: r.GetName(), Parent: r.GetParent(), Uid: r.GetOwner(), AllowanceUcredits: r.GetAllowanceUcredits(),
		AllowanceEveryNs: r.GetAllowanceEveryNs(), MostUcredits: r.GetMostUcredits(),
	}}, nil
}

func (s *fakeService) RemoveWallet(_ context.Context, r *v1.RemoveWalletRequest) (*v1.RemoveWalletResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	for _, w := range s.standing {
		if w.GetName() == r.GetName() {
			return &v1.RemoveWalletResponse{ReturnedUcredits: w.GetBalanceUcredits(), To: w.GetParent()}, nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no wallet %q of yours; maxwell wallet ls lists them", r.GetName()))
}

func (s *fakeService) ListWallets(_ context.Context, r *v1.ListWalletsRequest) (*v1.ListWalletsResponse, error) {
	if err := s.hear(r); err != nil {
		return nil, err
	}
	return &v1.ListWalletsResponse{Wallets: s.standing}, nil
}

// treasury gives the crowd standing wallets, of which two pay.
func (f *fakeMarket) treasury() *fakeMarket {
	f.service.standing = []*v1.Wallet{
		{Name: "org", AllowanceUcredits: 200_000_000_000, AllowanceEveryNs: int64(24 * time.Hour), MostUcredits: 500_000_000_000, BalanceUcredits: 123_400_000_000, CreatedWallNs: ago(time.Hour)},
		{Name: "pot", BalanceUcredits: 20_000_000},
		{Name: "anna", Parent: "org", AllowanceUcredits: 50_000_000_000, AllowanceEveryNs: int64(24 * time.Hour), BalanceUcredits: 1_500_000_000, Uid: 4_000_000_000},
	}
	agent, indexer := f.service.workloads[0], f.service.workloads[2]
	agent.Wallet = "anna"
	indexer.Wallet, indexer.Draws = "anna", true
	return f
}

// crowd is a service with a workload of every kind.
func (f *fakeMarket) crowd() *fakeMarket {
	f.service.workloads = []*v1.Workload{
		{
			Name: "agent-7", Id: "agent-7.1a2b", State: "running", Uid: 1000, Client: "run", Command: []string{"./agent", "--model", "large one"},
			BudgetUcredits: 500_000_000, SpentUcredits: 120_000_000, EnergyUcredits: 100_000_000, RentUcredits: 20_000_000, DepositUcredits: 10_000_000,
			BalanceUcredits: 370_000_000, EnergyUj: 100_000_000, CpuNs: 11_000_000_000, BidMilli: 8000, PriceMilli: 2300, CoresNowMilli: 1250,
			PowerUw: 11_500_000, AliveNs: int64(12 * time.Minute), AdmittedWallNs: ago(12 * time.Minute), MaxCpuNs: int64(10 * time.Minute), Pids: 64,
		},
		{
			Name: "crawler", Id: "crawler.9", State: "dead", Reason: "insolvent", ExitCode: 122, ChildExit: 143, HasChildExit: true,
			Command: []string{"./crawl", "https://example.org/"}, BudgetUcredits: 50_000_000, SpentUcredits: 50_000_000, EnergyUcredits: 40_000_000,
			RentUcredits: 10_000_000, EnergyUj: 40_000_000, CpuNs: 4_000_000_000, PriceMilli: 1800, SpotPeakMilli: 2300, Retryable: true, Remedy: "fund crawler",
			AliveNs: int64(30 * time.Second), AdmittedWallNs: ago(26 * time.Hour), EndedWallNs: ago(26*time.Hour - 30*time.Second), Client: "up",
		},
		{
			Name: "indexer", Id: "indexer.3", State: "waiting", Refusal: "outbid", Command: []string{"python3", "-m", "index"}, Auto: true, BidMilli: 1500,
			MaxBidMilli: 4000, BudgetUcredits: 40_000_000, BalanceUcredits: 12_500_000, AliveNs: 41_200_000_000, PriceMilli: 1000,
		},
	}
	f.service.postings = []*v1.Posting{
		{Seq: 3, WallNs: ago(time.Second), Debit: "wallet:indexer", Credit: "lease", AmountUcredits: 1_500_000, Purpose: "lease", Pending: true},
		{Seq: 2, WallNs: ago(time.Minute), Debit: "wallet:agent-7", Credit: "heat", AmountUcredits: 9_800_001, Purpose: "energy"},
		{Seq: 1, WallNs: ago(25 * time.Hour), Debit: "mint", Credit: "wallet:agent-7", AmountUcredits: 500_000_000, Purpose: "funding"},
	}
	agent, crawler := f.service.workloads[0], f.service.workloads[1]
	f.service.past = []*v1.Event{
		{Workload: "crawler", Kind: "admitted", WallNs: ago(26 * time.Hour), WorkloadState: crawler},
		{Workload: "crawler", Kind: "started", WallNs: ago(26 * time.Hour), WorkloadState: crawler},
		{Workload: "crawler", Kind: "warned", What: "budget", Percent: 80, LeftNs: int64(6 * time.Second), WallNs: ago(25 * time.Hour), WorkloadState: crawler},
		{Workload: "crawler", Kind: "dead", Reason: "insolvent", WallNs: ago(25 * time.Hour), WorkloadState: crawler},
		{Workload: "agent-7", Kind: "warned", What: "cpu", Percent: 80, WallNs: ago(time.Minute), WorkloadState: agent},
		{Workload: "agent-7", Kind: "warned", What: "pids", Percent: 95, WallNs: ago(time.Second), WorkloadState: agent},
	}
	return f
}
