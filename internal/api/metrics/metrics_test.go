package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/metrics"
	"github.com/maxwell-hypervisor/maxwell/internal/golden"
)

// market is a source of snapshots that a test changes between scrapes.
type market struct {
	snapshot *v1.Snapshot
	err      error
	asked    int
}

func (m *market) source(context.Context) (*v1.Snapshot, error) {
	m.asked++
	return m.snapshot, m.err
}

func example() *v1.Snapshot {
	return &v1.Snapshot{
		Node: &v1.Node{
			Enforcement: "cgroup2", EnergySource: "cpu model", Modelled: true, SigmaPpm: 500_000, Epochs: 1234, EpochUs: 50_000, MisdeliveryPpm: 27_000,
			EnergyUj: 1000_000_000, AttributedUj: 700_000_001, SystemUj: 99_999_999, IdleUj: 190_000_000, UnattributedUj: 10_000_000,
			CoresMilli: 1950, WattsUw: 21_500_000, BudgetUw: 40_000_000, Meter: "bpf", SelfCpuNs: 3_210_000_000, LateMaxNs: 780_000, SharePpm: 985_000,
		},
		Price: &v1.PriceInfo{BaseUcreditsPerCoreS: 9_800_000, SpotXMilli: 1800, SpotPeakXMilli: 2300, GridPpm: 900_000},
		Workloads: []*v1.Workload{
			{
				Name: "agent-7", Id: "a7", State: "running", BudgetUcredits: 500_000_000, SpentUcredits: 111, EnergyUcredits: 100, RentUcredits: 5,
				ErasureUcredits: 4, OtherUcredits: 2, BalanceUcredits: 37_000_000, EnergyUj: 412_000_000, CpuNs: 47_200_000_000, WaitNs: 1_500_000_000,
				PeakMemoryBytes: 1 << 30, Work: 12, IncomeUcredits: 8_000_000, BidMilli: 4000, PriceMilli: 1800, PowerUw: 11_000_000, CoresNowMilli: 980,
			},
			{Name: "caf\xe9\n\"two\"", Id: "c", State: "levitating"},
			{Name: "other", Id: "o", State: "waiting", EnergyUj: 5_000_000, PowerUw: 1_000_000, BalanceUcredits: 2_000_000},
		},
		Ledger: &v1.Ledger{
			MintedUcredits: 600_000_000, SumUcredits: 0,
			Accounts: map[string]int64{
				"mint": -600_000_000, "heat": 400_000_000, "entropy": 1_000_000, "treasury": 60_000_000, "system": -1_000_000, "loss": -2_000_000,
				"wallet:agent-7": 37_000_000, "wallet:other": 2_000_000, "deposit:agent-7": 103_000_000,
			},
		},
	}
}

// scraped is one answer of the endpoint.
type scraped struct {
	text     string
	families map[string]*dto.MetricFamily
}

