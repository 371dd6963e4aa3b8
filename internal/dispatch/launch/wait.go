package launch

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// State is what Wait saw.
type State uint8

// The changes of state that a parent is told about.
const (
	Exited    State = iota // ended by itself: Status.Code
	Signaled               // ended by a signal: Status.Signal
	Stopped                // ^Z, SIGSTOP or terminal access from the background
	Continued              // SIGCONT
)

// Status is a child's change of state.
type Status struct {
	State  State
	Code   int           // exit code as a shell reports it: 128 + signal when signaled
	Signal unix.Signal   // what ended or stopped it
	Core   bool          // a core was dumped
	User   time.Duration // processor time of the child and those it waited for
	System time.Duration
}

// Ended reports whether the child is gone.
func (s Status) Ended() bool { return s.State == Exited || s.State == Signaled }

// Wait waits for the child's next change of state. After one that Ended the
// process is reaped, and Wait must not be called again.
func (p *Process) Wait() (Status, error) {
	for {
		var ws unix.WaitStatus
		var usage unix.Rusage
		_, err := unix.Wait4(p.Pid, &ws, unix.WUNTRACED|unix.WCONTINUED, &usage)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Status{}, fmt.Errorf("wait for process %d: %w", p.Pid, err)
		}
		s := statusOf(ws)
		s.User, s.System = span(usage.Utime), span(usage.Stime)
		if s.Ended() {
			p.release()
		}
		return s, nil
	}
}

func statusOf(ws unix.WaitStatus) Status {
	switch {
	case ws.Stopped():
		return Status{State: Stopped, Signal: ws.StopSignal()}
	case ws.Continued():
		return Status{State: Continued, Signal: unix.SIGCONT}
	case ws.Signaled():
		return Status{State: Signaled, Signal: ws.Signal(), Code: 128 + int(ws.Signal()), Core: ws.CoreDump()}
	default:
		return Status{State: Exited, Code: ws.ExitStatus()}
	}
}

func span(t unix.Timeval) time.Duration { return time.Duration(t.Nano()) }

// Signal sends a signal to the child itself, never to a process that got its
// number later; ESRCH when it is gone. Descendants are reached through the
// group. It may be called while another goroutine is in Wait.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return unix.ESRCH
	}
	if p.pidfd >= 0 {
		return unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	}
	return unix.Kill(p.Pid, sig) // before Linux 5.4, where pidfd is absent
}

func (p *Process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
	p.pidfd, p.gone = -1, true
}
