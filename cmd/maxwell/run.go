package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/dispatch/launch"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// runSpec is what `maxwell run` was asked.
type runSpec struct {
	workload fleet.Workload
	receipt  string
	quiet    bool
	asRoot   bool
	pickName bool // the name is the command's, with a number if it is taken
	detach   bool
	log      string            // file of a detached command's output
	started  func(name string) // told when the command runs; may be nil
	opening  opening
}

func (a *app) runVerb() *cobra.Command {
	spec := runSpec{workload: fleet.New(""), opening: opening{client: "run", enforce: "auto"}}
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Run one command: measure it, cap it, let it bid",
		Long: `Run one command under the market. Its standard input, output and errors, its
signals, its terminal and its exit code are its own.

Without --budget nothing is limited, and the closing lines on standard error say
what the command burned, what it cost and which budget would have fitted.

With --wallet a standing wallet pays. It gives the budget, and gets back what is left
of it; without --budget the command spends from the wallet, stops when that is empty
and runs on when money has come in. See maxwell wallet.

With -d the command runs in the background, its output goes to a file, and its
wallet's name is printed: see ps, logs, wait, stop and receipt.

Exit codes: the command's own; 121 a cap other than money; 122 insolvent;
123 evicted for heat; 124 --timeout; 125 Maxwell's failure or usage;
126 not executable; 127 not found; 128+n ended by signal n.`,
		Example: `  maxwell run -- make -j8
  maxwell run --budget 500 --bid 4x -- ./job
  maxwell run --budget 500 --bid auto --horizon 2h -- ./agent
  maxwell run --wallet team -- ./agent
  maxwell run -d --name crawler --budget 2k --when-broke pause -- ./crawl
  maxwell run --max-cpu 10m --memory 4G --pids 512 --receipt job.json -- ./job`,
		RunE: func(_ *cobra.Command, args []string) error {
			spec.workload.Command = args
			if err := spec.finish(); err != nil {
				return err
			}
			switch {
			case spec.detach && a.detached():
				return a.supervise(&spec)
			case spec.detach:
				return a.detach(&spec)
			}
			return a.run(&spec)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	workloadFlags(f, &spec.workload)
	f.StringVar(&spec.workload.Name, "name", "", "name of the wallet (default: the command's)")
	f.StringVar(&spec.receipt, "receipt", "", "write how it ended as JSON to a `FILE`, or to descriptor N: fd:N")
	f.BoolVarP(&spec.quiet, "quiet", "q", false, "say nothing: no warnings, no closing lines")
	f.BoolVar(&spec.asRoot, "as-root", false, "behind sudo, keep root instead of the invoking user")
	f.BoolVarP(&spec.detach, "detach", "d", false, "run in the background and print the wallet's name; see ps, logs, wait and stop")
	f.StringVar(&spec.log, "log", "", "with -d: append the command's output to this `FILE`; see maxwell logs")
	openingFlags(f, &spec.opening)
	completeWorkload(cmd)
	offer(cmd, "name")
	a.completeFlag(cmd, "wallet")
	return cmd
}

// finish fills what follows from the flags and refuses what cannot work.
func (s *runSpec) finish() error {
	w := &s.workload
	if len(w.Command) == 0 || w.Command[0] == "" {
		return usagef("run: the command is empty; write maxwell run -- COMMAND")
	}
	if w.Name == "" {
		s.pickName, w.Name = true, fleet.NameFor(w.Command[0])
	}
	if s.log != "" && !s.detach {
		return usagef("run --log: %q: only with -d; else redirect the output: maxwell run -- COMMAND > %s", s.log, s.log)
	}
	w.Fill()
	if p := w.Validate(); p != nil {
		if flag := p.Flag(); flag != "" {
			return usagef("run %s: %s", flag, p)
		}
		return usagef("run: %s", p)
	}
	return nil
}

// run starts the command, follows it to its end and tells how it went.
func (a *app) run(spec *runSpec) error {
	out, err := openReceipt(spec.receipt)
	if err != nil {
		return err
	}
	written := false
	defer func() {
		if !written {
			out.drop()
		}
	}()
	job, err := a.jobOf(spec)
	if err != nil {
		return err
	}
	ctx := context.Background()
	// From here signals are the command's: none may end this program alone.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)
	market, err := a.join(ctx, spec.opening)
	if err != nil {
		return err
	}
	begun := time.Now()
	restore := keepTerminal()
	r, err := startNamed(ctx, market, job, spec.pickName)
	if err != nil {
		restore(false)
		_, _ = market.Leave(ctx)
		return startError(err)
	}
	if spec.started != nil {
		spec.started(r.Wallet())
	}
	f := follower{a: a, spec: spec, market: market, running: r, signals: signals}
	followErr := f.follow(ctx)
	end, endErr := f.end(time.Since(begun))
	restore(endErr != nil || end.Workload.Reason != "exited")
	_, leaveErr := market.Leave(ctx)
	if endErr != nil {
		code := exitUsage
		if errors.Is(endErr, node.ErrAway) { // it ran to its end: only the bill is missing
			code = r.Code()
		}
		return &exitError{code, errors.Join(followErr, endErr)}
	}
	if out != nil {
		content := end.Receipt()
		if err := out.write(&content); err != nil {
			return err
		}
		written = true
	}
	if !spec.quiet {
		if err := end.WriteLines(a.err, out.label()); err != nil {
			return err
		}
	}
	if leaveErr != nil && !spec.quiet {
		fmt.Fprintf(a.err, "maxwell: %s\n", oneLine(leaveErr.Error()))
	}
	if code := end.ExitCode; code != nil && *code != 0 {
		return &exitError{code: *code}
	}
	return nil
}

// jobOf is the process to start: the caller's terminal and environment, and
// behind sudo the caller's own identity.
func (a *app) jobOf(spec *runSpec) (job, error) {
	environ := withoutMark(a.environ())
	s := launch.Spec{Args: spec.workload.Command, Env: environ, Dir: spec.workload.Dir, Files: a.files()}
	if os.Geteuid() == 0 && !spec.asRoot {
		who, err := launch.Invoker(getenv(environ))
		if err != nil {
			return job{}, err
		}
		if who != nil {
			s.Credential, s.Env = who, who.Environ(environ)
		}
	}
	t := terms(&spec.workload)
	t.Terminal, t.Log = a.hasTerminal(), spec.log
	return job{terms: t, spec: s}, nil
}

// startNamed starts a job; pick allows to number its name if a living workload
// has it. Who loses a race for a name looks again.
func startNamed(ctx context.Context, market session, j job, pick bool) (running, error) {
	name := j.terms.GetName()
	for attempt := 0; ; attempt++ {
		taken, err := livingNames(ctx, market)
		if err != nil {
			return nil, err
		}
		for n := 2; pick && taken[j.terms.GetName()]; n++ {
			j.terms.Name = name + "-" + strconv.Itoa(n)
		}
		r, err := market.Start(ctx, j)
		if err == nil || !pick || attempt == 3 {
			return r, err
		}
		again, snapErr := livingNames(ctx, market)
		if snapErr != nil || !again[j.terms.GetName()] {
			return nil, err // it was not the name
		}
	}
}

func livingNames(ctx context.Context, market session) (map[string]bool, error) {
	s, err := market.Snapshot(ctx, false)
	if err != nil {
		return nil, err
	}
	taken := make(map[string]bool)
	for _, w := range s.GetWorkloads() {
		if w.GetState() != "dead" {
			taken[w.GetName()] = true
		}
	}
	return taken, nil
}

// startError keeps a shell's codes for a command that cannot be run.
func startError(err error) error {
	if e, ok := errors.AsType[*launch.ExecError](err); ok {
		return &exitError{e.Code, e}
	}
	return err
}

// forwarded are the signals that go on to the command. The terminal's own
// (INT, QUIT) are caught so that they do not end this program first.
var forwarded = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP,
}