func scrape(t testing.TB, h http.Handler) scraped {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	s := scraped{text: w.Body.String()}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	var err error
	if s.families, err = parser.TextToMetricFamilies(strings.NewReader(s.text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// series are all values by name and labels; counters only, if asked.
func (s scraped) series(countersOnly bool) map[string]float64 {
	out := make(map[string]float64)
	for name, f := range s.families {
		if countersOnly && f.GetType() != dto.MetricType_COUNTER {
			continue
		}
		for _, m := range f.GetMetric() {
			var key strings.Builder
			key.WriteString(name)
			for _, l := range m.GetLabel() {
				fmt.Fprintf(&key, "{%s=%s}", l.GetName(), l.GetValue())
			}
			out[key.String()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// workloads are the values of the label.
func (s scraped) workloads() []string {
	seen := make(map[string]bool)
	for _, f := range s.families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "workload" {
					seen[l.GetValue()] = true
				}
			}
		}
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestExposition: the whole answer, in names that Prometheus' own linter has
// nothing against.
func TestExposition(t *testing.T) {
	m := &market{snapshot: example()}
	got := scrape(t, metrics.Handler(m.source))
	golden.Check(t, "metrics.golden", got.text)
	problems, err := promlint.New(bytes.NewReader([]byte(got.text))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for key, want := range map[string]float64{
		"maxwell_node_energy_joules_total{kind=attributed}{modelled=true}{source=cpu model}": 700.000001,
		"maxwell_ledger_sum_credits":                                        0,
		"maxwell_ledger_account_credits{account=wallets}":                   39,
		"maxwell_workload_energy_joules_total{workload=other}":              5,
		"maxwell_workload_state{state=running}{workload=agent-7}":           1,
		"maxwell_workload_state{state=unknown}{workload=caf__\"two\"}":      1,
		"maxwell_workloads{state=waiting}":                                  1,
		"maxwell_workload_spent_credits_total{part=rent}{workload=agent-7}": 0.000005,
	} {
		if got, ok := got.series(false)[key]; !ok || got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	sum := 0.0
	for key, v := range got.series(false) {
		if strings.HasPrefix(key, "maxwell_ledger_account_credits") {
			sum += v
		}
	}
	if sum != 0 {
		t.Errorf("the accounts sum to %v", sum)
	}
}

// TestEmpty: a market that has not begun, with nothing in the snapshot at all.
func TestEmpty(t *testing.T) {
	for _, s := range []*v1.Snapshot{nil, {}, {Workloads: []*v1.Workload{{}, {}}}} {
		m := &market{snapshot: s}
		if got := scrape(t, metrics.Handler(m.source)); got.series(false)["maxwell_node_epochs_total"] != 0 || len(got.workloads()) > 2 {
			t.Errorf("%v: %s", s, got.text)
		}
	}
}

func crowd(n int, power func(i int) int64) *v1.Snapshot {
	s := example()
	s.Workloads = nil
	for i := range n {
		s.Workloads = append(s.Workloads, &v1.Workload{
			Name: fmt.Sprintf("w%05d", i), State: "running", PowerUw: power(i), EnergyUj: 1_000_000, CpuNs: 1e9, EnergyUcredits: 1_000_000,
		})
	}
	return s
}

// TestCardinality: 10,000 workloads make 200 values of the label: the largest
// by power, ties by name, and the sum of the rest.
func TestCardinality(t *testing.T) {
	m := &market{snapshot: crowd(10_000, func(i int) int64 { return int64(i/2) * 1000 })}
	got := scrape(t, metrics.Handler(m.source))
	names := got.workloads()
	if len(names) != metrics.Workloads+1 || names[0] != "other" {
		t.Fatalf("%d values of the label, first %s", len(names), names[0])
	}
	// 199 is odd: of the two with equal power at the edge the first by name.
	if names[1] != "w09800" || slices.Contains(names, "w09801") || names[2] != "w09802" || names[199] != "w09999" {
		t.Errorf("shown are %s, %s ... %s", names[1], names[2], names[199])
	}
	if v := got.series(false)["maxwell_workload_energy_joules_total{workload=other}"]; v != 10_000-metrics.Workloads {
		t.Errorf("the others used %v J", v)
	}
	if n := len(got.series(false)); n > 5000 {
		t.Errorf("%d series", n)
	}
}

// TestLivingFirst: a dead workload has series while nobody needs them.
func TestLivingFirst(t *testing.T) {
	for _, living := range []int{metrics.Workloads - 1, metrics.Workloads} {
		m := &market{snapshot: crowd(living, func(int) int64 { return 0 })}
		m.snapshot.Workloads = append(m.snapshot.Workloads, &v1.Workload{Name: "ghost", State: "dead", PowerUw: 1e9})
		shown := slices.Contains(scrape(t, metrics.Handler(m.source)).workloads(), "ghost")
		if shown != (living < metrics.Workloads) {
			t.Errorf("beside %d living: %v", living, shown)
		}
	}
}

// grow lets time pass for every workload of a snapshot.
func grow(s *v1.Snapshot, r *rand.Rand) {
	for _, w := range s.GetWorkloads() {
		if w.GetState() == "dead" {
			continue
		}
		w.PowerUw = r.Int64N(20_000_000)
		w.EnergyUj += w.PowerUw
		w.CpuNs += r.Int64N(1e9)
		w.WaitNs += r.Int64N(1e9)
		w.EnergyUcredits += w.PowerUw
		w.RentUcredits += r.Int64N(1000)
		w.Work += r.Int64N(3)
	}
}

// TestCountersNeverGoBack: whoever moves in and out of the shown ones, comes,
// dies or goes, no counter shrinks, and rates add up to what was used.
func TestCountersNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		m := &market{snapshot: crowd(600, func(int) int64 { return 0 })}
		h := metrics.Handler(m.source)
		before := scrape(t, h).series(true)
		moved, born := 0, 600
		for range 40 {
			time.Sleep(metrics.Fresh)
			was := used(m.snapshot)
			grow(m.snapshot, r)
			grown := used(m.snapshot) - was
			living := m.snapshot.GetWorkloads()[:0:0]
			for _, w := range m.snapshot.GetWorkloads() { // some of those that are dead already go
				if w.GetState() != "dead" || r.IntN(2) == 0 {
					living = append(living, w)
				}
			}
			m.snapshot.Workloads = living
			for range 5 {
				living[r.IntN(len(living))].State = "dead"
				m.snapshot.Workloads = append(m.snapshot.Workloads, &v1.Workload{Name: fmt.Sprintf("w%05d", born), State: "running"})
				born++
			}
			after := scrape(t, h).series(true)
			var rate float64
			for key, v := range after {
				old, known := before[key]
				if !known {
					moved++
					continue
				}
				if v < old {
					t.Errorf("%s went from %v to %v", key, old, v)
				}
				if strings.HasPrefix(key, "maxwell_workload_energy_joules_total") {
					rate += v - old
				}
			}
			if math.Abs(rate-grown) > 1e-3 {
				t.Errorf("rates add up to %v of %v J", rate, grown)
			}
			before = after
		}
		if moved < 100 {
			t.Errorf("only %d series were new; nothing was tried", moved)
		}
	})
}

func used(s *v1.Snapshot) (joules float64) {
	for _, w := range s.GetWorkloads() {
		joules += float64(w.GetEnergyUj()) / 1e6
	}
	return joules
}

// TestSeats: who is shown changes only for a reason.
func TestSeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &market{snapshot: crowd(metrics.Workloads+2, func(i int) int64 { return 1_000_000 })}
		h := metrics.Handler(m.source)
		shown := func(name string) bool { return slices.Contains(scrape(t, h).workloads(), name) }
		first, late, later := m.snapshot.Workloads[0], m.snapshot.Workloads[metrics.Workloads], m.snapshot.Workloads[metrics.Workloads+1]
		if !shown(first.Name) || shown(late.Name) {
			t.Fatal("not the first by name")
		}
		late.PowerUw = 2_000_000
		if shown(late.Name) {
			t.Error("a snapshot that is fresh was taken again")
		}
		time.Sleep(metrics.Fresh)
		if shown(late.Name) {
			t.Error("twice the power is not more than twice")
		}
		time.Sleep(metrics.Fresh)
		late.PowerUw = 2_000_002
		if !shown(late.Name) || shown("w00198") || !shown(first.Name) {
			t.Error("more than twice the power does not give the seat of the last by name")
		}
		time.Sleep(metrics.Fresh)
		first.State = "dead"
		if shown(first.Name) || !shown("w00198") {
			t.Error("the dead keep their seats from the living")
		}
		time.Sleep(metrics.Fresh)
		later.Name, later.Id, later.PowerUw = late.Name, "another", 9_000_000
		if got := scrape(t, h).series(false)["maxwell_workload_power_watts{workload="+late.Name+"}"]; got != 2.000002 {
			t.Errorf("a second workload of one name took its series: %v", got)
		}
		time.Sleep(metrics.Fresh)
		late.State = "dead"
		if got := scrape(t, h).series(false)["maxwell_workload_power_watts{workload="+late.Name+"}"]; got != 9 {
			t.Errorf("the living one of the name is not shown: %v", got)
		}
		if m.asked != 6 {
			t.Errorf("%d snapshots for 6 seconds", m.asked)
		}
	})
}

// TestTrouble: no snapshot, no metrics; the next scrape tries again.
func TestTrouble(t *testing.T) {
	m := &market{err: errors.New("the market is\nclosing")}
	h := metrics.Handler(m.source)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != "no snapshot of the market: the market is closing\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed || m.asked != 1 {
		t.Errorf("%d, asked %d times", w.Code, m.asked)
	}
	m.snapshot, m.err = example(), nil
	scrape(t, h)
}

// FuzzNames: whatever a workload is called, the answer parses, and the name is
// short and readable.
func FuzzNames(f *testing.F) {
	f.Add("agent-7", "agent-8")
	f.Add("a\x00b", "a\x01b")
	f.Add("\xff", "")
	f.Add(strings.Repeat("é", 100), "other")
	f.Fuzz(func(t *testing.T, a, b string) {
		m := &market{snapshot: &v1.Snapshot{Workloads: []*v1.Workload{{Name: a, State: a}, {Name: b, State: b}}, Node: &v1.Node{Enforcement: a, Meter: b}}}
		for _, name := range scrape(t, metrics.Handler(m.source)).workloads() {
			if len(name) > 128 || name == "" || !utf8.ValidString(name) {
				t.Errorf("%q", name)
			}
		}
	})
}
