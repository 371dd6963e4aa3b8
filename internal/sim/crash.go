package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// handed is what one tick gave to be made durable.
type handed struct {
	entries []ledger.Entry
	saves   []demon.Saved
	grid    unit.PPM // 0 = as before
}

// disk is what a daemon leaves behind when it is killed: a prefix of what was
// handed over.
type disk struct {
	entries []ledger.Entry
	docs    map[uint64]demon.Saved
	grid    unit.PPM
	queue   []handed // not durable yet
}

// flush makes the oldest n hand-overs durable.
func (k *disk) flush(n int) {
	for _, h := range k.queue[:n] {
		k.entries = append(k.entries, h.entries...)
		for i := range h.saves {
			k.docs[h.saves[i].ID] = h.saves[i]
		}
		if h.grid != 0 {
			k.grid = h.grid
		}
	}
	k.queue = k.queue[n:]
}

// keep takes what the demon hands over after a tick. The daemon commits a few
// ticks together.
func (w *World) keep(entries []ledger.Entry) {
	saves, grid := w.demon.Saves(), w.demon.GridSave()
	if !w.cfg.Crashes {
		return
	}
	w.disk.queue = append(w.disk.queue, handed{entries, saves, grid})
	if w.rng.IntN(3) == 0 {
		w.disk.flush(len(w.disk.queue))
	}
}

// crash kills the daemon, lets the machine go on without it for a while, and
// starts another one with what was durable.
func (w *World) crash() error {
	w.Report.Crashes++
	w.disk.flush(w.rng.IntN(len(w.disk.queue) + 1))
	w.disk.queue = nil
	w.ungoverned(time.Duration(w.rng.Int64N(int64(5 * time.Second))))
	if w.disk.grid != 0 {
		w.market.Grid = w.disk.grid
	}
	d, err := demon.Resume(w.market, w.now, slices.Values(w.disk.entries))
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	w.copied = ledger.New(ledger.Config{})
	for i := range w.disk.entries {
		w.copied.Replay(&w.disk.entries[i]) // it fitted a moment ago
	}
	w.demon, w.in, w.out, w.joule = d, demon.Input{}, demon.Decisions{}, 0
	w.begin(w.market.Grid)
	for id := range w.buried {
		if _, durable := w.disk.docs[id]; !durable {
			delete(w.buried, id) // it was born and died between two commits: its number is free
		}
	}
	old := w.procs
	w.procs = nil
	for _, id := range slices.Sorted(maps.Keys(w.disk.docs)) {
		s := w.disk.docs[id]
		if s.Dead() {
			continue
		}
		at := slices.IndexFunc(old, func(p *process) bool { return p != nil && p.id == id })
		if at < 0 {
			at = len(old)
			old = append(old, w.graves[id])
		}
		if err := w.comeBack(old[at], s); err != nil {
			return err
		}
	}
	return nil
}

// ungoverned lets dt go by without a daemon: whoever is not frozen runs.
func (w *World) ungoverned(dt time.Duration) {
	left := unit.CoreTime(int64(dt) * int64(w.cores) / 1000)
	for _, p := range w.procs {
		if p == nil || p.killed || p.exited || p.frozen {
			continue
		}
		got := min(w.wants(p, dt), left)
		left -= got
		p.run += got
		p.exited = p.dies > 0 && p.run >= p.dies
	}
	w.now += unit.Instant(dt)
}

// comeBack readopts or buries one saved workload.
func (w *World) comeBack(p *process, s demon.Saved) error {
	if p.exited || p.killed {
		known := w.rng.IntN(4) > 0
		line, err := w.demon.BuryLost(w.now, s, p.run, known)
		if err != nil {
			return err
		}
		w.Report.Dead[line.Reason.String()]++
		if known && line.CPU != p.run {
			return fmt.Errorf("%s ran %d ns and was buried with %d", p.name, p.run, line.CPU)
		}
		w.buried[s.ID], w.graves[s.ID] = line.Name, p
		return checkLine(&line)
	}
	slot, gap, err := w.demon.Readopt(w.now, s, p.run)
	if err != nil {
		return err
	}
	if gap.CPU != p.run-s.Run {
		return fmt.Errorf("%s ran %d ns without a daemon and was billed %d", p.name, p.run-s.Run, gap.CPU)
	}
	if err := w.checkGap(s, gap); err != nil {
		return err
	}
	line, _ := w.demon.LineOf(slot)
	if had := s.Spent.Total() + s.Other; line.Total() != had+gap.Cost || line.Loss != s.Loss+gap.Loss {
		return fmt.Errorf("%s had paid %d, a gap of %d and %d lost made it %d", p.name, had, gap.Cost, gap.Loss, line.Total())
	}
	w.Report.Readopted++
	w.seat(slot, p)
	p.from, p.waitFrom, p.frozen = p.run, p.wait, w.demon.Frozen(slot)
	if !s.Started {
		w.demon.Started(slot) // it runs, and that was not durable
	}
	delete(w.buried, s.ID)
	return nil
}

// checkGap holds that a gap cost its core time at the reference power and the grid
// factor that was last durable.
func (w *World) checkGap(s demon.Saved, gap demon.Readopted) error {
	joules := unit.MulDiv(int64(w.watts), int64(gap.CPU), int64(time.Second))
	owed := uint64(joules)*uint64(w.grid) + s.Carry.Energy
	if gap.Cost+gap.Loss != unit.Credits(owed/1_000_000) {
		return fmt.Errorf("%s: a gap of %d ns at a grid factor of %d cost %d and %d lost, want %d",
			s.Terms.Name, gap.CPU, w.grid, gap.Cost, gap.Loss, owed/1_000_000)
	}
	w.carry[s.ID] = owed % 1_000_000
	return nil
}

// checkCharged holds that everybody was charged for exactly what it ran.
func (w *World) checkCharged() error {
	for _, p := range w.procs {
		if p == nil {
			continue
		}
		if line, ok := w.demon.LineOf(p.slot); ok && line.CPU != p.run {
			return fmt.Errorf("%s ran %d ns and was charged for %d", p.name, p.run, line.CPU)
		}
	}
	return nil
}
