package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"connectrpc.com/connect"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
)

// stub is a market that keeps its promise about request ids: a change that was
// delivered before is answered, not applied again.
type stub struct {
	maxwellv1connect.UnimplementedMarketServiceHandler

	mu        sync.Mutex
	self      *v1.SelfResponse
	onSelf    func()           // before each answer of Self
	wallets   map[string]int64 // micro-$J
	bids      map[string]*v1.SetBidRequest
	stopped   map[string]bool // to whether it was at once
	events    []*v1.Event
	perStream int                       // events before a stream breaks; 0 = all
	watched   []*v1.WatchRequest        // every Watch that came
	answers   map[string]any            // by request id
	delivered map[string]int            // by request id
	refuse    *connect.Error            // answer of every call
	drop      int                       // how many answers never arrive, after the call took effect
	half      bool                      // those that never arrive break off in their middle
	hang      map[string]chan bool      // by procedure: closed when a call of it came
	lost      chan bool                 // an answer was dropped
	raw       func(http.ResponseWriter) // instead of any answer
}

func newStub() *stub {
	return &stub{
		self: &v1.SelfResponse{
			Uid: 1000, Version: "v9", Durable: true,
			Price: &v1.PriceInfo{BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 2000, SpotPeakXMilli: 2300, GridPpm: 500_000},
			Workload: &v1.Workload{
				Name: "agent-7", State: "running", BudgetUcredits: 500_000_000, SpentUcredits: 463_000_000,
				BalanceUcredits: 37_000_000, EnergyUj: 412_000_000, BidMilli: 4000, MaxEnergyUj: 450_000_000,
			},
		},
		wallets: map[string]int64{"agent-7": 37_000_000, "spare": 5_000_000}, bids: make(map[string]*v1.SetBidRequest),
		stopped: make(map[string]bool), answers: make(map[string]any), delivered: make(map[string]int),
		hang: make(map[string]chan bool), lost: make(chan bool, 1000),
	}
}

// serve listens on a socket until the test ends and returns its path.
func (s *stub) serve(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mx") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "market.sock")
	s.listen(t, socket)
	return socket
}

func (s *stub) listen(t *testing.T, socket string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	_, h := maxwellv1connect.NewMarketServiceHandler(s)
	server := httptest.NewUnstartedServer(s.faulty(h))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
}

// set changes the stub while it is being called.
func (s *stub) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// faulty puts what goes wrong between the market and its caller around h.
func (s *stub) faulty(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		came, raw := s.hang[r.URL.Path], s.raw
		s.mu.Unlock()
		switch {
		case came != nil:
			_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not noticed
			close(came)
			<-r.Context().Done()
			return
		case raw != nil:
			raw(w)
			return
		case r.URL.Path == maxwellv1connect.MarketServiceWatchProcedure:
			h.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, r)
		s.mu.Lock()
		lost, half := s.drop > 0, s.half
		if lost {
			s.drop--
		}
		s.mu.Unlock()
		if lost {
			if text := answer.Body.String(); half {
				spoken(w, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text[:len(text)/2]))
			} else {
				cut(w)
			}
			s.lost <- true
			return
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	})
}

// cut closes a connection as a killed market does.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.Close()
}

// once applies a change unless its id was applied before.
func once[Res any](s *stub, id []byte, apply func() (*Res, error)) (*Res, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	if len(id) != 16 {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a request id has 16 bytes"))
	}
	s.delivered[string(id)]++
	if was, ok := s.answers[string(id)]; ok {
		return was.(*Res), nil
	}
	res, err := apply()
	if err == nil {
		s.answers[string(id)] = res
	}
	return res, err
}

func noWallet(name string) error {
	err := connect.NewError(connect.CodeNotFound, errors.New("no workload \""+name+"\" of yours"))
	err.Meta().Set("Maxwell-Remedy", "see maxwell ps -a")
	return err
}

