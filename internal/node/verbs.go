package node

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	ossignal "os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/cgroup"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/signal"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
)

// NodeVerb is the hidden verb of the market process.
const NodeVerb = "node"

// Hidden runs the verbs that Maxwell starts itself with: the market, its
// watchdog and the shim of the signal enforcement. A program that uses this
// package calls it before anything else; ran is false for every other verb.
func Hidden(args []string) (code int, ran bool) {
	if len(args) == 0 {
		return 0, false
	}
	switch args[0] {
	case NodeVerb:
		return serveVerb(args[1:]), true
	case WatchdogVerb:
		return watchVerb(), true
	case signal.Verb:
		return signal.Shim(args[1:]), true
	case launch.GateVerb:
		return launch.Gate(args[1:]), true
	}
	return 0, false
}

// serveVerb is the market process. SIGTERM and SIGINT end it in order; the
// terminal of whoever started it is none of its business.
func serveVerb(args []string) int {
	dir, s, err := parseArgs(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	ossignal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := ossignal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	pipe := os.NewFile(ReadyFD, "ready")
	syscall.CloseOnExec(ReadyFD)
	tell := func(err error) {
		line := "ready"
		switch {
		case errors.Is(err, ErrTaken):
			line = "taken"
		case err != nil:
			line = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		_, _ = io.WriteString(pipe, line+"\n")
		_ = pipe.Close()
	}
	if err := Serve(ctx, dir, s, tell); err != nil && !errors.Is(err, ErrTaken) {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return 0
}

// parseArgs reads what Settings.Args wrote.
func parseArgs(args []string) (dir string, s Settings, err error) {
	f := flag.NewFlagSet(NodeVerb, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&dir, "dir", "", "")
	f.Int64Var((*int64)(&s.Cores), "cores-milli", 0, "")
	f.Int64Var((*int64)(&s.Watts), "watts-uw", 0, "")
	f.Int64Var((*int64)(&s.WattsPerCore), "core-uw", 0, "")
	f.Int64Var((*int64)(&s.IdleWatts), "idle-uw", 0, "")
	f.Int64Var((*int64)(&s.Floor), "floor-ppm", 0, "")
	epoch := f.Int64("epoch-ns", 0, "")
	f.StringVar(&s.Enforce, "enforce", "", "")
	f.StringVar((*string)(&s.Meter), "meter", string(meter.Auto), "")
	f.StringVar(&s.Trace, "trace", "", "")
	f.StringVar(&s.Journal, "journal", "", "")
	level := f.Int64("log", 0, "")
	f.StringVar(&s.Version, "version", "", "")
	f.Uint64Var(&s.Seed, "seed", 0, "")
	f.Uint64Var(&s.PanicAtTick, "panic-at-tick", 0, "")
	f.StringVar(&s.PanicIn, "panic-in", "", "")
	if err := f.Parse(args); err != nil {
		return "", s, fmt.Errorf("maxwell %s: %w", NodeVerb, err)
	}
	s.Epoch, s.Log = time.Duration(*epoch), slog.Level(*level)
	if f.NArg() > 0 {
		return "", s, fmt.Errorf("maxwell %s: %q is no setting", NodeVerb, f.Arg(0))
	}
	if dir == "" {
		return "", s, fmt.Errorf("maxwell %s is started by maxwell run and up; it is not for people", NodeVerb)
	}
	return dir, s, nil
}

// watchVerb is the watchdog: it waits for the market's end and cleans up after
// a sudden one.
func watchVerb() int {
	actions, err := cgroup.Watch(cgroup.WatchdogFD)
	for _, a := range actions {
		fmt.Fprintln(os.Stderr, "watchdog:", a.String())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "watchdog:", err)
		return 1
	}
	return 0
}
