package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/market"
)

// heir opens the market of the daemon that owner played.
func heir(t *testing.T) *Enforcer {
	t.Helper()
	return machineAs(t, Config{Name: testName() + "-owner", Mode: ModeThaw, Adopt: true})
}

func dirsOf(roots []Root) []string {
	var dirs []string
	for _, r := range roots {
		dirs = append(dirs, r.Dir)
	}
	return dirs
}

func adopted(t *testing.T, e *Enforcer, slot int, directory string, l dispatch.Limits) *Group {
	t.Helper()
	g, err := e.Adopt(slot, directory, l)
	if err != nil {
		t.Fatal(err)
	}
	return g.(*Group)
}

func TestADaemonAdoptsWhatACrashLeft(t *testing.T) { everyLayout(t, adoptsWhatACrashLeft) }

func adoptsWhatACrashLeft(t *testing.T) {
	said, kill := owner(t, ModeThaw, false)
	added := addedTo(said.Roots[0].Dir)
	invented := len(added) == 0 // where cgroup v2 has no controllers
	if invented {
		added = []string{"cpu"}
		if err := setAttr(said.Roots[0].Dir, addedAttr, added[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(config(Config{Name: testName() + "-owner", Mode: ModeThaw, Adopt: true}), realRoots(t)); !errors.Is(err, host.ErrLocked) {
		t.Errorf("adopt from a living daemon: %v", err)
	} else if _, ok := errors.AsType[*BusyError](err); !ok {
		t.Errorf("adopt from a living daemon: %T", err)
	}
	kill()
	e := heir(t)
	if got, want := dirsOf(e.Roots()), dirsOf(said.Roots); !slices.Equal(got, want) {
		t.Fatalf("roots %v, want %v", got, want)
	}
	if got := e.roots[0].Added; !slices.Equal(got, added) {
		t.Errorf("to take back at the end: %v, want %v", got, added)
	}
	if invented {
		e.roots[0].Added = nil
	}
	if got := e.Found(); !slices.Equal(got, []string{"w-w"}) {
		t.Fatalf("found %v, want w-w", got)
	}
	other, err := e.Open(1, "w", dispatch.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if name := other.(*Group).Directory(); name != "w-w-2" {
		t.Errorf("a new group is called %s while w-w is another's", name)
	}
	if _, err := e.Adopt(1, "w-w", dispatch.Limits{}); err == nil {
		t.Error("a slot was given twice")
	}
	if g := adopted(t, e, 0, "w-w", dispatch.Limits{Pids: 70}); g.Directory() != "w-w" || g.held != heldByCall || !alive(said.Workload) {
		t.Fatalf("%s held by %b, alive %v", g.Directory(), g.held, alive(said.Workload))
	}
	if _, err := e.Adopt(2, "w-w", dispatch.Limits{}); !errors.Is(err, fs.ErrNotExist) || len(e.Found()) > 0 {
		t.Errorf("adopted twice: %v; found %v", err, e.Found())
	}
	governAdopted(t, e, said.Workload)
}

// governAdopted treats the adopted group of slot 0 as an epoch does.
func governAdopted(t *testing.T, e *Enforcer, workload int) {
	t.Helper()
	g := e.groups[0]
	if b, err := os.ReadFile(g.pids.file("pids.max")); err != nil || strings.TrimSpace(string(b)) != "70" {
		t.Errorf("pids.max %s, %v", b, err)
	}
	if id, err := host.CgroupID(g.roster()); g.unified != "" && (err != nil || g.Ref().ID != id) {
		t.Errorf("ref %+v", g.Ref())
	}
	// Whatever the kernel has by chance, the first epoch writes.
	if err := e.Apply(testEpoch, []dispatch.Share{{Slot: 0, Class: uint8(market.Served), Granted: 1e6}}); err != nil {
		t.Fatal(err)
	}
	if weight, err := readNumber(g.weight.Path(), ""); err != nil || weight != g.written || weight == 0 {
		t.Errorf("weight %d, written %d, %v", weight, g.written, err)
	}
	if !frozen(t, g) {
		t.Error("an epoch thawed what was frozen before it")
	}
	before := used(t, g)
	if err := g.Thaw(); err != nil {
		t.Fatal(err)
	}
	if !until(20*time.Second, func() bool { return used(t, g) > before+20e6 }) {
		t.Error("the workload does not run again")
	}
	end(t, g)
	if !until(20*time.Second, func() bool { return !alive(workload) }) {
		t.Error("the workload lives on")
	}
}

func TestADaemonAdoptsOnlyADaemons(t *testing.T) {
	said, kill := owner(t, ModeKill, false)
	kill()
	e := heir(t)
	if slices.Contains(dirsOf(e.Roots()), said.Roots[0].Dir) || len(e.Found()) > 0 {
		t.Errorf("roots %v, found %v of a market that was to die", e.Roots(), e.Found())
	}
	repairOnly(t, said.Roots)
	if _, err := Open(Config{Name: testName(), Adopt: true}, realRoots(t)); err == nil {
		t.Error("a market that dies with its node adopted")
	}
}

// A group that has lost a directory.
func TestAdoptMakesWhatIsMissing(t *testing.T) { everyLayout(t, adoptMakesWhatIsMissing) }

func adoptMakesWhatIsMissing(t *testing.T) {
	said, kill := owner(t, ModeThaw, false)
	kill()
	identity := filepath.Join(said.Roots[0].Dir, "w-half")
	if err := os.Mkdir(identity, 0o755); err != nil {
		t.Fatal(err)
	}
	last := said.Roots[len(said.Roots)-1].Dir
	if err := os.Mkdir(filepath.Join(last, "w-shell"), 0o755); err != nil {
		t.Fatal(err)
	}
	place := dispatch.Placement{Cgroup: identity}
	if !said.Roots[0].V2 {
		place = dispatch.Placement{Tasks: []string{filepath.Join(identity, "tasks")}}
	}
	p, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}}, place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL) })
	e := heir(t)
	if got := e.Found(); !slices.Equal(got, []string{"w-half", "w-shell", "w-w"}) && len(said.Roots) > 1 {
		t.Fatalf("found %v", got)
	}
	g := adopted(t, e, 0, "w-half", dispatch.Limits{})
	if g.held != 0 {
		t.Errorf("held by %b, want nobody", g.held)
	}
	for _, dir := range g.dirs {
		pids, err := members(dir)
		if err != nil || !slices.Equal(pids, []int{p.Pid}) {
			t.Errorf("%s holds %v, %v, want %d", dir, pids, err, p.Pid)
		}
	}
	if len(said.Roots) > 1 {
		if _, err := e.Adopt(1, "w-shell", dispatch.Limits{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("adopt without identity: %v", err)
		}
		if _, err := os.Stat(filepath.Join(said.Roots[0].Dir, "w-shell")); err == nil {
			t.Error("an identity was made for it")
		}
	}
	for _, name := range e.Found() {
		if err := e.Discard(name); err != nil {
			t.Error(err)
		}
	}
	if alive(said.Workload) && !until(20*time.Second, func() bool { return !alive(said.Workload) }) {
		t.Error("a discarded workload lives on")
	}
	for _, r := range e.Roots() {
		if names, err := groupsIn(r.Dir); err != nil || !slices.Equal(names, []string{"w-half"}) {
			t.Errorf("%s holds %v, %v", r.Dir, names, err)
		}
	}
	if err := e.Discard("w-w"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("discarded twice: %v", err)
	}
	end(t, g, p)
}

