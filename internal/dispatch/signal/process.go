package signal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
)

// Process is a command under its shim, for the program that owns the terminal.
type Process struct {
	// Pid is the shim's: its end is the end of the whole tree. The command's
	// own number exists inside the namespace only.
	Pid int

	pidfd   int
	queue   []event // read while looking for an answer
	stopped bool    // Wait returned Stopped last

	mu     sync.Mutex // guards what follows; Signal may be called beside Wait
	client int
	tty    terminal
}

func newProcess(pid, pidfd, client int, shares bool) *Process {
	p := &Process{Pid: pid, pidfd: pidfd, client: client, tty: terminal{fd: -1}}
	if shares {
		p.tty = openTerminal()
	}
	return p
}

// Wait waits for the command's next change of state. After one that Ended the
// terminal is the caller's again; call Close when the tree is to be gone.
//
// Stopped means that the command is stopped now and somebody other than
// Maxwell did it: the caller should stop itself, and send SIGCONT by Signal
// when it goes on. A ^Z from the terminal needs nothing: it stops both, and
// fg continues both.
func (p *Process) Wait() (launch.Status, error) {
	for {
		e, err := p.next()
		if errors.Is(err, io.EOF) {
			// The shim was killed, and the kernel ended the tree.
			p.reap(0)
			p.leaveTerminal(true)
			return launch.Status{State: launch.Signaled, Signal: unix.SIGKILL, Code: 128 + int(unix.SIGKILL)}, nil
		}
		if err != nil {
			return launch.Status{}, fmt.Errorf("wait for the command: %w", err)
		}
		st, ok := stateOf(e)
		switch {
		case !ok:
			continue
		case st.State == launch.Stopped:
			if !p.reallyStopped() {
				continue // ^Z and fg are over already
			}
			p.stopped = true
			p.takeTerminal()
		case st.State == launch.Continued:
			if !p.stopped {
				continue
			}
			p.stopped = false
		case st.Ended():
			p.leaveTerminal(st.State == launch.Signaled)
			p.reap(unix.WNOHANG)
		}
		return st, nil
	}
}

// next is the shim's next event.
func (p *Process) next() (event, error) {
	if len(p.queue) > 0 {
		e := p.queue[0]
		p.queue = p.queue[1:]
		return e, nil
	}
	var e event
	b, err := receive(p.channel(), true)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, errWire
	}
	return e, nil
}

// reallyStopped asks the shim: after ^Z and fg the news of the stop is stale. A
// ^Z stops us too, but on a busy machine a moment later than the command, so
// that moment is waited for first: we wake up after fg. An answer can be stale
// as well, if we were stopped while it was under way; then it took longer than
// answers do, and the question is repeated.
func (p *Process) reallyStopped() bool {
	time.Sleep(stopTime)
	for try := 0; ; try++ {
		asked := time.Now()
		stopped, err := p.ask()
		if err != nil || !stopped {
			return false
		}
		if time.Since(asked) < answerTime || try == answerTries {
			return true
		}
	}
}

const (
	stopTime    = 100 * time.Millisecond
	answerTime  = 20 * time.Millisecond // it takes 0.1 ms; nobody stops and continues a program faster
	answerTries = 50                    // on a machine so busy that no answer is fast
)

// ask asks the shim whether the command is stopped, and keeps other news.
func (p *Process) ask() (bool, error) {
	if err := sendJSON(p.channel(), request{State: true}); err != nil {
		return false, err
	}
	held := p.queue
	p.queue = nil
	for {
		e, err := p.next()
		if err != nil || e.Event == eventState {
			p.queue = held
			return e.Stopped, err
		}
		held = append(held, e)
	}
}

// Signal sends a signal to the command itself; descendants are reached through
// the group. SIGCONT after Stopped gives the terminal back first.
func (p *Process) Signal(sig syscall.Signal) error {
	if sig == unix.SIGCONT {
		p.giveTerminal()
	}
	err := sendJSON(p.channel(), request{Signal: int(sig)})
	if errors.Is(err, io.EOF) {
		return unix.ESRCH
	}
	return err
}

// Close ends what is left of the tree and the shim.
func (p *Process) Close() error {
	p.mu.Lock()
	client := p.client
	p.client = -1
	p.tty.close()
	p.mu.Unlock()
	if client >= 0 {
		unix.Close(client) // its end is the shim's order to end the tree
	}
	p.reap(0)
	return nil
}

// reap waits for the shim itself. Without a wait it may stay until Close.
func (p *Process) reap(flags int) {
	if p.Pid == 0 {
		return
	}
	for {
		pid, err := unix.Wait4(p.Pid, nil, flags, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && pid == 0 {
			return
		}
		break
	}
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
	}
	p.pidfd, p.Pid = -1, 0
}

func (p *Process) channel() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client
}

func (p *Process) takeTerminal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tty.take()
}

func (p *Process) giveTerminal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tty.give()
}

func (p *Process) leaveTerminal(killed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tty.leave(killed)
}
