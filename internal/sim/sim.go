// Package sim is a deterministic world for the real demon: invented
// workloads on invented cores, every choice drawn from one seed, checkers
// after every tick.
//
// The demon cannot tell this world from the node's: it gets the same Input and
// its Decisions are carried out by the same rules (freeze stops, gates stop in
// between with a few milliseconds of lateness, the dying lane gives a little,
// kill ends). The world is honest about being invented: it is not a model of
// the kernel's scheduler, it is an adversary with a seed. It delivers shares
// roughly in the order of the market and sometimes out of it, comes late,
// suspends the machine for seconds, loses sensor readings, and its workloads
// fork, sleep, burst, crash, ignore SIGTERM, earn, get funded and change
// their bids.
package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/demon"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/market"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// Config describes a world. Zero values are drawn from the seed.
type Config struct {
	Seed      uint64
	Ticks     int
	Workloads int  // alive at once, about
	Crashes   bool // the daemon is killed now and then, and comes back
}

// World is the invented machine.
type World struct {
	cfg    Config
	rng    *rand.Rand
	demon  *demon.Demon
	in     demon.Input
	out    demon.Decisions
	procs  []*process // by slot; nil = free
	cores  unit.MilliCores
	watts  unit.Microwatts // of a busy core
	idle   unit.Microwatts
	now    unit.Instant
	joule  float64 // exact energy so far, in uJ; float only in this invented world
	names  int
	buried map[uint64]string // id -> name of the dead
	graves map[uint64]*process
	copied *ledger.Ledger // replayed from the journal's entries
	market demon.Config
	disk   disk
	tariff price.Grid // what the demon is to have made of the tariffs
	grid   unit.PPM   // that is to be in force
	read   unit.Instant
	carry  map[uint64]uint64 // id -> energy not yet billed, in 1e-6 micro-$J
	Report Report
}

// Report counts what happened.
type Report struct {
	Seed      uint64           `json:"seed"`
	Ticks     int              `json:"ticks"`
	Admitted  int              `json:"admitted"`
	Refused   int              `json:"refused"`
	Dead      map[string]int   `json:"dead"` // by reason
	Frozen    int              `json:"freezes"`
	Warned    int              `json:"warnings"`
	Suspended int              `json:"suspensions"`
	MaxDelay  time.Duration    `json:"longest_tick_ns"`
	Loss      unit.Credits     `json:"written_off_ucredits"`
	Minted    unit.Credits     `json:"minted_ucredits"`
	Energy    unit.Microjoules `json:"node_energy_uj"`
	WouldStop int              `json:"would_stop"`
	Crashes   int              `json:"crashes,omitempty"`
	Readopted int              `json:"readopted,omitempty"`
	Regrids   int              `json:"grid_changes"`
}

// process is an invented workload.
type process struct {
	slot     int32
	id       uint64
	name     string
	threads  int
	onFor    time.Duration // bursts: runs this long
	offFor   time.Duration // then sleeps this long; 0 = never
	phase    time.Duration
	hardy    bool // ignores SIGTERM
	dies     unit.CoreTime
	earns    unit.CoreTime // a unit of work an so much core time; 0 = none
	sinceJob unit.CoreTime
	run      unit.CoreTime
	wait     unit.CoreTime
	from     unit.CoreTime // run when the meter was begun
	waitFrom unit.CoreTime
	frozen   bool
	lane     bool
	killed   bool
	free     bool // not enforced, and no person stopped or suspended it
	exited   bool
	watts    unit.Microwatts
}

// New builds the world of a seed.
func New(cfg Config) *World {
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x6d617877656c6c))
	w := &World{
		cfg: cfg, rng: rng, cores: unit.MilliCores(1+rng.IntN(8)) * 1000,
		watts: unit.Microwatts(1+rng.Int64N(30)) * 1_000_000, buried: make(map[uint64]string),
		graves: make(map[uint64]*process), copied: ledger.New(ledger.Config{}),
		disk: disk{docs: make(map[uint64]demon.Saved)}, carry: make(map[uint64]uint64),
	}
	if w.cfg.Workloads == 0 {
		w.cfg.Workloads = 1 + rng.IntN(40)
	}
	modelled := rng.IntN(3) > 0
	dc := demon.Config{
		Cores: w.cores, Reference: w.watts, Modelled: modelled, Sigma: unit.PPM(rng.Int64N(500_001)),
		Landauer: price.DefaultLandauer(), Seed: [2]uint64{cfg.Seed, 1}, Journal: true,
	}
	if modelled {
		w.idle = unit.Microwatts(rng.Int64N(20_000_000))
		dc.Idle = w.idle
	}
	if rng.IntN(4) == 0 {
		dc.Watts = unit.Microwatts(rng.Int64N(int64(w.watts)*int64(w.cores)/1000) + 1_000_000)
	}
	if rng.IntN(5) == 0 {
		dc.Floor = -1
	}
	if rng.IntN(2) == 0 {
		dc.Grid = price.Lowest + unit.PPM(rng.Int64N(int64(price.Highest-price.Lowest)))
	}
	w.now = unit.Instant(rng.Int64N(1 << 40))
	w.demon, w.market = demon.New(dc, w.now), dc
	w.begin(dc.Grid)
	w.Report = Report{Seed: cfg.Seed, Dead: make(map[string]int)}
	return w
}

