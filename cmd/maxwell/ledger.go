package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// mostLines bounds what --lines and --tail take.
const mostLines = 1_000_000

func (a *app) ledgerVerb() *cobra.Command {
	var count int64
	var balances, asJSON bool
	cmd := &cobra.Command{
		Use:   "ledger [NAME|ACCOUNT]",
		Short: "List transfers of money, or what every account holds",
		Long: `Print the last transfers, newest last: from which account to which, how much, what
for. With a name those of a workload's wallet and deposit, with an account as the
table prints it (heat, treasury, wallet:agent-7) those of that account. --balances
prints what every account holds; the sum is zero.`,
		Example:           "  maxwell ledger -n 20\n  maxwell ledger agent-7\n  maxwell ledger --balances",
		Args:              perhapsTarget,
		ValidArgsFunction: a.completeNames(1, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if balances {
				if len(args) > 0 || cmd.Flags().Changed("lines") {
					return usagef("ledger: --balances lists every account; leave out the name and --lines")
				}
				return a.balances(context.Background(), asJSON)
			}
			return a.postings(context.Background(), append(args, "")[0], count, asJSON)
		},
	}
	f := cmd.Flags()
	f.VarP(&value[int64]{target: &count, kind: "N", parse: parseCount, format: formatCount, zero: true}, "lines", "n", "print the last N transfers (default 100)")
	f.BoolVar(&balances, "balances", false, "print what every account holds")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	offer(cmd, "lines")
	return cmd
}

// parseCount reads a number of lines that is not zero.
func parseCount(text string) (int64, error) {
	n, err := parseLines(text)
	if err == nil && n == 0 {
		err = &fleet.Problem{Text: text, Reason: "no lines to print", Fix: "write 1 or more"}
	}
	return n, err
}

// parseLines reads a number of lines.
func parseLines(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > mostLines {
		return 0, &fleet.Problem{Text: text, Reason: "not a number of lines", Fix: fmt.Sprintf("write a whole number up to %d", mostLines)}
	}
	return n, nil
}

func (a *app) postings(ctx context.Context, account string, count int64, asJSON bool) error {
	var list []*v1.Posting
	err := a.question(ctx, func(ctx context.Context, market connection) error {
		r, err := market.Postings(ctx, &v1.PostingsRequest{Account: account, Limit: int32(count)})
		list = r.GetPostings()
		return err
	})
	if err != nil {
		return err
	}
	out := postingsOf(list)
	switch {
	case asJSON:
		return report.WritePostings(a.out, out)
	case len(out) == 0 && account != "":
		_, err = fmt.Fprintf(a.err, "maxwell: no transfers of %s; maxwell ledger --balances lists accounts\n", account)
		return err
	case len(out) == 0:
		_, err = fmt.Fprintln(a.err, "maxwell: no transfers yet")
		return err
	}
	return a.lines(report.Postings(out, a.now(), a.columns()))
}

func (a *app) balances(ctx context.Context, asJSON bool) error {
	s, err := a.snapshot(ctx, true)
	if err != nil {
		return err
	}
	l := ledgerOf(s.GetLedger())
	if asJSON {
		return l.WriteJSON(a.out)
	}
	return a.lines(report.Balances(&l, a.columns()))
}
