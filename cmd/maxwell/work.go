package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/work"
)

// workVerb holds the built-in workloads of the examples and the experiment.
func (a *app) workVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "work",
		Short:  "Burn a core on a built-in workload",
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("work: write maxwell work primes or maxwell work hash")
		},
	}
	cmd.AddCommand(
		a.burnVerb("primes", work.PrimeBatch, "Find primes above 10^12, one batch of 2^20 numbers a unit",
			func() work.Worker { return work.NewPrimes() }),
		a.burnVerb("hash", work.HashBatch, "Mine a chain of hashes, 16,384 links a unit",
			func() work.Worker { return work.NewHash() }),
	)
	return cmd
}

func (a *app) burnVerb(name, kind, short string, start func() work.Worker) *cobra.Command {
	var units int64
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long:  short + ".\nReports finished units as lines \"work N " + kind + "\" on the descriptor in MAXWELL_REPORT.\nEnds on SIGTERM or SIGINT.",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			pipe, err := work.OpenReport(getenv(a.environ())("MAXWELL_REPORT"))
			if err != nil {
				return usagef("work %s: %v", name, err)
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			reporter := work.NewReporter(nil, kind)
			if pipe != nil {
				reporter = work.NewReporter(pipe, kind)
			}
			done := work.Run(ctx, start(), reporter, units)
			_, err = fmt.Fprintf(a.err, "%d units of %s\n", done, kind)
			return err
		},
	}
	cmd.Flags().Int64Var(&units, "units", 0, "stop after `N` units (0: never)")
	return cmd
}
