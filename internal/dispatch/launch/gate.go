package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
)

// A user cannot put a process into a group of root's (cgroup-v2.rst, "Delegation
// Containment"): the market has to. So the child waits at a gate, as this program
// again, until it was moved; then it becomes the command.

// GateVerb is the hidden verb of a child at the gate: gate PATH ARG0 ARG...
const GateVerb = "gate"

// gateFD is where the child waits: a byte lets it through, an end does not.
const gateFD = 4

// Gated is a child that waits.
type Gated struct {
	*Process

	gate *os.File
}

// StartGated is Start of a command that waits until Open.
func StartGated(spec Spec, p dispatch.Placement) (*Gated, error) {
	path, env, err := resolve(spec)
	if err != nil {
		return nil, err
	}
	theirs, gate, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the gate: %w", err)
	}
	defer theirs.Close()
	if err := sealDescriptors(); err != nil {
		return nil, errors.Join(err, gate.Close())
	}
	files := descriptors(spec)
	for len(files) < gateFD {
		files = append(files, ^uintptr(0)) // closed
	}
	pidfd := -1
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: env, Files: append(files, theirs.Fd()), Sys: &syscall.SysProcAttr{PidFD: &pidfd}}
	if spec.Credential != nil {
		attr.Sys.Credential = spec.Credential.credential()
	}
	args := slices.Concat([]string{"maxwell", GateVerb, path}, spec.Args)
	born := forkElsewhere("/proc/self/exe", args, attr, dispatch.Placement{CPUs: p.CPUs})
	if born.err != nil {
		return nil, errors.Join(explain(path, born.err), gate.Close())
	}
	return &Gated{Process: &Process{Pid: born.pid, pidfd: pidfd, Stray: born.stray}, gate: gate}, nil
}

// Open lets the child through.
func (g *Gated) Open() error {
	_, err := g.gate.Write([]byte{1})
	return errors.Join(err, g.gate.Close())
}

// Shut ends a child that may not go through, and reaps it.
func (g *Gated) Shut() error {
	err := g.gate.Close()
	for {
		s, waited := g.Wait()
		if waited != nil || s.Ended() {
			return errors.Join(err, waited)
		}
	}
}

// Gate is the child's whole life at the gate. It returns only where it does not
// become the command.
func Gate(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "maxwell gate is started by maxwell run and up; it is not for people")
		return 125
	}
	var word [1]byte
	n := 0
	for {
		var err error
		if n, err = unix.Read(gateFD, word[:]); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if n != 1 {
		return 125 // whoever held the gate told why, or is gone
	}
	_ = unix.Close(gateFD)
	err := syscall.Exec(args[0], args[1:], os.Environ())
	fmt.Fprintf(os.Stderr, "maxwell: %s: %v\n", strconv.Quote(args[1]), err)
	if e, ok := errors.AsType[*ExecError](explain(args[0], err)); ok {
		return e.Code
	}
	return 125
}
