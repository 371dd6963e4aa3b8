package cgroup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// report is what a played owner says about itself before it waits to be
// killed.
type report struct {
	Roots    []Root
	Workload int
	Watchdog int
	Skip     string
	Kept     map[string]kept // of a daemon with a watchdog, by directory
}

// kept is one of the groups of a daemon that has a watchdog.
type kept struct {
	Pid   int
	Until unit.Instant // -1: not held
}

// playOwner is a node that makes a market with a frozen workload in it and
// hangs. Its own output is the report.
func playOwner() {
	said, leave, err := own()
	if err != nil {
		said.Skip = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		os.Exit(1)
	}
	// Until it is killed, or the test is gone.
	if line, err := bufio.NewReader(os.Stdin).ReadString('\n'); err == nil && line == "leave\n" {
		if err := leave(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func own() (said report, leave func() error, err error) {
	roots, err := host.Open()
	if err != nil {
		return said, nil, err
	}
	e, err := Open(config(Config{Name: os.Getenv("MAXWELL_TEST_NAME"), Mode: os.Getenv("MAXWELL_TEST_MODE")}), roots)
	if err != nil {
		return said, nil, err
	}
	g, err := e.Open(0, "w", dispatch.Limits{})
	if err != nil {
		return said, nil, err
	}
	pid, err := shell(g, "setsid sh -c 'while :; do sleep 0.05; done' & while :; do :; done")
	if err != nil {
		return said, nil, err
	}
	said.Roots, said.Workload = e.Roots(), pid
	if os.Getenv("MAXWELL_TEST_GUARD") == "" {
		return said, nil, g.Freeze()
	}
	if err := os.Setenv(roleVariable, "watchdog"); err != nil {
		return said, nil, err
	}
	w, err := e.Guard([]string{"/proc/self/exe"}, roots)
	if err != nil {
		return said, nil, err
	}
	said.Watchdog = w.Pid()
	if os.Getenv("MAXWELL_TEST_MODE") == ModeThaw {
		if said.Kept, err = hold3(e, w); err != nil {
			return said, nil, err
		}
	}
	if dir := os.Getenv("MAXWELL_TEST_GUEST"); dir != "" {
		guest, err := e.Attach(9, dir, false)
		if err != nil {
			return said, nil, err
		}
		if err := guest.Freeze(); err != nil {
			return said, nil, err
		}
	}
	leave = func() error { return errors.Join(e.Leave(), w.Handover()) }
	return said, leave, g.Freeze()
}

// shell starts a shell in a group, without a terminal.
func shell(g dispatch.Group, script string) (int, error) {
	none, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer none.Close()
	p, err := launch.Start(launch.Spec{Args: []string{"sh", "-c", script}, Files: [3]*os.File{none, none, none}}, g.Placement())
	if err != nil {
		return 0, err
	}
	return p.Pid, nil
}

// graceOfTest is later than the daemon's watchdog begins to act.
const graceOfTest = 3500 * time.Millisecond

// hold3 makes a paused group, a broke one, and one that was broke and has
// money again; all are stopped.
func hold3(e *Enforcer, w *Watchdog) (map[string]kept, error) {
	said := map[string]kept{}
	for i, name := range []string{"paused", "broke", "funded"} {
		g, err := e.Open(i+1, name, dispatch.Limits{Cores: 500})
		if err != nil {
			return nil, err
		}
		mark := os.Getenv("MAXWELL_TEST_DIR") + "/" + name
		k := kept{Until: 0}
		if k.Pid, err = shell(g, "trap 'echo >"+mark+".term; exit' TERM; echo >"+mark+".ready; while :; do :; done"); err != nil {
			return nil, err
		}
		if name != "paused" {
			k.Until = host.Clock{}.Now().Add(graceOfTest)
		}
		if !until(10*time.Second, func() bool { _, err := os.Stat(mark + ".ready"); return err == nil }) {
			return nil, errors.New(name + " does not start")
		}
		directory := g.(*Group).Directory()
		if err := errors.Join(g.Freeze(), w.Hold(directory, k.Until)); err != nil {
			return nil, err
		}
		if name == "funded" {
			if err := w.Free(directory); err != nil {
				return nil, err
			}
			k.Until = -1
		}
		said[directory] = k
	}
	return said, nil
}

// owner starts a played owner and returns its report; kill ends it as a crash
// would.
func owner(t *testing.T, mode string, guard bool) (said report, kill func()) {
	t.Helper()
	said, kill, _ = ownerIn(t, mode, guard, "")
	return said, kill
}

// ownerIn gives the owner a directory for its workloads' files; leave lets it
// go in peace and hand its workloads over.
func ownerIn(t *testing.T, mode string, guard bool, dir string) (said report, kill, leave func()) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), roleVariable+"=owner", "MAXWELL_TEST_NAME="+testName()+"-owner", "MAXWELL_TEST_MODE="+mode, "MAXWELL_TEST_DIR="+dir)
	if guard {
		c.Env = append(c.Env, "MAXWELL_TEST_GUARD=1")
	}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	dead := false
	kill = func() {
		if dead {
			return
		}
		dead = true
		_ = c.Process.Kill()
		_ = c.Wait()
		_ = in.Close()
	}
	t.Cleanup(kill)
	leave = func() {
		t.Helper()
		if _, err := io.WriteString(in, "leave\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		dead = true
		_ = in.Close()
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill()
		for _, r := range said.Roots { // of a test that failed
			if lock, err := host.LockDir(r.Dir); err == nil {
				_, _, _ = salvage(r, ModeKill)
				_ = lock.Close()
			}
		}
	})
	if said.Skip != "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, said.Skip)
	}
	return said, kill, leave
}

