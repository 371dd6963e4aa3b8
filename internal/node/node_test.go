package node

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
)

// join enters a market of its own in a temporary runtime directory.
func join(t *testing.T, s Settings) *Session {
	t.Helper()
	return joinIn(t, t.TempDir(), s)
}

func joinIn(t *testing.T, dir string, s Settings) *Session {
	t.Helper()
	session, err := Join(t.Context(), JoinOptions{Dir: dir, Client: "test", Settings: s})
	if err != nil {
		t.Fatalf("join: %v%s", err, logOf(dir))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if _, err := session.Leave(ctx); err != nil {
			t.Errorf("leave: %v%s", err, logOf(dir))
		}
		if t.Failed() {
			t.Log(logOf(dir))
		}
	})
	go func() {
		for range session.Events() {
		}
	}()
	return session
}

func logOf(dir string) string {
	text, _ := os.ReadFile(filepath.Join(dir, LogName))
	return "\nlog of the market:\n" + string(text)
}

// TestRunToTheEnd runs one command without a budget: it is measured, charged
// to an open wallet, and its own exit code comes back.
func TestRunToTheEnd(t *testing.T) {
	s := join(t, Settings{})
	r, err := s.Start(t.Context(), Workload{
		Terms: &v1.AdmitRequest{Name: "spin"},
		Spec:  launch.Spec{Args: []string{"sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo work 3 lap >&3; exit 7"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.Result()
	if err != nil {
		t.Fatal(err)
	}
	w := out.GetWorkload()
	if w.GetExitCode() != 7 || w.GetReason() != "exited" || w.GetState() != "dead" {
		t.Errorf("ended as %s %s with %d, want dead exited with 7", w.GetState(), w.GetReason(), w.GetExitCode())
	}
	if w.GetCpuNs() <= 0 || w.GetEnergyUj() <= 0 || w.GetSpentUcredits() <= 0 {
		t.Errorf("nothing was charged: %v", w)
	}
	if w.GetWork() != 3 {
		t.Errorf("reported 3 units, %d arrived", w.GetWork())
	}
	if got := w.GetEnergyUcredits() + w.GetRentUcredits() + w.GetErasureUcredits() + w.GetOtherUcredits(); got != w.GetSpentUcredits() {
		t.Errorf("parts sum to %d, spent %d", got, w.GetSpentUcredits())
	}
}

// hog is a command that burns one core until it is stopped.
var hog = []string{"sh", "-c", "while :; do :; done"}

func start(t *testing.T, s *Session, terms *v1.AdmitRequest, args []string) *Running {
	t.Helper()
	r, err := s.Start(t.Context(), Workload{Terms: terms, Spec: launch.Spec{Args: args}})
	if err != nil {
		t.Fatalf("start %s: %v", terms.GetName(), err)
	}
	return r
}

// used returns the processor time of each workload of the session.
func used(t *testing.T, s *Session) map[string]*v1.Workload {
	t.Helper()
	snap, err := s.Snapshot(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*v1.Workload)
	for _, w := range snap.GetWorkloads() {
		out[w.GetName()] = w
	}
	return out
}

// TestHigherBidRuns sells one core to two hogs at 2x and 8x.
func TestHigherBidRuns(t *testing.T) {
	s := join(t, Settings{Cores: 1000})
	start(t, s, &v1.AdmitRequest{Name: "poor", BidMilli: 2000}, hog)
	start(t, s, &v1.AdmitRequest{Name: "rich", BidMilli: 8000}, hog)
	<-time.After(time.Second)
	before := used(t, s)
	<-time.After(3 * time.Second)
	after := used(t, s)
	poor := after["poor"].GetCpuNs() - before["poor"].GetCpuNs()
	rich := after["rich"].GetCpuNs() - before["rich"].GetCpuNs()
	share := float64(poor) / float64(poor+rich)
	t.Logf("poor %.1f %% of %.2f cores; %v; spot %v", 100*share, float64(poor+rich)/3e9, after["rich"], after["poor"])
	if share < 0.005 || share > 0.05 {
		t.Errorf("the poor one got %.1f %%, want the floor of 2 %%", 100*share)
	}
}

// TestBrokeStops lets two hogs spend what they have.
func TestBrokeStops(t *testing.T) {
	s := join(t, Settings{Cores: 1000})
	a := start(t, s, &v1.AdmitRequest{Name: "a", BidMilli: 2000, BudgetUcredits: 20_000_000, GraceNs: int64(time.Second)}, hog)
	start(t, s, &v1.AdmitRequest{Name: "b", BidMilli: 2000, BudgetUcredits: 90_000_000, GraceNs: int64(time.Second)}, hog)
	out, err := a.Result()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", out)
	t.Logf("%v", used(t, s))
}
