package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// clearing is the output of `maxwell clear`.
type clearing struct {
	Spot        int64     `json:"spot_ucredits_per_core_s"`
	Allocations []cleared `json:"allocations"`
}

// cleared is one bid's part; in the order of the book.
type cleared struct {
	ID      string `json:"id"`
	CoreUS  int64  `json:"core_us"`
	Payment int64  `json:"payment_ucredits"` // reserve part + rent, rounded up
	Refusal string `json:"refusal"`          // "" if nothing was refused
}

// text is the answer for people: a line a bid, in money.
func (c *clearing) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "spot  %s\n", unit.Rate(c.Spot))
	wide := 0
	for _, bid := range c.Allocations {
		wide = max(wide, len(oneLine(bid.ID)))
	}
	lines := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, bid := range c.Allocations {
		fmt.Fprintf(lines, "%-*s\t%d us\t%s\t", wide, oneLine(bid.ID), bid.CoreUS, unit.Credits(bid.Payment))
		if bid.Refusal != "" {
			fmt.Fprint(lines, "  "+bid.Refusal)
		}
		fmt.Fprintln(lines)
	}
	_ = lines.Flush() // a Builder takes everything
	return b.String()
}

func (a *app) clearVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "clear BOOK.json",
		Short: "Clear one epoch from a file, for auditors and what-if",
		Long: `Rank and price one epoch from a file ("-" reads standard input), by the very
code that runs the market.

BOOK.json holds one object:
  {"rule": "vickrey", "supply_core_us": 50000, "seed": 1, "floor_ppm": 0,
   "bids": [{"id": "a", "demand_core_us": 50000, "used_core_us": 40000,
             "bid_ucredits_per_core_s": 48000000,
             "reserve_ucredits_per_core_s": 12000000, "deposit_ucredits": 2000000}]}

The answer gives spot and, in the order of the book, each bid's core time, its
payment (energy at its reserve + rent, for the time used; rounded up) and why it
got less than it asked for. Without used_core_us the core time allocated counts as
used. Optional: seed (0; draws the offset by which equal bids share), floor_ppm
(20000), deposit_ucredits (0; weighs the floor), base_ucredits_per_core_s (the mean
reserve by demand; spot is this plus the marginal losing score).

Wallets are taken to be full: no bid is cut by what its balance buys.`,
		Example: "  maxwell clear book.json\n  maxwell clear --json - < book.json",
		Args:    oneArg("BOOK.json"),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := a.readBook(args[0])
			if err != nil {
				return err
			}
			b, err := parseBook(args[0], text)
			if err != nil {
				return err
			}
			answer := clearBook(&b)
			if !asJSON {
				_, err = io.WriteString(a.out, answer.text())
				return err
			}
			e := json.NewEncoder(a.out)
			e.SetEscapeHTML(false)
			return e.Encode(answer)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func (a *app) readBook(name string) ([]byte, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usagef("clear: %s: %v", name, errors.Unwrap(err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxBook+1))
	if err != nil {
		return nil, usagef("clear: %s: %v", name, errors.Unwrap(err))
	}
	if len(text) > maxBook {
		return nil, usagef("clear: %s: larger than %d MiB; split it", name, maxBook>>20)
	}
	return text, nil
}

// refusals are the words of the answer.
var refusals = map[market.Refusal]string{
	market.NotRefused: "", market.Outbid: "outbid", market.Rationed: "rationed", market.WalletBinds: "wallet_binds",
	market.BelowReserve: "below_reserve", market.Insolvent: "insolvent", market.NoDemand: "no_demand",
}