func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func realRoots(t *testing.T) host.Roots {
	t.Helper()
	roots, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = roots.Close() })
	return roots
}

// outcomes keeps the actions on one market's directories; markets of other
// programs on this machine are none of a test's business.
func outcomes(list []Action, roots []Root) []Outcome {
	var found []Outcome
	for _, r := range roots {
		i := slices.IndexFunc(list, func(a Action) bool { return a.Dir == r.Dir })
		if i >= 0 {
			found = append(found, list[i].Outcome)
		}
	}
	return found
}

// repairOnly repairs the directories of one market, as Repair does for all:
// on a shared machine a test must not clean up after others.
func repairOnly(t *testing.T, roots []Root) []Action {
	t.Helper()
	machine := realRoots(t)
	layout, err := host.Discover(machine)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := host.BootID(machine)
	if err != nil {
		t.Fatal(err)
	}
	var list []Action
	for _, r := range search(layout) {
		if slices.ContainsFunc(roots, func(o Root) bool { return o.Dir == r.Dir }) {
			list = append(list, repair(r, boot, os.Geteuid()))
		}
	}
	return list
}

func TestRepairTouchesOnlyTheDead(t *testing.T) { everyLayout(t, repairTouchesOnlyTheDead) }

func repairTouchesOnlyTheDead(t *testing.T) {
	said, kill := owner(t, ModeKill, false)
	// Alive: its lock is held.
	for _, o := range outcomes(repairOnly(t, said.Roots), said.Roots) {
		if o != Alive {
			t.Errorf("a living market: %v, want %v", o, Alive)
		}
	}
	// A neighbour without a mark, and one with the mark of another boot.
	plain := filepath.Join(filepath.Dir(said.Roots[0].Dir), testName()+"-plain")
	stale := filepath.Join(filepath.Dir(said.Roots[0].Dir), testName()+"-stale")
	for _, dir := range []string{plain, stale} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Rmdir(dir) })
	}
	if err := host.SetMark(stale, host.Mark{Boot: "another", UID: os.Geteuid(), Mode: ModeKill}); err != nil {
		t.Fatal(err)
	}
	kill()
	if !alive(said.Workload) {
		t.Fatal("the workload died with its owner; nothing to repair")
	}
	both := append(slices.Clone(said.Roots), Root{Dir: plain, V2: said.Roots[0].V2}, Root{Dir: stale, V2: said.Roots[0].V2})
	list := repairOnly(t, both)
	for _, a := range list {
		t.Log(a)
	}
	for _, o := range outcomes(list, said.Roots) {
		if o != Removed {
			t.Errorf("a dead market: %v, want %v", o, Removed)
		}
	}
	if got := outcomes(list, []Root{{Dir: stale}}); len(got) != 1 || got[0] != Foreign {
		t.Errorf("another boot's market: %v, want %v", got, Foreign)
	}
	if got := outcomes(list, []Root{{Dir: plain}}); len(got) != 0 {
		t.Errorf("an unmarked directory was looked at: %v", got)
	}
	for _, r := range said.Roots {
		if _, err := os.Stat(r.Dir); !os.IsNotExist(err) {
			t.Errorf("%s is left", r.Dir)
		}
	}
	for _, dir := range []string{plain, stale} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("%s was touched: %v", dir, err)
		}
	}
	if !until(20*time.Second, func() bool { return !alive(said.Workload) }) {
		t.Error("the workload lives on")
	}
}

