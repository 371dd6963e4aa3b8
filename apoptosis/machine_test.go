package apoptosis

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/maxwell-hypervisor/maxwell/unit"
)

const (
	ms = unit.Instant(time.Millisecond)
	s  = 1000 * ms
)

// well is the input of a workload with which nothing is the matter.
func well(now unit.Instant) Input {
	return Input{Now: now, Solvent: true, Winning: true, Populated: true, Started: true}
}

// stopping and pausing are the two policies of the tables: a grace of 10 s.
var (
	stopping = Policy{Grace: 10 * time.Second}
	pausing  = Policy{WhenBroke: Pause, Grace: 10 * time.Second}
)

// in brings a new machine into a state by the shortest way, at time 0.
func in(t *testing.T, state State, p Policy) Machine {
	t.Helper()
	m := New(p)
	i := well(0)
	switch state {
	case Pending:
		return m
	case Waiting:
		i.Winning = false
	case Broke, Paused:
		i.Solvent = false
	case Dying, Dead:
		i.Trip = Timeout
	case Running:
	}
	m.Step(i)
	if state == Dead {
		i.Populated = false
		m.Step(i)
	}
	if m.State() != state {
		t.Fatalf("cannot bring a machine into %v: it is %v", state, m.State())
	}
	return m
}

// TestTransitions is the whole transition relation: every state against every
// kind of news, one at a time.
func TestTransitions(t *testing.T) {
	type result struct {
		State   State
		Reason  Reason
		Actions Actions
	}
	news := []struct {
		name   string
		change func(*Input)
	}{
		{"well", func(*Input) {}},
		{"outbid", func(i *Input) { i.Winning = false }},
		{"insolvent", func(i *Input) { i.Solvent = false }},
		{"grace over", func(i *Input) { i.Solvent, i.Now = false, 10*s }},
		{"lane over", func(i *Input) { i.Solvent, i.Now = false, 250*ms }},
		{"lane used", func(i *Input) { i.Solvent, i.LaneUsed = false, DefaultLaneTime }},
		{"cap", func(i *Input) { i.Trip = CapCPU }},
		{"child gone, tree left", func(i *Input) { i.ChildGone = true }},
		{"tree empty", func(i *Input) { i.ChildGone, i.Populated = true, false }},
		{"child killed by a stranger", func(i *Input) { i.ChildGone, i.ChildSignaled, i.Populated = true, true, false }},
		{"out of memory", func(i *Input) { i.Trip, i.ChildGone, i.ChildSignaled, i.Populated = CapMemory, true, true, false }},
		{"stopped too late", func(i *Input) { i.Trip, i.ChildGone, i.Populated = Stopped, true, false }},
		{"never started", func(i *Input) { i.Started, i.Populated = false, false }},
		{"failed to start", func(i *Input) { i.Started, i.Populated, i.Trip = false, false, Failed }},
		{"gone before it was seen", func(i *Input) { i.Started, i.Populated, i.ChildGone = false, false, true }},
	}
	stay := func(s State) result { return result{State: s} }
	dead := func(r Reason) result { return result{Dead, r, Bury} }
	dying := func(r Reason) result { return result{Dying, r, Term} }
	alive := func(gone Reason) []result { // the answers that all living states share, from "cap" on
		return []result{
			dying(CapCPU), dying(Exited), dead(Exited), dead(Signaled), dead(CapMemory), dead(Exited),
			dead(gone), dead(Failed), dead(Exited),
		}
	}
	want := map[State][]result{
		Pending: append([]result{
			stay(Running), stay(Waiting),
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
		}, append(alive(Exited)[:6], stay(Pending), dead(Failed), dead(Exited))...),
		Running: append([]result{
			stay(Running), stay(Waiting),
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
		}, alive(Exited)...),
		Waiting: append([]result{
			stay(Running), stay(Waiting),
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
			{Broke, None, Freeze | NoticeBroke},
		}, alive(Exited)...),
		Broke: append([]result{
			{Running, None, Thaw | NoticeFunded},
			{Waiting, None, Thaw | NoticeFunded},
			stay(Broke),
			dying(Insolvent), stay(Broke), stay(Broke),
		}, alive(Exited)...),
		Paused: append([]result{
			{Running, None, Thaw | NoticeFunded},
			{Waiting, None, Thaw | NoticeFunded},
			stay(Paused),
			stay(Paused), stay(Paused), stay(Paused),
		}, alive(Exited)...),
		Dying: {
			{Dying, Timeout, 0},
			{Dying, Timeout, 0},
			{Dying, Timeout, 0},
			{Dying, Timeout, Kill},
			{Dying, Timeout, Kill},
			{Dying, Timeout, Kill},
			{Dying, Timeout, 0},
			{Dying, Timeout, 0},
			dead(Timeout), dead(Timeout), dead(Timeout), dead(Timeout),
			dead(Timeout), dead(Timeout), dead(Timeout),
		},
	}
	for range news {
		want[Dead] = append(want[Dead], result{Dead, Timeout, 0})
	}
	for state := range State(states) {
		if len(want[state]) != len(news) {
			t.Fatalf("%v: %d results for %d kinds of news", state, len(want[state]), len(news))
		}
		policy := stopping
		if state == Paused {
			policy = pausing
		}
		for i, n := range news {
			t.Run(state.String()+"/"+n.name, func(t *testing.T) {
				m := in(t, state, policy)
				input := well(10 * ms)
				n.change(&input)
				actions := m.Step(input)
				have := result{m.State(), m.Reason(), actions}
				if diff := cmp.Diff(want[state][i], have); diff != "" {
					t.Errorf("(-want +have):\n%s", diff)
				}
			})
		}
	}
}

