package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (a *app) fundVerb() *cobra.Command {
	return &cobra.Command{
		Use:     "fund NAME AMOUNT",
		Short:   "Give a running workload more money",
		Long:    "Add money to a workload's wallet. A workload that is broke and paused runs on.",
		Example: "  maxwell fund agent-7 200",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("fund: write maxwell fund NAME AMOUNT")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			amount, err := unit.ParseCredits(args[1])
			if err != nil {
				return usagef("fund: %v", err)
			}
			if amount == 0 {
				return usagef("fund: the amount is zero; write an amount above zero")
			}
			return a.fund(args[0], amount)
		},
	}
}

func (a *app) fund(name string, amount unit.Credits) error {
	ctx := context.Background()
	market, err := a.join(ctx, opening{client: "fund", enforce: "auto", existing: true})
	if err != nil {
		return err
	}
	fundErr := market.Fund(ctx, name, int64(amount))
	_, leaveErr := market.Leave(ctx)
	if fundErr != nil {
		return fundErr
	}
	fmt.Fprintf(a.err, "maxwell: %s has %s more\n", name, amount.Short())
	return leaveErr
}
