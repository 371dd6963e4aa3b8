package meter

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// BenchmarkRead reads the same n sleeping wallets by each meter in turn, so
// that the ratios come from one run. files-all is the file meter without its
// hot set: every file at every read.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("slots=%d", n), func(b *testing.B) {
			w := newWorld(b)
			k := openKernel(b, w, n)
			f, all := openFilesMeter(b, w), openFilesMeter(b, w)
			f.keep, all.keep = f.keep/2, all.keep/2 // two meters share one limit
			for slot := range n {
				g := w.group(fmt.Sprint(slot))
				for _, m := range []Meter{k, f, all} {
					if err := m.Add(slot, g); err != nil {
						b.Fatal(err)
					}
				}
			}
			samples := make([]Sample, n)
			for range warm + 2 { // until nothing is hot
				if _, err := f.Read(samples); err != nil {
					b.Fatal(err)
				}
			}
			var took [3]time.Duration
			for b.Loop() {
				for i, m := range []Meter{k, f, all} {
					for slot := range all.slots {
						all.slots[slot].heat = warm
					}
					begin := time.Now()
					if _, err := m.Read(samples); err != nil {
						b.Fatal(err)
					}
					took[i] += time.Since(begin)
				}
			}
			each := func(i int) float64 { return float64(took[i].Nanoseconds()) / float64(b.N) / float64(n) }
			b.ReportMetric(each(0), "bpf-ns/slot")
			b.ReportMetric(each(1), "files-ns/slot")
			b.ReportMetric(each(2), "files-all-ns/slot")
			b.ReportMetric(each(1)/each(0), "files/bpf")
			b.ReportMetric(each(2)/each(0), "files-all/bpf")
		})
	}
}

// BenchmarkReadProcesses reads one tree of n sleeping processes: with a sweep
// at each read, and with their clocks only.
func BenchmarkReadProcesses(b *testing.B) {
	for _, sweep := range []time.Duration{1, time.Hour} {
		b.Run(fmt.Sprintf("processes=100/sweep=%s", sweep), func(b *testing.B) {
			p := openProcessesMeter(b)
			tracked(b, p, 0, "i=0; while [ $i -lt 99 ]; do sleep 1000 & i=$((i+1)); done; wait")
			samples := make([]Sample, 1)
			eventually(b, "all are found", func() bool {
				_, err := p.Read(samples)
				return err == nil && len(p.members) == 100
			})
			p.sweep = sweep
			for b.Loop() {
				if _, err := p.Read(samples); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/process")
		})
	}
}

// BenchmarkReadOne is what the in-epoch timer pays.
func BenchmarkReadOne(b *testing.B) {
	w := newWorld(b)
	k, f := openKernel(b, w, 4), openFilesMeter(b, w)
	g := w.group("g")
	for _, m := range []Meter{k, f} {
		if err := m.Add(0, g); err != nil {
			b.Fatal(err)
		}
		b.Run(string(m.Describe().Kind), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.ReadOne(0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestReadDoesNotAllocate holds what Meter promises of its hot path.
func TestReadDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	meters := []Meter{openFilesMeter(t, w)}
	if m, err := Open(Config{Kind: BPF, Parent: w.parent, Slots: 8}, roots(t)); err == nil {
		defer m.Close()
		meters = append(meters, m)
	}
	g := w.group("g")
	samples := make([]Sample, 4)
	for _, m := range meters {
		if err := m.Add(1, g); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(50, func() {
			_, err := m.Read(samples)
			_, err1 := m.ReadOne(1)
			if err != nil || err1 != nil {
				t.Error(err, err1)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations in a Read and a ReadOne", m.Describe().Kind, n)
		}
	}
}

// checkCostPerEvent reports what each program takes per event, by the kernel's
// own statistics (which add some 50 ns to each), under a load of wake-ups and
// forks. It fails only if a program saw no event.
func checkCostPerEvent(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		hosttest.Skip(t, host.FeatureBPF, err.Error())
	}
	defer stats.Close()
	g := w.group("g")
	if err := k.Add(0, g); err != nil {
		t.Fatal(err)
	}
	w.start(g.Dir, -1, "/bin/sh", "-c", "while :; do echo; done | while read x; do :; done")
	cmd := w.start(g.Dir, -1, "/bin/sh", "-c", storm(20))
	// An event of attached.
	write(t, g.Dir, "cgroup.procs", os.Getpid())
	write(t, filepath.Dir(w.parent.Dir), "cgroup.procs", os.Getpid())
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	ran(t, k, 0, 200*time.Millisecond)
	for _, name := range slices.Sorted(maps.Keys(k.counters.Programs)) {
		s, err := k.counters.Programs[name].Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.RunCount == 0 {
			t.Errorf("%s: no event", name)
			continue
		}
		if s.RecursionMisses != 0 {
			t.Errorf("%s: %d events missed", name, s.RecursionMisses)
		}
		t.Logf("%-10s %8d events, %4d ns each", name, s.RunCount, s.Runtime.Nanoseconds()/int64(s.RunCount))
	}
}
