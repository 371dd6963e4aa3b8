package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// binaryVariable carries the path of the built command from TestMain to the
// tests.
const binaryVariable = "MAXWELL_E2E_BINARY"

// TestMain builds the real command once, without the race detector: what is
// tried is what a person runs. Its folder is open to other users, so that a
// test may run it as one.
func TestMain(m *testing.M) {
	if what := os.Getenv(actVariable); what != "" {
		act(what)
		return
	}
	if os.Getenv(binaryVariable) != "" { // a binary that was built before
		os.Exit(m.Run())
	}
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "mxe2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	binary := filepath.Join(dir, "maxwell")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../cmd/maxwell")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build maxwell: %w\n%s", err, out)
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// maxwell is the command under test.
func maxwell(t testing.TB) string {
	t.Helper()
	path := os.Getenv(binaryVariable)
	if path == "" {
		t.Fatal("TestMain has built no command")
	}
	return path
}

// result is how one call of the command ended.
type result struct {
	stdout, stderr string
	code           int // exit code; 128+n if signal n ended it, as a shell says
	wall           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("exit %d after %v\nstdout:\n%sstderr:\n%s", r.code, r.wall.Round(time.Millisecond), r.stdout, r.stderr)
}

// callLimit bounds every call of the command: longer is a hang, not slowness.
const callLimit = 60 * time.Second

// place is where one market lives: a runtime directory that no other test
// uses. What its commands start can be told by their environment.
type place struct {
	t   testing.TB
	dir string
}

// newPlace makes a place and checks, when the test is over, that nothing of it
// is left: no process, no file, no cgroup.
func newPlace(t testing.TB) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "mxrt-") // not t.TempDir: a socket's path is at most 107 bytes
	must(t, err)
	p := &place{t: t, dir: dir}
	t.Cleanup(p.check)
	return p
}

// run runs `maxwell args...` in a market of its own.
func run(t testing.TB, args ...string) result {
	t.Helper()
	return newPlace(t).run(args...)
}

// environ is the environment of this place's commands.
func (p *place) environ() []string {
	clean := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SUDO_") || strings.HasPrefix(v, "MAXWELL_")
	})
	return append(clean, p.mark())
}

// mark is in the environment of everything that this place's commands start.
func (p *place) mark() string { return "MAXWELL_RUNTIME_DIR=" + p.dir }

// command is `maxwell args...` in this place, not yet started. It ends with
// the test.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(p.t.Context(), maxwell(p.t), args...)
	cmd.Env = p.environ()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs a command of this place to its end.
func (p *place) run(args ...string) result {
	p.t.Helper()
	return p.finish(p.start(p.command(args...)))
}

// started is a command that runs.
type started struct {
	cmd         *exec.Cmd
	out, errors *bytes.Buffer
	began       time.Time
	late        *time.Timer
}

// start starts cmd, collecting what it prints unless the test already does.
func (p *place) start(cmd *exec.Cmd) *started {
	p.t.Helper()
	s := &started{cmd: cmd, out: new(bytes.Buffer), errors: new(bytes.Buffer), began: time.Now()}
	if cmd.Stdout == nil {
		cmd.Stdout = s.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = s.errors
	}
	must(p.t, cmd.Start())
	s.late = time.AfterFunc(callLimit, func() { _ = cmd.Process.Kill() })
	return s
}

// finish waits for a started command.
func (p *place) finish(s *started) result {
	p.t.Helper()
	err := s.cmd.Wait()
	s.late.Stop()
	r := result{stdout: s.out.String(), stderr: s.errors.String(), wall: time.Since(s.began)}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
		if w, ok := exit.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			r.code = 128 + int(w.Signal())
		}
	case errors.Is(err, context.Canceled):
	default:
		p.t.Fatalf("%s: %v\n%v", strings.Join(s.cmd.Args, " "), err, r)
	}
	if r.wall >= callLimit {
		p.t.Fatalf("%s: hangs\n%v", strings.Join(s.cmd.Args, " "), r)
	}
	return r
}

// log is what the market of this place wrote.
func (p *place) log() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "market.log"))
	return string(text)
}

// cleanWithin is how long a market and its watchdog may take to remove
// everything after the last client has gone.
const cleanWithin = 10 * time.Second

// check fails the test for everything that its market left behind.
func (p *place) check() {
	var left []string
	gone := eventually(cleanWithin, func() bool {
		left = p.left()
		return len(left) == 0
	})
	if !gone {
		p.t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		for _, pid := range p.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if p.t.Failed() {
		p.t.Logf("log of the market:\n%s", p.log())
	}
	_ = os.RemoveAll(p.dir)
}

// left lists what should not be there any more.
func (p *place) left() []string {
	var left []string
	for _, pid := range p.processes() {
		left = append(left, fmt.Sprintf("process %d: %s", pid, commandLine(pid)))
	}
	files, err := os.ReadDir(p.dir)
	must(p.t, err)
	for _, f := range files {
		if f.Name() != "market.log" { // kept for whoever looks for the reason
			left = append(left, "file "+filepath.Join(p.dir, f.Name()))
		}
	}
	return append(left, orphans()...)
}

// processes lists the living processes that this place's commands started,
// however deep, whatever they did to escape.
func (p *place) processes() []int {
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	must(p.t, err)
	var pids []int
	for _, name := range list {
		text, err := os.ReadFile(name)
		if err != nil || !slices.Contains(strings.Split(string(text), "\x00"), p.mark()) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		pids = append(pids, pid)
	}
	return pids
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
}

// orphans lists market directories that nobody holds: a living market holds a
// lock on its own, so a free one was left by a dead market. A daemon's may be between
// two of its processes: its own test looks after it.
func orphans() []string {
	var left []string
	for _, mount := range cgroupMounts() {
		found, _ := filepath.Glob(filepath.Join(mount, "maxwell*"))
		for _, dir := range found {
			if mark, err := host.ReadMark(dir); err != nil || mark.Mode == "daemon" {
				continue // not a market's: another test's directory
			}
			if held, err := host.Locked(dir); err == nil && !held {
				left = append(left, "cgroup "+dir)
			}
		}
	}
	return left
}

// cgroupMounts lists where cgroup hierarchies are mounted, v1 and v2.
func cgroupMounts() []string {
	return slices.Concat(mountsOf("cgroup2"), mountsOf("cgroup"))
}

func mountsOf(kind string) []string {
	text, _ := os.ReadFile("/proc/self/mounts")
	var at []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == kind {
			at = append(at, f[1])
		}
	}
	return at
}

// needCgroups skips the test where the market cannot make cgroups.
func needCgroups(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		hosttest.Skip(t, host.FeatureCgroupCreate, "not root")
	}
	mounts := mountsOf("cgroup2")
	if len(mounts) == 0 {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount")
	}
	probe, err := os.MkdirTemp(mounts[0], "maxwell-test-e2e-") // tests side by side try at once
	if err != nil {
		hosttest.Skip(t, host.FeatureCgroupCreate, err.Error())
	}
	must(t, os.Remove(probe))
}

// eventually waits until ok holds, at most for d. It is for what another
// process does and nobody announces; it ends as soon as it is done.
func eventually(d time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(d)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
