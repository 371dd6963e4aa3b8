package host_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/host"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// machine opens the machine that runs the tests.
func machine(t *testing.T) (host.Roots, host.Layout) {
	t.Helper()
	r, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	l, err := host.Discover(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, l
}

// leftovers lists what trials left in any hierarchy.
func leftovers(t *testing.T, l host.Layout, prefix string) []string {
	t.Helper()
	dirs := []string{l.V2.Own, l.V2.Mount}
	for _, h := range l.V1 {
		dirs = append(dirs, h.Own, h.Mount)
	}
	var left []string
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	return left
}

func find(t *testing.T, list []host.Finding, f host.Feature) host.Finding {
	t.Helper()
	i := slices.IndexFunc(list, func(x host.Finding) bool { return x.Feature == f })
	if i < 0 {
		t.Fatalf("no finding for %s", f)
	}
	return list[i]
}

// TestSurveyThisMachine really tries everything. A feature that is missing is
// a typed skip; a probe that breaks, or a missing feature that the machine's
// layout promises, is a failure.
func TestSurveyThisMachine(t *testing.T) {
	r, l := machine(t)
	tried := 0
	s := host.Survey{Roots: r, Layout: l, Name: "maxwell-test-probe", BPF: func() error { tried++; return nil }}
	list := s.Run()
	if left := leftovers(t, l, s.Name); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if tried != 1 {
		t.Errorf("the injected BPF probe ran %d times; want once", tried)
	}
	for _, f := range list {
		t.Run(string(f.Feature), func(t *testing.T) {
			hosttest.Need(t, f.Feature, f.Err)
			t.Logf("works %s", f.Note)
		})
	}
	if os.Geteuid() == 0 && l.V2.Mount != "" && !l.V2.ReadOnly && find(t, list, host.FeatureCgroupCreate).Err == nil {
		for _, f := range []host.Feature{host.FeatureCgroupStart, host.FeatureCgroupFreeze, host.FeatureMark} {
			if err := find(t, list, f).Err; err != nil {
				t.Errorf("root can make a group, but: %v", err)
			}
		}
	}
}

func TestSurveyDenied(t *testing.T) {
	r, l := machine(t)
	if os.Geteuid() != 0 || l.V2.Mount == "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, "needs root and cgroup2, to lose them")
	}
	hosttest.AsUser(t, r)
	list := host.Survey{Roots: r, Layout: l, Name: "maxwell-test-denied"}.Run()
	for _, f := range []host.Feature{host.FeatureCgroupCreate, host.FeatureCgroupStart, host.FeatureCgroupFreeze, host.FeatureCgroupKill, host.FeatureMark} {
		err := find(t, list, f).Err
		u, ok := errors.AsType[*host.Unavailable](err)
		if !ok || !errors.Is(err, host.ErrDenied) || !strings.Contains(u.Reason, "permission denied") || u.Hint == "" && os.Geteuid() != 0 {
			t.Errorf("%s: %v; want a typed denial", f, err)
		}
	}
}

func TestSurveyWithoutAChild(t *testing.T) {
	r, l := machine(t)
	s := host.Survey{Roots: r, Layout: l, Name: "maxwell-test-childless", Child: []string{"/nonexistent/program"}}
	list := s.Run()
	if create := find(t, list, host.FeatureCgroupCreate).Err; create != nil {
		hosttest.Need(t, host.FeatureCgroupCreate, create)
	}
	for _, f := range []host.Feature{host.FeatureCgroupStart, host.FeatureCgroupFreeze, host.FeatureCgroupKill, host.FeatureNamespaces} {
		if err := find(t, list, f).Err; !errors.Is(err, host.ErrUnavailable) {
			t.Errorf("%s: %v; want unavailable for want of a child", f, err)
		}
	}
	if left := leftovers(t, l, s.Name); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSurveyOfARecording(t *testing.T) {
	for _, c := range []struct {
		machine  string
		powercap string // text of the refusal; "" = works
		schedExt string
		systemd  string
	}{
		{"vm-hybrid", "no RAPL zones", "needs Linux 6.12+ built with sched_ext; this 6.18 is not", "systemd does not run"},
		{"intel-two-socket", "", "no sched_ext", ""},
		{"amd-laptop", "energy_uj: permission denied", "no sched_ext", ""},
		{"systemd-v2", "no RAPL zones", "", ""},
	} {
		t.Run(c.machine, func(t *testing.T) {
			r := hosttest.Machine(t, c.machine)
			l, err := host.Discover(r)
			if err != nil {
				t.Fatal(err)
			}
			if c.machine == "amd-laptop" {
				hosttest.AsUser(t, r)
			}
			list := host.Survey{Roots: r, Layout: l}.Run()
			for f, want := range map[host.Feature]string{
				host.FeaturePowercap: c.powercap, host.FeatureSchedExt: c.schedExt, host.FeatureSystemd: c.systemd,
				host.FeatureCgroupCreate: "recording", host.FeatureFIFO: "recording", host.FeatureCgroupCPU: "recording",
			} {
				err := find(t, list, f).Err
				if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v; want %q", f, err, want)
				}
			}
		})
	}
}

