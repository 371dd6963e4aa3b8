package signal

import (
	"errors"
	"io"
	"os"
	ossignal "os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func notify(c chan<- os.Signal, s ...os.Signal) { ossignal.Notify(c, s...) }

func signalIgnore(s unix.Signal) { ossignal.Ignore(s) }

func end(t *testing.T, p *Process) launch.Status {
	t.Helper()
	for {
		st, err := p.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if st.Ended() {
			return st
		}
	}
}

func TestExitCodes(t *testing.T) {
	if asUser(t) {
		return
	}
	for _, namespace := range []bool{true, false} {
		if namespace {
			needNamespace(t)
		}
		for _, c := range []struct {
			name string
			args []string
			want launch.Status
		}{
			{"zero", []string{"true"}, launch.Status{State: launch.Exited}},
			{"own", []string{"sh", "-c", "exit 7"}, launch.Status{State: launch.Exited, Code: 7}},
			{"killed", []string{"sh", "-c", "kill -TERM $$"}, launch.Status{State: launch.Signaled, Code: 143, Signal: unix.SIGTERM}},
			{"shim is safe", []string{"sh", "-c", "kill -TERM $PPID; kill -USR1 0; exit 5"}, launch.Status{}},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := newRig(t, namespace, dispatch.Limits{}, c.args...)
				got := end(t, r.proc)
				if c.name == "shim is safe" { // to its own group: ends the shell itself. Not HUP: whoever tests under nohup ignores it
					c.want = launch.Status{State: launch.Signaled, Code: 138, Signal: unix.SIGUSR1}
				}
				got.User, got.System = 0, 0
				if got != c.want {
					t.Errorf("namespace %v: got %+v, want %+v", namespace, got, c.want)
				}
				eventually(t, "the end of the tree", func() bool {
					alive, _ := r.group.Populated()
					return !alive
				})
				if err := r.group.Remove(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	if asUser(t) {
		return
	}
	e := newEnforcer(t, true)
	for slot, c := range []struct {
		command string
		code    int
	}{{"no-such-program", 127}, {"/etc/passwd", 126}, {"/", 126}} {
		g, err := e.Open(slot, c.command, dispatch.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = Start(launch.Spec{Args: []string{c.command}, Env: []string{"PATH=/usr/bin:/bin"}}, g.Placement())
		x, ok := errors.AsType[*launch.ExecError](err)
		if !ok || x.Code != c.code {
			t.Errorf("%s: got %v, want exit code %d", c.command, err, c.code)
		}
		if err := g.Remove(); err != nil {
			eventually(t, "the refused shim's end", func() bool { return g.Remove() == nil })
		}
	}
}

// A hog that is granted a part of each epoch is let run that long at least, more
// if it has to share its core, and never uses more than that and the credit of
// two epochs. One that is granted all is never stopped. What it gets on an
// otherwise idle machine is logged.
func TestDuty(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "act", "hog")
	for _, c := range []struct {
		share float64
		class market.Class
	}{
		{0.25, market.Margin}, {0.50, market.Margin}, {0, market.Loser}, {1, market.Served},
	} {
		share := dispatch.Share{Class: uint8(c.class), Granted: unit.CoreTime(c.share * 50e6)}
		r.epochs(200*time.Millisecond, share)
		before := r.fresh(r.group)
		r.epochs(700*time.Millisecond, share)
		after := r.fresh(r.group)
		took := time.Duration(after.At - before.At)
		got := float64(after.CPU-before.CPU) / float64(took)
		allowed := float64(after.Allowed-before.Allowed) / float64(took)
		t.Logf("granted %.2f, got %.3f, allowed to run %.3f of the time", c.share, got, allowed)
		if top := c.share + 0.15; got > top {
			t.Errorf("granted %.2f of a core: got %.3f, want at most %.2f", c.share, got, top)
		}
		// Where a stop takes effect late, as in an emulated machine, the window is
		// made shorter than the share.
		if low := c.share * 0.8; max(allowed, got) < low {
			t.Errorf("granted %.2f of a core: allowed to run %.3f of the time, want at least %.2f", c.share, allowed, low)
		}
		if c.share == 0 && allowed > 0.01 {
			t.Errorf("granted nothing: allowed to run %.3f of the time", allowed)
		}
		if c.class == market.Served && after.Allowed-before.Allowed < int64(took-5*time.Millisecond) {
			t.Errorf("a served hog was stopped for %v", took-time.Duration(after.Allowed-before.Allowed))
		}
	}
}

// TestNeutralIsNotStopped: whoever is not enforced any more is not stopped for its price.
func TestNeutralIsNotStopped(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "act", "hog")
	g := r.group
	window := func() Window {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.want.Window
	}
	lost := dispatch.Share{Slot: 0, Class: uint8(market.Frozen)}
	for range 2 {
		r.epochs(50*time.Millisecond, lost)
		if window() == always {
			t.Error("who is frozen by price is not stopped")
		}
		lost.Neutral = true
		r.epochs(50*time.Millisecond, lost)
		if window() != always {
			t.Errorf("observed it runs in %+v", window())
		}
		lost.Neutral = false
	}
}

// A storm of setsid and double forks stands still while frozen, whatever it
// does, and is gone after Kill.
func TestStormHeldAndKilled(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{Pids: 300}, "act", "storm")
	r.epochs(500*time.Millisecond, dispatch.Share{Class: uint8(market.Served)})
	if n := r.fresh(r.group).Processes; n < 5 {
		t.Fatalf("the storm has %d processes; it does not storm", n)
	}
	if err := r.group.Freeze(); err != nil {
		t.Fatal(err)
	}
	before := r.fresh(r.group)
	pass(500 * time.Millisecond)
	after := r.fresh(r.group)
	t.Logf("%d processes; while frozen for 0.5 s: %v of a core", after.Processes, time.Duration(after.CPU-before.CPU))
	if used := time.Duration(after.CPU - before.CPU); used > 50*time.Millisecond {
		t.Errorf("frozen storm used %v in half a second", used)
	}
	if after.Processes < 5 || after.Flags&reportStopped == 0 {
		t.Errorf("frozen storm: %+v", after)
	}
	if err := r.group.Kill(); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	eventually(t, "the storm's end", func() bool {
		alive, _ := r.group.Populated()
		return !alive
	})
	t.Logf("dead after %v", time.Since(from))
	if took := time.Since(from); took > time.Second {
		t.Errorf("the storm lived for %v after Kill", took)
	}
	if st := end(t, r.proc); st.Signal != unix.SIGKILL && st.State != launch.Exited {
		t.Errorf("command ended as %+v", st)
	}
}

// The node's death is the end of its control sockets.
func TestNodeDeathKills(t *testing.T) {
	if asUser(t) {
		return
	}
	for _, namespace := range []bool{true, false} {
		if namespace {
			needNamespace(t)
		}
		r := newRig(t, namespace, dispatch.Limits{}, "sh", "-c", "setsid sleep 100 & exec sleep 100")
		r.fresh(r.group)
		r.group.mu.Lock()
		r.group.lostLocked() // what the kernel does to a dead node's descriptors
		r.group.mu.Unlock()
		if st := end(t, r.proc); st.Signal != unix.SIGKILL {
			t.Errorf("namespace %v: command ended as %+v, want SIGKILL", namespace, st)
		}
		eventually(t, "the shim's end", func() bool { alive, _ := r.group.Populated(); return !alive })
	}
}

func TestClientDeathKills(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "sh", "-c", "setsid sleep 100 & exec sleep 100")
	r.fresh(r.group)
	if err := r.proc.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tree's end", func() bool { alive, _ := r.group.Populated(); return !alive })
}

// Without a namespace a tree that stands still long enough is held, double
// forks included.
func TestSweep(t *testing.T) {
	if asUser(t) {
		return
	}
	r := newRig(t, false, dispatch.Limits{}, "sh", "-c",
		"(setsid sh -c 'while :; do :; done' &) ; while :; do :; done")
	eventually(t, "both loops", func() bool { return r.fresh(r.group).Processes >= 2 })
	if err := r.group.Freeze(); err != nil {
		t.Fatal(err)
	}
	before := r.fresh(r.group)
	pass(300 * time.Millisecond)
	after := r.fresh(r.group)
	if used := time.Duration(after.CPU - before.CPU); used > 30*time.Millisecond {
		t.Errorf("frozen tree used %v in 300 ms", used)
	}
	if after.Flags&reportSwept == 0 {
		t.Error("report does not say that it is best effort")
	}
	if err := r.group.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tree's end", func() bool { alive, _ := r.group.Populated(); return !alive })
	if text := r.group.Unheld(); text != "" {
		t.Errorf("all was held, but: %s", text)
	}
}

// What somebody else stopped stays stopped when the tree goes on.
func TestStoppedByOthersStaysStopped(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "sh", "-c", "sleep 100 & kill -STOP $!; echo $!; exec sleep 100")
	eventually(t, "the stopped child", func() bool { b, _ := os.ReadFile(r.out.Name()); return len(b) > 0 })
	stopped := func() (n int) {
		children, err := os.ReadFile("/proc/" + itoa(r.proc.Pid) + "/task/" + itoa(r.proc.Pid) + "/children")
		if err != nil {
			hosttest.Skip(t, "proc-children", "kernel without the children file: "+err.Error())
		}
		tr := newTree("/proc", 0, true)
		for pid := range strings.FieldsSeq(string(children)) {
			if tr.isStopped(atoi(pid), 0) {
				n += 100
			}
			grand, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
			for pid := range strings.FieldsSeq(string(grand)) {
				if tr.isStopped(atoi(pid), 0) {
					n++
				}
			}
		}
		return n
	}
	eventually(t, "one stopped", func() bool { return stopped() == 1 })
	for range 3 {
		if err := r.group.Freeze(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all stopped", func() bool { r.fresh(r.group); return stopped() == 101 })
		if err := r.group.Thaw(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one stopped again", func() bool { r.fresh(r.group); return stopped() == 1 })
	}
}

// The charge of a tree is what the kernel says of it, within 2 %, also when
// its processes are short.
func TestCharge(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "sh", "-c",
		"for i in 1 2 3 4 5; do sh -c 'i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done'; done")
	var last report
	st := end(t, r.proc)
	eventually(t, "the last report", func() bool {
		_, _ = r.group.Populated()
		r.group.mu.Lock()
		defer r.group.mu.Unlock()
		last = r.group.last
		return last.Flags&reportEnded != 0
	})
	want := st.User + st.System
	t.Logf("charged %v, kernel says %v", time.Duration(last.CPU), want)
	if d := time.Duration(last.CPU) - want; d < -want/50 || d > want/50 {
		t.Errorf("charged %v, kernel says %v", time.Duration(last.CPU), want)
	}
}

// Children that nobody waits for are charged for what was seen of them.
func TestChargeOfUnwaitedChildren(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{}, "act", "deaf")
	served := dispatch.Share{Class: uint8(market.Served)}
	r.epochs(500*time.Millisecond, served)
	before := r.fresh(r.group)
	r.epochs(time.Second, served)
	after := r.fresh(r.group)
	used := float64(after.CPU-before.CPU) / 1e9
	t.Logf("charged %.2f of a core; about 0.8 were used", used)
	if used < 0.05 {
		t.Errorf("charged %.2f of a core for children that use 0.8", used)
	}
}

