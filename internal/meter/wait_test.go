package meter

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
)

// spinEnv makes the test binary a process of so many busy threads.
const spinEnv = "MAXWELL_METER_TEST_THREADS"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(spinEnv)); err == nil {
		runtime.GOMAXPROCS(n)
		for range n - 1 {
			go busy()
		}
		busy()
	}
	os.Exit(m.Run())
}

func busy() {
	runtime.LockOSThread()
	var n atomic.Uint64
	for {
		n.Add(1)
	}
}

// lastCPU is a processor that this process may use; -1 if it may use but one.
func lastCPU(t testing.TB) int {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	last := -1
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			last = cpu
		}
	}
	return last
}

// stretch is what happened to one slot between two looks.
type stretch struct {
	run, wait, elapsed time.Duration
	slack              time.Duration // what the looks themselves took: it may belong to the stretch or not
	runnable           int32
}

func (s stretch) String() string {
	return fmt.Sprintf("run %s + wait %s of %s, %d runnable", s.run, s.wait, s.elapsed, s.runnable)
}

// watch reads like an epoch loop for d and gives what happened to each slot.
func watch(t testing.TB, m Meter, d time.Duration, slots int) []stretch {
	t.Helper()
	first, last := make([]Sample, slots), make([]Sample, slots)
	epoch := time.Now()
	look := func(dst []Sample) (before, took time.Duration) {
		t.Helper()
		from := time.Since(epoch)
		if _, err := m.Read(dst); err != nil {
			t.Fatal(err)
		}
		return from, time.Since(epoch) - from
	}
	begin, slack := look(first)
	during(t, m, d, last)
	end, more := look(last)
	out := make([]stretch, slots)
	for i := range out {
		out[i] = stretch{
			time.Duration(last[i].Run - first[i].Run),
			time.Duration(last[i].Wait - first[i].Wait),
			end - begin, slack + more, last[i].Runnable,
		}
	}
	return out
}

// wants holds that threads were runnable all the time: run and wait together
// are their number times the time, within 1 %, a scheduler tick and the looks.
func (s stretch) wants(t testing.TB, threads int) {
	t.Helper()
	want := s.elapsed * time.Duration(threads)
	off := s.run + s.wait - want
	if off.Abs() > want/100+10*time.Millisecond+s.slack*time.Duration(threads) {
		t.Errorf("%v: run + wait is off %s by %s", s, want, off)
	}
	if int(s.runnable) != threads {
		t.Errorf("%v: want %d runnable", s, threads)
	}
}

func (s stretch) nothing(t testing.TB) {
	t.Helper()
	if s.run+s.wait > s.elapsed/100 || s.runnable != 0 {
		t.Errorf("%v: want nothing", s)
	}
}

// ran waits until a slot has run so long, so that it is past its start.
func ran(t testing.TB, m Meter, slot int, d time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("slot %d has run %s", slot, d), func() bool {
		s, err := m.ReadOne(slot)
		return err == nil && time.Duration(s.Run) >= d
	})
}

func checkWaitTwoSpinnersOnOneCPU(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	cpu := lastCPU(t)
	for slot, name := range []string{"a", "b"} {
		g := w.group(name)
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		w.start(g.Dir, cpu, "/bin/sh", "-c", spin)
	}
	ran(t, k, 0, 30*time.Millisecond)
	ran(t, k, 1, 30*time.Millisecond)
	s := watch(t, k, 800*time.Millisecond, 2)
	t.Log(s)
	s[0].wants(t, 1)
	s[1].wants(t, 1)
	if share := float64(s[0].run) / float64(s[0].run+s[1].run); share < 0.4 || share > 0.6 {
		t.Errorf("equal spinners ran %s and %s", s[0].run, s[1].run)
	}
	if s[0].wait < s[0].elapsed*4/10 || s[1].wait < s[1].elapsed*4/10 {
		t.Errorf("two on one processor waited %s and %s of %s", s[0].wait, s[1].wait, s[0].elapsed)
	}
}

// checkWaitOfTheStarved: who gets nothing shows its whole demand, while it is
// starved and not only afterwards.
func checkWaitOfTheStarved(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	cpu := lastCPU(t)
	hog, loser := w.group("hog"), w.group("loser")
	for slot, g := range []host.CgroupRef{hog, loser} {
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
	}
	cmd := w.start(loser.Dir, cpu, "/bin/sh", "-c", spin)
	w.start(hog.Dir, cpu, "/bin/sh", "-c", spin)
	ran(t, k, 1, 10*time.Millisecond)
	if err := unix.SchedSetAttr(cmd.Process.Pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: 5 /* SCHED_IDLE */}, 0); err != nil {
		t.Fatal(err)
	}
	ran(t, k, 0, 10*time.Millisecond)
	s := watch(t, k, 500*time.Millisecond, 2)
	t.Log(s)
	s[1].wants(t, 1)
	if s[1].run > s[1].elapsed/10 {
		t.Errorf("the starved ran %s of %s", s[1].run, s[1].elapsed)
	}
}