// TestPausePolicyFreezesAtOnce: --when-broke pause takes the same step to the
// freezer, and no deadline.
func TestPausePolicyFreezesAtOnce(t *testing.T) {
	for _, from := range []State{Pending, Running, Waiting} {
		m := in(t, from, pausing)
		i := well(s)
		i.Solvent = false
		if a := m.Step(i); a != Freeze|NoticePaused || m.State() != Paused {
			t.Errorf("from %v: %v into %v; want freeze+notice-paused into paused", from, a, m.State())
		}
		if d, ok := m.Deadline(); ok {
			t.Errorf("from %v: paused with deadline %d", from, d)
		}
		i.Now = math.MaxInt64
		if a := m.Step(i); a != 0 || m.State() != Paused {
			t.Errorf("from %v: %v into %v after all time; want paused", from, a, m.State())
		}
	}
}

func TestLaneLength(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy Policy
		want   time.Duration // 0: killed in the step that enters the lane
	}{
		{"default", Policy{Grace: 10 * time.Second}, 250 * time.Millisecond},
		{"short grace", Policy{Grace: 100 * time.Millisecond}, 100 * time.Millisecond},
		{"longer term", Policy{Grace: 10 * time.Second, Term: time.Second}, time.Second},
		{"term beyond grace", Policy{Grace: 2 * time.Second, Term: time.Minute}, 2 * time.Second},
		{"no grace", Policy{Term: time.Second}, 0},
		{"zero policy", Policy{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := in(t, Running, c.policy)
			i := well(5 * s)
			i.Trip = Stopped
			a := m.Step(i)
			if c.want == 0 {
				if a != Kill {
					t.Errorf("entered the lane with %v, want kill", a)
				}
				return
			}
			if d, ok := m.Deadline(); a != Term || !ok || d != 5*s+unit.Instant(c.want) {
				t.Fatalf("%v with deadline %d %v, want term with %d", a, d, ok, 5*s+unit.Instant(c.want))
			}
			i.Now = 5*s + unit.Instant(c.want) - 1
			if a := m.Step(i); a != 0 {
				t.Errorf("a nanosecond early: %v", a)
			}
			i.Now++
			if a := m.Step(i); a != Kill {
				t.Errorf("at the deadline: %v, want kill", a)
			}
			if _, ok := m.Deadline(); ok {
				t.Error("a killed tree still has a deadline")
			}
		})
	}
}