// Run plays the world and returns the first broken rule.
func (w *World) Run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("tick %d: panic: %v", w.Report.Ticks, p)
		}
	}()
	epoch := 50 * time.Millisecond
	for range w.cfg.Ticks {
		w.populate()
		w.people()
		w.pass(epoch)
		w.demon.Step(&w.in, &w.out)
		w.Report.Ticks++
		if err := w.check(); err != nil {
			return fmt.Errorf("tick %d: %w", w.Report.Ticks, err)
		}
		w.obey()
		epoch = w.out.Epoch
		if w.cfg.Crashes && w.rng.IntN(40) == 0 {
			if err := w.crash(); err != nil {
				return fmt.Errorf("crash after tick %d: %w", w.Report.Ticks, err)
			}
			epoch = demon.ShortEpoch
		}
	}
	return nil
}

// populate admits new workloads while there is room in the town.
func (w *World) populate() {
	if w.demon.Alive() >= w.cfg.Workloads || w.rng.IntN(3) == 0 {
		return
	}
	w.names++
	name := fmt.Sprintf("w%d", w.names)
	if w.rng.IntN(10) == 0 {
		name = fmt.Sprintf("w%d", w.rng.IntN(w.names)+1) // a name that may be taken, or free again
	}
	a := w.terms(name)
	slot, err := w.demon.Admit(w.now, a)
	if err != nil {
		w.Report.Refused++
		return
	}
	w.Report.Admitted++
	w.seat(slot, w.invent(name))
	w.procs[slot].free = a.Enforce != demon.EnforceOn
	line, _ := w.demon.LineOf(slot)
	w.procs[slot].id = line.ID
	delete(w.carry, line.ID) // another's, who was never durable
	if w.rng.IntN(20) == 0 {
		w.procs[slot].exited = true
		w.demon.Gone(slot, false) // the command could not be run
		return
	}
	w.demon.Started(slot)
}

// seat puts p into slot.
func (w *World) seat(slot int32, p *process) {
	for int(slot) >= len(w.procs) {
		w.procs = append(w.procs, nil)
	}
	for len(w.in.Usage) < len(w.procs) {
		w.in.Usage = append(w.in.Usage, demon.Usage{})
	}
	w.in.Usage[slot] = demon.Usage{}
	p.slot, w.procs[slot] = slot, p
}

// terms draws an admission.
func (w *World) terms(name string) demon.Admission {
	r := w.rng
	a := demon.Admission{
		Name: name, Bid: unit.Price(200 + r.Int64N(9000)),
		Policy: apoptosis.Policy{Grace: time.Duration(r.Int64N(int64(3 * time.Second)))},
	}
	if r.IntN(8) > 0 {
		a.Budget = unit.Credits(r.Int64N(int64(w.watts)*20) + 1)
	}
	if r.IntN(4) == 0 {
		a.Policy.WhenBroke = apoptosis.Pause
	}
	if r.IntN(3) == 0 {
		a.Cores = unit.MilliCores(100 + r.Int64N(int64(w.cores)))
	}
	if r.IntN(4) == 0 {
		a.MaxCPU = unit.CoreTime(1 + r.Int64N(int64(3*time.Second)))
	}
	if r.IntN(4) == 0 {
		a.MaxEnergy = unit.Microjoules(1 + r.Int64N(int64(w.watts)*3))
	}
	if r.IntN(6) == 0 {
		a.Timeout = time.Duration(1 + r.Int64N(int64(4*time.Second)))
	}
	if r.IntN(4) == 0 {
		a.Income = unit.Credits(r.Int64N(20_000_000))
	}
	if a.Budget > 0 && r.IntN(4) == 0 {
		a.Horizon = 5*time.Second + time.Duration(r.Int64N(int64(time.Minute)))
		a.Auto = r.IntN(2) == 0
	}
	if r.IntN(8) == 0 {
		a.Enforce = demon.EnforceObserve + demon.Enforce(r.IntN(2))
	}
	return a
}

