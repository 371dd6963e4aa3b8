package demon

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// journaled is a bench that remembers all its entries and newest states.
type journaled struct {
	*bench
	entries []ledger.Entry
	docs    map[string]Saved
	grid    unit.PPM
}

func newJournaled(t *testing.T) *journaled {
	j := &journaled{bench: newBench(t, func(c *Config) { c.Journal = true }), docs: make(map[string]Saved)}
	j.take()
	return j
}

// take hands over and returns how many states changed.
func (j *journaled) take() int {
	j.entries = append(j.entries, j.d.Entries()...)
	saves := j.d.Saves()
	if g := j.d.GridSave(); g != 0 {
		j.grid = g
	}
	for _, s := range saves {
		j.docs[s.Terms.Name] = s
	}
	return len(saves)
}

// crash starts a new process later, with everything that was handed over.
func (j *journaled) crash(away time.Duration) {
	j.t.Helper()
	now := j.in.Now + unit.Instant(away)
	cfg := j.d.cfg
	cfg.Grid = j.grid
	d, err := Resume(cfg, now, slices.Values(j.entries))
	if err != nil {
		j.t.Fatal(err)
	}
	j.bench = &bench{t: j.t, d: d, in: Input{Now: now}}
}

func (j *journaled) readopt(name string, run time.Duration) (int32, Readopted) {
	j.t.Helper()
	slot, gap, err := j.d.Readopt(j.in.Now, j.docs[name], unit.CoreTime(run))
	if err != nil {
		j.t.Fatal(err)
	}
	for int(slot) >= len(j.in.Usage) {
		j.in.Usage = append(j.in.Usage, Usage{})
	}
	j.in.Usage[slot] = Usage{Populated: true}
	return slot, gap
}

// seconds lets n seconds go by in which slot runs alone.
func (j *journaled) seconds(slot int32, n int) {
	for range n * 20 {
		j.pass(tick, map[int32]time.Duration{slot: tick})
	}
}

// TestGapIsOneLine: what ran while no daemon was there is one chain of the
// journal, at the reserve, at most to balance and deposit.
func TestGapIsOneLine(t *testing.T) {
	for _, test := range []struct {
		name             string
		gap              time.Duration
		cost, loss, left unit.Credits
	}{
		{"short", 500 * time.Millisecond, 5 * dollar, 0, 85 * dollar},
		{"long", 20 * time.Second, 90 * dollar, 110 * dollar, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJournaled(t)
			slot := j.admit(Admission{Name: "a", Budget: 100 * dollar})
			j.seconds(slot, 1) // 10 $J
			j.take()
			j.crash(time.Minute)
			j.d.Entries()
			slot, gap := j.readopt("a", time.Second+test.gap)
			if gap.CPU != unit.CoreTime(test.gap) || gap.Cost != test.cost || gap.Loss != test.loss {
				t.Errorf("gap %+v, want %v for %v and a loss of %v", gap, test.gap, test.cost, test.loss)
			}
			l := j.line(slot)
			if l.Balance+l.Deposit != test.left || l.Readopted != gap || l.CPU != unit.CoreTime(time.Second+test.gap) || l.Loss != test.loss {
				t.Errorf("line %+v", l)
			}
			entries := j.d.Entries()
			if len(entries) != 1 {
				t.Fatalf("the gap is %d entries: %v", len(entries), entries)
			}
			var paid unit.Credits
			for _, tr := range entries[0].Chain {
				if tr.Code == ledger.ForReadopted {
					paid += tr.Amount
				}
				if tr.UserData != l.ID {
					t.Errorf("transfer %v does not name workload %d", tr, l.ID)
				}
			}
			if paid != test.cost {
				t.Errorf("the chain says %v, want %v", paid, test.cost)
			}
			st := j.d.Statement()
			if st.Inherited != 10_000_000 || st.Readopted != gap.Energy || st.Books.Node != st.Inherited+st.Readopted || st.Books.Node != st.Books.Attributed {
				t.Errorf("energy %+v, inherited %v, readopted %v", st.Books, st.Inherited, st.Readopted)
			}
		})
	}
}

