package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hog = `while :; do :; done`

// quarter starts four workloads of which one is paused and one is about to be ended
// for want of money, and returns their groups by name.
func (s *daemonLab) quarter(grace time.Duration) (dirs map[string]string, broke time.Time) {
	s.t.Helper()
	s.detach("--name", "loud", "--bid", "3x", "--", "sh", "-c", hog)
	s.detach("--name", "quiet", "--bid", "1x", "--", "sh", "-c", hog)
	s.detach("--name", "paused", "--budget", "60", "--cores", "1", "--bid", "10x", "--when-broke", "pause", "--", "sh", "-c", hog)
	s.reaches("paused", "paused")
	s.detach("--name", "ending", "--budget", "60", "--cores", "1", "--bid", "10x", "--grace", grace.String(), "--", "sh", "-c", hog)
	s.reaches("ending", "broke")
	broke = time.Now()
	dirs = make(map[string]string)
	for _, name := range []string{"loud", "quiet", "paused", "ending"} {
		dirs[name] = waitDirectory(s.t, name)
	}
	return dirs, broke
}

// reaches waits until a workload is in a state.
func (s *daemonLab) reaches(name, state string) {
	s.t.Helper()
	s.waitFor(name+" to be "+state, func() bool {
		w, known := s.wallet(name)
		return known && w.State == state
	})
}

// stock reports whether the kernel schedules a group as if nobody governed it.
func (s *daemonLab) stock(name string) bool {
	s.t.Helper()
	usual := map[string]string{
		"cpu.shares": "1024", "cpu.cfs_quota_us": "-1", "cpu.weight": "100", "cpu.max": "max 100000", "cpu.idle": "0",
		"cgroup.freeze": "0", "freezer.state": "THAWED",
	}
	found := 0
	for _, mount := range cgroupMounts() {
		dirs, _ := filepath.Glob(filepath.Join(mount, "maxwell*", "w-"+name))
		for _, dir := range dirs {
			for file, want := range usual {
				text, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					continue
				}
				found++
				if strings.TrimSpace(string(text)) != want {
					return false
				}
			}
		}
	}
	if found == 0 {
		s.t.Fatalf("%s has no group", name)
	}
	return true
}

// TestDaemonWatchdog: a daemon that is killed and does not come back leaves a machine
// that schedules the solvent as any other, keeps the broke stopped, and ends those
// whose grace is over. The next daemon takes over what lives.
func TestDaemonWatchdog(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	const grace = 6 * time.Second
	dirs, broke := s.quarter(grace)
	if s.stock("quiet") && s.stock("loud") {
		t.Error("the daemon gives nobody a weight: this test tests nothing")
	}
	killed := time.Now()
	s.kill()
	s.waitFor("the solvent to be on their own", func() bool { return s.stock("quiet") && s.stock("loud") })
	if after := time.Since(killed); after < 1900*time.Millisecond {
		t.Errorf("the watchdog gave up on the daemon after %v", after)
	}
	for _, name := range []string{"paused", "ending"} {
		if !frozen(dirs[name]) && time.Since(broke) < grace {
			t.Errorf("%s is not stopped any more", name)
		}
	}
	still := usage(t, dirs["paused"])
	s.waitFor("the end of the grace", func() bool { return populated(t, dirs["ending"]) == 0 })
	if after := time.Since(broke); after < grace-time.Second {
		t.Errorf("ended after %v, its grace was %v", after, grace)
	}
	used := settled(t, dirs["ending"])
	if !frozen(dirs["paused"]) || usage(t, dirs["paused"]) != still {
		t.Error("what was paused runs")
	}
	running := usage(t, dirs["loud"])
	s.start()
	for name, state := range map[string][]string{"loud": {"running", "waiting"}, "quiet": {"running", "waiting"}, "paused": {"paused"}} {
		w, known := s.wallet(name)
		if !known || !strings.Contains(strings.Join(state, " "), w.State) {
			t.Errorf("%s is %q, want %v", name, w.State, state)
		}
		w.whole(t)
		if name == "loud" && time.Duration(w.Readopted) < (running-still)/100 {
			t.Errorf("%s used much while the daemon was away, and %v are readopted", name, time.Duration(w.Readopted))
		}
	}
	w := s.dead("ending")
	w.whole(t)
	if w.Reason != "insolvent" || w.Exit != 122 {
		t.Errorf("ended: %s (exit %d), want insolvent (exit 122)", w.Reason, w.Exit)
	}
	if d := abs(time.Duration(w.CPU) - used); d > 3*time.Microsecond {
		t.Errorf("charged %v, the kernel counted %v", time.Duration(w.CPU), used)
	}
}

