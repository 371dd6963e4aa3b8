package apoptosis

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

// life drives a machine as a node does, keeps its own record of what was done
// to the tree, and judges every step by the promises of the package comment.
type life struct {
	policy Policy
	m      Machine
	in     Input
	frozen bool

	broke     unit.Instant // when it was frozen for being broke
	term      unit.Instant // when the lane began
	termed    bool
	killed    bool
	everBroke bool
	tripped   bool
	buried    int
}

func (l *life) step(t *rapid.T) {
	before := l.m
	a := l.m.Step(l.in)
	if before.State() == Dead {
		if a != 0 || l.m != before {
			t.Fatalf("dead did not stay dead: %v, %+v", a, l.m)
		}
		return
	}
	if a.Has(Freeze) {
		if l.frozen {
			t.Fatal("frozen twice")
		}
		l.frozen, l.broke, l.everBroke = true, l.in.Now, true
	}
	if a.Has(Thaw) {
		if !l.frozen || !l.in.Solvent {
			t.Fatalf("thawed: frozen %v, solvent %v", l.frozen, l.in.Solvent)
		}
		l.frozen = false
	}
	if a.Has(Term) {
		if l.termed {
			t.Fatal("SIGTERM twice")
		}
		l.term, l.termed, l.frozen = l.in.Now, true, false
	}
	l.killed = l.killed || a.Has(Kill)
	if a.Has(Bury) {
		l.buried++
	}
	l.check(t, before, a)
}

// check holds what must be true after every step.
func (l *life) check(t *rapid.T, before Machine, a Actions) {
	living := l.m.State() == Running || l.m.State() == Waiting
	switch {
	case living && !l.in.Solvent:
		t.Fatalf("%v while insolvent (%v)", l.m.State(), a)
	case (l.m.State() == Broke || l.m.State() == Paused) && !l.frozen:
		t.Fatalf("%v and not frozen", l.m.State())
	case living && l.frozen:
		t.Fatalf("%v and frozen", l.m.State())
	case (l.m.State() == Broke || l.m.State() == Paused) && l.in.Solvent:
		t.Fatalf("%v while solvent", l.m.State())
	case (a.Has(Term) || a.Has(Kill)) && l.in.Solvent && !l.tripped && !l.in.ChildGone && before.State() != Dying:
		t.Fatalf("ended (%v) while solvent, and nobody asked", a)
	case l.m.State() == Dead && l.in.Started && l.in.Populated:
		t.Fatal("buried with a living process")
	case l.m.State() == Dead && l.buried != 1:
		t.Fatalf("dead and buried %d times", l.buried)
	case before.State() == Dying && l.m.Reason() != before.Reason():
		t.Fatalf("reason changed from %v to %v while dying", before.Reason(), l.m.Reason())
	case (l.m.Reason() == None) != (l.m.State() < Dying):
		t.Fatalf("%v with reason %v", l.m.State(), l.m.Reason())
	case l.m.Reason() == Insolvent && l.policy.WhenBroke == Pause:
		t.Fatal("a paused workload died of insolvency")
	case l.m.Reason() == Insolvent && l.in.Now < l.broke+unit.Instant(l.policy.Grace):
		t.Fatalf("died at %d, broke since %d with grace %v", l.in.Now, l.broke, l.policy.Grace)
	}
	lane := min(l.policy.Grace, orDefault(l.policy.Term, DefaultTerm))
	over := l.in.Now >= l.term+unit.Instant(lane) || l.in.LaneUsed >= orDefault(l.policy.LaneTime, DefaultLaneTime)
	if l.m.State() == Dying && before.State() == Dying && (over || before.killed) && !a.Has(Kill) {
		t.Fatalf("lane over (%v after %d), and not killed", lane, l.in.Now-l.term)
	}
}

func drawPolicy(t *rapid.T) Policy {
	return Policy{
		WhenBroke: rapid.SampledFrom([]Choice{Stop, Pause}).Draw(t, "when broke"),
		Grace:     time.Duration(rapid.SampledFrom([]int64{0, 1, 100e6, 250e6, 2e9, 10e9}).Draw(t, "grace")),
		Term:      time.Duration(rapid.SampledFrom([]int64{0, 1, 100e6, 1e9}).Draw(t, "term")),
		LaneTime:  unit.CoreTime(rapid.SampledFrom([]int64{0, 1, 20e6}).Draw(t, "lane")),
	}
}