// follower follows one running command.
type follower struct {
	a       *app
	spec    *runSpec
	market  session
	running running
	signals <-chan os.Signal
	frozen  bool // broke, paused: a frozen tree does not hear ^C
}

// follow passes signals on and prints notices until the tree is gone.
func (f *follower) follow(ctx context.Context) error {
	events := f.market.Events()
	settled := time.After(stuckAfter)
	var trouble error
	for {
		select {
		case <-settled:
			f.stuck(ctx)
		case <-f.running.Done():
			return trouble
		case s := <-f.signals:
			trouble = errors.Join(trouble, f.signal(ctx, s.(syscall.Signal)))
		case e, open := <-events:
			if !open {
				events = nil
				continue
			}
			f.notice(e)
		}
	}
}

// stuckAfter is how long a command may take to get its first core time before its
// caller hears why it cannot.
const stuckAfter = time.Second

// stuck says that the command does not run, where it will not run by itself: at a bid
// below what its own energy costs no neighbour's end helps it.
func (f *follower) stuck(ctx context.Context) {
	if f.spec.quiet {
		return
	}
	s, err := f.market.Snapshot(ctx, false)
	if err != nil {
		return // whoever follows the command sees it end
	}
	name := f.running.Wallet()
	for _, w := range s.GetWorkloads() {
		if w.GetName() == name && w.GetState() == "waiting" && w.GetRefusal() == "below reserve" && modeOf(w).Enforce == "on" {
			fmt.Fprintf(f.a.err, "maxwell: %s is held: it bids %s, less than its own energy costs; what helps: maxwell explain %s\n",
				name, unit.Price(w.GetBidMilli()), name)
		}
	}
}

