package host

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	text := "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue\n" +
		"40 36 0:37 / /cg rw - cgroup2  rw\n"
	got, err := ParseMounts([]byte(text))
	want := Mounts{
		{ID: 36, Parent: 35, Root: "/mnt1", Point: "/mnt/a b", Type: "ext3", Options: "rw,noatime", Super: "rw,errors=continue"},
		{ID: 40, Parent: 36, Root: "/", Point: "/cg", Type: "cgroup2", Options: "rw", Super: "rw"},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("mounts: %v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"36 35 98:0 / /x rw\n", "a 1 0:1 / /x rw - t s rw\n", "1 b 0:1 / /x rw - t s rw\n", "1 2 3 - t\n"} {
		if _, err := ParseMounts([]byte(bad)); err == nil {
			t.Errorf("ParseMounts(%q) took a bad line", bad)
		}
	}
}

func TestVisibleDropsCoveredMounts(t *testing.T) {
	list := Mounts{
		{ID: 1, Parent: 0, Point: "/"},
		{ID: 2, Parent: 1, Point: "/dev/pts"},
		{ID: 3, Parent: 2, Point: "/dev/pts"}, // on top of 2
		{ID: 4, Parent: 1, Point: "/a/b"},
		{ID: 5, Parent: 1, Point: "/a"}, // later, over the parent directory of 4
		{ID: 6, Parent: 5, Point: "/a/b"},
		{ID: 7, Parent: 1, Point: "/ab"}, // not below /a
		{ID: 8, Parent: 1, Point: "/s"},
		{ID: 9, Parent: 1, Point: "/s"}, // neither is known to be on top
	}
	var ids []int
	for _, m := range list.Visible() {
		ids = append(ids, m.ID)
	}
	if want := []int{1, 3, 5, 6, 7, 8, 9}; !slices.Equal(ids, want) {
		t.Errorf("visible = %v; want %v", ids, want)
	}
}

// A machine that never left its first ram disk shows it as its own parent.
func TestVisibleBelowARootThatIsItsOwnParent(t *testing.T) {
	list, err := ParseMounts([]byte(`1 1 0:2 / / rw - rootfs none rw
20 1 0:20 / /proc rw - proc proc rw
27 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
28 1 0:26 / /sys rw - sysfs sysfs rw
29 28 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
`))
	if err != nil {
		t.Fatal(err)
	}
	var ids []int
	for _, m := range list.Visible() {
		ids = append(ids, m.ID)
	}
	if want := []int{1, 20, 28, 29}; !slices.Equal(ids, want) {
		t.Errorf("visible = %v; want %v", ids, want)
	}
}

