package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/fleet"
	"github.com/maxwell-hypervisor/maxwell/internal/node"
	"github.com/maxwell-hypervisor/maxwell/internal/report"
	"github.com/maxwell-hypervisor/maxwell/internal/tui"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// fastestTop keeps a screen from costing the market more than its workloads.
const fastestTop = 100 * time.Millisecond

func (a *app) topVerb() *cobra.Command {
	interval, once := time.Second, false
	cmd := &cobra.Command{
		Use:   "top",
		Short: "The market on a screen: watch, fund, bid, stop",
		Long: "Show the market as it changes: spot and base price, watts against the budget, the depth of the book as far\n" +
			"as it is yours to see, and a row a workload. Keys fund, bid, stop and explain; ? lists them.",
		Example: "  maxwell top\n  maxwell top --once > market.txt",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			if interval < fastestTop {
				return usagef("top --interval: %v is too short; give at least %v", interval, fastestTop)
			}
			return a.top(interval, once)
		},
	}
	cmd.Flags().Var(&value[time.Duration]{target: &interval, kind: "TIME", parse: fleet.ParseSpan, format: time.Duration.String}, "interval",
		"time between two looks at the market")
	cmd.Flags().BoolVar(&once, "once", false, "print one frame as text and leave")
	return cmd
}

func (a *app) top(interval time.Duration, once bool) error {
	out, isFile := a.out.(*os.File)
	onTerminal := isFile && term.IsTerminal(int(out.Fd())) && a.in != nil && term.IsTerminal(int(a.in.Fd()))
	if !once && !onTerminal {
		return usagef("top: needs a terminal; for a list: maxwell ps, for prices: maxwell price --watch, for one frame: maxwell top --once")
	}
	ctx := context.Background()
	line, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer line.Close()
	env := getenv(a.environ())
	if once {
		width, _ := strconv.Atoi(env("COLUMNS"))
		frame, err := tui.Once(ctx, topMarket{line}, width)
		if err == nil {
			_, err = fmt.Fprint(a.out, frame)
		}
		return err
	}
	dumb := env("TERM") == "dumb"
	return tui.Run(ctx, topMarket{line}, tui.Options{
		In: a.in, Out: out, Environ: a.environ(), Interval: interval,
		Plain: dumb || env("NO_COLOR") != "", ASCII: dumb || !speaksUTF8(env),
	})
}

// speaksUTF8 asks the environment for the terminal's characters, as C does.
func speaksUTF8(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := env(name); locale != "" {
			locale = strings.ToLower(locale)
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return false
}

// topMarket is a line to the market as the screen asks it.
type topMarket struct{ connection }

func (m topMarket) Look(ctx context.Context) (report.Snapshot, error) {
	r, err := m.Snapshot(ctx, &v1.SnapshotRequest{})
	if err != nil {
		return report.Snapshot{}, node.Plain(err)
	}
	s := r.GetSnapshot()
	out := report.Snapshot{At: time.Duration(s.GetAtNs()), Node: nodeOf(s.GetNode()), Price: priceOf(s.GetPrice())}
	for _, w := range s.GetWorkloads() {
		out.Workloads = append(out.Workloads, liveOf(w))
	}
	return out, nil
}

func (m topMarket) Fund(ctx context.Context, name string, amount unit.Credits) (unit.Credits, error) {
	r, err := m.connection.Fund(ctx, &v1.FundRequest{Name: name, AmountUcredits: int64(amount), RequestId: newRequestID()})
	return unit.Credits(r.GetBalanceUcredits()), node.Plain(err)
}

func (m topMarket) Bid(ctx context.Context, name string, bid unit.Price) error {
	_, err := m.SetBid(ctx, &v1.SetBidRequest{Name: name, BidMilli: int64(bid), Auto: bid == 0, RequestId: newRequestID()})
	return node.Plain(err)
}

func (m topMarket) Stop(ctx context.Context, name string) error {
	_, err := m.connection.Stop(ctx, &v1.StopRequest{Name: name, RequestId: newRequestID()})
	return node.Plain(err)
}

func (m topMarket) Explain(ctx context.Context, name string) (string, error) {
	r, err := m.connection.Explain(ctx, &v1.ExplainRequest{Name: name})
	if err != nil {
		return "", node.Plain(err)
	}
	x := explanationOf(r)
	var text strings.Builder
	err = x.WriteText(&text)
	return text.String(), err
}
