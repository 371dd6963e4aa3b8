package demon

import (
	"testing"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

func (b *bench) events(slot int32, kind EventKind) (list []Event) {
	for _, e := range b.log {
		if e.Slot == slot && e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// watched plays the same load under a mode: a hog beside a rival, both sleeping now
// and then, for n ticks, as long as nobody freezes it.
func watched(t *testing.T, mode Enforce, n int) (*bench, int32) {
	b := newBench(t, nil)
	slot := b.admit(Admission{
		Name: "a", Budget: 20 * dollar, Enforce: mode, Policy: apoptosis.Policy{Grace: time.Minute},
	})
	rival := b.admit(Admission{Name: "rival", Budget: 1000 * dollar, Bid: 1500})
	for i := range n {
		run := map[int32]time.Duration{slot: tick / 2, rival: tick / 2}
		if i%10 == 9 {
			run = nil
		}
		b.pass(tick, run)
		if mode == EnforceOn && b.told(slot, Freeze) {
			return b, slot
		}
		if mode != EnforceOn && len(b.out.Actions) > 0 {
			t.Fatalf("tick %d: it is only watched, and the node is told %v", i, b.out.Actions)
		}
		for _, g := range b.out.Gates {
			if mode != EnforceOn && g.Slot == slot {
				t.Fatalf("tick %d: it is only watched, and has a gate", i)
			}
		}
	}
	return b, slot
}

// TestObservePredictsOn: what is only observed would have been stopped at the very
// tick at which the same load is stopped, and is left alone.
func TestObservePredictsOn(t *testing.T) {
	on, x := watched(t, EnforceOn, 200)
	stopped := on.events(x, EventBroke)
	if len(stopped) != 1 {
		t.Fatalf("enforced it was stopped %d times", len(stopped))
	}
	for _, mode := range []Enforce{EnforceObserve, EnforceWarn} {
		b, y := watched(t, mode, 200)
		would := b.events(y, EventWouldStop)
		if len(would) != 1 || would[0].At != stopped[0].At || would[0].Reason != apoptosis.Insolvent {
			t.Fatalf("%v: would have been stopped %v, was stopped at %v", mode, would, stopped[0].At)
		}
		l := b.line(y)
		if want := (WouldHave{apoptosis.Insolvent, stopped[0].At, true}); l.WouldHave != want || l.Enforce != mode {
			t.Errorf("%v: the line says %+v", mode, l.WouldHave)
		}
		if l.State != apoptosis.Running && l.State != apoptosis.Waiting || l.Total() > l.Budget || l.Loss == 0 || l.Balance != 0 {
			t.Errorf("%v: %v, spent %v of %v, lost %v", mode, l.State, l.Total(), l.Budget, l.Loss)
		}
		if l.CPU != unit.CoreTime(180*tick/2) {
			t.Errorf("%v: metered %v", mode, l.CPU)
		}
		for i := range b.out.Shares {
			if s := &b.out.Shares[i]; s.Neutral != (s.Slot == y) {
				t.Errorf("%v: share %+v", mode, s)
			}
		}
		warned, broke, funded := len(b.events(y, EventWarned)), len(b.events(y, EventBroke)), 0
		if _, err := b.d.Fund(y, 5*dollar); err != nil {
			t.Fatal(err)
		}
		b.pass(tick, map[int32]time.Duration{y: tick / 2})
		if l := b.line(y); l.WouldHave.Still || l.WouldHave.Reason != apoptosis.Insolvent {
			t.Errorf("%v: funded, and the line says %+v", mode, l.WouldHave)
		}
		funded = len(b.events(y, EventFunded))
		for range 20 {
			b.pass(tick, map[int32]time.Duration{y: tick})
		}
		if n := len(b.events(y, EventWouldStop)); n != 2 {
			t.Errorf("%v: after it was funded and broke again it was told %d times", mode, n)
		}
		if mode == EnforceObserve && warned+broke+funded != 0 {
			t.Errorf("observed, and warned %d, broke %d, funded %d", warned, broke, funded)
		}
		if mode == EnforceWarn && (warned != 2 || broke != 1 || funded != 1) {
			t.Errorf("to be warned, and warned %d, broke %d, funded %d", warned, broke, funded)
		}
		if st := b.d.Statement(); st.Sum != 0 {
			t.Errorf("the books sum to %d", st.Sum)
		}
	}
}

// TestObserveSeesCaps: every cap would have ended it, for good and once.
func TestObserveSeesCaps(t *testing.T) {
	for _, test := range []struct {
		want apoptosis.Reason
		ask  Admission
		hurt func(*Usage)
	}{
		{apoptosis.CapCPU, Admission{MaxCPU: unit.CoreTime(200 * time.Millisecond)}, nil},
		{apoptosis.CapEnergy, Admission{MaxEnergy: 2_000_000}, nil},
		{apoptosis.Timeout, Admission{Timeout: 200 * time.Millisecond}, nil},
		{apoptosis.CapMemory, Admission{Memory: 1 << 20}, func(u *Usage) { u.PeakMemory = 1<<20 + 1 }},
		{apoptosis.CapPids, Admission{Pids: 10}, func(u *Usage) { u.Processes = 11 }},
	} {
		t.Run(test.want.String(), func(t *testing.T) {
			b := newBench(t, nil)
			test.ask.Name, test.ask.Enforce = "a", EnforceObserve
			slot := b.admit(test.ask)
			if test.hurt != nil {
				test.hurt(&b.in.Usage[slot])
			}
			for range 20 {
				b.pass(tick, map[int32]time.Duration{slot: tick})
				if len(b.out.Actions) > 0 {
					t.Fatalf("told %v", b.out.Actions)
				}
			}
			would := b.events(slot, EventWouldStop)
			if len(would) != 1 || would[0].Reason != test.want || !b.line(slot).WouldHave.Still {
				t.Errorf("told %v", would)
			}
		})
	}
}

// TestEnforceLater: a person's stop works whatever the mode, and the mode can be
// changed while it runs.
func TestEnforceLater(t *testing.T) {
	b := newBench(t, nil)
	slot := b.admit(Admission{Name: "a", Budget: 10 * dollar, Enforce: EnforceObserve, Policy: apoptosis.Policy{Grace: time.Minute}})
	for range 40 {
		b.pass(tick, map[int32]time.Duration{slot: tick})
	}
	if err := b.d.SetEnforce(slot, EnforceOn); err != nil {
		t.Fatal(err)
	}
	b.pass(tick, map[int32]time.Duration{slot: tick})
	if !b.told(slot, Freeze) {
		t.Error("enforced and without money it goes on")
	}
	if err := b.d.SetEnforce(slot, EnforceWarn); err != nil {
		t.Fatal(err)
	}
	b.step()
	if !b.told(slot, Thaw) {
		t.Error("not enforced any more it stays frozen")
	}
	b.d.Stop(slot, apoptosis.Stopped)
	b.step()
	if !b.told(slot, Term) {
		t.Error("a person's stop has no effect")
	}
	if err := b.d.SetEnforce(99, EnforceOn); err == nil {
		t.Error("nobody was set")
	}
	if err := b.d.SetEnforce(slot, 7); err == nil {
		t.Error("a mode that does not exist was set")
	}
}

func TestEnforceWords(t *testing.T) {
	for _, e := range []Enforce{EnforceOn, EnforceObserve, EnforceWarn} {
		if have, ok := ParseEnforce(e.String()); !ok || have != e {
			t.Errorf("%v reads as %v", e, have)
		}
	}
	if _, ok := ParseEnforce("off"); ok || Enforce(9).String() != "unknown" {
		t.Error("off is a mode")
	}
}
