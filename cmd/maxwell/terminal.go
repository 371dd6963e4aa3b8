package main

import (
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// hasTerminal says that a terminal controls this program: keys like ^C reach
// the command by themselves.
func (a *app) hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}

// keepTerminal remembers the modes of the terminal if this program is in its
// foreground. What it returns puts them back after the command was killed, as
// shells do; one that ended by itself may have meant its changes (stty).
func keepTerminal() (restore func(killed bool)) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return func(bool) {}
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil || foreground(fd) != unix.Getpgrp() {
		_ = tty.Close()
		return func(bool) {}
	}
	return func(killed bool) {
		defer tty.Close()
		// A living group in the foreground is the shell's or another job's. A
		// dead one was a job of the command's, and may be replaced.
		group := foreground(fd)
		if !killed || group != unix.Getpgrp() && unix.Kill(-group, 0) != unix.ESRCH {
			return
		}
		signal.Ignore(syscall.SIGTTOU) // else the kernel stops who does this from the background
		defer signal.Reset(syscall.SIGTTOU)
		_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, unix.Getpgrp())
		_ = term.Restore(fd, before)
	}
}

// stopSelf stops this program and returns when it is continued. The signal goes
// to the calling thread: one sent to the process is another thread's to take,
// and this one would run on until it does, into what belongs after fg.
func stopSelf() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// foreground is the process group that the terminal's keys reach.
func foreground(tty int) int {
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// files are the command's standard streams: this program's own.
func (a *app) files() [3]*os.File {
	files := [3]*os.File{a.in, nil, nil}
	files[1], _ = a.out.(*os.File)
	files[2], _ = a.err.(*os.File)
	return files
}

// screenSize is the size of w if it is a terminal that can redraw.
func screenSize(w io.Writer, environ []string) (width, height int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || getenv(environ)("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return 0, 0, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	return width, height, err == nil
}

// openingFlags are the flags about the market that a first client opens.
func openingFlags(f *pflag.FlagSet, o *opening) {
	f.Var(choice(&o.enforce, "auto", "cgroup", "signal"), "enforcement", "how to enforce, if this opens the market: auto, cgroup or signal")
	f.StringVar(&o.journal, "journal", "", "keep every transfer of the market that this opens in a new `FILE`; see maxwell audit verify")
	testFlags(f, &o.tests)
}

// testFlags are hidden: what tests ask of a market.
func testFlags(f *pflag.FlagSet, t *openingTests) {
	f.Uint64Var(&t.panicAtTick, "panic-at-tick", 0, "tests: the market panics at this tick")
	f.StringVar(&t.panicIn, "panic-in", "", "tests: where it panics")
	f.StringVar(&t.trace, "trace", "", "write one JSON line an epoch to this file, if this opens the market")
	for _, name := range []string{"panic-at-tick", "panic-in", "trace"} {
		f.Lookup(name).Hidden = true
	}
}
