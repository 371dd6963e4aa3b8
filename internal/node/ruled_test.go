package node

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/maxwell-hypervisor/maxwell/demon"
	v1 "github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1"
	"github.com/maxwell-hypervisor/maxwell/internal/api/maxwell/v1/maxwellv1connect"
	"github.com/maxwell-hypervisor/maxwell/internal/config"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// ruledMarket is a market with a configuration.
func ruledMarket(t *testing.T, text string) *hosted {
	t.Helper()
	return hostMarket(t, func(d *Daemon) {
		var err error
		if d.Config, err = config.Parse("maxwell.yaml", []byte(text), nil, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// walletsOf are the standing wallets that a caller is told of, by name.
func walletsOf(t *testing.T, c maxwellv1connect.MarketServiceClient) map[string]*v1.Wallet {
	t.Helper()
	r, err := c.ListWallets(t.Context(), &v1.ListWalletsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*v1.Wallet)
	for _, w := range r.GetWallets() {
		out[w.GetName()] = w
	}
	return out
}

// TestARulesWalletIsNobodysToTake: users who share the wallet of a rule spend and see
// it; whoever ran something last can neither move its money nor change it.
func TestARulesWalletIsNobodysToTake(t *testing.T) {
	h := ruledMarket(t, "rules:\n  - match: {user: [\"1001\", \"1002\"]}\n    wallet: {name: lab, allowance: 100k/s, most: 100k}\n")
	root, ctx := h.as(0), t.Context()
	users := []maxwellv1connect.MarketServiceClient{h.as(1001), h.as(1002)}
	takes := func(want connect.Code, c maxwellv1connect.MarketServiceClient) {
		t.Helper()
		if _, err := c.Transfer(ctx, &v1.TransferRequest{From: "lab", To: "pocket", AmountUcredits: 5}); connect.CodeOf(err) != want {
			t.Errorf("take its money: %v, want %v", err, want)
		}
		if _, err := c.CreateWallet(ctx, &v1.CreateWalletRequest{Name: "lab", Change: true}); connect.CodeOf(err) != want {
			t.Errorf("change it: %v, want %v", err, want)
		}
	}
	for i, c := range users {
		token, name := h.session(c), []string{"hers", "his"}[i]
		if _, err := c.Admit(ctx, &v1.AdmitRequest{Token: token, Name: name, BidMilli: 2000}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Admit(ctx, &v1.AdmitRequest{Token: token, Name: name + "2", BidMilli: 2000, Wallet: "lab"}); err != nil {
			t.Errorf("name the wallet of the own rule: %v", err)
		}
		if w := walletsOf(t, c)["lab"]; w == nil || w.GetUid() != 0 {
			t.Errorf("the wallet of the rule: %v, want root's", w)
		}
		if _, err := root.CreateWallet(ctx, &v1.CreateWalletRequest{Name: "pocket", Change: i > 0, Owner: new(uint32(1001 + i))}); err != nil {
			t.Fatal(err)
		}
		takes(connect.CodeNotFound, c)
		for _, n := range []string{"4", "5"} {
			if _, err := c.Admit(ctx, &v1.AdmitRequest{Token: token, Name: name + n, BidMilli: 2000, Wallet: "lab", BudgetUcredits: 1000e6}); err != nil {
				t.Fatal(err)
			}
		}
		for to, want := range map[string]connect.Code{"pocket": connect.CodePermissionDenied, name + "5": 0} {
			_, err := c.Transfer(ctx, &v1.TransferRequest{From: name + "4", To: to, AmountUcredits: 5})
			if err == nil && want != 0 || err != nil && connect.CodeOf(err) != want {
				t.Errorf("move its money by a budget to %s: %v, want %v", to, err, want)
			}
		}
	}
	if _, err := h.as(1003).Admit(ctx, &v1.AdmitRequest{Token: h.session(h.as(1003)), Name: "theirs", BidMilli: 2000, Wallet: "lab"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the wallet of others' rule: %v", err)
	}
	// Whom an admin gives it to has it, whoever runs something after that.
	if _, err := root.CreateWallet(ctx, &v1.CreateWalletRequest{Name: "lab", Change: true, Owner: new(uint32(1002))}); err != nil {
		t.Fatal(err)
	}
	h.admit(users[0], h.session(users[0]), "hers3", 0)
	if w := walletsOf(t, root)["lab"]; w.GetUid() != 1002 {
		t.Errorf("it is %d's after another user ran something, want 1002's", w.GetUid())
	}
}

// TestARulesParentIsRoots: the wallet that a rule's wallets draw from is there when it is
// first needed, and nobody else opens it, or what a rule names, before.
func TestARulesParentIsRoots(t *testing.T) {
	h := ruledMarket(t, "rules:\n  - match: {user: [\"1001\", \"1002\"]}\n    wallet: {name: \"u-{uid}\", parent: team, allowance: 100k/s, most: 100k}\n")
	anna, eve, root, ctx := h.as(1001), h.as(1003), h.as(0), t.Context()
	opens := func(want connect.Code, c maxwellv1connect.MarketServiceClient, name string) {
		t.Helper()
		_, err := c.CreateWallet(ctx, &v1.CreateWalletRequest{Name: name})
		if connect.CodeOf(err) != want && (err != nil || want != 0) {
			t.Errorf("open %s: %v, want code %v", name, err, want)
		}
	}
	for _, name := range []string{"team", "u-1001", "u-1002"} {
		opens(connect.CodePermissionDenied, eve, name)
	}
	opens(connect.CodePermissionDenied, anna, "u-1002")
	opens(connect.CodePermissionDenied, anna, "team")
	opens(0, anna, "u-1001") // her own
	opens(0, eve, "u-1003")  // no rule names her
	token := h.session(anna)
	admit := func() error {
		_, err := anna.Admit(ctx, &v1.AdmitRequest{Token: token, Name: "job", BidMilli: 2000})
		return err
	}
	if err := admit(); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a parent with nothing pays nothing: %v", err)
	}
	if all := walletsOf(t, root); all["team"].GetUid() != 0 || all["team"] == nil || all["u-1001"].GetParent() != "team" || all["u-1001"].GetUid() != 1001 {
		t.Errorf("the wallets of the rule: %v", all)
	}
	opens(connect.CodePermissionDenied, eve, "team")
	if _, err := root.Fund(ctx, &v1.FundRequest{Name: "team", AmountUcredits: 500_000e6}); err != nil {
		t.Fatal(err)
	}
	if _, err := root.RemoveWallet(ctx, &v1.RemoveWalletRequest{Name: "u-1001"}); err != nil {
		t.Fatal(err)
	}
	if err := admit(); err != nil {
		t.Errorf("the parent has money: %v", err)
	}
}

// TestMaxBidHoldsForLaterBids: what a rule lets nobody start with, nobody gets by a bid
// afterwards; a group that a rule attached is held to that rule.
func TestMaxBidHoldsForLaterBids(t *testing.T) {
	h := ruledMarket(t, "defaults: {max_bid: 4x}\nrules:\n  - match: {user: \"1002\"}\n    wallet: {max_bid: 8x}\n")
	anna, ctx := h.as(1001), t.Context()
	h.admit(anna, h.session(anna), "job", 100e6)
	bid := func(want connect.Code, c maxwellv1connect.MarketServiceClient, req *v1.SetBidRequest) {
		t.Helper()
		req.Name = "job"
		if _, err := c.SetBid(ctx, req); connect.CodeOf(err) != want && (err != nil || want != 0) {
			t.Errorf("%v: %v, want code %v", req, err, want)
		}
	}
	bid(connect.CodeInvalidArgument, anna, &v1.SetBidRequest{BidMilli: 4001})
	bid(connect.CodeInvalidArgument, anna, &v1.SetBidRequest{Auto: true, MaxBidMilli: 4001})
	bid(0, anna, &v1.SetBidRequest{BidMilli: 4000, MaxBidMilli: 8000}) // the ceiling says nothing here
	bid(0, anna, &v1.SetBidRequest{Auto: true, MaxBidMilli: 4000})
	bid(0, h.as(0), &v1.SetBidRequest{BidMilli: 9000})
	m := &Market{settings: Settings{Daemon: &Daemon{}}}
	guest := &member{uid: 1001, ruled: &demon.Admission{MaxBid: 2000}}
	for bid, fits := range map[unit.Price]bool{2000: true, 2001: false} {
		if err := m.boundBid(actor{uid: 1001}, guest, bid); (err == nil) != fits {
			t.Errorf("a guest of a rule bids %v: %v", bid, err)
		}
	}
}

// TestOwnersSeeTheirPostings: what came into a standing wallet and went out of it is its
// owner's to see, also where a request had an id.
func TestOwnersSeeTheirPostings(t *testing.T) {
	h := hostMarket(t)
	anna, root, ctx := h.as(1001), h.as(0), t.Context()
	for _, name := range []string{"p", "q"} {
		if _, err := root.CreateWallet(ctx, &v1.CreateWalletRequest{Name: name, Owner: new(uint32(1001))}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := root.Fund(ctx, &v1.FundRequest{Name: "p", AmountUcredits: 1000, RequestId: drawID()}); err != nil {
		t.Fatal(err)
	}
	if _, err := anna.Transfer(ctx, &v1.TransferRequest{From: "p", To: "q", AmountUcredits: 100, RequestId: drawID()}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"p": 2, "q": 1} {
		r, err := anna.Postings(ctx, &v1.PostingsRequest{Account: name})
		if err != nil || len(r.GetPostings()) != want {
			t.Errorf("postings of %s: %v, %v; want %d", name, r.GetPostings(), err, want)
		}
	}
}
