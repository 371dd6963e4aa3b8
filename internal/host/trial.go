package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// trialTimeout bounds each step of a trial. Freezing and killing take well
// under a millisecond; a machine that needs a second is no use to a market.
const trialTimeout = time.Second

// trial is the outcome of trying a cgroup2 directory; each step that could not
// be reached carries the reason of the one before.
type trial struct{ create, start, freeze, kill, mark error }

func (t *trial) all(err error) {
	t.create, t.start, t.freeze, t.kill, t.mark = err, err, err, err, err
}

// home is the cgroup2 directory below which a market may live: what was
// delegated to us, the top of the hierarchy for root where no manager runs it,
// else the own group.
func (s Survey) home() string {
	if !s.Layout.Delegated && os.Geteuid() == 0 && ProbeSystemd(s.Roots) != nil {
		return s.Layout.V2.Mount
	}
	return s.Layout.V2.Own
}

// seat finds where a controller can be used: its version, 0 for nowhere, and
// the directory below which a market would use it. On v1 that is the top of
// the mount for root, so that there is one market however it was started.
func (s Survey) seat(c Controller) (version int, parent string, err error) {
	if home := s.home(); home != "" {
		offered, err := readControllers(filepath.Join(home, "cgroup.controllers"))
		if err != nil {
			return 0, "", err
		}
		if slices.Contains(offered, c) {
			return 2, home, nil
		}
	}
	h, ok := s.Layout.V1[c]
	if !ok {
		return 0, "", nil
	}
	if os.Geteuid() == 0 {
		return 1, h.Mount, nil
	}
	return 1, h.Own, nil
}

// tryCgroup makes a directory where a market would, starts a child in it,
// freezes, thaws and kills it, and removes the directory.
func (s Survey) tryCgroup() (t trial) {
	if !s.Roots.Real() {
		t.all(&Unavailable{Feature: FeatureCgroupCreate, Reason: errNotReal.Error(), Cause: errNotReal})
		return t
	}
	if s.Layout.V2.Mount == "" {
		t.all(&Unavailable{
			Feature: FeatureCgroupCreate, Reason: "no cgroup2 file system is mounted",
			Hint: "mount -t cgroup2 none /sys/fs/cgroup/unified (on a machine with cgroup v1)",
		})
		return t
	}
	dir := filepath.Join(s.home(), s.trialName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.all(refuse(FeatureCgroupCreate, "make a group below "+s.home(), err, s.createHint()))
		return t
	}
	t.mark = s.tryMark(dir)
	p, stdin, err := s.startInto(dir)
	if err != nil {
		t.start = refuse(FeatureCgroupStart, "start a child inside a new group", err, "")
		t.freeze, t.kill = t.start, t.start
	} else {
		t.freeze = tryFreeze(dir)
		t.kill = tryKill(dir)
		endChild(p, stdin)
		_, err = WaitEvent(filepath.Join(dir, "cgroup.events"), "populated", 0, trialTimeout)
		t.create = err
	}
	if err := os.Remove(dir); err != nil {
		t.create = errors.Join(t.create, fmt.Errorf("remove trial group %s: %w", dir, plain(err)))
	}
	return t
}

func (s Survey) trialName() string {
	name := s.Name
	if name == "" {
		name = "maxwell-probe"
	}
	return name + "-" + strconv.Itoa(os.Getpid())
}

func (s Survey) createHint() string {
	switch {
	case s.Layout.V2.ReadOnly:
		return "the cgroup file system is read-only here: run the container with a writable, delegated cgroup"
	case os.Geteuid() != 0 && ProbeSystemd(s.Roots) == nil:
		return "systemd-run --user --scope -p Delegate=yes maxwell ..."
	case os.Geteuid() != 0:
		return "run as root"
	}
	return ""
}

// startInto starts a child with CLONE_INTO_CGROUP.
func (s Survey) startInto(dir string) (*os.Process, *os.File, error) {
	fd, err := openRetry(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, nil, err
	}
	p, stdin, err := s.startChild(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd})
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return nil, nil, err
	}
	// An old kernel may ignore the flag: the group must have got the child.
	inside, err := WaitEvent(filepath.Join(dir, "cgroup.events"), "populated", 1, 0)
	if err == nil && !inside {
		err = errors.New("the child is not in the group")
	}
	if err != nil {
		endChild(p, stdin)
		return nil, nil, err
	}
	return p, stdin, nil
}

func tryFreeze(dir string) error {
	for _, step := range []struct {
		text string
		want int64
	}{{"1", 1}, {"0", 0}} {
		if err := WriteOnce(filepath.Join(dir, "cgroup.freeze"), step.text); err != nil {
			return refuse(FeatureCgroupFreeze, "write cgroup.freeze", err, "Linux 5.2 or later")
		}
		ok, err := WaitEvent(filepath.Join(dir, "cgroup.events"), "frozen", step.want, trialTimeout)
		if err != nil {
			return fmt.Errorf("probe freezing: %w", err)
		}
		if !ok {
			return &Unavailable{Feature: FeatureCgroupFreeze, Reason: fmt.Sprintf("frozen %d did not come within %v", step.want, trialTimeout)}
		}
	}
	return nil
}

