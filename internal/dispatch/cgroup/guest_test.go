package cgroup

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
)

// stranger makes a group that is not Maxwell's, beside the market, with a
// process in it.
func stranger(t *testing.T, e *Enforcer, args ...string) (dir string, p *launch.Process) {
	t.Helper()
	if e.mount == "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount")
	}
	dir = filepath.Join(e.plan.places[0].parent, "guest-"+testName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = killTree(dir, true)
		if err := removeTree(dir, sweepPatience); err != nil {
			t.Error(err)
		}
	})
	p, err := launch.Start(launch.Spec{Args: args}, dispatch.Placement{Cgroup: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL); _, _ = p.Wait() })
	return dir, p
}

func attached(t *testing.T, e *Enforcer, slot int, dir string, observe bool) *Group {
	t.Helper()
	g, err := e.Attach(slot, dir, observe)
	if err != nil {
		t.Fatal(err)
	}
	return g.(*Group)
}

// contents are the files of a directory that somebody could write, and its
// extended attributes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, entry := range list {
		info, err := entry.Info()
		if err != nil || info.Mode()&0o222 == 0 || strings.HasSuffix(entry.Name(), ".pressure") || strings.HasSuffix(entry.Name(), ".peak") {
			continue // these the kernel writes
		}
		if b, err := os.ReadFile(filepath.Join(dir, entry.Name())); err == nil {
			all[entry.Name()] = string(b)
		}
	}
	var names [1024]byte
	n, err := unix.Llistxattr(dir, names[:])
	if err != nil {
		t.Fatal(err)
	}
	all["attributes"] = string(names[:n])
	return all
}

