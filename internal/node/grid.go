package node

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/internal/grid"
	"github.com/maxwell-hypervisor/maxwell/internal/journal"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// gridEvery is how often the source of the grid price is asked. Prices follow it by
// at most 10 % a minute, so nothing is gained by asking more often.
const gridEvery = time.Second

// gridSight is what was last seen of the source, so that only news is said.
type gridSight struct {
	factor unit.PPM
	known  bool
	fault  string // empty = it could be read
}

// gridReader asks the source of the grid price, where one is configured, and leaves
// what it says for the loop's next tick. What can be read no more is believed as long
// as was said when it could. Owner: Market; end: quit, or never where the disk does
// not answer.
func (m *Market) gridReader() {
	every := time.NewTicker(gridEvery)
	defer every.Stop()
	var seen gridSight
	for {
		m.lookAtGrid(&seen)
		select {
		case <-m.quit:
			return
		case <-every.C:
		}
	}
}

// lookAtGrid asks once.
func (m *Market) lookAtGrid(seen *gridSight) {
	cfg := m.settings.Daemon.Config.Grid
	p, err := grid.ReadFile(cfg.File)
	if err != nil {
		if seen.fault != err.Error() {
			seen.fault = err.Error()
			m.log.Warn("grid price", "err", err, "what", "the last one holds until it is too old, then 1x")
		}
		return
	}
	now, wall := m.loop.clock.Now(), time.Now()
	if !seen.known || seen.fault != "" || seen.factor != p.Factor {
		bounded := min(max(p.Factor, price.Lowest), price.Highest)
		m.log.Info("grid price", "factor", inTimes(p.Factor), "taken_as", inTimes(bounded))
	}
	*seen = gridSight{factor: p.Factor, known: true}
	m.tariff.Store(&demon.Tariff{Factor: p.Factor, Until: now + unit.Instant(p.Until(wall, cfg.Valid).Sub(wall))})
}

// inTimes is a factor as it is written.
func inTimes(f unit.PPM) string { return unit.Price(f / 1000).String() }

// readGrid takes what the reader has left since the last tick. It never waits.
func (l *loop) readGrid() {
	l.in.Grid = demon.Tariff{}
	if t := l.m.tariff.Swap(nil); t != nil {
		l.in.Grid, l.tariff = *t, *t
	}
}

// ofGrid is the kind of the document that says how dear electricity was.
const ofGrid = "grid"

// keptGrid is the grid price in the journal: the factor in force, and the last that
// its source said.
type keptGrid struct {
	Factor unit.PPM  `json:"factor_ppm"`
	Tariff unit.PPM  `json:"tariff_ppm"`
	Until  time.Time `json:"tariff_until"` // zero = it said nothing
}

func (k *keptGrid) encode() ([]byte, error) { return json.Marshal(k) }

// gridAgain is how much longer than was kept what a source said has to hold, to be
// kept anew.
const gridAgain = unit.Instant(time.Minute)

// gridNotes are the grid price, if it has changed since the journal was handed it
// last. Called on the loop's thread.
func (l *loop) gridNotes() []note {
	factor := l.demon.GridSave()
	longer := l.tariff.Until - l.gridKept.Until
	same := l.tariff.Factor == l.gridKept.Factor && max(longer, -longer) < gridAgain
	if !l.m.durable() || factor == 0 && same {
		return nil
	}
	if factor != 0 {
		l.grid = factor
	}
	l.gridKept = l.tariff
	wall := time.Now()
	k := &keptGrid{Factor: l.grid, Tariff: l.tariff.Factor}
	if l.tariff.Until != 0 {
		k.Until = wall.Add(l.tariff.Until.Sub(l.clock.Now()))
	}
	return []note{{ref: journal.Ref{Kind: ofGrid, Key: ofGrid}, wall: wall, body: k}}
}

// readGrid reads the grid price of the process before.
func (p *past) readGrid() error {
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofGrid, Key: ofGrid}) {
		if err == nil {
			err = json.Unmarshal(d.Body, &p.grid)
		}
		if err != nil {
			return fmt.Errorf("read the grid price: %w", err)
		}
	}
	return nil
}

// resumeGrid goes on with what the process before knew of the grid price: a source
// that tells nothing now has told it.
func (l *loop) resumeGrid(k *keptGrid) {
	l.grid = k.Factor
	if !k.Until.IsZero() {
		l.m.tariff.Store(&demon.Tariff{Factor: k.Tariff, Until: l.clock.Now() + unit.Instant(time.Until(k.Until))})
	}
}
