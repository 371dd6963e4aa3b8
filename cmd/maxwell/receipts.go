package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
)

func (a *app) receiptVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "receipt NAME|ID",
		Short: "Say how a dead workload ended and what it cost",
		Long: `Print the closing statement of a dead workload: why it ended, what it burned, what
that cost, what to do next. A name means the last that had it; an id (ps -a --json)
is never another's. --json is the receipt of run --receipt with the id and the times.`,
		Example:           "  maxwell receipt agent-7\n  maxwell receipt --json agent-7",
		Args:              target,
		ValidArgsFunction: a.completeNames(1, true),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.receipt(context.Background(), args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) receipt(ctx context.Context, name string, asJSON bool) error {
	var dead []*v1.Workload
	err := a.question(ctx, func(ctx context.Context, market connection) error {
		r, err := market.Receipts(ctx, &v1.ReceiptsRequest{Name: name, Limit: 1})
		dead = r.GetWorkloads()
		return err
	})
	if err != nil {
		return err
	}
	s, err := a.snapshot(ctx, true)
	if err != nil {
		return err
	}
	if len(dead) == 0 {
		if w := find(s, name); w != nil && w.GetState() != "dead" {
			return fmt.Errorf("receipt: %s is alive; it has one when it is gone: maxwell wait %s", name, name)
		}
		return nobody("receipt", name, s)
	}
	b := burialOf(dead[0], s.GetNode())
	if asJSON {
		return b.WriteJSON(a.out)
	}
	return b.WriteText(a.out, a.now())
}
