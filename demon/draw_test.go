package demon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

var pausing = apoptosis.Policy{WhenBroke: apoptosis.Pause, Grace: apoptosis.DefaultGrace}

// open makes a wallet that begins empty: its terms come after it is made.
func (b *bench) open(name, parent string, a unit.Allowance, most unit.Credits) {
	b.t.Helper()
	for _, a := range []unit.Allowance{{}, a} {
		if err := b.d.OpenWallet(b.in.Now, name, parent, a, most); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) fundWallet(name string, amount unit.Credits) {
	b.t.Helper()
	if _, err := b.d.FundWallet(b.in.Now, name, amount, ledger.ID{}); err != nil {
		b.t.Fatal(err)
	}
}

// wish lets an epoch go by in which those who may run share the core evenly.
func (b *bench) wish(slots ...int32) {
	b.t.Helper()
	ran := make(map[int32]time.Duration)
	for _, slot := range slots {
		if w := b.d.at(slot); !w.frozen && !w.dead {
			ran[slot] = 0
		}
	}
	for slot := range ran {
		ran[slot] = tick / time.Duration(len(ran))
	}
	b.pass(tick, ran)
}

func (b *bench) count(slot int32, kind EventKind) int {
	n := 0
	for _, e := range b.log {
		if e.Slot == slot && e.Kind == kind {
			n++
		}
	}
	return n
}

// TestDrawsAsItSpends: a workload without a budget of its own spends its wallet, is
// paused when that is empty, and goes on when it is funded. What it holds goes back.
func TestDrawsAsItSpends(t *testing.T) {
	b := newBench(t, nil)
	b.open("team", "", none, 0)
	b.fundWallet("team", 100*dollar)
	slot := b.admit(Admission{Name: "a", Wallet: "team", Policy: pausing})
	b.wish(slot)
	if l := b.line(slot); l.Open || !l.Draws || l.Wallet != "team" || l.Balance < 15*dollar || l.Balance > 25*dollar {
		t.Errorf("after its first draw %+v", l)
	}
	b.alone(slot, 250)
	l := b.line(slot)
	if left := 100*dollar - l.Spent.Total(); left < 0 || left > 4*dollar || b.wallet("team").Balance > 0 {
		t.Errorf("stopped after %v of 100, the wallet has %v", l.Spent.Total(), b.wallet("team").Balance)
	}
	if n := b.count(slot, EventWarned); n != 0 {
		t.Errorf("warned %d times of a budget that it does not have", n)
	}
	for range 400 {
		b.wish(slot)
	}
	if l := b.line(slot); l.State != apoptosis.Paused {
		t.Fatalf("broke and %v", l.State)
	}
	b.fundWallet("team", 50*dollar)
	b.wish(slot)
	if !b.told(slot, Thaw) {
		t.Error("funded, and not thawed")
	}
	b.in.Usage[slot].Populated = false
	b.step()
	l = b.line(slot)
	st := b.d.Statement()
	if have := b.wallet("team").Balance; have != 150*dollar-l.Spent.Total() || l.Balance != 0 || st.Sum != 0 || st.Minted != 150*dollar {
		t.Errorf("of 150 it spent %v and the wallet has %v; minted %v", l.Spent.Total(), have, st.Minted)
	}
}

// TestAllowanceIsWhatItLivesOn: half a core's worth of allowance lets it run half of
// the time, and it is stopped seldom, not at every drop. Nothing is written off.
func TestAllowanceIsWhatItLivesOn(t *testing.T) {
	for most, often := range map[unit.Credits]int{0: 70, 8 * dollar: 130} { // the second is less than it draws at once
		b := newBench(t, nil)
		b.open("anna", "", unit.Allowance{Amount: 300 * dollar, Every: time.Minute}, most)
		b.fundWallet("anna", 30*dollar)
		slot := b.admit(Admission{Name: "a", Wallet: "anna", Policy: pausing})
		for range 120 * 20 {
			b.wish(slot)
		}
		l := b.line(slot)
		if share := float64(l.CPU) / float64(120*time.Second); share < 0.45 || share > 0.55 {
			t.Errorf("most %v: ran %.2f of the time on half of its price", most, share)
		}
		if n := b.count(slot, EventPaused); n < 5 || n > often {
			t.Errorf("most %v: paused %d times in two minutes", most, n)
		}
		if l.Loss != 0 {
			t.Errorf("most %v: a loss of %v", most, l.Loss)
		}
	}
}

// TestDropsWakeSeldom: an allowance of a hundredth of the price.
func TestDropsWakeSeldom(t *testing.T) {
	for _, p := range []apoptosis.Policy{pausing, {Grace: apoptosis.DefaultGrace}} {
		b := newBench(t, nil)
		b.open("anna", "", unit.Allowance{Amount: 100_000, Every: time.Second}, 0)
		b.fundWallet("anna", 10*dollar)
		slot := b.admit(Admission{Name: "a", Wallet: "anna", Policy: p})
		for range 120 * 20 {
			b.wish(slot)
		}
		l := b.line(slot)
		if l.State == apoptosis.Dead || l.State == apoptosis.Dying {
			t.Errorf("%v: it ended though money comes in", p.WhenBroke)
		}
		if n := b.count(slot, EventFunded); n < 10 || n > 26 {
			t.Errorf("%v: woken %d times in two minutes", p.WhenBroke, n)
		}
	}
}

// TestThirstyShareEvenly: who comes first does not take all, neither of a wallet nor
// of its parent's.
func TestThirstyShareEvenly(t *testing.T) {
	b := newBench(t, nil)
	b.open("org", "", unit.Allowance{Amount: 6 * dollar, Every: time.Second}, 0)
	b.fundWallet("org", 100*dollar)
	for _, name := range []string{"anna", "ben"} {
		b.open(name, "org", unit.Allowance{Amount: 5 * dollar, Every: time.Second}, 0)
		if _, _, err := b.d.Move(b.in.Now, Holder{Wallet: "org"}, Holder{Wallet: name}, 30*dollar, ledger.ID{}); err != nil {
			t.Fatal(err)
		}
	}
	var slots []int32
	for _, a := range []Admission{{Name: "a1", Wallet: "anna"}, {Name: "a2", Wallet: "anna"}, {Name: "b", Wallet: "ben"}} {
		a.Policy = pausing
		slots = append(slots, b.admit(a))
	}
	for range 300 * 20 {
		b.wish(slots...)
	}
	a1, a2, ben := b.line(slots[0]), b.line(slots[1]), b.line(slots[2])
	anna := a1.Total() + a2.Total()
	near := func(x, y unit.Credits) bool { return max(x-y, y-x) < max(x, y)/8 }
	if !near(a1.Total(), a2.Total()) || !near(anna, ben.Total()) {
		t.Errorf("a1 %v + a2 %v, ben %v", a1.Total(), a2.Total(), ben.Total())
	}
	if all := anna + ben.Total(); all > 1900*dollar || all < 1700*dollar {
		t.Errorf("%v were spent of 100 and 300 s at 6 a second", all)
	}
}

// TestGapIsPaidByItsWallet: what ran while no daemon was there, too.
func TestGapIsPaidByItsWallet(t *testing.T) {
	j := newJournaled(t)
	j.open("team", "", none, 0)
	j.fundWallet("team", 500*dollar)
	slot := j.admit(Admission{Name: "a", Wallet: "team", Policy: pausing})
	j.seconds(slot, 1)
	j.take()
	saved := j.d.SavesOfWallets()
	j.crash(time.Minute)
	if err := j.d.ReopenWallet(j.in.Now, saved[0]); err != nil {
		t.Fatal(err)
	}
	slot, gap := j.readopt("a", 21*time.Second)
	if gap.Cost != 200*dollar || gap.Loss != 0 || !j.line(slot).Draws {
		t.Errorf("gap %+v", gap)
	}
	j.seconds(slot, 5)
	st := j.d.Statement()
	l := j.line(slot)
	if l.Total() != 260*dollar || st.Accounts["wallet:team"]+l.Balance+l.Deposit != 240*dollar || st.Sum != 0 {
		t.Errorf("spent %v, accounts %v", l.Total(), st.Accounts)
	}
}

// TestDrawingRefusals say what to name instead.
func TestDrawingRefusals(t *testing.T) {
	b := newBench(t, nil)
	b.open("team", "", none, 0)
	b.fundWallet("team", 100*dollar)
	slot := b.admit(Admission{Name: "a", Wallet: "team"})
	rich := b.admit(Admission{Name: "rich", Budget: 50 * dollar})
	_, fund := b.d.Fund(slot, dollar)
	_, fundAs := b.d.FundAs(slot, dollar, ledger.MakeID(7, 7))
	for name, err := range map[string]error{
		"fund": fund, "fund as": fundAs, "give": b.d.Transfer(slot, rich, dollar), "take": b.d.Transfer(rich, slot, dollar),
	} {
		if err == nil || !strings.Contains(err.Error(), `draws from wallet "team"; name that`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := b.d.Admit(0, Admission{Name: "z", Wallet: "team", Auto: true})
	if err == nil || !strings.Contains(err.Error(), "has none; give a rate or a horizon") {
		t.Errorf("auto without an allowance: %v", err)
	}
}

// TestAutoPacesAnAllowance: it spends what comes in, and is not stopped for it.
func TestAutoPacesAnAllowance(t *testing.T) {
	b := newBench(t, nil)
	b.open("anna", "", unit.Allowance{Amount: 5 * dollar, Every: time.Second}, 0)
	b.fundWallet("anna", 60*dollar)
	slot := b.admit(Admission{Name: "a", Wallet: "anna", Auto: true, Policy: pausing})
	for range 60 * 20 {
		b.wish(slot)
	}
	if l := b.line(slot); l.Total() < 250*dollar || l.Total() > 330*dollar || b.count(slot, EventPaused) != 0 {
		t.Errorf("spent %v in a minute at 5 a second, paused %d times", l.Total(), b.count(slot, EventPaused))
	}
}

// TestMoveHasOneEffect: under one id, also for the next process.
func TestMoveHasOneEffect(t *testing.T) {
	j := newJournaled(t)
	j.open("team", "", none, 0)
	j.open("anna", "team", none, 0)
	j.fundWallet("team", 100*dollar)
	slot := j.admit(Admission{Name: "a", Budget: 50 * dollar})
	give := func(from, to Holder, n uint64) (left, has unit.Credits) {
		t.Helper()
		left, has, err := j.d.Move(j.in.Now, from, to, 10*dollar, ledger.MakeID(9, n))
		if err != nil {
			t.Fatal(err)
		}
		return left, has
	}
	team, anna, a := Holder{Wallet: "team"}, Holder{Wallet: "anna"}, Holder{Slot: slot}
	for range 3 {
		give(team, anna, 1)
		give(team, a, 2)
		give(a, anna, 3)
	}
	if left, has := give(team, anna, 1); left != 80*dollar || has != 20*dollar || j.line(slot).Budget != 50*dollar {
		t.Errorf("team has %v, anna %v, a's budget is %v", left, has, j.line(slot).Budget)
	}
	j.take()
	saved := j.d.SavesOfWallets()
	j.crash(time.Second)
	for _, s := range saved {
		if err := j.d.ReopenWallet(j.in.Now, s); err != nil {
			t.Fatal(err)
		}
	}
	j.readopt("a", 0)
	if left, has := give(team, anna, 1); left != 80*dollar || has != 20*dollar {
		t.Errorf("again after a restart: team has %v, anna %v", left, has)
	}
	if _, _, err := j.d.Move(j.in.Now, team, anna, dollar, ledger.MakeID(9, 1)); err == nil {
		t.Error("one id for two requests")
	}
}

// TestWalletsConserve: whatever is done, crashes included, no money is made or lost
// but by the mint, and no wallet is overdrawn.
func TestWalletsConserve(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		j := newJournaled(t)
		docs := make(map[string]SavedWallet)
		order := []string{"org", "anna", "ben"}
		note := func() {
			j.take()
			for _, s := range j.d.SavesOfWallets() {
				docs[s.Name] = s
			}
		}
		every := unit.Allowance{Amount: unit.Credits(rapid.Int64Range(0, 20_000_000).Draw(rt, "allowance")), Every: time.Second}
		j.open("org", "", every, 100*dollar)
		j.open("anna", "org", every, 0)
		j.open("ben", "org", every, 30*dollar)
		living := make(map[string]int32)
		names := func() (list []string) {
			for i := range 6 {
				if name := fmt.Sprintf("w%d", i); living[name] > 0 {
					list = append(list, name)
				}
			}
			return list
		}
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0:
				j.fundWallet(rapid.SampledFrom(order).Draw(rt, "fund"), unit.Credits(rapid.Int64Range(1, 60_000_000).Draw(rt, "amount")))
			case 1:
				name := fmt.Sprintf("w%d", rapid.IntRange(0, 5).Draw(rt, "name"))
				a := Admission{Name: name, Policy: pausing, Wallet: rapid.SampledFrom(order).Draw(rt, "wallet"), Budget: unit.Credits(rapid.SampledFrom([]int64{0, 20_000_000}).Draw(rt, "budget"))}
				if _, err := j.d.Admit(j.in.Now, a); err == nil {
					slot := j.d.names[name]
					for int(slot) >= len(j.in.Usage) {
						j.in.Usage = append(j.in.Usage, Usage{})
					}
					j.in.Usage[slot] = Usage{Populated: true}
					j.d.Started(slot)
					living[name] = slot + 1
				}
			case 2:
				from, to := Holder{Wallet: rapid.SampledFrom(order).Draw(rt, "from")}, Holder{Wallet: rapid.SampledFrom(order).Draw(rt, "to")}
				_, _, _ = j.d.Move(j.in.Now, from, to, unit.Credits(rapid.Int64Range(1, 30_000_000).Draw(rt, "amount")), ledger.ID{})
			case 3:
				if list := names(); len(list) > 0 {
					name := rapid.SampledFrom(list).Draw(rt, "ends")
					j.in.Usage[living[name]-1].Populated = false
					j.step()
					j.d.Release(living[name] - 1)
					delete(living, name)
				}
			case 4:
				note()
				j.crash(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(rt, "away")))
				for _, name := range order {
					if err := j.d.ReopenWallet(j.in.Now, docs[name]); err != nil {
						rt.Fatal(err)
					}
				}
				for _, name := range names() {
					s := j.docs[name]
					slot, _ := j.readopt(name, time.Duration(s.Run)+time.Duration(rapid.Int64Range(0, int64(4*time.Second)).Draw(rt, "gap")))
					living[name] = slot + 1
				}
			default:
				var slots []int32
				for _, name := range names() {
					slots = append(slots, living[name]-1)
				}
				for range rapid.IntRange(1, 60).Draw(rt, "ticks") {
					j.wish(slots...)
				}
			}
			st := j.d.Statement()
			if st.Sum != 0 {
				rt.Fatalf("the books sum to %v", st.Sum)
			}
			for _, l := range st.Wallets {
				if l.Balance < 0 {
					rt.Fatalf("%s has %v", l.Name, l.Balance)
				}
			}
			spent := unit.Credits(0)
			for _, name := range []string{"heat", "treasury", "entropy"} {
				spent += st.Accounts[name]
			}
			held := unit.Credits(0)
			for name, have := range st.Accounts {
				if strings.HasPrefix(name, "wallet:") || strings.HasPrefix(name, "deposit:") {
					held += have
				}
			}
			if st.Minted != spent+held+st.Accounts["loss"] {
				rt.Fatalf("minted %v, spent %v, held %v, loss %v", st.Minted, spent, held, st.Accounts["loss"])
			}
		}
	})
}

