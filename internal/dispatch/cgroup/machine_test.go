package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// The tests with real processes use whatever layout the machine has: v1
// controllers beside a cgroup2 mount, or cgroup2 alone.

// roleVariable makes the test binary play a part instead of testing.
const roleVariable = "MAXWELL_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "watchdog":
		_, err := Watch(WatchdogFD)
		if err != nil {
			fmt.Fprintln(os.Stderr, "watchdog:", err)
			os.Exit(1)
		}
	case "owner":
		playOwner()
	case "delegate":
		playDelegate()
	case "leaderless":
		playLeaderless()
	}
}

// hideVariable hides cgroup2 from the markets of a test, as on a machine that has only
// cgroup v1.
const hideVariable = "MAXWELL_TEST_WITHOUT_V2"

// config is what a test's market is opened with.
func config(cfg Config) Config {
	cfg.hideV2 = cfg.hideV2 || os.Getenv(hideVariable) != ""
	return cfg
}

// everyLayout runs a test as the machine is, and where it has v1 hierarchies once
// more without cgroup2: there the v1 freezer is the identity.
func everyLayout(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("as it is", test)
	roots := realRoots(t)
	layout, err := host.Discover(roots)
	if err != nil {
		t.Fatal(err)
	}
	layout.V2, layout.Offered = host.Hierarchy{}, nil
	if _, err := lay(layout, observe(roots)); err != nil {
		t.Log("not without v2:", err)
		return
	}
	t.Run("without v2", func(t *testing.T) {
		t.Setenv(hideVariable, "1")
		test(t)
	})
}

// machine opens a market on the machine, or skips.
func machine(t testing.TB, cores unit.MilliCores) *Enforcer {
	t.Helper()
	return machineAs(t, Config{Cores: cores})
}

func machineAs(t testing.TB, cfg Config) *Enforcer {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = testName()
	}
	roots, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = roots.Close() })
	e, err := Open(config(cfg), roots)
	if u, ok := errors.AsType[*host.Unavailable](err); ok {
		hosttest.Skip(t, u.Feature, u.Reason)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, dispatch.ErrClosed) {
			t.Errorf("close: %v", err)
		}
		for _, r := range e.Roots() {
			if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left behind: %v", r.Dir, err)
			}
		}
	})
	return e
}

func testName() string { return fmt.Sprintf("maxwell-test-%d", os.Getpid()) }

func group(t testing.TB, e *Enforcer, slot int, l dispatch.Limits) *Group {
	t.Helper()
	g, err := e.Open(slot, fmt.Sprintf("w%d", slot), l)
	if err != nil {
		t.Fatal(err)
	}
	return g.(*Group)
}

// process starts a command in a group and reaps it at the end of the test.
func process(t testing.TB, g *Group, args ...string) *launch.Process {
	t.Helper()
	p, err := launch.Start(launch.Spec{Args: args}, g.Placement())
	if err != nil {
		t.Fatal(err)
	}
	if p.Stray != nil {
		t.Errorf("the forking thread did not come home: %v", p.Stray)
	}
	t.Cleanup(func() { _ = p.Signal(syscall.SIGKILL) })
	return p
}

// finish waits for the end of a process.
func finish(t testing.TB, p *launch.Process) launch.Status {
	t.Helper()
	for {
		s, err := p.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if s.Ended() {
			return s
		}
	}
}

// hog is one busy thread.
var hog = []string{"sh", "-c", "while :; do :; done"}

// end kills a group, waits for it and takes it away.
func end(t testing.TB, g *Group, started ...*launch.Process) {
	t.Helper()
	if err := g.Kill(); err != nil {
		t.Error(err)
	}
	if err := g.Await(5 * time.Second); err != nil {
		t.Error(err)
	}
	for _, p := range started {
		finish(t, p)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	for _, dir := range g.dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left behind", dir)
		}
	}
}

func used(t testing.TB, g *Group) unit.CoreTime {
	t.Helper()
	c, err := g.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.CPU
}

// bidder is one group of a driven market.
type bidder struct {
	group   *Group
	class   market.Class
	tier    uint8
	granted float64 // of a core
	threads float64 // runnable threads while it runs; its demand
	demand  func(elapsed time.Duration, used unit.CoreTime) unit.CoreTime
	last    unit.CoreTime
	total   unit.CoreTime
}

// drive runs epochs of 50 ms until enough core time was delivered, and returns
// how much. Used is what the kernel counted. On a machine that is too busy to
// deliver it there is no verdict.
func drive(t testing.TB, e *Enforcer, enough unit.CoreTime, bidders []*bidder) unit.CoreTime {
	t.Helper()
	const epoch = 50 * time.Millisecond
	for _, b := range bidders {
		b.last, b.total = used(t, b.group), 0
	}
	shares := make([]dispatch.Share, len(bidders))
	for i, b := range bidders {
		shares[i] = dispatch.Share{Slot: b.group.slot, Class: uint8(b.class), Tier: b.tier, Granted: unit.CoreTime(b.granted * float64(epoch))}
	}
	if err := e.Apply(epoch, shares); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(epoch)
	defer tick.Stop()
	start := time.Now()
	last := start
	for now := range tick.C {
		elapsed := now.Sub(last)
		last = now
		for i, b := range bidders {
			at := used(t, b.group)
			shares[i].Used = at - b.last
			shares[i].Demand = unit.CoreTime(b.threads * float64(elapsed))
			if b.demand != nil {
				shares[i].Demand = b.demand(elapsed, shares[i].Used)
			}
			b.total += shares[i].Used
			b.last = at
		}
		if err := e.Apply(elapsed, shares); err != nil {
			t.Fatal(err)
		}
		var sum unit.CoreTime
		for _, b := range bidders {
			sum += b.total
		}
		if sum >= enough {
			return sum
		}
		if now.Sub(start) > 20*time.Second {
			hosttest.Skip(t, "quiet-processors", fmt.Sprintf(
				"the machine is too busy: it delivered %.2f core-s of %.2f in 20 s", float64(sum)/1e9, float64(enough)/1e9))
		}
	}
	return 0 // not reached: the ticker does not end
}

// long reports whether the long mode was asked for.
func long() bool { return os.Getenv("MAXWELL_LONG") == "1" }

// shareTime is how much core time of one processor shares are judged by, and
// the error in points allowed: what DESIGN promises over 4 s, and a loose form
// that is enough to see that weights work at all.
func shareTime() (unit.CoreTime, float64) {
	if long() {
		return 4e9, 3
	}
	return 13e8, 8
}

// stateOf is the kernel's letter for what a process does.
func stateOf(t testing.TB, pid int) byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	rest := string(b)[strings.LastIndexByte(string(b), ')')+2:]
	return rest[0]
}

// onlineCPUs of the machine.
func onlineCPUs() int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return 1
	}
	return set.Count()
}
