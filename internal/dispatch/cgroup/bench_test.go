package cgroup

import (
	"fmt"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// crowd opens groups without processes and gives them shares of which a tenth
// changes from epoch to epoch.
func crowd(t testing.TB, e *Enforcer, n int) []dispatch.Share {
	t.Helper()
	shares := make([]dispatch.Share, n)
	for i := range shares {
		group(t, e, i, dispatch.Limits{})
		shares[i] = dispatch.Share{
			Slot: i, Class: uint8(market.Margin),
			Granted: 1e8 / unit.CoreTime(n), Used: 1e8 / unit.CoreTime(n), Demand: 2e8 / unit.CoreTime(n),
		}
	}
	return shares
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 1000} {
		for _, changed := range []int{0, 10, 100} { // percent
			b.Run(fmt.Sprintf("groups=%d/changed=%d%%", n, changed), func(b *testing.B) {
				e := machine(b, 0)
				shares := crowd(b, e, n)
				if err := e.Apply(50*time.Millisecond, shares); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				turn := 0
				for b.Loop() {
					turn++
					for i := range n * changed / 100 {
						shares[i].Granted = 1e8 / unit.CoreTime(n) * unit.CoreTime(1+turn%2)
					}
					if err := e.Apply(50*time.Millisecond, shares); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/group")
			})
		}
	}
}

func BenchmarkFreezeThaw(b *testing.B) {
	e := machine(b, 0)
	g := group(b, e, 0, dispatch.Limits{})
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Freeze(); err != nil {
			b.Fatal(err)
		}
		if err := g.Thaw(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenRemove(b *testing.B) {
	e := machine(b, 0)
	for b.Loop() {
		if err := group(b, e, 0, dispatch.Limits{Memory: 1 << 30, Pids: 100}).Remove(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	e := machine(t, 0)
	shares := crowd(t, e, 8)
	turn := unit.CoreTime(0)
	allocs := testing.AllocsPerRun(50, func() {
		turn++
		for i := range shares {
			shares[i].Granted = 1e7 * (1 + (turn+unit.CoreTime(i))%3)
		}
		if err := e.Apply(50*time.Millisecond, shares); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations an epoch, want 0", allocs)
	}
}
