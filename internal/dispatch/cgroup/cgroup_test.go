package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// within checks shares of what was delivered, in percent.
func within(t *testing.T, sum unit.CoreTime, bidders []*bidder, want []float64, points float64) {
	t.Helper()
	for i, b := range bidders {
		have := 100 * float64(b.total) / float64(sum)
		t.Logf("%s: %.1f %% of %.2f core-s, wanted %.1f", b.group.name, have, float64(sum)/1e9, want[i])
		if math.Abs(have-want[i]) > points {
			t.Errorf("%s got %.1f %%, want %.1f within %.0f points", b.group.name, have, want[i], points)
		}
	}
}

func TestSharesFollowGrantsOnOneProcessor(t *testing.T) {
	e := machine(t, 1000)
	rich := &bidder{group: group(t, e, 0, dispatch.Limits{}), class: market.Margin, granted: 0.75, threads: 1}
	poor := &bidder{group: group(t, e, 1, dispatch.Limits{}), class: market.Margin, granted: 0.25, threads: 1}
	p, q := process(t, rich.group, hog...), process(t, poor.group, hog...)
	enough, points := shareTime()
	both := []*bidder{rich, poor}
	within(t, drive(t, e, enough, both), both, []float64{75, 25}, points)
	end(t, rich.group, p)
	end(t, poor.group, q)
}

func TestSpareTimeGoesToTheNextScore(t *testing.T) {
	e := machine(t, 1000)
	// Served asks for half and sleeps the rest; the margin takes what is left,
	// the loser nothing.
	served := &bidder{group: group(t, e, 0, dispatch.Limits{}), class: market.Served, granted: 0.6}
	served.demand = func(_ time.Duration, used unit.CoreTime) unit.CoreTime { return used }
	margin := &bidder{group: group(t, e, 1, dispatch.Limits{}), class: market.Margin, granted: 0.4, threads: 1}
	loser := &bidder{group: group(t, e, 2, dispatch.Limits{}), class: market.Loser, tier: 1, threads: 1}
	p := process(t, served.group, "sh", "-c", "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.02; done")
	q, r := process(t, margin.group, hog...), process(t, loser.group, hog...)
	enough, _ := shareTime()
	all := []*bidder{served, margin, loser}
	sum := drive(t, e, enough, all)
	for _, b := range all {
		t.Logf("%s: %.1f %%", b.group.name, 100*float64(b.total)/float64(sum))
	}
	if lost := 100 * float64(loser.total) / float64(sum); lost > 5 {
		t.Errorf("the loser got %.1f %%, want next to nothing", lost)
	}
	if rest := 100 * float64(margin.total) / float64(sum); rest < 10 {
		t.Errorf("the margin got %.1f %%, want what the served left", rest)
	}
	end(t, served.group, p)
	end(t, margin.group, q)
	end(t, loser.group, r)
}

func TestLosersGetTheirFloorAndNoMore(t *testing.T) {
	e := machine(t, 1000)
	winner := &bidder{group: group(t, e, 0, dispatch.Limits{}), class: market.Served, granted: 0.98, threads: 1}
	floor := &bidder{group: group(t, e, 1, dispatch.Limits{}), class: market.Loser, tier: 3, granted: 0.02, threads: 1}
	none := &bidder{group: group(t, e, 2, dispatch.Limits{}), class: market.Loser, tier: 3, threads: 1}
	p, q, r := process(t, winner.group, hog...), process(t, floor.group, hog...), process(t, none.group, hog...)
	enough, _ := shareTime()
	all := []*bidder{winner, floor, none}
	// Before the first weights all three ran alike; what the loser had then is
	// held against its floor, and would be a third of it in so short a time.
	drive(t, e, enough/4, all)
	sum := drive(t, e, enough, all)
	for _, b := range all {
		t.Logf("%s: %.2f %%", b.group.name, 100*float64(b.total)/float64(sum))
	}
	if got := 100 * float64(floor.total) / float64(sum); got < 0.8 || got > 5 {
		t.Errorf("the loser with a floor got %.2f %%, want about 2", got)
	}
	most := 1.5
	if e.balance.span.narrow {
		most = 4 // losers before Linux 6.6 share 1/64 of the largest weight
	}
	if got := 100 * float64(none.total) / float64(sum); got > most {
		t.Errorf("the loser without a floor got %.2f %%, want nothing", got)
	}
	end(t, winner.group, p)
	end(t, floor.group, q)
	end(t, none.group, r)
}