// TestWaitByShares starves by weights, as enforcement on v1 does.
func TestWaitByShares(t *testing.T) {
	w := newWorld(t, host.CPU)
	k := openKernel(t, w, 4)
	w.waiting(k)
	cpu := lastCPU(t)
	shares := []int{262144, 2}
	for slot, name := range []string{"hog", "loser"} {
		g := w.group(name)
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		cmd := w.start(g.Dir, cpu, "/bin/sh", "-c", spin)
		ran(t, k, slot, 5*time.Millisecond)
		write(t, g.V1[host.CPU], "tasks", cmd.Process.Pid)
	}
	for slot, name := range []string{"hog", "loser"} {
		write(t, filepath.Join(w.parent.V1[host.CPU], name), "cpu.shares", shares[slot])
	}
	// Who is starved like this cannot even die.
	t.Cleanup(func() { write(t, filepath.Join(w.parent.V1[host.CPU], "loser"), "cpu.shares", 262144) })
	s := watch(t, k, 500*time.Millisecond, 2)
	t.Log(s)
	s[0].wants(t, 1)
	s[1].wants(t, 1)
	if s[1].run > s[1].elapsed/20 {
		t.Errorf("the starved ran %s of %s", s[1].run, s[1].elapsed)
	}
}

func checkWaitOfManyThreads(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	g := w.group("g")
	if err := k.Add(0, g); err != nil {
		t.Fatal(err)
	}
	w.start(g.Dir, -1, "/bin/sh", "-c", spin+" & "+spin+" & "+spin+" & wait")
	ran(t, k, 0, 50*time.Millisecond)
	s := watch(t, k, 400*time.Millisecond, 1)[0]
	t.Log(s)
	s.wants(t, 3)
}

func checkWaitOfSleepersStoppedAndFrozen(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	const sleeper, stopped, frozen = 0, 1, 2
	groups := []host.CgroupRef{w.group("sleeper"), w.group("stopped"), w.group("frozen")}
	var cmds []*exec.Cmd
	for slot, g := range groups {
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		script := spin
		if slot == sleeper {
			script = "exec sleep 100"
		}
		cmds = append(cmds, w.start(g.Dir, -1, "/bin/sh", "-c", script))
	}
	ran(t, k, stopped, 10*time.Millisecond)
	ran(t, k, frozen, 10*time.Millisecond)
	runnable := func(slot int, want int32) func() bool {
		return func() bool {
			s, err := k.ReadOne(slot)
			return err == nil && s.Runnable == want
		}
	}
	if err := cmds[stopped].Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	write(t, groups[frozen].Dir, "cgroup.freeze", 1)
	for slot := range groups {
		eventually(t, fmt.Sprintf("slot %d at rest", slot), runnable(slot, 0))
	}
	for slot, s := range watch(t, k, 200*time.Millisecond, 3) {
		t.Log(slot, s)
		s.nothing(t)
	}
	if err := cmds[stopped].Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	write(t, groups[frozen].Dir, "cgroup.freeze", 0)
	eventually(t, "the stopped one goes on", runnable(stopped, 1))
	eventually(t, "the frozen one goes on", runnable(frozen, 1))
	s := watch(t, k, 200*time.Millisecond, 3)
	s[sleeper].nothing(t)
	s[stopped].wants(t, 1)
	s[frozen].wants(t, 1)
}

// checkWaitAcrossCPUs moves a spinner between processors all the time.
func checkWaitAcrossCPUs(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	if lastCPU(t) == 0 {
		t.Log("one processor only: nothing to move between")
	}
	g := w.group("g")
	if err := k.Add(0, g); err != nil {
		t.Fatal(err)
	}
	cmd := w.start(g.Dir, -1, "/bin/sh", "-c", spin)
	ran(t, k, 0, 10*time.Millisecond)
	before, err := k.ReadOne(0)
	begin := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; time.Since(begin) < 300*time.Millisecond; i++ {
		var one unix.CPUSet
		one.Set(i % (lastCPU(t) + 1))
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &one); err != nil {
			t.Fatal(err)
		}
	}
	after, err := k.ReadOne(0)
	if err != nil {
		t.Fatal(err)
	}
	s := stretch{
		run: time.Duration(after.Run - before.Run), wait: time.Duration(after.Wait - before.Wait),
		elapsed: time.Since(begin), runnable: after.Runnable,
	}
	t.Log(s)
	s.wants(t, 1)
}