// TestSleepersAreNotSaved: who does nothing is written once, who runs once a
// second, and who earns or turns at once.
func TestSleepersAreNotSaved(t *testing.T) {
	j := newJournaled(t)
	hog := j.admit(Admission{Name: "hog", Budget: 1000 * dollar})
	j.admit(Admission{Name: "sleeper", Budget: 100 * dollar})
	j.admit(Admission{Name: "paced", Budget: 100 * dollar, Horizon: time.Minute, Auto: true})
	j.seconds(hog, 1)
	j.take()
	for range 5 {
		j.seconds(hog, 1)
		if n := j.take(); n != 1 {
			t.Fatalf("%d states saved in a second in which one workload ran", n)
		}
	}
	// Less than a micro-$J is no entry, but it was charged.
	before := j.docs["sleeper"]
	for range 20 {
		j.pass(tick, map[int32]time.Duration{1: 2})
	}
	j.take()
	if s := j.docs["sleeper"]; s.Run != before.Run+40 || s.Balance != before.Balance {
		t.Errorf("after 40 ns it is saved with %d ns and %v", s.Run, s.Balance)
	}
}

// TestLifeGoesOn: the stage of a life and its deadline survive.
func TestLifeGoesOn(t *testing.T) {
	t.Run("broke", func(t *testing.T) {
		j := newJournaled(t)
		slot := j.admit(Admission{Name: "a", Budget: 10 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
		j.alone(slot, 100)
		j.take()
		ran := time.Duration(j.line(slot).CPU)
		j.crash(500 * time.Millisecond)
		slot, _ = j.readopt("a", ran)
		if !j.d.Frozen(slot) {
			t.Error("it is broke and taken to run free")
		}
		j.step()
		if st := j.line(slot).State; st != apoptosis.Broke {
			t.Fatalf("half a second later it is %v", st)
		}
		for range 9 {
			j.step()
		}
		if l := j.line(slot); l.State != apoptosis.Dying || l.Reason != apoptosis.Insolvent {
			t.Errorf("after its grace it is %v of %v", l.State, l.Reason)
		}
	})
	t.Run("dying", func(t *testing.T) {
		j := newJournaled(t)
		slot := j.admit(Admission{Name: "a", Budget: 10 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
		j.seconds(slot, 0)
		j.step()
		j.d.Stop(slot, apoptosis.Stopped)
		j.step()
		if !j.told(slot, Term) {
			t.Fatal("not dying")
		}
		j.take()
		j.crash(time.Minute)
		slot, _ = j.readopt("a", 0)
		j.step()
		if !j.told(slot, Kill) {
			t.Errorf("its lane ended long ago, and it is told %v", j.out.Actions)
		}
		j.in.Usage[slot].Populated = false
		j.step()
		if l := j.line(slot); l.Reason != apoptosis.Stopped || l.Balance != l.Budget {
			t.Errorf("it died of %v with %v", l.Reason, l.Balance)
		}
		j.d.Release(slot)
		j.take()
		if s := j.docs["a"]; !s.Dead() {
			t.Errorf("it is saved as %v", s.Life.State)
		}
	})
	t.Run("pending", func(t *testing.T) {
		j := newJournaled(t)
		if _, err := j.d.Admit(0, Admission{Name: "a", Budget: 10 * dollar}); err != nil {
			t.Fatal(err)
		}
		j.take()
		j.crash(time.Second)
		slot, _ := j.readopt("a", 0)
		j.d.Abandon(slot)
		if st := j.d.Statement(); len(st.Lines) != 1 || st.Lines[0].Reason != apoptosis.Failed {
			t.Errorf("abandoned: %+v", st.Lines)
		}
	})
	t.Run("paced", func(t *testing.T) {
		j := newJournaled(t)
		slot := j.admit(Admission{Name: "a", Budget: 100 * dollar, Horizon: 20 * time.Second})
		j.seconds(slot, 1)
		j.take()
		want := j.docs["a"].PaceEnd
		j.crash(15 * time.Second)
		slot, _ = j.readopt("a", time.Second)
		if have := j.d.slots[slot].paceEnd(); have != want || want != 20_000_000_000 {
			t.Errorf("its horizon ends at %v, want %v", have, want)
		}
		if err := j.d.SetBid(slot, 3000); err != nil {
			t.Error(err)
		}
	})
}

// TestBuriedWithTheRightReason: what is known of an end that nobody saw.
func TestBuriedWithTheRightReason(t *testing.T) {
	j := newJournaled(t)
	admit := func(name string) int32 {
		return j.admit(Admission{Name: name, Budget: 100 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
	}
	admit("ended")
	admit("rebooted")
	dying, broke := admit("dying"), admit("broke")
	if _, err := j.d.Admit(0, Admission{Name: "pending", Budget: 100 * dollar}); err != nil {
		t.Fatal(err)
	}
	j.in.Usage = append(j.in.Usage, Usage{})
	j.pass(10*time.Second-tick, map[int32]time.Duration{broke: 10 * time.Second}) // more than it has
	j.d.Stop(dying, apoptosis.Stopped)
	j.step()
	j.take()
	j.crash(time.Minute)
	for _, test := range []struct {
		name   string
		run    time.Duration
		hasRun bool
		want   apoptosis.Reason
		spent  unit.Credits
	}{
		{"ended", time.Second, true, apoptosis.Exited, 10 * dollar},
		{"rebooted", time.Second, false, apoptosis.Lost, 0},
		{"dying", 0, false, apoptosis.Stopped, 0},
		{"broke", 10 * time.Second, true, apoptosis.Insolvent, 100 * dollar},
		{"pending", 0, true, apoptosis.Lost, 0},
	} {
		l, err := j.d.BuryLost(j.in.Now, j.docs[test.name], unit.CoreTime(test.run), test.hasRun)
		if err != nil || l.Reason != test.want || l.Spent.Energy != test.spent || l.Deposit != 0 {
			t.Errorf("%s: %v, spent %v, deposit %v, %v; want %v, %v", test.name, l.Reason, l.Spent, l.Deposit, err, test.want, test.spent)
		}
	}
	j.in.Usage = make([]Usage, 8)
	j.step()
	st := j.d.Statement()
	if len(st.Lines) != 5 || st.Sum != 0 || st.Accounts["wallet:ended"] != 90*dollar {
		t.Errorf("%d lines, accounts %v", len(st.Lines), st.Accounts)
	}
}

// TestDeadOfEarlierProcesses: their money goes back to the mint and their
// accounts are closed, whoever forgot them; the living keep theirs.
func TestDeadOfEarlierProcesses(t *testing.T) {
	j := newJournaled(t)
	dead := j.admit(Admission{Name: "dead", Budget: 100 * dollar})
	j.admit(Admission{Name: "forgotten", Budget: 50 * dollar})
	j.admit(Admission{Name: "alive", Budget: 30 * dollar})
	j.in.Usage[dead].Populated = false
	j.step()
	j.d.Release(dead)
	j.take()
	j.crash(time.Second)
	j.readopt("alive", 0)
	j.in.Usage = make([]Usage, 8)
	j.in.Usage[0].Populated = true
	j.step()
	st := j.d.Statement()
	for _, name := range []string{"wallet:dead", "deposit:dead", "wallet:forgotten", "deposit:forgotten"} {
		if _, open := st.Accounts[name]; open {
			t.Errorf("%s is still open", name)
		}
	}
	if st.Minted != 30*dollar || st.Sum != 0 {
		t.Errorf("minted %v, want what the living one has", st.Minted)
	}
	if _, err := j.d.Admit(j.in.Now, Admission{Name: "forgotten", Budget: 50 * dollar}); err != nil {
		t.Errorf("its name cannot be used again: %v", err)
	}
}

// TestResumeRefuses what does not fit, and changes nothing then.
func TestResumeRefuses(t *testing.T) {
	j := newJournaled(t)
	slot := j.admit(Admission{Name: "a", Budget: 100 * dollar})
	j.seconds(slot, 1)
	j.take()
	twice := append(slices.Clone(j.entries), j.entries[len(j.entries)-1])
	if _, err := Resume(j.d.cfg, j.in.Now, slices.Values(twice)); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("an entry twice: %v", err)
	}
	j.crash(time.Second)
	for want, change := range map[string]func(*Saved){
		"knows 1":       func(s *Saved) { s.Version = 2 },
		"closed":        func(s *Saved) { s.Life = apoptosis.Memory{State: apoptosis.Dead, Reason: apoptosis.Exited} },
		"with reason":   func(s *Saved) { s.Life.Reason = apoptosis.Stopped },
		"add up":        func(s *Saved) { s.Balance++ },
		"the books say": func(s *Saved) { s.Balance++; s.Granted++ },
		"no wallet":     func(s *Saved) { s.Terms.Name = "b" },
		"otherwise":     func(s *Saved) { s.Hold = ledger.MakeID(1, 1) },
		"make no sense": func(s *Saved) { s.Run = -1 },
	} {
		s := j.docs["a"]
		change(&s)
		before := j.d.Statement()
		if _, _, err := j.d.Readopt(j.in.Now, s, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if after := j.d.Statement(); len(after.Lines) != 0 || after.Books != before.Books {
			t.Errorf("a refusal (%s) changed the market", want)
		}
	}
	j.readopt("a", 0) // a counter that ran backwards costs nothing
	if _, _, err := j.d.Readopt(j.in.Now, j.docs["a"], 0); err == nil || !strings.Contains(err.Error(), "is alive") {
		t.Errorf("readopted twice: %v", err)
	}
}

// TestSavedIsStable: the words of a saved state are a format.
func TestSavedIsStable(t *testing.T) {
	j := newJournaled(t)
	j.admit(Admission{Name: "a", Budget: 100 * dollar, Policy: apoptosis.Policy{Grace: time.Second}})
	j.take()
	s := j.docs["a"]
	s.Hold = ledger.MakeID(1, 2)
	have, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":1,"id":1,` +
		`"terms":{"name":"a","budget_ucredits":100000000,"wallet":"","bid_xmilli":2000,"auto":false,"max_bid_xmilli":8000,` +
		`"rate_ucredits_per_s":0,"horizon_ns":0,"cores_milli":0,"max_energy_uj":0,"max_cpu_ns":0,"memory_bytes":0,` +
		`"pids":0,"timeout_ns":0,"policy":{"when_broke":"stop","grace_ns":1000000000,"term_ns":0,"lane_time_ns":0},` +
		`"income_ucredits":0,"income_kind":"","enforce":"on"},` +
		`"life":{"state":"pending","reason":"none","deadline_ns":0,"killed":false,"warned_percent":0},"trip":"none",` +
		`"admitted_ns":0,"pace_end_ns":0,"started":true,"ended":false,"signaled":false,"suspended":false,` +
		`"lane_from_ns":0,"warned_percent":[0,0,0,0],"open":false,"granted_ucredits":100000000,"income_ucredits":0,"moved_ucredits":0,` +
		`"balance_ucredits":96040000,"deposit_ucredits":3960000,` +
		`"spent":{"energy_ucredits":0,"rent_ucredits":0,"erasure_ucredits":0},"other_ucredits":0,"loss_ucredits":0,` +
		`"hold":"00000000000000010000000000000002","held_ucredits":96040000,` +
		`"carry":{"energy_pcredits":0,"rent_fcredits":0,"erasure_acredits":0},"run_ns":0,"wait_ns":0,"energy_uj":0,` +
		`"erased_bits":0,"has_erased":false,"peak_memory_bytes":0,"work":0,"price_ucredits_per_core_s":0,` +
		`"grid_ppm":1000000,"readopted":{"times":0,"cpu_ns":0,"energy_uj":0,"cost_ucredits":0,"loss_ucredits":0},` +
		`"would_have_been_stopped":{"reason":"none","at_ns":0,"still":false}}`
	if string(have) != want {
		t.Errorf("have %s\nwant %s", have, want)
	}
}

// TestAutoComesBackWithoutItsAllowance: a wallet's allowance that was taken away is no
// reason to end who bid automatically from it.
func TestAutoComesBackWithoutItsAllowance(t *testing.T) {
	j := newJournaled(t)
	j.open("w", "", unit.Allowance{Amount: 1000 * dollar, Every: time.Hour}, 0)
	j.fundWallet("w", 1000*dollar)
	slot := j.admit(Admission{Name: "a", Wallet: "w", Auto: true, Bid: 2000})
	j.seconds(slot, 1)
	if err := j.d.OpenWallet(j.in.Now, "w", "", none, 0); err != nil {
		t.Fatal(err)
	}
	j.seconds(slot, 1)
	j.take()
	wallets := j.d.SavesOfWallets()
	for _, lost := range []bool{false, true} {
		j.crash(time.Second)
		for _, w := range wallets {
			if err := j.d.ReopenWallet(j.in.Now, w); err != nil {
				t.Fatal(err)
			}
		}
		if lost {
			if _, err := j.d.BuryLost(j.in.Now, j.docs["a"], 0, false); err != nil {
				t.Error(err)
			}
			continue
		}
		slot, _ = j.readopt("a", 0)
		j.seconds(slot, 1)
		if l := j.line(slot); l.State != apoptosis.Running || l.Bid != 2000 {
			t.Errorf("it came back as %+v", l)
		}
	}
}

// TestWrittenOff: what was saved of a workload and does not fit the books is not taken
// back; its money is, by the wallet that gave it or by the mint.
func TestWrittenOff(t *testing.T) {
	for _, wallet := range []string{"", "w"} {
		j := newJournaled(t)
		j.open("w", "", none, 0)
		j.fundWallet("w", 150*dollar)
		slot := j.admit(Admission{Name: "a", Budget: 100 * dollar, Wallet: wallet})
		j.seconds(slot, 1) // 10 $J
		j.take()
		wallets := j.d.SavesOfWallets()
		j.crash(time.Second)
		if err := j.d.ReopenWallet(j.in.Now, wallets[0]); err != nil {
			t.Fatal(err)
		}
		s := j.docs["a"]
		s.Balance++
		if _, err := j.d.BuryLost(j.in.Now, s, 0, false); err == nil {
			t.Fatal("buried with a balance that the books do not know")
		}
		l := j.d.WriteOff(j.in.Now, &s)
		if l.Reason != apoptosis.Lost || l.Spent.Energy != 10*dollar {
			t.Errorf("its line is %+v", l)
		}
		j.step()
		want, minted := 150*dollar, 160*dollar // and the 10 that were burnt
		if wallet != "" {
			want, minted = 140*dollar, 150*dollar
		}
		if have := j.wallet("w").Balance; have != want {
			t.Errorf("the wallet has %v, want %v", have, want)
		}
		if have := -j.d.book.Balance(mintID); have != minted || j.d.book.Sum() != 0 {
			t.Errorf("minted %v, want %v", have, minted)
		}
		if slot := j.admit(Admission{Name: "a", Budget: 100 * dollar}); j.line(slot).ID <= l.ID {
			t.Error("an id was given twice")
		}
		j.step()
	}
}
