package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (a *app) fundVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fund NAME AMOUNT",
		Short: "Give a running workload or a standing wallet more money",
		Long: `Add new money to a workload's wallet, or to a standing one. A workload that is broke
and paused runs on. A workload that spends a standing wallet has none of its own: fund
that. In a daemon's market only an admin makes money; others move what they have with
maxwell transfer.`,
		Example: "  maxwell fund agent-7 200\n  maxwell fund team 10k",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("fund: write maxwell fund NAME AMOUNT")
			}
			return checkTarget("fund", args[0])
		},
		ValidArgsFunction: a.completeMoney(1, false),
		RunE: func(_ *cobra.Command, args []string) error {
			amount, err := amountOf("fund", args[1])
			if err != nil {
				return err
			}
			return a.fund(args[0], amount, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// amountOf reads an amount of money above zero.
func amountOf(verb, text string) (unit.Credits, error) {
	amount, err := unit.ParseCredits(text)
	if err != nil {
		return 0, usagef("%s: %v", verb, err)
	}
	if amount == 0 {
		return 0, usagef("%s: the amount is zero; write an amount above zero", verb)
	}
	return amount, nil
}

func (a *app) fund(name string, amount unit.Credits, asJSON bool) error {
	var balance int64
	err := a.change(context.Background(), func(ctx context.Context, market connection, id []byte) error {
		r, err := market.Fund(ctx, &v1.FundRequest{Name: name, AmountUcredits: int64(amount), RequestId: id})
		balance = r.GetBalanceUcredits()
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		return report.WriteLine(a.out, struct {
			Name    string       `json:"name"`
			Amount  unit.Credits `json:"amount_ucredits"`
			Balance int64        `json:"balance_ucredits"`
		}{name, amount, balance})
	}
	_, err = fmt.Fprintf(a.err, "maxwell: %s has %s more\n", name, amount.Short())
	return err
}

func (a *app) transferVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "transfer FROM TO AMOUNT",
		Short: "Move money from one wallet to another",
		Long: `Move money between two wallets of yours: a workload's, or a standing one. No money is
made: FROM has to hold it, and what a workload has set aside (its deposit, and what its
next epoch may cost) stays there. A workload that is broke and paused runs on when it
receives some.`,
		Example: "  maxwell transfer agent-7 agent-8 100\n  maxwell transfer team agent-7 500",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 3 {
				return usagef("transfer: write maxwell transfer FROM TO AMOUNT")
			}
			for _, name := range args[:2] {
				if err := checkTarget("transfer", name); err != nil {
					return err
				}
			}
			if args[0] == args[1] {
				return usagef("transfer: FROM and TO are both %q; name two wallets", args[0])
			}
			return nil
		},
		ValidArgsFunction: a.completeMoney(2, false),
		RunE: func(_ *cobra.Command, args []string) error {
			amount, err := amountOf("transfer", args[2])
			if err != nil {
				return err
			}
			return a.transfer(args[0], args[1], amount, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) transfer(from, to string, amount unit.Credits, asJSON bool) error {
	var moved *v1.TransferResponse
	err := a.change(context.Background(), func(ctx context.Context, market connection, id []byte) error {
		var err error
		moved, err = market.Transfer(ctx, &v1.TransferRequest{From: from, To: to, AmountUcredits: int64(amount), RequestId: id})
		return err
	})
	if err != nil {
		return err
	}
	left, has := unit.Credits(moved.GetFromBalanceUcredits()), unit.Credits(moved.GetToBalanceUcredits())
	if asJSON {
		return report.WriteLine(a.out, struct {
			From   string       `json:"from"`
			To     string       `json:"to"`
			Amount unit.Credits `json:"amount_ucredits"`
			Left   unit.Credits `json:"from_balance_ucredits"`
			Has    unit.Credits `json:"to_balance_ucredits"`
		}{from, to, amount, left, has})
	}
	_, err = fmt.Fprintf(a.err, "maxwell: %s gave %s to %s; %s has %s left, %s has %s\n", from, amount.Short(), to, from, left.Short(), to, has.Short())
	return err
}
