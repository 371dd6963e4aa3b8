package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

func (a *app) stopVerb() *cobra.Command {
	var now, asJSON bool
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "End workloads: SIGTERM, a paid moment, SIGKILL",
		Long: `End workloads with their whole trees: SIGTERM, a moment to save work that the
workload's deposit pays, SIGKILL. Each name is printed when its workload is gone and
paid for. What is left in its wallet is not spent.`,
		Example:           "  maxwell stop agent-7\n  maxwell stop --now agent-7 agent-8\n  maxwell ps -q | xargs maxwell stop",
		Args:              targets,
		ValidArgsFunction: a.completeNames(0, false),
		RunE: func(_ *cobra.Command, names []string) error {
			return a.stop(context.Background(), names, now, asJSON)
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "SIGKILL at once")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a workload")
	return cmd
}

// stop tells all of them to end before it waits for the first.
func (a *app) stop(ctx context.Context, names []string, now, asJSON bool) error {
	durable := a.durable(ctx)
	var stopping []string
	var troubles []error
	for _, name := range names {
		err := a.change(ctx, func(ctx context.Context, market connection, id []byte) error {
			_, err := market.Stop(ctx, &v1.StopRequest{Name: name, Now: now, RequestId: id})
			return err
		})
		switch {
		case err == nil:
			stopping = append(stopping, name)
		case unheard(err):
			return err
		default:
			troubles = append(troubles, fmt.Errorf("stop: %w", err))
		}
	}
	w := waiter{a: a, verb: "stop", troubles: troubles}
	w.tell = func(name string, w *v1.Workload) error {
		if asJSON {
			return report.WriteLine(a.out, endingOf(w))
		}
		_, err := fmt.Fprintln(a.out, name)
		return err
	}
	if !durable {
		// A market of run and up ends with its last client: what it governed is
		// gone when it is.
		w.gone = func(name string) error {
			return w.tell(name, &v1.Workload{Name: name, State: "dead", Reason: "stopped"})
		}
	}
	return w.await(ctx, stopping)
}

// durable says that the market outlives its clients.
func (a *app) durable(ctx context.Context) bool {
	var self *v1.SelfResponse
	_ = a.attempt(ctx, func(ctx context.Context, market connection) error {
		var err error
		self, err = market.Self(ctx, &v1.SelfRequest{})
		return err
	})
	return self.GetDurable()
}

func (a *app) waitVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "wait NAME...",
		Short: "Wait until workloads are gone, and print their exit codes",
		Long: `Wait until each workload is gone and paid for, and print its exit code: one line a
name, in the order given. The verb's own exit code is 0 whatever theirs are. A dead
workload answers at once.`,
		Example:           "  maxwell wait agent-7\n  test $(maxwell wait agent-7) -eq 0",
		Args:              targets,
		ValidArgsFunction: a.completeNames(0, true),
		RunE: func(_ *cobra.Command, names []string) error {
			w := waiter{a: a, verb: "wait", tell: func(_ string, w *v1.Workload) error {
				if asJSON {
					return report.WriteLine(a.out, endingOf(w))
				}
				_, err := fmt.Fprintln(a.out, w.GetExitCode())
				return err
			}}
			return w.await(context.Background(), names)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a workload")
	return cmd
}

// waiter waits for the ends of workloads.
type waiter struct {
	a        *app
	verb     string
	tell     func(name string, w *v1.Workload) error
	gone     func(name string) error // the market ended meanwhile; nil: that is an error
	troubles []error
}

// await waits for one workload after the other and tells the end of each. One
// that cannot be waited for does not keep the others from it.
func (w *waiter) await(ctx context.Context, names []string) error {
	for _, name := range names {
		var dead *v1.Workload
		err := w.a.question(ctx, func(ctx context.Context, market connection) error {
			r, err := market.Wait(ctx, &v1.WaitRequest{Name: name})
			dead = r.GetWorkload()
			return err
		})
		switch {
		case err == nil:
			err = w.tell(name, dead)
		case unheard(err) && w.gone != nil:
			err = w.gone(name)
		case unheard(err):
			w.troubles = append(w.troubles, err)
			return oneLineOf(w.troubles)
		default:
			err = fmt.Errorf("%s: %w", w.verb, err)
		}
		if err != nil {
			w.troubles = append(w.troubles, err)
		}
	}
	return oneLineOf(w.troubles)
}

// oneLineOf joins errors into one that fits a line.
func oneLineOf(list []error) error {
	if len(list) < 2 {
		return errors.Join(list...)
	}
	texts := make([]string, len(list))
	for i, err := range list {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// ending is how a workload ended, for `stop --json` and `wait --json`.
type ending struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	Reason    string `json:"reason"`
	ExitCode  int32  `json:"exit_code"`
	ChildExit *int   `json:"child_exit"`
	Retryable bool   `json:"retryable"`
	Remedy    string `json:"remedy"`
}

func endingOf(w *v1.Workload) ending {
	return ending{
		Name: w.GetName(), ID: w.GetId(), Reason: w.GetReason(), ExitCode: w.GetExitCode(), ChildExit: workloadOf(w, "").ChildExit,
		Retryable: w.GetRetryable(), Remedy: w.GetRemedy(),
	}
}
