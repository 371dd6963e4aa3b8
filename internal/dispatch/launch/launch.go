// Package launch starts a workload's process from the program that owns its
// terminal, inside the group that the node prepared.
//
// On cgroup v2 the child is born in its group (CLONE_INTO_CGROUP). On v1 a
// thread of the caller, never its main one, joins the group's tasks files,
// forks, and goes home: a shim that joins and then execs would charge its own
// start-up to the workload, and moving the child after the fork misses
// whatever it forked before (both measured: 2.4 ms and "everything"). Either
// way the first instruction is already metered and governed.
//
// Start never starts into a frozen group: the fork would hang until the thaw,
// and every other fork of the program behind it.
package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
)

// ErrFrozen refuses a start into a frozen group.
var ErrFrozen = errors.New("group is frozen")

// Spec is what to start.
type Spec struct {
	Args       []string    // the command; Args[0] is looked up in PATH
	Env        []string    // nil means the caller's
	Dir        string      // working directory; empty means the caller's
	Files      [3]*os.File // stdin, stdout, stderr; nil means the caller's
	Report     *os.File    // becomes descriptor 3; may be nil
	Credential *Identity   // nil means the caller's
}

// ReportFD is the number under which a child finds Spec.Report.
const ReportFD = 3

// Process is a child that was started into its group.
type Process struct {
	Pid int
	// Stray is set when the thread that forked could not go home and was ended
	// instead. Nothing is lost; the operator may want to know why.
	Stray error

	mu    sync.Mutex // guards what follows
	pidfd int
	gone  bool
}

// Start starts the command where p says. The caller's process group, session
// and terminal are inherited, so that job control works by itself; every
// descriptor beyond 0, 1, 2 and the report pipe is closed, because an
// inherited cgroup descriptor would be a way out.
//
// Errors of the command itself are *ExecError with a shell's exit code. When a
// group is removed while Start works, the error wraps fs.ErrNotExist.
func Start(spec Spec, p dispatch.Placement) (*Process, error) {
	path, env, err := resolve(spec)
	if err != nil {
		return nil, err
	}
	if err := refuseFrozen(p); err != nil {
		return nil, err
	}
	if err := sealDescriptors(); err != nil {
		return nil, err
	}
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: env, Files: descriptors(spec), Sys: &syscall.SysProcAttr{}}
	if spec.Credential != nil {
		attr.Sys.Credential = spec.Credential.credential()
	}
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	if p.Cgroup != "" {
		fd, err := unix.Open(p.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open group %s: %w", p.Cgroup, err)
		}
		defer unix.Close(fd)
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	}
	born := forkElsewhere(path, spec.Args, attr, p)
	runtime.KeepAlive(spec)
	if born.err != nil {
		return nil, explain(path, born.err)
	}
	return &Process{Pid: born.pid, pidfd: pidfd, Stray: born.stray}, nil
}

// birth is what the forking thread reports.
type birth struct {
	pid   int
	err   error
	stray error // the thread could not return to its groups
}

// forkElsewhere forks on a thread that joins the v1 groups and the sold
// processors first. The goroutine is owned by this call, which waits for it,
// and ends when the fork is done. It exists so that a thread that cannot go
// home can be given up: a goroutine that ends while locked takes its thread
// with it, and no other goroutine ever runs in a workload's group.
//
// The main thread never goes. /proc/self shows where it is as where the whole
// program is: a start at the same time would take a workload's group for home,
// and leave a thread in it; whoever kills the workload would take the program
// for a member. And it cannot be given up: Go parks it forever where it is.
func forkElsewhere(path string, args []string, attr *syscall.ProcAttr, p dispatch.Placement) birth {
	if len(p.Tasks) == 0 && len(p.CPUs) == 0 {
		pid, err := syscall.ForkExec(path, args, attr)
		return birth{pid: pid, err: err}
	}
	done := make(chan birth)
	go func() { // owner: this call; end: the send below
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine has the main thread, another cannot get it.
			b := forkElsewhere(path, args, attr, p)
			runtime.UnlockOSThread()
			done <- b
			return
		}
		b, home := forkAway(path, args, attr, p)
		if home {
			runtime.UnlockOSThread()
		}
		done <- b
	}()
	return <-done
}

// forkAway is forkElsewhere on the calling thread, which must be locked and must
// end if it did not come home.
func forkAway(path string, args []string, attr *syscall.ProcAttr, p dispatch.Placement) (b birth, home bool) {
	away, err := leaveHome(p)
	if err != nil {
		b.err = err
	} else {
		b.pid, b.err = syscall.ForkExec(path, args, attr)
	}
	b.stray = away.goHome()
	return b, b.stray == nil
}

// descriptors lists the child's descriptors 0, 1, 2 and the report pipe.
func descriptors(spec Spec) []uintptr {
	files := make([]uintptr, 0, ReportFD+1)
	for i, f := range spec.Files {
		if f == nil {
			files = append(files, uintptr(i))
			continue
		}
		files = append(files, f.Fd())
	}
	if spec.Report != nil {
		files = append(files, spec.Report.Fd())
	}
	return files
}

// sealDescriptors marks every descriptor beyond 2 close-on-exec, those that
// this program inherited itself included. The fork copies the listed ones to
// their places and clears the mark on the copies.
func sealDescriptors() error {
	err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Kernels before 5.11: one by one.
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	for _, entry := range list {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
