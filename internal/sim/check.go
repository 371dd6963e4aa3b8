package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// check holds the laws against the state after a tick.
func (w *World) check() error {
	if err := w.checkEnergy(); err != nil {
		return err
	}
	for i := range w.out.Settlements {
		s := &w.out.Settlements[i]
		if name, dead := w.buried[s.ID]; dead {
			return fmt.Errorf("dead %s was charged %v", name, s.Bill.Total())
		}
	}
	if err := w.checkGrid(); err != nil {
		return err
	}
	if err := w.checkFrozen(); err != nil {
		return err
	}
	if err := w.checkFree(); err != nil {
		return err
	}
	if err := w.checkCharged(); err != nil {
		return err
	}
	if err := w.replay(); err != nil {
		return err
	}
	if w.Report.Ticks%17 != 0 {
		return nil
	}
	whole, light := w.demon.View(true), w.demon.View(false)
	if wrote := w.demon.Entries(); len(wrote) > 0 {
		return fmt.Errorf("a view wrote %d entries", len(wrote))
	}
	st := w.demon.Statement()
	if err := checkViews(&whole, &light, &st); err != nil {
		return err
	}
	w.Report.Minted, w.Report.Energy = st.Minted, st.Books.Node
	if st.Sum != 0 {
		return fmt.Errorf("ledger sums to %d", st.Sum)
	}
	if err := w.replay(); err != nil { // a statement posts
		return err
	}
	copies := 0
	for a := range w.copied.Accounts() {
		copies++
		if have, open := st.Accounts[a.Name]; !open || have != a.Balance() {
			return fmt.Errorf("%s has %d, by the journal %d", a.Name, have, a.Balance())
		}
	}
	if copies != len(st.Accounts) {
		return fmt.Errorf("%d accounts, by the journal %d", len(st.Accounts), copies)
	}
	for i := range st.Lines {
		if err := checkLine(&st.Lines[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkViews holds that a view tells what a statement would, but for the dead.
func checkViews(whole, light, st *demon.Statement) error {
	living := len(whole.Lines)
	if !maps.Equal(whole.Accounts, st.Accounts) {
		return fmt.Errorf("a view has accounts %v, a statement %v", whole.Accounts, st.Accounts)
	}
	if whole.Minted != st.Minted || whole.Sum != st.Sum || whole.Books != st.Books || whole.Spot != st.Spot ||
		!slices.Equal(whole.Lines, st.Lines[:living]) || !slices.Equal(whole.Wallets, st.Wallets) {
		return fmt.Errorf("a view is %+v, a statement %+v", whole, st)
	}
	sum := unit.Credits(0)
	for name, v := range light.Accounts {
		sum += v
		if name != demon.OtherWallets && v != st.Accounts[name] {
			return fmt.Errorf("a view has %d in %s, a statement %d", v, name, st.Accounts[name])
		}
	}
	for i := range light.Lines {
		if _, listed := light.Accounts["wallet:"+light.Lines[i].Name]; !listed {
			return fmt.Errorf("a view does not list the wallet of %s", light.Lines[i].Name)
		}
	}
	if sum != 0 {
		return fmt.Errorf("the accounts of a view sum to %d", sum)
	}
	return nil
}

// replay does again what the journal would keep.
func (w *World) replay() error {
	entries := w.demon.Entries()
	w.keep(entries)
	for _, e := range entries {
		if status := w.copied.Replay(&e); status != ledger.OK {
			return fmt.Errorf("entry %v of the journal: %v", e, status)
		}
	}
	return nil
}

// checkEnergy holds conservation, in the epoch and over all.
func (w *World) checkEnergy() error {
	b := w.out.Ended.Books
	if b.Attributed+b.System+b.Idle+b.Unattributed != b.Node {
		return fmt.Errorf("energy books do not balance: %+v", b)
	}
	var charged unit.Microjoules
	for i := range w.out.Settlements {
		charged += w.out.Settlements[i].Energy
	}
	if charged > b.Attributed {
		return fmt.Errorf("charged %d uJ, attributed %d uJ", charged, b.Attributed)
	}
	return nil
}

// begin is what the demon is to make of the tariffs from here on.
func (w *World) begin(factor unit.PPM) {
	w.tariff = price.GridFrom(w.now, factor)
	w.grid, w.read = w.tariff.Factor(w.now), 0
}

// checkGrid holds that the epoch was settled at the grid factor of its window, that
// the factor changed where a window ended and nowhere else, and that the energy of
// every bill is the cost of its joules at it, with what was carried.
func (w *World) checkGrid() error {
	e := &w.out.Ended
	if e.Grid != w.grid || e.Base != price.Base(w.watts, w.grid) {
		return fmt.Errorf("settled at a grid factor of %d and a base of %d, want %d", e.Grid, e.Base, w.grid)
	}
	for i := range w.out.Settlements {
		s := &w.out.Settlements[i]
		owed := uint64(s.Energy)*uint64(w.grid) + w.carry[s.ID]
		if s.Bill.Energy != unit.Credits(owed/1_000_000) {
			return fmt.Errorf("%d uJ at a grid factor of %d cost %d, want %d", s.Energy, w.grid, s.Bill.Energy, owed/1_000_000)
		}
		w.carry[s.ID] = owed % 1_000_000
	}
	w.tariff.Observe(w.now, w.in.Grid.Factor, w.in.Grid.Until)
	if w.in.Reading.At > w.read {
		was := w.grid
		w.read, w.grid = w.in.Reading.At, w.tariff.Factor(w.now)
		if w.grid != was {
			w.Report.Regrids++
		}
	}
	if base := price.Base(w.watts, w.grid); w.demon.BaseRate() != base {
		return fmt.Errorf("the base is %d, want %d", w.demon.BaseRate(), base)
	}
	return nil
}

// checkFrozen holds that whoever is broke, paused or suspended was told to
// stop in the same tick at the latest.
func (w *World) checkFrozen() error {
	frozen := make(map[int32]bool)
	for _, a := range w.out.Actions {
		frozen[a.Slot] = a.Kind == demon.Freeze
	}
	for slot, p := range w.procs {
		if p == nil {
			continue
		}
		line, ok := w.demon.LineOf(int32(slot))
		if !ok || (line.State != apoptosis.Broke && line.State != apoptosis.Paused) {
			continue
		}
		if told, now := frozen[int32(slot)]; (now && !told) || (!now && !p.frozen) {
			return fmt.Errorf("%s is %v and not frozen", p.name, line.State)
		}
	}
	return nil
}

// checkFree holds that nothing is done to who is not enforced, as long as it has
// a process.
func (w *World) checkFree() error {
	for _, a := range w.out.Actions {
		if p := w.procs[a.Slot]; p.free && !p.exited && a.Kind != demon.Bury {
			return fmt.Errorf("%s is only observed and was told %d", p.name, a.Kind)
		}
	}
	for i := range w.out.Gates {
		if p := w.procs[w.out.Gates[i].Slot]; p.free {
			return fmt.Errorf("%s is only observed and has a gate", p.name)
		}
	}
	return nil
}

// checkLine holds one wallet's identities.
func checkLine(l *demon.Line) error {
	switch {
	case l.Balance < 0 || l.Deposit < 0:
		return fmt.Errorf("%s is overdrawn: balance %d, deposit %d", l.Name, l.Balance, l.Deposit)
	case l.Total() > l.Budget+l.Income:
		return fmt.Errorf("%s spent %d of %d + %d", l.Name, l.Total(), l.Budget, l.Income)
	case l.Budget+l.Income != l.Total()+l.Balance+l.Deposit:
		return fmt.Errorf("%s: %d + %d is not %d + %d + %d", l.Name, l.Budget, l.Income, l.Total(), l.Balance, l.Deposit)
	}
	return nil
}
