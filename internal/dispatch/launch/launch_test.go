package launch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// run starts a command, collects its output and waits for its end.
func run(t *testing.T, spec Spec) (string, Status) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec.Files[1] = w
	p, err := Start(spec, dispatch.Placement{})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for {
		s, err := p.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if s.Ended() {
			return string(out), s
		}
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		script string
		state  State
		code   int
	}{
		{"exit 0", Exited, 0},
		{"exit 7", Exited, 7},
		{"kill -TERM $$", Signaled, 128 + 15},
		{"kill -KILL $$", Signaled, 128 + 9},
	} {
		if _, s := run(t, Spec{Args: []string{"sh", "-c", c.script}}); s.State != c.state || s.Code != c.code {
			t.Errorf("%s: %+v, want state %d, code %d", c.script, s, c.state, c.code)
		}
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plainFile := write("plain", "x", 0o644)
	garbage := write("garbage", "\x00\x01\x02not a program", 0o755)
	noShell := write("noshell", "#!/does/not/exist\n", 0o755)
	for _, c := range []struct {
		name string
		args []string
		env  []string
		code int
	}{
		{"missing path", []string{"/does/not/exist"}, nil, 127},
		{"missing name", []string{"no-such-command-here"}, nil, 127},
		{"below a file", []string{plainFile + "/x"}, nil, 127},
		{"not executable", []string{plainFile}, nil, 126},
		{"not executable in PATH", []string{"plain"}, []string{"PATH=" + dir}, 126},
		{"directory", []string{dir}, nil, 126},
		{"not a program", []string{garbage}, nil, 126},
		{"missing interpreter", []string{noShell}, nil, 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Start(Spec{Args: c.args, Env: c.env}, dispatch.Placement{})
			e, ok := errors.AsType[*ExecError](err)
			if !ok || e.Code != c.code {
				t.Errorf("error %v, want code %d", err, c.code)
			}
		})
	}
	if _, err := Start(Spec{}, dispatch.Placement{}); !errors.Is(err, errEmpty) {
		t.Errorf("empty command: %v", err)
	}
	if _, err := Start(Spec{Args: []string{"true"}, Dir: "/does/not/exist"}, dispatch.Placement{}); err == nil {
		t.Error("a missing working directory was taken")
	}
}

// A directory of PATH that may not be searched hides its programs; it does not
// turn an unknown name into one that may not be run.
func TestClosedDirectoryInPath(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hidden"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(dir, 0o700) }()
	if os.Geteuid() == 0 { // root searches every directory; this thread does not for a while
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	}
	_, err := lookPath("hidden", "", dir+":/usr/bin")
	if e, ok := errors.AsType[*ExecError](err); !ok || e.Code != CodeNotFound {
		t.Errorf("by name: %v, want code %d", err, CodeNotFound)
	}
	_, err = lookPath(filepath.Join(dir, "hidden"), "", "")
	if e, ok := errors.AsType[*ExecError](err); !ok || e.Code != CodeNotExecutable {
		t.Errorf("by path: %v, want code %d", err, CodeNotExecutable)
	}
}