// invent draws a behaviour.
func (w *World) invent(name string) *process {
	r := w.rng
	p := &process{
		name: name, threads: 1 + r.IntN(4), onFor: time.Duration(1 + r.Int64N(int64(time.Second))),
		hardy: r.IntN(3) == 0, watts: w.watts,
	}
	if r.IntN(2) == 0 {
		p.offFor = time.Duration(r.Int64N(int64(time.Second)))
	}
	if r.IntN(3) == 0 {
		p.dies = unit.CoreTime(1 + r.Int64N(int64(2*time.Second)))
	}
	if r.IntN(3) == 0 {
		p.earns = unit.CoreTime(time.Millisecond) * unit.CoreTime(1+r.Int64N(50))
	}
	if !w.in.Reading.Source.Modelled() {
		p.watts = w.watts/4 + unit.Microwatts(r.Int64N(int64(w.watts)*2))
	}
	return p
}

// people fund, bid, suspend, stop and misbehave.
func (w *World) people() {
	if len(w.procs) == 0 || w.rng.IntN(4) > 0 {
		return
	}
	p := w.procs[w.rng.IntN(len(w.procs))]
	if p == nil {
		return
	}
	switch w.rng.IntN(6) {
	case 0:
		_, _ = w.demon.Fund(p.slot, unit.Credits(w.rng.Int64N(100_000_000)-1_000_000))
	case 1:
		_ = w.demon.SetBid(p.slot, unit.Price(w.rng.Int64N(9000)-100))
	case 2:
		w.demon.Suspend(p.slot, w.rng.IntN(3) == 0)
		p.free = false
	case 3:
		if w.rng.IntN(4) == 0 {
			w.demon.Stop(p.slot, apoptosis.Stopped)
			p.free = false
		}
	case 4:
		w.demon.Report(p.slot, "", w.rng.Int64N(3)-1)
	case 5:
		w.in.Usage[p.slot].OOMKills += uint64(w.rng.IntN(40) / 39)
	}
}

// pass lets time go by: nominally one epoch, sometimes late, rarely for long.
func (w *World) pass(epoch time.Duration) {
	dt := epoch
	switch w.rng.IntN(100) {
	case 0:
		dt += time.Duration(w.rng.Int64N(int64(3 * time.Second)))
		w.Report.Suspended++
	case 1, 2, 3, 4, 5:
		dt += time.Duration(w.rng.Int64N(int64(22 * time.Millisecond)))
	case 6:
		dt = 1 + time.Duration(w.rng.Int64N(int64(epoch)))
	}
	w.Report.MaxDelay = max(w.Report.MaxDelay, dt)
	left := unit.CoreTime(int64(dt) * int64(w.cores) / 1000)
	busy := unit.CoreTime(0)
	for _, class := range w.order() {
		for _, p := range class {
			got := w.runFor(p, dt, left)
			left -= got
			busy += got
		}
	}
	system := unit.CoreTime(w.rng.Int64N(int64(dt)/10 + 1))
	w.now += unit.Instant(dt)
	w.joule += float64(w.idle) * dt.Seconds()
	w.joule += float64(w.watts) * time.Duration(system).Seconds()
	w.sense(busy, system)
}

// order is the sequence in which the invented kernel serves: by class, and one
// time in ten in no order at all.
func (w *World) order() [][]*process {
	classes := make([][]*process, 3+market.Tiers)
	listed := make(map[int32]bool)
	for i := range w.out.Shares {
		s := &w.out.Shares[i]
		p := w.procs[s.Slot]
		if p == nil {
			continue
		}
		listed[s.Slot] = true
		at := 0
		switch s.Allocation.Class {
		case market.Idle, market.Served:
		case market.Margin:
			at = 1
		case market.Loser:
			at = 2 + int(s.Allocation.Tier)
		case market.Frozen:
			at = len(classes) - 1
		}
		if w.rng.IntN(10) == 0 {
			at = w.rng.IntN(len(classes))
		}
		classes[at] = append(classes[at], p)
	}
	for _, p := range w.procs {
		if p != nil && !listed[p.slot] {
			classes[0] = append(classes[0], p)
		}
	}
	return classes
}

