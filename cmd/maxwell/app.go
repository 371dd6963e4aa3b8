package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// Exit codes of Maxwell itself; a command's own code passes through.
const (
	exitUsage = 125 // usage, or Maxwell's own failure
)

// app is what the verbs need from the world, so that tests can give them
// another one.
type app struct {
	in       *os.File
	out, err io.Writer
	environ  func() []string
	join     func(ctx context.Context, o opening) (session, error)
	connect  func(ctx context.Context) (connection, error)
	doctor   func(repair bool) (report.Doctor, error)
	now      func() time.Time // in the zone that times are shown in
	pace     time.Duration    // how often what follows looks again
}

// opening says who joins, and what market to open if there is none.
type opening struct {
	client  string // "run", "up", "experiment"
	machine fleet.Node
	enforce string // auto, cgroup, signal
	journal string // file that keeps every transfer; "" = none
	tests   openingTests
}

// openingTests are hidden flags for tests of the market's own failures.
type openingTests struct {
	panicAtTick uint64
	panicIn     string
	trace       string
}

// session is a client's place in the market, as the verbs use it.
type session interface {
	Node() *v1.Node
	Events() <-chan *v1.Event
	Gone() <-chan struct{}
	// Admit takes a place for a later Start of the same name.
	Admit(ctx context.Context, terms *v1.AdmitRequest) error
	Start(ctx context.Context, j job) (running, error)
	Snapshot(ctx context.Context, own bool) (*v1.Snapshot, error)
	Stop(ctx context.Context, name string, now bool) error
	Suspend(ctx context.Context, suspend bool) error
	Leave(ctx context.Context) (*v1.Snapshot, error)
}

// connection is a line to the market for one question: it keeps nothing alive.
// Errors of its calls are for node.Plain.
type connection interface {
	maxwellv1connect.MarketServiceClient
	Close()
}

// job is a command with its terms.
type job struct {
	terms    *v1.AdmitRequest
	spec     launch.Spec
	onChange func(launch.Status)
}

// running is a started job.
type running interface {
	Wallet() string
	Done() <-chan struct{}
	Result() (*v1.ExitedResponse, error)
	Code() int
	Signal(sig syscall.Signal) error
}

// exitError ends the program with a code. A nil err has already been told, or
// needs no telling.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usagef is an error of what the person wrote: one line, exit 125.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// execute runs one command line and returns the exit code.
func (a *app) execute(args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // never nil: cobra would read os.Args
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.strangers(root)
	err := root.Execute()
	if err == nil {
		return 0
	}
	code := exitUsage
	if e, ok := errors.AsType[*exitError](err); ok {
		code, err = e.code, e.err
	}
	if err != nil {
		fmt.Fprintf(a.err, "maxwell: %s\n", oneLine(err.Error()))
	}
	return code
}

// oneLine keeps a message on its line, whatever an argument held.
func oneLine(s string) string {
	return strings.NewReplacer("\n", " ", "\r", " ", "\x1b", "?").Replace(s)
}

// flagError turns a flag parser's error into a place, a text and a fix.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if e.GetFlag().Value.Type() == "bool" {
			return usagef("%s --%s: %q: takes no value; write --%s", verb(cmd), e.GetFlag().Name, e.GetValue(), e.GetFlag().Name)
		}
		reason := e.Unwrap().Error()
		if _, ok := errors.AsType[*strconv.NumError](e.Unwrap()); ok { // a parser of pflag's own
			reason = fmt.Sprintf("%q: not a whole number that fits", e.GetValue())
		}
		if p, ok := errors.AsType[*fleet.Problem](e.Unwrap()); ok && p.Text == "" {
			reason = fmt.Sprintf("%q: %s", e.GetValue(), reason)
		}
		return usagef("%s --%s: %s", verb(cmd), e.GetFlag().Name, reason)
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usagef("%s --%s: a value is missing", verb(cmd), e.GetFlag().Name)
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, e.GetSpecifiedName(), e.GetSpecifiedShortnames())
	}
	return usagef("%s%v", before(cmd), err)
}

// unknownFlag names the flag that was meant, if one is near or begins so.
func unknownFlag(cmd *cobra.Command, name, short string) error {
	if short != "" && short[0] >= '0' && short[0] <= '9' {
		return usagef("%s%q is negative; write an amount above zero", before(cmd), "-"+short)
	}
	if short != "" {
		return usagef("%sunknown flag -%s; see %s --help", before(cmd), name, cmd.CommandPath())
	}
	var known, longer []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		known = append(known, f.Name)
		if !f.Hidden && strings.HasPrefix(f.Name, name) {
			longer = append(longer, f.Name)
		}
	})
	near := fleet.Nearest(name, known)
	if near == "" && len(longer) == 1 {
		near = longer[0]
	}
	if near != "" {
		return usagef("%sunknown flag --%s; did you mean --%s?", before(cmd), name, near)
	}
	return usagef("%sunknown flag --%s; see %s --help", before(cmd), name, cmd.CommandPath())
}

// verb is the place of a mistake: "run", "audit verify".
func verb(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// before is what a message begins with: "run: ", and nothing without a verb.
func before(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return ""
	}
	return verb(cmd) + ": "
}

// noArgs refuses arguments in one line.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s: unexpected argument %q", verb(cmd), args[0])
	}
	return nil
}

// oneArg wants exactly one argument, called what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usagef("%s: %s is missing; write %s", verb(cmd), what, withoutFlags(cmd))
		case 1:
			return nil
		}
		return usagef("%s: unexpected argument %q", verb(cmd), args[1])
	}
}