func TestParseMembership(t *testing.T) {
	got, err := ParseMembership([]byte("11:cpu,cpuacct:/a:b\n9:name=systemd:/s\n2:pids:/p (deleted)\n0::/u\n"))
	want := Membership{
		V2: "/u", V1: map[Controller]string{CPU: "/a:b", CPUAcct: "/a:b", Pids: "/p"},
		Named: map[string]string{"systemd": "/s"},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("membership: %v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"0:/x\n", "x::/u\n", "0::relative\n"} {
		if _, err := ParseMembership([]byte(bad)); err == nil {
			t.Errorf("ParseMembership(%q) took a bad line", bad)
		}
	}
}

func TestParseList(t *testing.T) {
	for text, want := range map[string][]int{
		"": nil, "0": {0}, "0-3,8\n": {0, 1, 2, 3, 8}, "2,1,1-2": {1, 2},
	} {
		if got, err := ParseList(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("ParseList(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"a", "3-1", "0-", ",", "-1", "0-99999999", "1 2"} {
		if got, err := ParseList(bad); err == nil {
			t.Errorf("ParseList(%q) = %v; want an error", bad, got)
		}
	}
}

func TestMarkRoundTrip(t *testing.T) {
	m := Mark{Boot: "b-1", UID: 1000, Mode: "up"}
	if got, err := ParseMark(m.String()); err != nil || got != m {
		t.Errorf("round trip = %+v, %v; want %+v", got, err, m)
	}
	for _, bad := range []string{"", "maxwell1", "maxwell1 b -1 up", "maxwell1 b 01 up", "maxwell2 b 1 up", "maxwell1 b 1 up x", "maxwell1  1 up"} {
		if got, err := ParseMark(bad); err == nil {
			t.Errorf("ParseMark(%q) = %+v; want an error", bad, got)
		}
	}
	for _, c := range []struct {
		boot string
		uid  int
		want bool
	}{{"b-1", 1000, true}, {"b-1", 0, true}, {"b-1", 1001, false}, {"b-2", 1000, false}, {"b-2", 0, false}} {
		if got := m.Ours(c.boot, c.uid); got != c.want {
			t.Errorf("Ours(%s, %d) = %v; want %v", c.boot, c.uid, got, c.want)
		}
	}
}

func TestTreeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"version":          "maxwell-tree 2\n",
		"no end":           "maxwell-tree 1\nfile 0444 /a",
		"relative":         "maxwell-tree 1\nfile 0444 a\n",
		"climbing":         "maxwell-tree 1\nfile 0444 /../etc/x\n",
		"root":             "maxwell-tree 1\ndir 0755 /\n",
		"twice":            "maxwell-tree 1\nfile 0444 /a\nfile 0444 /a\n",
		"mode":             "maxwell-tree 1\nfile 444 /a\n",
		"kind":             "maxwell-tree 1\npipe 0444 /a\n",
		"orphan content":   "maxwell-tree 1\n\tx\n",
		"content of a dir": "maxwell-tree 1\ndir 0755 /a\n\tx\n",
		"field":            "maxwell-tree 1\nfile 0444 /a bold\n",
		"quote":            "maxwell-tree 1\nfile 0444 /a quoted\n\tx\n",
		"link to nothing":  "maxwell-tree 1\nlink /a \n",
		"late note":        "maxwell-tree 1\nfile 0444 /a\n# note\n",
	} {
		if _, err := ParseTree([]byte(text)); err == nil {
			t.Errorf("%s: %q was taken", name, text)
		}
	}
}

func TestTreeKeepsEveryContent(t *testing.T) {
	want := Tree{Notes: []string{"a note", ""}, Entries: []Entry{
		{Path: "/a:1", Mode: 0o400, Content: []byte("one\n\n\ttabbed\n")},
		{Path: "/b", Mode: 0o644, Content: []byte("no newline")},
		{Path: "/c", Mode: 0o444, Content: []byte("\x00\xff\r\n")},
		{Path: "/d", Mode: 0o755 | fs.ModeDir},
		{Path: "/e", Mode: 0o777 | fs.ModeSymlink, Target: "../x"},
		{Path: "/f", Mode: 0o444},
	}}
	got, err := ParseTree([]byte(want.String()))
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("round trip: %v (-want +got):\n%s", err, d)
	}
}

func TestShortRelease(t *testing.T) {
	for release, want := range map[string]string{
		"6.18.44-generic": "6.18", "6.1": "6.1", "7.0-rc1": "7.0", "odd": "odd", "6.x": "6.x", "": "",
	} {
		if got := shortRelease(release); got != want {
			t.Errorf("shortRelease(%q) = %q; want %q", release, got, want)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte("36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n"))
	f.Add([]byte("40 40 0:37 / / rw - cgroup2  rw\n"))
	f.Add([]byte("1 2 0:1 / /a\\0 rw - t\\777 s rw\n2 1 0:1 / /a rw - t s rw\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ParseMounts(text)
		if err == nil && len(list.Visible()) > len(list) {
			t.Error("more visible mounts than mounts")
		}
	})
}

func FuzzMembership(f *testing.F) {
	f.Add([]byte("11:cpu,cpuacct:/a:b\n9:name=systemd:/s\n0::/u (deleted)\n"))
	f.Add([]byte("0::/\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMembership(text)
		if err != nil {
			return
		}
		for c, p := range m.V1 {
			if c == "" || !strings.HasPrefix(p, "/") && p != "" {
				t.Errorf("controller %q at %q", c, p)
			}
		}
	})
}

func FuzzList(f *testing.F) {
	for _, s := range []string{"", "0-3,8", "5,5,4-6", "16383", "0-16383,0-16383"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseList(text)
		if err != nil {
			return
		}
		again, err := ParseList(FormatList(list))
		if err != nil || !slices.Equal(list, again) {
			t.Errorf("%q: %v became %v, %v", text, list, again, err)
		}
	})
}