// TestStartsAtTheHighestWeight: an exec must not wait behind winners, and who
// sleeps after it must not keep the weight for when it wakes.
func TestStartsAtTheHighestWeight(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	weight := func() int64 {
		v, err := readNumber(g.weight.Path(), "")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := weight(); got != e.balance.span.most {
		t.Errorf("a new group has weight %d, want %d", got, e.balance.span.most)
	}
	p := process(t, g, "sleep", "60")
	for range 2 {
		if err := e.Apply(testEpoch, []dispatch.Share{{Slot: 0, Class: uint8(market.Idle)}}); err != nil {
			t.Fatal(err)
		}
		if got := weight(); got != e.balance.span.usual {
			t.Errorf("asleep it has weight %d, want %d", got, e.balance.span.usual)
		}
	}
	end(t, g, p)
}

func TestFreezeStopsAll(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	p := process(t, g, "sh", "-c", "(while :; do :; done) & while :; do :; done")
	running := func() bool { return used(t, g) > 20e6 }
	if !until(20*time.Second, running) {
		t.Fatal("the tree does not run")
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := launch.Start(launch.Spec{Args: hog}, g.Placement()); err == nil {
		t.Error("a start into a frozen group must be refused")
	}
	if !until(20*time.Second, func() bool { return frozen(t, g) }) {
		t.Fatal("not frozen")
	}
	before := used(t, g)
	<-time.After(100 * time.Millisecond)
	if after := used(t, g); after != before {
		t.Errorf("a frozen tree used %d ns", after-before)
	}
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if !until(20*time.Second, func() bool { return used(t, g) > before+20e6 }) {
		t.Error("a thawed tree does not run")
	}
	if err := g.Freeze(); err != nil { // a frozen tree dies too
		t.Fatal(err)
	}
	end(t, g, p)
}

func frozen(t *testing.T, g *Group) bool {
	t.Helper()
	if g.unified == "" {
		return frozenV1(g.freezer.dir)
	}
	f, err := event(g.unified, "frozen")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestApplyFreezesByClassAndThawsOnlyWhatItFroze(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	p := process(t, g, "sleep", "60")
	apply := func(c market.Class) {
		t.Helper()
		if err := e.Apply(50*time.Millisecond, []dispatch.Share{{Class: uint8(c), Granted: 1e6}}); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		do   func()
		held holder
	}{
		{func() { apply(market.Frozen) }, heldByPrice},
		{func() { apply(market.Margin) }, 0},
		{func() { _ = g.Freeze() }, heldByCall},
		{func() { apply(market.Served) }, heldByCall},
		{func() { apply(market.Frozen) }, heldByCall | heldByPrice},
		{func() { _ = g.Thaw() }, 0},
		{func() { apply(market.Frozen) }, heldByPrice},
		{func() { _ = g.Lane(true); _ = g.Thaw(); apply(market.Frozen) }, 0}, // the lane is not the market's
	}
	for i, s := range steps {
		s.do()
		if g.held != s.held {
			t.Errorf("step %d: held by %b, want %b", i, g.held, s.held)
		}
		b, err := os.ReadFile(g.stop.Path())
		if err != nil {
			t.Fatal(err)
		}
		word := strings.TrimSpace(string(b))
		stopped := word == "1" || strings.HasPrefix(word, "FR")
		if stopped != (s.held != 0) {
			t.Errorf("step %d: the kernel says %q", i, word)
		}
	}
	end(t, g, p)
}

func TestKillEndsAForkStorm(t *testing.T) {
	const storm = `trap "" TERM HUP INT
storm() { while :; do setsid sh -c 'trap "" TERM HUP; ( (trap "" TERM; sleep 5) & ) & sleep 0.05' & sleep 0.01; done; }
storm & storm & storm`
	for _, way := range []string{"cgroup.kill", "sweep"} {
		t.Run(way, func(t *testing.T) {
			e := machine(t, 0)
			g := group(t, e, 0, dispatch.Limits{Pids: 300})
			p := process(t, g, "sh", "-c", storm)
			grown := func() bool { pids, err := members(g.roster()); return err == nil && len(pids) > 30 }
			if !until(20*time.Second, grown) {
				t.Fatal("the storm does not grow")
			}
			if err := g.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if way == "sweep" {
				// As on a kernel without cgroup.kill.
				frozen := hold(g.roster(), g.unified != "")
				if _, err := sweep(g.roster(), syscall.SIGKILL, sweepPatience); err != nil {
					t.Error(err)
				}
				if frozen {
					if err := release(g.roster(), g.unified != ""); err != nil {
						t.Error(err)
					}
				}
			} else if err := g.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := g.Await(5 * time.Second); err != nil {
				t.Fatal(err)
			}
			t.Logf("empty after %v", time.Since(began))
			end(t, g, p)
		})
	}
}

func TestDyingLaneLetsAHandlerFinish(t *testing.T) {
	e := machine(t, 1000)
	rich := group(t, e, 0, dispatch.Limits{})
	dying := group(t, e, 1, dispatch.Limits{})
	out := filepath.Join(t.TempDir(), "handled")
	q := process(t, rich, hog...)
	p := process(t, dying, "sh", "-c",
		`trap 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo done >"`+out+`.new"; mv "`+out+`.new" "`+out+`"; exit 7' TERM; echo ready >"`+out+`.ready"; while :; do :; done`)
	if !until(10*time.Second, func() bool { _, err := os.Stat(out + ".ready"); return err == nil }) {
		t.Fatal("the workload does not start")
	}
	// Broke: outbid, frozen, then the lane.
	shares := []dispatch.Share{
		{Slot: 0, Class: uint8(market.Served), Granted: 50e6},
		{Slot: 1, Class: uint8(market.Loser), Tier: 3},
	}
	if err := e.Apply(50*time.Millisecond, shares); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		dying.Freeze,
		func() error { return dying.Signal(syscall.SIGTERM) },
		func() error { return dying.Lane(true) },
		dying.Thaw,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if s := finish(t, p); s.Code != 7 {
		t.Errorf("exit code %d, want the handler's 7", s.Code)
	}
	t.Logf("the handler took %v", time.Since(began))
	if _, err := os.Stat(out); err != nil {
		t.Error("the handler did not finish")
	}
	end(t, dying)
	end(t, rich, q)
}

func TestDyingLaneIsNarrow(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	p := process(t, g, "sh", "-c", "(while :; do :; done) & while :; do :; done")
	if err := g.Lane(true); err != nil {
		t.Fatal(err)
	}
	before, began := used(t, g), time.Now()
	<-time.After(500 * time.Millisecond)
	share := float64(used(t, g)-before) / float64(time.Since(began))
	t.Logf("two hogs in the lane used %.2f of a core", share)
	if share > 0.35 {
		t.Errorf("two hogs in the lane used %.2f of a core, want about 0.2", share)
	}
	end(t, g, p)
}

func TestStartIsChargedFromTheFirstInstruction(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	p := process(t, g, "sh", "-c", "cat /proc/self/cgroup >/dev/null; kill -STOP $$")
	s, err := p.Wait()
	if err != nil || s.State != launch.Stopped {
		t.Fatalf("state %v, error %v, want stopped", s, err)
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range g.dirs {
		want := "/" + filepath.Base(e.roots[i].Dir) + "/" + g.name
		if strings.Count(string(b), want) < len(g.dirs) {
			t.Errorf("the child is in\n%s\nwant %s in %d hierarchies", b, want, len(g.dirs))
			break
		}
	}
	// Its own and its parents' CPU time agree: nothing ran outside the group.
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	end0 := finish(t, p)
	charged := used(t, g)
	own := unit.CoreTime(end0.User + end0.System)
	t.Logf("charged %d us, rusage of the child %d us", charged/1000, own/1000)
	if charged == 0 || charged < own*9/10 {
		t.Errorf("charged %d us of %d us", charged/1000, own/1000)
	}
	end(t, g)
}

func TestDeathsAreNoticed(t *testing.T) {
	e := machine(t, 0)
	if e.DeathFD() < 0 {
		t.Log("no notice on this layout; Populated is asked instead")
		return
	}
	g := group(t, e, 3, dispatch.Limits{})
	p := process(t, g, "sleep", "60")
	for range 2 { // the second changes nothing
		if err := e.Watch(3); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Watch(77); err != nil {
		t.Errorf("a slot that nobody has: %v", err)
	}
	if list, err := e.Deaths(nil); err != nil || len(list) > 0 {
		t.Errorf("deaths %v, %v of a tree that lives", list, err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	finish(t, p)
	var list []int
	if !until(20*time.Second, func() bool {
		var err error
		if list, err = e.Deaths(nil); err != nil {
			t.Fatal(err)
		}
		return len(list) > 0
	}) {
		t.Fatal("no notice of a death")
	}
	if fmt.Sprint(list) != "[3]" {
		t.Errorf("deaths %v, want [3]", list)
	}
	end(t, g)
}

func TestHardCaps(t *testing.T) {
	e := machine(t, 0)
	t.Run("memory", func(t *testing.T) {
		g := group(t, e, 0, dispatch.Limits{Memory: 32 << 20})
		p := process(t, g, "sh", "-c", `x=$(head -c 100000000 /dev/zero | tr '\0' a); echo ${#x}`)
		finish(t, p)
		c, err := g.Counters()
		if err != nil {
			t.Fatal(err)
		}
		if c.OOMKills == 0 || c.PeakMemory == 0 || c.PeakMemory > 33<<20 {
			t.Errorf("counters %+v, want a kill at 32 MiB", c)
		}
		end(t, g)
	})
	t.Run("pids", func(t *testing.T) {
		g := group(t, e, 0, dispatch.Limits{Pids: 5})
		p := process(t, g, "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait")
		if !until(20*time.Second, func() bool { c, err := g.Counters(); return err == nil && c.PidsRefused > 0 }) {
			t.Error("no fork was refused")
		}
		end(t, g, p)
	})
	t.Run("cores", func(t *testing.T) {
		g := group(t, e, 0, dispatch.Limits{Cores: 300})
		p := process(t, g, "sh", "-c", "(while :; do :; done) & while :; do :; done")
		before, began := used(t, g), time.Now()
		<-time.After(500 * time.Millisecond)
		share := float64(used(t, g)-before) / float64(time.Since(began))
		if share > 0.42 {
			t.Errorf("used %.2f cores, want at most 0.3", share)
		}
		end(t, g, p)
	})
}

// Without a cgroup2 mount the v1 freezer is the identity: it stops, it counts
// (cpuacct), and a kill is a sweep.
func TestMachineWithoutCgroup2(t *testing.T) {
	e := machineAs(t, Config{hideV2: true})
	g := group(t, e, 0, dispatch.Limits{Pids: 50})
	if g.unified != "" || g.Placement().Cgroup != "" || e.DeathFD() >= 0 {
		t.Fatalf("placement %+v, want v1 only", g.Placement())
	}
	p := process(t, g, "sh", "-c", "(setsid sh -c 'while :; do :; done' &) ; while :; do :; done")
	if !until(10*time.Second, func() bool { return used(t, g) > 20e6 }) {
		t.Fatal("nothing is counted")
	}
	if populated, err := g.Populated(); err != nil || !populated {
		t.Errorf("populated %v, %v", populated, err)
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	// Nobody forks here: a parent that waits in vfork for a frozen child keeps
	// the v1 freezer at FREEZING, although nothing runs.
	if !until(10*time.Second, func() bool { return frozen(t, g) }) {
		t.Error("not frozen")
	}
	if _, err := launch.Start(launch.Spec{Args: hog}, g.Placement()); !errors.Is(err, launch.ErrFrozen) {
		t.Errorf("start into a frozen group: %v", err)
	}
	end(t, g, p) // a frozen v1 tree is killed and thawed
}

func TestGroupsThatAreGoneSayClosed(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	if _, err := e.Open(0, "again", dispatch.Limits{}); err == nil {
		t.Error("a slot was given twice")
	}
	p := process(t, g, "sleep", "60")
	if err := g.Remove(); !errors.Is(err, dispatch.ErrPopulated) {
		t.Errorf("remove of a populated group: %v", err)
	}
	end(t, g, p)
	for name, err := range map[string]error{
		"freeze": g.Freeze(), "thaw": g.Thaw(), "lane": g.Lane(true), "kill": g.Kill(), "remove": g.Remove(),
	} {
		if !errors.Is(err, dispatch.ErrClosed) {
			t.Errorf("%s of a removed group: %v, want closed", name, err)
		}
	}
	if err := e.Apply(50*time.Millisecond, []dispatch.Share{{Class: uint8(market.Served), Granted: 1}}); err != nil {
		t.Errorf("a share of a removed group: %v", err)
	}
	if err := group(t, e, 0, dispatch.Limits{}).Remove(); err != nil {
		t.Errorf("the slot and the name are not free again: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := e.Open(1, "late", dispatch.Limits{}); !errors.Is(err, dispatch.ErrClosed) {
		t.Errorf("open after close: %v", err)
	}
}

// The market weighs no more than its neighbour, and what it sells is capped.
func TestMarketWeighsAsMuchAsANeighbour(t *testing.T) {
	online := onlineCPUs()
	e := machine(t, unit.MilliCores(online)*500)
	root := e.roots[e.plan.find(host.CPU)]
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	if root.V2 {
		if w, q := read("cpu.weight"), read("cpu.max"); w != "100" || q != fmt.Sprintf("%d 20000", online*10000) {
			t.Errorf("weight %s, quota %s", w, q)
		}
		return
	}
	if w, q := read("cpu.shares"), read("cpu.cfs_quota_us"); w != fmt.Sprint(online*512) || q != fmt.Sprint(online*10000) {
		t.Errorf("shares %s, quota %s", w, q)
	}
}

// Two markets may stand side by side; the parent gets back what it had when
// the last of them goes.
func TestParentGetsItsControllersBack(t *testing.T) {
	roots := realRoots(t)
	layout, err := host.Discover(roots)
	if err != nil {
		t.Fatal(err)
	}
	if layout.V2.Mount == "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount")
	}
	read := func() string {
		list, err := controllers(filepath.Join(layout.V2.Mount, subtreeControl))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, " ")
	}
	before := read()
	first, second := machine(t, 0), machine(t, 0)
	if first.name == second.name {
		t.Errorf("two markets are called %s", first.name)
	}
	during := read()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if read() != during {
		t.Errorf("the first took %q away from the second, %q is left", during, read())
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if read() != before {
		t.Errorf("controllers were %q and are %q", before, read())
	}
}

// A client's thread is in the v1 groups while it forks; the kernel then lists
// the client's whole process there. It must not be killed for it.
func TestVisitorsAreNotMembers(t *testing.T) {
	e := machine(t, 0)
	g := group(t, e, 0, dispatch.Limits{})
	i := slices.IndexFunc(e.plan.places, func(p place) bool { return !p.v2 })
	if i < 0 {
		t.Log("no v1 hierarchy: a thread cannot visit alone")
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if unix.Gettid() == os.Getpid() {
		t.Log("on the leader's own thread: it would not be a visit")
		return
	}
	tid := strconv.Itoa(unix.Gettid())
	if err := host.WriteOnce(filepath.Join(g.dirs[i], "tasks"), tid); err != nil {
		t.Fatal(err)
	}
	home := func() error { return host.WriteOnce(filepath.Join(e.home[i], "tasks"), tid) }
	pids, err := listed(g.dirs[i])
	if err != nil || !slices.Contains(pids, os.Getpid()) {
		t.Errorf("the kernel lists %v, %v, want this process", pids, err)
	}
	if !visits(os.Getpid(), g.dirs[i]) {
		t.Error("the visitor is taken for a member")
	}
	if err := g.Remove(); !errors.Is(err, dispatch.ErrPopulated) {
		t.Errorf("remove of a visited group: %v, want %v", err, dispatch.ErrPopulated)
	}
	if err := home(); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Errorf("remove after the visit: %v", err)
	}
}

// TestNeutralGroupsHaveTheKernelsWeight: whoever is not enforced any more has, to the
// unit, the weight of a group that nobody ever wrote to, whatever it was told before;
// and stays out of the balance until it is enforced again.
func TestNeutralGroupsHaveTheKernelsWeight(t *testing.T) {
	e := machine(t, 1000)
	const epoch = 50 * time.Millisecond
	names := []string{"cpu.shares"}
	if e.plan.places[e.plan.find(host.CPU)].v2 {
		names = []string{"cpu.weight", "cpu.idle"}
	}
	read := func(dir string) (all string) {
		t.Helper()
		for _, name := range names {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) { // cpu.idle: since Linux 5.15
				t.Fatal(err)
			}
			all += strings.TrimSpace(string(text)) + " "
		}
		return all
	}
	plain := filepath.Join(e.roots[e.plan.find(host.CPU)].Dir, "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	want := read(plain)
	if err := os.Remove(plain); err != nil {
		t.Fatal(err)
	}
	var groups []*Group
	for slot := range 5 {
		groups = append(groups, group(t, e, slot, dispatch.Limits{}))
	}
	if err := groups[3].weighLocked(target{weight: e.balance.span.usual + 1}); err != nil {
		t.Fatal(err)
	}
	shares := func(neutral bool) []dispatch.Share { // the last two groups are never enforced
		list := []dispatch.Share{
			{Slot: 0, Class: uint8(market.Served), Granted: unit.CoreTime(epoch) / 2},
			{Slot: 1, Class: uint8(market.Loser), Tier: lastTier},
			{Slot: 2, Class: uint8(market.Frozen)},
			{Slot: 3, Neutral: true},
			{Slot: 4, Neutral: true},
		}
		for i := range list {
			list[i].Neutral = list[i].Neutral || neutral
		}
		return list
	}
	for round := range 2 {
		for range 3 {
			if err := e.Apply(epoch, shares(false)); err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 && read(groups[0].cpu.dir) == want || read(groups[1].cpu.dir) == want {
			t.Errorf("round %d: enforced they have %s and %s", round, read(groups[0].cpu.dir), read(groups[1].cpu.dir))
		}
		for range 3 {
			if err := e.Apply(epoch, shares(true)); err != nil {
				t.Fatal(err)
			}
			for _, g := range groups {
				if have := read(g.cpu.dir); have != want || g.held != 0 || e.balance.at(g.slot) != nil {
					t.Errorf("round %d: %s has %s, want %s; held %d", round, g.name, have, want, g.held)
				}
			}
		}
	}
	for _, g := range groups {
		end(t, g)
	}
}