func TestMemoryCap(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{Memory: 64 << 20}, "act", "grow")
	eventually(t, "the cap", func() bool {
		c, err := r.group.Counters()
		return err == nil && c.OOMKills > 0
	})
	rep := r.fresh(r.group)
	if rep.Flags&(reportStopped|reportMemory) != reportStopped|reportMemory {
		t.Errorf("beyond its cap the tree was not stopped: %+v", rep)
	}
	t.Logf("stopped at %d MiB of 64", rep.PeakMemory>>20)
}

func TestPidsCap(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	r := newRig(t, true, dispatch.Limits{Pids: 20}, "sh", "-c",
		"read x < /proc/uptime; sleep .2; i=0; while [ $i -lt 200 ] && sleep 60 & do i=$((i+1)); done; echo $i; sleep 1")
	eventually(t, "the cap to be passed", func() bool {
		c, err := r.group.Counters()
		if err == nil && c.PidsRefused == 0 {
			r.fresh(r.group)
		}
		return err == nil && c.PidsRefused > 0
	})
	if n := r.fresh(r.group).Threads; n > 40 {
		t.Errorf("%d threads live under a cap of 20", n)
	}
}

// The command's output ends with the command, not with its shim.
func TestOutputEnds(t *testing.T) {
	if asUser(t) {
		return
	}
	needNamespace(t)
	e := newEnforcer(t, true)
	g, err := e.Open(0, "out", dispatch.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	report, reportTo, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(launch.Spec{
		Args:  []string{"sh", "-c", "echo hello; echo work 3 >&3; exec >/dev/null 2>&1 3>&-; sleep 100"},
		Files: [3]*os.File{null, to, to}, Report: reportTo,
	}, g.Placement())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	to.Close()
	reportTo.Close()
	for f, want := range map[*os.File]string{from: "hello\n", report: "work 3\n"} {
		_ = f.SetReadDeadline(time.Now().Add(5 * time.Second))
		b, err := io.ReadAll(f)
		if err != nil || string(b) != want {
			t.Errorf("read %q, %v; want %q and the end", b, err, want)
		}
	}
}

func TestRootNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "a pid namespace without a user namespace")
	}
	needNamespace(t)
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, true, dispatch.Limits{}, "sh", "-c", "id -u; ls -d /proc/1; echo $$; exit 3")
	if st := end(t, r.proc); st.Code != 3 {
		t.Errorf("got %+v", st)
	}
	if b, _ := os.ReadFile(r.out.Name()); !strings.HasPrefix(string(b), "0\n/proc/1\n") {
		t.Errorf("command saw %q", b)
	}
	after, err := os.ReadFile("/proc/self/mounts")
	if err != nil || string(after) != string(mounts) {
		t.Errorf("the host's mounts changed: %v", err)
	}
}
