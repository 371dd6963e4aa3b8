package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
)

// Name is the enforcement that this package is: Placement.Enforcement.
const Name = "signal"

// self is this program, whatever became of its file since.
const self = "/proc/self/exe"

// Start starts the command under a shim, where the group's placement says. The
// calling program must run Shim for the hidden verb Verb.
//
// A command that has the caller's standard input shares its process group, so
// that the terminal's ^C, ^Z and fg reach it as they reach any child;
// otherwise it gets a group of its own. Errors of the command itself are
// *launch.ExecError, as from launch.Start.
func Start(spec launch.Spec, p dispatch.Placement) (*Process, error) {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return nil, errors.New("empty command")
	}
	control, err := dial(p.Control)
	if err != nil {
		return nil, err
	}
	defer unix.Close(control)
	// Descriptors that this program inherited are not for the shim, which
	// would keep them open as long as the tree lives.
	if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return nil, fmt.Errorf("close inherited descriptors: %w", err)
	}
	proc, err := startShim(spec, p, control, p.Namespace)
	if errors.Is(err, errNamespace) {
		return startShim(spec, p, control, false)
	}
	return proc, err
}

// dial connects to the node's socket for this group.
func dial(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to group %s: %w", path, err)
	}
	return fd, nil
}

// startShim starts one shim and waits until the command was started, about 4 ms.
func startShim(spec launch.Spec, p dispatch.Placement, control int, namespace bool) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make the shim's channel: %w", err)
	}
	set := setup{
		Namespace: namespace, Own: spec.Files[0] != nil && spec.Files[0] != os.Stdin,
		Dir: spec.Dir, CPUs: p.CPUs, Report: spec.Report != nil,
	}
	pidfd := -1
	attr := &syscall.ProcAttr{Env: spec.Env, Files: descriptors(spec, control, pair[1]), Sys: &syscall.SysProcAttr{}}
	if attr.Env == nil {
		attr.Env = os.Environ()
	}
	attr.Sys.PidFD, attr.Sys.Setpgid = &pidfd, set.Own
	if spec.Credential != nil {
		attr.Sys.Credential = &syscall.Credential{
			Uid: spec.Credential.UID, Gid: spec.Credential.GID, Groups: spec.Credential.Groups,
		}
	}
	if namespace {
		set.User = isolate(attr.Sys)
	}
	var pid int
	argv, err := arguments(set, spec.Args)
	if err == nil {
		pid, err = syscall.ForkExec(self, argv, attr)
	}
	runtime.KeepAlive(spec)
	unix.Close(pair[1]) // with it open the death of the shim would not be seen
	if err != nil {
		unix.Close(pair[0])
		if namespace && refusedNamespace(err) {
			return nil, fmt.Errorf("%w: %w", errNamespace, err)
		}
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	proc := newProcess(pid, pidfd, pair[0], !set.Own)
	return proc, proc.begun()
}

// arguments is the shim's command line.
func arguments(set setup, command []string) ([]string, error) {
	b, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode the shim's setup: %w", err)
	}
	return append([]string{"maxwell", Verb, string(b)}, command...), nil
}

// descriptors lists what the shim gets, in the order of its constants.
func descriptors(spec launch.Spec, control, client int) []uintptr {
	files := []uintptr{0, 1, 2, controlFD: uintptr(control), clientFD: uintptr(client)}
	for i, f := range spec.Files {
		if f != nil {
			files[i] = f.Fd()
		}
	}
	if spec.Report != nil {
		files = append(files, spec.Report.Fd())
	}
	return files
}

// isolate asks for the namespaces, and reports whether a user namespace is
// among them. Root needs none to make the others, and its command keeps root's
// powers; anybody else is mapped to itself and to nobody else.
func isolate(sys *syscall.SysProcAttr) (user bool) {
	sys.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 && sys.Credential == nil {
		return false
	}
	sys.Cloneflags |= unix.CLONE_NEWUSER
	sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	if c := sys.Credential; c != nil {
		// Root may map all groups, so that the person's can be set.
		uid = int(c.Uid)
		sys.GidMappings = []syscall.SysProcIDMap{{Size: 1<<32 - 1}}
		sys.GidMappingsEnableSetgroups = true
	}
	sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	// To mount /proc, and to give these up again.
	sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
	return true
}

// refusedNamespace reports whether a fork failed for want of namespaces: by
// permission (seccomp, AppArmor, sysctl), number, or a kernel without.
func refusedNamespace(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) ||
		errors.Is(err, unix.EUSERS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}

// Probe tries, for real, whether Start can use a namespace: the program starts
// itself in one, mounts /proc and ends.
func Probe() error {
	argv, err := arguments(setup{Probe: true, Namespace: true, User: os.Geteuid() != 0}, nil)
	if err != nil {
		return err
	}
	sys := &syscall.SysProcAttr{}
	isolate(sys)
	cmd := exec.Cmd{Path: self, Args: argv, SysProcAttr: sys}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		return errors.New(text)
	}
	return fmt.Errorf("%w: %w", errNamespace, err)
}

// begun waits for the shim's first word.
func (p *Process) begun() error {
	e, err := p.next()
	if err == nil && e.Event == eventStarted {
		return nil
	}
	p.Close()
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("start the shim: it ended before the command was started")
	case err != nil:
		return err
	case e.Namespace:
		return fmt.Errorf("%w: %s", errNamespace, e.Text)
	case e.Code != 0:
		why := errors.New(e.Text)
		if e.Errno != 0 {
			why = syscall.Errno(e.Errno)
		}
		return &launch.ExecError{Command: e.Command, Code: e.Code, Err: why}
	default:
		return errors.New(e.Text)
	}
}
