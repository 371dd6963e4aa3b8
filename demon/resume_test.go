package demon

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/maxwell-hypervisor/maxwell/apoptosis"
	"github.com/maxwell-hypervisor/maxwell/ledger"
	"github.com/maxwell-hypervisor/maxwell/physics"
	"github.com/maxwell-hypervisor/maxwell/price"
	"github.com/maxwell-hypervisor/maxwell/unit"
)

// handed is what one tick gave to be made durable.
type handed struct {
	entries []ledger.Entry
	saves   []Saved
}

// disk is what a process leaves behind.
type disk struct {
	entries []ledger.Entry // since the books were last carried forward
	whole   []ledger.Entry // what they would be if they never had been
	docs    map[uint64]Saved
}

// carry makes the books so far the first entry of those that are kept.
func (k *disk) carry() {
	t := NewTally()
	for i := range k.entries {
		if status := t.Replay(&k.entries[i]); status != ledger.OK {
			panic(fmt.Sprintf("entry %d: %v", i+1, status))
		}
	}
	books := t.Books()
	k.entries = []ledger.Entry{{Change: ledger.Carried, Books: &books}}
}

func (k *disk) write(h handed) {
	k.entries = append(k.entries, h.entries...)
	k.whole = append(k.whole, h.entries...)
	for _, s := range h.saves {
		text, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		var back Saved
		if err := json.Unmarshal(text, &back); err != nil || back != s {
			panic(fmt.Sprintf("%s reads as %+v: %v", text, back, err))
		}
		k.docs[s.ID] = back
	}
}

// replayed returns the books of entries.
func replayed(t interface{ Fatalf(string, ...any) }, entries []ledger.Entry) *ledger.Ledger {
	l := ledger.New(ledger.Config{})
	for i := range entries {
		if status := l.Replay(&entries[i]); status != ledger.OK {
			t.Fatalf("entry %d (%v) of the disk: %v", i+1, entries[i].Change, status)
		}
	}
	return l
}

// being is a process tree as it truly is.
type being struct {
	name    string
	slot    int32
	run     unit.CoreTime // the kernel's counter
	from    unit.CoreTime // ... when the meter was begun
	frozen  bool
	gone    bool // its tree has ended
	unknown bool // ... and its counter with it
}

// mortal is a machine whose daemon dies.
type mortal struct {
	t      *rapid.T
	cfg    Config
	d      *Demon
	in     Input
	out    Decisions
	now    unit.Instant
	beings map[uint64]*being // that a living demon governs
	lines  map[uint64]Line   // of the dead
	truth  map[uint64]*being // of all that ever were durable
	disk   disk
	queue  []handed // not durable yet
	names  int
	ticks  int64
}

func newMortal(t *rapid.T) *mortal {
	cfg := Config{
		Cores: 2000, Reference: 10_000_000, Modelled: true, Landauer: price.DefaultLandauer(),
		Seed: [2]uint64{1, 2}, Journal: true, // the same seed for every process: ids must differ all the same
	}
	return &mortal{
		t: t, cfg: cfg, d: New(cfg, 0), beings: make(map[uint64]*being), lines: make(map[uint64]Line),
		truth: make(map[uint64]*being), disk: disk{docs: make(map[uint64]Saved)},
	}
}

func (m *mortal) ids() []uint64 { return slices.Sorted(maps.Keys(m.beings)) }

// pick draws a living being.
func (m *mortal) pick() *being {
	if len(m.beings) == 0 {
		return nil
	}
	return m.beings[rapid.SampledFrom(m.ids()).Draw(m.t, "whom")]
}

func (m *mortal) place(b *being, slot int32) {
	b.slot = slot
	for int(slot) >= len(m.in.Usage) {
		m.in.Usage = append(m.in.Usage, Usage{})
	}
	m.in.Usage[slot] = Usage{Populated: true}
}