// TestDaemonOrderly: a daemon that is told to go hands over at once; another one goes
// on where it was, also with fewer processors to sell.
func TestDaemonOrderly(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	dirs, _ := s.quarter(time.Minute)
	s.stop()
	if !s.stock("quiet") || !s.stock("loud") {
		t.Error("the daemon has gone, and the solvent are still weighed")
	}
	if !frozen(dirs["paused"]) || !frozen(dirs["ending"]) {
		t.Error("the daemon has gone, and the broke run")
	}
	s.flags = []string{"--set", "node.cores=1"}
	s.start()
	for name, want := range map[string]string{"paused": "paused", "ending": "broke"} {
		if w, _ := s.wallet(name); w.State != want {
			t.Errorf("%s is %q, want %q", name, w.State, want)
		}
	}
	if sold := s.snapshot(false).Node.Cores; sold != 1000 {
		t.Errorf("%d thousandths of a core for sale, want 1000", sold)
	}
	s.renew()
	began, from := time.Now(), usage(t, dirs["loud"])+usage(t, dirs["quiet"])
	s.waitFor("some use", func() bool { return time.Since(began) > time.Second })
	if used, most := usage(t, dirs["loud"])+usage(t, dirs["quiet"])-from, time.Since(began)*6/5; used > most {
		t.Errorf("used %v of one core in %v", used, most)
	}
	// Money lets them go on, under the new daemon.
	must(t, s.call("Fund", fundRequest{Name: "paused", Amount: 500_000_000, ID: newID()}, nil))
	s.waitFor("the paused to go on", func() bool { w, _ := s.wallet("paused"); return w.State == "running" || w.State == "waiting" })
}

// TestDaemonTwice: a machine has one daemon; the second says so in one line.
func TestDaemonTwice(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	name := s.detach("--name", unique("first"), "--", "sh", "-c", sleeper)
	second := s.observe(s.daemon())
	if code := second.end(); code != 125 {
		t.Errorf("exit %d, want 125", code)
	}
	if said := second.errors.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "another market governs this machine") {
		t.Errorf("said %q", said)
	}
	if w := s.fresh(name); w.State == "dead" {
		t.Errorf("the first one's workload: %+v", w)
	}
}

// TestDaemonKilledAtStart: at whatever moment of its start a daemon is killed, the next
// one starts, and has what was there before.
func TestDaemonKilledAtStart(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	name := s.detach("--name", unique("first"), "--", "sh", "-c", sleeper)
	began := time.Now()
	s.kill()
	s.start()
	span := int64(time.Since(began))
	for range 5 {
		s.kill()
		s.begin()
		time.Sleep(time.Duration(rng.Int64N(span))) // the moment is what is tried
	}
	s.kill()
	s.start()
	if w, known := s.wallet(name); !known || w.State == "dead" {
		t.Errorf("lost: %+v", w)
	}
	s.verify(s.journal())
}

