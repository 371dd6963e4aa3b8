package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/market"
)

// straysIn names the threads of this process that are in a v1 directory of a group.
func straysIn(g *Group) (list []string, err error) {
	for i, dir := range g.dirs {
		if g.market.plan.places[i].v2 {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "tasks"))
		if err != nil {
			return nil, err
		}
		for tid := range strings.FieldsSeq(string(b)) {
			if _, err := os.Stat(filepath.Join("/proc/self/task", tid)); err == nil {
				list = append(list, tid+" in "+dir)
			}
		}
	}
	return list, nil
}

// On v1 a thread of this program visits the groups while it forks. Whoever looks
// meanwhile where the program is at home must not see the visit, and nobody may
// stay: the group could not be removed, and the thread's time would be billed to it.
func TestStartsInParallelLeaveNoThreadBehind(t *testing.T) { everyLayout(t, startsInParallel) }

func startsInParallel(t *testing.T) {
	e := machine(t, 0)
	if !slices.ContainsFunc(e.plan.places, func(p place) bool { return !p.v2 }) {
		t.Log("no v1 hierarchy: no thread has to visit")
		return
	}
	const starters, starts = 8, 15
	done := make(chan struct{})
	var looking, starting sync.WaitGroup
	for range 2 {
		looking.Go(func() { lookHome(t, e, done) })
	}
	for slot := range starters {
		starting.Go(func() {
			for n := range starts {
				if err := visit(e, slot); err != nil {
					t.Errorf("start %d of slot %d: %v", n, slot, err)
					return
				}
			}
		})
	}
	starting.Wait()
	close(done)
	looking.Wait()
}

// lookHome asks again and again where this program is at home.
func lookHome(t *testing.T, e *Enforcer, done <-chan struct{}) {
	roots, err := host.Open()
	if err != nil {
		t.Error(err)
		return
	}
	defer roots.Close()
	for {
		select {
		case <-done:
			return
		default:
		}
		l, err := host.Discover(roots)
		if err != nil {
			t.Error(err)
			return
		}
		if now := homes(l, &e.plan); !slices.Equal(now, e.home) {
			t.Errorf("at home in %v, want %v", now, e.home)
			return
		}
	}
}

// visit starts a process in a new group and takes the group away.
func visit(e *Enforcer, slot int) error {
	opened, err := e.Open(slot, fmt.Sprintf("w%d", slot), dispatch.Limits{})
	if err != nil {
		return err
	}
	g := opened.(*Group)
	p, err := launch.Start(launch.Spec{Args: []string{"true"}}, g.Placement())
	if err != nil {
		return err
	}
	if strays, err := straysIn(g); err != nil || len(strays) > 0 {
		return errors.Join(fmt.Errorf("threads %v stayed", strays), err)
	}
	if _, err := p.Wait(); err != nil {
		return err
	}
	if err := g.Await(20 * time.Second); err != nil {
		return err
	}
	return g.Remove()
}

// playLeaderless is a process whose main thread ends while another goes on.
func playLeaderless() {
	go func() {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		os.Exit(0)
	}()
	for range 64 { // each keeps the thread that it gets, until one gets the main thread
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == unix.Getpid() {
				_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
			}
			select {}
		}()
	}
	select {}
}

// leaderless starts a process whose main thread has ended.
func leaderless(t *testing.T, g *Group) *launch.Process {
	t.Helper()
	t.Setenv(roleVariable, "leaderless")
	p := process(t, g, "/proc/self/exe")
	if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'Z' }) {
		t.Fatal("the leader does not end")
	}
	return p
}

// A v1 hierarchy shows a leader that ended at its top, and cgroup.kill goes by the
// leaders alone. The other threads are in the group still, and are ended.
func TestATreeWithoutItsLeaderIsEnded(t *testing.T) { everyLayout(t, leaderlessIsEnded) }

func leaderlessIsEnded(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	p := leaderless(t, g)
	if populated, err := g.Populated(); err != nil || !populated {
		t.Errorf("populated %v, %v: its other threads live", populated, err)
	}
	for _, dir := range g.dirs {
		if pids, err := members(dir); err != nil || !slices.Equal(pids, []int{p.Pid}) {
			t.Errorf("%s holds %v, %v, want %d", dir, pids, err, p.Pid)
		}
	}
	if err := g.Kill(); err != nil { // end asks again, as the demon does at every tick
		t.Error(err)
	}
	end(t, g, p)
}

func TestAMarketWithoutLeadersCloses(t *testing.T) {
	everyLayout(t, func(t *testing.T) {
		e := machine(t, 0)
		p := leaderless(t, group(t, e, 0, dispatch.Limits{}))
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		finish(t, p)
	})
}

// The thread that forks is in the v1 group too, and counts.
func TestACapOfOneProcessLetsItStart(t *testing.T) { everyLayout(t, oneProcess) }

func oneProcess(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{Pids: 1})
	p := process(t, g, "sleep", "60")
	if err := e.Apply(testEpoch, []dispatch.Share{{Slot: 0, Class: uint8(market.Frozen)}}); err != nil {
		t.Fatal(err)
	}
	if most, err := readNumber(g.pids.file("pids.max"), ""); err != nil || most != 1 {
		t.Errorf("pids.max %d, %v after its start, want 1", most, err)
	}
	end(t, g, p)
}

// The v1 freezer holds the killed until each group is thawed that was frozen by itself.
func TestAStoppedMarketEnds(t *testing.T) { everyLayout(t, stoppedMarketEnds) }

func stoppedMarketEnds(t *testing.T) {
	e := machine(t, 0)
	var stopped []*launch.Process
	for slot := range 2 {
		g := group(t, e, slot, dispatch.Limits{})
		stopped = append(stopped, process(t, g, "sh", "-c", "sleep 60 & wait"))
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil { // machine looks for what is left
		t.Fatal(err)
	}
	for _, p := range stopped {
		if s := finish(t, p); s.Signal != unix.SIGKILL {
			t.Errorf("ended by %v, want a kill", s.Signal)
		}
	}
}

// A workload that is root may freeze a group of its own below its workload's.
func TestAGroupFrozenFromInsideEnds(t *testing.T) { everyLayout(t, frozenFromInside) }

func frozenFromInside(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	inner := filepath.Join(g.roster(), "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	p := process(t, g, "sleep", "60")
	if err := host.WriteOnce(filepath.Join(inner, "cgroup.procs"), strconv.Itoa(p.Pid)); err != nil {
		t.Fatal(err)
	}
	if !hold(inner, g.unified != "") {
		t.Fatal("it does not freeze")
	}
	end(t, g, p)
}

// Who was killed in a group that is still FREEZING is held there until the thaw, as in
// one that is FROZEN: nobody waits for it.
func TestSweepDoesNotWaitForTheStopped(t *testing.T) {
	for state, want := range map[string]error{"FROZEN": nil, "FREEZING": nil, "THAWED": dispatch.ErrPopulated} {
		dir := t.TempDir()
		p := exec.Command("sleep", "60")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"cgroup.procs": fmt.Sprint(p.Process.Pid), "freezer.state": state} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		met, err := sweep(dir, 0, 50*time.Millisecond)
		if met != 1 || !errors.Is(err, want) {
			t.Errorf("%s: met %d, %v, want %v", state, met, err, want)
		}
		_ = p.Process.Kill()
		_ = p.Wait()
	}
}
