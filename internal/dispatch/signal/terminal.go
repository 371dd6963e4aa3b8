package signal

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// terminal is the caller's controlling terminal, shared with the command.
//
// As all are in one process group there is nothing to hand over at the start.
// But the command may be a shell with job control, which makes its own groups
// the terminal's foreground: then the terminal has to be taken back when that
// shell is stopped or dead (it can't give it back itself: our group has no
// number in its namespace), and handed over when it goes on.
type terminal struct {
	fd     int // -1: there is none, or it is not ours
	held   bool
	group  int          // the foreground group that was taken back; 0: none
	before unix.Termios // modes at the start
	modes  unix.Termios // modes of the stopped command
}

func openTerminal() terminal {
	t := terminal{fd: -1}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return t
	}
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return t
	}
	t.fd, t.before = fd, *modes
	t.held = t.foreground() == unix.Getpgrp()
	return t
}

func (t *terminal) foreground() int {
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// take makes our group the foreground, if the command's was.
func (t *terminal) take() {
	if t.fd < 0 {
		return
	}
	group := t.foreground()
	if group == 0 || group == unix.Getpgrp() {
		return
	}
	t.group = group
	if modes, err := unix.IoctlGetTermios(t.fd, unix.TCGETS); err == nil {
		t.modes = *modes
	}
	t.set(unix.Getpgrp(), &t.before)
}

// give is the opposite of take, if we were put into the foreground again.
func (t *terminal) give() {
	if t.fd < 0 || t.group == 0 || t.foreground() != unix.Getpgrp() {
		return
	}
	group := t.group
	t.group = 0
	t.set(group, &t.modes)
}

// leave cleans up after the command's end. The foreground is taken only from a
// group in which nobody lives: a live one is the user's shell's or another
// job's. Modes are restored if the command was killed, as shells do; one that
// ended by itself may have meant them (stty).
func (t *terminal) leave(killed bool) {
	if t.fd < 0 {
		return
	}
	group := t.foreground()
	mine := group == unix.Getpgrp()
	if !mine && group > 0 && unix.Kill(-group, 0) == unix.ESRCH {
		t.set(unix.Getpgrp(), nil)
		mine = true
	}
	if mine && killed && t.held {
		t.set(unix.Getpgrp(), &t.before)
	}
	t.close()
}

func (t *terminal) close() {
	if t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
	}
}

// set changes the foreground group and the modes. A background process that
// does so is sent SIGTTOU unless the calling thread blocks it.
func (t *terminal) set(group int, modes *unix.Termios) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, old unix.Sigset_t
	block.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old) != nil {
		return
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group)
	if modes != nil {
		_ = unix.IoctlSetTermios(t.fd, unix.TCSETSW, modes)
	}
}