// runFor gives p its part of dt, at most left in all.
func (w *World) runFor(p *process, dt time.Duration, left unit.CoreTime) unit.CoreTime {
	if p.killed || p.exited || p.frozen {
		return 0
	}
	wants := w.wants(p, dt)
	got := min(wants, left)
	if p.lane {
		got = min(got, unit.CoreTime(dt/5)) // 20 ms in 100
	}
	if limit, ok := w.gate(p); ok && p.run+got > limit {
		got = max(0, limit-p.run)
		p.frozen = true
		w.demon.Exhausted(p.slot)
		w.Report.Frozen++
	}
	p.run += got
	p.wait += wants - got
	w.joule += float64(p.watts) * time.Duration(got).Seconds()
	w.work(p, got)
	if p.dies > 0 && p.run >= p.dies {
		p.exited = true
		w.demon.Gone(p.slot, w.rng.IntN(2) == 0)
	}
	return got
}

// wants is the core time that p's threads ask for in dt.
func (w *World) wants(p *process, dt time.Duration) unit.CoreTime {
	threads := unit.CoreTime(min(int64(p.threads), int64(w.cores)/1000))
	if p.offFor == 0 {
		return unit.CoreTime(dt) * threads
	}
	cycle := p.onFor + p.offFor
	at := p.phase % cycle
	p.phase += dt
	on := max(0, min(dt, p.onFor-at))
	return unit.CoreTime(on) * threads
}

// gate is the run at which the node would freeze p, with its lateness.
func (w *World) gate(p *process) (unit.CoreTime, bool) {
	for i := range w.out.Gates {
		if g := &w.out.Gates[i]; g.Slot == p.slot {
			late := unit.CoreTime(w.rng.Int64N(int64(4 * time.Millisecond)))
			return p.from + w.in.Usage[p.slot].Run + g.Allowance + late, true
		}
	}
	return 0, false
}

func (w *World) work(p *process, got unit.CoreTime) {
	if p.earns == 0 {
		return
	}
	p.sinceJob += got
	if n := p.sinceJob / p.earns; n > 0 {
		p.sinceJob -= n * p.earns
		w.demon.Report(p.slot, "", int64(n))
	}
}

// sense writes what the meters and the sensor show.
func (w *World) sense(busy, system unit.CoreTime) {
	w.in.Now = w.now
	w.in.Busy += busy + system
	w.in.System += system
	if w.rng.IntN(30) > 0 { // else the reading is lost: the last one stands
		w.in.Reading = physics.Reading{
			At: w.now, Energy: max(w.in.Reading.Energy, unit.Microjoules(w.joule)), Source: physics.SourceGeneric,
		}
	}
	w.in.Grid = demon.Tariff{}
	if w.rng.IntN(50) == 0 { // some out of bounds, some no longer valid
		w.in.Grid = demon.Tariff{
			Factor: unit.PPM(w.rng.Int64N(12_000_000)), Until: w.now + unit.Instant(w.rng.Int64N(int64(10*time.Second))) - unit.Instant(time.Second),
		}
	}
	for slot, p := range w.procs {
		if p == nil {
			continue
		}
		u := &w.in.Usage[slot]
		u.Run, u.Wait = p.run-p.from, p.wait-p.waitFrom
		u.Populated = !p.exited && !p.killed
		if w.rng.IntN(10) == 0 && p.exited {
			u.Populated = true // something it left behind
		}
	}
}

// obey carries out the actions.
func (w *World) obey() {
	for _, a := range w.out.Actions {
		p := w.procs[a.Slot]
		switch a.Kind {
		case demon.Freeze:
			p.frozen = true
			w.Report.Frozen++
		case demon.Thaw:
			p.frozen = false
		case demon.Term:
			p.frozen, p.lane = false, true
			if !p.hardy && w.rng.IntN(2) == 0 {
				p.exited = true
				w.demon.Gone(p.slot, true)
			}
		case demon.Kill:
			p.killed = true
		case demon.Bury:
			line, _ := w.demon.LineOf(a.Slot)
			w.Report.Dead[line.Reason.String()]++
			w.Report.Loss += line.Loss
			w.buried[line.ID], w.graves[line.ID] = line.Name, p
			w.demon.Release(a.Slot)
			w.procs[a.Slot] = nil
		}
	}
	for i := range w.out.Events {
		switch w.out.Events[i].Kind {
		case demon.EventWarned:
			w.Report.Warned++
		case demon.EventWouldStop:
			w.Report.WouldStop++
		default:
		}
	}
}
