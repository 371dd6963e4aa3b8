package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

func TestDiscoverRecordedMachines(t *testing.T) {
	type summary struct {
		Mode     string
		Own      string // relative to "/"
		Versions map[host.Controller]int
		Online   string
		Threads  int
		Virtual  bool
	}
	user := "/sys/fs/cgroup/user.slice/"
	for name, want := range map[string]summary{
		"vm-hybrid": {
			"hybrid", "/sys/fs/cgroup/unified",
			map[host.Controller]int{host.CPU: 1, host.CPUAcct: 2, host.Memory: 1, host.Pids: 1, host.Freezer: 2},
			"0-1", 1, true,
		},
		"intel-two-socket": {
			"v2", user + "user-0.slice/session-1.scope",
			map[host.Controller]int{host.CPU: 0, host.CPUAcct: 2, host.Memory: 2, host.Pids: 2, host.Freezer: 2},
			"0-7", 2, false,
		},
		"intel-laptop": {
			"v2", user + "user-1000.slice/session-2.scope",
			map[host.Controller]int{host.CPU: 0, host.CPUAcct: 2, host.Memory: 2, host.Pids: 2, host.Freezer: 2},
			"0-3", 2, false,
		},
		"amd-laptop": {
			"v2", user + "user-1000.slice/user@1000.service/app.slice/app-terminal.scope",
			map[host.Controller]int{host.CPU: 2, host.CPUAcct: 2, host.Memory: 2, host.Pids: 2, host.Freezer: 2},
			"0-15", 2, false,
		},
		"systemd-v2": {
			"v2", "/sys/fs/cgroup/system.slice/maxwell.service",
			map[host.Controller]int{host.CPU: 2, host.CPUAcct: 2, host.Memory: 2, host.Pids: 2, host.Freezer: 2},
			"0-3", 2, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := hosttest.Machine(t, name)
			l, err := host.Discover(r)
			if err != nil {
				t.Fatal(err)
			}
			p, err := host.ReadProcessor(r)
			if err != nil {
				t.Fatal(err)
			}
			got := summary{
				l.Mode.String(), strings.TrimPrefix(l.V2.Own, r.Path("/")),
				map[host.Controller]int{},
				host.FormatList(p.Allowed), p.Threads, p.Hypervisor,
			}
			for c := range want.Versions {
				got.Versions[c] = l.Version(c)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
		})
	}
}

func TestV1Dirs(t *testing.T) {
	r := hosttest.Machine(t, "vm-hybrid")
	l, err := host.Discover(r)
	if err != nil {
		t.Fatal(err)
	}
	want := map[host.Controller]string{
		host.CPU:    r.Path("/sys/fs/cgroup/cpu/w"),
		host.Memory: r.Path("/sys/fs/cgroup/memory/agent/masked-1/w"),
	}
	if d := cmp.Diff(want, l.V1Dirs("w", host.CPU, host.Memory, "none")); d != "" {
		t.Errorf("directories (-want +got):\n%s", d)
	}
	if got := l.V1Dirs("w", "none"); got != nil {
		t.Errorf("directories of nothing = %v; want nil", got)
	}
}

// A container sees only its part of the host's tree, under a mount whose root
// is that part.
func TestDiscoverInContainer(t *testing.T) {
	tree := host.Tree{Entries: []host.Entry{
		file("/proc/self/mountinfo", "1 0 0:1 / / rw - ext4 x rw\n"+
			"2 1 0:2 /../other /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"+
			"3 1 0:2 /docker/abc /cg rw - cgroup2 cgroup2 rw\n"+
			"4 1 0:2 / /hidden rw - cgroup2 cgroup2 rw\n5 1 0:3 / /hidden rw - tmpfs tmpfs rw\n"),
		file("/proc/self/cgroup", "0::/docker/abc/job\n"),
		file("/cg/job/cgroup.controllers", "cpu pids\n"),
	}}
	r := hosttest.Unpack(t, tree)
	l, err := host.Discover(r)
	if err != nil {
		t.Fatal(err)
	}
	want := host.Hierarchy{Mount: r.Path("/cg"), Own: r.Path("/cg/job"), Root: "/docker/abc"}
	if d := cmp.Diff(want, l.V2); d != "" {
		t.Errorf("hierarchy (-want +got):\n%s", d)
	}
	for path, want := range map[string]string{"/docker/abc/x": r.Path("/cg/x"), "/docker/abc": r.Path("/cg"), "/docker/abcd": "", "/../x": "", "": ""} {
		if got, ok := l.V2.Dir(path); got != want || ok != (want != "") {
			t.Errorf("directory of group %q: %q, %v; want %q", path, got, ok, want)
		}
	}
}