// signal passes one signal on.
func (f *follower) signal(ctx context.Context, s syscall.Signal) error {
	switch s {
	case syscall.SIGTSTP:
		return f.suspend(ctx)
	case syscall.SIGINT, syscall.SIGQUIT:
		if f.frozen { // it cannot hear it: end it by the dying lane
			return f.market.Stop(ctx, f.running.Wallet(), false)
		}
		if f.a.hasTerminal() {
			return nil // the terminal has told the command already
		}
	}
	return f.running.Signal(s)
}

// suspend is ^Z: the market stops what this client runs, then this program
// stops as any other would; fg continues both.
func (f *follower) suspend(ctx context.Context) error {
	if err := f.market.Suspend(ctx, true); err != nil {
		return err
	}
	if err := stopSelf(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return f.market.Suspend(ctx, false)
}

func (f *follower) notice(e *v1.Event) {
	if text, ok := absence(e.GetKind(), f.running.Wallet()); ok && !f.spec.quiet {
		fmt.Fprintln(f.a.err, text)
	}
	if e.GetWorkload() != f.running.Wallet() {
		return
	}
	switch e.GetKind() {
	case "broke", "paused":
		f.frozen = true
	case "funded", "dying":
		f.frozen = false
	case "dead":
		return // the closing lines say it
	}
	n, ok := noticeOf(e)
	if !ok || f.spec.quiet || n.Kind == report.IsDying {
		return
	}
	if n.Kind == report.Warned && n.Limit == "" {
		n.Limit = limitText(&f.spec.workload, n.What)
	}
	fmt.Fprintln(f.a.err, n.Line())
}

// absence is a line about a daemon that went, or came back; false for other events.
func absence(kind, what string) (string, bool) {
	switch kind {
	case node.EventAway:
		return fmt.Sprintf("maxwell: the daemon does not answer; %s goes on, and is billed when it is back", what), true
	case node.EventBack:
		return "maxwell: the daemon is back", true
	}
	return "", false
}

// end is the closing statement of the workload.
func (f *follower) end(wall time.Duration) (report.End, error) {
	result, err := f.running.Result()
	if err != nil {
		return report.End{}, err
	}
	w := result.GetWorkload()
	n := f.market.Node()
	var least unit.Credits
	if w.GetOpen() { // minted: what was spent and the deposit; a budget is at least twice that
		least = 2 * unit.Credits(w.GetBudgetUcredits()-w.GetSpentUcredits())
	}
	return report.End{
		Least: least, Workload: workloadOf(w, ""), Command: f.spec.workload.Command, Wall: wall,
		Retryable: w.GetRetryable(), Remedy: w.GetRemedy(),
		Modelled: n.GetModelled(), Sigma: report.Fraction(n.GetSigmaPpm()),
		SpotPeak: unit.Price(result.GetSpotPeakMilli()),
	}, nil
}

// number reads an id; -1 if there is none.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// getenv looks a name up in a list of NAME=value; the last one wins.
func getenv(environ []string) func(string) string {
	return func(name string) string {
		for _, e := range slices.Backward(environ) {
			if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
				return e[len(name)+1:]
			}
		}
		return ""
	}
}
