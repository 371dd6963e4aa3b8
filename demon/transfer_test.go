package demon

import (
	"errors"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// TestTransferIsOneChain: money that is given away is one entry, and everything
// that counts it agrees.
func TestTransferIsOneChain(t *testing.T) {
	j := newJournaled(t)
	a := j.admit(Admission{Name: "a", Budget: 100 * dollar})
	b := j.admit(Admission{Name: "b", Budget: 50 * dollar})
	j.seconds(a, 1)
	j.take()
	if err := j.d.Transfer(a, b, 30*dollar); err != nil {
		t.Fatal(err)
	}
	entries := j.d.Entries()
	if len(entries) != 1 || len(j.d.Saves()) != 2 {
		t.Fatalf("a transfer is %d entries", len(entries))
	}
	moved := unit.Credits(0)
	for _, tr := range entries[0].Chain {
		if tr.Code == ledger.ForTransfer {
			moved += tr.Amount
		}
	}
	la, lb := j.line(a), j.line(b)
	if moved != 30*dollar || la.Budget != 70*dollar || lb.Budget != 80*dollar || lb.Moved != 30*dollar || la.Moved != -30*dollar {
		t.Errorf("moved %v, budgets %v and %v", moved, la.Budget, lb.Budget)
	}
	st := j.d.Statement()
	if st.Sum != 0 || st.Accounts["wallet:a"] != la.Balance || st.Accounts["wallet:b"] != lb.Balance || st.Minted != 150*dollar {
		t.Errorf("accounts %v", st.Accounts)
	}
}

// TestTransferRefuses in one line, and moves nothing.
func TestTransferRefuses(t *testing.T) {
	b := newBench(t, nil)
	rich := b.admit(Admission{Name: "rich", Budget: 100 * dollar})
	poor := b.admit(Admission{Name: "poor", Budget: 10 * dollar})
	open := b.admit(Admission{Name: "open"})
	dead := b.admit(Admission{Name: "dead", Budget: 10 * dollar})
	b.in.Usage[dead].Populated = false
	b.step()
	for name, c := range map[string]struct {
		from, to int32
		amount   unit.Credits
	}{
		"more than it has": {rich, poor, b.line(rich).Balance + 1},
		"nothing":          {rich, poor, 0},
		"negative":         {rich, poor, -dollar},
		"from open":        {open, poor, dollar},
		"to open":          {rich, open, dollar},
		"from dead":        {dead, poor, dollar},
		"to dead":          {rich, dead, dollar},
		"to itself":        {rich, rich, dollar},
		"to nobody":        {rich, 99, dollar},
		"from nobody":      {-1, rich, dollar},
	} {
		before := b.d.Statement()
		err := b.d.Transfer(c.from, c.to, c.amount)
		if _, ok := errors.AsType[*Refusal](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
		after := b.d.Statement()
		for account, have := range after.Accounts {
			if have != before.Accounts[account] {
				t.Errorf("%s moved money of %s", name, account)
			}
		}
	}
	if err := b.d.Transfer(rich, poor, b.line(rich).Balance); err != nil {
		t.Errorf("all it has: %v", err)
	}
}

// TestOneEffect: the same request, however often it comes and whatever process it
// meets, has one effect; a lost one can be repeated.
func TestOneEffect(t *testing.T) {
	j := newJournaled(t)
	a := j.admit(Admission{Name: "a", Budget: 100 * dollar})
	b := j.admit(Admission{Name: "b", Budget: 100 * dollar})
	j.take()
	fund, give, lost := ledger.MakeID(77, 1), ledger.MakeID(77, 2), ledger.MakeID(77, 3)
	ask := func() {
		t.Helper()
		if _, err := j.d.FundAs(a, 5*dollar, fund); err != nil {
			t.Error(err)
		}
		if err := j.d.TransferAs(a, b, 7*dollar, give); err != nil {
			t.Error(err)
		}
	}
	want := func(x, y unit.Credits) {
		t.Helper()
		if la, lb := j.line(a), j.line(b); la.Budget != x || lb.Budget != y {
			t.Errorf("budgets %v and %v, want %v and %v", la.Budget, lb.Budget, x, y)
		}
	}
	ask()
	ask()
	want(98*dollar, 107*dollar)
	j.take()
	if _, err := j.d.FundAs(b, 20*dollar, lost); err != nil {
		t.Error(err)
	}
	own := j.entries[len(j.entries)-1].Chain[0].ID // of the process that ends
	j.crash(time.Second)
	a, _ = j.readopt("a", 0)
	b, _ = j.readopt("b", 0)
	want(98*dollar, 107*dollar)
	ask()
	want(98*dollar, 107*dollar)
	for range 2 {
		if _, err := j.d.FundAs(b, 20*dollar, lost); err != nil {
			t.Error(err)
		}
	}
	want(98*dollar, 127*dollar)
	for name, id := range map[string]ledger.ID{"another request": fund, "zero": {}, "an earlier market's": own} {
		if _, err := j.d.FundAs(b, 5*dollar, id); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := j.d.TransferAs(b, a, 7*dollar, give); err == nil {
		t.Error("the other way round: accepted")
	}
	want(98*dollar, 127*dollar)
}

// TestRequestsAreBounded: what is remembered of them has an end.
func TestRequestsAreBounded(t *testing.T) {
	var r requests
	for i := range uint64(mostRequests + 10) {
		r.remember(ledger.MakeID(1, i+1), request{amount: 1})
	}
	if len(r.made) != mostRequests || len(r.order) != mostRequests {
		t.Errorf("%d and %d remembered", len(r.made), len(r.order))
	}
	if done, _ := r.judge(ledger.MakeID(1, mostRequests+10), request{amount: 1}); !done {
		t.Error("the newest is forgotten")
	}
}