// A process may sit outside its cgroup namespace; the mount does not show where.
func TestDiscoverOutsideTheNamespace(t *testing.T) {
	r := hosttest.Unpack(t, host.Tree{Entries: []host.Entry{
		file("/proc/self/mountinfo", "3 1 0:2 / /cg rw - cgroup2 cgroup2 rw\n"),
		file("/proc/self/cgroup", "0::/../sibling\n"),
		file("/cg/cgroup.controllers", "cpu\n"),
	}})
	l, err := host.Discover(r)
	if err != nil {
		t.Fatal(err)
	}
	want := host.Hierarchy{Mount: r.Path("/cg"), Own: r.Path("/cg"), Outside: true, Root: "/"}
	if d := cmp.Diff(want, l.V2); d != "" || l.Delegated {
		t.Errorf("delegated %v, hierarchy (-want +got):\n%s", l.Delegated, d)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, name := range hosttest.Names(t) {
		t.Run(name, func(t *testing.T) {
			want := hosttest.Tree(t, name)
			got, err := host.Record(hosttest.Unpack(t, want))
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]string{}
			for _, e := range got.Entries {
				have[e.Path] = string(e.Content) + e.Target
			}
			for _, e := range want.Entries {
				if v, ok := have[e.Path]; !ok && !e.Mode.IsDir() {
					t.Errorf("%s was not recorded again", e.Path)
				} else if ok && v != string(e.Content)+e.Target {
					t.Errorf("%s was recorded as %q; want %q", e.Path, v, string(e.Content)+e.Target)
				}
			}
		})
	}
}

func TestRecordMasksIdentities(t *testing.T) {
	const id, container = "293accd9-7fae-4424-8fbc-4390d258fc83", "0123456789abcdef0123456789abcdef"
	tree := hosttest.Tree(t, "systemd-v2")
	for i, e := range tree.Entries {
		switch e.Path {
		case "/proc/sys/kernel/random/boot_id":
			tree.Entries[i].Content = []byte(id + "\n")
		case "/proc/self/cgroup":
			tree.Entries[i].Content = []byte("0::/" + container + "\n")
		}
	}
	tree.Entries = append(tree.Entries, file("/sys/fs/cgroup/"+container+"/cgroup.controllers", "cpu\n"))
	got, err := host.Record(hosttest.Unpack(t, tree))
	if err != nil {
		t.Fatal(err)
	}
	text := got.String()
	if strings.Contains(text, id) || strings.Contains(text, container) {
		t.Errorf("an identity was recorded:\n%s", text)
	}
	// Paths must still agree: the masked recording is a working machine.
	l, err := host.Discover(hosttest.Unpack(t, got))
	if err != nil || !strings.Contains(l.V2.Own, "masked-") || len(l.Offered) != 1 {
		t.Errorf("masked machine = %+v, %v", l.V2, err)
	}
}

func TestRecordNotesWhatItCouldNotRead(t *testing.T) {
	r := hosttest.Machine(t, "amd-laptop")
	hosttest.AsUser(t, r)
	tree, err := host.Record(r)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(tree.Notes, "\n"); !strings.Contains(text, "intel-rapl:0/energy_uj: permission denied") {
		t.Errorf("notes = %q; want the unreadable counter named", text)
	}
}

func TestRootRefusesToLeave(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := hosttest.Unpack(t, host.Tree{Entries: []host.Entry{
		{Path: "/sys/link", Mode: os.ModeSymlink | 0o777, Target: outside},
		{Path: "/sys/inside", Mode: os.ModeSymlink | 0o777, Target: "deep/file"},
		file("/sys/deep/file", "7\n"),
	}})
	if _, err := r.Sys.Open("link"); err == nil {
		t.Error("an absolute link that leaves the root was followed")
	}
	f, err := r.Sys.Open("inside")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if v, err := f.ReadInt(); v != 7 || err != nil {
		t.Errorf("file behind a link = %d, %v; want 7", v, err)
	}
	if r.Real() {
		t.Error("an unpacked machine claims to be the real one")
	}
}

