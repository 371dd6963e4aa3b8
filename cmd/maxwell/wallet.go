package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

// walletVerb holds the verbs about wallets. Those of workloads are born and die
// with them.
func (a *app) walletVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wallet",
		Short: "Look into wallets",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("wallet: unknown verb %q; write maxwell wallet ls or maxwell wallet show NAME", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usagef("wallet: write maxwell wallet ls or maxwell wallet show NAME")
		},
	}
	cmd.AddCommand(a.walletListVerb(), a.walletShowVerb())
	return cmd
}

func (a *app) walletListVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List your wallets and what is left in them",
		Example: "  maxwell wallet ls",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.snapshot(context.Background(), false)
			if err != nil {
				return err
			}
			list := walletsOf(living(s.GetWorkloads()))
			switch {
			case asJSON:
				return report.WriteWallets(a.out, list)
			case len(list) == 0:
				_, err := fmt.Fprintln(a.err, "maxwell: no wallets; start a workload: maxwell run --budget 500 -- COMMAND")
				return err
			}
			return a.lines(report.Wallets(list, a.columns()))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) walletShowVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Say what a wallet had, spent and has left",
		Example:           "  maxwell wallet show agent-7",
		Args:              target,
		ValidArgsFunction: a.completeNames(1, true),
		RunE: func(_ *cobra.Command, args []string) error {
			w, err := a.one(context.Background(), "wallet show", args[0])
			if err != nil {
				return err
			}
			wallet := walletsOf([]*v1.Workload{w})[0]
			if asJSON {
				return wallet.WriteJSON(a.out)
			}
			return wallet.WriteText(a.out)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func walletsOf(list []*v1.Workload) []report.Wallet {
	out := make([]report.Wallet, len(list))
	for i, w := range list {
		d := detailOf(w)
		out[i] = d.Wallet()
	}
	return out
}
