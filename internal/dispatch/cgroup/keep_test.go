package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// stopped reports what a group of a played owner was last told.
func stopped(t *testing.T, said report, directory string) bool {
	t.Helper()
	for _, r := range said.Roots {
		for _, file := range []string{"cgroup.freeze", "freezer.state"} {
			if b, err := os.ReadFile(filepath.Join(r.Dir, directory, file)); err == nil {
				return bytes.HasPrefix(b, []byte("1")) || bytes.HasPrefix(b, []byte("FR"))
			}
		}
	}
	t.Fatalf("%s is gone", directory)
	return false
}

// cpuOf is a group's directory that has its weight.
func cpuOf(t *testing.T, said report, directory string) (dir string, v2 bool) {
	t.Helper()
	for _, r := range said.Roots {
		for _, file := range []string{"cpu.shares", "cpu.weight"} {
			if _, err := os.Stat(filepath.Join(r.Dir, directory, file)); err == nil {
				return filepath.Join(r.Dir, directory), r.V2
			}
		}
	}
	t.Fatalf("%s has no weight", directory)
	return "", false
}

// watchTheEnd checks what the watchdog of a daemon does that is gone, and
// cleans up as the next daemon.
func watchTheEnd(t *testing.T, said report, files string) {
	t.Helper()
	for _, name := range []string{"w-w", "w-funded"} {
		if !until(20*time.Second, func() bool { return !stopped(t, said, name) }) {
			t.Fatalf("%s stays stopped", name)
		}
	}
	broke := said.Kept["w-broke"]
	for _, name := range []string{"w-paused", "w-broke"} {
		if !stopped(t, said, name) && (host.Clock{}).Now() < broke.Until {
			t.Errorf("%s was held, and runs", name)
		}
	}
	dir, v2 := cpuOf(t, said, "w-funded")
	for file, want := range map[string]string{"cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.weight": "100", "cpu.max": "max 100000"} {
		if v2 != (file == "cpu.weight" || file == "cpu.max") {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, file)); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s of the solvent: %s, %v, want %s", file, b, err, want)
		}
	}
	if !until(20*time.Second, func() bool {
		if alive(broke.Pid) {
			return false
		}
		if now := (host.Clock{}).Now(); now < broke.Until {
			t.Errorf("the broke was ended %v before its time", broke.Until.Sub(now))
		}
		return true
	}) {
		t.Error("the broke lives on")
	}
	if !until(20*time.Second, func() bool { return !alive(said.Watchdog) }) {
		t.Error("the watchdog stays although nothing is left to wait for")
	}
	for name, handled := range map[string]bool{"broke": true, "paused": false, "funded": false} {
		if _, err := os.Stat(filepath.Join(files, name+".term")); (err == nil) != handled {
			t.Errorf("%s had a chance to end: %v, want %v", name, err == nil, handled)
		}
	}
	e := heir(t)
	if got := e.Found(); !slices.Equal(got, []string{"w-broke", "w-funded", "w-paused", "w-w"}) {
		t.Errorf("found %v", got)
	}
	// What the ended one used is still to be read.
	if c, err := adopted(t, e, 1, "w-broke", dispatch.Limits{}).Counters(); err != nil || c.CPU <= 0 {
		t.Errorf("counters of the ended: %+v, %v", c, err)
	}
	if g := adopted(t, e, 0, "w-paused", dispatch.Limits{}); g.held != heldByCall || !alive(said.Kept["w-paused"].Pid) {
		t.Error("the paused is not stopped, or dead")
	}
}

func TestWatchdogOfADaemonThawsTheSolvent(t *testing.T) { everyLayout(t, watchdogThawsTheSolvent) }

func watchdogThawsTheSolvent(t *testing.T) {
	files := t.TempDir()
	said, kill, _ := ownerIn(t, ModeThaw, true, files)
	died := host.Clock{}.Now()
	kill()
	if !until(20*time.Second, func() bool { return !stopped(t, said, "w-w") }) {
		t.Fatal("the solvent stay stopped")
	}
	if after := (host.Clock{}).Now().Sub(died); after < daemonPatience {
		t.Errorf("thawed after %v, want %v for the next daemon", after, daemonPatience)
	}
	watchTheEnd(t, said, files)
}

func TestHandoverThawsTheSolventAtOnce(t *testing.T) {
	files := t.TempDir()
	said, _, leave := ownerIn(t, ModeThaw, true, files)
	began := host.Clock{}.Now()
	leave()
	took := (host.Clock{}).Now().Sub(began)
	if stopped(t, said, "w-w") || stopped(t, said, "w-funded") {
		t.Error("handed over, and the solvent are stopped")
	}
	if took >= daemonPatience {
		t.Errorf("it took %v", took)
	}
	watchTheEnd(t, said, files)
}

