package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (a *app) bidVerb() *cobra.Command {
	var maxBid unit.Price
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bid NAME PRICE|auto",
		Short: "Change what a workload bids",
		Long: `Change the most that a workload pays for a core-second, as a multiple of the base
price, from the next epoch on. auto lets the market bid, so that the money lasts for
the workload's horizon, up to --max-bid. It pays what the others would have paid,
never more than its bid plus its own energy.`,
		Example: "  maxwell bid agent-7 8x\n  maxwell bid agent-7 auto --max-bid 16x",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("bid: write maxwell bid NAME 8x, or maxwell bid NAME auto")
			}
			return checkTarget("bid", args[0])
		},
		ValidArgsFunction: a.completeBid,
		RunE: func(cmd *cobra.Command, args []string) error {
			bid, err := fleet.ParseBid(args[1])
			switch {
			case err != nil:
				return usagef("bid: %v", err)
			case !bid.Auto && bid.Price == 0:
				return usagef("bid: a bid of zero buys nothing; write 1x or more, or auto")
			case !bid.Auto && cmd.Flags().Changed("max-bid"):
				return usagef("bid --max-bid: only auto has it; write maxwell bid %s auto --max-bid %s", args[0], maxBid)
			}
			return a.bid(args[0], bid, maxBid, asJSON)
		},
	}
	f := cmd.Flags()
	f.Var(&value[unit.Price]{target: &maxBid, kind: "PRICE", parse: unit.ParsePrice, format: unit.Price.String}, "max-bid",
		"the most that auto may bid (as it was, or 8x, unless given)")
	f.BoolVar(&asJSON, "json", false, "print the workload as one JSON object")
	offer(cmd, "max-bid", "4x", "8x", "16x")
	return cmd
}

// completeBid offers names, then bids.
func (a *app) completeBid(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return []string{"auto\tpaced by the market", "1x\tonly when nobody competes", "2x", "4x", "8x"}, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(1, false)(cmd, args, text)
}

func (a *app) bid(name string, bid fleet.Bid, maxBid unit.Price, asJSON bool) error {
	var w *v1.Workload
	err := a.change(context.Background(), func(ctx context.Context, market connection, id []byte) error {
		r, err := market.SetBid(ctx, &v1.SetBidRequest{
			Name: name, BidMilli: int64(bid.Price), Auto: bid.Auto, MaxBidMilli: int64(maxBid), RequestId: id,
		})
		w = r.GetWorkload()
		return err
	})
	if err != nil {
		return err
	}
	detail := detailOf(w)
	if asJSON {
		return detail.WriteJSON(a.out)
	}
	text := unit.Price(w.GetBidMilli()).Short()
	if w.GetAuto() {
		text = "what its pace allows, at most " + unit.Price(w.GetMaxBidMilli()).Short()
	}
	_, err = fmt.Fprintf(a.err, "maxwell: %s bids %s\n", name, text)
	return err
}