func (m *mortal) admit() {
	t := m.t
	m.names++
	a := Admission{
		Name:   fmt.Sprintf("w%d", rapid.IntRange(max(0, m.names-20), m.names).Draw(t, "name")),
		Budget: unit.Credits(rapid.Int64Range(0, 40_000_000).Draw(t, "budget")),
		Bid:    unit.Price(rapid.Int64Range(500, 8000).Draw(t, "bid")),
		Policy: apoptosis.Policy{
			Grace: time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "grace")),
			Term:  apoptosis.DefaultTerm, WhenBroke: apoptosis.Choice(rapid.IntRange(0, 1).Draw(t, "when broke")),
		},
		Income:  unit.Credits(rapid.Int64Range(0, 1_000_000).Draw(t, "income")),
		Enforce: Enforce(max(0, rapid.IntRange(-3, 2).Draw(t, "enforce"))),
	}
	if a.Budget > 0 && rapid.Bool().Draw(t, "paced") {
		a.Horizon, a.Auto = 20*time.Second, rapid.Bool().Draw(t, "auto")
	}
	slot, err := m.d.Admit(m.now, a)
	if err != nil {
		return
	}
	l, _ := m.d.LineOf(slot)
	if _, twice := m.truth[l.ID]; twice {
		t.Fatalf("id %d was given twice", l.ID)
	}
	b := &being{name: a.Name}
	m.place(b, slot)
	m.beings[l.ID] = b
	if rapid.IntRange(0, 5).Draw(t, "pending") > 0 {
		m.d.Started(slot)
	}
}

// live is a tick in which everybody runs as he likes, and a hand-over.
func (m *mortal) live() {
	t := m.t
	dt := tick
	if rapid.IntRange(0, 9).Draw(t, "late") == 0 {
		dt = time.Duration(rapid.Int64Range(1, int64(2*time.Second)).Draw(t, "by"))
	}
	busy := m.burn(dt)
	m.now += unit.Instant(dt)
	m.in.Now = m.now
	m.in.Busy += busy
	m.in.Reading = physics.Reading{Energy: m.in.Reading.Energy + unit.Microjoules(busy/100), Source: physics.SourceGeneric}
	m.d.Step(&m.in, &m.out)
	m.ticks++
	for _, a := range m.out.Actions {
		m.obey(a)
	}
	m.hand()
}

// burn lets everybody run for at most dt.
func (m *mortal) burn(dt time.Duration) (busy unit.CoreTime) {
	for _, id := range m.ids() {
		b := m.beings[id]
		l, _ := m.d.LineOf(b.slot)
		if b.frozen || b.gone || !l.Started {
			continue
		}
		ran := unit.CoreTime(rapid.Int64Range(0, int64(dt)).Draw(m.t, "runs")) / 100 * 100
		if rapid.IntRange(0, 4).Draw(m.t, "little") == 0 {
			ran %= 1000 // less than a micro-$J
		}
		b.run += ran
		busy += ran
		u := &m.in.Usage[b.slot]
		u.Run = b.run - b.from
		u.Wait += unit.CoreTime(dt) - min(ran, unit.CoreTime(dt))
	}
	return busy
}

func (m *mortal) obey(a Action) {
	for id, b := range m.beings {
		if b.slot != a.Slot {
			continue
		}
		switch a.Kind {
		case Freeze, Thaw:
			b.frozen = a.Kind == Freeze
		case Term:
			b.frozen = false
		case Kill:
			m.end(b)
		case Bury:
			m.lines[id], _ = m.d.LineOf(a.Slot)
			m.d.Release(a.Slot)
			delete(m.beings, id)
			b.gone = true
			m.truth[id] = b
		}
		return
	}
}

func (m *mortal) end(b *being) {
	b.gone = true
	m.in.Usage[b.slot].Populated = false
}

func (m *mortal) hand() {
	m.queue = append(m.queue, handed{m.d.Entries(), m.d.Saves()})
	if rapid.IntRange(0, 2).Draw(m.t, "durable") == 0 {
		m.flush(len(m.queue))
	}
}

// flush makes the oldest n hand-overs durable.
func (m *mortal) flush(n int) {
	for _, h := range m.queue[:n] {
		m.disk.write(h)
	}
	m.queue = m.queue[n:]
}

// crash loses everything after a hand-over, lets the world go on, and comes back.
func (m *mortal) crash() {
	t := m.t
	m.flush(rapid.IntRange(0, len(m.queue)).Draw(t, "durable hand-overs"))
	m.queue = nil
	m.diskIsOfOnePiece()
	away := time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "away"))
	m.burn(away)
	m.now += unit.Instant(away)
	d, err := Resume(m.cfg, m.now, slices.Values(m.disk.entries))
	if err != nil {
		t.Fatalf("resume: %v", err)
	}
	m.knowsTheSame(d)
	m.d, m.in, m.out = d, Input{}, Decisions{}
	old := m.beings
	m.beings = make(map[uint64]*being)
	for id := range m.truth {
		if _, durable := m.disk.docs[id]; !durable { // it lived and died between two hand-overs
			delete(m.truth, id)
			delete(m.lines, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.disk.docs)) {
		s := m.disk.docs[id]
		if s.Dead() {
			continue
		}
		b := old[id]
		if b == nil { // it was buried, and that was lost
			b = m.truth[id]
		}
		m.comeBack(id, b, s)
	}
}

