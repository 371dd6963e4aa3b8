package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is the user without any power, on every machine.
const nobody = 65534

// newLabOfNobody is a lab whose calls are made by a user without privilege:
// by nobody where the test is root, else by the test's own user.
func newLabOfNobody(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	if os.Geteuid() == 0 {
		l.who = &syscall.Credential{Uid: nobody, Gid: nobody}
		must(t, os.Chown(l.dir, nobody, nobody))
	}
	return l
}

// exampleFor copies an example to where anybody may read it.
func exampleFor(t *testing.T, name string) string {
	t.Helper()
	from, err := os.Open(filepath.Join("..", "examples", name))
	must(t, err)
	defer from.Close()
	dir, err := os.MkdirTemp("", "mxfleet-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	to, err := os.Create(filepath.Join(dir, name))
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, err)
	must(t, to.Chmod(0o644))
	must(t, to.Close())
	return to.Name()
}

// TestWithoutRootRun: an exit code, a cap and a name, without privilege.
func TestWithoutRootRun(t *testing.T) {
	t.Parallel()
	l := newLabOfNobody(t)
	w := l.watch("run", "--", "sh", "-c", "id -u; exit 7")
	if code := w.end(); code != 7 {
		t.Errorf("exit %d, want 7", code)
	}
	if os.Geteuid() == 0 && strings.TrimSpace(w.out.String()) != "65534" {
		t.Errorf("it ran as %q", w.out.String())
	}
	if !strings.Contains(w.errors.String(), "burned") {
		t.Errorf("no closing lines: %s", w.errors.String())
	}
	l.clean()
}

// TestWithoutRootStorm: a fork storm that leaves its session is dead when its
// money is gone.
func TestWithoutRootStorm(t *testing.T) {
	t.Parallel()
	l := newLabOfNobody(t)
	w := l.watch("run", "--budget", "25", "--grace", "200ms", "--", "sh", "-c", storm+"& while :; do :; done")
	w.says("up")
	if code := w.end(); code != 122 || !strings.Contains(w.errors.String(), "insolvent") {
		t.Errorf("exit %d: %s, want 122 insolvent", code, w.errors.String())
	}
	l.clean()
}

// TestWithoutRootInterrupt is ^C on a fleet without privilege.
func TestWithoutRootInterrupt(t *testing.T) {
	t.Parallel()
	l := newLabOfNobody(t)
	w := l.watch("up", exampleFor(t, "two-bidders.yaml"))
	await(t, "both to run", func() bool { return len(l.workers("work hash")) == 2 })
	w.signal(syscall.SIGINT)
	if code := w.end(); code != 130 || !strings.Contains(w.out.String(), "signal enforcement") {
		t.Errorf("exit %d, want 130 and the closing statement of the signal enforcement", code)
	}
	l.clean()
}

// TestWithoutRootExample is the first promise: without root and without any
// other set-up the leeches go broke and die, and the scientist lives.
func TestWithoutRootExample(t *testing.T) {
	l := newLabOfNobody(t)
	w := l.watch("up", exampleFor(t, "scientist-leech.yaml"), "--json")
	await(t, "three leeches", func() bool { return len(l.workers("work hash")) == 3 })
	// About ten seconds where nothing else runs; on a busy machine broke comes
	// later, since it comes by use.
	if !eventually(3*time.Minute, func() bool { return len(l.workers("work hash")) == 0 }) {
		t.Fatal("leeches live for ever")
	}
	if len(l.workers("work primes")) != 1 {
		t.Error("the scientist is dead too")
	}
	w.signal(syscall.SIGINT)
	if code := w.end(); code != 130 {
		t.Fatalf("exit %d, want 130", code)
	}
	var doc struct {
		Node struct {
			Enforcement string
			Caveat      string
		}
		Workloads []struct {
			Name, Reason, State string
			Work                int64
		}
	}
	must(t, json.Unmarshal([]byte(w.out.String()), &doc))
	if doc.Node.Enforcement != "signal" || !strings.Contains(doc.Node.Caveat, "lower bound") {
		t.Errorf("enforcement %q, caveat %q; want signal and that charges are a lower bound", doc.Node.Enforcement, doc.Node.Caveat)
	}
	if len(doc.Workloads) != 4 {
		t.Fatalf("%d workloads, want 4", len(doc.Workloads))
	}
	for _, d := range doc.Workloads {
		want := "insolvent"
		if d.Name == "scientist" {
			want = "stopped" // by us
			if d.Work == 0 {
				t.Error("the scientist has done nothing")
			}
		}
		if d.Reason != want {
			t.Errorf("%s ended as %s, want %s", d.Name, d.Reason, want)
		}
	}
	l.clean()
}

// TestWithoutRootDoctor says what is missing, and how to get it.
func TestWithoutRootDoctor(t *testing.T) {
	t.Parallel()
	l := newLabOfNobody(t)
	w := l.watch("doctor")
	if code := w.end(); code != 0 {
		t.Errorf("exit %d", code)
	}
	first, rest, _ := strings.Cut(w.out.String(), "\n")
	second, _, _ := strings.Cut(rest, "\n") // long remarks have a line of their own
	if !strings.Contains(first, "signal") || !strings.Contains(first+second, "better: cgroup") {
		t.Errorf("the first lines name neither what there is nor what would be better:\n%s\n%s", first, second)
	}
	l.clean()
}

// TestWithoutRootDaemon: without settings a user's daemon listens where the user's
// verbs look, keeps its books where the user may write, and remembers the dead.
func TestWithoutRootDaemon(t *testing.T) {
	t.Parallel()
	l := newLabOfNobody(t)
	start := func(args ...string) *watched {
		cmd := l.command(args...)
		cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+l.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: l.who}
		cmd.Dir = "/"
		return l.observe(cmd)
	}
	d := start("daemon")
	await(t, "the daemon", func() bool { return strings.Contains(d.errors.String(), "ready on "+l.dir) })
	if code := start("run", "-q", "--name", "job", "--", "true").end(); code != 0 {
		t.Errorf("run returns %d", code)
	}
	w := start("receipt", "job")
	if code := w.end(); code != 0 || !strings.HasPrefix(w.out.String(), "job exited 0") {
		t.Errorf("receipt returns %d: %s%s", code, w.out.String(), w.errors.String())
	}
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	if code := d.end(); code != 0 {
		t.Errorf("the daemon returns %d: %s", code, d.errors.String())
	}
	state := filepath.Join(l.dir, "maxwell")
	if _, err := os.Stat(filepath.Join(state, "journal.sqlite")); err != nil {
		t.Error(err)
	}
	must(t, os.RemoveAll(state))
	l.clean()
}
