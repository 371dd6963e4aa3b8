package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

func (a *app) doctorVerb() *cobra.Command {
	var asJSON, verbose, repair bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can measure and enforce, and how to get more",
		Long: `Say what this machine can measure and enforce, and what would make it better.
Every ability is probed by really using it.

--repair removes what a killed market left behind: only directories that Maxwell
marked, and only when no market holds them.`,
		Example: "  maxwell doctor\n  maxwell doctor -v\n  sudo maxwell doctor --repair",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.doctor(repair)
			if err != nil {
				return err
			}
			a.askMarket(&d)
			if asJSON {
				err = d.WriteJSON(a.out)
			} else {
				err = d.WriteText(a.out, verbose)
			}
			if err != nil {
				return err
			}
			for _, r := range d.Repair {
				if !r.Done {
					return &exitError{code: exitUsage}
				}
			}
			if !d.Ready {
				return &exitError{code: exitUsage}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every ability that was probed")
	cmd.Flags().BoolVar(&repair, "repair", false, "remove what a killed market left behind")
	return cmd
}

// askMarket takes the figures of the market that governs the caller, if there is one:
// it may know better what a core draws, and bids are multiples of its base price.
func (a *app) askMarket(d *report.Doctor) {
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	q, err := a.quote(ctx)
	if err != nil {
		return // the machine is as it is without one
	}
	d.Market, d.Base, d.Modelled, d.Sigma = q.Cores.String(), q.Base, q.Modelled, q.Sigma
}