// knowsTheSame holds that who resumed from books that were carried forward is who
// resumes from every entry there ever was.
func (m *mortal) knowsTheSame(d *Demon) {
	want, err := Resume(m.cfg, m.now, slices.Values(m.disk.whole))
	if err != nil {
		m.t.Fatalf("resume from the first entry on: %v", err)
	}
	if diff := cmp.Diff(want.book.Books(), d.book.Books()); diff != "" {
		m.t.Fatalf("books from the first entry on, and carried forward:\n%s", diff)
	}
	a, b := &want.money, &d.money
	if a.prefix != b.prefix || a.at != b.at || want.nextID != d.nextID || !maps.Equal(a.wallet, b.wallet) {
		m.t.Fatalf("prefix %x, at %d, highest %d, wallets %v; carried forward %x, %d, %d, %v",
			a.prefix, a.at, want.nextID, a.wallet, b.prefix, b.at, d.nextID, b.wallet)
	}
	if !maps.Equal(a.asked.own, b.asked.own) || !maps.Equal(a.asked.made, b.asked.made) ||
		!slices.Equal(slices.Collect(a.asked.all()), slices.Collect(b.asked.all())) {
		m.t.Fatalf("requests %+v; carried forward %+v", a.asked, b.asked)
	}
}

// comeBack readopts or buries one saved workload.
func (m *mortal) comeBack(id uint64, b *being, s Saved) {
	t := m.t
	b.gone = b.gone || rapid.IntRange(0, 5).Draw(t, "ended meanwhile") == 0
	if b.gone {
		b.unknown = b.unknown || rapid.IntRange(0, 3).Draw(t, "counter lost") == 0
		l, err := m.d.BuryLost(m.now, s, b.run, !b.unknown)
		if err != nil {
			t.Fatal(err)
		}
		if l.Reason == apoptosis.None || l.State != apoptosis.Dead || b.unknown && s.Life.State != apoptosis.Dying && l.Reason != apoptosis.Lost {
			t.Fatalf("buried after its end as %v of %v", l.State, l.Reason)
		}
		m.lines[id], m.truth[id] = l, b
		return
	}
	slot, gap, err := m.d.Readopt(m.now, s, b.run)
	if err != nil {
		t.Fatal(err)
	}
	if gap.CPU != b.run-s.Run {
		t.Fatalf("%s: billed a gap of %d, it ran %d", b.name, gap.CPU, b.run-s.Run)
	}
	m.place(b, slot)
	b.from, b.frozen = b.run, m.d.Frozen(slot)
	m.beings[id] = b
	delete(m.lines, id)
}

// diskIsOfOnePiece holds that the books on disk are those of the saved states.
func (m *mortal) diskIsOfOnePiece() {
	books := replayed(m.t, m.disk.entries)
	alive := make(map[string]bool)
	for _, s := range m.disk.docs {
		if s.Dead() {
			continue
		}
		name := s.Terms.Name
		if alive[name] {
			m.t.Fatalf("%s is alive twice on disk", name)
		}
		alive[name] = true
		wallet, deposit := ledger.Wallet(name).ID, ledger.Deposit(name).ID
		if books.Balance(wallet) != s.Balance || books.Balance(deposit) != s.Deposit {
			m.t.Fatalf("%s: saved %d and %d, books %d and %d", name, s.Balance, s.Deposit, books.Balance(wallet), books.Balance(deposit))
		}
	}
	if books.Sum() != 0 {
		m.t.Fatalf("books on disk sum to %d", books.Sum())
	}
}

