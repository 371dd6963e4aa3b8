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
		l.in.Grid = *t
	}
}

// ofGrid is the kind of the document that has the grid factor in force.
const ofGrid = "grid"

// keptGrid is the grid factor in the journal.
type keptGrid struct {
	Factor unit.PPM `json:"factor_ppm"`
}

func (k *keptGrid) encode() ([]byte, error) { return json.Marshal(k) }

// gridNotes are the factor in force, if it has changed since the journal was handed
// it last. Called on the loop's thread.
func (l *loop) gridNotes() []note {
	factor := l.demon.GridSave()
	if factor == 0 || !l.m.durable() {
		return nil
	}
	return []note{{ref: journal.Ref{Kind: ofGrid, Key: ofGrid}, wall: time.Now(), body: &keptGrid{factor}}}
}

// readGrid reads the factor that was last in force.
func (p *past) readGrid() error {
	for d, err := range p.keeper.store.Documents(journal.Query{Kind: ofGrid, Key: ofGrid}) {
		var k keptGrid
		if err == nil {
			err = json.Unmarshal(d.Body, &k)
		}
		if err != nil {
			return fmt.Errorf("read the grid factor: %w", err)
		}
		p.grid = k.Factor
	}
	return nil
}