// clearBook runs one epoch: rank, take the allocation or the given use as
// used, price.
func clearBook(b *book) clearing {
	supply := coreTime(b.SupplyUS)
	epoch := market.Epoch{
		Length: time.Duration(supply), Cores: supply, Unit: market.Cores,
		Floor: unit.PPM(b.FloorPPM), Base: baseOf(b),
		Offset: rand.New(rand.NewPCG(b.Seed, 0)).Uint64(),
	}
	orders := ordersOf(b)
	allocations := make([]market.Allocation, len(orders))
	m := market.New(market.Config{})
	m.Rank(epoch, orders, allocations)

	uses := make([]market.Use, len(orders))
	for i := range orders {
		uses[i] = market.Use{
			ID: orders[i].ID, Score: allocations[i].Score, Energy: orders[i].Energy,
			Demand: orders[i].Demand, Used: coreTime(microseconds(allocations[i].Time)), Floor: allocations[i].Floor,
		}
		if used := b.Bids[i].UsedUS; used != nil {
			uses[i].Used = coreTime(*used)
		}
	}
	rents := make([]unit.Wide, len(uses))
	outcome := m.Price(epoch, uses, rents)

	out := clearing{Spot: int64(outcome.Spot), Allocations: make([]cleared, len(orders))}
	for i := range orders {
		out.Allocations[i] = cleared{
			ID: b.Bids[i].ID, CoreUS: microseconds(allocations[i].Time),
			Payment: payment(orders[i].Reserve, uses[i].Used, rents[i]),
			Refusal: refusals[allocations[i].Refusal],
		}
		if orders[i].Demand > 0 && allocations[i].Time == orders[i].Demand {
			out.Allocations[i].Refusal = "" // it shared the marginal bucket, and there was enough for all of it
		}
	}
	return out
}

// microseconds is what the answer says of an allocation, and what is paid for:
// whole ones, so that a reader can recompute the payment from it.
func microseconds(t unit.CoreTime) int64 { return int64(t) / int64(time.Microsecond) }

func coreTime(us int64) unit.CoreTime { return unit.CoreTime(us) * unit.CoreTime(time.Microsecond) }

// ordersOf numbers the bids in the order of their ids, which is the canonical
// order among equal scores: the place in the file changes nothing.
func ordersOf(b *book) []market.Order {
	rank := make([]int, len(b.Bids))
	for i := range rank {
		rank[i] = i
	}
	slices.SortFunc(rank, func(i, j int) int { return cmp.Compare(b.Bids[i].ID, b.Bids[j].ID) })
	orders := make([]market.Order, len(b.Bids))
	for id, i := range rank {
		bid := &b.Bids[i]
		orders[i] = market.Order{
			ID: uint64(id), Bid: unit.Rate(bid.Bid), Reserve: unit.Rate(bid.Reserve), Energy: unit.Microwatts(bid.Reserve),
			Demand: coreTime(bid.DemandUS), Balance: math.MaxInt64, Deposit: unit.Credits(bid.Deposit), Solvent: true,
		}
	}
	return orders
}

// baseOf is the given base price, or the reserve of an average core-second
// wanted: the mean by demand, rounded down.
func baseOf(b *book) unit.Rate {
	if b.Base != nil {
		return unit.Rate(*b.Base)
	}
	var weighted unit.Wide
	var demand uint64
	for i := range b.Bids {
		weighted = weighted.AddMul(uint64(b.Bids[i].Reserve), uint64(b.Bids[i].DemandUS))
		demand += uint64(b.Bids[i].DemandUS)
	}
	if demand == 0 {
		return 0
	}
	mean, _ := weighted.DivRem(demand)
	v, _ := mean.Uint64()
	return unit.Rate(v)
}

// payment is energy at the reserve plus rent, in micro-$J rounded up. A rate
// times nanoseconds is in nanocredits, as rents are.
func payment(reserve unit.Rate, used unit.CoreTime, rent unit.Wide) int64 {
	hi, lo := bits.Mul64(uint64(reserve), uint64(used))
	q, r := unit.Wide{Hi: hi, Lo: lo}.Add(rent).DivRem(1_000_000_000)
	v, ok := q.Uint64()
	if !ok || v > math.MaxInt64-1 {
		panic("payment beyond the bounds of a book") // excluded by parseBook
	}
	if r > 0 {
		v++
	}
	return int64(v)
}
