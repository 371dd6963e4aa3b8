package demon

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// bidding lets two open wallets of one core bid against each other for so long.
func (b *bench) bidding(x, y int32, ticks int) {
	b.t.Helper()
	for range ticks {
		b.pass(tick, map[int32]time.Duration{x: 30 * time.Millisecond, y: 20 * time.Millisecond})
	}
}

// TestBidsAreBounded: a bid above what a market takes is refused wherever it can be
// given, and one at the bound does not use up the money that a market can hold.
func TestBidsAreBounded(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Journal = true })
	x := b.admit(Admission{Name: "x", Bid: 2000})
	y := b.admit(Admission{Name: "y", Bid: 2000})
	paced := b.admit(Admission{Name: "paced", Budget: 1000 * dollar, Bid: 2000})
	for _, bid := range []unit.Price{MostBid + 1, 1e14, math.MaxInt64} {
		_, admitted := b.d.Admit(b.in.Now, Admission{Name: "z", Bid: bid})
		_, ceiling := b.d.Admit(b.in.Now, Admission{Name: "z", Auto: true, Budget: 1000 * dollar, Horizon: time.Hour, MaxBid: bid})
		for where, err := range map[string]error{
			"admit": admitted, "admit auto": ceiling, "bid": b.d.SetBid(x, bid), "bid auto": b.d.SetAuto(paced, bid),
		} {
			if r, ok := errors.AsType[*Refusal](err); !ok || r.What != "bid" {
				t.Errorf("%s at %d: %v", where, bid, err)
			}
		}
	}
	for _, slot := range []int32{x, y} {
		if err := b.d.SetBid(slot, MostBid); err != nil {
			t.Fatal(err)
		}
	}
	b.bidding(x, y, 4000)
	if minted := -b.d.book.Balance(mintID); minted > mostMoney/1000 {
		t.Errorf("%v of bidding minted %v", time.Duration(b.in.Now), minted)
	}
}

// TestAnOpenWalletEndsWhereMoneyDoes: what it owes beyond all that a market can mint
// is the operator's loss, before and after a posting.
func TestAnOpenWalletEndsWhereMoneyDoes(t *testing.T) {
	j := newJournaled(t)
	x := j.admit(Admission{Name: "x", Bid: MostBid})
	y := j.admit(Admission{Name: "y", Bid: MostBid})
	j.step()
	if err := j.d.OpenWallet(j.in.Now, "w", "", none, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := j.d.FundWallet(j.in.Now, "w", j.d.money.left()-dollar, ledger.ID{}); err != nil {
		t.Fatal(err)
	}
	j.bidding(x, y, 100)
	if minted := -j.d.book.Balance(mintID); minted != mostMoney {
		t.Errorf("minted %d, want %d", minted, mostMoney)
	}
	if j.line(x).Loss == 0 || j.line(y).Loss == 0 {
		t.Errorf("no loss: %+v, %+v", j.line(x), j.line(y))
	}
	if j.d.money.loose != 0 {
		t.Errorf("%d not posted after a second without money", j.d.money.loose)
	}
}

// TestASavedBidIsBounded: a bid that an older Maxwell took does not come back.
func TestASavedBidIsBounded(t *testing.T) {
	j := newJournaled(t)
	j.admit(Admission{Name: "x", Bid: 2000})
	j.step()
	j.take()
	s := j.docs["x"]
	s.Terms.Bid, s.Terms.MaxBid = math.MaxInt64, math.MaxInt64
	j.docs["x"] = s
	j.crash(time.Second)
	slot, _ := j.readopt("x", 0)
	if l := j.line(slot); l.Bid != MostBid {
		t.Errorf("it bids %v", l.Bid)
	}
}

// TestReportsEndWhereMoneyDoes: nobody earns more between two postings than a market
// can hold, alone or together.
func TestReportsEndWhereMoneyDoes(t *testing.T) {
	b := newBench(t, nil)
	var slots []int32
	for _, name := range []string{"a", "b", "c"} {
		slots = append(slots, b.admit(Admission{Name: name, Budget: 100 * dollar, Income: 1 << 60}))
	}
	b.step()
	for range 9 {
		for _, slot := range slots {
			b.d.Report(slot, "", 1)
		}
	}
	if _, err := b.d.Fund(slots[0], 1<<60); err == nil {
		t.Error("funded beyond what a market can hold")
	}
	b.bidding(slots[0], slots[1], 30)
	if first, others := b.line(slots[0]).Income, b.line(slots[1]).Income+b.line(slots[2]).Income; first != 1<<60 || others != 0 {
		t.Errorf("one earned %d, the others %d", first, others)
	}
	if left := b.d.money.left(); left != mostMoney-1<<60-300*dollar {
		t.Errorf("%d left to mint", left)
	}
}

// TestAnAllowanceOfAnyPeriodComesBack: one whose parts of a micro-$J do not add up in 64
// bits, which an older Maxwell took, is paid and saved as any other.
func TestAnAllowanceOfAnyPeriodComesBack(t *testing.T) {
	j := newJournaled(t)
	j.open("org", "", none, 0)
	slow := unit.Allowance{Amount: 8300 * dollar, Every: math.MaxInt64}
	if err := j.d.OpenWallet(0, "w", "org", slow, 0); err == nil {
		t.Error("opened with an allowance of 292 years")
	}
	if err := j.d.ReopenWallet(0, SavedWallet{Name: "w", Parent: "org", Allowance: slow}); err != nil {
		t.Fatal(err)
	}
	j.fundWallet("org", dollar)
	for n := range 5 {
		j.in.Now += unit.Instant(time.Second)
		j.d.RefillWallets(j.in.Now)
		if v := j.d.wallets["w"]; v.carry < 0 || v.carry >= int64(slow.Every) {
			t.Fatalf("second %d: %d below a micro-$J", n+1, v.carry)
		}
	}
	if have := j.wallet("w").Balance; have != 4 { // 8300e6 * 5e9 / 2^63
		t.Errorf("paid %d", have)
	}
	j.take()
	saved := j.d.SavesOfWallets()
	saved[len(saved)-1].Carry = -5 // as that one saved it
	j.crash(time.Second)
	for _, s := range saved {
		if err := j.d.ReopenWallet(j.in.Now, s); err != nil {
			t.Error(err)
		}
	}
}