func TestStopsAreSeen(t *testing.T) {
	p, err := Start(Spec{Args: []string{"sh", "-c", "kill -STOP $$; exit 3"}}, dispatch.Placement{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Wait()
	if err != nil || s.State != Stopped || s.Signal != unix.SIGSTOP {
		t.Fatalf("%+v, %v, want stopped", s, err)
	}
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if s, err = p.Wait(); err != nil || s.State != Continued {
		t.Fatalf("%+v, %v, want continued", s, err)
	}
	if s, err = p.Wait(); err != nil || s.State != Exited || s.Code != 3 {
		t.Fatalf("%+v, %v, want exit 3", s, err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, unix.ESRCH) {
		t.Errorf("signal to a reaped process: %v", err)
	}
}

// An inherited descriptor may be a cgroup's; only the listed ones pass.
func TestDescriptorsAreClosed(t *testing.T) {
	leak, err := unix.Open("/", unix.O_PATH, 0) // without O_CLOEXEC: as inherited
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// Not in a pipeline: the shell has a pipe of its own until it has started both ends.
	out, _ := run(t, Spec{Args: []string{"sh", "-c", "ls /proc/$$/fd; echo work 1 >&3"}, Report: w})
	_ = w.Close()
	if out != "0\n1\n2\n3\n" {
		t.Errorf("the child has descriptors %q, want 0 1 2 3", out)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "work 1\n" {
		t.Errorf("report %q, %v", text, err)
	}
	out, _ = run(t, Spec{Args: []string{"sh", "-c", "ls /proc/$$/fd; true"}})
	if out != "0\n1\n2\n" {
		t.Errorf("without report: %q, want 0 1 2", out)
	}
}

func TestEnvironmentLastEntryWins(t *testing.T) {
	id := &Identity{Name: "ann", Home: "/home/ann"}
	env := id.Environ([]string{"PATH=/bin:/usr/bin", "HOME=/root", "USER=root"})
	out, _ := run(t, Spec{Args: []string{"sh", "-c", "echo $HOME $USER $LOGNAME"}, Env: env})
	if out != "/home/ann ann ann\n" {
		t.Errorf("%q", out)
	}
}

func TestInvoker(t *testing.T) {
	get := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		name string
		env  map[string]string
		uid  uint32
		none bool
		bad  bool
	}{
		{name: "no sudo", none: true},
		{name: "root by sudo", env: map[string]string{"SUDO_UID": "0", "SUDO_GID": "0"}, none: true},
		{name: "a person", env: map[string]string{"SUDO_UID": "54321", "SUDO_GID": "54321"}, uid: 54321},
		{name: "negative", env: map[string]string{"SUDO_UID": "-1", "SUDO_GID": "1"}, bad: true},
		{name: "no group", env: map[string]string{"SUDO_UID": "5"}, bad: true},
	} {
		id, err := Invoker(get(c.env))
		if (err != nil) != c.bad || !c.bad && (id == nil) != c.none || id != nil && id.UID != c.uid {
			t.Errorf("%s: %+v, %v", c.name, id, err)
		}
	}
}

func TestCredentialIsDropped(t *testing.T) {
	if os.Geteuid() != 0 {
		hosttest.Skip(t, "root", "there is nothing to drop")
	}
	out, _ := run(t, Spec{
		Args:       []string{"id", "-u"},
		Credential: &Identity{UID: 65534, GID: 65534, Groups: []uint32{65534}},
	})
	if out != "65534\n" {
		t.Errorf("runs as %q", out)
	}
}

func TestProcessorsAreChosenAndGivenBack(t *testing.T) {
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	first := 0
	for !before.IsSet(first) {
		first++
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := Start(Spec{Args: []string{"grep", "Cpus_allowed_list", "/proc/self/status"}, Files: [3]*os.File{1: w}},
		dispatch.Placement{CPUs: []int{first}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if f := bytes.Fields(out); len(f) != 2 || string(f[1]) != strconv.Itoa(first) {
		t.Errorf("the child may run on %q, want %d", out, first)
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Error("the caller's own processors changed")
	}
}

// The main thread's processors and groups are what /proc/self shows for the whole
// program.
func TestTheMainThreadStaysWhereItIs(t *testing.T) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &before); err != nil {
		t.Fatal(err)
	}
	if before.Count() < 2 {
		hosttest.Skip(t, "processors", "with one there is no other place to be")
	}
	first := 0
	for !before.IsSet(first) {
		first++
	}
	done := make(chan struct{})
	var looking, starting sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var now unix.CPUSet
			if err := unix.SchedGetaffinity(os.Getpid(), &now); err != nil || now != before {
				t.Errorf("the main thread may run on %d processors of %d, %v", now.Count(), before.Count(), err)
				return
			}
		}
	})
	for range 4 {
		starting.Go(func() {
			for range 25 {
				p, err := Start(Spec{Args: []string{"true"}}, dispatch.Placement{CPUs: []int{first}})
				if err != nil {
					t.Error(err)
					return
				}
				if p.Stray != nil {
					t.Errorf("a thread did not come home: %v", p.Stray)
				}
				if _, err := p.Wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	starting.Wait()
	close(done)
	looking.Wait()
}

// A thread whose home has no name here is ended, and not sent to where the mount
// begins.
func TestHomesOutOfSight(t *testing.T) {
	layout := host.Layout{V1: map[host.Controller]host.Hierarchy{
		host.CPU:    {Mount: "/cg/cpu", Own: "/cg/cpu/here"},
		host.Memory: {Mount: "/cg/memory", Own: "/cg/memory", Outside: true},
	}}
	home, err := homesOf(layout, []string{"/cg/cpu/maxwell/w-a/tasks", "/cg/memory/maxwell/w-a/tasks"})
	if want := []string{"/cg/cpu/here/tasks", ""}; err != nil || !slices.Equal(home, want) {
		t.Errorf("homes %q, %v, want %q", home, err, want)
	}
	if err := (&away{home: home[1:]}).goHome(); !errors.Is(err, errNoHome) {
		t.Errorf("gone home: %v, want %v", err, errNoHome)
	}
}

func TestGroupThatIsGone(t *testing.T) {
	_, err := Start(Spec{Args: []string{"true"}}, dispatch.Placement{Cgroup: filepath.Join(t.TempDir(), "gone")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not exist", err)
	}
	if _, ok := errors.AsType[*ExecError](err); ok {
		t.Error("the command was blamed")
	}
	_, err = Start(Spec{Args: []string{"true"}}, dispatch.Placement{Tasks: []string{"/nowhere/tasks"}})
	if _, ok := errors.AsType[*joinError](err); !ok {
		t.Errorf("error %v, want a join error", err)
	}
}