// TestDepositIsMadeWholeAgain: one that is stopped late pays that from its deposit,
// every time, and never from the operator's loss account.
func TestDepositIsMadeWholeAgain(t *testing.T) {
	b := newBench(t, nil)
	b.open("team", "", none, 0)
	b.fundWallet("team", 10*dollar)
	slot := b.admit(Admission{Name: "a", Wallet: "team", Policy: pausing})
	full := b.line(slot).Deposit
	for range 10 {
		b.fundWallet("team", 20*dollar)
		for range 60 {
			if b.wish(slot); b.told(slot, Freeze) {
				break
			}
		}
		b.pass(tick, map[int32]time.Duration{slot: 20 * time.Millisecond}) // it was not frozen at once
	}
	if l := b.line(slot); l.Loss != 0 || l.Deposit < full/2 {
		t.Errorf("a loss of %v; of the deposit of %v it has %v", l.Loss, full, l.Deposit)
	}
}

// TestNewMoneyPaysNoOldAllowance: what a parent did not have when it was due is not
// paid from what it is given later.
func TestNewMoneyPaysNoOldAllowance(t *testing.T) {
	b := newBench(t, nil)
	b.open("org", "", none, 0)
	b.open("anna", "org", unit.Allowance{Amount: dollar, Every: time.Second}, 0)
	for range 20 * 20 { // less than it is refilled by itself
		b.step()
	}
	b.fundWallet("org", 100*dollar)
	b.d.RefillWallets(b.in.Now)
	if have := b.wallet("anna").Balance; have != 0 {
		t.Errorf("anna has %v of an allowance that was not there", have)
	}
	b.step()
	b.d.RefillWallets(b.in.Now)
	if have := b.wallet("anna").Balance; have != 50_000 {
		t.Errorf("a tick later she has %v", have)
	}
}
