package sim

import (
	"fmt"
	"os"
	"testing"
)

// seeds is how many worlds `make test` plays; MAXWELL_LONG plays many more.
func seeds() uint64 {
	if os.Getenv("MAXWELL_LONG") != "" {
		return 10_000
	}
	return 200
}

// TestSeeds plays invented worlds: conservation, no overdraft, the dead stay
// dead, the broke are frozen. A failing seed is printed and reproduces.
func TestSeeds(t *testing.T) {
	total := Report{Dead: make(map[string]int)}
	for seed := range seeds() {
		w := New(Config{Seed: seed, Ticks: 400})
		if err := w.Run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for reason, n := range w.Report.Dead {
			total.Dead[reason] += n
		}
		total.Admitted += w.Report.Admitted
		total.Warned += w.Report.Warned
		total.Frozen += w.Report.Frozen
		total.Suspended += w.Report.Suspended
		total.WouldStop += w.Report.WouldStop
		total.Regrids += w.Report.Regrids
	}
	if total.Regrids < 10_000 {
		t.Errorf("the grid factor changed %d times: that tests little", total.Regrids)
	}
	if total.WouldStop == 0 {
		t.Error("nobody was observed to its end")
	}
	// A world in which nobody dies of what can kill tests nothing.
	for _, reason := range []string{"exited", "insolvent", "cap:cpu", "cap:energy", "cap:memory", "timeout", "stopped", "signaled"} {
		if total.Dead[reason] == 0 {
			t.Errorf("nobody died of %s in %d seeds", reason, seeds())
		}
	}
	t.Logf("%d admitted, dead %v, %d warnings, %d freezes, %d suspensions",
		total.Admitted, fmt.Sprint(total.Dead), total.Warned, total.Frozen, total.Suspended)
}

// TestCrashes kills the daemon of every invented world at random ticks, with a
// random part of its last hand-overs lost: the laws hold all the same, and every
// nanosecond is charged exactly once.
func TestCrashes(t *testing.T) {
	total := Report{Dead: make(map[string]int)}
	for seed := range seeds() / 2 {
		w := New(Config{Seed: seed, Ticks: 300, Crashes: true})
		if err := w.Run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for reason, n := range w.Report.Dead {
			total.Dead[reason] += n
		}
		total.Crashes += w.Report.Crashes
		total.Readopted += w.Report.Readopted
	}
	if total.Crashes < 500 || total.Readopted < 10*total.Crashes || total.Dead["lost"] == 0 || total.Dead["exited"] == 0 {
		t.Errorf("%d crashes, %d readopted, dead %v: that tests little", total.Crashes, total.Readopted, total.Dead)
	}
	t.Logf("%d crashes, %d readopted, dead %v", total.Crashes, total.Readopted, total.Dead)
}

// TestSameSeedSameWorld holds P12 on the whole demon.
func TestSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(10) {
		cfg := Config{Seed: seed, Ticks: 200, Crashes: seed%2 == 1}
		a, b := New(cfg), New(cfg)
		if err := a.Run(); err != nil {
			t.Fatal(err)
		}
		if err := b.Run(); err != nil {
			t.Fatal(err)
		}
		have, want := fmt.Sprintf("%+v", b.demon.Statement()), fmt.Sprintf("%+v", a.demon.Statement())
		if have != want {
			t.Fatalf("seed %d gave two worlds:\n%s\n%s", seed, want, have)
		}
	}
}