// TestDaemonWithoutRoom: while the disk is full new work is refused in one line, what
// runs is governed on, and what was asked meanwhile happens once, when there is room.
func TestDaemonWithoutRoom(t *testing.T) {
	s := idleDaemonLab(t)
	s.wrap = func(cmd *exec.Cmd) { // in a mount namespace that ends with the daemon
		cmd.Args = append([]string{"sh", "-c", `mkdir -p "$0" && mount -t tmpfs -o size=3m,mode=700 none "$0" && exec "$@"`, s.state()}, cmd.Args...)
		cmd.Path = "/bin/sh"
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	s.start()
	defer s.close()
	inside := fmt.Sprintf("/proc/%d/root", s.now.cmd.Process.Pid)
	s.detach("--name", "goes", "--budget", "100k", "--", "sh", "-c", hog)
	s.detach("--name", "poor", "--budget", "60", "--cores", "1", "--bid", "10x", "--grace", "1s", "--", "sh", "-c", hog)
	fill := filepath.Join(inside, s.state(), "filler")
	full(t, fill)
	s.t.Cleanup(func() { _ = os.Remove(fill) })
	var no result
	tries := 0
	s.waitFor("a refusal", func() bool {
		tries++
		no = s.run("run", "-q", "--name", unique("late"), "--", "true")
		full(t, fill) // what the log gave back
		return no.code == 125
	})
	if strings.Count(no.stderr, "\n") != 1 || !strings.Contains(no.stderr, s.journal()) ||
		!strings.Contains(no.stderr, "what runs goes on, new work waits until it can be written") {
		t.Errorf("refused otherwise: %v", no)
	}
	fund := fundRequest{Name: "goes", Amount: 7_000_000, ID: newID()}
	before := s.fresh("goes")
	for range 3 {
		err := s.call("Fund", fund, nil)
		if r, ok := errors.AsType[*refusal](err); !ok || r.Code != "unavailable" || !strings.Contains(r.Message, s.journal()) {
			t.Errorf("money that cannot be kept: %v", err)
		}
	}
	// Governing goes on: epochs, prices, bills and ends.
	s.waitFor("the bill to grow", func() bool { w, _ := s.wallet("goes"); return w.Spent > before.Spent })
	epochs := s.snapshot(false).Node.Epochs
	s.waitFor("epochs", func() bool { return s.snapshot(false).Node.Epochs > epochs+10 })
	if w := s.dead("poor"); w.Reason != "insolvent" {
		t.Errorf("while the disk was full the poor ended: %s", w.Reason)
	}
	must(t, os.Remove(fill))
	s.waitFor("room for new work", func() bool { return s.run("run", "-q", "--name", unique("after"), "--", "true").code == 0 })
	for range 2 {
		must(t, s.call("Fund", fund, nil))
	}
	if after := s.fresh("goes"); after.Budget != before.Budget+fund.Amount {
		t.Errorf("budget %d, was %d and was funded %d once", after.Budget, before.Budget, fund.Amount)
	}
	audit := exec.Command("nsenter", "-m", "-t", fmt.Sprint(s.now.cmd.Process.Pid), maxwell(t), "audit", "verify", s.journal())
	if out, err := audit.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// full writes a file until there is no more room.
func full(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else {
			must(t, err)
		}
	}
}

// TestDaemonObserveGivesWeightsBack: whoever is only observed from now on is scheduled
// as if nobody governed him, when that is answered, and so is whoever starts later;
// enforced again they have weights.
func TestDaemonObserveGivesWeightsBack(t *testing.T) {
	s := newDaemonLab(t)
	defer s.close()
	loud := s.detach("--name", unique("loud"), "--bid", "8x", "--", "sh", "-c", hog)
	quiet := s.detach("--name", unique("quiet"), "--bid", "1x", "--", "sh", "-c", hog)
	weighed := func() bool { return !s.stock(loud) && !s.stock(quiet) }
	observe := func(who string) {
		t.Helper()
		if r := s.run("enforce", who, "observe"); r.code != 0 {
			t.Fatalf("enforce %s observe: %v", who, r)
		}
	}
	s.waitFor("weights", weighed)
	observe(quiet)
	if !s.stock(quiet) || s.stock(loud) {
		t.Errorf("one of them is observed: stock %v, and the other %v", s.stock(quiet), s.stock(loud))
	}
	observe("--all")
	late := s.detach("--name", unique("late"), "--", "sh", "-c", hog)
	for round := range 2 {
		for _, name := range []string{loud, quiet} {
			if !s.stock(name) {
				t.Errorf("round %d: %s has a weight of the market's", round, name)
			}
		}
		s.renew()
		if !s.stock(late) {
			t.Errorf("round %d: who starts later has a weight of the market's", round)
		}
		if round == 0 {
			s.kill()
			s.start()
			s.renew()
		}
	}
	for _, who := range []string{"--all", quiet} {
		if r := s.run("enforce", who, "on"); r.code != 0 {
			t.Fatalf("enforce %s on: %v", who, r)
		}
	}
	s.waitFor("weights again", weighed)
}