func FuzzProcessor(f *testing.F) {
	f.Add([]byte("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel name\t: AMD EPYC\nsiblings\t: 2\ncpu cores\t: 1\nflags\t\t: fpu hypervisor\n"))
	f.Add([]byte("CPU implementer\t: 0x41\nFeatures\t: fp asimd\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p := ParseProcessor(text); p.Threads < 1 {
			t.Errorf("%d threads a core", p.Threads)
		}
	})
}

func FuzzMark(f *testing.F) {
	f.Add("maxwell1 b 1000 up")
	f.Add("maxwell1 b 99999999999 up")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseMark(text); err == nil && m.String() != text {
			t.Errorf("%q became %q", text, m.String())
		}
	})
}

func FuzzTree(f *testing.F) {
	recorded, err := filepath.Glob("hosttest/testdata/*.tree")
	if err != nil || len(recorded) == 0 {
		f.Fatalf("no recorded machines to start from: %v", err)
	}
	for _, name := range recorded {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("maxwell-tree 1\n# note\nfile 0444 /a\n\tx\n\nlink /b ../c\ndir 0755 /d\n"))
	f.Add([]byte("maxwell-tree 1\nfile 0444 /a quoted\n\t\"\\x00\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tree, err := ParseTree(text)
		if err != nil {
			return
		}
		again, err := ParseTree([]byte(tree.String()))
		if err != nil || !reflect.DeepEqual(tree, again) {
			t.Errorf("%q became %q: %v", tree.String(), again.String(), err)
		}
	})
}

func TestParseProcStat(t *testing.T) {
	line := "4242 (a b) R) S 17 4242 4200 34817 4243 4194308 100 200 0 0 11 22 33 44 20 0 3 0 987654 1000 5 18446744073709551615 1"
	want := ProcStat{
		PID: 4242, State: 'S', Parent: 17, Group: 4242, Session: 4200, Flags: 4194308, Used: 33, Waited: 77, Threads: 3, Start: 987654, Resident: 5,
	}
	if s, ok := ParseProcStat([]byte(line)); !ok || s != want {
		t.Errorf("%+v %t, want %+v", s, ok, want)
	}
	for _, bad := range []string{
		"", "1", "1 (x", "1 (x)", "1 (x) R", "1 (x) R 1 2", "x (x) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21",
		"1 (x) R 1 2 3 4 5 6 7 8 9 10 -1 12 13 14 15 16 17 18 19 20 21",
	} {
		if s, ok := ParseProcStat([]byte(bad)); ok {
			t.Errorf("%q: %+v", bad, s)
		}
	}
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := ParseProcStat(b); !ok || s.PID != os.Getpid() || s.Parent != os.Getppid() || s.Start <= 0 || s.Resident <= 0 {
		t.Errorf("ourselves: %+v %t", s, ok)
	}
}

// FuzzParseProcStat holds that no name that a program gives itself makes times that are
// negative or overflow as nanoseconds.
func FuzzParseProcStat(f *testing.F) {
	if b, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(b)
	}
	f.Add([]byte("7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 999 1000 50 18446744073709551615 1"))
	f.Add([]byte("7 ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		const tick = 10_000_000
		s, ok := ParseProcStat(b)
		if ok && (s.PID <= 0 || s.Used < 0 || s.Used*tick/tick != s.Used || s.Waited < 0 || s.Waited*tick/tick != s.Waited || s.Start < 0 || s.Resident < 0) {
			t.Errorf("%q: %+v", b, s)
		}
	})
}