func (s *stub) Self(context.Context, *v1.SelfRequest) (*v1.SelfResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, s.refuse
	}
	if s.onSelf != nil {
		s.onSelf()
	}
	return s.self, nil
}

func (s *stub) Snapshot(context.Context, *v1.SnapshotRequest) (*v1.SnapshotResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &v1.SnapshotResponse{Snapshot: &v1.Snapshot{
		Price: s.self.GetPrice(), Workloads: []*v1.Workload{s.self.GetWorkload(), {Name: "spare", State: "waiting", Refusal: "outbid"}},
	}}, nil
}

func (s *stub) Fund(_ context.Context, r *v1.FundRequest) (*v1.FundResponse, error) {
	return once(s, r.GetRequestId(), func() (*v1.FundResponse, error) {
		if _, ok := s.wallets[r.GetName()]; !ok {
			return nil, noWallet(r.GetName())
		}
		s.wallets[r.GetName()] += r.GetAmountUcredits()
		return &v1.FundResponse{BalanceUcredits: s.wallets[r.GetName()]}, nil
	})
}

func (s *stub) Transfer(_ context.Context, r *v1.TransferRequest) (*v1.TransferResponse, error) {
	return once(s, r.GetRequestId(), func() (*v1.TransferResponse, error) {
		s.wallets[r.GetFrom()] -= r.GetAmountUcredits()
		s.wallets[r.GetTo()] += r.GetAmountUcredits()
		return &v1.TransferResponse{
			FromBalanceUcredits: s.wallets[r.GetFrom()], ToBalanceUcredits: s.wallets[r.GetTo()],
		}, nil
	})
}

func (s *stub) SetBid(_ context.Context, r *v1.SetBidRequest) (*v1.SetBidResponse, error) {
	return once(s, r.GetRequestId(), func() (*v1.SetBidResponse, error) {
		name := r.GetName()
		if name == "" {
			name = s.self.GetWorkload().GetName()
		}
		s.bids[name] = r
		return &v1.SetBidResponse{Workload: &v1.Workload{Name: name, BidMilli: r.GetBidMilli(), Auto: r.GetAuto(), MaxBidMilli: r.GetMaxBidMilli()}}, nil
	})
}

func (s *stub) Stop(_ context.Context, r *v1.StopRequest) (*v1.StopResponse, error) {
	return once(s, r.GetRequestId(), func() (*v1.StopResponse, error) {
		s.stopped[r.GetName()] = r.GetNow()
		return &v1.StopResponse{}, nil
	})
}

func (s *stub) Wait(_ context.Context, r *v1.WaitRequest) (*v1.WaitResponse, error) {
	return &v1.WaitResponse{Workload: &v1.Workload{Name: r.GetName(), State: "dead", Reason: "insolvent", ExitCode: 122, Retryable: true}}, nil
}

func (s *stub) Explain(_ context.Context, r *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	return &v1.ExplainResponse{
		Verdict: "outbid", Workload: &v1.Workload{Name: r.GetName()}, Price: s.self.GetPrice(), WantedMilli: 1000, GotMilli: 20,
		NeededBidMilli: 4100, Rank: 3, Ranked: 9, LastsNs: 4e9, SupplyMilli: 2000,
	}, nil
}

func (s *stub) Watch(_ context.Context, r *v1.WatchRequest, stream *connect.ServerStream[v1.WatchResponse]) error {
	s.mu.Lock()
	s.watched = append(s.watched, r)
	events, limit, again := s.events, s.perStream, len(s.watched) > 1
	s.mu.Unlock()
	sent := 0
	for _, e := range events {
		if r.GetSinceWallNs() == 0 && again || e.GetWallNs() < r.GetSinceWallNs() {
			continue
		}
		if limit > 0 && sent == limit {
			panic(http.ErrAbortHandler) // the connection breaks in the middle
		}
		if err := stream.Send(&v1.WatchResponse{Event: e}); err != nil {
			return err
		}
		sent++
	}
	return nil
}