// TestLife is the state-machine test: any history of money, price, caps, exits
// and clocks, judged at every step.
func TestLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		l := &life{policy: p, m: New(p), in: Input{Solvent: true, Winning: true}}
		t.Repeat(map[string]func(*rapid.T){
			"":      func(*rapid.T) {},
			"tick":  func(t *rapid.T) { l.step(t) },
			"start": func(t *rapid.T) { l.start(); l.step(t) },
			"time": func(t *rapid.T) {
				l.in.Now += unit.Instant(rapid.SampledFrom([]int64{1, 50e6, 250e6, 1e9, 10e9}).Draw(t, "ns"))
				l.step(t)
			},
			"money": func(t *rapid.T) {
				l.in.Solvent = rapid.Bool().Draw(t, "solvent")
				l.in.Budget = unit.Credits(rapid.Int64Range(0, 1000).Draw(t, "budget"))
				l.in.Spent = unit.Credits(rapid.Int64Range(0, 1000).Draw(t, "spent"))
				l.step(t)
			},
			"price": func(t *rapid.T) { l.in.Winning = rapid.Bool().Draw(t, "winning"); l.step(t) },
			"trip": func(t *rapid.T) {
				l.in.Trip = rapid.SampledFrom([]Reason{CapMemory, CapPids, CapCPU, CapEnergy, Timeout, Evicted, Stopped, Failed}).Draw(t, "trip")
				l.tripped = true
				l.step(t)
			},
			"exit": func(t *rapid.T) { l.exit(rapid.Bool().Draw(t, "all")); l.step(t) },
			"use": func(t *rapid.T) {
				if l.m.State() == Dying {
					l.in.LaneUsed += unit.CoreTime(rapid.Int64Range(0, 30e6).Draw(t, "ns"))
				}
				l.step(t)
			},
			"reap": func(t *rapid.T) {
				if l.killed { // SIGKILL works
					l.in.Populated, l.in.ChildGone = false, true
				}
				l.step(t)
			},
		})
	})
}

func (l *life) start() {
	if !l.in.Started {
		l.in.Started, l.in.Populated = true, true
	}
}

func (l *life) exit(all bool) {
	if l.in.Started {
		l.in.ChildGone = true
		l.in.Populated = l.in.Populated && !all
	}
}

// TestPriceSpikeNeverKills: as long as it is solvent and nobody ends it, no
// history of being outbid does anything to a workload.
func TestPriceSpikeNeverKills(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New(drawPolicy(t))
		in := Input{Solvent: true, Populated: true, Started: true}
		for _, winning := range rapid.SliceOfN(rapid.Bool(), 1, 50).Draw(t, "winning") {
			in.Winning = winning
			in.Now += unit.Instant(rapid.Int64Range(1, 100e9).Draw(t, "ns"))
			want := Waiting
			if winning {
				want = Running
			}
			if a := m.Step(in); a != 0 || m.State() != want {
				t.Fatalf("outbid workload: %v into %v", a, m.State())
			}
		}
	})
}

// TestBrokeIsDeadInTime: a workload that stays broke, ignores SIGTERM and is
// looked at every tick is killed by grace + 1 s for every tick up to 100 ms,
// and one that is funded at any step before the end of its grace lives.
func TestBrokeIsDeadInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{Grace: time.Duration(rapid.Int64Range(0, 20e9).Draw(t, "grace"))}
		tick := unit.Instant(rapid.Int64Range(50e6, 100e6).Draw(t, "tick"))
		fund := rapid.Bool().Draw(t, "funded")
		m := New(p)
		in := Input{Now: unit.Instant(rapid.Int64Range(0, 1e12).Draw(t, "start")), Populated: true, Started: true}
		broke := in.Now
		if a := m.Step(in); !a.Has(Freeze) {
			t.Fatalf("broke and not frozen: %v", a)
		}
		fundAt := broke + unit.Instant(rapid.Int64Range(0, int64(p.Grace)).Draw(t, "at"))
		for {
			in.Now += tick
			in.Solvent = fund && in.Now >= fundAt
			before := m.State()
			a := m.Step(in)
			switch {
			case in.Solvent && before == Broke:
				if m.State() != Waiting || !a.Has(Thaw|NoticeFunded) {
					t.Fatalf("funded in time: %v into %v", a, m.State())
				}
				return
			case a.Has(Kill):
				if in.Now > broke+unit.Instant(p.Grace)+1e9 {
					t.Fatalf("killed %v after the end of its grace", time.Duration(in.Now-broke)-p.Grace)
				}
				return
			case in.Now > broke+unit.Instant(p.Grace)+1e9:
				t.Fatalf("alive (%v) a second after the end of its grace", m.State())
			}
		}
	})
}