func file(path, content string) host.Entry {
	return host.Entry{Path: path, Mode: 0o444, Content: []byte(content)}
}

// TestStateDir: nobody but the daemon's user may write where its books are.
func TestStateDir(t *testing.T) {
	top := t.TempDir()
	path := func(name string) string { return filepath.Join(top, name) }
	for name, mode := range map[string]os.FileMode{"shared": 0o777, "group": 0o770, "read": 0o755} {
		if err := os.Mkdir(path(name), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path(name), mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"away": "read", "trap": "shared"} {
		if err := os.Symlink(target, path(link)); err != nil {
			t.Fatal(err)
		}
	}
	uid := os.Getuid()
	for _, c := range []struct {
		name string
		uid  int
		bad  string // text of the refusal
	}{
		{"new", uid, ""},
		{"read", uid, ""},
		{"away", uid, ""},
		{"new/deep", uid, ""},
		{"shared", uid, "chmod 0755"},
		{"group", uid, "chmod 0755"},
		{"trap", uid, "chmod 0755"},
		{"read", uid + 4242, "not owned by uid"},
	} {
		err := host.StateDir(path(c.name), c.uid)
		if (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%s: %v; want %q", c.name, err, c.bad)
		}
	}
	if info, err := os.Stat(path("new")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("made %v, %v; want mode 0700", info, err)
	}
}

// TestALockIsNoLink: one in the place of a lock would have another file overwritten.
func TestALockIsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim, lock := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink("victim", lock)); err != nil {
		t.Fatal(err)
	}
	if _, err := host.LockFile(lock); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link is taken for a lock: %v", err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the file that it names has %q, %v", text, err)
	}
}

func TestRuntimeDir(t *testing.T) {
	r := hosttest.Unpack(t, host.Tree{Entries: []host.Entry{
		{Path: "/run", Mode: os.ModeDir | 0o755},
		{Path: "/tmp", Mode: os.ModeDir | 0o777},
		{Path: "/session", Mode: os.ModeDir | 0o700},
		{Path: "/open", Mode: os.ModeDir | 0o755},
		{Path: "/trap", Mode: os.ModeSymlink | 0o777, Target: "session"},
	}})
	uid := os.Getuid()
	other := uid + 4242
	home := "/session/maxwell"
	if uid == 0 {
		home = "/run/maxwell" // root ignores the session: all its terminals meet there
	}
	for _, c := range []struct {
		name string
		uid  int
		env  map[string]string
		want string // relative to "/"
		bad  string // text of the refusal
	}{
		{"override", uid, map[string]string{"MAXWELL_RUNTIME_DIR": r.Path("/session/mine")}, "/session/mine", ""},
		{"override through a link", uid, map[string]string{"MAXWELL_RUNTIME_DIR": r.Path("/trap")}, "/trap", "not a directory"},
		{"override open to others", uid, map[string]string{"MAXWELL_RUNTIME_DIR": r.Path("/open")}, "/open", "chmod 0700"},
		{"somebody else's", other, map[string]string{}, "", "not owned by uid"},
		{"override that moves with the caller", uid, map[string]string{"MAXWELL_RUNTIME_DIR": "mine"}, "mine", "not an absolute path"},
		{"override too long for a socket", uid, map[string]string{"MAXWELL_RUNTIME_DIR": "/" + strings.Repeat("x", 95)}, "/" + strings.Repeat("x", 95), "at most 95"},
		{"another user's session", other, map[string]string{"XDG_RUNTIME_DIR": r.Path("/session")}, "", "not owned by uid"},
		{"default", uid, map[string]string{"XDG_RUNTIME_DIR": r.Path("/session")}, home, ""},
		{"a session open to others is passed over", other, map[string]string{"XDG_RUNTIME_DIR": r.Path("/open")}, "", "/tmp/maxwell-"},
		{"twice", uid, map[string]string{"MAXWELL_RUNTIME_DIR": r.Path("/session/mine")}, "/session/mine", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := host.RuntimeDir(r, c.uid, func(k string) string { return c.env[k] })
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) {
					t.Errorf("error = %v; want %q", err, c.bad)
				}
				return
			}
			if err != nil || got != r.Path(c.want) {
				t.Errorf("directory = %s, %v; want %s", got, err, r.Path(c.want))
			}
		})
	}
}
