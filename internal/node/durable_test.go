package node

import (
	"testing"

	"github.com/maxwell-hypervisor/maxwell/internal/dispatch"
	"github.com/maxwell-hypervisor/maxwell/internal/meter"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// leaver is a group, and its meter, whose last task is switched out while it is looked
// at: at each look it has run what the next of runs says, which both count.
type leaver struct {
	had, ran unit.CoreTime
	runs     []unit.CoreTime
}

// leaverMeter and leaverGroup are its two sides.
type (
	leaverMeter struct {
		meter.Meter
		*leaver
	}
	leaverGroup struct {
		dispatch.Lasting
		*leaver
	}
)

func (l *leaver) look() {
	if len(l.runs) > 0 {
		l.ran += l.runs[0]
		l.runs = l.runs[1:]
	}
}

func (l leaverMeter) ReadOne(int) (meter.Sample, error) {
	l.look()
	return meter.Sample{Run: l.ran}, nil
}

func (l leaverGroup) Counters() (dispatch.Counters, error) {
	l.look()
	return dispatch.Counters{CPU: l.had + l.ran}, nil
}

// TestNothingIsCountedTwice: what a group runs after its meter began is the meter's,
// whenever it is counted.
func TestNothingIsCountedTwice(t *testing.T) {
	for _, runs := range [][]unit.CoreTime{
		nil, {164}, {0, 164}, {0, 0, 164}, {0, 5, 0, 7}, {1, 2, 3, 4, 5, 6}, {0, 0, 0, 9},
	} {
		l := &leaver{had: 20_780, runs: runs}
		m := &Market{meter: leaverMeter{leaver: l}}
		if used, err := m.usedBefore(&member{}, leaverGroup{leaver: l}); err != nil || used != 20_780 {
			t.Errorf("it runs %v: used %d before, %v; want 20780", runs, used, err)
		}
	}
	// One that cannot be stopped does not hold up the start.
	l := &leaver{had: 20_780, runs: make([]unit.CoreTime, 10_000)}
	for i := range l.runs {
		l.runs[i] = 1
	}
	if used, err := (&Market{meter: leaverMeter{leaver: l}}).usedBefore(&member{}, leaverGroup{leaver: l}); err != nil || used < 20_770 || used > 20_780 {
		t.Errorf("it runs all the time: used %d before, %v", used, err)
	}
}

// TestTheDeadAreRereadOnce: who is buried while a daemon starts has his receipt in the
// journal by the time that the receipts are read, and is the newest of the dead.
func TestTheDeadAreRereadOnce(t *testing.T) {
	n := openNursery(t)
	for range 3 { // one after another: the dead and their receipts are in one order
		n.lives(t, 1)
	}
	m, all := n.m, func(*member) bool { return true }
	was := m.chronicle.graves(10, all)
	m.chronicle.mu.Lock()
	m.chronicle.dead = m.chronicle.dead[2:] // the newest was buried by this process
	m.chronicle.mu.Unlock()
	if err := m.keeper.write(); err != nil {
		t.Fatal(err)
	}
	if err := m.reread(&past{keeper: m.keeper}); err != nil {
		t.Fatal(err)
	}
	now := m.chronicle.graves(10, all)
	if len(was) != 3 || len(now) != 3 {
		t.Fatalf("%d have died, %d are known", len(was), len(now))
	}
	for i := range now {
		if now[i].serial != was[i].serial {
			t.Errorf("place %d: %s, want %s", i, now[i].name, was[i].name)
		}
	}
}