func TestRepairThawsTheWorkloadsOfADaemon(t *testing.T) { everyLayout(t, repairThaws) }

func repairThaws(t *testing.T) {
	said, kill := owner(t, ModeThaw, false)
	kill()
	list := repairOnly(t, said.Roots)
	if got := outcomes(list, said.Roots); !slices.Contains(got, Thawed) {
		t.Errorf("outcomes %v, want %v", got, Thawed)
	}
	if !until(20*time.Second, func() bool { return alive(said.Workload) && stateOf(t, said.Workload) == 'R' }) {
		t.Error("the workload does not run again")
	}
	for _, r := range said.Roots {
		if _, _, err := salvage(r, ModeKill); err != nil {
			t.Error(err)
		}
	}
}

func TestWatchdogEndsWhatADeadNodeLeft(t *testing.T) { everyLayout(t, watchdogEnds) }

func watchdogEnds(t *testing.T) {
	said, kill := owner(t, ModeKill, true)
	if err := syscall.Kill(said.Watchdog, syscall.SIGINT); err != nil {
		t.Fatal(err) // ignored: ^C is for the node
	}
	if sid, err := sessionOf(said.Watchdog); err != nil || sid != said.Watchdog {
		t.Errorf("the watchdog's session is %d (%v), want its own", sid, err)
	}
	kill()
	gone := func() bool {
		return !alive(said.Workload) && !slices.ContainsFunc(said.Roots, func(r Root) bool {
			_, err := os.Stat(r.Dir)
			return err == nil
		})
	}
	if !until(20*time.Second, gone) {
		t.Errorf("workload alive %v; left: %v", alive(said.Workload), said.Roots)
	}
	if !until(20*time.Second, func() bool { return !alive(said.Watchdog) }) {
		t.Error("the watchdog stays")
	}
}

func TestWatchdogGoesInPeace(t *testing.T) {
	e := machine(t, 0)
	t.Setenv(roleVariable, "watchdog")
	w, err := e.Guard([]string{"/proc/self/exe"}, realRoots(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Farewell(); err != nil {
		t.Error(err)
	}
	for _, r := range e.Roots() {
		if _, err := os.Stat(r.Dir); err != nil {
			t.Errorf("the watchdog removed %s of a living node", r.Dir)
		}
	}
}

// talk is a node that says its text whatever it hears.
type talk struct{ io.Reader }

func (talk) Write(b []byte) (int, error) { return len(b), nil }

func TestWatchdogRefusesBadOrders(t *testing.T) {
	for _, text := range []string{"", "{", "not json\n"} {
		if _, err := watch(talk{strings.NewReader(text)}); err == nil {
			t.Errorf("orders %q were taken", text)
		}
	}
	if list, err := watch(talk{strings.NewReader("{}\nfarewell\n")}); err != nil || list != nil {
		t.Errorf("farewell: %v, %v", list, err)
	}
}

func sessionOf(pid int) (int, error) {
	b, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+2:])
	var sid int
	_, err = fmt.Sscan(fields[3], &sid)
	return sid, err
}
