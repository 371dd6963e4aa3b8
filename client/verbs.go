package client

import (
	"context"
	"slices"
	"strconv"
	"time"

	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Self says who the market takes the caller for and, inside a workload, what
// that has left.
func (c *Client) Self(ctx context.Context) (Self, error) {
	res, err := ask(ctx, c, "self", c.rpc.Self, &v1.SelfRequest{})
	if err != nil {
		return Self{}, err
	}
	return Self{
		Workload: workloadOf(res.GetWorkload()), Inside: res.GetWorkload() != nil, UID: res.GetUid(), Admin: res.GetAdmin(),
		Durable: res.GetDurable(), Version: res.GetVersion(), Price: priceOf(res.GetPrice()),
	}, nil
}

// Price is what core time costs now.
func (c *Client) Price(ctx context.Context) (Price, error) {
	res, err := ask(ctx, c, "price", c.rpc.Self, &v1.SelfRequest{})
	if err != nil {
		return Price{}, err
	}
	return priceOf(res.GetPrice()), nil
}

// List returns the workloads that the caller may see.
func (c *Client) List(ctx context.Context) ([]Workload, error) {
	res, err := ask(ctx, c, "list", c.rpc.Snapshot, &v1.SnapshotRequest{})
	if err != nil {
		return nil, err
	}
	list := make([]Workload, 0, len(res.GetSnapshot().GetWorkloads()))
	for _, w := range res.GetSnapshot().GetWorkloads() {
		list = append(list, workloadOf(w))
	}
	return list, nil
}

// Explain says why a workload gets what it gets, and what would help. An empty
// name is the workload that the caller is in.
func (c *Client) Explain(ctx context.Context, name string) (Explanation, error) {
	res, err := ask(ctx, c, of("explain", name), c.rpc.Explain, &v1.ExplainRequest{Name: name})
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{
		Verdict: res.GetVerdict(), Workload: workloadOf(res.GetWorkload()), Price: priceOf(res.GetPrice()),
		Wanted: unit.MilliCores(res.GetWantedMilli()), Got: unit.MilliCores(res.GetGotMilli()),
		NeededBid: unit.Price(res.GetNeededBidMilli()), Rank: int(res.GetRank()), Of: int(res.GetRanked()),
		Reserve: unit.Price(res.GetReserveMilli()), Lasts: nanoseconds(res.GetLastsNs()),
		Paced: unit.Spend(res.GetPacedUcreditsPerS()), Supply: unit.MilliCores(res.GetSupplyMilli()),
		Others: unit.MilliCores(res.GetOthersMilli()),
	}, nil
}

// SetBid changes the bid of a workload; an empty name is the workload that the
// caller is in. It returns the workload as it then is.
func (c *Client) SetBid(ctx context.Context, name string, bid Bid) (Workload, error) {
	switch {
	case bid.Price < 0 || bid.Max < 0:
		return Workload{}, invalid(of("bid", name), "a bid is not negative", "")
	case !bid.Auto && bid.Price == 0:
		return Workload{}, invalid(of("bid", name), "no price", "give Bid.Price (unit.Times is 1x) or Bid.Auto")
	}
	res, err := change(ctx, c, of("bid", name), c.rpc.SetBid, &v1.SetBidRequest{
		Name: name, BidMilli: int64(bid.Price), Auto: bid.Auto, MaxBidMilli: int64(bid.Max), RequestId: requestID(),
	})
	if err != nil {
		return Workload{}, err
	}
	return workloadOf(res.GetWorkload()), nil
}

// Fund adds money to a wallet and returns its balance.
func (c *Client) Fund(ctx context.Context, name string, amount unit.Credits) (unit.Credits, error) {
	if err := checkMoney(of("fund", name), amount, name); err != nil {
		return 0, err
	}
	res, err := change(ctx, c, of("fund", name), c.rpc.Fund, &v1.FundRequest{
		Name: name, AmountUcredits: int64(amount), RequestId: requestID(),
	})
	if err != nil {
		return 0, err
	}
	return unit.Credits(res.GetBalanceUcredits()), nil
}

// Transfer moves money from one of the caller's wallets to another, and returns
// what they then hold.
func (c *Client) Transfer(ctx context.Context, from, to string, amount unit.Credits) (fromLeft, toHas unit.Credits, err error) {
	what := "transfer from " + strconv.Quote(from) + " to " + strconv.Quote(to)
	if err := checkMoney(what, amount, from, to); err != nil {
		return 0, 0, err
	}
	res, err := change(ctx, c, what, c.rpc.Transfer, &v1.TransferRequest{
		From: from, To: to, AmountUcredits: int64(amount), RequestId: requestID(),
	})
	if err != nil {
		return 0, 0, err
	}
	return unit.Credits(res.GetFromBalanceUcredits()), unit.Credits(res.GetToBalanceUcredits()), nil
}

// Stop ends a workload: SIGTERM, a paid moment, SIGKILL of its whole tree; with
// now, SIGKILL at once. It returns when the market has begun to; Wait waits.
func (c *Client) Stop(ctx context.Context, name string, now bool) error {
	if name == "" {
		return invalid("stop", "no workload named", "name one; List has them")
	}
	_, err := change(ctx, c, of("stop", name), c.rpc.Stop, &v1.StopRequest{Name: name, Now: now, RequestId: requestID()})
	return err
}

// Wait returns when a workload, by name or id, is gone and paid for: as it was
// at its end. It waits as long as the context allows, over restarts of a
// durable market too.
func (c *Client) Wait(ctx context.Context, name string) (Workload, error) {
	if name == "" {
		return Workload{}, invalid("wait", "no workload named", "name one; List has them")
	}
	var res *v1.WaitResponse
	err := c.persist(ctx, func() (err error) {
		res, err = c.rpc.Wait(ctx, &v1.WaitRequest{Name: name})
		return err
	})
	if err != nil {
		return Workload{}, explained(of("wait", name), err)
	}
	return workloadOf(res.GetWorkload()), nil
}

func checkMoney(what string, amount unit.Credits, names ...string) error {
	if slices.Contains(names, "") {
		return invalid(what, "no workload named", "name one; List has them")
	}
	if amount <= 0 {
		return invalid(what, "the amount is not above zero", "unit.DollarJoule is 1 $J")
	}
	return nil
}

func invalid(what, why, remedy string) error {
	return &Error{Code: Invalid, Text: what + ": " + why, Remedy: remedy}
}

// of names what was asked for errors: "fund agent-7".
func of(verb, name string) string {
	if name == "" {
		return verb
	}
	return verb + " " + strconv.Quote(name)
}

func nanoseconds(ns int64) time.Duration { return time.Duration(max(0, ns)) }