func tryKill(dir string) error {
	if err := WriteOnce(filepath.Join(dir, "cgroup.kill"), "1"); err != nil {
		return refuse(FeatureCgroupKill, "write cgroup.kill", err, "Linux 5.14 or later; without it trees are frozen and killed one by one")
	}
	ok, err := WaitEvent(filepath.Join(dir, "cgroup.events"), "populated", 0, trialTimeout)
	if err != nil {
		return fmt.Errorf("probe killing: %w", err)
	}
	if !ok {
		return &Unavailable{Feature: FeatureCgroupKill, Reason: fmt.Sprintf("the group still lived after %v", trialTimeout)}
	}
	return nil
}

// tryMark marks and locks the trial directory; the mark also lets repair
// remove it if this process dies in between.
func (s Survey) tryMark(dir string) error {
	boot, err := BootID(s.Roots)
	if err != nil {
		return err
	}
	want := Mark{Boot: boot, UID: os.Geteuid(), Mode: "probe"}
	if err := SetMark(dir, want); err != nil {
		return err
	}
	got, err := ReadMark(dir)
	if err != nil {
		return err
	}
	if got.Trusted = false; got != want {
		return &Unavailable{Feature: FeatureMark, Reason: fmt.Sprintf("wrote %q, read %q", want, got)}
	}
	lock, err := LockDir(dir)
	if err != nil {
		return refuse(FeatureMark, "lock a group directory", err, "")
	}
	held, err := Locked(dir)
	if err = errors.Join(err, lock.Close()); err != nil {
		return fmt.Errorf("probe locks: %w", err)
	}
	if !held {
		return &Unavailable{Feature: FeatureMark, Reason: "a held lock did not keep a second one out"}
	}
	return nil
}

func controllerFeature(c Controller) Feature {
	return map[Controller]Feature{CPU: FeatureCgroupCPU, Memory: FeatureCgroupMemory, Pids: FeatureCgroupPids}[c]
}

// knob is a control file with a harmless value to try.
type knob struct{ name, value string }

// knobs gives the control file of a controller by version; the values bind
// nothing, for the trial group is empty.
func knobs(c Controller, version int) knob {
	if version == 1 {
		return map[Controller]knob{
			CPU: {"cpu.shares", "512"}, Memory: {"memory.limit_in_bytes", "67108864"}, Pids: {"pids.max", "64"},
		}[c]
	}
	return map[Controller]knob{
		CPU: {"cpu.weight", "50"}, Memory: {"memory.max", "67108864"}, Pids: {"pids.max", "64"},
	}[c]
}

// tryController makes an empty group where the controller lives, sets its
// control file and reads it back.
func (s Survey) tryController(c Controller) (note string, err error) {
	f := controllerFeature(c)
	if !s.Roots.Real() {
		return "", &Unavailable{Feature: f, Reason: errNotReal.Error(), Cause: errNotReal}
	}
	version, parent, err := s.seat(c)
	if err != nil {
		return "", err
	}
	if version == 0 {
		return "", &Unavailable{Feature: f, Reason: fmt.Sprintf("no hierarchy offers the %s controller here", c), Hint: s.delegateHint()}
	}
	dir := filepath.Join(parent, s.trialName())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", refuse(f, "make a group below "+parent, err, s.createHint())
	}
	defer func() {
		if gone := os.Remove(dir); gone != nil {
			err = errors.Join(err, fmt.Errorf("remove trial group %s: %w", dir, plain(gone)))
		}
	}()
	if version == 2 {
		back, err := s.passOn(parent, c)
		if err != nil {
			return "", err
		}
		defer back()
	}
	k := knobs(c, version)
	return fmt.Sprintf("v%d", version), setKnob(f, filepath.Join(dir, k.name), k.value)
}

func setKnob(f Feature, path, value string) error {
	if err := WriteOnce(path, value); err != nil {
		return refuse(f, "write "+filepath.Base(path), err, "")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read back %s: %w", path, plain(err))
	}
	if got := strings.TrimSpace(string(b)); got != value {
		return &Unavailable{Feature: f, Reason: fmt.Sprintf("wrote %s to %s, read %s", value, filepath.Base(path), got)}
	}
	return nil
}

// passOn makes the parent pass the controller to its children, if it does not
// already and the caller may decide that, and returns the way back.
func (s Survey) passOn(parent string, c Controller) (back func(), err error) {
	control := filepath.Join(parent, "cgroup.subtree_control")
	have, err := os.ReadFile(control)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", control, plain(err))
	}
	if fieldsHold(have, string(c)) {
		return func() {}, nil
	}
	f := controllerFeature(c)
	if !s.Enable {
		// Only whether it would be refused: the kernel's own condition is an
		// empty group or the root.
		if err := unix.Faccessat(unix.AT_FDCWD, control, unix.W_OK, unix.AT_EACCESS); err != nil {
			return nil, refuse(f, "pass controllers to children of "+parent, err, s.delegateHint())
		}
		return nil, &Unavailable{Feature: f, Reason: fmt.Sprintf("%s does not pass %s to its children (not tried: only the market may change that)", parent, c)}
	}
	if err := WriteOnce(control, "+"+string(c)); err != nil {
		return nil, refuse(f, "pass controllers to children of "+parent, err, s.delegateHint())
	}
	return func() { _ = WriteOnce(control, "-"+string(c)) }, nil
}

func (s Survey) delegateHint() string {
	if ProbeSystemd(s.Roots) != nil {
		return ""
	}
	if os.Geteuid() == 0 {
		return "systemd-run --scope -p Delegate=yes maxwell ..."
	}
	return "systemd-run --user --scope -p Delegate=yes maxwell ..."
}