// everything asks all that can be asked of a group but its removal.
func everything(t *testing.T, e *Enforcer, g *Group) {
	t.Helper()
	for _, class := range []market.Class{market.Frozen, market.Served, market.Loser} {
		share := dispatch.Share{Slot: g.slot, Class: uint8(class), Tier: 3, Granted: 1e6, Used: 1e6, Demand: 2e6}
		if err := e.Apply(testEpoch, []dispatch.Share{share}); err != nil {
			t.Error(err)
		}
	}
	for name, err := range map[string]error{
		"freeze": g.Freeze(), "lane": g.Lane(true), "signal": g.Signal(syscall.SIGTERM), "kill": g.Kill(), "thaw": g.Thaw(), "close lane": g.Lane(false),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := g.Settle(time.Second); !errors.Is(err, dispatch.ErrRunning) {
		t.Errorf("settle: %v", err)
	}
}

func TestAnObservedGuestIsNeverWritten(t *testing.T) {
	e := machine(t, 0)
	dir, p := stranger(t, e, "sleep", "60")
	before := contents(t, dir)
	// The kernel says who opens a file to write it.
	notes, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(notes)
	if _, err := unix.InotifyAddWatch(notes, dir, unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	g := attached(t, e, 0, dir, true)
	everything(t, e, g)
	// A process that was sent SIGTERM would not stop any more.
	if err := p.Signal(syscall.SIGSTOP); err != nil || !until(10*time.Second, func() bool { return stateOf(t, p.Pid) == 'T' }) {
		t.Errorf("an observed process was ended: state %c, %v", stateOf(t, p.Pid), err)
	}
	id, err := host.CgroupID(dir)
	if ref := g.Ref(); err != nil || ref.ID != id || ref.Dir != dir || g.Directory() != dir {
		t.Errorf("ref %+v", ref)
	}
	populated, err := g.Populated()
	if err != nil || !populated {
		t.Errorf("populated %v, %v", populated, err)
	}
	if c, err := g.Counters(); err != nil || c.CPU == 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
	if _, err := e.Attach(1, dir, true); !refusedAs(err, Taken) {
		t.Errorf("attached twice: %v", err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := g.Remove(); !errors.Is(err, dispatch.ErrClosed) {
		t.Errorf("removed twice: %v", err)
	}
	_ = attached(t, e, 0, dir, true)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	var buf [4096]byte
	if n, err := unix.Read(notes, buf[:]); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("written: %q", buf[:max(n, 0)])
	}
	for name, was := range contents(t, dir) {
		if before[name] != was {
			t.Errorf("%s was %q and is %q", name, before[name], was)
		}
	}
}

func refusedAs(err error, why Refusal) bool {
	g, ok := errors.AsType[*GuestError](err)
	return ok && g.Why == why
}

func TestAGovernedGuestIsGivenBack(t *testing.T) {
	for _, way := range []string{"remove", "close", "leave"} {
		t.Run(way, func(t *testing.T) {
			e := machine(t, 0)
			dir, p := stranger(t, e, hog...)
			before := contents(t, dir)
			g := attached(t, e, 0, dir, false)
			if o, is := remembered(dir); !is || o != g.found {
				t.Errorf("remembered %v, %v", o, is)
			}
			if err := g.Settle(20 * time.Second); err != nil {
				t.Fatal(err)
			}
			if err := e.Apply(testEpoch, []dispatch.Share{{Slot: 0, Class: uint8(market.Loser), Tier: 2}}); err != nil {
				t.Fatal(err)
			}
			switch way {
			case "remove":
				if err := g.Remove(); err != nil {
					t.Error(err)
				}
			case "close":
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			case "leave":
				if err := e.Leave(); err != nil {
					t.Error(err)
				}
			}
			after := contents(t, dir)
			for _, name := range []string{"cgroup.freeze", "cpu.weight", "cpu.idle", "cpu.max", "attributes"} {
				if before[name] != after[name] {
					t.Errorf("%s was %q and is %q", name, before[name], after[name])
				}
			}
			if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'R' }) {
				t.Error("the guest does not run again")
			}
		})
	}
}

func TestAGovernedGuestObeys(t *testing.T) {
	e := machine(t, 0)
	dir, p := stranger(t, e, hog...)
	g := attached(t, e, 0, dir, false)
	if err := g.Freeze(); err != nil || !until(20*time.Second, func() bool { return frozen(t, g) }) {
		t.Fatalf("not frozen: %v", err)
	}
	if err := errors.Join(g.Lane(true), g.Thaw(), g.Signal(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
	finish(t, p)
	q, err := launch.Start(launch.Spec{Args: hog}, dispatch.Placement{Cgroup: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.Freeze(), g.Kill()); err != nil {
		t.Error(err)
	}
	if s := finish(t, q); s.Signal != syscall.SIGKILL {
		t.Errorf("ended %+v, want by SIGKILL", s)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

// A container that its owner paused stays so.
func TestAGuestFoundStoppedStaysStopped(t *testing.T) {
	e := machine(t, 0)
	dir, _ := stranger(t, e, "sleep", "60")
	if err := stop(dir, true); err != nil {
		t.Fatal(err)
	}
	g := attached(t, e, 0, dir, false)
	if err := errors.Join(g.Freeze(), g.Thaw(), g.Remove()); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze")); err != nil || b[0] != '1' {
		t.Errorf("cgroup.freeze %s, %v", b, err)
	}
}

func TestNobodyIsMadeAGuestWhoMustNot(t *testing.T) {
	e := machine(t, 0)
	if e.mount == "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount")
	}
	parent := e.plan.places[0].parent
	mine := group(t, e, 0, dispatch.Limits{})
	create := func(name string) string {
		dir := filepath.Join(parent, testName()+name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	start := func(dir string) int {
		p, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}}, dispatch.Placement{Cgroup: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL); finish(t, p) })
		return p.Pid
	}
	t.Cleanup(func() {
		for _, name := range []string{"-init", "-dog", "-around", "-free", "-self"} {
			dir := filepath.Join(parent, testName()+name)
			_ = killTree(dir, true)
			if err := removeTree(dir, sweepPatience); err != nil {
				t.Error(err)
			}
		}
	})
	scope, dogs, around, free := create("-init/init.scope"), create("-dog"), create("-around"), create("-free")
	inner := filepath.Join(around, "maxwell-inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := host.SetMark(inner, host.Mark{Boot: "another", Mode: ModeKill, UID: os.Geteuid()}); err != nil {
		t.Fatal(err)
	}
	e.dogs = append(e.dogs, start(dogs))
	for _, test := range []struct {
		dir string
		why Refusal
	}{
		{e.mount, WholeTree},
		{"/proc", NotCgroup2},
		{free + "/", NotCgroup2},
		{free + "/../" + filepath.Base(free), NotCgroup2},
		{free + "-missing", NotCgroup2},
		{free[1:], NotCgroup2},
		{e.roots[0].Dir, HoldsMarket},
		{mine.unified, HoldsMarket},
		{around, HoldsMarket},
		{scope, HoldsInit},
		{dogs, HoldsNode},
	} {
		for _, observe := range []bool{true, false} {
			if _, err := e.Attach(1, test.dir, observe); !refusedAs(err, test.why) {
				t.Errorf("%s, observe %v: %v, want %s", test.dir, observe, err, test.why)
			}
		}
	}
	// Its own group, for a moment.
	self := create("-self")
	move := func(dir string) {
		if err := host.WriteOnce(filepath.Join(dir, "cgroup.procs"), "0"); err != nil {
			t.Fatal(err)
		}
	}
	move(self)
	_, err := e.Attach(1, self, true)
	move(e.home[0])
	if !refusedAs(err, HoldsNode) {
		t.Errorf("its own group: %v", err)
	}
	e.dogs = nil
	if g := attached(t, e, 1, dogs, true); g.Remove() != nil {
		t.Error("not removed")
	}
	end(t, mine)
}

// What was found survives the daemon: its watchdog gives it back, or the next
// daemon goes on with it.
func TestAGuestOfADeadMarketIsGivenBack(t *testing.T) {
	e := machine(t, 0)
	dir, p := stranger(t, e, hog...)
	before := contents(t, dir)
	g := attached(t, e, 0, dir, false)
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	isOurs := func(string, string) bool { return true }
	o := orders{Roots: e.Roots(), Boot: e.boot, UID: e.self.uid, Mount: e.mount}
	if hostIsDead("", g.found.root) {
		t.Error("its host is taken for dead")
	}
	for _, list := range [][]Action{
		restoreGuests(e.mount, "another", e.self.uid, isOurs),
		orders{Roots: []Root{{Dir: "/other"}}, Boot: e.boot, UID: e.self.uid, Mount: e.mount}.restore(),
		e.RestoreGuests(),
	} {
		if slices.ContainsFunc(list, func(a Action) bool { return a.Dir == dir }) {
			t.Errorf("restored by a stranger: %v", list)
		}
	}
	// The next daemon finds it stopped, and knows that it was not.
	next := machine(t, 0)
	if _, err := next.Attach(0, dir, false); !refusedAs(err, Taken) {
		t.Errorf("two markets govern it: %v", err)
	}
	e.mu.Lock()
	delete(e.names, dir) // as in a daemon that has not attached it yet
	e.groups[0] = nil
	e.mu.Unlock()
	again := attached(t, e, 0, dir, false)
	if again.found != g.found || again.held != heldByCall {
		t.Errorf("found %v held by %b, want %v", again.found, again.held, g.found)
	}
	if list := o.restore(); len(list) != 1 || list[0].Dir != dir || list[0].Err != nil {
		t.Errorf("restored %v", list)
	}
	after := contents(t, dir)
	for _, name := range []string{"cgroup.freeze", "cpu.weight", "cpu.idle", "attributes"} {
		if before[name] != after[name] {
			t.Errorf("%s was %q and is %q", name, before[name], after[name])
		}
	}
	if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'R' }) {
		t.Error("the guest does not run again")
	}
}

