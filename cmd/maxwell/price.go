package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/internal/report"
)

func (a *app) priceVerb() *cobra.Command {
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "price",
		Short: "Say what a core-second costs now",
		Long: `Say what a core-second costs: the base price (1x, nobody competes), the spot price
and its peak, the grid factor, and the watts that are sold. --watch says it again
every second until ^C: in place on a terminal, else one line each.`,
		Example: "  maxwell price\n  maxwell price --watch\n  maxwell price --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if watch {
				return a.watchPrice(context.Background(), asJSON)
			}
			q, err := a.quote(context.Background())
			if err != nil {
				return err
			}
			if asJSON {
				return q.WriteJSON(a.out)
			}
			return q.WriteText(a.out)
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "say it every second")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object, with --watch one a line")
	return cmd
}

func (a *app) quote(ctx context.Context) (report.Quote, error) {
	s, err := a.snapshot(ctx, false)
	if err != nil {
		return report.Quote{}, err
	}
	return quoteOf(s, a.now()), nil
}

// watchPrice says the price until the market is over.
func (a *app) watchPrice(ctx context.Context, asJSON bool) error {
	const pacesApart = 10 // 1 s
	screen := report.Screen{W: a.out}
	width, _, inPlace := screenSize(a.out, a.environ())
	screen.Width = width
	for first := true; ; first = false {
		q, err := a.quote(ctx)
		switch {
		case unheard(err) && !first:
			_, err = fmt.Fprintln(a.err, "maxwell: the market ended")
			return err
		case err != nil:
			return err
		case asJSON:
			err = q.WriteJSON(a.out)
		case inPlace:
			err = screen.Show(q.Line(a.now()))
		default:
			_, err = fmt.Fprintln(a.out, q.Line(a.now()))
		}
		if err != nil {
			return err
		}
		if err := pause(ctx, pacesApart*a.pace); err != nil {
			return err
		}
	}
}
