package meter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

func roots(t testing.TB) host.Roots {
	t.Helper()
	r, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// world is a market's directory with groups of real processes.
type world struct {
	t      testing.TB
	parent host.CgroupRef
}

func newWorld(t testing.TB, v1 ...host.Controller) *world {
	t.Helper()
	l, err := host.Discover(roots(t))
	if err != nil {
		t.Fatal(err)
	}
	if l.V2.Mount == "" || l.V2.Outside || l.V2.ReadOnly {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount to work in")
	}
	name := fmt.Sprintf("maxwell-test-meter-%d-%s", os.Getpid(), strings.ToLower(strings.NewReplacer("/", "-", "#", "-").Replace(t.Name())))
	w := &world{t: t}
	w.mkdir(filepath.Join(l.V2.Own, name))
	dirs := l.V1Dirs(name, v1...)
	if len(dirs) != len(v1) {
		hosttest.Skip(t, "cgroup1-cpu", fmt.Sprintf("no v1 hierarchies of %v", v1))
	}
	for _, dir := range dirs {
		w.mkdir(dir)
	}
	if w.parent, err = host.Ref(filepath.Join(l.V2.Own, name), dirs); err != nil {
		t.Fatal(err)
	}
	return w
}

// in is the same world for a sub-test, which cleans up what it makes.
func (w *world) in(t testing.TB) *world { return &world{t: t, parent: w.parent} }

func (w *world) mkdir(dir string) {
	w.t.Helper()
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		hosttest.Skip(w.t, host.FeatureCgroupCreate, err.Error())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		kill(dir)
		if err := removeDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.t.Error(err)
		}
	})
}

// kill ends every process below a cgroup2 directory and waits for it to be
// empty.
func kill(dir string) {
	_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	for range 500 {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil || strings.Contains(string(b), "populated 0") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// group makes the group of a wallet, with a directory in each hierarchy of
// the world.
func (w *world) group(name string) host.CgroupRef {
	w.t.Helper()
	v1 := map[host.Controller]string{}
	for c, dir := range w.parent.V1 {
		v1[c] = filepath.Join(dir, name)
		w.mkdir(v1[c])
	}
	dir := filepath.Join(w.parent.Dir, name)
	w.mkdir(dir)
	ref, err := host.Ref(dir, v1)
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

// start starts a command in a cgroup2 directory of this world, on one processor
// or on any (cpu < 0), and kills the group at the end of the test.
func (w *world) start(dir string, cpu int, args ...string) *exec.Cmd {
	w.t.Helper()
	cmd, err := launch(dir, cpu, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		kill(dir)
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// stranger starts a command beside the world, in the group that the test itself
// may be in, and ends it alone at the end of the test.
func (w *world) stranger(cpu int, args ...string) {
	w.t.Helper()
	cmd, err := launch(filepath.Dir(w.parent.Dir), cpu, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func launch(dir string, cpu int, args ...string) (*exec.Cmd, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	if cpu >= 0 {
		// The child inherits the forking thread's processors.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var old, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &old); err != nil {
			return nil, err
		}
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return nil, err
		}
		defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	}
	return cmd, cmd.Start()
}

// run runs a command in a group to its end.
func (w *world) run(dir string, args ...string) {
	w.t.Helper()
	cmd := w.start(dir, -1, args...)
	if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%v: %v", args, err)
	}
}

const spin = "while :; do :; done"

// eventually polls a condition, for at most ten seconds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

// during reads a meter every 20 ms for d, as an epoch loop does.
func during(t testing.TB, m Meter, d time.Duration, dst []Sample) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < d; <-tick.C {
		if _, err := m.Read(dst); err != nil {
			t.Fatal(err)
		}
	}
}

// empty waits until no process is left in a group.
func empty(t testing.TB, dir string) {
	t.Helper()
	var last time.Duration
	still := 0
	eventually(t, dir+" is empty", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil || !strings.Contains(string(b), "populated 0") {
			return false
		}
		// The dead use a processor for some microseconds more.
		used, err := usage(dir)
		if err != nil || used != last {
			last, still = used, 0
			return false
		}
		still++
		return still == 3
	})
}

func write(t testing.TB, dir, file string, value any) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprint(f, value); err != nil {
		t.Fatal(err)
	}
}
