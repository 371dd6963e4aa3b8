package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
)

// Verb is the hidden verb under which the program must call Shim with the
// arguments that follow it.
const Verb = "shim"

// Descriptors of the shim.
const (
	controlFD = 3 // to the node
	clientFD  = 4 // to the process that called Start
	reportFD  = 5 // the command's report pipe, if any
)

// setup is the shim's first argument, as JSON; the command follows it. The
// environment is the command's.
type setup struct {
	Namespace bool   `json:"namespace,omitempty"` // we are pid 1 and have a mount namespace
	User      bool   `json:"user,omitempty"`      // and a user namespace, with powers to give up
	Own       bool   `json:"own,omitempty"`       // we lead a process group of our own
	Dir       string `json:"dir,omitempty"`
	CPUs      []int  `json:"cpus,omitempty"`
	Report    bool   `json:"report,omitempty"`
	Probe     bool   `json:"probe,omitempty"` // only try the namespace
}

// Shim is the program that stands above a command: see the package comment.
// It returns its exit status, when nothing of the tree is left. No part of the
// caller may have started a child before.
func Shim(args []string) int {
	runtime.LockOSThread() // prctl, capabilities and timer slack are the thread's
	if len(args) == 0 {
		fmt.Fprintf(os.Stderr, "maxwell %s is started by maxwell run; it is not for people\n", Verb)
		return 125
	}
	var set setup
	if err := json.Unmarshal([]byte(args[0]), &set); err != nil {
		fmt.Fprintf(os.Stderr, "maxwell %s: read its setup: %v\n", Verb, err)
		return 125
	}
	if set.Probe {
		if err := enterNamespace(set); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	catchSignals()
	s := &shim{control: controlFD, client: clientFD}
	if err := s.begin(set, args[1:]); err != nil {
		s.tell(refusal(err))
		return 0 // the client prints it
	}
	s.loop()
	return 0
}

// catchSignals catches every signal that can be caught: the terminal's are for
// the command, which gets them itself, and the workload must not be able to
// end its shim. Those that were ignored stay so, since the command inherits
// that (nohup).
func catchSignals() {
	sink := make(chan os.Signal, 1) // nobody reads it: delivery never blocks
	for n := syscall.Signal(1); n <= maxSignal; n++ {
		if n != syscall.SIGKILL && n != syscall.SIGSTOP && !signal.Ignored(n) {
			signal.Notify(sink, n)
		}
	}
}

// begin prepares the shim and starts the command.
func (s *shim) begin(set setup, command []string) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the shim undumpable: %w", err)
	}
	if set.Namespace {
		if err := enterNamespace(set); err != nil {
			return err
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	s.tree = newTree("/proc", os.Getpid(), !set.Namespace)
	s.hold = &hold{tree: s.tree, swept: !set.Namespace}
	s.user = set.User
	s.terminal = isTerminal(0)
	s.want = order{Window: always}
	s.running, s.since = true, now()
	if err := s.greet(); err != nil {
		return err
	}
	if err := s.start(set, command); err != nil {
		return err
	}
	s.pidfd = -1
	if fd, err := unix.PidfdOpen(s.pid, 0); err == nil {
		s.pidfd = fd // else (kernels before 5.3) its end is seen by the next tick
	}
	if set.Own && !set.Namespace {
		s.leaveGroup()
	}
	// 1 ns instead of 50 us of slack on our own timers; set after the start,
	// since children inherit it.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	s.tell(event{Event: eventStarted, Pid: s.pid})
	return nil
}

// start starts the command on this thread, and lets go of what is the command's
// alone: a reader of its output waits for the last writer's end.
func (s *shim) start(set setup, command []string) error {
	spec := launch.Spec{Args: command, Dir: set.Dir}
	if set.Report {
		spec.Report = os.NewFile(reportFD, "report")
	}
	var all, sold unix.CPUSet
	if len(set.CPUs) > 0 {
		if err := unix.SchedGetaffinity(0, &all); err != nil {
			return fmt.Errorf("read own processors: %w", err)
		}
		for _, cpu := range set.CPUs {
			sold.Set(cpu)
		}
		if err := unix.SchedSetaffinity(0, &sold); err != nil {
			return fmt.Errorf("bind to processors %v: %w", set.CPUs, err)
		}
	}
	p, err := launch.Start(spec, dispatch.Placement{})
	if err != nil {
		return err
	}
	s.pid = p.Pid
	if len(set.CPUs) > 0 {
		_ = unix.SchedSetaffinity(0, &all) // our own comfort only
	}
	if spec.Report != nil {
		spec.Report.Close()
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("let go of the standard files: %w", err)
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("let go of the standard files: %w", err)
		}
	}
	return nil
}

// leaveGroup leaves the command alone in the group that the shim founded:
// without a namespace a `kill 0` of the command would end its shim.
func (s *shim) leaveGroup() {
	own := unix.Getpgrp()
	parents, err := unix.Getpgid(os.Getppid())
	if err != nil || parents <= 0 || unix.Setpgid(0, parents) != nil {
		return // 0: a group outside of our namespace, which cannot be joined
	}
	if unix.Getpgrp() != own {
		s.hold.group = own
	}
}

// errNamespace marks a refusal after which the client tries without a
// namespace.
var errNamespace = errors.New("namespace refused")

// enterNamespace makes the namespace's own /proc and gives up every power
// that the user namespace gave.
func enterNamespace(set setup) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("%w: not its first process", errNamespace)
	}
	// Nothing that is mounted here may appear outside.
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("%w: detach the mounts: %w", errNamespace, err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("%w: mount its own /proc: %w", errNamespace, err)
	}
	if !set.User {
		return nil // root's own pid namespace: the command keeps what root has
	}
	return dropPowers()
}

// dropPowers empties the bounding and ambient sets, so that the command has no
// more than its user has outside, not even where that is uid 0. They are the
// namespace's capabilities, void elsewhere. Capabilities are a thread's: only
// this one, locked, starts the command. The other threads keep theirs, and run
// nothing of the command's. (syscall.AllThreadsSyscall is refused in a binary
// that was linked with cgo.)
func dropPowers() error {
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: this kernel has fewer
			return fmt.Errorf("%w: drop capability %d: %w", errNamespace, c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("%w: clear ambient capabilities: %w", errNamespace, err)
	}
	return nil
}

// isTerminal reports whether a descriptor is a terminal.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// refusal tells the client why there is no command.
func refusal(err error) event {
	e := event{Event: eventRefused, Text: err.Error(), Namespace: errors.Is(err, errNamespace)}
	if x, ok := errors.AsType[*launch.ExecError](err); ok {
		e.Code, e.Command, e.Text = x.Code, x.Command, x.Err.Error()
		if errno, ok := errors.AsType[syscall.Errno](x.Err); ok {
			e.Errno = int(errno)
		}
	}
	e.Text = strings.ReplaceAll(e.Text, "\n", " ")
	return e
}