// checkMoveBetweenWallets moves a process of three busy threads from one wallet
// to another and out of the market. Nothing may be counted twice or left.
func checkMoveBetweenWallets(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	a, b := w.group("a"), w.group("b")
	for slot, g := range []host.CgroupRef{a, b} {
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(spinEnv, "3")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.start(a.Dir, -1, exe)
	counts := func(slot int, want int32) {
		t.Helper()
		eventually(t, fmt.Sprintf("slot %d has %d runnable", slot, want), func() bool {
			s, err := k.ReadOne(slot)
			return err == nil && s.Runnable == want
		})
	}
	counts(0, 3)
	for range 20 {
		write(t, b.Dir, "cgroup.procs", cmd.Process.Pid)
		write(t, a.Dir, "cgroup.procs", cmd.Process.Pid)
	}
	write(t, b.Dir, "cgroup.procs", cmd.Process.Pid)
	counts(0, 0)
	counts(1, 3)
	s := watch(t, k, 200*time.Millisecond, 2)
	t.Log(s)
	s[0].nothing(t)
	// The runtime's own thread wakes now and then, and it hands the busy ones
	// to and fro: about three times the time.
	if stay := s[1].run + s[1].wait; stay < s[1].elapsed*2 || stay > s[1].elapsed*4 {
		t.Errorf("%v: want three times the time", s[1])
	}
	eventually(t, "the kernel's own count of runnable threads", func() bool {
		s, err := k.ReadOne(1)
		return err == nil && s.Runnable == runnableThreads(t, cmd.Process.Pid)
	})
	write(t, filepath.Dir(w.parent.Dir), "cgroup.procs", cmd.Process.Pid)
	counts(1, 0)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
}

// runnableThreads counts the threads of a process in state R.
func runnableThreads(t testing.TB, pid int) int32 {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatal(stats, err)
	}
	var n int32
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if s, ok := parseStat(b); err == nil && ok && s.state == 'R' {
			n++
		}
	}
	return n
}

// checkCrowdSurvivesChaos forks, stops, freezes, moves and kills at random and
// wants the books to be straight at the end.
func checkCrowdSurvivesChaos(t *testing.T, w *world, k *kernel) {
	w.waiting(k)
	groups := []host.CgroupRef{w.group("a"), w.group("b"), w.group("c")}
	var pids []int
	for slot, g := range groups {
		if err := k.Add(slot, g); err != nil {
			t.Fatal(err)
		}
		for _, script := range []string{
			"while :; do (:) ; done",
			"while :; do echo; done | while read x; do :; done",
			"while :; do sleep 0.001; done",
			spin,
		} {
			pids = append(pids, w.start(g.Dir, -1, "/bin/sh", "-c", script).Process.Pid)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Now()
	samples := make([]Sample, 3)
	for time.Since(begin) < 700*time.Millisecond {
		pid, g := pids[random.IntN(len(pids))], groups[random.IntN(3)]
		switch random.IntN(5) {
		case 0:
			_ = unix.Kill(pid, unix.SIGSTOP)
		case 1, 2:
			_ = unix.Kill(pid, unix.SIGCONT)
		case 3:
			write(t, g.Dir, "cgroup.freeze", random.IntN(2))
		case 4:
			write(t, g.Dir, "cgroup.procs", pid)
		}
		before := samples
		samples = make([]Sample, 3)
		if _, err := k.Read(samples); err != nil {
			t.Fatal(err)
		}
		for i, s := range samples {
			if s.Run < before[i].Run || s.Wait < before[i].Wait || s.Runnable < 0 || s.Runnable > 100 {
				t.Fatalf("slot %d went from %v to %v", i, before[i], s)
			}
		}
	}
	for _, g := range groups {
		kill(g.Dir)
	}
	for slot, g := range groups {
		eventually(t, fmt.Sprintf("slot %d empty", slot), func() bool {
			s, err := k.ReadOne(slot)
			return err == nil && s.Runnable == 0
		})
		// One that could not be followed (see below) is in no count of the runnable.
		settled(t, k, slot, g.Dir)
	}
	node, err := k.Read(samples)
	if err != nil {
		t.Fatal(err)
	}
	sum := node.Busy - node.System
	for _, s := range samples {
		sum -= s.Run // what the self-test used
	}
	for slot, g := range groups {
		s, err := k.Remove(slot)
		if err != nil {
			t.Fatal(err)
		}
		exact(t, s, g.Dir)
		sum += s.Run
	}
	n, err := k.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	if n.Busy-n.System != sum {
		t.Errorf("busy %d - system %d is not %d", n.Busy, n.System, sum)
	}
	// An interrupt that wakes a thread in the middle of another's look-up on the
	// same processor finds the kernel's task storage busy. The thread is followed
	// again when it next runs; of the thousands made here it happens to a few.
	const few = 20
	if k.lost() > few {
		t.Errorf("%d threads could not be followed", k.lost())
	}
}
