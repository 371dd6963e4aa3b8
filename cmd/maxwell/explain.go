package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (a *app) explainVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain NAME",
		Short: "Why a workload is slow or stopped, and what would help",
		Long: "Say why a workload gets what it gets: its price, its bid, its rank, its money, its pacing, the machine;\n" +
			"and what would make it faster. The figures are those of this moment: ask twice before acting on them.",
		Example: "  maxwell explain agent-7\n  maxwell explain agent-7 --json",
		Args:    oneArg("the name of a workload"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.explain(args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the verdict and its figures as one JSON object")
	return cmd
}

func (a *app) explain(name string, asJSON bool) error {
	ctx := context.Background()
	line, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer line.Close()
	r, err := line.Explain(ctx, &v1.ExplainRequest{Name: name})
	if err != nil {
		return node.Plain(err)
	}
	x := explanationOf(r)
	x.Now = a.now()
	if asJSON {
		return x.WriteJSON(a.out)
	}
	return x.WriteText(a.out)
}

// explanationOf is the market's verdict for a report.
func explanationOf(r *v1.ExplainResponse) report.Explanation {
	w := r.GetWorkload()
	return report.Explanation{
		Mode: modeOf(w), Verdict: r.GetVerdict(), Live: liveOf(w), MaxBid: unit.Price(w.GetMaxBidMilli()), Rate: unit.Spend(w.GetRateUcreditsPerS()),
		Horizon: time.Duration(w.GetHorizonNs()), CoresCap: unit.MilliCores(w.GetCoresMilli()), Remedy: w.GetRemedy(), Price: priceOf(r.GetPrice()),
		Wanted: unit.MilliCores(r.GetWantedMilli()), Got: unit.MilliCores(r.GetGotMilli()), Needed: unit.Price(r.GetNeededBidMilli()),
		Rank: int(r.GetRank()), Ranked: int(r.GetRanked()), Reserve: unit.Price(r.GetReserveMilli()), Lasts: time.Duration(r.GetLastsNs()),
		Paced: unit.Spend(r.GetPacedUcreditsPerS()), Supply: unit.MilliCores(r.GetSupplyMilli()), Others: unit.MilliCores(r.GetOthersMilli()),
	}
}

// liveOf is a workload with what it does now.
func liveOf(w *v1.Workload) report.Live {
	refusal := w.GetRefusal()
	if w.GetState() != "waiting" {
		refusal = ""
	}
	return report.Live{
		Workload: workloadOf(w, ""), Bid: unit.Price(w.GetBidMilli()), Auto: w.GetAuto(), Price: unit.Price(w.GetPriceMilli()),
		CoresNow: unit.MilliCores(w.GetCoresNowMilli()), Power: unit.Microwatts(w.GetPowerUw()), Refusal: refusal,
	}
}
