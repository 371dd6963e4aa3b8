package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// enforceModes complete a mode of enforcement.
var enforceModes = []string{"observe\tnothing is done", "warn\tand people are told", "on\tit is stopped when broke"}

func (a *app) enforceVerb() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "enforce NAME observe|warn|on",
		Short: "Change how far the market goes, with one or with all",
		Long: `Change how far the daemon goes with a workload: observe only says what would be
done to it, warn also tells its user, on does it. What was done so far is taken back:
it runs on as it was found. It holds until its rule says something new.

With --all it is the most that is done to anybody, whatever rules and verbs say, also
to what comes later and after a restart of the daemon: --all observe disarms the whole
machine at once, --all on lets everybody's own mode hold again. For admins.`,
		Example: "  maxwell enforce postgres observe\n  maxwell enforce --all observe\n  maxwell enforce --all on",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case all && len(args) == 1:
				return checkMode(args[0])
			case !all && len(args) == 2:
				if err := checkTarget("enforce", args[0]); err != nil {
					return err
				}
				return checkMode(args[1])
			}
			return usagef("enforce: write maxwell enforce NAME observe, or maxwell enforce --all observe")
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
			if all && len(args) == 0 || !all && len(args) == 1 {
				return enforceModes, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeNames(1, false)(cmd, args, text)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			req := &v1.SetEnforceRequest{All: all, Enforce: args[len(args)-1]}
			if !all {
				req.Name = args[0]
			}
			return a.enforce(req, asJSON)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "the most that is done to anybody")
	f.BoolVar(&asJSON, "json", false, "print the result as one JSON object")
	return cmd
}

func checkMode(word string) error {
	switch word {
	case "observe", "warn", "on":
		return nil
	}
	return usagef("enforce: %q is no mode; write observe, warn or on", word)
}

func (a *app) enforce(req *v1.SetEnforceRequest, asJSON bool) error {
	var out *v1.SetEnforceResponse
	err := a.change(context.Background(), func(ctx context.Context, c connection, id []byte) error {
		req.RequestId = id
		var err error
		out, err = c.SetEnforce(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		return report.WriteLine(a.out, struct {
			Name      string `json:"name"` // empty: all
			Enforce   string `json:"enforce"`
			Workloads int64  `json:"workloads"`
		}{req.GetName(), out.GetEnforce(), out.GetWorkloads()})
	}
	switch {
	case req.GetAll() && req.GetEnforce() == "on":
		fmt.Fprintf(a.err, "maxwell: everybody's own mode holds (%d workloads)\n", out.GetWorkloads())
	case req.GetAll():
		fmt.Fprintf(a.err, "maxwell: at most %s, for everybody (%d workloads); again as before: maxwell enforce --all on\n", out.GetEnforce(), out.GetWorkloads())
	case out.GetEnforce() != req.GetEnforce():
		fmt.Fprintf(a.err, "maxwell: %s will be %s; now at most %s is done to anybody: maxwell enforce --all on\n", req.GetName(), req.GetEnforce(), out.GetEnforce())
	default:
		fmt.Fprintf(a.err, "maxwell: %s %s\n", req.GetName(), standing(out.GetEnforce()))
	}
	return nil
}

// standing is a mode in a sentence about a workload.
func standing(mode string) string {
	switch mode {
	case "observe":
		return "is observed; nothing is done to it"
	case "warn":
		return "is observed and warned; nothing else is done to it"
	}
	return "is governed"
}