func TestANewDaemonSendsTheOldWatchdogAway(t *testing.T) {
	said, kill, _ := ownerIn(t, ModeThaw, true, t.TempDir())
	kill()
	e := heir(t)
	t.Setenv(roleVariable, "watchdog")
	w, err := e.Guard([]string{"/proc/self/exe"}, realRoots(t))
	if err != nil {
		t.Fatal(err)
	}
	if !until(20*time.Second, func() bool { return !alive(said.Watchdog) }) {
		t.Error("the old watchdog stays")
	}
	for _, name := range []string{"w-w", "w-paused", "w-broke", "w-funded"} {
		if !stopped(t, said, name) {
			t.Errorf("the old watchdog thawed %s", name)
		}
	}
	if err := errors.Join(e.Close(), w.Farewell()); err != nil {
		t.Error(err)
	}
}

// A daemon that has no watchdog yet may die too: the old one still waits.
func TestTheOldWatchdogStaysUntilThereIsANewOne(t *testing.T) {
	said, kill, _ := ownerIn(t, ModeThaw, true, t.TempDir())
	kill()
	e := heir(t)
	<-time.After(daemonPatience + 200*time.Millisecond)
	if !stopped(t, said, "w-w") {
		t.Error("thawed although a daemon has come")
	}
	if err := e.Leave(); err != nil {
		t.Fatal(err)
	}
	if !until(20*time.Second, func() bool { return !stopped(t, said, "w-w") }) {
		t.Error("nobody thaws the workloads of the second daemon")
	}
	_ = heir(t)
}

func TestRepairRelievesTheWatchdog(t *testing.T) {
	said, kill, _ := ownerIn(t, ModeThaw, true, t.TempDir())
	kill()
	for _, a := range repairOnly(t, said.Roots) {
		if a.Outcome != Thawed {
			t.Error(a)
		}
	}
	if !until(20*time.Second, func() bool { return !alive(said.Watchdog) }) {
		t.Error("the watchdog stays")
	}
	for _, name := range []string{"w-w", "w-paused", "w-broke"} {
		if stopped(t, said, name) {
			t.Errorf("%s is stopped after a repair", name)
		}
	}
	_ = heir(t)
}

func TestWatchdogHearsOnlyWords(t *testing.T) {
	long := strings.Repeat("a", 10000)
	for _, test := range []struct {
		said string
		last verb
		held int
	}{
		{"", verbNone, 0},
		{"farewell\n", verbFarewell, 0},
		{"handover\nfarewell\n", verbHandover, 0},
		{"hold w-a 5\nhold w-b 0\nfree w-a\nfree w-c\nfarewell\n", verbFarewell, 1},
		{"hold w-a 5\nhold w-a 6\nfarewel", verbNone, 1},
		{"hold w-a 5\nhold ../w-b 5\nfarewell\n", verbNone, 1},
		{"hold w-a -5\nfarewell\n", verbNone, 0},
		{"hold w-a\nfarewell\n", verbNone, 0},
		{"\nfarewell\n", verbNone, 0},
		{"none\nfarewell\n", verbNone, 0},
		{long + "\nfarewell\n", verbNone, 0},
	} {
		k := keeper{held: map[string]unit.Instant{}}
		if last := k.listen(bufio.NewReader(strings.NewReader(test.said))); last != test.last || len(k.held) != test.held {
			t.Errorf("%.60q: %q with %v held, want %q with %d", test.said, last, k.held, test.last, test.held)
		}
	}
}

// A node must not wait for its watchdog, and no line may be torn.
func TestTellingDoesNotBlock(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, theirs := &Watchdog{conn: os.NewFile(uintptr(pair[0]), "a")}, os.NewFile(uintptr(pair[1]), "b")
	defer w.conn.Close()
	defer theirs.Close()
	if err := w.Hold("../escape", 5); !errors.Is(err, errMessage) {
		t.Errorf("hold of no name: %v", err)
	}
	name, n := groupPrefix+strings.Repeat("x", 200), 0
	for ; err == nil; n++ {
		err = w.Hold(name, unit.Instant(n))
	}
	if !errors.Is(err, unix.EAGAIN) || n < 10 {
		t.Fatalf("after %d: %v", n, err)
	}
	in := bufio.NewReader(theirs)
	for i := range n - 1 {
		line, err := in.ReadString('\n')
		if i == 0 {
			err = errors.Join(err, w.Free(name)) // there is room again, and the rest goes first
		}
		m, parsed := parseMessage(strings.TrimSuffix(line, "\n"))
		if err != nil || parsed != nil || m.until != unit.Instant(i) {
			t.Fatalf("line %d: %q, %v, %v", i, line, err, parsed)
		}
	}
	if line, err := in.ReadString('\n'); err != nil || line != "free "+name+"\n" {
		t.Errorf("last: %q, %v", line, err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, line := range []string{"hold w-a 5", "hold w-a 0", "free w-a-2", "farewell", "handover", "", "free w-a/../b", "hold w-a 9223372036854775808"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		m, err := parseMessage(line)
		if err != nil {
			return
		}
		if m.String() != line {
			t.Errorf("%q reads as %q", line, m)
		}
		if m.name != "" && (strings.ContainsAny(m.name, "/\n ") || !strings.HasPrefix(m.name, groupPrefix) || m.until < 0) {
			t.Errorf("%q names %q until %d", line, m.name, m.until)
		}
	})
}