func TestWatchdogGivesGuestsBack(t *testing.T) {
	for _, mode := range []string{ModeKill, ModeThaw} {
		t.Run(mode, func(t *testing.T) {
			dir, p := stranger(t, machine(t, 0), hog...)
			before := contents(t, dir)
			t.Setenv("MAXWELL_TEST_GUEST", dir)
			said, kill, _ := ownerIn(t, mode, true, t.TempDir())
			if b, err := os.ReadFile(filepath.Join(dir, "cgroup.freeze")); err != nil || b[0] != '1' {
				t.Errorf("cgroup.freeze %s, %v while its host lives", b, err)
			}
			kill()
			if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'R' }) {
				t.Error("the guest does not run again")
			}
			if !until(20*time.Second, func() bool { return !alive(said.Watchdog) }) {
				t.Error("the watchdog stays")
			}
			after := contents(t, dir)
			for _, name := range []string{"cgroup.freeze", "cpu.weight", "cpu.idle", "cpu.max", "attributes"} {
				if before[name] != after[name] {
					t.Errorf("%s was %q and is %q", name, before[name], after[name])
				}
			}
		})
	}
}

func TestAGuestIsSwitched(t *testing.T) {
	e := machine(t, 0)
	dir, p := stranger(t, e, hog...)
	before := contents(t, dir)
	same := func(when string) {
		t.Helper()
		if after := contents(t, dir); !maps.Equal(before, after) {
			t.Errorf("%s: %v, was %v", when, after, before)
		}
	}
	g := attached(t, e, 0, dir, true)
	for range 2 { // and again: nothing is left of the first time
		if err := errors.Join(g.Govern(true), g.Govern(true), g.Freeze()); err != nil {
			t.Fatal(err)
		}
		if _, is := remembered(dir); !is || !until(20*time.Second, func() bool { return frozen(t, g) }) {
			t.Errorf("not governed: remembered %v", is)
		}
		if err := e.Apply(testEpoch, []dispatch.Share{{Slot: 0, Class: uint8(market.Loser), Tier: 2}}); err != nil {
			t.Error(err)
		}
		if err := errors.Join(g.Govern(false), g.Govern(false)); err != nil {
			t.Fatal(err)
		}
		same("observed again")
		if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'R' }) {
			t.Error("it does not run again")
		}
		everything(t, e, g)
		same("asked to do everything")
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := g.Govern(true); !errors.Is(err, dispatch.ErrClosed) {
		t.Errorf("governed after its end: %v", err)
	}
}