// An Enforcer that fails after it adopted must not end what it found.
func TestAFailedAdoptionEndsNobody(t *testing.T) {
	said, kill := owner(t, ModeThaw, false)
	kill()
	if err := heir(t).giveUp(); err != nil {
		t.Error(err)
	}
	if !alive(said.Workload) {
		t.Error("the workload is dead")
	}
	if e := heir(t); !slices.Equal(e.Found(), []string{"w-w"}) {
		t.Errorf("found %v", e.Found())
	}
}

func TestSettleStopsTheCounters(t *testing.T) {
	for _, hide := range []bool{false, true} {
		t.Run("without v2 "+strconv.FormatBool(hide), func(t *testing.T) {
			e := machineAs(t, Config{hideV2: hide})
			g, other := group(t, e, 0, dispatch.Limits{}), group(t, e, 1, dispatch.Limits{})
			p, q := process(t, g, "sh", "-c", "(while :; do :; done) & while :; do :; done"), process(t, other, hog...)
			if !until(20*time.Second, func() bool { return used(t, g) > 20e6 }) {
				t.Fatal("the tree does not run")
			}
			if err := g.Settle(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			before, reference := used(t, g), used(t, other)
			if !until(20*time.Second, func() bool { return used(t, other) > reference+100e6 }) {
				t.Fatal("the other does not run")
			}
			if after := used(t, g); after != before {
				t.Errorf("a settled tree used %d ns", after-before)
			}
			if err := g.Settle(20 * time.Second); err != nil {
				t.Errorf("settled twice: %v", err)
			}
			if err := g.Thaw(); err != nil {
				t.Fatal(err)
			}
			if !until(20*time.Second, func() bool { return used(t, g) > before+20e6 }) {
				t.Error("thawed it does not run")
			}
			end(t, g, p)
			end(t, other, q)
		})
	}
}

func TestLeaveLeavesTheWorkloads(t *testing.T) {
	cfg := Config{Name: testName() + "-left", Mode: ModeThaw, Adopt: true}
	e, err := Open(cfg, realRoots(t))
	if err != nil {
		t.Fatal(err)
	}
	roots := e.Roots()
	g := group(t, e, 0, dispatch.Limits{})
	p := process(t, g, hog...)
	if err := e.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := e.Leave(); !errors.Is(err, dispatch.ErrClosed) {
		t.Errorf("left twice: %v", err)
	}
	_, populated := g.Populated()
	_, counters := g.Counters()
	_, peak := g.PeakMemory()
	for name, err := range map[string]error{
		"freeze": g.Freeze(), "thaw": g.Thaw(), "lane": g.Lane(true), "signal": g.Signal(syscall.SIGTERM), "kill": g.Kill(),
		"settle": g.Settle(time.Second), "remove": g.Remove(), "populated": populated, "counters": counters, "peak": peak,
		"apply": e.Apply(testEpoch, nil), "close": e.Close(),
	} {
		if !errors.Is(err, dispatch.ErrClosed) {
			t.Errorf("%s of a group that was left: %v, want closed", name, err)
		}
	}
	if stateOf(t, p.Pid) != 'R' {
		t.Errorf("the workload is in state %c", stateOf(t, p.Pid))
	}
	e = machineAs(t, cfg)
	if got := dirsOf(e.Roots()); !slices.Equal(got, dirsOf(roots)) {
		t.Errorf("roots %v, want %v", got, roots)
	}
	end(t, adopted(t, e, 0, g.Directory(), dispatch.Limits{}), p)
	if err := e.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		if _, err := os.Stat(r.Dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has no workload and is left", r.Dir)
		}
	}
}
