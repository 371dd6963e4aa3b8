package signal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
)

// TestMain lets the test binary be what the program is: a shim, and the
// commands under it.
func TestMain(m *testing.M) {
	// A binary built with -race sleeps for a second at its end, shims included.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Verb:
			os.Exit(Shim(os.Args[2:]))
		case "act":
			os.Exit(act(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// act is a command with a bad or a plain character. It runs this binary as
// "maxwell" does: by /proc/self/exe.
func act(args []string) int {
	switch args[0] {
	case "hog":
		for {
		}
	case "hogs": // n threads
		n, _ := strconv.Atoi(args[1])
		for range n - 1 {
			go func() {
				for {
				}
			}()
		}
		for {
		}
	case "client":
		return client(args[1], args[2:])
	case "storm": // a tree that never stands still and never stays in a group
		return storm()
	case "deaf": // free work: children that nobody waits for
		signalIgnore(unix.SIGCHLD)
		for {
			if err := exec.Command("/proc/self/exe", "act", "burn", "40ms").Start(); err != nil {
				return 1
			}
			time.Sleep(50 * time.Millisecond)
		}
	case "burn":
		d, _ := time.ParseDuration(args[1])
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
		return 0
	case "grow": // by 1 MiB at a time
		var kept [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			if len(kept) > 1024 {
				return 3
			}
		}
	case "fork": // until refused, then say how many
		n := 0
		for ; n < 200; n++ {
			if err := exec.Command("sleep", "60").Start(); err != nil {
				break
			}
		}
		fmt.Println(n)
		return 0
	case "exit":
		n, _ := strconv.Atoi(args[1])
		return n
	}
	return 99
}

// storm starts children in sessions of their own that start grandchildren and
// end, ignoring every polite signal.
func storm() int {
	for n := unix.Signal(1); n < 32; n++ {
		if n != unix.SIGCHLD {
			signalIgnore(n)
		}
	}
	signalIgnore(unix.SIGCHLD)
	for {
		c := exec.Command("/proc/self/exe", "act", "storm")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = c.Start()
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
		}
		if processes() > 40 {
			return 0
		}
	}
}

// processes counts what the caller's /proc shows.
func processes() int {
	list, err := numbers("/proc")
	if err != nil {
		return 0
	}
	return len(list)
}

// asUser runs the calling test again as a user without any power, if we have
// some, and reports whether it did: the caller then returns.
func asUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "HOME=/", "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil {
		t.Fatalf("as uid 65534: %v\n%s", err, text)
	}
	switch {
	case strings.Contains(text, "--- SKIP"):
		_, said, _ := strings.Cut(text, "maxwell-skip: ")
		said, _, _ = strings.Cut(said, "\n")
		feature, reason, ok := strings.Cut(said, ": ")
		if !ok {
			t.Fatalf("as uid 65534 it was skipped without a reason:\n%s", text)
		}
		hosttest.Skip(t, host.Feature(feature), "as uid 65534: "+reason)
	case !strings.Contains(text, "--- PASS: "+t.Name()):
		t.Fatalf("as uid 65534 the test did not run:\n%s", text)
	case testing.Verbose():
		t.Log(text)
	}
	return true
}

// rig is an enforcer with one group and a command under it.
type rig struct {
	t        *testing.T
	enforcer *Enforcer
	group    *Group
	proc     *Process
	out      *os.File
}

// needNamespace skips where the machine refuses namespaces, with its reason.
func needNamespace(t *testing.T) {
	t.Helper()
	if err := Probe(); err != nil {
		hosttest.Skip(t, host.FeatureNamespaces, err.Error())
	}
}

func newRig(t *testing.T, namespace bool, l dispatch.Limits, args ...string) *rig {
	t.Helper()
	r := &rig{t: t, enforcer: newEnforcer(t, namespace)}
	r.group, r.proc, r.out = r.add(0, l, args...)
	return r
}

func newEnforcer(t *testing.T, namespace bool) *Enforcer {
	t.Helper()
	dir, err := os.MkdirTemp("", "maxwell-test-")
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(Config{Dir: dir, Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("Close left %v", left)
		}
		os.RemoveAll(dir)
	})
	return e
}

// add starts one more command; its output is in the file.
func (r *rig) add(slot int, l dispatch.Limits, args ...string) (*Group, *Process, *os.File) {
	r.t.Helper()
	opened, err := r.enforcer.Open(slot, "test-"+strconv.Itoa(slot), l)
	if err != nil {
		r.t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		r.t.Fatal(err)
	}
	defer null.Close()
	out, err := os.Create(filepath.Join(r.t.TempDir(), "out"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { out.Close() })
	if args[0] == "act" {
		args = append([]string{"/proc/self/exe"}, args...)
	}
	p, err := Start(launch.Spec{Args: args, Files: [3]*os.File{null, out, out}}, opened.Placement())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { p.Close() })
	return opened.(*Group), p, out
}

// epochs applies shares every 50 ms for a while.
func (r *rig) epochs(d time.Duration, shares ...dispatch.Share) {
	r.t.Helper()
	const epoch = 50 * time.Millisecond
	tick := time.NewTicker(epoch)
	defer tick.Stop()
	for range int(d / epoch) {
		<-tick.C
		if err := r.enforcer.Apply(epoch, shares); err != nil {
			r.t.Fatal(err)
		}
	}
}

// fresh asks the shim for a report of now.
func (r *rig) fresh(g *Group) report {
	r.t.Helper()
	const seq = 1 << 30
	eventually(r.t, "the shim's arrival", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.pollLocked()
		return g.came
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last.Seq = 0
	g.ask(seq)
	for g.last.Seq != seq && g.control >= 0 {
		if !readable(g.control, 5*time.Second) {
			r.t.Fatal("the shim does not answer")
		}
		g.pollLocked()
	}
	return g.last
}

// eventually waits for a condition that the kernel makes true by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("no sign of %s after 10 s", what)
		}
	}
}

// pass waits for real time to go by, which is what is measured.
func pass(d time.Duration) { <-time.After(d) }

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