func TestRaisePriority(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := host.RaisePriority()
	during, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	born := childPolicy(t)
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	after, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("restored to %+v; want %+v", after, before)
	}
	if p.Urgency == host.UrgencyNormal {
		hosttest.Need(t, host.FeatureFIFO, p.Why)
	}
	if born.Policy != unix.SCHED_NORMAL || born.Nice < 0 {
		t.Errorf("a child of the raised thread was born %+v; want an ordinary process", born)
	}
	want := map[host.Urgency]unix.SchedAttr{
		host.UrgencyFIFO: {Policy: unix.SCHED_FIFO, Priority: 10},
		host.UrgencyNice: {Policy: unix.SCHED_NORMAL, Nice: -20},
	}[p.Urgency]
	if during.Policy != want.Policy || during.Priority != want.Priority || during.Nice != want.Nice {
		t.Errorf("%v: scheduled as %+v; want %+v", p, during, want)
	}
	if (p.Why == nil) != (p.Urgency == host.UrgencyFIFO) {
		t.Errorf("urgency %v with reason %v", p.Urgency, p.Why)
	}
}

// childPolicy starts a child from this thread and returns how it is scheduled.
func childPolicy(t *testing.T) *unix.SchedAttr {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	child, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "read -r x"}, &os.ProcAttr{Files: []*os.File{read, nil, nil}})
	if err != nil {
		t.Fatal(errors.Join(err, write.Close()))
	}
	attr, err := unix.SchedGetAttr(child.Pid, 0)
	if err = errors.Join(err, write.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	return attr
}

func TestClock(t *testing.T) {
	var c host.Clock
	start := c.Now()
	target := start + 2_000_000
	if got := c.SleepUntil(target); got < target || got > c.Now() {
		t.Errorf("woke at %d; want at %d or after, and not after now", got, target)
	}
	if got := c.SleepUntil(start - 1); got < target {
		t.Errorf("a sleep into the past returned %d; want now", got)
	}
	if start <= 0 {
		t.Errorf("now = %d", start)
	}
}

