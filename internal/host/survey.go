package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Survey tries the machine's abilities. It needs a Layout of the same roots.
type Survey struct {
	Roots  Roots
	Layout Layout
	Name   string       // prefix of trial directories; "" = "maxwell-probe"
	Child  []string     // a program that waits for its standard input to end; nil = the shell
	BPF    func() error // loads a program of each kind the meter needs; nil = not tried
	// Enable says that the caller holds the machine's market lock. Only then a
	// controller that the own group does not pass on yet is passed on for the
	// trial: taking it back would hurt a market that started meanwhile.
	Enable bool
}

// Finding is the outcome for one feature.
type Finding struct {
	Feature Feature
	Err     error  // nil = works; an *Unavailable = why not; anything else = the probe itself broke
	Note    string // how it works, such as "v1"; may be empty
}

// Run tries everything and puts everything back. It takes some 20 ms. The
// order is that of the Feature constants.
func (s Survey) Run() []Finding {
	var list []Finding
	add := func(f Feature, note string, err error) { list = append(list, Finding{f, err, note}) }
	t := s.tryCgroup()
	add(FeatureCgroupCreate, "", t.create)
	add(FeatureCgroupStart, "", t.start)
	add(FeatureCgroupFreeze, "", t.freeze)
	add(FeatureCgroupKill, "", t.kill)
	for _, c := range []Controller{CPU, Memory, Pids} {
		note, err := s.tryController(c)
		add(controllerFeature(c), note, err)
	}
	add(FeatureMark, "", t.mark)
	if s.BPF != nil {
		add(FeatureBPF, "", s.real(FeatureBPF, s.BPF))
	}
	add(FeatureNamespaces, "", s.real(FeatureNamespaces, s.tryNamespaces))
	add(FeatureFIFO, "", s.real(FeatureFIFO, tryFIFO))
	add(FeaturePowercap, "", ProbePowercap(s.Roots))
	note, err := ProbeSchedExt(s.Roots)
	add(FeatureSchedExt, note, err)
	add(FeatureSystemd, "", ProbeSystemd(s.Roots))
	return list
}

// real keeps probes that act on this machine from acting for a recorded one.
func (s Survey) real(f Feature, try func() error) error {
	if !s.Roots.Real() {
		return &Unavailable{Feature: f, Reason: errNotReal.Error(), Cause: errNotReal}
	}
	return try()
}

// startChild starts the trial child; closing the returned file ends it.
func (s Survey) startChild(attr *syscall.SysProcAttr) (*os.Process, *os.File, error) {
	argv := s.Child
	if argv == nil {
		argv = []string{"/bin/sh", "-c", "read -r line"}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer read.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{read, nil, nil}, Env: []string{}, Sys: attr})
	if err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	return p, write, nil
}

// endChild ends the trial child whatever state it is in.
func endChild(p *os.Process, stdin *os.File) {
	_ = stdin.Close()
	_ = p.Kill() // already gone is as good
	_, _ = p.Wait()
}

// tryNamespaces starts a child as first process of a user and pid namespace of
// its own, as an ordinary user would.
func (s Survey) tryNamespaces() error {
	p, stdin, err := s.startChild(&syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	})
	if err != nil {
		return refuse(FeatureNamespaces, "start a child in a user and pid namespace", err, s.namespaceHint())
	}
	defer endChild(p, stdin)
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("read own pid namespace: %w", err)
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.Pid))
	if err != nil {
		return fmt.Errorf("read the child's pid namespace: %w", err)
	}
	if own == its {
		return errors.New("probe namespaces: the child was started in our own pid namespace")
	}
	return nil
}

// namespaceHint names the switch that is known to forbid it.
func (s Survey) namespaceHint() string {
	for _, o := range []struct{ name, bad, fix string }{
		{"sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
		{"sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		if v, err := s.Roots.Proc.ReadText(o.name); err == nil && v == o.bad {
			return o.fix
		}
	}
	return ""
}

// tryFIFO raises and restores this thread. If it could not be restored the
// thread stays locked to the calling goroutine and ends with it.
func tryFIFO() error {
	runtime.LockOSThread()
	p := RaisePriority()
	if err := p.Restore(); err != nil {
		return errors.Join(err, p.Why)
	}
	runtime.UnlockOSThread()
	return p.Why
}

// ProbePowercap reads one RAPL energy counter.
func ProbePowercap(r Roots) error {
	const dir = "class/powercap"
	entries, err := r.Sys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refuse(FeaturePowercap, "list zones", err, "")
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "intel-rapl") {
			continue // another control type
		}
		f, err := r.Sys.Open(dir + "/" + e.Name() + "/energy_uj")
		if errors.Is(err, fs.ErrNotExist) {
			continue // the control type itself has no counter
		}
		if err != nil {
			return refuse(FeaturePowercap, "read RAPL counters", err, "run as root")
		}
		_, err = f.ReadInt()
		if err = errors.Join(err, f.Close()); err != nil {
			return refuse(FeaturePowercap, "read RAPL counters", err, "")
		}
		return nil
	}
	return &Unavailable{Feature: FeaturePowercap, Reason: "no RAPL zones", Cause: err}
}

// ProbeSchedExt looks whether the kernel takes schedulers in BPF; the note is
// its state.
func ProbeSchedExt(r Roots) (note string, err error) {
	state, err := r.Sys.ReadText("kernel/sched_ext/state")
	if err == nil {
		return state, nil
	}
	reason := "the kernel has no sched_ext"
	if release, err := r.Proc.ReadText("sys/kernel/osrelease"); err == nil {
		reason = "needs Linux 6.12+ built with sched_ext; this " + shortRelease(release) + " is not"
	}
	return "", &Unavailable{Feature: FeatureSchedExt, Reason: reason, Cause: err}
}

// shortRelease cuts "6.18.44-generic" to "6.18".
func shortRelease(release string) string {
	major, rest, ok := strings.Cut(release, ".")
	if !ok {
		return release
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	if _, err := strconv.Atoi(rest[:end]); err != nil {
		return release
	}
	return major + "." + rest[:end]
}

// ProbeSystemd reports whether systemd is the running manager, as sd_booted(3)
// decides it.
func ProbeSystemd(r Roots) error {
	if isDir(r.Path("/run/systemd/system")) {
		return nil
	}
	return &Unavailable{Feature: FeatureSystemd, Reason: "systemd does not run this machine"}
}

// fieldsHold reports whether a space-separated list holds a word.
func fieldsHold(list []byte, word string) bool {
	for f := range bytes.FieldsSeq(list) {
		if string(f) == word {
			return true
		}
	}
	return false
}
