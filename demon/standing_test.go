package demon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

var none unit.Allowance

func (b *bench) wallet(name string) WalletLine {
	b.t.Helper()
	for _, l := range b.d.Wallets() {
		if l.Name == name {
			return l
		}
	}
	b.t.Fatalf("no wallet %s", name)
	return WalletLine{}
}

// TestWalletPaysAndGetsBack: a workload's budget comes from the wallet that it
// names, and what it leaves returns there.
func TestWalletPaysAndGetsBack(t *testing.T) {
	j := newJournaled(t)
	if err := j.d.OpenWallet(0, "team", "", none, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := j.d.FundWallet(0, "team", 150*dollar, ledger.ID{}); err != nil {
		t.Fatal(err)
	}
	slot := j.admit(Admission{Name: "a", Budget: 100 * dollar, Wallet: "team"})
	if have := j.wallet("team").Balance; have != 50*dollar {
		t.Errorf("the wallet has %v after it gave 100 of 150", have)
	}
	_, err := j.d.Admit(0, Admission{Name: "b", Budget: 60 * dollar, Wallet: "team"})
	if err == nil || !strings.Contains(err.Error(), "give less") {
		t.Errorf("more than there is: %v", err)
	}
	j.seconds(slot, 1)
	j.take()
	saved := j.d.SavesOfWallets()
	if len(saved) != 1 || len(j.d.SavesOfWallets()) != 0 {
		t.Fatalf("saved wallets %+v", saved)
	}
	j.crash(time.Second)
	if _, _, err := j.d.Readopt(j.in.Now, j.docs["a"], 0); err == nil || !strings.Contains(err.Error(), "not open") {
		t.Errorf("readopted without its wallet: %v", err)
	}
	if err := j.d.ReopenWallet(j.in.Now, saved[0]); err != nil {
		t.Fatal(err)
	}
	slot, _ = j.readopt("a", 2*time.Second)
	j.step()
	j.in.Usage[slot].Populated = false
	j.step()
	l := j.line(slot)
	if l.Total() != 20*dollar || l.Balance != 0 || l.Budget != 20*dollar || j.wallet("team").Balance != 130*dollar {
		t.Errorf("spent %v of %v, left %v; the wallet has %v", l.Total(), l.Budget, l.Balance, j.wallet("team").Balance)
	}
	j.d.Release(slot)
	if st := j.d.Statement(); st.Sum != 0 || st.Minted != 150*dollar || st.Accounts["wallet:team"] != 130*dollar {
		t.Errorf("minted %v, accounts %v", st.Minted, st.Accounts)
	}
	j.entries = append(j.entries, j.d.Entries()...)
	j.crash(time.Second) // nobody reopens it: its money waits
	j.step()
	if have := j.d.Statement().Accounts["wallet:team"]; have != 130*dollar {
		t.Errorf("a wallet that was not reopened has %v", have)
	}
}

// TestAllowanceIsExact: however it is cut into pieces, restarts included, what was
// paid is rate times time, up to the cap and never more than the parent has.
func TestAllowanceIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := New(Config{Cores: 1000, Reference: 10_000_000, Modelled: true, Journal: true}, 0)
		rate := unit.Allowance{
			Amount: unit.Credits(rapid.Int64Range(0, 5_000_000).Draw(t, "amount")),
			Every:  rapid.SampledFrom([]time.Duration{time.Second, 7 * time.Second}).Draw(t, "every"),
		}
		most := unit.Credits(rapid.SampledFrom([]int64{0, 20_000_000}).Draw(t, "most"))
		rich := unit.Credits(rapid.Int64Range(1, 200_000_000).Draw(t, "parent has"))
		if err := d.OpenWallet(0, "org", "", none, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.FundWallet(0, "org", rich, ledger.ID{}); err != nil {
			t.Fatal(err)
		}
		if err := d.OpenWallet(0, "user", "org", rate, most); err != nil {
			t.Fatal(err)
		}
		disk, docs, now := d.Entries(), d.SavesOfWallets(), unit.Instant(0)
		for range rapid.IntRange(1, 30).Draw(t, "pieces") {
			now += unit.Instant(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "piece"))
			d.refillAll(now)
			if rapid.IntRange(0, 4).Draw(t, "crash") > 0 {
				continue
			}
			disk = append(disk, d.Entries()...)
			newer := d.SavesOfWallets()
			for i := range docs {
				for _, s := range newer {
					if s.Name == docs[i].Name {
						docs[i] = s
					}
				}
			}
			var err error
			if d, err = Resume(d.cfg, now, func(yield func(ledger.Entry) bool) {
				for _, e := range disk {
					if !yield(e) {
						return
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
			for _, s := range docs {
				if err := d.ReopenWallet(now, s); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.refillAll(now)
		want := min(rate.Amount+rate.Over(time.Duration(now)), rich) // it begins with a period's
		if most > 0 {
			want = min(want, most)
		}
		org, user := d.Wallets()[0], d.Wallets()[1]
		if user.Balance != want || org.Balance != rich-want || d.book.Sum() != 0 {
			t.Fatalf("after %v at %v it has %d, want %d; its parent %d of %d", time.Duration(now), rate, user.Balance, want, org.Balance, rich)
		}
	})
}

// TestANewWalletBegins with the allowance of a period: as much as fits, and as its
// parent has left. The books say where it came from.
func TestANewWalletBegins(t *testing.T) {
	day := unit.Allowance{Amount: 50 * dollar, Every: 24 * time.Hour}
	j := newJournaled(t)
	now := j.in.Now
	open := func(name, parent string, allowance unit.Allowance, most, want unit.Credits) {
		t.Helper()
		if err := j.d.OpenWallet(now, name, parent, allowance, most); err != nil {
			t.Fatal(err)
		}
		if have := j.wallet(name).Balance; have != want {
			t.Errorf("%s begins with %v, want %v", name, have, want)
		}
	}
	from := func(source string) (sum unit.Credits) {
		for _, e := range j.entries {
			for _, c := range e.Chain {
				if c.Debit == ledger.NameID(source) && c.Code == ledger.ForAllowance {
					sum += c.Amount
				}
			}
		}
		return sum
	}
	open("org", "", unit.Allowance{Amount: 120 * dollar, Every: 24 * time.Hour}, 0, 120*dollar)
	open("anna", "org", day, 0, 50*dollar)
	open("small", "org", day, 30*dollar, 30*dollar)
	open("late", "org", day, 0, 40*dollar) // what is left
	open("poor", "org", day, 0, 0)
	open("none", "org", none, 0, 0)
	open("anna", "org", unit.Allowance{Amount: 90 * dollar, Every: time.Hour}, 0, 50*dollar) // it is not made again
	open("none", "", day, 0, 0)
	j.take()
	if st := j.d.Statement(); st.Minted != 120*dollar || st.Sum != 0 || from("mint") != 120*dollar || from("wallet:org") != 120*dollar {
		t.Errorf("minted %v (%v by allowances), the parent gave %v; %v", st.Minted, from("mint"), from("wallet:org"), st.Accounts)
	}
	saved := j.d.SavesOfWallets()
	j.crash(0)
	for _, s := range saved {
		if err := j.d.ReopenWallet(now, s); err != nil {
			t.Fatal(err)
		}
	}
	if have := j.wallet("anna").Balance; have != 50*dollar {
		t.Errorf("reopened with %v", have)
	}
}

// TestAClosedWallet returns what it has, and may be opened again; whoever closes and
// opens one again and again has what the allowance brings and no more, whatever
// restarts come between.
func TestAClosedWallet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := New(Config{Cores: 1000, Reference: 10_000_000, Modelled: true, Journal: true}, 0)
		const rich = 1_000_000 * dollar
		parent := rapid.SampledFrom([]string{"", "org"}).Draw(t, "parent")
		if err := d.OpenWallet(0, "org", "", none, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := d.FundWallet(0, "org", rich, ledger.ID{}); err != nil {
			t.Fatal(err)
		}
		rate := unit.Allowance{Amount: 1000 * dollar, Every: time.Hour}
		if err := d.OpenWallet(0, "sink", "", none, 0); err != nil {
			t.Fatal(err)
		}
		disk, docs, now := []ledger.Entry(nil), map[string]SavedWallet{}, unit.Instant(0)
		keep := func() {
			disk = append(disk, d.Entries()...)
			for _, s := range d.SavesOfWallets() {
				docs[s.Name] = s
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += unit.Instant(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "pause"))
			_, open := d.wallets["user"]
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				if err := d.OpenWallet(now, "user", parent, rate, 0); err != nil {
					t.Fatal(err)
				}
			case 1:
				if !open {
					continue
				}
				d.refillAll(now)
				had, above := d.book.Balance(d.wallets["user"].account), d.book.Balance(d.wallets["org"].account)
				back, to, err := d.CloseWallet(now, "user")
				if err != nil || back != had || to != parent {
					t.Fatalf("%v of %v went back to %q: %v", back, had, to, err)
				}
				if gained := d.book.Balance(d.wallets["org"].account) - above; parent == "org" && gained != back || parent == "" && gained != 0 {
					t.Fatalf("of %v the parent has %v", back, gained)
				}
			case 2:
				if !open {
					continue
				}
				d.refillAll(now)
				if has := d.book.Balance(d.wallets["user"].account); has > 0 {
					if _, _, err := d.Move(now, Holder{Wallet: "user"}, Holder{Wallet: "sink"}, has, ledger.ID{}); err != nil {
						t.Fatal(err)
					}
				}
			case 3:
				keep()
				var err error
				if d, err = Resume(d.cfg, now, slices.Values(disk)); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"org", "sink", "user"} {
					if s, known := docs[name]; known {
						if err := d.ReopenWallet(now, s); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			got := d.book.Balance(d.wallets["sink"].account)
			if v := d.wallets["user"]; v != nil {
				got += d.book.Balance(v.account)
			}
			if most := rate.Amount + rate.Over(time.Duration(now)); got > most {
				t.Fatalf("after %v it has had %v, which is more than %v", time.Duration(now), got, most)
			}
			if st := d.Statement(); st.Sum != 0 || parent == "org" && st.Minted != rich {
				t.Fatalf("minted %v, sum %v", st.Minted, st.Sum)
			}
		}
	})
}

// TestCloseRefuses: a wallet that fills others or pays somebody stays.
func TestCloseRefuses(t *testing.T) {
	b := newBench(t, nil)
	b.open("org", "", none, 0)
	b.open("user", "org", none, 0)
	b.fundWallet("user", 200*dollar)
	granted := b.admit(Admission{Name: "granted", Budget: 50 * dollar, Wallet: "user"})
	refused := func(name, want string) {
		t.Helper()
		before := b.d.Statement()
		if _, _, err := b.d.CloseWallet(b.in.Now, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("close %s: %v, want %q", name, err, want)
		}
		if after := b.d.Statement(); after.Minted != before.Minted || len(after.Wallets) != len(before.Wallets) {
			t.Errorf("a refusal changed %+v to %+v", before, after)
		}
	}
	refused("nobody", "there is no wallet")
	refused("org", `fills user; remove that first`)
	refused("user", "maxwell stop granted")
	b.in.Usage[granted].Populated = false
	b.step()
	refused("user", "maxwell stop granted") // its group is not gone yet
	b.d.Release(granted)
	drawing := b.admit(Admission{Name: "drawing", Wallet: "user"})
	refused("user", "maxwell stop drawing")
	b.in.Usage[drawing].Populated = false
	b.step()
	b.d.Release(drawing)
	if back, to, err := b.d.CloseWallet(b.in.Now, "user"); err != nil || back != 200*dollar-b.d.Statement().Accounts["heat"] || to != "org" {
		t.Errorf("%v went back to %q: %v", back, to, err)
	}
	b.admit(Admission{Name: "user", Budget: 50 * dollar}) // the name is free
	refused("user", "there is no wallet")
}

// TestPovertyIsNotOwed: what a parent did not have is not paid later, also not by
// another process.
func TestPovertyIsNotOwed(t *testing.T) {
	j := newJournaled(t)
	for name, rate := range map[string]unit.Allowance{"org": none, "user": {Amount: dollar, Every: time.Second}} {
		parent := map[string]string{"user": "org"}[name]
		if err := j.d.OpenWallet(0, "org", "", none, 0); err != nil {
			t.Fatal(err)
		}
		if err := j.d.OpenWallet(0, name, parent, rate, 0); err != nil {
			t.Fatal(err)
		}
	}
	j.d.SavesOfWallets()
	j.d.refillAll(100_000_000_000)
	j.take()
	saved := j.d.SavesOfWallets()
	if len(saved) != 1 || saved[0].Name != "user" {
		t.Fatalf("saved %+v", saved)
	}
	j.crash(100 * time.Second)
	if err := j.d.OpenWallet(j.in.Now, "org", "", none, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := j.d.FundWallet(j.in.Now, "org", 50*dollar, ledger.ID{}); err != nil {
		t.Fatal(err)
	}
	if err := j.d.ReopenWallet(j.in.Now, saved[0]); err != nil {
		t.Fatal(err)
	}
	j.d.refillAll(j.in.Now + 1_000_000_000)
	if have := j.wallet("user").Balance; have != dollar {
		t.Errorf("a second after its parent got money it has %v", have)
	}
}

// TestWalletRefusals say why, and change nothing.
func TestWalletRefusals(t *testing.T) {
	b := newBench(t, nil)
	b.admit(Admission{Name: "w", Budget: 100 * dollar})
	for _, name := range []string{"org", "user"} {
		if err := b.d.OpenWallet(0, name, map[string]string{"user": "org"}[name], none, 0); err != nil {
			t.Fatal(err)
		}
	}
	before := b.d.Statement()
	fund := func(name string, amount unit.Credits) error {
		_, err := b.d.FundWallet(0, name, amount, ledger.ID{})
		return err
	}
	admit := func(a Admission) error {
		_, err := b.d.Admit(0, a)
		return err
	}
	for want, err := range map[string]error{
		"needs a name":         b.d.OpenWallet(0, "", "", none, 0),
		"not negative":         b.d.OpenWallet(0, "x", "", unit.Allowance{Amount: 1}, 0),
		"open it first":        b.d.OpenWallet(0, "x", "nobody", none, 0),
		"is a workload's":      b.d.OpenWallet(0, "w", "", none, 0),
		"its own parent":       b.d.OpenWallet(0, "org", "user", none, 0),
		"no wallet \"nobody\"": fund("nobody", 1),
		"positive amount":      fund("org", 0),
		"more money":           fund("org", mostMoney),
		"is a wallet's name":   admit(Admission{Name: "org", Budget: 100 * dollar}),
		"there is no wallet":   admit(Admission{Name: "z", Budget: 100 * dollar, Wallet: "nobody"}),
		"starts with":          admit(Admission{Name: "z", Wallet: "org"}),
		"has 0":                admit(Admission{Name: "z", Budget: 100 * dollar, Wallet: "org"}),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	after := b.d.Statement()
	if after.Minted != before.Minted || len(after.Lines) != 1 || len(after.Wallets) != 2 {
		t.Errorf("a refusal changed %+v to %+v", before, after)
	}
	id := ledger.MakeID(9, 9)
	for range 3 {
		if have, err := b.d.FundWallet(0, "org", dollar, id); err != nil || have != dollar {
			t.Errorf("one request: %v, %v", have, err)
		}
	}
}

// TestTheDeadLeaveTheirNames: a wallet may be called what a dead workload was.
func TestTheDeadLeaveTheirNames(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "anna", Budget: 50 * dollar})
	b.in.Usage[slot].Populated = false
	b.step()
	if err := b.d.OpenWallet(b.in.Now, "anna", "", none, 0); err == nil {
		t.Error("its group is not gone yet")
	}
	b.d.Release(slot)
	b.open("anna", "", none, 0)
	b.fundWallet("anna", 30*dollar)
	st := b.d.Statement()
	if st.Sum != 0 || st.Accounts["wallet:anna"] != 30*dollar || st.Minted != 30*dollar+st.Accounts["heat"] {
		t.Errorf("minted %v, accounts %v", st.Minted, st.Accounts)
	}
	b.d.forget(&b.d.dead[0])
	if have := b.wallet("anna").Balance; have != 30*dollar {
		t.Errorf("when the dead is forgotten the wallet has %v", have)
	}
}
