package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
)

// BenchmarkNode is the running market with 1,000 workloads, 100 of them
// runnable with changing bids, 20 births and deaths a second, on each meter.
// It reports the market process's own processor time as percent of one core.
// -benchtime 60s is the figure that counts; the default is too short for the
// births of the thousand to be forgotten. Without births it is the market
// alone: ticks, meter, bids and weights.
func BenchmarkNode(b *testing.B) {
	for _, kind := range []meter.Kind{meter.BPF, meter.Files} {
		for _, n := range []int{100, 1000} {
			for _, births := range []int{0, 20} {
				b.Run(fmt.Sprintf("%s/%d/births=%d", kind, n, births), func(b *testing.B) { benchmarkNode(b, kind, n, births) })
			}
		}
	}
}

func benchmarkNode(b *testing.B, kind meter.Kind, n, births int) {
	dir := b.TempDir()
	s, err := Join(b.Context(), JoinOptions{Dir: dir, Client: "bench", Settings: Settings{
		Meter: kind, Enforce: "cgroup", Epoch: 100 * time.Millisecond,
	}})
	if err != nil {
		hosttest.Skip(b, host.FeatureCgroupCreate, err.Error())
	}
	defer func() {
		if _, err := s.Leave(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	go func() {
		for range s.Events() {
		}
	}()
	begin := func(name string, args ...string) *Running {
		// The market bids for them: every runnable one's bid changes every epoch.
		r, err := s.Start(b.Context(), Workload{
			Terms: &v1.AdmitRequest{
				Name: name, Auto: true, BudgetUcredits: 1e9 + rand.Int64N(1e10), HorizonNs: int64(time.Hour),
			},
			Spec: launch.Spec{Args: args},
		})
		if err != nil {
			panic(err) // also on a goroutine of its own
		}
		return r
	}
	// The sleepers first: under a hundred hogs a start waits its turn.
	for i := range n - n/10 {
		begin(fmt.Sprint("sleeper", i), "sleep", "3600")
	}
	for i := range n / 10 {
		begin(fmt.Sprint("hog", i), "sh", "-c", "while :; do :; done")
	}
	pid := pidOf(b, dir)
	before, from := processTime(b, pid), time.Now()
	born, crew := 0, sync.WaitGroup{}
	defer crew.Wait()
	for b.Loop() { // one second of the market's life
		second := time.NewTimer(time.Second)
		for range births {
			born++
			name := fmt.Sprint("mayfly", born)
			crew.Go(func() { <-begin(name, "true").Done() })
			time.Sleep(time.Second / time.Duration(births+1))
		}
		<-second.C
	}
	spent, wall := processTime(b, pid)-before, time.Since(from)
	b.ReportMetric(100*float64(spent)/float64(wall), "%core")
	b.ReportMetric(float64(born)/wall.Seconds(), "births/s")
	snap, err := s.Snapshot(b.Context(), true)
	if err == nil {
		b.ReportMetric(float64(snap.GetNode().GetLateMaxNs())/1e6, "ms-late-max")
	}
}

// BenchmarkBirth is one short workload from admission to burial in a market of
// nobody else: the time it takes, what the market process spends on it, and what the
// kernel alone takes to make and remove as many groups: no market that gives every
// workload its own can spend less.
func BenchmarkBirth(b *testing.B) {
	dir := b.TempDir()
	s, err := Join(b.Context(), JoinOptions{Dir: dir, Client: "bench", Settings: Settings{Enforce: "cgroup", Epoch: time.Second}})
	if err != nil {
		hosttest.Skip(b, host.FeatureCgroupCreate, err.Error())
	}
	defer func() {
		if _, err := s.Leave(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	go func() {
		for range s.Events() {
		}
	}()
	pid := pidOf(b, dir)
	before, born := processTime(b, pid), 0
	for b.Loop() {
		born++
		r, err := s.Start(b.Context(), Workload{
			Terms: &v1.AdmitRequest{Name: fmt.Sprint("m", born)}, Spec: launch.Spec{Args: []string{"true"}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Result(); err != nil {
			b.Fatal(err)
		}
	}
	spent := float64(processTime(b, pid)-before) / float64(born) / 1e3
	bare := bareGroups(b)
	b.ReportMetric(spent, "market-us/birth")
	b.ReportMetric(bare, "bare-us/birth")
	b.ReportMetric(spent/bare, "market/bare")
}

// bareGroups is the processor time that making and removing a workload's groups
// takes the kernel, in microseconds.
func bareGroups(b *testing.B) float64 {
	roots, err := host.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer roots.Close()
	e, err := cgroup.Open(cgroup.Config{Name: fmt.Sprintf("maxwell-bare-%d", os.Getpid())}, roots)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const births = 200
	began := threadTime(b)
	for i := range births {
		for _, r := range e.Roots() {
			if err := os.Mkdir(filepath.Join(r.Dir, fmt.Sprint("bare", i)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
		for _, r := range e.Roots() {
			if err := os.Remove(filepath.Join(r.Dir, fmt.Sprint("bare", i))); err != nil {
				b.Fatal(err)
			}
		}
	}
	return float64(threadTime(b)-began) / births / 1e3
}

// threadTime is the processor time of the calling thread.
func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func pidOf(b testing.TB, dir string) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		text, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && strings.Contains(string(text), NodeVerb+"\x00") && strings.Contains(string(text), dir) {
			pid, err := strconv.Atoi(e.Name())
			if err == nil {
				return pid
			}
		}
	}
	b.Fatal("no market process")
	return 0
}

// processTime is a process's processor time from its scheduler statistics,
// summed over its threads: nanoseconds, where stat has ticks.
func processTime(b testing.TB, pid int) time.Duration {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	var sum time.Duration
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			continue
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err == nil {
			sum += time.Duration(ns)
		}
	}
	return sum
}
