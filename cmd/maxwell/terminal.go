package main

import (
	"io"
	"os"

	"github.com/spf13/pflag"
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
	f.Var(choice(&o.enforce, "auto", "cgroup", "signal"), "enforce", "how to enforce, if this opens the market: auto, cgroup or signal")
	f.Uint64Var(&o.tests.panicAtTick, "panic-at-tick", 0, "tests: the market panics at this tick")
	f.StringVar(&o.tests.panicIn, "panic-in", "", "tests: where it panics")
	f.StringVar(&o.tests.trace, "trace", "", "write one JSON line an epoch to this file, if this opens the market")
	for _, name := range []string{"panic-at-tick", "panic-in", "trace"} {
		f.Lookup(name).Hidden = true
	}
}
