package signal

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/host/hosttest"
)

// client is what `maxwell run` does with a terminal: start, wait, stop with the
// command, end with its code.
func client(socket string, command []string) int {
	p, err := Start(launch.Spec{Args: command}, dispatch.Placement{Control: socket, Namespace: true})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 125
	}
	ignore := make(chan os.Signal, 8)
	notify(ignore, unix.SIGINT, unix.SIGQUIT)
	for {
		st, err := p.Wait()
		switch {
		case err != nil:
			return 125
		case st.Ended():
			p.Close()
			return st.Code
		case st.State == launch.Stopped:
			gone := make(chan os.Signal, 1)
			notify(gone, unix.SIGCONT)
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			<-gone
			_ = p.Signal(unix.SIGCONT)
		}
	}
}

// control uses a file's descriptor and leaves it non-blocking, so that Close
// ends a Read: f.Fd would not.
func control(t *testing.T, f *os.File, use func(fd uintptr)) {
	t.Helper()
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(use)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// screen is a pseudo terminal with an interactive shell on it.
type screen struct {
	t    *testing.T
	file *os.File
	mu   sync.Mutex
	text strings.Builder
	seen int
}

func newScreen(t *testing.T, socket string) *screen {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		hosttest.Skip(t, "bash", "no bash to try job control with")
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		hosttest.Skip(t, "terminal", "no pseudo terminals: "+err.Error())
	}
	var fd uintptr
	var errno syscall.Errno
	control(t, master, func(m uintptr) {
		if err := unix.IoctlSetPointerInt(int(m), unix.TIOCSPTLCK, 0); err != nil {
			t.Fatal(err)
		}
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, m, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	})
	if errno != 0 {
		hosttest.Skip(t, "terminal", "pseudo terminals do not open: "+errno.Error())
	}
	slave := os.NewFile(fd, "pts")
	defer slave.Close()
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "PS1=prompt> ", "TERM=dumb", "HISTFILE=", "GORACE=atexit_sleep_ms=0"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, file: master}
	var reader sync.WaitGroup
	reader.Go(func() { // ends when the last process closes the terminal
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EIO) && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		master.Close()
		reader.Wait()
		if t.Failed() { // the reader has ended
			t.Logf("screen:\n%s", s.text.String())
		}
	})
	s.expect("prompt> ")
	s.line("R() { /proc/" + itoa(os.Getpid()) + "/exe act client " + socket + " \"$@\"; }")
	s.expect("prompt> ")
	return s
}

func (s *screen) send(text string) {
	s.t.Helper()
	if _, err := s.file.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) line(text string) { s.t.Helper(); s.send(text + "\n") }

// expect waits for a text that comes after those expected before.
func (s *screen) expect(want string) {
	s.t.Helper()
	eventually(s.t, want, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at := strings.Index(s.text.String()[s.seen:], want)
		if at < 0 {
			return false
		}
		s.seen += at + len(want)
		return true
	})
}

// foreground is the terminal's foreground process group.
func (s *screen) foreground() int {
	s.t.Helper()
	var group int
	control(s.t, s.file, func(m uintptr) {
		var err error
		if group, err = unix.IoctlGetInt(int(m), unix.TIOCGPGRP); err != nil {
			s.t.Fatal(err)
		}
	})
	return group
}

// leaves waits until a group is no longer in the foreground.
func (s *screen) leaves(group int) {
	s.t.Helper()
	eventually(s.t, "another foreground group", func() bool { return s.foreground() != group })
}

// childStopped reports whether a process has a child that is stopped.
func childStopped(parent int) bool {
	list, err := os.ReadFile("/proc/" + itoa(parent) + "/task/" + itoa(parent) + "/children")
	if err != nil {
		return true // a kernel without the file: go on, at the risk of a letter
	}
	for pid := range strings.FieldsSeq(string(list)) {
		if newTree("/proc", 0, true).isStopped(atoi(pid), 0) {
			return true
		}
	}
	return false
}