func TestLaneTimeIsBounded(t *testing.T) {
	m := New(Policy{Grace: time.Minute, Term: time.Minute, LaneTime: 7})
	i := well(0)
	i.Trip = CapMemory
	m.Step(i)
	i.LaneUsed = 6
	if a := m.Step(i); a != 0 {
		t.Errorf("within the lane time: %v", a)
	}
	i.LaneUsed = 7
	for range 3 {
		if a := m.Step(i); a != Kill {
			t.Errorf("lane time used up: %v, want kill until the tree is empty", a)
		}
	}
}

func TestWarnings(t *testing.T) {
	m := New(stopping)
	for _, c := range []struct {
		spent, budget unit.Credits
		want          Actions
	}{
		{0, 1000, 0},
		{799, 1000, 0},
		{800, 1000, Warn80},
		{850, 1000, 0},
		{950, 1000, Warn95},
		{1000, 1000, 0},
		{1000, 1250, 0},        // funded: 80 % again, but not ten points below
		{1000, 1500, 0},        // 67 %: armed again
		{1200, 1500, Warn80},   // and told again
		{1200, 12000, 0},       // funded
		{11999, 12000, Warn95}, // past both: only the higher
		{11999, 12000, 0},
		{1 << 62, 0, 0}, // an open wallet has no share
		{1 << 62, 1 << 62, 0},
		{0, math.MaxInt64, 0},
		{math.MaxInt64, math.MaxInt64, Warn95},
	} {
		i := well(0)
		i.Spent, i.Budget = c.spent, c.budget
		if have := m.Step(i); have != c.want {
			t.Errorf("spent %d of %d: %v, want %v", c.spent, c.budget, have, c.want)
		}
	}
}

func TestBrokeIsNotWarned(t *testing.T) {
	m := in(t, Running, stopping)
	i := well(ms)
	i.Solvent, i.Spent, i.Budget = false, 99, 100
	if have, want := m.Step(i), Freeze|NoticeBroke; have != want {
		t.Errorf("%v, want %v: the notice says it all", have, want)
	}
}

func TestReasonWinsOverExit(t *testing.T) {
	for _, c := range []struct {
		trip Reason
		want Reason
	}{
		{CapMemory, CapMemory},
		{CapPids, CapPids},
		{Failed, Failed},
		{CapCPU, Exited},
		{CapEnergy, Exited},
		{Timeout, Exited},
		{Evicted, Exited},
		{Stopped, Exited},
		{None, Exited},
	} {
		for _, populated := range []bool{true, false} {
			m := in(t, Running, stopping)
			i := well(ms)
			i.Trip, i.ChildGone, i.Populated = c.trip, true, populated
			m.Step(i)
			if m.Reason() != c.want {
				t.Errorf("trip %v, tree left %v: reason %v, want %v", c.trip, populated, m.Reason(), c.want)
			}
		}
	}
}

func TestPanics(t *testing.T) {
	mustPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	mustPanic("negative grace", func() { New(Policy{Grace: -1}) })
	mustPanic("negative term", func() { New(Policy{Term: -1}) })
	mustPanic("negative lane", func() { New(Policy{LaneTime: -1}) })
	for _, r := range []Reason{Exited, Insolvent, Signaled, 200} {
		mustPanic("trip "+r.String(), func() {
			m := New(stopping)
			i := well(0)
			i.Trip = r
			m.Step(i)
		})
	}
}

func TestDeadlineDoesNotOverflow(t *testing.T) {
	m := New(Policy{Grace: math.MaxInt64})
	i := well(math.MaxInt64 - 5)
	i.Solvent = false
	m.Step(i)
	if d, ok := m.Deadline(); !ok || d != math.MaxInt64 {
		t.Errorf("deadline %d %v, want the end of time", d, ok)
	}
}
