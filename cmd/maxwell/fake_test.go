package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// fakeMarket is a market that answers from a script: what it admits ends at
// once in the way that ends says, after the events given.
type fakeMarket struct {
	opened   []opening
	admitted []*v1.AdmitRequest
	specs    []launch.Spec
	living   []string // names taken by others
	refuse   error
	end      *v1.Workload // of every workload; the name is filled in
	story    []*v1.Event  // told before the end, of every workload
	stopped  bool
	events   chan *v1.Event
	gone     chan struct{}
	service  fakeService // what a connection reaches
	columns  string      // COLUMNS in the environment
}

func newFakeMarket() *fakeMarket {
	return &fakeMarket{
		end: &v1.Workload{
			State: "dead", Reason: "exited", BudgetUcredits: 12_000_000, SpentUcredits: 2_000_000, EnergyUcredits: 2_000_000,
			EnergyUj: 2_000_000, CpuNs: 200_000_000, PeakMemoryBytes: 8 << 20, Open: true, PriceMilli: 1000,
		},
		events: make(chan *v1.Event, 1024),
		gone:   make(chan struct{}),
	}
}

func (f *fakeMarket) join(_ context.Context, o opening) (session, error) {
	f.opened = append(f.opened, o)
	return f, nil
}

func (f *fakeMarket) Node() *v1.Node {
	return &v1.Node{Enforcement: "cgroup", EnergySource: "generic model", Modelled: true, SigmaPpm: 500_000, EpochUs: 50_000, CoresMilli: 1000}
}

func (f *fakeMarket) Events() <-chan *v1.Event { return f.events }

func (f *fakeMarket) Gone() <-chan struct{} { return f.gone }

func (f *fakeMarket) Admit(context.Context, *v1.AdmitRequest) error { return f.refuse }

func (f *fakeMarket) Start(_ context.Context, j job) (running, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	for _, name := range f.living {
		if name == j.terms.GetName() {
			return nil, errors.New("taken")
		}
	}
	f.admitted = append(f.admitted, j.terms)
	f.specs = append(f.specs, j.spec)
	r := &fakeRunning{name: j.terms.GetName(), done: make(chan struct{})}
	r.end = f.wallet(r.name)
	for _, e := range f.story {
		f.events <- &v1.Event{
			Workload: r.name, Kind: e.GetKind(), Percent: e.GetPercent(), What: e.GetWhat(), LeftNs: e.GetLeftNs(),
			Reason: e.GetReason(), WorkloadState: r.end,
		}
	}
	f.events <- &v1.Event{Workload: r.name, Kind: "dead", Reason: r.end.GetReason(), WorkloadState: r.end}
	if f.stopped {
		close(r.done)
	}
	r.market = f
	return r, nil
}

func (f *fakeMarket) wallet(name string) *v1.Workload {
	e := f.end
	return &v1.Workload{
		Name: name, State: e.GetState(), Reason: e.GetReason(), ExitCode: e.GetExitCode(), ChildExit: e.GetChildExit(), HasChildExit: e.GetHasChildExit(),
		BudgetUcredits: e.GetBudgetUcredits(), SpentUcredits: e.GetSpentUcredits(), EnergyUcredits: e.GetEnergyUcredits(), RentUcredits: e.GetRentUcredits(),
		EnergyUj: e.GetEnergyUj(), CpuNs: e.GetCpuNs(), PeakMemoryBytes: e.GetPeakMemoryBytes(), Open: e.GetOpen(), PriceMilli: e.GetPriceMilli(),
		Retryable: e.GetRetryable(), Remedy: e.GetRemedy(), Work: e.GetWork(), BidMilli: 2000,
	}
}

func (f *fakeMarket) Snapshot(context.Context, bool) (*v1.Snapshot, error) {
	s := &v1.Snapshot{Node: f.Node(), Price: &v1.PriceInfo{BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 1000, SpotPeakXMilli: 1000}, Ledger: &v1.Ledger{}}
	for _, name := range f.living {
		s.Workloads = append(s.Workloads, &v1.Workload{Name: name, State: "running"})
	}
	return s, nil
}

func (f *fakeMarket) Stop(context.Context, string, bool) error { return nil }

func (f *fakeMarket) Suspend(context.Context, bool) error { return nil }

func (f *fakeMarket) Leave(ctx context.Context) (*v1.Snapshot, error) {
	s, err := f.Snapshot(ctx, true)
	s.Workloads = nil
	minted, heat, treasury := int64(0), int64(0), int64(0)
	for i := range f.admitted { // the market lists them in the order of burial
		w := f.wallet(f.admitted[len(f.admitted)-1-i].GetName())
		s.Workloads = append(s.Workloads, w)
		s.Node.AttributedUj += w.GetEnergyUj()
		minted += w.GetBudgetUcredits()
		heat += w.GetEnergyUcredits()
		treasury += w.GetRentUcredits()
	}
	s.Node.EnergyUj = s.Node.AttributedUj
	s.Ledger.MintedUcredits = minted
	s.Ledger.Accounts = map[string]int64{"mint": -minted, "heat": heat, "treasury": treasury, "wallet:all": minted - heat - treasury}
	return s, err
}

type fakeRunning struct {
	name    string
	done    chan struct{}
	end     *v1.Workload
	market  *fakeMarket
	signals []syscall.Signal
}

func (r *fakeRunning) Wallet() string { return r.name }

// Done is over once every event was read, so that notices come first.
func (r *fakeRunning) Done() <-chan struct{} {
	if len(r.market.events) == 0 {
		select {
		case <-r.done:
		default:
			close(r.done)
		}
	}
	return r.done
}

func (r *fakeRunning) Result() (*v1.ExitedResponse, error) {
	return &v1.ExitedResponse{Workload: r.end, SpotPeakMilli: 2300}, nil
}

func (r *fakeRunning) Code() int { return int(r.end.GetChildExit()) }

func (r *fakeRunning) Signal(s syscall.Signal) error {
	r.signals = append(r.signals, s)
	return nil
}

// outcome is what one command line did.
type outcome struct {
	out, err string
	code     int
}

// run executes a command line on a fake market. The environment is empty.
func (f *fakeMarket) run(args ...string) outcome {
	var out, err strings.Builder
	f.service.f = f
	defer f.service.close()
	a := &app{
		out: &out, err: &err, in: os.Stdin,
		environ: func() []string {
			environ := []string{"PATH=/bin"}
			if f.columns != "" {
				environ = append(environ, "COLUMNS="+f.columns)
			}
			return environ
		},
		join:    f.join,
		connect: f.service.connect,
		now:     func() time.Time { return fakeNow },
		pace:    time.Millisecond,
		doctor: func(repair bool) (report.Doctor, error) {
			d := report.Doctor{
				Enforcement: report.Finding{Name: "enforcement", OK: true, Value: "cgroup v2, as root"},
				Trees:       report.Finding{Name: "stops_trees", OK: true, Value: "yes, all descendants"},
				Caps:        []string{"cpu", "memory", "pids"}, Modelled: true, Sigma: 500_000, Base: 9_800_000, Ready: true,
				Energy: report.Finding{Name: "energy", Better: "no RAPL in this VM"},
			}
			if repair {
				d.Repair = []report.Repaired{{What: "/sys/fs/cgroup/maxwell", Done: true}}
			}
			return d, nil
		},
	}
	code := a.execute(args)
	return outcome{out.String(), err.String(), code}
}