func terminalGroup(t *testing.T) (*rig, *Group) {
	t.Helper()
	needNamespace(t)
	r := &rig{t: t, enforcer: newEnforcer(t, true)}
	g, err := r.enforcer.Open(0, "terminal", dispatch.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return r, g.(*Group)
}

// ^Z stops the command and its client, fg continues both, ^C ends the command
// with 130, and a pipe to a pager's place keeps working.
func TestTerminalStopAndContinue(t *testing.T) {
	if asUser(t) {
		return
	}
	r, g := terminalGroup(t)
	s := newScreen(t, g.place.Control)
	s.line("R sh -c 'echo ready-$((1+1)); read x; echo got-$x; exec sleep 100'")
	s.expect("ready-2")
	r.fresh(g)
	s.send("\x1a")
	s.expect("Stopped")
	s.expect("prompt> ")
	// The shell hears of the client's stop; the command may read one letter
	// more until it has stopped as well, as any grandchild of a shell.
	eventually(t, "the command's stop", func() bool { return childStopped(g.shim) })
	s.line("echo back-$((2+2))")
	s.expect("back-4")
	s.line("fg")
	s.line("word")
	s.expect("got-word")
	s.send("\x1a")
	s.expect("Stopped")
	s.expect("prompt> ")
	eventually(t, "the command's stop", func() bool { return childStopped(g.shim) })
	shell := s.foreground()
	s.line("fg")
	s.leaves(shell)
	s.send("\x03")
	s.expect("prompt> ")
	s.line("echo code-$?-$((3+3))")
	s.expect("code-130-6")
}

// A shell with job control under the shim: its jobs stop and continue, suspend
// gives the terminal back, and so does its end.
func TestTerminalJobControlInside(t *testing.T) {
	if asUser(t) {
		return
	}
	_, g := terminalGroup(t)
	s := newScreen(t, g.place.Control)
	s.line("export PS1='inner> '; R bash --norc --noprofile -i; PS1='prompt> '")
	s.expect("inner> ")
	s.expect("inner> ")
	s.line("set +o history; echo in-$((1+1))-$$")
	s.expect("in-2-")
	// Keys are sent when the job itself runs: until its exec it is still the
	// shell, which ignores some of them.
	s.line("sh -c 'echo up-$((3+3)); exec sleep 101'")
	s.expect("up-6")
	s.send("\x1a")
	s.expect("Stopped")
	s.expect("inner> ")
	shell := s.foreground()
	s.line("fg")
	s.leaves(shell)
	s.send("\x03")
	s.expect("inner> ")
	s.line("echo jobs-$(jobs | wc -l)-$((4+4))")
	s.expect("jobs-0-8")
	s.line("exit 5")
	s.expect("prompt> ")
	s.line("echo outer-$((5+5))")
	s.expect("outer-10")
	s.line("tty >/dev/null && sleep 0 && echo ours-$((6+6))")
	s.expect("ours-12")
}

// What is on a terminal is not stopped by a window, but is when it is frozen.
func TestTerminalIsOnlyFrozen(t *testing.T) {
	if asUser(t) {
		return
	}
	r, g := terminalGroup(t)
	s := newScreen(t, g.place.Control)
	s.line("R sh -c 'echo run-$((1+1)); exec sleep 100'")
	s.expect("run-2")
	r.enforcer.idleAfter = 100 * time.Millisecond
	r.epochs(400*time.Millisecond, dispatch.Share{Class: 3})
	rep := r.fresh(g)
	if rep.Flags&reportTerminal == 0 || rep.Flags&reportStopped != 0 {
		t.Errorf("a loser on a terminal: flags %b", rep.Flags)
	}
	if rep.Flags&reportIdle == 0 {
		t.Error("a loser on a terminal was not weighed")
	}
	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if rep := r.fresh(g); rep.Flags&reportStopped == 0 {
		t.Error("a frozen command on a terminal runs")
	}
}
