package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// defaultFleet is what `up` reads when no file is named.
const defaultFleet = "maxwell.yaml"

// upSpec is what `maxwell up` was asked.
type upSpec struct {
	file    string
	length  time.Duration // 0: until every workload has ended
	json    bool
	logs    string
	opening opening
}

func (a *app) upVerb() *cobra.Command {
	spec := upSpec{file: defaultFleet, opening: opening{client: "up", enforce: "auto"}}
	cmd := &cobra.Command{
		Use:   "up [FLEET.yaml]",
		Short: "Run a fleet of workloads in one market",
		Long: `Run every workload of a fleet file in the foreground: a live table on a terminal,
one line a second otherwise, and a closing statement at the end. ^C ends them all.

Without a file it reads maxwell.yaml. What the workloads print is dropped unless
--logs names a directory; each then writes NAME.log there.`,
		Example: `  maxwell up examples/scientist-leech.yaml --for 30s
  maxwell up fleet.yaml --json --logs logs > statement.json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("up: unexpected argument %q; name one fleet file", args[1])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				spec.file = args[0]
			}
			return a.up(&spec)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	f := cmd.Flags()
	f.Var(&value[time.Duration]{target: &spec.length, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "for",
		"end the fleet after this time (default: when every workload has ended)")
	f.BoolVar(&spec.json, "json", false, "print the statement as one JSON object on standard output")
	f.StringVar(&spec.logs, "logs", "", "write what each workload prints to `DIR`/NAME.log")
	openingFlags(f, &spec.opening)
	offer(cmd, "enforcement", "auto", "cgroup", "signal")
	offer(cmd, "for")
	if err := cmd.MarkFlagDirname("logs"); err != nil {
		panic(err)
	}
	return cmd
}

// readFleet reads, checks and parses a fleet file.
func (a *app) readFleet(name string) (fleet.Fleet, error) {
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return fleet.Fleet{}, usagef("up: %s: no such file; see examples/scientist-leech.yaml for one", name)
	}
	if err != nil {
		return fleet.Fleet{}, usagef("up: %v", err)
	}
	if info.IsDir() {
		return fleet.Fleet{}, usagef("up: %s: is a directory; name a fleet file", name)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		err := fleet.Trusted(name, info.Mode(), int(st.Uid), int(st.Gid), caller(a.environ()))
		if err != nil {
			return fleet.Fleet{}, usagef("up: %v", err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fleet.Fleet{}, usagef("up: %v", err)
	}
	f, err := fleet.Parse(name, text)
	if err != nil {
		return fleet.Fleet{}, usagef("up: %v", err)
	}
	return f, nil
}

// fleetRun is one fleet from its start to its statement.
type fleetRun struct {
	a         *app
	spec      *upSpec
	market    session
	workloads []fleet.Workload
	roster    roster
	alive     map[string]running
	began     time.Time
	screen    *report.Screen // nil: one line a second
}

func (a *app) up(spec *upSpec) error {
	f, err := a.readFleet(spec.file)
	if err != nil {
		return err
	}
	if spec.logs != "" {
		if err := os.MkdirAll(spec.logs, 0o755); err != nil {
			return usagef("up --logs: %v", err)
		}
	}
	if err := a.check(spec, f); err != nil {
		return err
	}
	spec.opening.machine = f.Node
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP)
	defer signal.Stop(signals)
	ctx := context.Background()
	market, err := a.join(ctx, spec.opening)
	if err != nil {
		return err
	}
	r := fleetRun{
		a: a, spec: spec, market: market, workloads: f.Expand(),
		alive: make(map[string]running), began: time.Now(),
	}
	r.roster = rosterOf(r.workloads)
	if width, height, ok := screenSize(a.out, a.environ()); ok && !spec.json {
		r.screen = &report.Screen{W: a.out, Width: width, Height: height}
	}
	stopped, err := r.live(ctx, signals)
	if err == nil {
		err = r.stop(ctx, signals)
	}
	return r.close(ctx, stopped, err)
}

// live starts everything and shows it until it is over. The signal that ended
// it is returned, 0 for none.
func (r *fleetRun) live(ctx context.Context, signals <-chan os.Signal) (syscall.Signal, error) {
	for _, step := range []func(context.Context, *fleet.Workload) error{r.admit, r.start} {
		if sig, err := r.each(ctx, signals, step); sig != 0 || err != nil {
			return sig, err
		}
	}
	events := r.market.Events()
	var over <-chan time.Time
	if r.spec.length > 0 {
		over = time.After(r.spec.length - time.Since(r.began))
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for len(r.alive) > 0 {
		select {
		case <-over:
			return 0, nil
		case s := <-signals:
			if s != syscall.SIGTSTP {
				return s.(syscall.Signal), nil
			}
			if err := r.suspend(ctx); err != nil {
				return 0, err
			}
		case e, open := <-events:
			if !open {
				return 0, nil // leaving says why
			}
			r.event(e)
		case <-second.C:
			if err := r.show(ctx); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// each takes every workload a step further, until a signal or a refusal.
// Nothing may wait on us while thousands start.
func (r *fleetRun) each(
	ctx context.Context, signals <-chan os.Signal, step func(context.Context, *fleet.Workload) error,
) (syscall.Signal, error) {
	events := r.market.Events()
	for i := range r.workloads {
		w := &r.workloads[i]
		if err := step(ctx, w); err != nil {
			return 0, r.spec.at(w, err)
		}
		for drained := false; !drained; {
			select {
			case e := <-events:
				r.event(e)
			case s := <-signals:
				return s.(syscall.Signal), nil
			default:
				drained = true
			}
		}
	}
	return 0, nil
}

// at names the place of a workload in the fleet file.
func (s *upSpec) at(w *fleet.Workload, err error) error {
	place := fmt.Errorf("%s:%d:%d: workloads.%s: %w", s.file, w.Place.Line, w.Place.Column, w.Name, err)
	if e, ok := errors.AsType[*launch.ExecError](err); ok {
		return &exitError{e.Code, place}
	}
	return &exitError{exitUsage, place}
}

// stopPatience bounds the wait for an orderly end: the dying lane is 250 ms;
// what is left is ended by leaving the market.
const stopPatience = 2 * time.Second

// stop ends what still runs in order: SIGTERM, a moment that is paid for, then
// SIGKILL. A second signal ends the wait.
func (r *fleetRun) stop(ctx context.Context, signals <-chan os.Signal) error {
	if len(r.alive) == 0 {
		return nil
	}
	if err := r.market.Stop(ctx, "", false); err != nil {
		return err
	}
	patience := time.After(stopPatience)
	events := r.market.Events()
	for len(r.alive) > 0 {
		select {
		case e, open := <-events:
			if !open {
				return nil // leaving says why
			}
			if e.GetKind() == "dead" {
				delete(r.alive, e.GetWorkload())
			}
		case <-signals:
			return nil
		case <-patience:
			return nil
		}
	}
	return nil
}

// suspend is ^Z: everything of this fleet stops, then this program.
func (r *fleetRun) suspend(ctx context.Context) error {
	if err := r.market.Suspend(ctx, true); err != nil {
		return err
	}
	if err := stopSelf(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return r.market.Suspend(ctx, false)
}

// admit takes a place for every workload before the first one runs.
func (r *fleetRun) admit(ctx context.Context, w *fleet.Workload) error {
	return r.market.Admit(ctx, terms(w))
}

func (r *fleetRun) start(ctx context.Context, w *fleet.Workload) error {
	log, err := r.log(w.Name)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	spec, err := r.a.specOf(w)
	if err != nil {
		return err
	}
	spec.Files = [3]*os.File{null, log, log}
	running, err := r.market.Start(ctx, job{terms: terms(w), spec: spec})
	if err != nil {
		return err
	}
	r.alive[running.Wallet()] = running
	return nil
}

// specOf is the command of a workload: the word maxwell is this program.
func (a *app) specOf(w *fleet.Workload) (launch.Spec, error) {
	command := w.Command
	if command[0] == "maxwell" {
		self, err := os.Executable()
		if err != nil {
			return launch.Spec{}, fmt.Errorf("find this program: %w", err)
		}
		command = append([]string{self}, command[1:]...)
	}
	env := a.environ()
	for name, v := range w.Env {
		env = append(env, name+"="+v)
	}
	return launch.Spec{Args: command, Env: env, Dir: w.Dir}, nil
}

// check looks for every program of a fleet before anything of it is started.
func (a *app) check(s *upSpec, f fleet.Fleet) error {
	for i := range f.Workloads {
		w := &f.Workloads[i]
		command, err := a.specOf(w)
		if err == nil {
			err = launch.Check(command)
		}
		if err != nil {
			return s.at(w, err)
		}
	}
	return nil
}

// log is where a workload prints.
func (r *fleetRun) log(name string) (*os.File, error) {
	path := os.DevNull
	if r.spec.logs != "" {
		path = filepath.Join(r.spec.logs, name+".log")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	return f, nil
}

// event prints what is worth a line and notes deaths.
func (r *fleetRun) event(e *v1.Event) {
	if e == nil {
		return
	}
	if e.GetKind() == "dead" {
		delete(r.alive, e.GetWorkload())
	}
	n, ok := noticeOf(e)
	if !ok || n.Kind == report.IsDying || r.spec.json {
		return
	}
	if n.Kind == report.Warned && n.Limit == "" {
		for i := range r.workloads {
			if r.workloads[i].Name == n.Name {
				n.Limit = limitText(&r.workloads[i], n.What)
			}
		}
	}
	if r.screen != nil {
		_ = r.screen.Print(n.Line())
		return
	}
	fmt.Fprintln(r.a.out, n.Line())
}

// show draws the market as it is.
func (r *fleetRun) show(ctx context.Context) error {
	if r.spec.json {
		return nil
	}
	raw, err := r.market.Snapshot(ctx, true)
	if err != nil {
		return err
	}
	s := snapshotOf(raw, r.roster, time.Since(r.began))
	if r.screen != nil {
		return r.screen.Draw(&s)
	}
	_, err = fmt.Fprintln(r.a.out, s.Line())
	return err
}

// close ends what still runs and prints the statement.
func (r *fleetRun) close(ctx context.Context, stopped syscall.Signal, cause error) error {
	raw, err := r.market.Leave(ctx)
	wall := time.Since(r.began)
	if r.screen != nil {
		_ = r.screen.Clear()
	}
	if cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	s := statementOf(raw, r.roster)
	if r.spec.json {
		err = s.WriteJSON(r.a.out)
	} else {
		err = s.WriteClosing(r.a.out, wall)
	}
	if err != nil {
		return fmt.Errorf("write statement: %w", err)
	}
	if broken := s.Check(); broken != nil {
		return &exitError{exitUsage, fmt.Errorf("the books are wrong, please report this: %w", broken)}
	}
	if stopped != 0 {
		return &exitError{code: 128 + int(stopped)}
	}
	return nil
}

// caller is who asks, from the process and sudo's variables.
func caller(environ []string) fleet.Caller {
	return fleet.Caller{
		UID:     os.Geteuid(),
		SudoUID: number(getenv(environ)("SUDO_UID")),
		SudoGID: number(getenv(environ)("SUDO_GID")),
	}
}
