package meter

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// openKernel opens the BPF meter on a world, or skips with the machine's
// reason.
func openKernel(t testing.TB, w *world, slots int) *kernel {
	t.Helper()
	m, err := Open(Config{Kind: BPF, Parent: w.parent, Slots: slots}, roots(t))
	if err != nil {
		hosttest.Skip(t, host.FeatureBPF, err.Error())
	}
	k := m.(*kernel)
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func (w *world) waiting(k *kernel) {
	w.t.Helper()
	if !k.waits() {
		hosttest.Skip(w.t, host.FeatureBPF, k.counters.Waiting.Error())
	}
}

// TestKernel runs the checks that need the BPF meter and real processes, all
// with one meter: loading is the slow part.
func TestKernel(t *testing.T) {
	w := newWorld(t)
	k := openKernel(t, w, 64)
	for _, c := range []struct {
		name  string
		check func(*testing.T, *world, *kernel)
	}{
		{"RunEqualsCPUStat", checkRunEqualsCPUStat},
		{"WaitTwoSpinnersOnOneCPU", checkWaitTwoSpinnersOnOneCPU},
		{"WaitOfTheStarved", checkWaitOfTheStarved},
		{"WaitOfManyThreads", checkWaitOfManyThreads},
		{"WaitOfSleepersStoppedAndFrozen", checkWaitOfSleepersStoppedAndFrozen},
		{"WaitAcrossCPUs", checkWaitAcrossCPUs},
		{"MoveBetweenWallets", checkMoveBetweenWallets},
		{"CrowdSurvivesChaos", checkCrowdSurvivesChaos},
		{"DescendantsAreCharged", checkDescendantsAreCharged},
		{"SystemAndSelf", checkSystemAndSelf},
		{"LastMicroseconds", checkLastMicroseconds},
		{"CostPerEvent", checkCostPerEvent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() {
				for len(k.live) > 0 {
					if _, err := k.Remove(int(k.live[0])); err != nil {
						t.Fatal(err)
					}
				}
			})
			c.check(t, w.in(t), k)
		})
	}
}

// settled waits until the meter and the kernel count the same for a wallet whose
// processes are dead. A killed process that another one pushed off its processor
// runs on for a while after its group is empty, and this machine may be busy; a
// meter that loses time never gets here.
func settled(t testing.TB, m Meter, slot int, dir string) {
	t.Helper()
	eventually(t, fmt.Sprintf("slot %d has what cpu.stat has", slot), func() bool {
		have, err := m.ReadOne(slot)
		want, err2 := usage(dir)
		off := time.Duration(have.Run).Truncate(time.Microsecond) - want
		return err == nil && err2 == nil && off.Abs() <= time.Microsecond
	})
}

// exact compares a final sample with the kernel's own count, in microseconds
// as cpu.stat has them.
func exact(t testing.TB, have Sample, dir string) {
	t.Helper()
	want, err := usage(dir)
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Duration(have.Run).Truncate(time.Microsecond) - want; off.Abs() > time.Microsecond {
		t.Errorf("run %s, cpu.stat %s: off by %s", time.Duration(have.Run), want, off)
	}
	if want < 100*time.Microsecond {
		t.Errorf("cpu.stat saw %s only", want)
	}
}

// storm is a script that forks children which live about a millisecond: 2n
// simple ones, n/2 double forks, and n/50 new sessions with a double fork in
// each: 3,000 for n = 960.
func storm(n int) string {
	return fmt.Sprintf(`
i=0; while [ $i -lt %d ]; do (:); i=$((i+1)); done
i=0; while [ $i -lt %d ]; do ( (:) & ); i=$((i+1)); done
i=0; while [ $i -lt %d ]; do setsid sh -c '( (:) & )'; i=$((i+1)); done
wait`, 2*n, n/2, n/50)
}

// long reports whether tests may take minutes.
func long() bool { return os.Getenv("MAXWELL_LONG") != "" }

func checkRunEqualsCPUStat(t *testing.T, w *world, k *kernel) {
	t.Run("spin", func(t *testing.T) {
		g := w.group("spin")
		if err := k.Add(3, g); err != nil {
			t.Fatal(err)
		}
		w.start(g.Dir, -1, "/bin/sh", "-c", spin)
		eventually(t, "300 ms of running", func() bool {
			s, err := k.ReadOne(3)
			return err == nil && s.Run > 300*unit.CoreTime(time.Millisecond)
		})
		kill(g.Dir)
		settled(t, k, 3, g.Dir)
		have, err := k.Remove(3)
		if err != nil {
			t.Fatal(err)
		}
		exact(t, have, g.Dir)
		t.Log(have)
	})
	t.Run("storm", func(t *testing.T) {
		g := w.group("storm")
		if err := k.Add(3, g); err != nil {
			t.Fatal(err)
		}
		n := 50
		if long() {
			n = 960
		}
		w.run(g.Dir, "/bin/sh", "-c", storm(n))
		empty(t, g.Dir)
		settled(t, k, 3, g.Dir)
		have, err := k.Remove(3)
		if err != nil {
			t.Fatal(err)
		}
		exact(t, have, g.Dir)
		if have.Runnable != 0 {
			t.Errorf("%d runnable in an empty group", have.Runnable)
		}
		t.Log(have)
	})
}