// check holds the laws on every line that there is.
func (m *mortal) check() {
	t := m.t
	st := m.d.Statement()
	m.queue = append(m.queue, handed{m.d.Entries(), m.d.Saves()})
	if b := st.Books; b.Attributed+b.System+b.Idle+b.Unattributed != b.Node || st.Sum != 0 {
		t.Fatalf("energy %+v, sum of money %d", b, st.Sum)
	}
	all := slices.Clone(m.disk.entries)
	for _, h := range m.queue {
		all = append(all, h.entries...)
	}
	books := replayed(t, all)
	have := make(map[string]unit.Credits)
	for a := range books.Accounts() {
		have[a.Name] = a.Balance()
	}
	if diff := cmp.Diff(st.Accounts, have); diff != "" {
		t.Fatalf("the demon's books and the journal's (-demon +journal):\n%s", diff)
	}
	var burnt unit.Microjoules
	for i := range st.Lines {
		l := &st.Lines[i]
		burnt += l.Energy
		if b := m.beings[l.ID]; b != nil {
			m.charged(l, b)
		}
	}
	if burnt > st.Books.Attributed {
		t.Fatalf("lines burnt %d uJ of %d", burnt, st.Books.Attributed)
	}
	for id, l := range m.lines {
		m.charged(&l, m.truth[id])
	}
}

// charged holds that l was charged for exactly what b ran, once.
func (m *mortal) charged(l *Line, b *being) {
	t := m.t
	seen := b.run
	if b.unknown {
		seen = l.CPU // nobody knows better
	}
	if l.CPU != seen {
		t.Fatalf("%s: charged %d ns, ran %d", l.Name, l.CPU, seen)
	}
	// The reference burns a micro-$J in 100 ns. Splitting an epoch and ending a
	// gap round by less than one each.
	if off := int64(l.Energy) - int64(l.CPU/100); off > m.ticks || off < -m.ticks {
		t.Fatalf("%s: %d uJ for %d ns", l.Name, l.Energy, l.CPU)
	}
	if paid := l.Spent.Energy; paid > unit.Credits(l.Energy) || paid+l.Loss < unit.Credits(l.Energy) {
		t.Fatalf("%s: paid %d and lost %d of %d uJ", l.Name, paid, l.Loss, l.Energy)
	}
	if l.Total() > l.Budget+l.Income || l.Budget+l.Income != l.Total()+l.Balance+l.Deposit {
		t.Fatalf("%s: spent %d of %d + %d, balance %d, deposit %d", l.Name, l.Total(), l.Budget, l.Income, l.Balance, l.Deposit)
	}
}

// TestDaemonMayDie: whenever the daemon dies, whatever of its hand-overs was
// durable, no money is lost and every nanosecond is charged exactly once.
func TestDaemonMayDie(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMortal(t)
		t.Repeat(map[string]func(*rapid.T){
			"admit": func(t *rapid.T) { m.t = t; m.admit() },
			"tick":  func(t *rapid.T) { m.t = t; m.live() },
			"again": func(t *rapid.T) { m.t = t; m.live() },
			"crash": func(t *rapid.T) { m.t = t; m.crash() },
			"carry": func(*rapid.T) { m.disk.carry() },
			"people": func(t *rapid.T) {
				m.t = t
				if b := m.pick(); b != nil {
					m.meddle(b)
				}
			},
			"": func(t *rapid.T) { m.t = t; m.check() },
		})
	})
}

func (m *mortal) meddle(b *being) {
	switch rapid.IntRange(0, 7).Draw(m.t, "how") {
	case 0:
		_, _ = m.d.Fund(b.slot, unit.Credits(rapid.Int64Range(1, 30_000_000).Draw(m.t, "amount")))
	case 1:
		_ = m.d.SetBid(b.slot, unit.Price(rapid.Int64Range(1, 8000).Draw(m.t, "bid")))
	case 2:
		m.d.Report(b.slot, "", 1)
	case 3:
		m.d.Suspend(b.slot, rapid.Bool().Draw(m.t, "asleep"))
	case 4:
		m.d.Stop(b.slot, apoptosis.Stopped)
	case 5:
		m.end(b)
		m.d.Gone(b.slot, rapid.Bool().Draw(m.t, "signaled"))
	case 6:
		_ = m.d.Transfer(b.slot, m.pick().slot, unit.Credits(rapid.Int64Range(1, 30_000_000).Draw(m.t, "amount")))
	case 7: // again and again, with amounts that differ
		id := ledger.MakeID(7, rapid.Uint64Range(1, 5).Draw(m.t, "id"))
		_, _ = m.d.FundAs(b.slot, unit.Credits(rapid.Int64Range(1, 2).Draw(m.t, "amount")), id)
	}
}