// group makes an empty cgroup2 directory for the test.
func group(t *testing.T, name string) string {
	t.Helper()
	_, l := machine(t)
	if l.V2.Mount == "" {
		hosttest.Skip(t, host.FeatureCgroupCreate, "no cgroup2 mount")
	}
	dir := filepath.Join(l.V2.Own, fmt.Sprintf("%s-%d", name, os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
			hosttest.Skip(t, host.FeatureCgroupCreate, err.Error())
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

func TestWaitEvent(t *testing.T) {
	dir := group(t, "maxwell-test-events")
	events := filepath.Join(dir, "cgroup.events")
	if ok, err := host.WaitEvent(events, "populated", 0, time.Minute); !ok || err != nil {
		t.Errorf("what is so already = %v, %v; want true", ok, err)
	}
	if ok, err := host.WaitEvent(events, "populated", 1, 5*time.Millisecond); ok || err != nil {
		t.Errorf("what does not come = %v, %v; want false", ok, err)
	}
	if _, err := host.WaitEvent(events, "nothing", 1, time.Minute); err == nil {
		t.Error("a missing key was waited for")
	}
}

func TestRemovedGroupIsGone(t *testing.T) {
	dir := group(t, "maxwell-test-gone")
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	ref, err := host.Ref(inner, nil)
	if err != nil || ref.ID == 0 {
		t.Fatalf("reference = %+v, %v", ref, err)
	}
	f, err := host.OpenFile(ref.File("cpu.stat"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if v, err := f.ReadKey("usage_usec"); v != 0 || err != nil {
		t.Errorf("usage of an empty group = %d, %v; want 0", v, err)
	}
	if err := os.Remove(inner); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadKey("usage_usec"); !host.Gone(err) {
		t.Errorf("read of a removed group: %v; want Gone", err)
	}
	if _, err := host.Ref(inner, nil); !host.Gone(err) {
		t.Errorf("reference to a removed group: %v; want Gone", err)
	}
}

func TestMarkOnCgroups(t *testing.T) {
	dir := group(t, "maxwell-test-mark")
	if _, err := host.ReadMark(dir); !errors.Is(err, host.ErrUnavailable) {
		t.Errorf("mark of a fresh group: %v; want ErrUnavailable", err)
	}
	want := host.Mark{Boot: "boot-1", UID: os.Geteuid(), Mode: "up"}
	if err := host.SetMark(dir, want); err != nil {
		hosttest.Need(t, host.FeatureMark, err)
	}
	got, err := host.ReadMark(dir)
	want.Trusted = os.Geteuid() == 0
	if err != nil || got != want {
		t.Errorf("mark = %+v, %v; want %+v", got, err, want)
	}
	if err := host.SetMark(dir, host.Mark{Boot: "two words", Mode: "up"}); err == nil {
		t.Error("a mark that can't be read back was written")
	}
}

func TestReadMarkRefusesForgeries(t *testing.T) {
	dir := t.TempDir()
	uid := os.Getuid()
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"own", host.Mark{Boot: "b", UID: uid, Mode: "up"}.String(), true},
		{"of another", host.Mark{Boot: "b", UID: uid + 1, Mode: "up"}.String(), false},
		{"garbage", "maxwell", false},
		{"too long", string(make([]byte, 300)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := unix.Setxattr(dir, "user.maxwell", []byte(c.text), 0); err != nil {
				hosttest.Skip(t, host.FeatureMark, "the temporary directory takes no user xattr")
			}
			m, err := host.ReadMark(dir)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, host.ErrUnavailable) || m.Trusted {
				t.Errorf("mark = %+v, %v; want ok %v", m, err, c.ok)
			}
		})
	}
}

// The kernel drops the lock when the last holder of the descriptor is dead,
// and not before.
func TestLockEndsWithItsHolder(t *testing.T) {
	dir := group(t, "maxwell-test-lock")
	lock, err := host.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.LockDir(dir); !errors.Is(err, host.ErrLocked) {
		t.Errorf("second lock: %v; want ErrLocked", err)
	}
	fd, err := unix.FcntlInt(uintptr(lock.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	heir := os.NewFile(uintptr(fd), "lock")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "read -r x"}, &os.ProcAttr{Files: []*os.File{read, nil, nil, heir}})
	if err = errors.Join(err, heir.Close(), lock.Close(), lock.Close(), read.Close()); err != nil {
		t.Fatal(err)
	}
	if held, err := host.Locked(dir); !held || err != nil {
		t.Errorf("locked while the heir lives = %v, %v; want true", held, err)
	}
	if err := errors.Join(child.Kill(), write.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if held, err := host.Locked(dir); held || err != nil {
		t.Errorf("locked after its death = %v, %v; want false", held, err)
	}
}

// TestOrphaned: a lock outlives its maker in a child that has its descriptor.
func TestOrphaned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if host.Orphaned(path) {
		t.Error("a lock that is not there")
	}
	lock, err := host.LockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if host.Orphaned(path) {
		t.Error("its maker lives")
	}
	if _, err := host.LockFile(path); !errors.Is(err, host.ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	// Its maker is a process that has ended: one of ours.
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, strconv.AppendInt(nil, int64(child.Process.Pid), 10), 0o600); err != nil {
		t.Fatal(err)
	}
	if !host.Orphaned(path) {
		t.Error("its maker is dead")
	}
	for _, text := range []string{"", "x", "-1", "0", "99999999999"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if host.Orphaned(path) {
			t.Errorf("made by %q", text)
		}
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
}