// What a dead daemon did to a guest is given back by the next one, which was told
// only to observe it.
func TestAnObservedGuestOfADeadMarketIsGivenBack(t *testing.T) {
	e := machine(t, 0)
	dir, p := stranger(t, e, hog...)
	before := contents(t, dir)
	g := attached(t, e, 0, dir, false)
	if err := g.Settle(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := machine(t, 0).Attach(0, dir, true); !refusedAs(err, Taken) {
		t.Errorf("observed by another market than governs it: %v", err)
	}
	e.mu.Lock()
	delete(e.names, dir) // as in a daemon that has not attached it yet
	e.groups[0] = nil
	e.mu.Unlock()
	attached(t, e, 0, dir, true)
	if after := contents(t, dir); !maps.Equal(before, after) {
		t.Errorf("%v, was %v", after, before)
	}
	if !until(20*time.Second, func() bool { return stateOf(t, p.Pid) == 'R' }) {
		t.Error("it does not run again")
	}
}

// A group that is made where a guest was is not the guest: nothing is done to it.
func TestAGroupThatTookAGuestsPlaceIsNone(t *testing.T) {
	for name, observe := range map[string]bool{"governed": false, "observed": true} {
		t.Run(name, func(t *testing.T) {
			e := machine(t, 0)
			dir, p := stranger(t, e, "sleep", "60")
			g := attached(t, e, 0, dir, observe)
			if err := p.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			finish(t, p)
			if err := removeTree(dir, sweepPatience); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			q, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}}, dispatch.Placement{Cgroup: dir})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = q.Signal(syscall.SIGKILL); _, _ = q.Wait() })
			before := contents(t, dir)
			if populated, err := g.Populated(); populated || !host.Gone(err) {
				t.Errorf("populated %v, %v", populated, err)
			}
			if _, err := g.Counters(); !errors.Is(err, dispatch.ErrClosed) {
				t.Errorf("counters: %v", err)
			}
			_ = errors.Join(g.Signal(syscall.SIGTERM), g.Kill(), g.Freeze(), g.Govern(!g.isObserved()))
			if err := g.Remove(); err != nil {
				t.Error(err)
			}
			if after := contents(t, dir); !maps.Equal(before, after) {
				t.Errorf("%v, was %v", after, before)
			}
			// A process that was sent SIGTERM would not stop any more.
			if err := q.Signal(syscall.SIGSTOP); err != nil || !until(10*time.Second, func() bool { return stateOf(t, q.Pid) == 'T' }) {
				t.Errorf("a stranger was ended: state %c, %v", stateOf(t, q.Pid), err)
			}
			attached(t, e, 0, dir, true)
		})
	}
}

// A guest is never heavier than it was.
func TestAGuestKeepsItsWeightAtMost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cpu.weight")
	if err := os.WriteFile(path, []byte("0100"), 0o600); err != nil {
		t.Fatal(err)
	}
	knob, err := host.OpenKnob(path)
	if err != nil {
		t.Fatal(err)
	}
	defer knob.Close()
	e := &Enforcer{balance: balance{span: spanV2()}}
	g := &Group{market: e, guest: governed, found: original{weight: 100}, cpu: actuator{dir: dir, v2: true}, weight: knob}
	for _, step := range []struct{ want, have int64 }{{5000, 100}, {40, 40}, {10000, 100}} {
		if err := g.weighLocked(target{weight: step.want}); err != nil || g.written != step.have {
			t.Errorf("weight %d, %v, want %d", g.written, err, step.have)
		}
	}
	g.weight = nil // it has none
	if err := g.weighLocked(target{weight: 5, idle: true}); err != nil || g.idle {
		t.Errorf("idle %v, %v", g.idle, err)
	}
	if err := restore(dir, original{weight: 77}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(b, []byte("77")) {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzOriginal(f *testing.F) {
	for _, o := range []original{
		{boot: "b", uid: 0, weight: 100, root: "/sys/fs/cgroup/maxwell"},
		{boot: "b", uid: 1000, idle: true, frozen: true, root: "/a b"},
	} {
		f.Add(o.String())
	}
	f.Add("maxwell1 b 0 10001 0 0 /a")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseOriginal(text)
		if err == nil && (o.String() != text || o.weight < 0 || o.weight > spanV2().most) {
			t.Errorf("%q reads as %q", text, o)
		}
	})
}
